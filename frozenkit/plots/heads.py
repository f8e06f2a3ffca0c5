"""Heads as plots: decision regions, reliability, where attention looks, accuracy against the number of features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from PIL import Image
from torch import Tensor

from frozenkit.errors import InputError
from frozenkit.plots.style import BLUE, GREY, MARKS, ORANGE, PALETTE, SKY, legend_below, new_axes, new_figure, styled
from frozenkit.probes.calibration import Reliability
from frozenkit.probes.regions import Regions
from frozenkit.probes.reports import WidthCurve

# Ten; marks repeat with another period, so that no two classes share both.
_CLASSES = (*PALETTE, "#882255", "#999933", "#44AA99")


@styled
def plot_regions(regions: Regions, *, ax: Axes | None = None, legend: bool = True) -> Axes:
    """What a head says everywhere in a plane, with the test images on it; mistakes are ringed."""
    ax = new_axes(ax, (8.4, 6.4))
    k = len(regions.classes)
    colors = [_CLASSES[i % len(_CLASSES)] for i in range(k)]
    x, y = regions.x.numpy(), regions.y.numpy()
    shade: Any = {"cmap": ListedColormap(colors), "vmin": -0.5, "vmax": k - 0.5, "alpha": 0.28}
    ax.pcolormesh(x, y, regions.predictions.numpy(), shading="nearest", rasterized=True, **shade)
    points, labels = regions.test.numpy(), regions.test_labels.numpy()
    column = np.abs(x[None] - points[:, :1]).argmin(1)
    row = np.abs(y[None] - points[:, 1:]).argmin(1)
    wrong = regions.predictions.numpy()[row, column] != labels
    for i, name in enumerate(regions.classes):
        mine = labels == i
        mark: Any = {"marker": MARKS[i % len(MARKS)], "color": colors[i], "ls": "none"}
        ax.plot(*points[mine].T, ms=6, label=name, markeredgecolor="white", markeredgewidth=0.6, **mark)
    ax.plot(*points[wrong].T, "o", ms=11, markerfacecolor="none", markeredgecolor=GREY, markeredgewidth=1.2)
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[], xlabel="first discriminant", ylabel="second discriminant")
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.set_title(f"{regions.head}: {regions.score.accuracy:.3f} in this plane")
    if legend:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    return ax


@styled
def plot_reliability(reliability: Reliability, *, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Accuracy against confidence, bin by bin, with intervals; on the diagonal, a probe is as good as it says."""
    ax = new_axes(ax, (10, 5.6))
    frame = reliability.to_frame()
    ends = np.clip([frame["accuracy"] - frame["low"], frame["high"] - frame["accuracy"]], 0, None)
    ax.plot([0, 1], [0, 1], color=GREY, ls=":", lw=2, label="as sure as right")
    share = frame["images"] / frame["images"].sum()
    ax.bar(frame["confidence"], share, width=0.05, color=GREY, alpha=0.35, label="share of the images")
    style: Any = {"color": SKY, "marker": "o", "ls": "-", "elinewidth": 3}
    ax.errorbar(frame["confidence"], frame["accuracy"], yerr=ends, label="accuracy, 95 % interval", **style)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence in the top class", ylabel="share right")
    ax.set_title(f"Calibration error {reliability.error:.3f}")
    if legend:
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    return ax


@styled
def plot_attention(image: Image.Image, weights: Tensor, *, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """An image, and beside it where each query of an attention head looks.

    Args:
        image: As the backbone saw it: square and cropped alike, or the map will lie beside what it shows.
        weights: (heads, t) weights of one image; t must be a square number of positions.
        axes: heads + 1 axes.
    """

    side = round(weights.shape[1] ** 0.5)
    if side * side != weights.shape[1]:
        raise InputError(f"`weights` must be (heads, t) with t a square number, got {tuple(weights.shape)}.")
    if axes is None:
        size = (2.6 * (len(weights) + 1), 3.0)
        axes = list(new_figure(size).subplots(1, len(weights) + 1))
    width, height = image.size
    for i, ax in enumerate(axes):
        ax.imshow(image)
        if i:
            grid = weights[i - 1].detach().cpu().numpy().reshape(side, side)
            # The image shows through where attention is strong; elsewhere it is veiled.
            veil = 0.85 * (1 - grid / max(grid.max(), 1e-12))
            rgba = np.zeros((side, side, 4))
            rgba[..., 3] = veil
            ax.imshow(rgba, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set_title("image" if not i else f"query {i}", fontsize=13)
    return list(axes)


@styled
def plot_width_curve(curve: WidthCurve, *, ax: Axes | None = None) -> Axes:
    """Test accuracy against the number of features kept, for each way to reduce them."""
    ax = new_axes(ax, (8.6, 5.2))
    full = curve.full
    ax.axhspan(full.low, full.high, color=GREY, alpha=0.15, lw=0)
    ax.axhline(full.accuracy, color=GREY, ls=":", label=f"all {curve.n_features:,} features")
    ways = list(dict.fromkeys(p.how for p in curve.points))
    for way, color, mark in zip(ways, (BLUE, ORANGE), MARKS):
        points = [p for p in curve.points if p.how == way]
        widths = [p.n_features for p in points]
        low, high = ([getattr(p.score, end) for p in points] for end in ("low", "high"))
        ax.fill_between(widths, low, high, color=color, alpha=0.18, lw=0)
        name = {"pca": "principal components", "random": "random projection"}.get(way, way)
        ax.plot(widths, [p.score.accuracy for p in points], mark + "-", color=color, label=name)
    widths = sorted({p.n_features for p in curve.points})
    ax.set_xscale("log")
    ax.set_xticks(widths, [f"{w:,}" for w in widths])
    ax.minorticks_off()
    ax.set(xlabel="features kept", ylabel="test accuracy")
    ax.set_title("How many features does the head need?")
    legend_below(ax)
    return ax
