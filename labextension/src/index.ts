import { ILabShell, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, IToolbarWidgetRegistry } from "@jupyterlab/apputils";
import { PageConfig, URLExt } from "@jupyterlab/coreutils";
import { ILauncher } from "@jupyterlab/launcher";
import { IMainMenu } from "@jupyterlab/mainmenu";
import { INotebookTracker, NotebookActions, type NotebookPanel } from "@jupyterlab/notebook";
import { LabIcon } from "@jupyterlab/ui-components";
import { Widget } from "@lumino/widgets";
import { findCourse, foldersAround, type Lesson, neighbour, pathOf, type Place, placeOf } from "./course";
import { button } from "./dom";
import { ExerciseBars, verdictOf } from "./exercises";
import { Lecture } from "./lecture";
import { CoursePanel, type Vitals } from "./panel";
import { ProgressStore } from "./progress";

const icon = new LabIcon({
  name: "frozenkit:crystal",
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16"><g class="jp-icon3" stroke="#616161" stroke-width="1.8" stroke-linecap="round" fill="none"><path d="M12 2v20M3.3 7l17.4 10M3.3 17L20.7 7"/><path d="M9.5 3.5L12 6l2.5-2.5M9.5 20.5L12 18l2.5 2.5M3 10.4l3.4-.9-.9-3.4M21 13.6l-3.4.9.9 3.4M3 13.6l3.4.9-.9 3.4M21 10.4l-3.4-.9.9-3.4"/></g></svg>',
});

// Asked of the kernel, and only where the course has been imported already: it must never load torch by itself.
const VITALS = "__import__('frozenkit.app.doctor', fromlist=['vitals']).vitals() if 'frozenkit' in __import__('sys').modules else ''";

