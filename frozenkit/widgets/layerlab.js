// LayerLab: a strip of layers, accuracy by depth, a map of held-out images. All numbers come from `answer`.

function render({ model, el }) {
  const lab = openLab(model, el, "LayerLab");
  const thumbs = thumbnails(model, "images");
  const heading = h("header", {}, h("strong", {}, "LayerLab"), h("span", { class: "fk-about" }, model.get("about")), lab.status);
  const strip = h("div", { class: "fk-strip", role: "toolbar", "aria-label": "Layers, first to last" });
  const severalId = uniqueId("several");
  const several = h("input", { type: "checkbox", id: severalId });
  const shotsText = (value) => (value === null ? "all" : String(value));
  const shots = slider("Labels per class", "how many the probes may learn from", (i) =>
    lab.send({ shots: model.get("shots_choices")[i] }),
  );
  const pooling = picker("Pooling", model.get("poolings").map((p) => [p, p]), (value) => lab.send({ pooling: value }));
  const view = picker("Map", [["LDA", "LDA: classes apart"], ["PCA", "PCA: most variance"]], (value) => lab.send({ view: value }));
  const reveal = h("button", { type: "button", onclick: () => lab.send({ revealed: true }) }, "Reveal the test score");
  const figure = h("div", { class: "fk-figure" });
  const peek = h("div", { class: "fk-peek", "aria-hidden": "true" });
  const result = h("p", { class: "fk-result", role: "status", "aria-live": "polite" });
  const numbers = numbersToggle(() => tables(model.get("answer")));
  const keeps = keepButtons("layerlab", () => figure.querySelector("svg"), () => {
    const a = model.get("answer");
    return csvOf([["layer", "leave-one-out", "low", "high"], ...a.curve.map((c) => [c.name, c.value, c.low, c.high])]);
  });
  lab.root.prepend(heading);
  lab.root.append(
    strip,
    h(
      "div",
      { class: "fk-check" },
      several,
      h("label", { for: severalId }, "put several side by side"),
      h("small", {}, "then a click adds a layer or takes it away"),
    ),
    h("div", { class: "fk-controls" }, shots.node, h("div", {}, pooling.node, view.node)),
    lab.working,
    figure,
    peek,
    result,
    h("div", { class: "fk-foot" }, reveal, numbers.button, keeps),
    numbers.panel,
  );

  const pick = (name) => {
    const now = model.get("chosen");
    if (!several.checked) return lab.send({ chosen: [name] });
    const next = now.includes(name) ? now.filter((other) => other !== name) : [...now, name];
    if (next.length) lab.send({ chosen: next });
  };
  const layers = model.get("layers");
  const largest = Math.max(...layers.map(({ shape }) => shape?.[0] ?? 1));
  const widest = Math.max(...layers.map(({ shape }) => shape?.[2] ?? 1));
  const buttons = layers.map(({ name, shape }, i) => {
    const [side, , channels] = shape ?? [1, 1, 1];
    const block = h("span", {
      class: "fk-block",
      style: `height:${Math.max(3, (56 * side) / largest)}px;width:${Math.max(3, (56 * channels) / widest)}px`,
    });
    const words = shape ? `${side}×${shape[1]}×${channels}` : "";
    const button = h(
      "button",
      { type: "button", title: `${name}: ${words}`, "aria-pressed": "false", tabindex: i ? -1 : 0, onclick: () => pick(name) },
      h("span", { class: "fk-well" }, block),
      h("span", { class: "fk-layer-name" }, name),
      h("small", {}, words),
    );
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const to = event.key === "Home" ? 0 : event.key === "End" ? layers.length - 1 : i + step;
      if (Number.isNaN(to) || !buttons[to]) return;
      event.preventDefault();
      buttons[to].focus();
      if (!several.checked) pick(layers[to].name);
    });
    return button;
  });
  strip.append(...buttons);

  let width = 0;
  let speak = 0;
  const hover = (i) => {
    const a = model.get("answer");
    peek.replaceChildren();
    if (i === null || !thumbs.has()) return peek.append(h("small", {}, "Point at a mark to see its image."));
    peek.append(thumbs.tile(i, a.sheet, 64), h("span", {}, a.classes[a.labels[i]]));
  };
  const draw = () => {
    const a = model.get("answer");
    if (!a.curve) return;
    buttons.forEach((button, i) => {
      const { name } = layers[i];
      button.setAttribute("aria-pressed", String(a.chosen.includes(name)));
      button.classList.toggle("fk-best-layer", name === a.best);
      if (a.chosen[0] === name) buttons.forEach((other) => (other.tabIndex = other === button ? 0 : -1));
    });
    const choices = model.get("shots_choices");
    shots.show(Math.max(0, choices.indexOf(model.get("shots"))), choices.length - 1, shotsText(model.get("shots")));
    pooling.show(model.get("pooling"));
    view.show(model.get("view"));
    reveal.disabled = model.get("revealed");
    reveal.textContent = model.get("revealed") ? "Test score revealed" : "Reveal the test score";
    if (width) figure.replaceChildren(drawing(a, width, pick, hover));
    const chosen = strip.querySelector("[aria-pressed=true]"); // in sight where the strip scrolls
    if (chosen) strip.scrollLeft = chosen.offsetLeft - strip.offsetLeft - (strip.clientWidth - chosen.offsetWidth) / 2;
    hover(null);
    numbers.refresh();
    clearTimeout(speak);
    speak = setTimeout(() => (result.textContent = sentence(a)), result.textContent ? 250 : 0);
  };
  lab.on("answer", () => {
    lab.settled();
    draw();
  });
  lab.on("images", thumbs.load);
  for (const name of ["shots", "pooling", "view"]) lab.on(name, draw);
  const stop = drawToWidth(figure, (now) => {
    width = now;
    draw();
  });
  return () => {
    stop();
    clearTimeout(speak);
    thumbs.close();
    lab.close();
  };
}

