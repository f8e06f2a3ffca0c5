// Quiz: a group of radio buttons for each question; the kernel knows which answer is right and what to say.

function render({ model, el }) {
  const lab = openLab(model, el, model.get("title"));
  lab.root.prepend(h("header", {}, h("strong", {}, model.get("title")), lab.status));
  const groups = model.get("questions").map((question, i) => {
    const name = uniqueId("question");
    const said = h("p", { class: "fk-feedback", role: "status", "aria-live": "polite" });
    const choose = (j) => {
      const chosen = [...model.get("chosen")];
      chosen[i] = j;
      lab.send({ chosen });
    };
    const inputs = question.options.map((option, j) => {
      const id = uniqueId("option");
      const input = h("input", { type: "radio", name, id, onchange: () => choose(j) });
      return { input, node: h("div", { class: "fk-option" }, input, h("label", { for: id }, option)) };
    });
    const legend = h("legend", {}, question.text);
    lab.root.append(h("fieldset", { class: "fk-question" }, legend, ...inputs.map(({ node }) => node), said));
    return { said, inputs };
  });

  const show = () => {
    const { feedback, right } = model.get("answer");
    const chosen = model.get("chosen");
    if (!feedback) return;
    groups.forEach(({ said, inputs }, i) => {
      inputs.forEach(({ input }, j) => (input.checked = chosen[i] === j));
      const words = feedback[i] ? `${right[i] ? "✓ Right." : "✗ Not quite."} ${feedback[i]}` : "";
      if (said.textContent !== words) said.textContent = words;
      said.classList.toggle("fk-right", Boolean(right[i]));
    });
  };
  lab.on("answer", () => {
    lab.settled();
    show();
  });
  show();
  return lab.close;
}

export default { render };
