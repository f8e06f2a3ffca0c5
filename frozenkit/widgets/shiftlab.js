// ShiftLab: images before and after, two clouds, and the bound's terms over the severities already seen.

function render({ model, el }) {
  const lab = openLab(model, el, "ShiftLab");
  const sheets = { before: thumbnails(model, "before"), after: thumbnails(model, "after") };
  const heading = h("header", {}, h("strong", {}, "ShiftLab"), h("span", { class: "fk-about" }, model.get("about")), lab.status);
  const kind = picker("Shift", model.get("kinds").map((name) => [name, name]), (value) => lab.send({ kind: value }));
  const severity = slider("Severity", "0 changes nothing", (value) => lab.send({ severity: value }));
  const rows = { before: h("div", { class: "fk-row" }), after: h("div", { class: "fk-row" }) };
  const figure = h("div", { class: "fk-figure" });
  const result = h("p", { class: "fk-result", role: "status", "aria-live": "polite" });
  const numbers = numbersToggle(() => tables(model.get("answer")));
  const keeps = keepButtons("shiftlab", () => figure.querySelector("svg"), () =>
    csvOf([["severity", ...TERMS, "sum", "measured error"], ...model.get("answer").bounds.map((b) => [b.severity, ...TERMS.map((t) => b.terms[t]), b.sum, b.measured])]),
  );
  lab.root.prepend(heading);
  lab.root.append(
    h("div", { class: "fk-controls" }, kind.node, severity.node),
    h("div", { class: "fk-looks" }, h("span", {}, "before"), rows.before, h("span", {}, "after"), rows.after),
    lab.working,
    figure,
    result,
    h("div", { class: "fk-foot" }, numbers.button, keeps),
    numbers.panel,
  );
  const look = (name) => {
    sheets[name].load();
    const a = model.get("answer");
    if (!a.sheet) return;
    rows[name].replaceChildren(...Array.from({ length: a.count }, (_, i) => sheets[name].tile(i, a.sheet)));
  };
  let width = 0;
  let speak = 0;
  const draw = () => {
    const a = model.get("answer");
    if (!a.bounds) return;
    if (width) figure.replaceChildren(drawing(a, width));
    numbers.refresh();
    clearTimeout(speak);
    speak = setTimeout(() => (result.textContent = sentence(a)), result.textContent ? 250 : 0);
  };
  const place = () => {
    kind.show(model.get("kind"));
    severity.show(model.get("severity"), 5, String(model.get("severity")));
  };
  lab.on("answer", () => {
    lab.settled();
    place();
    draw();
  });
  for (const name of ["before", "after"]) lab.on(name, () => look(name));
  for (const name of ["kind", "severity"]) lab.on(name, place);
  look("before");
  look("after");
  place();
  const stop = drawToWidth(figure, (now) => {
    width = now;
    draw();
  });
  return () => {
    stop();
    clearTimeout(speak);
    Object.values(sheets).forEach((sheet) => sheet.close());
    lab.close();
  };
}

const TERMS = ["source error", "half the divergence", "λ"];

function sentence(a) {
  const now = a.bounds.find((b) => b.severity === a.severity);
  if (!now) return `${a.kind}, severity ${a.severity}: being computed.`;
  const first = a.bounds.find((b) => b.severity === 0);
  return (
    `${a.kind}, severity ${a.severity}: the head errs on ${percent(now.measured)} of the shifted test images ` +
    `(${percent(first.measured)} before). The bound's sum is ${now.sum.toFixed(2)}${now.vacuous ? ", above 1 and so vacuous" : ""}: ` +
    TERMS.map((term) => `${term} ${now.terms[term].toFixed(2)}`).join(", ") + "."
  );
}

function tables(a) {
  return [
    dataTable(
      `The bound's terms beside the measured error: ${a.kind}`,
      ["severity", ...TERMS, "sum", "measured error"],
      a.bounds.map((b) => [String(b.severity), ...TERMS.map((t) => b.terms[t].toFixed(3)), b.sum.toFixed(3), b.measured.toFixed(3)]),
    ),
  ];
}

