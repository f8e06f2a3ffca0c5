// TeachLab: a card for each class, images by file, drop, drawing, camera or sample, and live bars for a new image.

function render({ model, el }) {
  const lab = openLab(model, el, "TeachLab");
  const thumbs = thumbnails(model, "images");
  const heading = h("header", {}, h("strong", {}, "TeachLab"), h("span", { class: "fk-about" }, "a few images of each class are enough to begin"), lab.status);
  const cards = h("div", { class: "fk-cards" });
  const add = h("button", { type: "button", onclick: () => lab.send({ classes: [...model.get("classes"), freshName()] }) }, "Add a class");
  const freshName = () => {
    for (let i = model.get("classes").length + 1; ; i++) if (!model.get("classes").includes(`class ${i}`)) return `class ${i}`;
  };
  const result = h("p", { class: "fk-result", role: "status", "aria-live": "polite" });
  const note = h("p", { class: "fk-note" });
  const ask = askPanel(model, lab);
  const pathId = uniqueId("path");
  const path = h("input", { type: "text", id: pathId, value: "taught.safetensors" });
  const said = h("span", { class: "fk-soft", role: "status" });
  lab.root.prepend(heading);
  lab.root.append(
    cards,
    h("div", { class: "fk-foot" }, add),
    note,
    result,
    ask.node,
    h(
      "div",
      { class: "fk-foot" },
      h("label", { for: pathId }, "File"),
      path,
      h("button", { type: "button", onclick: () => model.send({ save: path.value }) }, "Save"),
      h("button", { type: "button", onclick: () => model.send({ load: path.value }) }, "Load"),
      said,
    ),
  );

  const shown = []; // one card per class, kept while it exists: what is being typed or focused there must stay
  const draw = () => {
    const a = model.get("answer");
    if (!a.counts) return;
    const classes = model.get("classes");
    while (shown.length > classes.length) shown.pop().node.remove();
    while (shown.length < classes.length) {
      shown.push(card(model, lab, thumbs, shown.length));
      cards.append(shown[shown.length - 1].node);
    }
    shown.forEach((one, k) => one.draw(a, classes[k]));
    note.textContent = a.note;
    note.hidden = !a.note;
    const words = a.loo
      ? `Leave-one-out: ${percent(a.loo.value)} of ${a.loo.n} images right (95 % interval ${interval(a.loo.low, a.loo.high)}).`
      : "";
    if (result.textContent !== words) result.textContent = words;
    ask.draw(thumbs);
  };
  lab.on("images", () => {
    thumbs.load();
    draw();
  });
  lab.on("answer", () => {
    lab.settled();
    draw();
  });
  lab.on("classes", draw);
  lab.on("live", () => ask.draw(thumbs));
  lab.on("said", () => (said.textContent = model.get("said")));
  draw();
  return () => {
    ask.close();
    thumbs.close();
    lab.close();
  };
}

const buffersOf = async (files) => Promise.all([...files].map((file) => file.arrayBuffer()));

function fileInput(label, key, act, multiple = true) {
  const id = uniqueId("file");
  const take = async () => {
    await act(input.files);
    input.value = ""; // so that the same file can be chosen again
  };
  const input = h("input", { type: "file", id, accept: "image/*", multiple, class: "fk-hidden-file", "data-key": key, onchange: take });
  return h("span", {}, input, h("label", { for: id, class: "fk-button" }, label));
}

function card(model, lab, thumbs, k) {
  const teach = async (files) => {
    const buffers = await buffersOf(files);
    if (buffers.length) lab.ask({ add: k }, buffers);
  };
  let named = null; // the name as the kernel last knew it, or as it was last sent
  const title = h("input", { type: "text", "aria-label": `Name of class ${k + 1}`, class: "fk-class-name", "data-key": `name-${k}` });
  title.addEventListener("change", () => {
    const classes = [...model.get("classes")];
    classes[k] = named = title.value;
    lab.send({ classes });
  });
  const count = h("span", { class: "fk-soft" });
  const images = h("div", { class: "fk-images" });
  const node = h(
    "section",
    { class: "fk-card", style: `--fk-class:${classColour(k)}` },
    title,
    count,
    images,
    h(
      "div",
      { class: "fk-foot" },
      fileInput("Add files …", `files-${k}`, teach),
      h("button", { type: "button", "data-key": `sample-${k}`, onclick: () => lab.ask({ sample: k }) }, "Add ten samples"),
      h("button", { type: "button", "data-key": `hold-${k}`, onclick: () => node.dispatchEvent(new CustomEvent("fk-hold", { bubbles: true, detail: k })) }, "Add the drawing"),
    ),
  );
  node.addEventListener("dragover", (event) => {
    event.preventDefault();
    node.classList.add("fk-over");
  });
  node.addEventListener("dragleave", () => node.classList.remove("fk-over"));
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    node.classList.remove("fk-over");
    teach(event.dataTransfer.files);
  });
  const draw = (a, name) => {
    if (name !== named) title.value = named = name; // never over what is being typed
    node.setAttribute("aria-label", name);
    const rows = a.labels.map((label, i) => (label === k ? i : -1)).filter((i) => i >= 0);
    count.textContent = rows.length === 1 ? "1 image" : `${rows.length} images`;
    images.replaceChildren(
      ...rows.slice(-24).map((i) => {
        const tile = thumbs.tile(i, a.sheet, 48);
        return h("button", { type: "button", class: "fk-image", "aria-label": `Forget image ${i + 1} of ${name}`, title: "click to forget", onclick: () => lab.ask({ remove: i }) }, tile);
      }),
    );
  };
  return { node, draw };
}

