// HeadLab: two sliders, two bars, one path. All numbers come from `answer`, which the kernel sends as one whole.

function render({ model, el }) {
  const lab = openLab(model, el, "HeadLab");
  const shotsText = (shots) => (shots === null ? `all ${model.get("answer").n_all}` : String(shots));

  const pick = (index) => lab.send({ strength: model.get("answer").strengths[index], follow_best: false });
  const shots = slider("Labels per class", "how much the head may learn from", (index) =>
    lab.send({ shots: model.get("shots_choices")[index] }),
  );
  const strength = slider("Strength λ", "how firmly large weights are held back", (index) =>
    pick(index),
  );
  const followId = uniqueId("follow");
  const follow = h("input", {
    type: "checkbox",
    id: followId,
    onchange: () => lab.send({ follow_best: follow.checked }),
  });

  const head = picker("Head", [["ridge", "linear (ridge)"], ["softmax", "linear (softmax)"], ["prototype", "class means"], ["knn", "nearest neighbours"], ["mlp", "one hidden layer (MLP)"]], (value) =>
    lab.send({ head: value }),
  );
  const also = picker(
    "Also show",
    [["nothing", "nothing more"], ["reliability", "as sure as right?"], ["boundary", "the boundary in a plane"], ["learning curve", "the learning curve"]],
    (value) => lab.send({ also: value }),
  );
  const temperature = slider("Temperature", "divides the logits: how sure, not which class", (index) => lab.send({ temperature: 2 ** ((index - 20) / 4) }));
  const normId = uniqueId("normalize");
  const norm = h("input", { type: "checkbox", id: normId, onchange: () => lab.send({ normalize: norm.checked }) });
  const second = h("div", { class: "fk-second" });
  const heading = h("header", {}, h("strong", {}, "HeadLab"), h("span", { class: "fk-about" }), lab.status);
  const figure = h("div", { class: "fk-figure" });
  const result = h("p", { class: "fk-result", role: "status", "aria-live": "polite" });
  const note = h("p", { class: "fk-note", hidden: true });
  const numbers = numbersToggle(() => tables(model.get("answer")));
  const keeps = keepButtons("headlab", () => figure.querySelector("svg"), () => {
    const a = model.get("answer");
    return csvOf([["strength", "leave-one-out"], ...a.strengths.map((value, i) => [value, a.path[i]])]);
  });
  lab.root.prepend(heading);
  lab.root.append(
    h(
      "div",
      { class: "fk-controls" },
      head.node,
      also.node,
      shots.node,
      strength.node,
      temperature.node,
      h(
        "div",
        { class: "fk-check fk-follow" },
        follow,
        h("label", { for: followId }, "let leave-one-out choose the strength"),
        h("small", {}, "it judges each training image by a head that never saw that image"),
      ),
      h("div", { class: "fk-check" }, norm, h("label", { for: normId }, "scale features to length 1")),
    ),
    lab.working,
    figure,
    second,
    result,
    note,
    h("div", { class: "fk-foot" }, numbers.button, keeps),
    numbers.panel,
  );

  let width = 0;
  let speak = 0;
  const draw = () => {
    const answer = model.get("answer");
    if (!answer.strengths) return;
    if (width) figure.replaceChildren(drawing(answer, width, pick));
    if (width) second.replaceChildren(...extraDrawing(answer, width));
    numbers.refresh();
    note.hidden = !answer.note;
    note.textContent = answer.note ?? "";
    // The drawing moves at once; the sentence waits for the hand, so that a screen reader is not talked over.
    clearTimeout(speak);
    speak = setTimeout(() => (result.textContent = sentence(answer)), result.textContent ? 250 : 0);
  };
  const place = () => {
    const answer = model.get("answer");
    if (!answer.strengths) return;
    const choices = model.get("shots_choices");
    const budget = model.get("shots");
    const at = nearest(
      choices.map((choice) => choice ?? Infinity),
      budget ?? Infinity,
    );
    shots.show(at, choices.length - 1, shotsText(budget));
    const value = model.get("strength");
    const ridge = answer.strengths.length > 0;
    if (ridge) strength.show(nearest(answer.strengths, value), answer.strengths.length - 1, plainNumber(value));
    strength.node.hidden = !ridge;
    lab.root.querySelector(".fk-follow").hidden = !ridge;
    head.show(model.get("head"));
    also.show(model.get("also"));
    norm.checked = model.get("normalize");
    temperature.node.hidden = model.get("also") !== "reliability";
    temperature.show(Math.round(20 + 4 * Math.log2(model.get("temperature"))), 40, plainNumber(model.get("temperature")));
    follow.checked = model.get("follow_best");
    heading.querySelector(".fk-about").textContent = model.get("about");
  };

  lab.on("answer", () => {
    lab.settled();
    place();
    draw();
  });
  for (const name of ["shots", "strength", "follow_best", "shots_choices", "about", "head", "normalize", "also", "temperature"]) lab.on(name, place);
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

/** On which images the strength, the neighbours or the epoch were chosen; never on test. */
const JUDGED = { "leave-one-out": "leave-one-out", "cross-validation": "5-fold cross-validation", val: "the fifth of train set aside" };

function sentence(a) {
  const budget = a.shots === null ? `all ${a.train.n} labels` : `${a.shots} labels per class`;
  if (!a.strengths.length) {
    const found = a.test ? `Test accuracy ${percent(a.test.accuracy)} (95 % interval ${interval(a.test.low, a.test.high)}); ` : "";
    const strength = a.strength === null ? "this head has no strength to choose" : `strength ${plainNumber(a.strength)} was chosen there`;
    return `${found}train ${percent(a.train.accuracy)}, ${JUDGED[a.chosen_on]} ${percent(a.loo)}. With ${budget}; ${strength}.`;
  }
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

/** Bars and path on one accuracy axis, so that heights compare across both; below each other where it is narrow. */
function drawing(a, width, pick) {
  const font = typeScale * clamp(14, width / 62, 24);
  const left = font * 3.9;
  const right = width - font * 0.6;
  const stacked = width < 34 * font;
  const plot = clamp(200, width * 0.3, 430); // height of 0..100 %
  const top = font * 3.7;
  const barsRight = stacked ? right : left + clamp(11 * font, width * 0.29, 520);
  const bars = panel({ font, left, right: barsRight, top, bottom: top + plot });
  const below = stacked ? bars.bottom + font * 7 : top;
  const path = panel({ font, left: stacked ? left : barsRight + font * 1.6, right, top: below, bottom: below + plot });
  const height = Math.ceil(path.bottom + font * 3.7);
  const node = s("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `Bars of train and test accuracy beside the leave-one-out path. ${sentence(a)}`,
    style: `font-size: ${font}px`,
  });
  node.append(...gridLines(bars, right));
  if (stacked) node.append(...gridLines(path, right));
  node.append(
    chanceLine(a, bars, right),
    stacked ? chanceLine(a, path, right) : "",
    chanceLabel(a, path),
    ...drawBars(a, bars, width),
    ...(a.strengths.length ? drawPath(a, path, width, pick) : drawNoPath(a, path)),
  );
  return node;
}

function panel(box) {
  return { ...box, y: (share) => box.bottom - share * (box.bottom - box.top) };
}

function gridLines({ font, left, y }, right) {
  return [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    s("line", { x1: left, x2: right, y1: y(share), y2: y(share), class: share ? "fk-grid" : "fk-axis" }),
    text(left - font * 0.5, y(share) + font * 0.35, `${100 * share} %`, { "text-anchor": "end", class: "fk-soft" }),
  ]);
}

