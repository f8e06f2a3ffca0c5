"""What people see: values marked as measured on this machine, plain tables, and HTML made from templates.

Widgets and lessons both show such values; lessons reach them as ``course.measured``, ``course.show``, ``course.table``.
A notebook's test compares them: whatever differs between machines is marked.
"""

import html
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from frozenkit.errors import InputError, NotAvailableError, UnknownNameError, require

_OPEN, _CLOSE = "⟦", "⟧"  # rare enough that no lesson writes them by hand


class Shown:
    """A result that a notebook shows as its text, with a table below it where it has one."""

    def _repr_html_(self) -> str:
        return text_html(self) + self._table_html()

    def _table_html(self) -> str:
        return ""


def text_html(result: Any) -> str:
    """A result's text as HTML, its lines kept."""
    text = html.escape(repr(result))
    return f"<pre>{text}</pre>" if "\n" in text else f"<p>{text}</p>"


def frame_html(to_frame: Callable[[], Any], **options: Any) -> str:
    """A result's pandas table as HTML; empty where pandas is absent, so that the result shows as its text alone."""
    try:
        frame = to_frame()
    except NotAvailableError:
        return ""
    return frame.to_html(border=0, **options)


@dataclass(frozen=True)
class Measured:
    """A value that differs between machines, as text, marked wherever it is shown."""

    text: str

    def __repr__(self) -> str:
        return f"{_OPEN}{self.text}{_CLOSE}"

    def _repr_html_(self) -> str:
        return f'<span class="fk-measured">{html.escape(self.text)}</span>'

    __html__ = _repr_html_


def measured(value: Any, fmt: str | None = None) -> Measured:
    """Mark a value as measured on this machine; usable in the f-strings of `show` and as a cell's last line.

    Args:
        value: A number or text, or a `Score` (shown with its interval).
        fmt: Format specification such as ``".3f"`` or ``",.0f"``; by default three decimals for floats.

    Example:
        >>> Line(f"extracted in {measured(3.14159, '.1f')} seconds")
        extracted in ⟦3.1⟧ seconds
    """
    return Measured(_text(value, fmt).replace(_OPEN, "[").replace(_CLOSE, "]"))


