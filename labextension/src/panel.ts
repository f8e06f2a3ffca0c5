import { Widget } from "@lumino/widgets";
import { type Course, type Kind, type Lesson, type Place, pathOf } from "./course";
import { ago, button, h } from "./dom";
import type { ExerciseBars } from "./exercises";
import type { Progress, ProgressStore } from "./progress";

/** What the kernel says about its machine. */
export interface Vitals {
  device: string;
  threads: number;
  memory_mb: number;
  peak_mb: number;
  offline: boolean;
}

/** What the panel asks of the page around it. */
export interface Actions {
  open(path: string, cell?: string): void;
  lecture(): void;
}

/** The course map: what there is, what is done, and where to go on. */
export class CoursePanel extends Widget {
  course: Course | null = null;
  place: Place | null = null;
  bars: ExerciseBars | null = null;
  vitals: Vitals | null = null;
  temporary = false;
  looked = false; // whether a course has been looked for
  private unfolded: string | null = null;
  private said = ""; // how the last wish went

  constructor(
    private store: ProgressStore,
    private actions: Actions,
  ) {
    super();
    this.addClass("fk-panel");
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", "frozenkit course");
    store.changed.connect(() => this.draw());
    const clock = setInterval(() => this.isVisible && this.temporary && this.draw(), 60_000);
    this.disposed.connect(() => clearInterval(clock));
  }

  protected onAfterShow(): void {
    this.draw();
  }