/** What naming the commonest class gets; labelled where the path, which starts high, leaves room. */
function chanceLine(a, { left, y }, right) {
  return s("line", { x1: left, x2: right, y1: y(a.chance), y2: y(a.chance), class: "fk-chance" });
}

function chanceLabel(a, { font, left, y }) {
  const side = y(0) - y(a.chance) > font * 1.6 ? font * 1.15 : -font * 0.45;
  const options = { "text-anchor": "start", class: "fk-halo fk-chance-text" };
  return text(left + font, y(a.chance) + side, `commonest class ${percent(a.chance, 0)}`, options);
}

function drawBars(a, { font, left, right, bottom, top, y }, width) {
  const hatch = uniqueId("hatch");
  const nodes = [
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
    text(left, top - font * 2.6, "Accuracy now", { "text-anchor": "start", class: "fk-title" }),
  ];
  const shown = [
    ["train", a.train, `fill: url(#${hatch})`],
    ["test", a.test, null],
  ].filter(([, score]) => score);
  const slot = (right - left) / shown.length;
  shown.forEach(([name, score, style], i) => {
    const middle = left + slot * (i + 0.5);
    const half = Math.min(slot * 0.32, font * 3.4);
    const cap = half * 0.32;
    const [low, high, at] = [y(score.low), y(score.high), y(score.accuracy)];
    const whisker = `M${middle - cap} ${high}h${2 * cap}M${middle - cap} ${low}h${2 * cap}M${middle} ${low}V${high}`;
    nodes.push(
      s("rect", { x: middle - half, width: 2 * half, y: at, height: bottom - at, class: `fk-bar fk-${name}`, style }),
      s("path", { d: whisker, class: "fk-whisker-edge" }),
      s("path", { d: whisker, class: "fk-whisker" }),
      text(middle, Math.min(high, at) - font * 0.5, percent(score.accuracy), {
        class: "fk-number fk-halo",
        "data-role": `${name}-accuracy`,
        style: `font-size: ${font * 1.35}px`,
      }),
      text(middle, bottom + font * 1.3, name, { class: "fk-name" }),
      text(middle, bottom + font * 2.5, `${score.n} images`, { class: "fk-soft", style: `font-size: ${font * 0.85}px` }),
    );
  });
  return nodes;
}

