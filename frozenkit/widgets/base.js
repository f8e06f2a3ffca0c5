// Shared by all labs; each lab's own script follows in the same module. Text from data only ever becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

let serial = 0;
const uniqueId = (stem) => `fk-${stem}-${++serial}`;

const clamp = (low, value, high) => Math.min(high, Math.max(low, value));
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const interval = (low, high) => `${(100 * low).toFixed(1)}–${(100 * high).toFixed(1)} %`;

// 0.000012, 0.5, 120: two significant digits, no exponent within what a slider covers.
function plainNumber(value) {
  const rounded = Number(value.toPrecision(2));
  return Math.abs(rounded) >= 1e5 || Math.abs(rounded) < 1e-6 ? rounded.toExponential() : String(rounded);
}

// Larger type for a projector; remembered for the labs that are opened next.
const TYPE_KEY = "frozenkit-large-type";
let typeScale = 1;

function typeToggle(root) {
  const apply = (large) => {
    typeScale = large ? 1.4 : 1;
    root.classList.toggle("fk-large", large);
    button.setAttribute("aria-pressed", String(large));
    root.dispatchEvent(new Event("fk-type"));
  };
  const remembered = () => {
    try {
      return localStorage.getItem(TYPE_KEY) === "yes";
    } catch {
      return false; // where a page may not remember
    }
  };
  const flip = () => {
    const large = button.getAttribute("aria-pressed") !== "true";
    try {
      localStorage.setItem(TYPE_KEY, large ? "yes" : "no");
    } catch {
      // it works all the same, until the page is left
    }
    apply(large);
  };
  const button = h("button", { type: "button", class: "fk-type", "aria-pressed": "false", title: "Larger type", "aria-label": "Larger type", onclick: flip }, "A⁺");
  apply(remembered());
  return button;
}

/** The root of a lab: keeps its keys to itself, shows the kernel's errors, and says when the kernel is at work. */
function openLab(model, el, title) {
  const alert = h("p", { class: "fk-error", role: "alert", hidden: true });
  const status = h("span", { class: "fk-status", "aria-hidden": "true" });
  const root = h("section", { class: "fk-lab", "aria-label": title }, alert);
  root.append(typeToggle(root));
  el.append(root);
  // The command mode takes the arrow keys from a range input, and letters from every other: in JupyterLab when they
  // have risen to the page, in Notebook 7 before they reach us, unless what has the focus bears this mark.
  root.addEventListener("focusin", (e) => e.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  for (const event of ["keydown", "keyup", "keypress"]) root.addEventListener(event, (e) => e.stopPropagation());

  const forget = [];
  const on = (name, action) => {
    model.on(`change:${name}`, action);
    forget.push(() => model.off(`change:${name}`, action));
  };

  const showError = () => {
    const text = model.get("error");
    alert.hidden = !text;
    alert.textContent = text;
    if (text) settled();
  };

  // Moves are gathered and sent once a frame; while the kernel computes, Jupyter keeps only the latest.
  let frame = 0;
  let timers = [];
  let pending = {};
  const settled = () => {
    timers.forEach(clearTimeout);
    timers = [];
    status.textContent = "";
    root.removeAttribute("aria-busy");
  };
  const expect = () => {
    if (timers.length) return;
    timers = [
      setTimeout(() => {
        status.textContent = "refitting …";
        root.setAttribute("aria-busy", "true");
      }, 80),
      setTimeout(() => {
        status.textContent = "no answer yet: the kernel is busy or stopped";
      }, 8000),
    ];
  };
  /** Ask for what always changes `answer`, or ends in an error. */
  const ask = (content, buffers) => {
    expect();
    model.send(content, undefined, buffers);
  };
  const send = (values) => {
    Object.assign(pending, values);
    expect();
    if (frame) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      for (const [name, value] of Object.entries(pending)) model.set(name, value);
      pending = {};
      model.save_changes();
    });
  };

  // Long work: what it is, how far, and a button to end it.
  const bar = h("progress", { max: 1 });
  const what = h("span", {});
  const halt = h("button", { type: "button", onclick: () => model.send({ stop: true }) }, "Stop");
  const working = h("div", { class: "fk-work", role: "status", hidden: true }, what, bar, halt);
  const showWork = () => {
    const { what: name, done, of } = model.get("work") ?? {};
    working.hidden = !name;
    if (!name) return;
    settled();
    what.textContent = of ? `${name}: ${done} of ${of}` : `${name} …`;
    if (of) bar.value = done / of;
    else bar.removeAttribute("value");
  };
  on("work", showWork);
  showWork();

  on("error", showError);
  showError();
  const close = () => {
    settled();
    cancelAnimationFrame(frame);
    forget.forEach((action) => action());
  };
  return { root, status, working, on, send, ask, settled, close, onClose: (action) => forget.push(action) };
}

const text = (x, y, words, options = {}) => s("text", { x, y, "text-anchor": "middle", ...options }, words);

/** Colours and marks of classes: Okabe and Ito's palette, then other marks, so that colour is never alone. */
const CLASS_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c00"];
const MARK_PATHS = [
  "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
  "M-4.5 -4.5h9v9h-9z",
  "M0 -6l5.5 10h-11z",
  "M0 -6.5l5 6.5l-5 6.5l-5 -6.5z",
  "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
  "M0 6l-5.5 -10h11z",
];
const classColour = (k) => CLASS_COLOURS[k % CLASS_COLOURS.length];
const classMark = (k) => MARK_PATHS[(k + Math.floor(k / CLASS_COLOURS.length)) % MARK_PATHS.length];

