"""Two pages to keep at hand, made from the package itself: a glossary of every public name, and a cheat sheet."""

import inspect
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from markupsafe import Markup

import frozenkit
from frozenkit._outputs import Table, render, with_code
from frozenkit.comparison.advice import CRITERIA
from frozenkit.course.files import signed_text, write_made
from frozenkit.heads.rules import HEAD_RULES

_RECIPE = """backbone, cache = load_backbone(), FeatureCache()
train = image_folder("mine/train")
test = image_folder("mine/test")
a, b = (extract_layers(backbone, part, cache=cache)
        for part in (train, test))
report = layer_report(a, b)  # by leave-one-out
report.score                 # with its interval"""
_TRAPS = (
    ("Choosing on test", "The winner of many is partly lucky. Choose by leave-one-out; report once."),
    ("Train mode", "Batch norm reads the batch and writes its buffers. `assert_frozen` sees it."),
    ("A stale cache", "Weights, preprocessing, size, layer, pooling, precision and data belong in the key."),
    ("No control", "Raw pixels and random weights may do as well. `control_scores` asks them."),
    ("Overlapping intervals", "They do not show that two probes are equal. `compare` tests image by image."),
    ("A bound above one", "It is vacuous: true, and empty. Read its terms."),
    ("A gap without a budget", "Fine-tuning is a stand-in for the best representation; say what was spent on it."),
)


def glossary() -> str:
    """Every public name with its module and the first sentence of its docstring, as one HTML page."""
    names = sorted(frozenkit.__all__, key=str.lower)
    anchor = Markup('<code id="{0}">{0}</code>')
    rows = [
        (anchor.format(name), _sentence(getattr(frozenkit, name)), f"`frozenkit.{frozenkit._HOMES[name]}`")
        for name in names
    ]
    table = _table(rows, ("name", "what it is", "where"))
    return render("course/glossary.html", title="frozenkit: every name", names=table)


def cheatsheet() -> str:
    """The course on one sheet of paper (A4, landscape): the recipe, the rules, the criteria, the traps, the names."""
    rules, sizes = ([(_below(r.below), r.advice) for r in HEAD_RULES[name]] for name in ("per-class", "data-size"))
    criteria = [(c.name, c.favours_frozen, c.favours_tuning) for c in CRITERIA]
    tables = {
        "Which head? By labels per class (published)": _table(rules),
        "Which head? By labels in all (published)": _table(sizes),
        "Freeze or fine-tune? (published)": _table(criteria, ("", "frozen", "fine-tuned")),
        "What goes wrong": _table(_TRAPS),
    }
    for title, modules in _SHELVES.items():
        names = [name for name in frozenkit.__all__ if frozenkit._HOMES[name].split(".")[0] in modules.split()]
        names = [name for name in names if callable(getattr(frozenkit, name)) and name[0].islower()]
        tables[title] = _table([(f"`{name}`", _sentence(getattr(frozenkit, name))) for name in names])
    return render("course/cheatsheet.html", title="frozenkit on one page", recipe=_RECIPE, tables=tables)


_SHELVES = {
    "Images and features": "images splits networks extraction features classifier",
    "Probes and scores": "heads probes",
    "Theory": "theory",
    "Decision": "comparison",
}


def build_reference(to: Path) -> list[Path]:
    """Writes ``glossary.html`` and ``cheatsheet.html`` into a folder.

    Raises:
        InputError: If somebody changed one that is there.
    """
    pages = (("glossary", glossary()), ("cheatsheet", cheatsheet()))
    return write_made({to / f"{name}.html": signed_text(text) for name, text in pages})


def _sentence(thing: Any) -> str:
    """The first sentence of a docstring; of a constant, that of the module that holds it."""
    if not callable(thing):
        home = next(home for name, home in frozenkit._HOMES.items() if getattr(frozenkit, name) is thing)
        thing = import_module(f"frozenkit.{home}")
    first = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return re.split(r"(?<=[.?])\s", " ".join(first.split()))[0]


def _below(most: float) -> str:
    return f"fewer than {most:,.0f}" if most != float("inf") else "more"


def _table(rows: Sequence[Sequence[str]], columns: Sequence[str] = ()) -> Table:
    """Names in backticks become code."""
    return Table(columns, [[cell if isinstance(cell, Markup) else with_code(cell) for cell in row] for row in rows])
