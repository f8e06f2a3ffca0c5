import type { Cell, CodeCell } from "@jupyterlab/cells";
import type { NotebookPanel } from "@jupyterlab/notebook";
import type { Contents } from "@jupyterlab/services";
import { type PanelLayout, Widget } from "@lumino/widgets";
import { type Course, type Lesson, pathOf } from "./course";
import { ago, button, h } from "./dom";
import type { ProgressStore } from "./progress";

const CHECK = /course\.check\(\s*["'](\d\d\.\d+)["']/;
const VERDICT = /^([✓✗…]) (\d\d\.\d+)/;

/** One exercise in an open notebook: the cell to write in, the one that checks it, and its hints. */
export interface Exercise {
  id: string;
  answer: Cell;
  check: Cell;
  hints: Cell[];
}

const tagsOf = (cell: Cell): string[] => (cell.model.getMetadata("tags") as string[] | undefined) ?? [];
const sourceOf = (cell: Cell): string => cell.model.sharedModel.getSource();

/** What the cell held when it was new, where the notebook says so. */
export function pristineOf(cell: Cell): string | null {
  const kept = cell.model.getMetadata("frozenkit") as { pristine?: unknown } | undefined;
  return typeof kept?.pristine === "string" ? kept.pristine : null;
}

/** The exercises of a notebook, in order. */
export function exercisesIn(cells: readonly Cell[]): Exercise[] {
  const found: Exercise[] = [];
  let answer: Cell | null = null;
  for (const cell of cells) {
    const tags = tagsOf(cell);
    const id = cell.model.type === "code" ? CHECK.exec(sourceOf(cell))?.[1] : undefined;
    if (id && answer && tags.includes("check")) {
      found.push({ id, answer, check: cell, hints: [] });
      answer = null;
    } else if (tags.some((tag) => tag.startsWith("hint-"))) {
      found.at(-1)?.hints.push(cell);
    } else if (cell.model.type === "code" && pristineOf(cell) !== null) {
      answer = cell;
    }
  }
  return found;
}

/** Which exercise the outputs of a cell call right, if any. */
export function verdictOf(cell: Cell): { id: string; right: boolean } | null {
  if (cell.model.type !== "code") return null;
  for (const output of (cell as CodeCell).model.outputs.toJSON()) {
    const data = output.data as Record<string, unknown> | undefined;
    const text = data?.["text/plain"];
    const match = VERDICT.exec(Array.isArray(text) ? text.join("") : String(text ?? ""));
    if (match) return { id: match[2], right: match[1] === "✓" };
  }
  return null;
}

/** The strip below each check: its tick, the next hint, the solution, a reset, and an answer kept from before. */
export class ExerciseBars {
  private bars = new Map<string, { exercise: Exercise; node: HTMLElement }>();
  private said = new Map<string, string>(); // what an exercise's bar has to say besides
  private timers = new Map<string, ReturnType<typeof setTimeout>>();

  constructor(
    private panel: NotebookPanel,
    private course: Course,
    private lesson: Lesson,
    private store: ProgressStore,
    private contents: Contents.IManager,
  ) {
    for (const exercise of exercisesIn(panel.content.widgets)) void this.attach(exercise);
    const draw = () => this.draw();
    const flush = () => this.flush();
    store.changed.connect(draw);
    window.addEventListener("pagehide", flush);
    panel.disposed.connect(() => {
      flush();
      store.changed.disconnect(draw);
      window.removeEventListener("pagehide", flush);
    });
  }

  get exercises(): Exercise[] {
    return [...this.bars.values()].map(({ exercise }) => exercise);
  }

  private async attach(exercise: Exercise): Promise<void> {
    const node = h("div", { class: "fk-bar", role: "group", "aria-label": `Exercise ${exercise.id}` });
    this.bars.set(exercise.id, { exercise, node });
    exercise.answer.model.contentChanged.connect(() => this.typed(exercise));
    await exercise.check.ready;
    (exercise.check.layout as PanelLayout).addWidget(new Widget({ node }));
    await Promise.all(exercise.hints.map((hint) => hint.ready));
    this.draw();
  }

  private typed(exercise: Exercise): void {
    clearTimeout(this.timers.get(exercise.id));
    this.timers.set(exercise.id, setTimeout(() => this.keep(exercise), 400));
  }

  private keep(exercise: Exercise): void {
    clearTimeout(this.timers.get(exercise.id));
    this.timers.delete(exercise.id);
    const source = sourceOf(exercise.answer);
    if (source !== pristineOf(exercise.answer)) this.store.answer(this.lesson.id, exercise.answer.model.id, source);
    this.draw();
  }

  private flush(): void {
    for (const { exercise } of this.bars.values()) if (this.timers.has(exercise.id)) this.keep(exercise);
  }

  private draw(): void {
    const progress = this.store.now;
    for (const { exercise, node } of this.bars.values()) {
      const { id, answer, hints } = exercise;
      const seen = Math.min(progress.hints[id] ?? 0, hints.length);
      hints.forEach((hint, i) => hint.node.classList.toggle("fk-held-back", i >= seen));
      const right = id in progress.checks;
      const kept = progress.answers[this.lesson.id]?.[answer.model.id];
      const focused = document.activeElement instanceof HTMLElement && node.contains(document.activeElement) ? document.activeElement.dataset.key : "";
      const rows: (Node | false)[] = [
        h("span", { class: right ? "fk-right" : "fk-open", role: "status" }, right ? `✓ ${id} right` : `○ ${id} open`),
        hints.length > 0 && button(seen < hints.length ? `Hint ${seen + 1} of ${hints.length}` : "No more hints", () => this.hint(exercise), {
          "data-key": "hint",
          "aria-disabled": seen >= hints.length,
        }),
        button("Insert the solution below", () => void this.solve(exercise), { "data-key": "solution" }),
        sourceOf(answer) !== pristineOf(answer) && button("Start this one again", () => this.reset(exercise), { "data-key": "reset" }),
        kept !== undefined && kept.source !== sourceOf(answer) && !this.timers.has(id) &&
          button(`Put back your answer (${ago(kept.at)})`, () => this.putBack(exercise), { "data-key": "back", class: "fk-call" }),
        this.said.has(id) && h("span", { class: "fk-late", role: "alert" }, this.said.get(id)),
      ];
      const shown = h("div", {}, ...rows);
      if (shown.textContent === node.textContent) continue; // a button that is being pressed stays
      node.replaceChildren(...shown.childNodes);
      if (focused) (node.querySelector<HTMLElement>(`[data-key="${focused}"]`) ?? node.querySelector("button"))?.focus();
    }
  }

  private hint({ id, hints }: Exercise): void {
    const next = this.store.now.hints[id] ?? 0;
    if (next >= hints.length) return;
    this.store.change((progress) => (progress.hints[id] = next + 1));
    const details = hints[next].node.querySelector("details");
    if (details) details.open = true;
    hints[next].node.scrollIntoView({ block: "nearest" });
  }

  /** Put the solution into a cell of its own, below the learner's; a second time leads to the first. */
  private async solve({ id, answer }: Exercise): Promise<void> {
    const shared = this.panel.content.model?.sharedModel;
    if (!shared) return;
    const there = this.panel.content.widgets.findIndex((cell) => (cell.model.getMetadata("frozenkit") as { solves?: string } | undefined)?.solves === id);
    if (there >= 0) return this.goTo(there);
    const path = pathOf(this.course, this.lesson, "solution");
    let source: string;
    try {
      const { content } = await this.contents.get(path, { type: "notebook", content: true });
      const cells = content.cells as { id?: string; source: string | string[] }[];
      const cell = cells.find((other) => other.id === answer.model.id);
      if (!cell) throw new Error("it holds no answer to this one");
      source = [cell.source].flat().join("").replace(/^[ \t]*### (begin|end) solution.*\n?/gm, "").trimEnd();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.said.set(id, `The solution of ${id} could not be read from ${path} (${why}). Whoever gave you the course may have kept it back.`);
      return this.draw();
    }
    const at = this.indexOf(answer) + 1;
    shared.insertCell(at, { cell_type: "code", source, metadata: { tags: ["solution"], frozenkit: { solves: id } } });
    this.goTo(at);
  }

  /** Make the cell new again; what stood there goes into a cell below. */
  private reset({ id, answer }: Exercise): void {
    const pristine = pristineOf(answer);
    const before = sourceOf(answer);
    if (pristine === null || before === pristine) return;
    this.store.answer(this.lesson.id, answer.model.id, before);
    const source = `Your answer to ${id} before you started again:\n\n${before}`;
    this.panel.content.model?.sharedModel.insertCell(this.indexOf(answer) + 1, { cell_type: "raw", source, metadata: {} });
    answer.model.sharedModel.setSource(pristine);
    this.store.change((progress) => delete progress.checks[id]);
  }

  /** Every exercise as it was, and the notebook as it is in a copy beside it; returns the path of the copy. */
  async resetAll(): Promise<string> {
    const { context } = this.panel;
    await context.save();
    const copy = await this.contents.copy(context.path, context.path.split("/").slice(0, -1).join("/"));
    for (const { exercise } of this.bars.values()) {
      this.flush();
      exercise.answer.model.sharedModel.setSource(pristineOf(exercise.answer) ?? "");
      (exercise.check as CodeCell).model.clearExecution();
    }
    this.store.change((progress) => {
      for (const id of this.bars.keys()) {
        delete progress.checks[id];
        delete progress.hints[id];
      }
    });
    await context.save();
    return copy.path;
  }

  putBack(exercise: Exercise): void {
    const { answer } = exercise;
    const kept = this.store.now.answers[this.lesson.id]?.[answer.model.id];
    if (!kept) return;
    const present = sourceOf(answer);
    if (present !== pristineOf(answer)) {
      this.store.change((progress) => progress.answers[this.lesson.id][answer.model.id].older.unshift(present));
    }
    answer.model.sharedModel.setSource(kept.source);
    this.keep(exercise);
  }

  /** Exercises whose answer in this browser is not the one in the notebook. */
  get elsewhere(): Exercise[] {
    const kept = this.store.now.answers[this.lesson.id] ?? {};
    return this.exercises.filter(({ answer }) => {
      const found = kept[answer.model.id];
      return found !== undefined && found.source !== sourceOf(answer);
    });
  }

  /** How many kept answers fit no cell of this notebook any more. */
  get homeless(): number {
    const ids = new Set(this.panel.content.widgets.map((cell) => cell.model.id));
    return Object.keys(this.store.now.answers[this.lesson.id] ?? {}).filter((id) => !ids.has(id)).length;
  }

  private indexOf(cell: Cell): number {
    return this.panel.content.widgets.indexOf(cell);
  }

  /** Lead to a cell: the focus goes there from the button, whose own cell would stay the active one. */
  private goTo(index: number): void {
    const notebook = this.panel.content;
    setTimeout(() => {
      if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
      notebook.activeCellIndex = index;
      notebook.activate();
      void notebook.scrollToItem(index);
    });
  }
}