function activate(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  shell: ILabShell | null,
  launcher: ILauncher | null,
  menu: IMainMenu | null,
  palette: ICommandPalette | null,
  toolbars: IToolbarWidgetRegistry | null,
): void {
  const { contents } = app.serviceManager;
  const store = new ProgressStore();
  const panel = new CoursePanel(store, { open: (path, cell) => void open(path, cell), lecture: () => lecture() });
  panel.id = "frozenkit-course";
  panel.title.icon = icon;
  panel.title.caption = "frozenkit course";
  panel.temporary = PageConfig.getOption("frozenkitTemporary") === "true" || /(^|\.)mybinder\.org$/.test(location.hostname);
  app.shell.add(panel, "left", { rank: 350 });

  const bars = new WeakMap<NotebookPanel, ExerciseBars>();
  const buttons = new Set<() => void>();
  const placeIn = (notebook: NotebookPanel | null): Place | null =>
    notebook && placeOf(panel.course, contents.localPath(notebook.context.path));

  /** Look for the course around this notebook, until there is one. */
  let search = Promise.resolve();
  const look = (path: string | null): Promise<void> =>
    (search = search.then(async () => {
      panel.course ??= await findCourse(contents, foldersAround(path));
      panel.looked = true;
    }));

  const refresh = (): void => {
    const notebook = tracker.currentWidget;
    panel.place = placeIn(notebook);
    panel.bars = notebook ? (bars.get(notebook) ?? null) : null;
    panel.draw();
    buttons.forEach((draw) => draw());
    app.commands.notifyCommandChanged();
  };

  async function open(path: string, cell?: string): Promise<void> {
    if (!shell) {
      // Notebook 7 has one notebook a page
      await tracker.currentWidget?.context.save().catch(() => undefined);
      location.assign(URLExt.join(PageConfig.getBaseUrl(), "notebooks", URLExt.encodeParts(path)) + (cell ? `#fk-${cell}` : ""));
      return;
    }
    const opened = (await app.commands.execute("docmanager:open", { path })) as NotebookPanel | undefined;
    if (opened && cell) await goTo(opened, cell);
  }

  async function goTo(notebook: NotebookPanel, cell: string): Promise<void> {
    await Promise.all([notebook.context.ready, notebook.revealed]);
    const index = notebook.content.widgets.findIndex((widget) => widget.model.id === cell);
    if (index < 0) return; // the lesson has changed since
    notebook.content.activeCellIndex = index;
    await notebook.content.scrollToItem(index, "start");
  }

  const lecture = (): void => {
    const notebook = tracker.currentWidget;
    if (notebook) Lecture.toggle(notebook, placeIn(notebook)?.lesson.minutes ?? null);
  };

  const step = (by: number): Lesson | undefined => {
    const place = placeIn(tracker.currentWidget);
    return place && panel.course ? neighbour(panel.course, place.lesson, by) : undefined;
  };

  async function follow(notebook: NotebookPanel): Promise<void> {
    await notebook.context.ready;
    await look(contents.localPath(notebook.context.path));
    const place = placeIn(notebook);
    if (panel.course && place?.kind === "exercise") bars.set(notebook, new ExerciseBars(notebook, panel.course, place.lesson, store, contents));
    notebook.content.activeCellChanged.connect((_, cell) => {
      const now = placeIn(notebook);
      if (!now || now.kind === "solution" || !cell || tracker.currentWidget !== notebook) return;
      store.change((progress) => (progress.last = { lesson: now.lesson.id, kind: now.kind, cell: cell.model.id, at: Date.now() }));
    });
    const [, wanted] = /^#fk-(.+)$/.exec(location.hash) ?? [];
    if (wanted) await goTo(notebook, wanted);
    // Whoever is new here sees the map once; later it stays as it was left.
    if (shell && place && store.now.last === null) app.shell.activateById(panel.id);
    refresh();
  }

  NotebookActions.executed.connect((_, { notebook, cell, success }) => {
    const parent = tracker.find((other) => other.content === notebook) ?? null;
    const place = placeIn(parent);
    if (!parent || !place || place.kind === "solution" || cell.model.type !== "code") return;
    if (success && place.kind === "lesson") {
      const of = notebook.widgets.filter((other) => other.model.type === "code").length;
      store.ran(place.lesson.id, cell.model.id, of);
    }
    const verdict = verdictOf(cell);
    if (verdict?.right) store.change((progress) => (progress.checks[verdict.id] ??= Date.now()));
    void examine(parent);
  });

  let examined = 0;
  async function examine(notebook: NotebookPanel): Promise<void> {
    const kernel = notebook.sessionContext.session?.kernel;
    if (!kernel || Date.now() - examined < 3000) return;
    examined = Date.now();
    const future = kernel.requestExecute({ code: "", silent: true, store_history: false, user_expressions: { vitals: VITALS } });
    const { content } = await future.done.catch(() => ({ content: null }));
    const answer = content?.status === "ok" ? (content.user_expressions as Record<string, { data?: Record<string, string> }> | undefined) : undefined;
    const text = answer?.vitals?.data?.["text/plain"] ?? "''";
    if (text.length < 3) return;
    panel.vitals = JSON.parse(text.slice(1, -1)) as Vitals; // Python's repr of a JSON text
    panel.draw();
  }

  const named = (words: string, lesson: Lesson | undefined) => (lesson ? `${words}: ${lesson.id} ${lesson.title}` : words);
  const commands: [string, (asked: { [key: string]: unknown }) => string, () => void, () => boolean][] = [
    ["frozenkit:open", () => "frozenkit course", () => app.shell.activateById(panel.id), () => true],
    ["frozenkit:next", () => named("Next lesson", step(1)), () => go(1), () => step(1) !== undefined],
    ["frozenkit:previous", () => named("Previous lesson", step(-1)), () => go(-1), () => step(-1) !== undefined],
    ["frozenkit:lecture", () => "Lecture mode", lecture, () => tracker.currentWidget !== null],
    ["frozenkit:download", () => "Download my progress", () => store.download(), () => true],
  ];
  const go = (by: number): void => {
    const lesson = step(by);
    if (lesson && panel.course) void open(pathOf(panel.course, lesson, "lesson"));
  };
  for (const [command, label, execute, isEnabled] of commands) {
    const first = command === "frozenkit:open";
    app.commands.addCommand(command, { label, execute, isEnabled, icon: first ? icon : undefined, caption: first ? "The course's map, your progress, and where to go on" : undefined });
    palette?.addItem({ command, category: "frozenkit" });
  }
  launcher?.add({ command: "frozenkit:open", category: "frozenkit", rank: 0 });
  menu?.helpMenu.addGroup([{ command: "frozenkit:open" }, { command: "frozenkit:lecture" }], 5);

  toolbars?.addFactory<NotebookPanel>("Notebook", "frozenkit", (notebook) => {
    const widget = new Widget();
    widget.addClass("fk-steps");
    const draw = (): void => {
      const place = placeIn(notebook);
      const around = place && panel.course ? ([-1, 1] as const).map((by) => panel.course && neighbour(panel.course, place.lesson, by)) : [];
      const [before, after] = around;
      widget.node.replaceChildren(
        ...(before ? [button(`‹ ${before.id}`, () => go(-1), { title: named("Previous lesson", before) })] : []),
        ...(after ? [button(`${after.id} ›`, () => go(1), { title: named("Next lesson", after) })] : []),
        ...(place ? [button("▷ Lecture", lecture, { title: "Show this notebook as slides (Alt Shift L)" })] : []),
      );
    };
    buttons.add(draw);
    widget.disposed.connect(() => buttons.delete(draw));
    draw();
    return widget;
  });

  tracker.widgetAdded.connect((_, notebook) => void follow(notebook));
  tracker.currentChanged.connect(refresh);
  tracker.forEach((notebook) => void follow(notebook));
  void app.restored.then(() => look(tracker.currentWidget?.context.path ?? null)).then(refresh);
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "frozenkit:course",
  description: "The course's map, progress and lecture mode.",
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ILabShell, ILauncher, IMainMenu, ICommandPalette, IToolbarWidgetRegistry],
  activate,
};

export default plugin;
