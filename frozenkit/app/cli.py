"""The command line: ``frozenkit lab · doctor · probe · predict · cache · build``."""

import json
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from frozenkit import __version__
from frozenkit._files import written_aside
from frozenkit._outputs import printable, table
from frozenkit.errors import CacheMissError, DataError, FrozenkitError, FrozenkitWarning, InputError, require

app = typer.Typer(
    help="Frozen feature transfer: keep a pretrained network fixed, fit a light head, know how good the result is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback when something fails.")]


@app.command()
def lab(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen; the next ones if it is taken.")] = 8888,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser where there is one.")] = True,
    folder: Annotated[str | None, typer.Option("--dir", help="The course, or where to copy it to.")] = None,
    debug: Debug = False,
) -> None:
    """Open JupyterLab on the course, on this machine only and behind a token."""
    from frozenkit.app.lab import is_another_edition, open_course, run_lab

    require("jupyterlab", "course")  # before anything is copied
    place, copied = open_course(folder)
    if copied:
        print(f"The lessons were copied to {printable(place)}. They are yours to change.")
    elif is_another_edition(place):
        print(
            f"The course in {printable(place)} is of another edition than frozenkit {__version__}; nothing was added. "
            "To copy today's: frozenkit lab --dir NEW"
        )
    raise typer.Exit(run_lab(place, port=port, browser=browser, announce=_announce))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has, and what to do about what it lacks. Ends with 1 if something is left to do."""
    from rich.table import Table
    from rich.text import Text

    from frozenkit.app.doctor import doctor as look

    diagnosis = look()
    if as_json:
        print(json.dumps(diagnosis.to_dict(), indent=2, ensure_ascii=False))
    else:
        table = Table(box=None, pad_edge=False)
        table.add_column("Check", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("Found", overflow="fold")
        colours = {"OK": "green", "note": "yellow", "to do": "bold red"}
        for check in diagnosis.checks:
            found = Text(printable(check.found))  # Text, not markup: paths and messages may hold square brackets
            if check.advice:
                found.append(f"\n→ {printable(check.advice)}", style="bold")
            table.add_row(Text(check.name), Text(check.status, style=colours[check.status]), found)
        _console().print(table)
    raise typer.Exit(0 if diagnosis.ok else 1)


@app.command()
def probe(
    target: Annotated[str, typer.Argument(help="A data set's name, or a folder of images per class.")] = "emoji-google",
    backbone: Annotated[str, typer.Option(help="Which backbone; offline: efficientnet-lite0, -lite2.")] = (
        "efficientnet-lite0"
    ),
    layers: Annotated[
        str | None, typer.Option(help="Layer names, with commas; default: the backbone's stages.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels; default 96 for data by name, else its own.")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="At most so many images to learn from.")] = None,
    seed: Annotated[int, typer.Option(help="For splits and draws.")] = 0,
    goal: Annotated[
        float | None, typer.Option("--target-accuracy", help="What would be good enough, 0 to 1; for the advice.")
    ] = None,
    similarity: Annotated[
        str | None, typer.Option(help="To photos of things: near, middle or far; for the advice.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, and list them.")] = False,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep features, and use those kept.")] = True,
    page: Annotated[Path, typer.Option("--report", help="Where to write the HTML report.")] = Path(
        "frozenkit-report.html"
    ),
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the report in a browser.")] = False,
    test: Annotated[str | None, typer.Option(help="A folder of images per class to report on, and not learn.")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the classifier: a .safetensors file, and a card.")] = None,
    force: Annotated[bool, typer.Option("--force", help="With --save: replace a file that is there.")] = False,
    debug: Debug = False,
) -> None:
    """How good are frozen features on these images? A table of layers, controls, and one HTML report."""
    from frozenkit.app.report import probe_report
    from frozenkit.app.report_page import to_html
    from frozenkit.app.target import load_target
    from frozenkit.comparison.advice import check_advice
    from frozenkit.extraction.cache import FeatureCache

    if not page.parent.is_dir():
        raise InputError(f"`--report` must lie in a folder that exists, got {page}.")
    if page.is_dir() or not os.access(page.parent, os.W_OK):
        raise InputError(f"`--report` must be a file that can be written, got {page}.")
    check_advice(similarity=similarity, target_accuracy=goal)  # before the work, not after it
    if save is not None:
        _check_new("--save", save, force, suffix=".safetensors")
    images = load_target(target, limit=limit, seed=seed, skip_bad=skip_bad, test=test)
    frozen = _load_backbone(backbone, image_size, images.image_size)
    report = probe_report(
        images.train,
        images.test,
        frozen,
        layers=[name.strip() for name in layers.split(",")] if layers else None,
        cache=FeatureCache() if cache else None,
        seed=seed,
        target_accuracy=goal,
        similarity=similarity,
        copies=images.copies,
        code=images.code,
    )
    given = {
        "backbone": None if backbone == "efficientnet-lite0" else backbone,
        "layers": layers,
        "image-size": image_size,
        "limit": limit,
        "seed": seed or None,
        "target-accuracy": goal,
        "similarity": similarity,
    }
    # Whoever gets the page need not know where on this disk the folder lies.
    shown = Path(target).name if Path(target).is_absolute() else target
    words = [
        "frozenkit",
        "probe",
        *([] if target == "emoji-google" else [shown]),
        *(["--skip-bad"] if skip_bad else []),
    ]
    words += [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    if test is not None:
        words += ["--test", Path(test).name if Path(test).is_absolute() else test]
    made = shlex.join(words)
    if save is not None:
        steps = [f"frozenkit predict {shlex.quote(save.name)} FOLDER --csv predictions.csv"]
    else:
        steps = [f"{made} --save model.safetensors"]
    try:
        _write_page(page, to_html(report, command=made, next_steps=[_one_line(step) for step in steps]))
    finally:  # after the page, which is whole even where nobody reads on, as in `| head`; and even without one
        _print_report(report)
    print(f"\nreport: {printable(page)}")
    if save is not None:
        _save_classifier(save, frozen, report)
        print(f"classifier: {printable(save)}, its card: {printable(save.with_suffix('.md'))}")
        print(f"next: frozenkit predict {printable(shlex.quote(str(save)))} FOLDER --csv predictions.csv")
    else:
        print("next: the same with --save model.safetensors keeps the classifier, for frozenkit predict")
    if show:
        typer.launch(str(page))


def _load_backbone(name: str, image_size: int | None, suggested: int | None) -> Any:
    """At the size that was asked for; else at the one that shows the images well, or its own if it does not take it."""
    from frozenkit.networks.backbone import load_backbone

    if image_size is None and suggested is not None:
        with suppress(InputError):
            return load_backbone(name, image_size=suggested)
    return load_backbone(name, image_size=image_size)


def _check_new(option: str, path: Path, force: bool, *, suffix: str) -> None:
    """What can be known of a file before the work that it is to hold."""
    from frozenkit.classifier.card import check_card_place

    if path.suffix != suffix or path.is_dir():
        raise InputError(f"`{option}` must be a file whose name ends in {suffix}, got {path}.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"`{option}` must lie in a folder that exists and can be written, got {path}.")
    if path.exists() and not force:
        raise InputError(f"`{option}` must be a new file, but {path} exists. Take another name, or add --force.")
    if suffix == ".safetensors":
        check_card_place(path)


def _save_classifier(path: Path, backbone: Any, report: Any) -> None:
    """The probe of the report's chosen layer on its backbone, with the scores that the report gives it."""
    from frozenkit.classifier.modules import FrozenClassifier

    classifier = FrozenClassifier.from_probe(backbone, report.layers.probe)
    judged = "cross-validated" if report.folds else "test"
    classifier.save(path, scores={judged: report.score}, controls=report.controls, notes=report.method)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A file of `frozenkit probe --save`.")],
    images: Annotated[list[Path], typer.Argument(help="A folder, whatever it holds, or image files.")],
    table_file: Annotated[Path | None, typer.Option("--csv", help="Write all predictions to this file.")] = None,
    sort: Annotated[Path | None, typer.Option(help="Copy the images into one folder per class in here.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, and list them.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images at once; default by what memory holds.")] = None,
    force: Annotated[bool, typer.Option("--force", help="With --csv: replace a file that is there.")] = False,
    debug: Debug = False,
) -> None:
    """What is on these images? Prints a class and a probability for each; as CSV, and sorted, where asked for."""
    from frozenkit.app.sorting import check_sort_folder, sort_into
    from frozenkit.classifier.predictions import as_unlabelled
    from frozenkit.classifier.saved import load_classifier

    if not model.is_file():
        raise InputError(f"`model` must be a file that frozenkit probe --save wrote, got {model}.")
    if missing := [path for path in images if not path.exists()]:
        raise InputError(f"`images` must be a folder or image files, but {missing[0]} does not exist.")
    if table_file is not None:
        _check_new("--csv", table_file, force, suffix=".csv")
    if sort is not None:
        check_sort_folder(sort, images)
    classifier = load_classifier(model)
    if sort is not None and not classifier.classes:
        raise InputError("`--sort` needs classes, and this classifier predicts numbers.")
    if sort is not None and classifier.is_multilabel:
        raise InputError("`--sort` needs one class per image, and this classifier gives several labels. Use --csv.")
    data: Any = as_unlabelled(images[0] if len(images) == 1 else images, skip_bad=skip_bad)
    found = classifier.predict(data, batch_size=batch_size)
    if table_file is not None:
        found.to_csv(table_file)
    _print_predictions(found)
    if table_file is not None:
        print(f"\ntable: {printable(table_file)}")
    if sort is not None:
        paths = data.source.paths
        copied, there = sort_into(sort, paths, found.labels.tolist(), found.classes)
        print(f"sorted into {printable(sort)}: {copied:,} copied" + (f", {there:,} there already" if there else ""))


