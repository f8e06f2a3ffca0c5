import type { Contents } from "@jupyterlab/services";

export interface Lesson {
  id: string;
  file: string;
  title: string;
  minutes: number;
  peak_mb: number;
  objectives: string[];
  prerequisites: string[];
  exercises: { id: string; objective: number }[];
}

export interface Course {
  title: string;
  lessons: Lesson[];
  root: string; // the folder of course.json, as the server names it
}

export type Kind = "lesson" | "exercise" | "solution";

/** Where a notebook stands in the course. */
export interface Place {
  lesson: Lesson;
  kind: Kind;
}

const FOLDERS: Record<Kind, string> = { lesson: "", exercise: "exercises/", solution: "solutions/" };

const joined = (folder: string, name: string) => (folder ? `${folder}/${name}` : name);

/** The path of a notebook of the course. */
export const pathOf = (course: Course, lesson: Lesson, kind: Kind): string =>
  joined(course.root, FOLDERS[kind] + lesson.file);

/** Which notebook of the course lies at this path, if any. */
export function placeOf(course: Course | null, path: string): Place | null {
  for (const lesson of course?.lessons ?? []) {
    for (const kind of Object.keys(FOLDERS) as Kind[]) {
      if (course && pathOf(course, lesson, kind) === path) return { lesson, kind };
    }
  }
  return null;
}

/** The lesson before or after this one. */
export function neighbour(course: Course, lesson: Lesson, step: number): Lesson | undefined {
  return course.lessons[course.lessons.findIndex((other) => other.id === lesson.id) + step];
}

/** Read `course.json` from the first of these folders that holds one; null where none does. */
export async function findCourse(contents: Contents.IManager, folders: string[]): Promise<Course | null> {
  for (const root of new Set(folders)) {
    const course = await readCourse(contents, root);
    if (course) return course;
  }
  return null;
}

async function readCourse(contents: Contents.IManager, root: string): Promise<Course | null> {
  // Folders are listed before a file is asked for: a browser logs each request that fails as an error of the page.
  if (!(await holds(contents, root, "course.json"))) return null;
  try {
    const { content } = await contents.get(joined(root, "course.json"), { type: "file", format: "text", content: true });
    const { title, lessons } = JSON.parse(content) as Partial<Course>;
    if (!Array.isArray(lessons) || !lessons.every((lesson) => lesson.id && lesson.file)) return null;
    const whole = lessons.map((lesson) => ({
      ...lesson,
      objectives: lesson.objectives ?? [],
      prerequisites: lesson.prerequisites ?? [],
      exercises: lesson.exercises ?? [],
    }));
    return { title: title ?? "The course", lessons: whole, root };
  } catch {
    return null; // unreadable, or not JSON: somebody else's course
  }
}

/** Whether a file or folder lies at this path, and everything above it as well. */
async function holds(contents: Contents.IManager, folder: string, name: string): Promise<boolean> {
  const parts = folder.split("/");
  const parent = parts.slice(0, -1).join("/");
  if (folder && !(await holds(contents, parent, parts[parts.length - 1]))) return false;
  try {
    const { content } = await contents.get(folder, { content: true });
    return (content as Contents.IModel[]).some((entry) => entry.name === name);
  } catch {
    return false; // a folder that may not be read
  }
}

/** The folders that may hold the course a notebook belongs to, nearest first. */
export function foldersAround(path: string | null): string[] {
  const parts = (path ?? "").split("/").slice(0, -1);
  const above = parts.map((_, i) => parts.slice(0, parts.length - i).join("/"));
  return [...above, "notebooks", "", "frozenkit-course/notebooks"];
}
