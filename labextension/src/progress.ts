import { Signal } from "@lumino/signaling";

/** An answer that somebody wrote, with what stood there before. */
export interface Answer {
  source: string;
  at: number;
  older: string[];
}

export interface Progress {
  frozenkit: 1;
  checks: Record<string, number>; // exercise → when it was right for the first time, ms
  run: Record<string, string[]>; // lesson → ids of the code cells that ran without an error
  cells: Record<string, number>; // lesson → how many code cells it has
  hints: Record<string, number>; // exercise → how many hints were asked for
  answers: Record<string, Record<string, Answer>>; // lesson → cell id
  last: { lesson: string; kind: string; cell: string; at: number } | null;
  downloaded: number | null;
}

const KEY = "frozenkit-progress";
const OLDER = 5; // versions of an answer that are kept beside the latest

/** The file is sound, and of a format that this version does not know. */
class NewerError extends Error {}

const nothing = (): Progress => ({ frozenkit: 1, checks: {}, run: {}, cells: {}, hints: {}, answers: {}, last: null, downloaded: null });

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const recordOf = <T>(value: unknown, fits: (entry: unknown) => entry is T): Record<string, T> =>
  Object.fromEntries(Object.entries(isRecord(value) ? value : {}).filter((pair): pair is [string, T] => fits(pair[1])));

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);
const isNames = (value: unknown): value is string[] => Array.isArray(value) && value.every((name) => typeof name === "string");
const isAnswer = (value: unknown): value is Answer =>
  isRecord(value) && typeof value.source === "string" && isNumber(value.at) && isNames(value.older);

/** FNV-1a, 32 bits: changes with every single character. It tells damage, not malice. */
function digestOf(text: string): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}

/** Progress as a text that carries a digest of itself; `parsed` reads it back. */
export function written(progress: Progress, indent?: number): string {
  return JSON.stringify({ ...progress, digest: digestOf(JSON.stringify(progress)) }, null, indent);
}

/** Progress out of a text that anybody may have written; what does not fit is left out. */
export function parsed(text: string): Progress {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("this file is damaged: it is not JSON");
  }
  if (!isRecord(value) || !isNumber(value.frozenkit)) throw new Error("this file does not hold progress in frozenkit's course");
  if (value.frozenkit > 1) throw new NewerError("a newer frozenkit wrote this file: update frozenkit to read it");
  const { digest, ...content } = value; // a text without one was written by hand, or by the first edition
  if (digest !== undefined && digest !== digestOf(JSON.stringify(content))) throw new Error("this file is damaged: it is not what was written");
  if (value.frozenkit !== 1) throw new Error("this file does not hold progress in frozenkit's course");
  const last = value.last;
  const named = isRecord(last) && [last.lesson, last.kind, last.cell].every((part) => typeof part === "string") && isNumber(last.at);
  return {
    frozenkit: 1,
    checks: recordOf(value.checks, isNumber),
    run: recordOf(value.run, isNames),
    cells: recordOf(value.cells, isNumber),
    hints: recordOf(value.hints, isNumber),
    answers: Object.fromEntries(Object.entries(recordOf(value.answers, isRecord)).map(([name, found]) => [name, recordOf(found, isAnswer)])),
    last: named ? (last as Progress["last"]) : null,
    downloaded: isNumber(value.downloaded) ? value.downloaded : null,
  };
}

/** A newer version of an answer; the one before is kept. */
function newer(before: Answer | undefined, source: string, at: number, older: string[] = []): Answer {
  const kept = [before?.source, ...(before?.older ?? []), ...older].filter((text): text is string => text !== undefined && text !== source);
  return { source, at, older: [...new Set(kept)].slice(0, OLDER) };
}

