"""Plots of results: ``plot_x(result, *, ax=None) -> Axes``. Nothing is computed here, shown, or set for other plots.

Colours are those of Okabe and Ito, told apart by all common kinds of colour vision; marks and lines differ as well.
Text and axes are mid-grey on a transparent ground, and so are legible on light and on dark pages.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from frozenkit.errors import InputError
from frozenkit.scores import Score
from frozenkit.studies import LayerReport, LearningCurve

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"
PALETTE = (SKY, ORANGE, GREEN, PURPLE, VERMILION, BLUE, YELLOW)
MARKS = ("o", "s", "D", "^", "v", "P", "X")

_RC: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 14,
    "axes.titlesize": 16,
    "axes.labelsize": 14,
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.22,
    "legend.frameon": False,
    "lines.linewidth": 2.5,
    "lines.markersize": 9,
}

Plot = TypeVar("Plot", bound=Callable[..., Any])


def _styled(plot: Plot) -> Plot:
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


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    # An Axes made here inherits the style; one that was given keeps its own.
    return plt.figure(figsize=size, layout="constrained").add_subplot()


@_styled
def plot_score(score: Score, *, ax: Axes | None = None) -> Axes:
    """Recall of each class as points with their Wilson intervals, the accuracy as a line, chance dotted."""
    frame = score.to_frame()
    frame = frame[frame["images"] > 0].sort_values("recall")
    ax = _axes(ax, (8.5, 1.6 + 0.42 * len(frame)))
    places = np.arange(len(frame))
    ax.axvspan(score.low, score.high, color=SKY, alpha=0.25, lw=0)
    ax.axvline(score.accuracy, color=SKY, label=f"all images {score.accuracy:.3f}")
    ax.axvline(score.chance, color=GREY, ls=":", label=f"chance {score.chance:.3f}")
    _points(ax, frame["recall"], frame["low"], frame["high"], places, ORANGE, "o")
    ax.set_yticks(places, frame.index)
    ax.grid(visible=False, axis="y")
    ax.set(xlim=(0, 1.02), ylim=(-0.7, len(frame) - 0.3), xlabel="recall")
    ax.set_title(f"Recall by class, {score.n:,} images")
    _legend_below(ax)
    return ax


@_styled
def plot_scores(scores: Mapping[str, Score], *, ax: Axes | None = None) -> Axes:
    """Accuracies as horizontal points with intervals, the first on top, and the level of chance."""
    if not scores:
        raise InputError("`scores` must hold at least one score, got none.")
    ax = _axes(ax, (9, 1.7 + 0.62 * len(scores)))
    values = list(scores.values())
    places = np.arange(len(values))[::-1]
    accuracy, low, high = ([getattr(s, field) for s in values] for field in ("accuracy", "low", "high"))
    ax.axvline(values[0].chance, color=GREY, ls=":", label=f"chance {values[0].chance:.3f}")
    _points(ax, accuracy, low, high, places, SKY, "o")
    for value, place in zip(values, places):
        ax.text(1.03, place, f"{value.accuracy:.3f}", va="center", ha="left", weight="bold")
    ax.set_yticks(places, list(scores))
    ax.grid(visible=False, axis="y")
    ax.set(xlim=(0, 1.0), ylim=(-0.6, len(values) - 0.4), xlabel=f"accuracy, {values[0].confidence:.0%} interval")
    _legend_below(ax)
    return ax


@_styled
def plot_confusion(score: Score, *, ax: Axes | None = None) -> Axes:
    """Rows are labels, columns predictions, shade the share of the row; counts are written where there is room."""
    counts = score.confusion.numpy()
    k = len(counts)
    side = min(11.0, 3.2 + 0.62 * k)
    ax = _axes(ax, (side + 1.0, side))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # Empty cells are left out and the others opaque: legible numbers on a light and on a dark page.
    shade = LinearSegmentedColormap.from_list("blues", ["#DCEBF5", BLUE])
    image = ax.imshow(np.ma.masked_equal(share, 0), cmap=shade, vmin=0, vmax=1)
    if k <= 15:
        for row, column in zip(*np.nonzero(counts)):
            color = "white" if share[row, column] > 0.6 else "#222222"
            size = 14 if k <= 10 else 10
            text = f"{counts[row, column]:,}"
            ax.text(column, row, text, ha="center", va="center", color=color, size=size)
    places = np.arange(k)
    if k <= 40:
        ax.set_xticks(places, score.classes, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(places, score.classes)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="predicted", ylabel="label")
    ax.set_title(f"Confusion, accuracy {score!r}".split(" on ")[0] + f", {score.n:,} images", fontsize=14)
    ax.figure.colorbar(image, ax=ax, label="share of the row", shrink=0.8).outline.set_visible(False)
    return ax


@_styled
def plot_ridge_path(path: Any, *, ax: Axes | None = None) -> Axes:
    """Leave-one-out score against strength, and the one that was chosen."""
    ax = _axes(ax, (8.5, 4.8))
    strengths, found = np.asarray(path.strengths, float), np.asarray(path.loo_scores, float)
    best = int(np.abs(np.log(strengths) - np.log(float(path.best))).argmin())
    ax.semilogx(strengths, found, color=SKY, marker="o", markersize=5)
    ax.plot(strengths[best], found[best], marker="D", color=VERMILION, markersize=12, ls="none")
    ax.annotate(
        f"λ = {strengths[best]:.2g}\n{found[best]:.3f}",
        (strengths[best], found[best]),
        xytext=(0, -20),
        textcoords="offset points",
        ha="center",
        va="top",
        color=VERMILION,
        weight="bold",
    )
    ax.set(xlabel="strength λ", ylabel="leave-one-out score")
    ax.set_title("Too weak on the left, too strong on the right")
    ax.margins(y=0.15)
    return ax


@_styled
def plot_layer_report(report: LayerReport, *, ax: Axes | None = None) -> Axes:
    """What each layer was chosen on, and test with intervals beside it; the chosen one is marked."""
    names = list(report.probes)
    ax = _axes(ax, (max(8.0, 2.5 + 1.1 * len(names)), 5.2))
    places = np.arange(len(names))
    chosen_on = report.probe.chosen_on
    choice = [p.choice_score for p in report.probes.values()]
    ax.axvspan(names.index(report.chosen) - 0.4, names.index(report.chosen) + 0.4, color=GREY, alpha=0.15, lw=0)
    ax.plot(places - 0.1, choice, color=SKY, marker="o", ls="-", label=f"{chosen_on} (chooses)")
    if report.scores:
        values = [report.scores[n] for n in names]
        middle = np.array([v.accuracy for v in values])
        ends = np.array([[v.accuracy - v.low, v.high - v.accuracy] for v in values]).T
        style: dict[str, Any] = {"color": ORANGE, "marker": "s", "ls": "none", "elinewidth": 3}
        ax.errorbar(places + 0.1, middle, yerr=ends, label="test (reported)", **style)
    ax.set_xticks(places, names, rotation=30 if len(names) > 6 else 0, ha="right" if len(names) > 6 else "center")
    ax.grid(visible=False, axis="x")
    ax.set(ylabel="accuracy", xlabel=report.kind)
    ax.set_title(f"Chosen: {report.chosen}")
    _legend_below(ax)
    return ax


@_styled
def plot_learning_curve(curve: LearningCurve, *, ax: Axes | None = None) -> Axes:
    """Mean test accuracy against labels per class, every draw as a faint mark."""
    ax = _axes(ax, (9, 5.4))
    frame = curve.to_frame().reset_index()
    for index, head in enumerate(curve.heads):
        color, mark = PALETTE[index % len(PALETTE)], MARKS[index % len(MARKS)]
        runs = [r for r in curve.runs if r.head == head]
        ax.plot([r.shots for r in runs], [r.score.accuracy for r in runs], mark, color=color, alpha=0.35, ms=6)
        rows = frame[frame["head"] == head]
        ax.fill_between(rows["shots"], rows["lowest"], rows["highest"], color=color, alpha=0.15, lw=0)
        ax.plot(rows["shots"], rows["mean"], mark + "-", color=color, label=head)
    shots = sorted(set(frame["shots"]))
    ax.set_xscale("log")
    ax.set_xticks(shots, [str(s) for s in shots])
    ax.minorticks_off()
    ax.set(xlabel="labels per class", ylabel="test accuracy")
    ax.set_title("Line: mean over draws; band: lowest to highest")
    _legend_below(ax)
    return ax


@_styled
def plot_images(
    images: Any,
    *,
    rows: Sequence[int] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    figure: Figure | None = None,
) -> Figure:
    """A grid of pictures, each titled with its class or with what is given.

    Args:
        images: An `ImageDataset`, or any sequence of (PIL image, class index) with ``.classes``.
        rows: Which ones, in order; default the first two lines.
        titles: One a picture; default the class names.
        columns: Pictures a line.
        figure: Where to draw; default a new one.
    """
    chosen = [int(i) for i in (range(min(len(images), 2 * columns)) if rows is None else rows)]
    if not chosen:
        raise InputError("`rows` must name at least one picture, got none.")
    columns = min(columns, len(chosen))
    lines = -(-len(chosen) // columns)
    if figure is None:
        figure = plt.figure(figsize=(1.6 * columns, 1.95 * lines), layout="constrained")
    for place, row in enumerate(chosen):
        picture, label = images[row]
        ax = figure.add_subplot(lines, columns, place + 1)
        ax.imshow(np.asarray(picture), interpolation="nearest" if max(picture.size) < 64 else "antialiased")
        ax.set_axis_off()
        name = titles[place] if titles is not None else images.classes[label]
        ax.set_title(name, fontsize=12, loc="center", pad=4)
    return figure


def _points(ax: Axes, middle: Any, low: Any, high: Any, places: Any, color: str, mark: str) -> None:
    middle, low, high = (np.asarray(v, float) for v in (middle, low, high))
    ends = np.clip([middle - low, high - middle], 0, None)
    ax.errorbar(middle, places, xerr=ends, fmt=mark, color=color, elinewidth=3, capsize=0, markersize=10)


def _legend_below(ax: Axes) -> None:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3, borderaxespad=0)
