"""One style for every plot, worn while it is drawn and taken off afterwards; the palette; marks with intervals.

Colours are those of Okabe and Ito, told apart by all common kinds of colour vision; marks and lines differ as well.
A figure brings its own ground, ink on paper: no one colour is well legible on light and on dark pages, and what a
notebook puts behind a transparent figure it guesses from the tick labels (white, for mid-grey ones, in every theme).
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"
INK, PAPER = "#1A1A1A", "#FFFFFF"
PALETTE = (SKY, ORANGE, GREEN, PURPLE, VERMILION, BLUE, YELLOW)
MARKS = ("o", "s", "D", "^", "v", "P", "X")

_RC: Any = {
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "font.size": 14,
    "axes.titlesize": 16,
    "axes.labelsize": 14,
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.22,
    "legend.frameon": False,
    "lines.linewidth": 2.5,
    "lines.markersize": 9,
}

_NUMBER = re.compile(r"[-+−]?\b[0-9][0-9.,]*\b(?! % interval)( ?%)?")

Plot = TypeVar("Plot", bound=Callable[..., Any])


def styled(plot: Plot) -> Plot:
    """The style of this module around one plot, taken back afterwards."""

    @wraps(plot)
    def inside(*args: Any, **kw: Any) -> Any:
        with plt.rc_context(_RC):
            drawn = plot(*args, **kw)
            # A session's first figure loads its backend, which decides this. Taken back with the style, a notebook
            # would show no figure after the first, ours or anyone's.
            interactive = plt.isinteractive()
        (plt.ion if interactive else plt.ioff)()
        return drawn

    return inside  # type: ignore[return-value]


class Described(Figure):
    """A figure that says in words what it shows: a notebook keeps these words for those who cannot see it.

    Values that differ between machines are left out; each plot has them beside it as a table.
    """

    def __repr__(self) -> str:
        images = sum(bool(ax.images) and not ax.get_xlabel() for ax in self.axes)
        said = [f"{images} images"] if images else []
        for ax in self.axes:
            if ax.images and not ax.get_xlabel():
                continue
            title, x, y = ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()
            across = f"{y} against {x}" if x and y else x or y
            series = [str(name) for name in ax.get_legend_handles_labels()[1]]
            drawn = f"showing {', '.join(series)}" if series else ""
            said.append(_NUMBER.sub("…", ", ".join(filter(None, (title, across, drawn)))))
        return f"<Figure: {'; '.join(filter(None, said)) or 'a plot'}>"


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure of this size in inches that can say what it shows."""
    return plt.figure(figsize=size, layout="constrained", FigureClass=Described)


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The axes that were given, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    # An Axes made here inherits the style; one that was given keeps its own.
    return new_figure(size).add_subplot()


@styled
def panels(rows: int, columns: int, *, size: tuple[float, float] | None = None) -> list[Axes]:
    """Axes in this style, row by row, for several plots in one figure.

    Args:
        rows: Of axes.
        columns: Of axes.
        size: Of the figure, inches.

    Example:
        >>> left, right = panels(1, 2)
    """
    figure = new_figure(size or (6.4 * columns, 5.0 * rows))
    return list(figure.subplots(rows, columns, squeeze=False).flat)


def points(ax: Axes, middle: Any, low: Any, high: Any, places: Any, color: str, mark: str) -> None:
    """Horizontal marks with their intervals, one a place."""
    middle, low, high = (np.asarray(v, float) for v in (middle, low, high))
    ends = np.clip([middle - low, high - middle], 0, None)
    ax.errorbar(middle, places, xerr=ends, fmt=mark, color=color, elinewidth=3, capsize=0, markersize=10, clip_on=False)


def legend_below(ax: Axes) -> None:
    """A legend under the axes, if anything has a label: it never covers data."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3, borderaxespad=0)