function sentence(a) {
  const what = a.chosen.length > 1 ? `${a.chosen.join(" + ")}, side by side` : a.chosen[0];
  const own = a.chosen.length === 1 && a.chosen[0] === a.best ? ", which leave-one-out chooses" : "";
  const test = a.test
    ? ` On ${a.n_test} test images ${percent(a.test.value)} (95 % interval ${interval(a.test.low, a.test.high)}).` +
      (own ? "" : " You are choosing by the test score now, so it flatters.")
    : "";
  return (
    `${what}${own}: ${a.width.toLocaleString("en")} features, leave-one-out ${percent(a.now.value)} ` +
    `(${interval(a.now.low, a.now.high)}) on ${a.n_train} training images.${test}`
  );
}

function tables(a) {
  const count = a.classes.map((name, k) => [name, String(a.labels.filter((label) => label === k).length)]);
  return [
    dataTable(
      "Leave-one-out accuracy by layer, with 95 % Wilson interval",
      ["layer", "accuracy", "low", "high"],
      a.curve.map((c) => [c.name, percent(c.value), percent(c.low), percent(c.high)]),
    ),
    dataTable("Held-out images in the map", ["class", "images"], count),
  ];
}

function drawing(a, width, pick, hover) {
  const font = typeScale * clamp(13, width / 66, 22);
  const stacked = width < 40 * font;
  const tall = clamp(230, width * 0.33, 460);
  const left = font * 3.6;
  const middle = stacked ? width - font : width * 0.52;
  const top = font * 2.4;
  const curve = { font, left, right: middle, top, bottom: top + tall };
  const names = font * 5.4;
  const map = {
    font,
    left: stacked ? left : middle + font * 2,
    right: width - font,
    top: stacked ? curve.bottom + names + font * 2.4 : top,
  };
  map.bottom = map.top + tall;
  const legend = legendRows(a, map.right - map.left, font);
  const height = Math.ceil(Math.max(curve.bottom + names, map.bottom + font * (1.2 + 1.5 * legend.length)));
  const node = s("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `Accuracy by depth beside a map of held-out images. ${sentence(a)}`,
    style: `font-size: ${font}px`,
  });
  node.append(...drawCurve(a, curve, pick), ...drawMap(a, map, hover), ...drawLegend(legend, map));
  return node;
}