/** Both, with nothing lost: the earlier tick, the later answer, and the other version of it beside. */
export function merged(a: Progress, b: Progress): Progress {
  const all = (one: object, two: object) => [...new Set([...Object.keys(one), ...Object.keys(two)])];
  const by = <T>(one: Record<string, T>, two: Record<string, T>, pick: (x: T, y: T) => T) =>
    Object.fromEntries(all(one, two).map((key) => [key, key in one && key in two ? pick(one[key], two[key]) : (one[key] ?? two[key])]));
  const later = (x: Answer, y: Answer) => (x.at >= y.at ? newer(y, x.source, x.at, x.older) : newer(x, y.source, y.at, y.older));
  return {
    frozenkit: 1,
    checks: by(a.checks, b.checks, Math.min),
    run: by(a.run, b.run, (x, y) => [...new Set([...x, ...y])]),
    cells: by(a.cells, b.cells, (_, y) => y),
    hints: by(a.hints, b.hints, Math.max),
    answers: by(a.answers, b.answers, (x, y) => by(x, y, later)),
    last: (a.last?.at ?? 0) >= (b.last?.at ?? 0) ? a.last : b.last,
    downloaded: Math.max(a.downloaded ?? 0, b.downloaded ?? 0) || null,
  };
}

/** Progress kept in this browser. Every change reads first what another tab may have written. */
export class ProgressStore {
  readonly changed = new Signal<this, void>(this);
  /** What went wrong with keeping it, for people; empty where all is well. */
  trouble = "";
  private memory = nothing();

  constructor() {
    window.addEventListener("storage", (event) => event.key === KEY && this.changed.emit());
  }

  get now(): Progress {
    let text: string | null = null;
    try {
      text = localStorage.getItem(KEY);
      // While nothing could be stored, what this page remembers is ahead.
      return text === null || this.trouble ? merged(this.memory, text === null ? nothing() : parsed(text)) : parsed(text);
    } catch (error) {
      if (text !== null) this.putAside(text, error instanceof NewerError);
      return this.memory;
    }
  }

  change(edit: (progress: Progress) => void): void {
    const progress = this.now;
    edit(progress);
    this.memory = progress;
    try {
      localStorage.setItem(KEY, written(progress));
      this.trouble = "";
    } catch {
      this.trouble = "This browser keeps nothing more: its storage is full or closed. Download your progress before you leave.";
    }
    this.changed.emit();
  }

  answer(lesson: string, cell: string, source: string): void {
    if (this.now.answers[lesson]?.[cell]?.source === source) return;
    this.change((progress) => {
      const answers = (progress.answers[lesson] ??= {});
      answers[cell] = newer(answers[cell], source, Date.now());
    });
  }

  ran(lesson: string, cell: string, of: number): void {
    this.change((progress) => {
      progress.run[lesson] = [...new Set([...(progress.run[lesson] ?? []), cell])];
      progress.cells[lesson] = of;
    });
  }

  /** One file with everything; the time of the download is part of it. */
  download(): void {
    this.change((progress) => (progress.downloaded = Date.now()));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([written(this.now, 1)], { type: "application/json" }));
    link.download = `frozenkit-progress-${new Date().toISOString().slice(0, 10)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /** Add what a downloaded file holds to what is here. Throws a sentence where the file is none of ours. */
  restore(text: string): void {
    const found = parsed(text);
    this.change((progress) => Object.assign(progress, merged(progress, found)));
  }

  private putAside(text: string, newer: boolean): void {
    const place = `${KEY}-${newer ? "newer" : "damaged"}`;
    try {
      // Beside what was put aside before, never over it.
      let name = place;
      for (let i = 2; localStorage.getItem(name) !== null; i++) name = `${place}-${i}`;
      localStorage.setItem(name, text);
      localStorage.removeItem(KEY);
    } catch {
      // a browser that lets us read and not write: it stays where it is
    }
    const what = newer ? "was written by a newer frozenkit" : "is damaged";
    this.trouble = `What this browser had kept ${what}. It was put aside, and the course begins anew; a downloaded file brings it back.`;
  }
}