/** A labelled native select. */
function picker(label, choices, move) {
  const id = uniqueId("select");
  const input = h("select", { id, onchange: () => move(input.value) });
  for (const [value, name] of choices) input.append(h("option", { value }, name));
  const node = h("div", { class: "fk-control fk-picker" }, h("label", { for: id }, label), input);
  return { node, input, show: (value) => (input.value = value) };
}

/** Buttons that keep a drawing as PNG or SVG, and its numbers as CSV. */
function keepButtons(name, svg, csv) {
  const save = (blob, suffix) => {
    const link = h("a", { href: URL.createObjectURL(blob), download: `${name}.${suffix}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const source = () => {
    const node = svg().cloneNode(true);
    const live = [svg(), ...svg().querySelectorAll("*")];
    [node, ...node.querySelectorAll("*")].forEach((copy, i) => {
      const style = getComputedStyle(live[i]);
      const kept = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-weight", "opacity", "paint-order"];
      copy.setAttribute("style", kept.map((p) => `${p}:${style.getPropertyValue(p)}`).join(";") + `;${copy.getAttribute("style") ?? ""}`);
    });
    node.setAttribute("xmlns", SVG);
    return new XMLSerializer().serializeToString(node);
  };
  const png = () => {
    const image = new Image();
    image.onload = () => {
      const canvas = h("canvas", { width: 2 * image.width, height: 2 * image.height });
      const pen = canvas.getContext("2d");
      pen.fillStyle = getComputedStyle(svg().closest(".fk-lab")).backgroundColor;
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, "png"));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source())}`;
  };
  const button = (words, act) => h("button", { type: "button", class: "fk-keep", onclick: act }, words);
  return h(
    "span",
    { class: "fk-keeps" },
    button("PNG", png),
    button("SVG", () => save(new Blob([source()], { type: "image/svg+xml" }), "svg")),
    button("CSV", () => save(new Blob([csv()], { type: "text/csv" }), "csv")),
  );
}

// A spreadsheet takes a cell that begins like this for a formula, quoted or not; an apostrophe keeps it text.
const csvCell = (value) => {
  const words = String(value ?? "").replaceAll('"', '""');
  const formula = /^[=+\-@\t\r]/.test(words) && Number.isNaN(Number(words));
  return `"${formula ? "'" : ""}${words}"`;
};
const csvOf = (rows) => rows.map((row) => row.map(csvCell).join(",")).join("\n");

/** A sheet of equally large thumbnails, sent as one image: the `i`-th as a node, or as an SVG pattern's image. */
function thumbnails(model, name) {
  let url = null;
  const load = () => {
    const bytes = model.get(name);
    if (url) URL.revokeObjectURL(url);
    url = bytes?.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/png" })) : null;
  };
  load();
  const tile = (i, { columns, side }, size = side) =>
    h("span", {
      class: "fk-tile",
      style: `width:${size}px;height:${size}px;background-image:url("${url}");background-size:${columns * size}px auto;` +
        `background-position:${-(i % columns) * size}px ${-Math.floor(i / columns) * size}px`,
    });
  return { load, tile, has: () => Boolean(url), close: () => url && URL.revokeObjectURL(url) };
}

/** A labelled native range input; the number beside it is part of its accessible value. */
function slider(label, note, move) {
  const id = uniqueId("slider");
  const output = h("output", { for: id, class: "fk-value" });
  const input = h("input", { type: "range", id, step: 1, min: 0, oninput: () => move(input.valueAsNumber) });
  const hint = note ? h("small", { id: `${id}-note` }, note) : null;
  if (hint) input.setAttribute("aria-describedby", hint.id);
  const show = (index, last, text) => {
    input.max = last;
    if (input.valueAsNumber !== index) input.value = index;
    output.textContent = text;
    input.setAttribute("aria-valuetext", text);
    input.style.setProperty("--fk-filled", `${(100 * index) / Math.max(1, last)}%`);
  };
  const node = h("div", { class: "fk-control" }, h("label", { for: id }, label), output, input, hint);
  return { node, input, show };
}

/** A table of plain text; the first column is the row's heading. */
function dataTable(caption, columns, rows) {
  return h(
    "table",
    {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name)))),
    h(
      "tbody",
      {},
      ...rows.map(([first, ...rest]) =>
        h("tr", {}, h("th", { scope: "row" }, first), ...rest.map((value) => h("td", {}, value))),
      ),
    ),
  );
}

/** A button that shows and hides the numbers behind a drawing. */
function numbersToggle(draw) {
  const id = uniqueId("numbers");
  const panel = h("div", { id, class: "fk-numbers", hidden: true, tabindex: 0, role: "region", "aria-label": "Numbers" });
  const toggle = () => {
    panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", String(!panel.hidden));
    button.textContent = panel.hidden ? "Show the numbers" : "Hide the numbers";
    refresh();
  };
  const button = h(
    "button",
    { type: "button", "aria-expanded": "false", "aria-controls": id, onclick: toggle },
    "Show the numbers",
  );
  const refresh = () => {
    if (!panel.hidden) panel.replaceChildren(...draw());
  };
  return { button, panel, refresh };
}

/** Call `draw(width)` at once and whenever the width or the size of type changes. */
function drawToWidth(node, draw) {
  let last = 0;
  queueMicrotask(() => node.closest(".fk-lab")?.addEventListener("fk-type", () => last && draw(last)));
  const observer = new ResizeObserver(() => {
    const width = Math.floor(node.clientWidth);
    if (width > 0 && width !== last) {
      last = width;
      draw(width);
    }
  });
  observer.observe(node);
  return () => observer.disconnect();
}