function drawCurve(a, { font, left, right, top, bottom }, pick) {
  const y = (share) => bottom - share * (bottom - top);
  const x = (i) => left + font + (i * (right - left - 2 * font)) / Math.max(1, a.curve.length - 1);
  const nodes = [text(left, font * 1.2, "Leave-one-out accuracy by depth", { "text-anchor": "start", class: "fk-title" })];
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    nodes.push(
      s("line", { x1: left, x2: right, y1: y(share), y2: y(share), class: share ? "fk-grid" : "fk-axis" }),
      text(left - font * 0.4, y(share) + font * 0.35, `${100 * share} %`, { "text-anchor": "end", class: "fk-soft" }),
    );
  }
  const at = a.curve.map((c, i) => [x(i), y(c.value)]);
  nodes.push(
    s("polyline", { points: at.map((p) => p.join(",")).join(" "), class: "fk-depth" }),
    ...a.curve.map((c, i) => s("line", { x1: x(i), x2: x(i), y1: y(c.low), y2: y(c.high), class: "fk-spread" })),
  );
  a.curve.forEach((c, i) => {
    const chosen = a.chosen.includes(c.name);
    if (c.name === a.best) nodes.push(s("circle", { cx: at[i][0], cy: at[i][1], r: font * 0.85, class: "fk-ring" }));
    nodes.push(
      s("circle", { cx: at[i][0], cy: at[i][1], r: font * (chosen ? 0.5 : 0.34), class: chosen ? "fk-dot fk-dot-now" : "fk-dot" }),
      text(0, 0, c.name, {
        "text-anchor": "end",
        class: chosen ? "fk-strong" : "fk-soft",
        transform: `translate(${at[i][0] + font * 0.3} ${bottom + font * 1.1}) rotate(-38)`,
      }),
      s("rect", {
        x: at[i][0] - font * 1.2,
        y: top,
        width: font * 2.4,
        height: bottom - top,
        class: "fk-pick-layer",
        onclick: () => pick(c.name),
      }),
    );
  });
  const now = a.chosen.length === 1 ? a.curve.findIndex((c) => c.name === a.chosen[0]) : -1;
  const place = now < 0 ? [left + font, y(a.now.value)] : at[now];
  if (now < 0) {
    nodes.push(s("line", { x1: left, x2: right, y1: place[1], y2: place[1], class: "fk-together" }));
  }
  nodes.push(
    text(clamp(left + font * 3, place[0], right - font * 3), Math.max(top + font, y(a.now.high) - font * 0.7), percent(a.now.value), {
      class: "fk-strong fk-halo",
      "data-role": "loo",
    }),
  );
  return nodes;
}

function drawMap(a, { font, left, right, top, bottom }, hover) {
  const x = (value) => left + font * 0.8 + value * (right - left - font * 1.6);
  const y = (value) => bottom - font * 0.8 - value * (bottom - top - font * 1.6);
  const size = clamp(0.8, font / 14, 1.5);
  return [
    text(left, top - font * 1.2, `Held-out images, ${a.view}`, { "text-anchor": "start", class: "fk-title" }),
    s("rect", { x: left, y: top, width: right - left, height: bottom - top, class: "fk-map" }),
    ...a.points.map(([px, py], i) =>
      s("path", {
        d: classMark(a.labels[i]),
        transform: `translate(${x(px)} ${y(py)}) scale(${size})`,
        fill: classColour(a.labels[i]),
        class: "fk-mark",
        onpointerenter: () => hover(i),
        onpointerleave: () => hover(null),
      }),
    ),
  ];
}

function legendRows(a, width, font) {
  const rows = [[]];
  let used = 0;
  const most = a.classes.length > 30 ? 30 : a.classes.length;
  a.classes.slice(0, most).forEach((name, k) => {
    const short = name.length > 22 ? `${name.slice(0, 21)}…` : name;
    const wide = (short.length * 0.56 + 2.6) * font;
    if (used + wide > width && rows[rows.length - 1].length) {
      rows.push([]);
      used = 0;
    }
    rows[rows.length - 1].push({ k, short, at: used });
    used += wide;
  });
  return rows;
}

function drawLegend(rows, { font, left, bottom }) {
  return rows.flatMap((row, r) =>
    row.flatMap(({ k, short, at }) => [
      s("path", {
        d: classMark(k),
        transform: `translate(${left + at + font * 0.6} ${bottom + font * (1.3 + 1.5 * r)}) scale(1.1)`,
        fill: classColour(k),
      }),
      text(left + at + font * 1.4, bottom + font * (1.65 + 1.5 * r), short, { "text-anchor": "start" }),
    ]),
  );
}

export default { render };
