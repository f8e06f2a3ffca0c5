// HeadLab: two sliders, two bars, one path. All numbers come from `answer`, which the kernel sends as one whole.

function render({ model, el }) {
  const lab = openLab(model, el, "HeadLab");
  const shotsText = (shots) => (shots === null ? `all ${model.get("answer").n_all}` : String(shots));

  const shots = slider("Labels per class", "how much the head may learn from", (index) =>
    lab.send({ shots: model.get("shots_choices")[index] }),
  );
  const strength = slider("Strength λ", "how firmly large weights are held back", (index) =>
    lab.send({ strength: model.get("answer").strengths[index] }),
  );
  const followId = uniqueId("follow");
  const follow = h("input", {
    type: "checkbox",
    id: followId,
    onchange: () => lab.send({ follow_best: follow.checked }),
  });

  const heading = h("header", {}, h("strong", {}, "HeadLab"), h("span", { class: "fk-about" }), lab.status);
  const figure = h("div", { class: "fk-figure" });
  const result = h("p", { class: "fk-result", role: "status", "aria-live": "polite" });
  const note = h("p", { class: "fk-note", hidden: true });
  const numbers = numbersToggle(() => tables(model.get("answer")));
  lab.root.prepend(heading);
  lab.root.append(
    h(
      "div",
      { class: "fk-controls" },
      shots.node,
      strength.node,
      h("div", { class: "fk-check" }, follow, h("label", { for: followId }, "let leave-one-out choose the strength")),
    ),
    figure,
    result,
    note,
    h("div", { class: "fk-foot" }, numbers.button),
    numbers.panel,
  );

  const pick = (index) => lab.send({ strength: model.get("answer").strengths[index] });
  let width = 0;
  let speak = 0;
  const draw = () => {
    const answer = model.get("answer");
    if (!answer.strengths) return;
    if (width) figure.replaceChildren(picture(answer, width, pick));
    numbers.refresh();
    note.hidden = !answer.note;
    note.textContent = answer.note ?? "";
    // The picture moves at once; the sentence waits for the hand, so that a screen reader is not talked over.
    clearTimeout(speak);
    speak = setTimeout(() => (result.textContent = sentence(answer)), result.textContent ? 250 : 0);
  };
  const place = () => {
    const answer = model.get("answer");
    if (!answer.strengths) return;
    const choices = model.get("shots_choices");
    shots.show(nearest(choices.map((c) => c ?? Infinity), model.get("shots") ?? Infinity), choices.length - 1, shotsText(model.get("shots")));
    const value = model.get("strength");
    strength.show(nearest(answer.strengths, value), answer.strengths.length - 1, plainNumber(value));
    follow.checked = model.get("follow_best");
    heading.querySelector(".fk-about").textContent = model.get("about");
  };

  lab.on("answer", () => {
    lab.settled();
    place();
    draw();
  });
  for (const name of ["shots", "strength", "follow_best", "shots_choices", "about"]) lab.on(name, place);
  place();
  const stop = drawToWidth(figure, (now) => {
    width = now;
    draw();
  });
  return () => {
    stop();
    clearTimeout(speak);
    lab.close();
  };
}

/** Index of the value closest on a log scale; the grids are ascending and positive, the last may be infinite. */
function nearest(values, wanted) {
  const exact = values.indexOf(wanted);
  if (exact >= 0) return exact;
  const distance = values.map((value) => Math.abs(Math.log(value / wanted)));
  return distance.indexOf(Math.min(...distance));
}

function sentence(a) {
  const budget = a.shots === null ? `all ${a.train.n} labels` : `${a.shots} labels per class`;
  const chosen = a.is_best ? ", which leave-one-out chooses" : "";
  const test = a.test ? `Test accuracy ${percent(a.test.accuracy)} (95 % interval ${interval(a.test.low, a.test.high)}); ` : "";
  return (
    `${test}train ${percent(a.train.accuracy)}, leave-one-out ${percent(a.loo)}. ` +
    `With ${budget} and strength ${plainNumber(a.strength)}${chosen}.`
  );
}

