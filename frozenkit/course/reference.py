"""Two pages to keep at hand, made from the package itself: a glossary of every public name, and a cheat sheet."""

import inspect
import re
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import frozenkit
from frozenkit.comparison.advice import CRITERIA
from frozenkit.course.files import signed_text, write_made
from frozenkit.course.pages import STYLE, page
from frozenkit.heads.rules import HEAD_RULES

_WIDE = "main { max-width: 78rem; } td { vertical-align: top; } td:first-child { white-space: nowrap; }"
_SHEET = """
main { max-width: none; padding: 1rem 1.6rem; columns: 3 24rem; column-gap: 2rem; font-size: .82rem; line-height: 1.4; }
h1 { font-size: 1.4rem; margin: 0; column-span: all; } section { break-inside: avoid; margin-bottom: .8rem; }
h2 { font-size: 1rem; margin: .6rem 0 .2rem; color: var(--mark); } pre { margin: .2rem 0; padding: .4rem .6rem; }
table { margin: .2rem 0; width: 100%; } th, td { padding: .12rem .4rem .12rem 0; text-align: left;
  vertical-align: top; }
@media print { @page { size: A4 landscape; margin: 8mm; } main { font-size: 7.4pt; padding: 0; } }
"""
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
    ("Overlapping intervals", "They do not show that two probes are equal. `compare` tests picture by picture."),
    ("A bound above one", "It is vacuous: true, and empty. Read its terms."),
    ("A gap without a budget", "Fine-tuning is a stand-in for the best representation; say what was spent on it."),
)


def glossary() -> str:
    """Every public name with its module and the first sentence of its docstring, as one HTML page."""
    rows = [
        f'<tr id="{name}"><td><code>{name}</code></td><td>{_code(_sentence(getattr(frozenkit, name)))}</td>'
        f"<td><code>frozenkit.{frozenkit._HOMES[name]}</code></td></tr>"
        for name in sorted(frozenkit.__all__, key=str.lower)
    ]
    head = "<tr><th>name</th><th>what it is</th><th>where</th></tr>"
    body = f"<main><h1>frozenkit: every name</h1><table>{head}{''.join(rows)}</table></main>"
    return page("frozenkit: every name", STYLE + _WIDE, body)


def cheatsheet() -> str:
    """The course on one sheet of paper (A4, landscape): the recipe, the rules, the criteria, the traps, the names."""
    rules, sizes = ([[_below(r.below), r.advice] for r in HEAD_RULES[name]] for name in ("per-class", "data-size"))
    criteria = [[c.name, c.favours_frozen, c.favours_tuning] for c in CRITERIA]
    parts = [
        _section("From pictures to a probe", f"<pre><code>{escape(_RECIPE)}</code></pre>"),
        _section("Which head? By labels per class (published)", _table(rules)),
        _section("Which head? By labels in all (published)", _table(sizes)),
        _section("Freeze or fine-tune? (published)", _table(criteria, ["", "frozen", "fine-tuned"])),
        _section("What goes wrong", _table([[name, text] for name, text in _TRAPS])),
    ]
    for title, modules in _SHELVES.items():
        names = [name for name in frozenkit.__all__ if frozenkit._HOMES[name].split(".")[0] in modules.split()]
        names = [name for name in names if callable(getattr(frozenkit, name)) and name[0].islower()]
        parts.append(_section(title, _table([[f"`{name}`", _sentence(getattr(frozenkit, name))] for name in names])))
    return page("frozenkit on one page", STYLE + _SHEET, f"<main><h1>frozenkit on one page</h1>{''.join(parts)}</main>")


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


def _code(text: str) -> str:
    """Plain text with names in backticks as code."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", escape(text))


def _table(rows: list[list[str]], head: list[str] | None = None) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{_code(c)}</td>" for c in row) + "</tr>" for row in rows)
    top = "<tr>" + "".join(f"<th>{escape(c)}</th>" for c in head) + "</tr>" if head else ""
    return f"<table>{top}{cells}</table>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"