@dataclass(frozen=True)
class Line:
    """A sentence with measured values in it; where HTML is shown, without their marks."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        escaped = html.escape(self.text)
        return "<p>" + escaped.replace(_OPEN, '<span class="fk-measured">').replace(_CLOSE, "</span>") + "</p>"


def show(*sentences: Any) -> None:
    """Display sentences that hold `measured` values, one paragraph for each.

    What `print` writes shows the marks by which a test knows measured values; what is displayed does not.

    Args:
        sentences: Text, or anything with a readable ``str``.

    Example:
        >>> show(f"extracted in {measured(3.14159, '.1f')} seconds")
        extracted in ⟦3.1⟧ seconds
    """
    display = require("IPython.display", "course").display

    for sentence in sentences:
        display(Line(str(sentence)))


@dataclass(frozen=True)
class Table:
    """A small table of text, shown as HTML and as plain text; `columns` and `rows` hold str or `Measured`.

    `numeric` columns stand on the right. In a page, row `chosen` stands out, and cells may be HTML, as `Markup`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Measured]]
    numeric: Collection[int] = ()
    chosen: int | None = None

    def __repr__(self) -> str:
        # The width of a measured column must not depend on what was measured: pad inside the marks, to a fixed width.
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.columns)
        lines = [[] for _ in range(1 + len(self.rows))]  # type: list[list[str]]
        for j, (name, cells) in enumerate(zip(self.columns, columns, strict=True)):
            fixed = any(isinstance(cell, Measured) for cell in cells)
            width = max([10 if fixed else 1, len(name), *(len(c) for c in cells if isinstance(c, str))])
            for line, cell in zip(lines, (name, *cells), strict=True):
                if isinstance(cell, Measured):
                    line.append(repr(Measured(cell.text.rjust(width - 2))))
                else:
                    line.append(cell.rjust(width) if fixed or j in self.numeric else cell.ljust(width))
        return "\n".join("  ".join(line).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        return render("theme/table.html", table=self)

    __html__ = _repr_html_


def render(template: str, **values: Any) -> str:
    """HTML from a template of this package; whatever goes into it is text, and is escaped.

    Only what is HTML already, and says so, goes in as it is: `Markup`, `Table`, `Measured`. All other text is written
    as by `printable`, so line breaks too, unless the template escapes it itself (``{{ text | e }}``).

    Args:
        template: Its path in the package, such as ``"app/report.html"``.
        values: By the names that it uses.

    Returns:
        A str that other templates take as HTML.
    """
    from markupsafe import Markup

    return Markup(_templates().get_template(template).render(values))


@cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # not at import: few results are shown as HTML

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["code"] = with_code
    return templates


def _escaped(value: Any) -> Any:
    from markupsafe import Markup

    return value if hasattr(value, "__html__") else Markup(html.escape(printable(value)))


def with_code(text: str) -> Any:
    """Plain text as HTML, names in backticks as code."""
    from markupsafe import Markup

    return Markup(re.sub(r"`+([^`]+)`+", r"<code>\1</code>", html.escape(printable(text))))


def table(rows: Any, *, measured: Sequence[str] = (), formats: Mapping[str, str] | None = None) -> Table:
    """A table whose rendering depends on nothing but its values, with the machine-dependent columns marked.

    A cell that is already `Measured` stays marked, whichever column it stands in.

    Args:
        rows: A pandas table, a result with ``.to_frame()``, or a sequence of mappings with the same keys.
        measured: Names of the columns that differ between machines.
        formats: Column name to format specification; floats show three decimals without one.

    Raises:
        UnknownNameError: If `measured` or `formats` names a column that is not there.

    Example:
        >>> rows = [{"layer": "blocks.2", "accuracy": 0.758}, {"layer": "blocks.6", "accuracy": 0.88}]
        >>> table(rows, measured=["accuracy"])
        layer       accuracy
        blocks.2  ⟦   0.758⟧
        blocks.6  ⟦   0.880⟧
    """
    names, values = _columns_and_rows(rows)
    formats = dict(formats or {})
    for name in (*measured, *formats):
        if name not in names:
            raise UnknownNameError("column", name, names)
    numeric = {j for j in range(len(names)) if values and all(_is_number(r[j]) or r[j] is None for r in values)}
    marked = set(measured)
    shown = tuple(
        tuple(
            Measured(_text(value, formats.get(name)))
            if name in marked or isinstance(value, Measured)
            else _text(value, formats.get(name))
            for name, value in zip(names, row, strict=True)
        )
        for row in values
    )
    return Table(tuple(names), shown, frozenset(numeric | {names.index(name) for name in marked}))


def _columns_and_rows(rows: Any) -> tuple[list[str], list[tuple[Any, ...]]]:
    if hasattr(rows, "to_frame") and not hasattr(rows, "columns"):
        rows = rows.to_frame()
    if hasattr(rows, "itertuples"):  # a pandas table; its index is a column if it says anything
        if rows.index.name is not None or rows.index.dtype.kind not in "iu":
            rows = rows.reset_index()
        return [str(name) for name in rows.columns], list(rows.itertuples(index=False, name=None))
    rows = list(rows)
    if not rows:
        raise InputError("`rows` must hold at least one row, got none.")
    names = [str(name) for name in rows[0]]
    for i, row in enumerate(rows):
        if list(row) != list(rows[0]):
            raise InputError(f"all rows must have the columns {names}; row {i} has {[str(n) for n in row]}.")
    return names, [tuple(row.values()) for row in rows]


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, (bool, str))


def _text(value: Any, fmt: str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, Measured):
        return value.text
    if hasattr(value, "accuracy") and hasattr(value, "low"):
        fmt = fmt or ".3f"
        return f"{value.accuracy:{fmt}} [{value.low:{fmt}}, {value.high:{fmt}}]"
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # NumPy and torch scalars
        value = value.item()
    if isinstance(value, float):
        return "–" if math.isnan(value) else format(value, fmt or ".3f")
    return format(value, fmt or "")


def printable(text: object) -> str:
    """Text as a terminal may show it: whatever would steer the terminal, or cannot be encoded, is written out.

    Names come from folders and files, and may hold anything: escape sequences, line breaks, marks that turn the
    direction of writing, and bytes that are no UTF-8 (which Python keeps as lone surrogates).

    Example:
        >>> print(printable(f"café {chr(27)}[31mred"))
        café \\x1b[31mred
    """
    return "".join(_written_out(c) if _steers(c) else c for c in str(text))


def _steers(character: str) -> bool:
    # Of the format characters (Cf), the two joiners stay: emoji and several scripts need them.
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and character not in "\u200c\u200d")


def _written_out(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
