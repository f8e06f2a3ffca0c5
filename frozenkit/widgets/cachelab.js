// CacheLab: three bars that fill while three lanes train, then the seconds of an epoch and what they add up to.

function render({ model, el }) {
  const lab = openLab(model, el, "CacheLab");
  const heading = h("header", {}, h("strong", {}, "CacheLab"), h("span", { class: "fk-about" }, model.get("about")), lab.status);
  const size = slider("Images", "in each epoch", (i) => lab.send({ n: model.get("n_choices")[i] }));
  const epochs = slider("Epochs", "of each lane; the quickest counts", (i) => lab.send({ epochs: i + 1 }));
  const start = h("button", { type: "button", class: "fk-start", onclick: () => model.send({ start: true }) }, "Start the race");
  const figure = h("div", { class: "fk-figure" });
  const result = h("p", { class: "fk-result", role: "status", "aria-live": "polite" });
  const numbers = numbersToggle(() => tables(model.get("answer")));
  const keeps = keepButtons("cachelab", () => figure.querySelector("svg"), () =>
    csvOf([["lane", "seconds an epoch"], ...model.get("answer").lanes.map((l) => [l.name, l.seconds])]),
  );
  lab.root.prepend(heading);
  lab.root.append(
    h("div", { class: "fk-controls" }, size.node, epochs.node),
    h("div", { class: "fk-foot" }, start),
    lab.working,
    figure,
    result,
    h("div", { class: "fk-foot" }, numbers.button, keeps),
    numbers.panel,
  );
  let width = 0;
  const draw = () => {
    const a = model.get("answer");
    if (!a.lanes) return;
    const choices = model.get("n_choices");
    const distance = choices.map((m) => Math.abs(m - model.get("n")));
    size.show(distance.indexOf(Math.min(...distance)), choices.length - 1, model.get("n").toLocaleString("en"));
    epochs.show(model.get("epochs") - 1, 9, String(model.get("epochs")));
    start.textContent = a.ratio ? "Race again" : "Start the race";
    if (width) figure.replaceChildren(drawing(a, width));
    const words = sentence(a);
    if (result.textContent !== words) result.textContent = words;
    numbers.refresh();
  };
  const busy = () => (start.disabled = Boolean(model.get("work")?.what));
  lab.on("answer", () => {
    lab.settled();
    draw();
  });
  lab.on("work", busy);
  for (const name of ["n", "epochs"]) lab.on(name, () => { lab.settled(); draw(); });
  busy();
  const stop = drawToWidth(figure, (now) => {
    width = now;
    draw();
  });
  return () => {
    stop();
    lab.close();
  };
}

const seconds = (value) => (value === null ? "" : value < 0.1 ? `${(1000 * value).toFixed(1)} ms` : `${value.toPrecision(3)} s`);
const NAMES = { "fine-tuned": "fine-tuned", frozen: "frozen, runs anew", "frozen, cached": "frozen, cached" };

function sentence(a) {
  if (!a.ratio) return "Who is quicker, and by how much? All three lanes really train, on your machine.";
  return (
    `A cached epoch takes ${seconds(a.lanes[2].seconds)}: fine-tuning takes ${a.ratio.toFixed(0)} times as long, the frozen ` +
    `network without a cache ${a.ratio_frozen.toFixed(0)} times. Extracting once took ${seconds(a.once)}, and pays from ` +
    `epoch ${a.break_even ?? "–"} on. Published, for ResNet-50: 60 and 36 times.`
  );
}

function tables(a) {
  const base = a.lanes[2];
  return [
    dataTable(
      `Seconds per epoch, ${a.n} images`,
      ["lane", "measured", "times the cached", "published"],
      a.lanes.map((l) => [
        NAMES[l.name],
        seconds(l.seconds) || "–",
        l.seconds ? (l.seconds / base.seconds).toFixed(1) : "–",
        `${l.published / base.published}`,
      ]),
    ),
  ];
}

/** Before and during the race, how far each lane is; afterwards, how long an epoch takes, on one scale. */
function drawing(a, width) {
  const font = typeScale * clamp(14, width / 60, 24);
  const left = font * 11.5;
  const right = width - font * 6;
  const row = font * 3.2;
  const height = Math.ceil(row * 3 + font * 2.6);
  const node = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": sentence(a), style: `font-size:${font}px` });
  const over = Boolean(a.ratio);
  const longest = over ? Math.max(...a.lanes.map((l) => l.seconds)) : 1;
  node.append(
    text(left, font * 1.2, over ? "Seconds of one epoch" : "How far each lane is", { "text-anchor": "start", class: "fk-title" }),
  );
  a.lanes.forEach((lane, i) => {
    const y = font * 2.2 + i * row;
    const share = over ? lane.seconds / longest : lane.done;
    const size = Math.max(2, share * (right - left));
    const words = over ? seconds(lane.seconds) : lane.done ? percent(lane.done, 0) : "";
    node.append(
      text(left - font * 0.6, y + row * 0.45, NAMES[lane.name], { "text-anchor": "end", class: "fk-name" }),
      s("rect", { x: left, y: y + row * 0.1, width: right - left, height: row * 0.55, class: "fk-lane" }),
      s("rect", { x: left, y: y + row * 0.1, width: size, height: row * 0.55, class: `fk-run fk-run-${i}` }),
      text(left + size + font * 0.5, y + row * 0.45, words, { "text-anchor": "start", class: "fk-strong", "data-role": `lane-${i}` }),
    );
    if (i === 2 && !over && a.extraction > 0 && a.extraction < 1)
      node.append(text(left + font * 0.5, y + row * 0.45, `extracting once: ${percent(a.extraction, 0)}`, { "text-anchor": "start" }));
  });
  return node;
}

export default { render };
