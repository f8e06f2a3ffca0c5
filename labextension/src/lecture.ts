import type { Cell } from "@jupyterlab/cells";
import type { NotebookPanel } from "@jupyterlab/notebook";
import { MessageLoop } from "@lumino/messaging";
import { Widget } from "@lumino/widgets";
import { button, h } from "./dom";

/** A slide is a list of steps, a step a list of cell indices; notes stand beside the step they follow. */
export type Slide = number[][];

const FORWARD = ["ArrowRight", "ArrowDown", "PageDown", " ", "Enter"];
const BACK = ["ArrowLeft", "ArrowUp", "PageUp", "Backspace"];
const REMOTE = ["PageDown", "PageUp", "Escape"]; // keys that mean us wherever the focus is

function slideType(cell: Cell): string {
  return (cell.model.getMetadata("slideshow") as { slide_type?: string } | undefined)?.slide_type ?? "-";
}

function hasTag(cell: Cell, tag: string): boolean {
  return ((cell.model.getMetadata("tags") as string[] | undefined) ?? []).includes(tag);
}

const isHint = (cell: Cell) => [1, 2, 3].some((n) => hasTag(cell, `hint-${n}`));

/** Slides from slide types; where every cell is skipped (exercises), each heading begins one. */
export function slidesOf(cells: readonly Cell[]): Slide[] {
  const types = cells.map(slideType);
  const whole = types.every((type) => type === "skip" || type === "-");
  const slides: Slide[] = [];
  cells.forEach((cell, i) => {
    const heading = cell.model.type === "markdown" && /^#{1,2} /.test(cell.model.sharedModel.getSource());
    const type = whole ? (heading ? "slide" : "-") : types[i];
    if (type === "skip") return;
    if (type === "slide" || type === "subslide" || !slides.length) slides.push([[i]]);
    else if (type === "fragment") slides.at(-1)?.push([i]);
    else slides.at(-1)?.at(-1)?.push(i);
  });
  return slides;
}

/** A lesson as slides, in place: the cells are the notebook's own, so that every lab on them lives. */
export class Lecture {
  private static now: Lecture | null = null;
  private slides: Slide[];
  private slide = 0;
  private step = 0;
  private secrets = false; // notes, hints and solutions
  private started = Date.now();
  private clock = h("span", { class: "fk-clock" });
  private place = h("span", { role: "status", "aria-live": "polite" });
  private secretsButton = button("Notes and solutions", () => this.toggleSecrets(), { "aria-pressed": "false", title: "n" });
  private bar: HTMLElement;
  private tick: ReturnType<typeof setInterval>;
  private before: { windowing: NotebookPanel["content"]["notebookConfig"]["windowingMode"]; toolbar: boolean; focus: Element | null };

  /** Begin, or end what is under way. */
  static toggle(panel: NotebookPanel, minutes: number | null): void {
    if (Lecture.now) Lecture.now.end();
    else Lecture.now = new Lecture(panel, minutes);
  }

  private constructor(
    private panel: NotebookPanel,
    private minutes: number | null,
  ) {
    const notebook = panel.content;
    this.before = { windowing: notebook.notebookConfig.windowingMode, toolbar: !panel.toolbar.isHidden, focus: document.activeElement };
    notebook.notebookConfig = { ...notebook.notebookConfig, windowingMode: "none" }; // every cell is there to be shown
    notebook.mode = "command";
    this.slides = slidesOf(notebook.widgets);
    this.slide = Math.max(0, this.slides.findLastIndex((slide) => slide[0][0] <= notebook.activeCellIndex));
    const full = button("Full screen", () => void this.fullScreen(), { title: "f" });
    this.bar = h(
      "div",
      { class: "fk-lecture-bar", role: "toolbar", "aria-label": "Lecture" },
      button("‹", () => this.back(), { "aria-label": "Back", title: "← or page up" }),
      this.place,
      button("›", () => this.forward(), { "aria-label": "On", title: "→ or page down" }),
      this.clock,
      button("Restart the clock", () => this.restart(), { title: "t" }),
      this.secretsButton,
      full,
      button("End", () => this.end(), { title: "Esc" }),
    );
    document.body.classList.add("fk-lecturing");
    panel.addClass("fk-lecture");
    panel.toolbar.hide();
    panel.node.append(this.bar);
    window.addEventListener("keydown", this.onKey, true);
    window.addEventListener("resize", this.fit);
    panel.disposed.connect(this.end, this);
    this.tick = setInterval(() => this.time(), 1000);
    this.fit();
    this.show();
    this.bar.tabIndex = -1;
    this.bar.focus();
  }

  end(): void {
    clearInterval(this.tick);
    window.removeEventListener("keydown", this.onKey, true);
    window.removeEventListener("resize", this.fit);
    document.body.classList.remove("fk-lecturing");
    this.bar.remove();
    Lecture.now = null;
    if (document.fullscreenElement) void document.exitFullscreen();
    if (this.panel.isDisposed) return;
    const notebook = this.panel.content;
    for (const cell of notebook.widgets) cell.node.classList.remove("fk-off", "fk-shown", "fk-first");
    const active = this.slides[this.slide]?.[0][0] ?? 0;
    notebook.notebookConfig = { ...notebook.notebookConfig, windowingMode: this.before.windowing };
    if (this.before.toolbar) this.panel.toolbar.show();
    this.panel.removeClass("fk-lecture");
    this.panel.disposed.disconnect(this.end, this);
    this.fit();
    if (this.panel.parent) MessageLoop.sendMessage(this.panel.parent, Widget.ResizeMessage.UnknownSize);
    notebook.activeCellIndex = active;
    void notebook.scrollToItem(active);
    if (this.before.focus instanceof HTMLElement) this.before.focus.focus();
  }