  draw(): void {
    const focus = document.activeElement instanceof HTMLElement && this.node.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const { course } = this;
    const progress = this.store.now;
    const parts: (Node | null)[] = course
      ? [
          h("h2", {}, course.title),
          this.notice(progress),
          this.continuation(course, progress),
          this.map(course, progress),
          this.here(progress),
          this.keeping(progress),
          this.machine(),
        ]
      : [h("h2", {}, "frozenkit"), h("p", {}, this.looked ? "There is no course in this folder. `frozenkit lab` opens one, or copies the lessons to a folder of yours." : "Looking for the course …")];
    this.node.replaceChildren(...parts.filter((part): part is Node => part !== null));
    if (focus) this.node.querySelector<HTMLElement>(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  }

  private notice(progress: Progress): HTMLElement | null {
    const words: string[] = [];
    if (this.store.trouble) words.push(this.store.trouble);
    if (this.temporary) {
      const then = progress.downloaded === null ? "You have not downloaded your progress yet" : `Last download: ${ago(progress.downloaded)}`;
      words.push(`This server is temporary: its files go when it stops. Your answers are kept in this browser as well. ${then}.`);
    }
    if (this.said) words.push(this.said);
    return words.length ? h("div", { class: "fk-notice", role: "status" }, ...words.map((text) => h("p", {}, text))) : null;
  }

  private continuation(course: Course, { last }: Progress): HTMLElement {
    const lesson = course.lessons.find((other) => other.id === last?.lesson);
    if (!last || !lesson) {
      const first = course.lessons[0];
      return button(`Start with ${first.id}`, () => this.actions.open(pathOf(course, first, "lesson")), { class: "fk-go", "data-key": "continue" });
    }
    const what = last.kind === "exercise" ? `exercises of ${lesson.id}` : `${lesson.id} ${lesson.title}`;
    return button(`Continue: ${what}`, () => this.actions.open(pathOf(course, lesson, last.kind as Kind), last.cell), { class: "fk-go", "data-key": "continue" });
  }

  private map(course: Course, progress: Progress): HTMLElement {
    return h("nav", { "aria-label": "Lessons" }, h("ol", { class: "fk-map" }, ...course.lessons.map((lesson) => this.entry(course, lesson, progress))));
  }

  private entry(course: Course, lesson: Lesson, progress: Progress): HTMLElement {
    const here = this.place?.lesson.id === lesson.id;
    const open = this.unfolded === lesson.id || (this.unfolded === null && here);
    const state = stateOf(lesson, progress);
    const fold = button(open ? "−" : "+", () => this.unfold(open ? "" : lesson.id), {
      "aria-expanded": String(open),
      "aria-label": `Objectives of ${lesson.id}`,
      "data-key": `fold-${lesson.id}`,
      class: "fk-fold",
    });
    const title = button(`${lesson.id}  ${lesson.title}`, () => this.actions.open(pathOf(course, lesson, "lesson")), {
      class: "fk-lesson",
      "aria-current": here && "page",
      "data-key": `lesson-${lesson.id}`,
    });
    const needs = lesson.prerequisites.length ? ` · after ${lesson.prerequisites.join(", ")}` : "";
    return h(
      "li",
      { class: here ? "fk-here" : "" },
      h("div", { class: "fk-row" }, title, fold),
      h("div", { class: "fk-state" }, h("span", { class: `fk-dot fk-${state.mark}`, "aria-hidden": "true" }, DOTS[state.mark]), ` ${state.words} · ${lesson.minutes}\u00a0min${needs}`),
      open && h("ul", { class: "fk-aims" }, ...lesson.objectives.map((aim, i) => objective(lesson, aim, i, progress))),
      open && lesson.exercises.length > 0 && button(`Exercises (${state.right} of ${lesson.exercises.length} right)`, () => this.actions.open(pathOf(course, lesson, "exercise")), { "data-key": `exercises-${lesson.id}` }),
    );
  }

  private unfold(id: string): void {
    this.unfolded = id;
    this.draw();
  }

  /** What can be done with the notebook that is open. */
  private here(progress: Progress): HTMLElement | null {
    const { place, bars } = this;
    if (!place) return null;
    const parts: (Node | false)[] = [h("h3", {}, "This notebook"), button("Lecture mode", () => this.actions.lecture(), { "data-key": "lecture" })];
    if (place.kind === "exercise" && bars) {
      const elsewhere = bars.elsewhere;
      if (elsewhere.length) {
        const back = () => elsewhere.forEach((exercise) => bars.putBack(exercise));
        parts.push(button(`Put back ${count(elsewhere.length, "answer")} from this browser`, back, { class: "fk-call", "data-key": "back" }));
      }
      if (bars.homeless) parts.push(h("p", {}, `${count(bars.homeless, "kept answer")} fit no cell here any more; your downloaded progress holds them.`));
      parts.push(button("Start all exercises again, and keep a copy", () => void this.startAgain(bars), { "data-key": "reset" }));
    }
    const ticks = place.lesson.exercises.filter(({ id }) => id in progress.checks).map(({ id }) => `✓ ${id}`);
    if (ticks.length) parts.push(h("p", { class: "fk-right" }, ticks.join("  ")));
    return h("section", { "aria-label": "This notebook" }, ...parts);
  }

  private async startAgain(bars: ExerciseBars): Promise<void> {
    try {
      this.said = `All exercises are as new. What you had is in ${await bars.resetAll()}.`;
    } catch (error) {
      this.said = `Nothing was started again: ${error instanceof Error ? error.message : error}.`;
    }
    this.draw();
  }

  private keeping(progress: Progress): HTMLElement {
    const input = h("input", { type: "file", accept: ".json,application/json", class: "fk-hidden", "aria-label": "A progress file", tabindex: -1 });
    input.addEventListener("change", () => void this.restore(input));
    const then = progress.downloaded === null ? "never downloaded" : `downloaded ${ago(progress.downloaded)}`;
    return h(
      "section",
      { "aria-label": "Your progress" },
      h("h3", {}, "Your progress"),
      h("p", { class: "fk-soft" }, `Ticks and answers are kept in this browser; ${then}.`),
      h("div", { class: "fk-buttons" }, button("Download", () => this.store.download(), { "data-key": "download" }), button("Restore …", () => input.click(), { "data-key": "restore" })),
      input,
    );
  }

  private async restore(input: HTMLInputElement): Promise<void> {
    const [file] = input.files ?? [];
    if (!file) return;
    try {
      this.store.restore(await file.text());
      this.said = "Your progress is back. What was here before is still there.";
    } catch (error) {
      this.said = `Nothing was restored: ${error instanceof Error ? error.message : error}.`;
    }
    this.draw();
  }

  /** The doctor's strip: what the kernel of this notebook runs on. */
  private machine(): HTMLElement {
    const { vitals, place } = this;
    const parts: Node[] = [h("h3", {}, "This machine")];
    if (!vitals) parts.push(h("p", { class: "fk-soft" }, "Run a cell of a lesson, and this says what it runs on."));
    else {
      const budget = place?.lesson.peak_mb;
      const over = budget !== undefined && vitals.peak_mb > budget;
      const number = (mb: number) => Math.round(mb).toLocaleString("en");
      parts.push(
        h("p", {}, `${vitals.device} · ${count(vitals.threads, "thread")} · ${vitals.offline ? "✓ weights and data are here" : "✗ weights or data are missing: run frozenkit doctor"}`),
        h("p", { class: over ? "fk-late" : "" }, `${number(vitals.memory_mb)} MB in use, at most ${number(vitals.peak_mb)}${budget === undefined ? "" : ` of ${number(budget)} planned`}${over ? ": more than planned; restart the kernel if it gets slow" : ""}`),
      );
      if (budget !== undefined) parts.push(h("meter", { min: 0, max: budget, value: Math.min(vitals.peak_mb, budget), "aria-label": "Memory of what is planned" }));
    }
    return h("section", { "aria-label": "This machine" }, ...parts);
  }
}

type Mark = "new" | "begun" | "done";
const DOTS: Record<Mark, string> = { new: "○", begun: "◐", done: "●" };

function stateOf(lesson: Lesson, progress: Progress): { mark: Mark; words: string; right: number } {
  const right = lesson.exercises.filter(({ id }) => id in progress.checks).length;
  const share = shareRun(lesson, progress);
  if (share >= 1 && right === lesson.exercises.length) return { mark: "done", words: "done", right };
  if (share === 0 && right === 0) return { mark: "new", words: "new", right };
  const read = share >= 1 ? "read" : share > 0 && `${Math.round(100 * share)} % run`;
  const solved = right > 0 && `${right} of ${lesson.exercises.length} right`;
  return { mark: "begun", words: [read, solved].filter(Boolean).join(", "), right };
}

function shareRun(lesson: Lesson, progress: Progress): number {
  const of = progress.cells[lesson.id] ?? 0;
  return of ? Math.min(1, (progress.run[lesson.id] ?? []).length / of) : 0;
}

/** An objective is reached when its exercises are right; one without, when the lesson has run to its end. */
function objective(lesson: Lesson, aim: string, index: number, progress: Progress): HTMLElement {
  const own = lesson.exercises.filter((exercise) => exercise.objective === index);
  const reached = own.length ? own.every(({ id }) => id in progress.checks) : shareRun(lesson, progress) >= 1;
  const how = own.length ? `shown by ${own.map(({ id }) => id).join(" and ")}` : "shown by running the lesson to its end";
  return h("li", { class: reached ? "fk-right" : "", title: how }, `${reached ? "✓" : "○"} ${aim}`, h("span", { class: "fk-hidden" }, reached ? " (reached)" : ` (${how})`));
}

const count = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;
