// What HeadLab may show besides its path; loaded between base.js and headlab.js.

/** The second drawing: what `also` asks for, once it is there. */
function extraDrawing(a, width) {
  if (a.also === "nothing" || !a.extra) return [];
  const font = typeScale * clamp(14, width / 62, 24);
  const tall = clamp(240, width * 0.34, 430);
  const box = { font, left: font * 4.4, right: Math.min(width - font, font * 4.4 + tall * 1.5), top: font * 2.4, bottom: font * 2.4 + tall };
  const height = Math.ceil(box.bottom + font * (a.also === "boundary" ? 1 : 4));
  const draw = { reliability: drawReliability, boundary: drawBoundary, "learning curve": drawCurve }[a.also];
  const node = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", style: `font-size:${font}px` });
  const { nodes, words } = draw(a, box, width);
  node.setAttribute("aria-label", words);
  node.append(...nodes);
  return [node];
}

function shareAxes({ font, left, right, top, bottom }, title, yName, xName) {
  const y = (share) => bottom - share * (bottom - top);
  return [
    text(left, top - font * 1.2, title, { "text-anchor": "start", class: "fk-title" }),
    ...[0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
      s("line", { x1: left, x2: right, y1: y(share), y2: y(share), class: share ? "fk-grid" : "fk-axis" }),
      text(left - font * 0.5, y(share) + font * 0.35, `${100 * share} %`, { "text-anchor": "end", class: "fk-soft" }),
    ]),
    text((left + right) / 2, bottom + font * 3, xName, { class: "fk-name" }),
    text(0, 0, yName, { class: "fk-name", transform: `translate(${font * 0.9} ${(top + bottom) / 2}) rotate(-90)` }),
  ];
}

function drawReliability(a, box) {
  const { left, right, bottom, top, font } = box;
  const { bins, error, n } = a.extra;
  const x = (share) => left + share * (right - left);
  const y = (share) => bottom - share * (bottom - top);
  const words = `Calibration error ${percent(error)} on ${n} test images`;
  const nodes = [
    ...shareAxes(box, words, "right", "confidence in the top class"),
    s("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "fk-now-line", "stroke-dasharray": "6 6" }),
    ...[0, 0.5, 1].map((share) => text(x(share), bottom + font * 1.4, percent(share, 0), { class: "fk-soft" })),
    s("polyline", { points: bins.confidence.map((c, i) => `${x(c)},${y(bins.accuracy[i])}`).join(" "), class: "fk-path" }),
    ...bins.confidence.flatMap((c, i) => [
      s("line", { x1: x(c), x2: x(c), y1: y(bins.low[i]), y2: y(bins.high[i]), class: "fk-whisker" }),
      s("circle", { cx: x(c), cy: y(bins.accuracy[i]), r: font * 0.5, class: "fk-now" }),
    ]),
  ];
  return { nodes, words };
}

function drawBoundary(a, box) {
  const { left, top, bottom, font } = box;
  const { cells, side, points, labels, classes, accuracy, on } = a.extra;
  const size = bottom - top;
  const cell = size / side;
  const words = `In this plane alone: ${percent(accuracy)} on ${on}. The head above sees all features.`;
  const nodes = [text(left, top - font * 1.2, words, { "text-anchor": "start", class: "fk-title" })];
  cells.forEach((k, i) => {
    const [column, row] = [i % side, Math.floor(i / side)];
    if (column && cells[i - 1] === k) return; // one rectangle a run
    let run = 1;
    while (column + run < side && cells[i + run] === k) run++;
    nodes.push(s("rect", { x: left + column * cell, y: bottom - (row + 1) * cell, width: run * cell, height: cell, "shape-rendering": "crispEdges", fill: classColour(k), opacity: 0.28 }));
  });
  points.forEach(([px, py], i) =>
    nodes.push(s("path", { d: classMark(labels[i]), transform: `translate(${left + px * size} ${bottom - py * size})`, fill: classColour(labels[i]), class: "fk-dot-mark" })),
  );
  classes.slice(0, 12).forEach((name, k) =>
    nodes.push(
      s("path", { d: classMark(k), transform: `translate(${left + size + font * 1.5} ${top + font * (0.8 + 1.6 * k)})`, fill: classColour(k) }),
      text(left + size + font * 2.5, top + font * (1.15 + 1.6 * k), name.length > 20 ? `${name.slice(0, 19)}…` : name, { "text-anchor": "start" }),
    ),
  );
  return { nodes, words };
}

function drawCurve(a, box) {
  const { left, right, bottom, top, font } = box;
  const sizes = a.extra.map((p) => Math.log(p.n));
  const [low, high] = [sizes[0], Math.max(sizes[sizes.length - 1], sizes[0] + 0.5)];
  const x = (i) => left + font + ((sizes[i] - low) / (high - low)) * (right - left - 2 * font);
  const y = (share) => bottom - share * (bottom - top);
  const words = `${a.test ? "Test" : "Leave-one-out"} accuracy by labels per class`;
  const nodes = [
    ...shareAxes(box, words, "accuracy", "labels per class"),
    s("polyline", { points: a.extra.map((p, i) => `${x(i)},${y(p.value)}`).join(" "), class: "fk-path" }),
    ...a.extra.flatMap((p, i) => [
      s("line", { x1: x(i), x2: x(i), y1: y(p.low), y2: y(p.high), class: "fk-whisker" }),
      s("circle", { cx: x(i), cy: y(p.value), r: font * 0.5, class: "fk-now" }),
      text(x(i), bottom + font * 1.4, p.shots === null ? "all" : String(p.shots), { class: "fk-soft" }),
    ]),
  ];
  return { nodes, words };
}