function drawing(a, width) {
  const font = typeScale * clamp(13, width / 64, 22);
  const stacked = width < 40 * font;
  const tall = clamp(240, width * 0.32, 430);
  const top = font * 2.6;
  const cloud = { font, left: font, right: stacked ? width - font : width * 0.42, top, bottom: top + tall };
  const bars = { font, left: stacked ? font * 3.4 : width * 0.42 + font * 5, right: width - font, top: stacked ? cloud.bottom + font * 5.4 : top };
  bars.bottom = bars.top + tall;
  const height = Math.ceil(bars.bottom + font * 7);
  const node = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Clouds of source and target beside the bound. ${sentence(a)}`, style: `font-size:${font}px` });
  node.append(...drawClouds(a, cloud), ...drawBounds(a, bars));
  return node;
}

function drawClouds(a, { font, left, right, top, bottom }) {
  const middle = [(left + right) / 2, (top + bottom) / 2];
  const reach = Math.max(3, ...[...a.source, ...a.target].flat().map(Math.abs)) * 1.05;
  const scale = Math.min(right - left, bottom - top) / 2 / reach;
  const draw = (points, d, name) =>
    points.map(([x, y]) => s("path", { d, transform: `translate(${middle[0] + x * scale} ${middle[1] - y * scale})`, class: `fk-cloud ${name}` }));
  const key = (x, d, name, words) => [
    s("path", { d, transform: `translate(${x} ${bottom + font * 1.3})`, class: `fk-cloud ${name}` }),
    text(x + font * 0.8, bottom + font * 1.65, words, { "text-anchor": "start" }),
  ];
  return [
    text(left, top - font * 1.3, "Features of held-out images", { "text-anchor": "start", class: "fk-title" }),
    s("rect", { x: left, y: top, width: right - left, height: bottom - top, class: "fk-map" }),
    ...draw(a.source, MARK_PATHS[0], "fk-of-source"),
    ...draw(a.severity ? a.target : [], MARK_PATHS[2], "fk-of-target"),
    ...key(left + font, MARK_PATHS[0], "fk-of-source", "source"),
    ...key(left + font * 7, MARK_PATHS[2], "fk-of-target", "target"),
  ];
}

function drawBounds(a, { font, left, right, top, bottom }) {
  const most = Math.max(2, ...a.bounds.map((b) => b.sum * 1.08));
  const y = (value) => bottom - (value / most) * (bottom - top);
  const slot = (right - left) / 6;
  const nodes = [text(left, top - font * 1.3, "The bound beside the error", { "text-anchor": "start", class: "fk-title" })];
  for (const value of [0, 0.5, 1, 1.5, 2].filter((v) => v <= most)) {
    nodes.push(
      s("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: value === 1 ? "fk-one" : value ? "fk-grid" : "fk-axis" }),
      text(left - font * 0.5, y(value) + font * 0.35, value.toFixed(1), { "text-anchor": "end", class: "fk-soft" }),
    );
  }
  nodes.push(text(right, y(1) - font * 0.4, "above: vacuous", { "text-anchor": "end", class: "fk-soft fk-halo" }));
  for (let level = 0; level < 6; level++) {
    const x = left + slot * level + slot / 2;
    const found = a.bounds.find((b) => b.severity === level);
    const strong = level === a.severity;
    nodes.push(text(x, bottom + font * 1.3, String(level), { class: strong ? "fk-strong" : "fk-soft" }));
    if (!found) continue;
    let base = 0;
    TERMS.forEach((term, i) => {
      const size = found.terms[term];
      nodes.push(s("rect", { x: x - slot * 0.32, width: slot * 0.64, y: y(base + size), height: Math.max(0, y(base) - y(base + size)), class: `fk-term-${i}`, opacity: strong ? 1 : 0.65 }));
      base += size;
    });
    const m = y(found.measured);
    const d = font * 0.62;
    nodes.push(s("path", { d: `M${x} ${m - d}l${d} ${d}l${-d} ${d}l${-d} ${-d}z`, class: "fk-measured" }));
  }
  nodes.push(text((left + right) / 2, bottom + font * 2.6, "severity", { class: "fk-name" }));
  let [at, line] = [left, bottom + font * 3.4];
  const entries = [...TERMS.map((term, i) => [term, `fk-term-${i}`]), ["measured error", "fk-measured"]];
  const said = { λ: "λ, what no head can avoid" };
  for (const [words, name] of entries) {
    const label = said[words] ?? words;
    const wide = (label.length * 0.58 + 2.2) * font;
    if (at > left && at + wide > right) [at, line] = [left, line + font * 1.5];
    nodes.push(
      name === "fk-measured"
        ? s("path", { d: `M${at + font * 0.45} ${line}l${font * 0.45} ${font * 0.45}l${-font * 0.45} ${font * 0.45}l${-font * 0.45} ${-font * 0.45}z`, class: name })
        : s("rect", { x: at, y: line, width: font * 0.9, height: font * 0.9, class: name }),
      text(at + font * 1.2, line + font * 0.8, label, { "text-anchor": "start" }),
    );
    at += wide;
  }
  return nodes;
}

export default { render };