  // The shell's layout has the sizes of its own place; the whole screen is measured anew after it.
  private fit = (): void => {
    setTimeout(() => this.panel.isDisposed || MessageLoop.sendMessage(this.panel, Widget.ResizeMessage.UnknownSize));
  };

  private onKey = (event: KeyboardEvent): void => {
    const target = event.target instanceof Element ? event.target : document.body;
    const busy = target.closest("input, textarea, select, .cm-editor, .fk-lab, .jp-Dialog") !== null;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (!plain || (busy && !REMOTE.includes(event.key)) || (busy && event.key === "Escape")) return;
    const onButton = target.closest("button, summary, a") !== null && [" ", "Enter"].includes(event.key);
    if (onButton) return;
    const act =
      (FORWARD.includes(event.key) && (event.key !== " " || !event.shiftKey) && (() => this.forward())) ||
      ((BACK.includes(event.key) || event.key === " ") && (() => this.back())) ||
      (event.key === "Home" && (() => this.go(0, 0))) ||
      (event.key === "End" && (() => this.go(this.slides.length - 1, 0))) ||
      (event.key === "n" && (() => this.toggleSecrets())) ||
      (event.key === "t" && (() => this.restart())) ||
      (event.key === "f" && (() => void this.fullScreen())) ||
      (event.key === "Escape" && (() => this.end()));
    if (!act) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    act();
  };

  /** On within a slide that is longer than the screen, then to its next step, then to the next slide. */
  private forward(): void {
    if (this.turn(1)) return;
    if (this.step + 1 < (this.slides[this.slide]?.length ?? 0)) this.go(this.slide, this.step + 1);
    else if (this.slide + 1 < this.slides.length) this.go(this.slide + 1, 0);
  }

  private back(): void {
    if (this.turn(-1)) return;
    if (this.step > 0) this.go(this.slide, this.step - 1);
    else if (this.slide > 0) this.go(this.slide - 1, this.slides[this.slide - 1].length - 1);
  }

  /** Scroll most of a screen, where there is more of the slide that way. */
  private turn(by: 1 | -1): boolean {
    const page = this.panel.content.node.querySelector(".jp-WindowedPanel-outer") ?? this.panel.content.node;
    const shown = this.panel.content.node.querySelectorAll(by > 0 ? ".fk-shown" : ".fk-first");
    const edge = shown[shown.length - 1]?.getBoundingClientRect();
    const { top } = page.getBoundingClientRect();
    const bottom = this.bar.getBoundingClientRect().top;
    const more = edge && (by > 0 ? edge.bottom - bottom > 4 : top - edge.top > 4);
    if (more) page.scrollBy({ top: by * 0.8 * (bottom - top) });
    return Boolean(more);
  }

  private go(slide: number, step: number): void {
    const turned = slide !== this.slide;
    [this.slide, this.step] = [slide, step];
    this.show();
    const shown = this.panel.content.node.querySelectorAll(".fk-shown");
    if (turned) shown[0]?.scrollIntoView({ block: "start" });
    else shown[shown.length - 1]?.scrollIntoView({ block: "nearest" });
  }

  private show(): void {
    const visible = new Set(this.slides[this.slide]?.slice(0, this.step + 1).flat());
    const secret = (cell: Cell) => slideType(cell) === "notes" || hasTag(cell, "solution") || isHint(cell);
    let first = true;
    this.panel.content.widgets.forEach((cell, i) => {
      const shown = visible.has(i) && (this.secrets || !secret(cell));
      cell.node.classList.toggle("fk-off", !shown);
      cell.node.classList.toggle("fk-shown", shown);
      cell.node.classList.toggle("fk-first", shown && first);
      cell.node.classList.toggle("fk-secret", secret(cell));
      if (shown) first = false;
    });
    this.place.textContent = `Slide ${this.slide + 1} of ${this.slides.length}`;
    this.time();
  }

  /** Time spoken, time planned, and how far behind the plan that is at this slide. */
  private time(): void {
    const spent = (Date.now() - this.started) / 60_000;
    const clock = `${Math.floor(spent)}:${String(Math.floor((spent % 1) * 60)).padStart(2, "0")}`;
    if (this.minutes === null) {
      this.clock.textContent = clock;
      return;
    }
    const due = (this.minutes * (this.slide + 1)) / this.slides.length;
    const late = Math.round(spent - due);
    this.clock.textContent = `${clock} of ${this.minutes} min${late > 0 ? `, ${late} min behind` : ""}`;
    this.clock.classList.toggle("fk-late", late > 0);
  }

  private restart(): void {
    this.started = Date.now();
    this.time();
  }

  private toggleSecrets(): void {
    this.secrets = !this.secrets;
    this.secretsButton.setAttribute("aria-pressed", String(this.secrets));
    this.show();
  }

  private async fullScreen(): Promise<void> {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await document.documentElement.requestFullscreen().catch(() => undefined); // a browser may refuse
  }
}