const TITLED = { "leave-one-out": "Leave-one-out accuracy", "cross-validation": "Cross-validated accuracy", val: "Accuracy on a fifth, set aside" };

function drawNoPath(a, { font, left, right, top, y }) {
  const at = y(a.loo);
  return [
    text(left, top - font * 2.6, TITLED[a.chosen_on], { "text-anchor": "start", class: "fk-title" }),
    s("line", { x1: left, x2: right, y1: at, y2: at, class: "fk-path" }),
    text((left + right) / 2, at - font * 0.8, percent(a.loo), { class: "fk-halo fk-strong", "data-role": "loo-accuracy" }),
  ];
}

function drawPath(a, { font, left, right, top, bottom, y }, width, pick) {
  const logs = a.strengths.map(Math.log10);
  const [low, high] = [logs[0], logs[logs.length - 1]];
  const scale = (right - left - 2 * font) / Math.max(1e-9, high - low);
  const x = (value) => left + font + (Math.log10(value) - low) * scale;
  const wide = right - left > 30 * font;
  const title = wide ? "Leave-one-out accuracy at every strength" : "Leave-one-out accuracy";
  const nodes = [text(left, top - font * 2.6, title, { "text-anchor": "start", class: "fk-title" })];

  const decades = [];
  for (let exponent = Math.ceil(low - 1e-9); exponent <= high + 1e-9; exponent++) decades.push(exponent);
  const every = Math.max(1, Math.ceil((decades.length * font * 3) / (right - left)));
  for (const exponent of decades) {
    const at = x(10 ** exponent);
    nodes.push(s("line", { x1: at, x2: at, y1: bottom, y2: bottom + font * 0.35, class: "fk-axis" }));
    if (exponent % every) continue;
    const label = text(at, bottom + font * 1.5, "10", { class: "fk-soft" });
    label.append(s("tspan", { dy: -font * 0.4, "font-size": "0.72em" }, String(exponent).replace("-", "−")));
    nodes.push(label);
  }
  nodes.push(text((left + right) / 2, bottom + font * 3, "strength λ", { class: "fk-name" }));
  if (wide) {
    nodes.push(
      text(left + font, bottom + font * 3, "← fits the labels", { "text-anchor": "start", class: "fk-soft" }),
      text(right - font, bottom + font * 3, "keeps weights small →", { "text-anchor": "end", class: "fk-soft" }),
    );
  }

  const points = a.strengths.map((value, i) => [x(value), y(a.path[i])]);
  const now = points[a.strengths.indexOf(a.strength)];
  const best = points[a.strengths.indexOf(a.best)];
  const d = font * 0.75;
  nodes.push(
    s("line", { x1: now[0], x2: now[0], y1: top, y2: bottom, class: "fk-now-line" }),
    s("polyline", { points: points.map((p) => p.join(",")).join(" "), class: "fk-path" }),
    s("path", { d: `M${best[0]} ${best[1] - d}l${d} ${d}l${-d} ${d}l${-d} ${-d}z`, class: "fk-best" }),
    s("circle", { cx: now[0], cy: now[1], r: font * 0.42, class: "fk-now" }),
  );

  // labels of the two points, kept inside the panel and apart from each other
  const put = (point, half, drop, words, options) =>
    text(clamp(left + half, point[0], right - half), point[1] + drop, words, options);
  const nowLabel = { class: "fk-halo fk-strong", "data-role": "loo-accuracy" };
  if (a.is_best) {
    nodes.push(put(now, font * 6.2, -font * 1.3, `now ${percent(a.loo)}, the best`, nowLabel));
  } else {
    const apart = Math.abs(best[0] - now[0]) > font * 7.5 || Math.abs(best[1] - now[1]) > font * 3.4;
    const under = now[1] + font * 2.2 < bottom ? font * 2 : -font * 3;
    const bestScore = a.path[a.strengths.indexOf(a.best)];
    nodes.push(
      put(best, font * 4.2, -font * 1.2, `best ${percent(bestScore)}`, { class: "fk-halo fk-best-text" }),
      put(now, font * 4.2, apart ? -font * 1.1 : under, `now ${percent(a.loo)}`, nowLabel),
    );
  }

  // a mouse or a finger may also point at a strength; the keyboard has the slider
  const choose = (event) => {
    const box = event.currentTarget.ownerSVGElement.getBoundingClientRect();
    const at = ((event.clientX - box.left) * width) / box.width;
    const distance = points.map((p) => Math.abs(p[0] - at));
    pick(distance.indexOf(Math.min(...distance)));
  };
  nodes.push(
    s("rect", {
      x: left,
      y: top,
      width: right - left,
      height: bottom - top,
      class: "fk-pick",
      onpointerdown: choose,
      onpointermove: (event) => event.buttons === 1 && choose(event),
    }),
  );
  return nodes;
}

export default { render };