function tables(a) {
  const row = (name, score) => [name, String(score.n), percent(score.accuracy), percent(score.low), percent(score.high)];
  const rows = [row("train", a.train)];
  if (a.test) rows.push(row("test", a.test));
  return [
    dataTable("Accuracy now, with 95 % Wilson interval", ["on", "images", "accuracy", "low", "high"], rows),
    dataTable(
      "The path: leave-one-out accuracy of every strength",
      ["strength λ", "leave-one-out", ""],
      a.strengths.map((value, i) => [
        plainNumber(value),
        percent(a.path[i]),
        [value === a.best ? "best" : "", value === a.strength ? "now" : ""].filter(Boolean).join(", "),
      ]),
    ),
  ];
}

/** Bars and path side by side on one accuracy axis, so that heights compare across both. */
function picture(a, width, pick) {
  const font = clamp(14, width / 62, 24);
  const height = Math.round(clamp(300, width * 0.42, 620));
  const top = font * 2.6;
  const bottom = height - font * 3.9;
  const left = font * 3.4;
  const barsRight = left + clamp(170, width * 0.29, 520);
  const pathLeft = barsRight + font * 1.6;
  const right = width - font * 1.2;
  const y = (share) => bottom - share * (bottom - top);
  const logs = a.strengths.map(Math.log10);
  const [low, high] = [logs[0], logs[logs.length - 1]];
  const x = (value) => pathLeft + font + ((Math.log10(value) - low) / Math.max(1e-9, high - low)) * (right - pathLeft - 2 * font);
  const node = s("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `Bars of train and test accuracy beside the leave-one-out path. ${sentence(a)}`,
    style: `font-size: ${font}px`,
  });
  const text = (tx, ty, words, options = {}) => s("text", { x: tx, y: ty, "text-anchor": "middle", ...options }, words);

  const hatch = uniqueId("hatch");
  node.append(
    s(
      "defs",
      {},
      s(
        "pattern",
        { id: hatch, width: 9, height: 9, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        s("rect", { width: 9, height: 9, class: "fk-train-soft" }),
        s("rect", { width: 4.5, height: 9, class: "fk-train" }),
      ),
    ),
  );

  // the shared axis
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    node.append(
      s("line", { x1: left, x2: right, y1: y(share), y2: y(share), class: share ? "fk-grid" : "fk-axis" }),
      text(left - font * 0.5, y(share) + font * 0.35, `${100 * share} %`, { "text-anchor": "end", class: "fk-soft" }),
    );
  }
  node.append(text(left, font * 1.1, "Accuracy now", { "text-anchor": "start", class: "fk-title" }));
  node.append(text(pathLeft, font * 1.1, "Leave-one-out accuracy at every strength", { "text-anchor": "start", class: "fk-title" }));

  // bars with intervals
  const bars = [["train", a.train, `url(#${hatch})`], ["test", a.test, null]].filter(([, score]) => score);
  const slot = (barsRight - left) / bars.length;
  bars.forEach(([name, score, pattern], i) => {
    const middle = left + slot * (i + 0.5);
    const half = Math.min(slot * 0.3, font * 3.2);
    const cap = half * 0.32;
    const [lo, hi, at] = [y(score.low), y(score.high), y(score.accuracy)];
    node.append(
      s(
        "rect",
        { x: middle - half, width: 2 * half, y: at, height: bottom - at, class: `fk-bar fk-${name}`, style: pattern ? `fill: ${pattern}` : null },
      ),
      s("path", { d: `M${middle - cap} ${hi}h${2 * cap}M${middle - cap} ${lo}h${2 * cap}M${middle} ${lo}V${hi}`, class: "fk-whisker-edge" }),
      s("path", { d: `M${middle - cap} ${hi}h${2 * cap}M${middle - cap} ${lo}h${2 * cap}M${middle} ${lo}V${hi}`, class: "fk-whisker" }),
      text(middle, Math.min(hi, at) - font * 0.45, percent(score.accuracy), { class: "fk-number", "data-role": `${name}-accuracy`, style: `font-size: ${font * 1.25}px` }),
      text(middle, bottom + font * 1.3, name, { class: "fk-name" }),
      text(middle, bottom + font * 2.5, `${score.n} images`, { class: "fk-soft", style: `font-size: ${font * 0.85}px` }),
    );
  });

  // the path
  const decades = [];
  for (let exponent = Math.ceil(low - 1e-9); exponent <= high + 1e-9; exponent++) decades.push(exponent);
  const room = Math.max(1, Math.ceil((decades.length * font * 3.2) / (right - pathLeft)));
  decades.forEach((exponent) => {
    const at = x(10 ** exponent);
    node.append(s("line", { x1: at, x2: at, y1: bottom, y2: bottom + font * 0.35, class: "fk-axis" }));
    if (exponent % room === 0) {
      const label = text(at, bottom + font * 1.4, "10", { class: "fk-soft" });
      label.append(s("tspan", { dy: -font * 0.4, "font-size": "0.72em" }, String(exponent).replace("-", "−")));
      node.append(label);
    }
  });
  const points = a.strengths.map((value, i) => [x(value), y(a.path[i])]);
  const now = [x(a.strength), y(a.loo)];
  const best = [x(a.best), y(a.path[a.strengths.indexOf(a.best)])];
  node.append(
    text(pathLeft + font, bottom + font * 3, "← fits the labels", { "text-anchor": "start", class: "fk-soft" }),
    text((pathLeft + right) / 2, bottom + font * 3, "strength λ", { class: "fk-name" }),
    text(right - font, bottom + font * 3, "keeps weights small →", { "text-anchor": "end", class: "fk-soft" }),
    s("line", { x1: now[0], x2: now[0], y1: top - font * 0.2, y2: bottom, class: "fk-now-line" }),
    s("polyline", { points: points.map((p) => p.join(",")).join(" "), class: "fk-path" }),
  );
  const d = font * 0.72;
  node.append(
    s("path", { d: `M${best[0]} ${best[1] - d}l${d} ${d}l${-d} ${d}l${-d} ${-d}z`, class: "fk-best" }),
    s("circle", { cx: now[0], cy: now[1], r: font * 0.42, class: "fk-now" }),
  );

  // chance: what naming the commonest class gets
  node.append(
    s("line", { x1: left, x2: right, y1: y(a.chance), y2: y(a.chance), class: "fk-chance" }),
    text(right, y(a.chance) - font * 0.4, `commonest class ${percent(a.chance, 0)}`, { "text-anchor": "end", class: "fk-halo fk-chance-text" }),
  );

  // labels of the two points, kept inside the panel and apart from each other
  const inside = (at, half) => clamp(pathLeft + half, at, right - half);
  const label = `now ${percent(a.loo)}`;
  if (a.is_best) {
    node.append(text(inside(now[0], font * 6), now[1] - font * 1.3, `${label}, the best`, { class: "fk-halo fk-strong", "data-role": "loo-accuracy" }));
  } else {
    const near = Math.abs(best[0] - now[0]) < font * 9 && Math.abs(best[1] - now[1]) < font * 3.4;
    node.append(
      text(inside(best[0], font * 4.5), best[1] - font * 1.2, `best ${percent(a.path[a.strengths.indexOf(a.best)])}`, { class: "fk-halo fk-best-text" }),
      text(inside(now[0], font * 4.5), now[1] + (near ? font * 2 : -font * 1.1), label, { class: "fk-halo fk-strong", "data-role": "loo-accuracy" }),
    );
  }

  // a mouse or a finger may also point at a strength; the keyboard has the slider
  const choose = (event) => {
    const box = node.getBoundingClientRect();
    const at = ((event.clientX - box.left) * width) / box.width;
    const distance = points.map((p) => Math.abs(p[0] - at));
    pick(distance.indexOf(Math.min(...distance)));
  };
  node.append(
    s("rect", {
      x: pathLeft, y: top, width: right - pathLeft, height: bottom - top, class: "fk-pick",
      onpointerdown: choose,
      onpointermove: (event) => event.buttons === 1 && choose(event),
    }),
  );
  return node;
}

export default { render };