def _print_predictions(found: Any) -> None:
    print(found)
    if found.classes and found.labels.ndim == 1:
        counts = found.labels.bincount(minlength=len(found.classes)).tolist()
        shown = sorted(((n, name) for name, n in zip(found.classes, counts) if n), key=lambda pair: -pair[0])
        print("\n" + printable(", ".join(f"{name}: {n:,}" for n, name in shown)))
    for name, reason in found.skipped:
        print(f"left out: {_one_line(reason or name)}")


def _write_page(path: Path, text: str) -> None:
    """Write a file beside its place, and move it there when it is whole: what was there before is never cut short."""
    try:
        if path.exists() and not path.is_file():  # such as /dev/null, which must not be replaced
            path.write_text(text, encoding="utf-8")
            return
        with written_aside(path.resolve()) as aside:  # a link stays a link
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"`--report` must be a file that can be written, got {path}: {error.strerror}.") from error


def _print_report(report: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    console = _console()
    name, kind = report.train.name, "cross-validated" if report.folds else "test"
    parts = f"{len(report.train):,} images to learn from, {len(report.test):,} to report on"
    console.print(Text(printable(f"{name}: {f'{report.n_train:,} images' if report.folds else parts}")))
    layers = Table("layer", "features", "leave-one-out", kind, "95 % interval", box=None, pad_edge=False)
    for name, fitted in report.layers.probes.items():
        score, chosen = report.layer_scores[name], name == report.layers.chosen
        mark = " ←" if chosen else "  "
        cells = [name, f"{fitted.n_features:,}", f"{fitted.choice_score:.1%}{mark}", *_with_interval(score)]
        layers.add_row(*map(Text, cells), style="bold" if chosen else "")
    controls = Table("probe on", kind, "95 % interval", box=None, pad_edge=False)
    controls.add_row(*map(Text, ["frozen features", *_with_interval(report.score)]), style="bold")
    for name, score in report.controls.items():
        controls.add_row(*map(Text, [name, *_with_interval(score)]))
    for shown in (layers, controls):
        for column in shown.columns[1:]:
            column.justify = "right"
        console.print()
        console.print(shown)
    source = "all from the cache" if report.from_cache else "computed"
    console.print(Text(f"\nfeatures {source} in {report.seconds:.2f} s; ← chosen by leave-one-out"))
    console.print(Text(report.method))
    console.print(Text(report.verdict, style="bold"))
    for finding in report.findings:
        console.print(Text(f"· {printable(finding)}"))
    advice = report.advice
    reasons = Table("criterion", "found", "favours", box=None, pad_edge=False)
    for reason in advice.reasons:
        reasons.add_row(*map(Text, [reason.criterion, reason.finding, reason.favours or "undecided"]))
    console.print(Text(f"\nFreeze, or fine-tune? {advice.choice.capitalize()}. {advice.next_step}\n", style="bold"))
    console.print(reasons)


def _with_interval(score: Any) -> list[str]:
    return [f"{score.accuracy:.1%}", f"{score.low:.1%} to {score.high:.1%}"]


@app.command()
def build(
    folder: Annotated[str | None, typer.Option("--dir", help="The course; default: here, or the checkout.")] = None,
    to: Annotated[Path, typer.Option(help="Where pages and the zip go.")] = Path("frozenkit-class"),
    slides: Annotated[bool, typer.Option("--slides", help="A deck of each lesson, as one HTML file.")] = False,
    handout: Annotated[bool, typer.Option("--handout", help="A handout of each lesson, as one HTML file.")] = False,
    zipped: Annotated[bool, typer.Option("--zip", help="Lessons and exercises for a class, as one file.")] = False,
    solutions: Annotated[bool, typer.Option("--solutions", help="With --zip: the solutions as well.")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="A glossary and a one-page cheat sheet.")] = False,
    course: Annotated[
        bool,
        typer.Option("--course", help="For authors: exercises from the solutions, coverage.md, the README's table."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Make what a class needs, into a folder of its own. A file that somebody changed is never written over."""
    from frozenkit.app.lab import find_notebooks
    from frozenkit.course.pages import build_pages
    from frozenkit.course.reference import build_reference
    from frozenkit.course.student import build_exercises, build_zip
    from frozenkit.course.syllabus import update_readme, write_coverage

    if not (slides or handout or zipped or reference or course):
        raise InputError("say what to make: --handout, --slides, --zip, --reference, or --course for authors.")
    if solutions and not zipped:
        raise InputError("`--solutions` goes with --zip.")
    root, notebook = find_notebooks(folder)
    notebooks = (root / notebook).parent
    if course:
        _print_made(build_exercises(notebooks))
        _print_made([write_coverage(notebooks)])
        readme = notebooks.parent / "README.md"
        if readme.is_file() and "<!-- course -->" in readme.read_text(encoding="utf-8"):
            _print_made([update_readme(readme, notebooks)])
    for deck, wanted in ((False, handout), (True, slides)):
        if wanted:
            _print_made(build_pages(notebooks, to, deck=deck))
    if zipped:
        _print_made([build_zip(notebooks, to / "frozenkit-course.zip", solutions=solutions)])
    if reference:
        _print_made(build_reference(to))


def _print_made(paths: Sequence[Path]) -> None:
    for path in paths:
        print(printable(path))


stored = typer.Typer(help="What is stored, whether it is sound, and why something was a miss.", no_args_is_help=True)
app.add_typer(stored, name="cache")


@stored.command("list")
def cache_list() -> None:
    """One line per stored layer, newest first."""
    from frozenkit.extraction.cache import FeatureCache

    store = FeatureCache()
    entries = store.records()
    if not entries:
        print(f"nothing is stored in {printable(store.root)}")
        return
    for row in entries:
        row["fingerprint"] = row["fingerprint"][:12]
        row |= {name: printable(value) for name, value in row.items() if isinstance(value, str)}
    print(table(entries, formats={"MB": ".2f", "written": "%Y-%m-%d %H:%M:%S"}))
    print(f"\n{len(entries)} entries, {store.size / 1e6:.1f} MB in {printable(store.root)}")


@stored.command("verify")
def cache_verify(
    remove: Annotated[bool, typer.Option("--remove", help="Forget what is damaged, or of frozenkit 0.1.")] = False,
) -> None:
    """Read every byte that would ever be returned; ends with 1 if something is damaged or unread, and still there."""
    from frozenkit.extraction.cache import FeatureCache

    store = FeatureCache()
    found, outdated = store.verify(), store.outdated()
    damaged = {fingerprint: state for fingerprint, state in found.items() if state != "ok"}
    # A disk that fails, a permission or another version says nothing about what is stored.
    unread = {
        fingerprint
        for fingerprint, state in damaged.items()
        if state.startswith("cannot read") or "was written in layout" in state
    }
    removed = damaged.keys() - unread if remove else set()
    for fingerprint, state in damaged.items():
        print(f"{fingerprint[:12]}  {_one_line(state)}")
        if fingerprint in removed:
            store.remove(fingerprint)
    for path in outdated:
        print(f"{path.stem[:12]}  was written by frozenkit 0.1: this version does not read it")
    if remove:
        store.remove_outdated()
    forgets = "and removed" if remove else "(--remove forgets them)"
    print(
        f"{len(found) - len(damaged)} sound, {len(damaged) - len(unread)} damaged{' and removed' if removed else ''}"
        + (f", {len(unread)} could not be read, or are of another version, and stay" if unread else "")
        + (f", {len(outdated)} of frozenkit 0.1 {forgets}" if outdated else "")
    )
    raise typer.Exit(1 if damaged.keys() - removed else 0)


@stored.command("clear")
def cache_clear(
    name: Annotated[str | None, typer.Option(help="Only this data set's or this backbone's.")] = None,
    older_than_days: Annotated[
        float, typer.Option("--older-than", min=0, help="Only what is at least so many days old.")
    ] = 0,
) -> None:
    """Forget stored features; they can be computed again."""
    from frozenkit.extraction.cache import FeatureCache

    print(f"removed {FeatureCache().clear(name=name, older_than_days=older_than_days)} entries")


@stored.command("why")
def cache_why(
    target: Annotated[str, typer.Argument(help="A data set's name, or a folder of images per class.")] = "emoji-google",
    backbone: Annotated[str, typer.Option(help="Which backbone.")] = "efficientnet-lite0",
    layer: Annotated[str | None, typer.Option(help="Which layer; default the backbone's.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels; default 96 for data by name, else its own.")] = None,
) -> None:
    """Are these features stored? If not, which ingredient differs from the nearest that are?"""
    from frozenkit.app.target import load_target
    from frozenkit.extraction.cache import FeatureCache
    from frozenkit.extraction.key import fingerprint_of

    images = load_target(target, limit=None, seed=0, skip_bad=True)
    train, frozen = images.train, _load_backbone(backbone, image_size, images.image_size)
    store = FeatureCache()
    wanted = fingerprint_of(frozen, train, layer or frozen.default_layer, cache=store)
    try:
        print(f"stored: {printable(store.open(wanted.digest).path)}")
        return
    except CacheMissError:
        differs = store.why(wanted)
    nothing = f", and nothing comparable is in {printable(store.root)}"
    print("not stored" + ("; the nearest entry differs in" if differs else nothing))
    for ingredient, (mine, theirs) in differs.items():
        print(printable(f"  {ingredient}: wanted {mine}, stored {theirs}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after ``frozenkit``; None takes them from the process.

    Returns:
        0 done, 1 failed, 2 wrong use; 130 when interrupted. Errors are one line on stderr; ``--debug`` adds the trace.
    """
    # Before torch is loaded: threads that spin while they wait slow a busy machine down many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not end finished work
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("always", FrozenkitWarning)
        try:
            return app(words, standalone_mode=False, prog_name="frozenkit") or 0
        except KeyboardInterrupt:
            return _fail("interrupted", 130)
        except Exception as error:
            if "--debug" in words:
                traceback.print_exc()
            if isinstance(error, (InputError, DataError)):
                return _fail(str(error), 2)
            if isinstance(error, FrozenkitError):
                return _fail(str(error), 1)
            if isinstance(error, typer.Abort):
                return _fail("interrupted", 130)
            usage = getattr(error, "format_message", None)  # an error in the words themselves, from the parser
            if usage is not None and not usage():  # no command at all: the help is printed already
                return 2
            if usage is not None:
                return _fail(f"{usage()} See `frozenkit --help`.", getattr(error, "exit_code", 2))
            return _fail(f"{type(error).__name__}: {error} (more with --debug)", 1)


def _fail(message: str, status: int) -> int:
    # Errors name the argument of the function; here it is a word of the command line.
    for parameter, option in (("skip_bad=True", "--skip-bad"), ("(skip_bad)", "(--skip-bad)")):
        message = message.replace(parameter, option)
    lines = [_one_line(line) for line in message.splitlines() if line.strip()] or [""]
    print("\n".join([f"error: {lines[0]}", *(f"  {line}" for line in lines[1:])]), file=sys.stderr)
    return status


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    name = "warning" if issubclass(category, FrozenkitWarning) else category.__name__
    print(f"{name}: {_one_line(str(message))}", file=sys.stderr)


def _announce(url: str) -> None:
    print(f"\n    The course is open at\n\n    {url}\n\n    Stop it with Ctrl-C.\n", flush=True)


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


if __name__ == "__main__":
    sys.exit(main())