/** One canvas to draw on or to see the camera in; it asks the probe, and gives images to the classes above. */
function askPanel(model, lab) {
  const canvas = h("canvas", { width: 224, height: 224, class: "fk-canvas", tabindex: 0, role: "img", "aria-label": "Drawing and camera" });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const bars = h("div", { class: "fk-bars", role: "status", "aria-live": "off" });
  const near = h("div", { class: "fk-near" });
  const trouble = h("p", { class: "fk-note", hidden: true, role: "alert" });
  let stream = null;
  let timer = 0;
  let waiting = false;
  const clear = () => {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, 224, 224);
  };
  clear();
  const bytes = () => new Promise((done) => canvas.toBlob(async (blob) => done(await blob.arrayBuffer()), "image/png"));
  const look = async () => {
    if (waiting) return;
    waiting = true;
    model.send({ look: true }, undefined, [await bytes()]);
    setTimeout(() => (waiting = false), 1500); // an answer that never comes must not stop the camera
  };
  let drawing = false;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * 224) / box.width, ((event.clientY - box.top) * 224) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(...at(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing || stream) return;
    pen.lineWidth = 9;
    pen.lineCap = "round";
    pen.strokeStyle = "#111";
    pen.lineTo(...at(event));
    pen.stroke();
  });
  canvas.addEventListener("pointerup", () => {
    drawing = false;
    look();
  });
  const video = h("video", { muted: true, playsinline: true });
  const close = () => {
    clearInterval(timer);
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    camera.textContent = "Camera";
  };
  const open = async () => {
    trouble.hidden = true;
    if (stream) return close();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 320 } });
    } catch (error) {
      trouble.hidden = false;
      trouble.textContent = `The camera did not open (${error.name}). Files and drawings work as well.`;
      return;
    }
    video.srcObject = stream;
    await video.play();
    camera.textContent = "Stop the camera";
    timer = setInterval(() => {
      const side = Math.min(video.videoWidth, video.videoHeight);
      pen.drawImage(video, (video.videoWidth - side) / 2, (video.videoHeight - side) / 2, side, side, 0, 0, 224, 224);
      look();
    }, 200);
  };
  const camera = h("button", { type: "button", onclick: open }, "Camera");
  const askFile = fileInput("Ask about a file …", "ask", async (files) => {
    if (!files.length) return;
    const buffers = await buffersOf(files);
    const image = await createImageBitmap(files[0]).catch(() => null);
    if (image) {
      const side = Math.min(image.width, image.height);
      pen.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, 224, 224);
    }
    model.send({ look: true }, undefined, buffers.slice(0, 1));
  }, false);
  const node = h(
    "div",
    { class: "fk-ask" },
    h("div", {}, canvas, h("div", { class: "fk-foot" }, h("button", { type: "button", onclick: () => (clear(), look()) }, "Clear"), camera, askFile)),
    h("div", { class: "fk-answers" }, h("strong", {}, "What is this?"), bars, near, trouble),
  );
  queueMicrotask(() =>
    node.closest(".fk-lab")?.addEventListener("fk-hold", async (event) => lab.ask({ add: event.detail }, [await bytes()])),
  );
  const draw = (thumbs) => {
    waiting = false;
    const { shares, near: rows } = model.get("live") ?? {};
    const a = model.get("answer");
    const classes = model.get("classes");
    if (!shares) {
      bars.replaceChildren(h("p", { class: "fk-soft" }, a.ready ? "Draw, open the camera, or choose a file." : "Teach two classes first."));
      near.replaceChildren();
      return;
    }
    bars.replaceChildren(
      ...classes.map((name, k) =>
        h(
          "div",
          { class: "fk-bar-row" },
          h("span", { class: "fk-bar-name" }, name),
          h("span", { class: "fk-bar-well" }, h("span", { class: "fk-bar-fill", style: `width:${100 * (shares[k] ?? 0)}%;background:${classColour(k)}` })),
          h("span", { class: "fk-bar-value" }, percent(shares[k] ?? 0, 0)),
        ),
      ),
    );
    near.replaceChildren(h("span", { class: "fk-soft" }, "nearest taught"), ...rows.map((i) => thumbs.tile(i, a.sheet, 56)));
  };
  return { node, draw, close };
}

export default { render };
