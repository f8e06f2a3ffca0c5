"""Scores as plots: one score by class, several side by side, the confusion matrix."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from frozenkit.errors import InputError
from frozenkit.plots.style import BLUE, GREY, ORANGE, SKY, legend_below, new_axes, points, styled
from frozenkit.probes.scores import Score


@styled
def plot_score(score: Score, *, ax: Axes | None = None) -> Axes:
    """Recall of each class as points with Wilson intervals, the accuracy as a line, the commonest class dotted."""
    frame = score.to_frame()
    frame = frame[frame["images"] > 0].sort_values("recall")
    ax = new_axes(ax, (8.5, 1.6 + 0.42 * len(frame)))
    places = np.arange(len(frame))
    ax.axvspan(score.low, score.high, color=SKY, alpha=0.25, lw=0)
    ax.axvline(score.accuracy, color=SKY, label=f"all images {score.accuracy:.3f}")
    ax.axvline(score.chance, color=GREY, ls=":", label=f"commonest class alone {score.chance:.3f}")
    points(ax, frame["recall"], frame["low"], frame["high"], places, ORANGE, "o")
    ax.set_yticks(places, frame.index)
    ax.grid(visible=False, axis="y")
    ax.set(xlim=(0, 1.02), ylim=(-0.7, len(frame) - 0.3), xlabel="recall")
    ax.set_title(f"Recall by class, {score.n:,} images")
    legend_below(ax)
    return ax


@styled
def plot_scores(scores: Mapping[str, Score], *, ax: Axes | None = None) -> Axes:
    """Accuracies as horizontal points with intervals, the first on top, and what the commonest class alone scores."""
    if not scores:
        raise InputError("`scores` must hold at least one score, got none.")
    ax = new_axes(ax, (9, 1.7 + 0.62 * len(scores)))
    values = list(scores.values())
    places = np.arange(len(values))[::-1]
    accuracy, low, high = ([getattr(s, field) for s in values] for field in ("accuracy", "low", "high"))
    ax.axvline(values[0].chance, color=GREY, ls=":", label=f"commonest class alone {values[0].chance:.3f}")
    points(ax, accuracy, low, high, places, SKY, "o")
    for value, place in zip(values, places):
        ax.text(1.03, place, f"{value.accuracy:.3f}", va="center", ha="left", weight="bold")
    ax.set_yticks(places, list(scores))
    ax.grid(visible=False, axis="y")
    ax.set(
        xlim=(0, 1.0), ylim=(-0.6, len(values) - 0.4), xlabel=f"accuracy, {100 * values[0].confidence:.3g} % interval"
    )
    legend_below(ax)
    return ax


@styled
def plot_confusion(score: Score, *, ax: Axes | None = None) -> Axes:
    """Rows are labels, columns predictions, shade the share of the row; counts are written where there is room."""
    counts = score.confusion.numpy()
    k = len(counts)
    side = min(11.0, 3.2 + 0.62 * k)
    ax = new_axes(ax, (side + 1.0, side))
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
