"""Theory as plots: bounds by their terms, differences with intervals, break-even, and clouds of two domains."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from frozenkit.comparison.gaps import BreakEven
from frozenkit.errors import InputError
from frozenkit.features import FeatureSet, feature_rows
from frozenkit.plots.style import (
    BLUE,
    GREEN,
    GREY,
    MARKS,
    ORANGE,
    PALETTE,
    PURPLE,
    SKY,
    VERMILION,
    legend_below,
    new_axes,
    points,
    styled,
)
from frozenkit.probes.scores import Gap
from frozenkit.theory.bounds import Bound
from frozenkit.theory.divergence import Divergence
from frozenkit.theory.geometry import ExplainedVariance

_HATCHES = ("", "//", "..", "xx")


@styled
def plot_bounds(bounds: Mapping[str, Bound], *, ax: Axes | None = None) -> Axes:
    """The terms of each bound on top of one another, and the measured error; above the line, a bound says nothing."""
    if not bounds:
        raise InputError("`bounds` must hold at least one bound, got none.")
    ax = new_axes(ax, (10, 2.2 + 0.72 * len(bounds)))
    places = np.arange(len(bounds))[::-1]
    seen: dict[str, int] = {}
    top = max(1.15, *(min(b.value, 2.5) for b in bounds.values()))
    for place, bound in zip(places, bounds.values()):
        left = 0.0
        for name, value in bound.terms.items():
            fresh = name not in seen
            index = seen.setdefault(name, len(seen))
            style: Any = {"color": PALETTE[index % len(PALETTE)], "hatch": _HATCHES[index % len(_HATCHES)]}
            edge: Any = {"edgecolor": "white", "linewidth": 0.8}
            ax.barh(place, value, left=left, height=0.56, label=name if fresh else None, **style, **edge)
            left += value
        text = f"{bound.value:.3f}" + (" vacuous" if bound.is_vacuous else "")
        ax.text(min(left, top) + 0.015, place, text, va="center", ha="left", weight="bold", clip_on=False)
        if bound.measured is not None:
            first = "measured error" not in seen
            seen.setdefault("measured error", -1)
            mark: Any = {"marker": "D", "color": VERMILION, "markeredgecolor": "white", "ls": "none", "ms": 12}
            ax.plot(bound.measured, place, label="measured error" if first else None, **mark)
    ax.axvline(1, color=GREY, ls="--", lw=2)
    ax.set_yticks(places, list(bounds))
    ax.grid(visible=False, axis="y")
    ax.set(xlim=(0, top), ylim=(-0.6, len(bounds) - 0.4), xlabel="error")
    handles, names = ax.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: names[i] == "measured error")  # terms first, as they are stacked
    placed: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1.02), "ncols": 3, "borderaxespad": 0}
    ax.legend([handles[i] for i in order], [names[i] for i in order], **placed)
    return ax


@styled
def plot_differences(differences: Mapping[str, Gap], *, ax: Axes | None = None) -> Axes:
    """Signed differences in points with their intervals; where an interval crosses zero, nothing is shown to differ."""
    if not differences:
        raise InputError("`differences` must hold at least one paired test or gap, got none.")
    ax = new_axes(ax, (9.5, 1.7 + 0.6 * len(differences)))
    places = np.arange(len(differences))[::-1]
    ax.axvline(0, color=GREY, lw=2)
    for place, found in zip(places, differences.values()):
        clear = found.low > 0 or found.high < 0
        color, mark = (BLUE, "o") if clear else (GREY, "s")
        points(ax, [100 * found.value], [100 * found.low], [100 * found.high], [place], color, mark)
        number = f"{100 * found.value:+.1f}".replace("-", "\N{MINUS SIGN}")
        text = f"{number}  p = {found.p_value:.2g}"
        ax.text(1.02, place, text, va="center", ha="left", transform=ax.get_yaxis_transform())
    ax.set_yticks(places, list(differences))
    ax.grid(visible=False, axis="y")
    ax.set(ylim=(-0.6, len(differences) - 0.4), xlabel="difference in points, 95 % interval")
    return ax


@styled
def plot_divergences(divergences: Mapping[str, Divergence], *, ax: Axes | None = None) -> Axes:
    """One divergence between several pairs of samples, with intervals; grey where it may be noise (p above 0.05)."""
    if not divergences:
        raise InputError("`divergences` must hold at least one result, got none.")
    names = {found.name for found in divergences.values()}
    if len(names) > 1:
        raise InputError(f"`divergences` must all be of one kind, got {sorted(names)}: their units differ.")
    ax = new_axes(ax, (9.5, 1.7 + 0.6 * len(divergences)))
    places = np.arange(len(divergences))[::-1]
    for place, found in zip(places, divergences.values()):
        color, mark = (GREY, "s") if found.p_value > 0.05 else (BLUE, "o")
        points(ax, [found.value], [found.low], [found.high], [place], color, mark)
        if not np.isnan(found.baseline):
            ax.plot(found.baseline, place, "|", color=ORANGE, ms=22, mew=3, label="without a shift, about")
        text = f"{found.value:.3g}" + ("" if np.isnan(found.p_value) else f"  p = {found.p_value:.2g}")
        ax.text(1.02, place, text, va="center", ha="left", transform=ax.get_yaxis_transform())
    ax.set_yticks(places, list(divergences))
    ax.grid(visible=False, axis="y")
    ax.set(xlim=(min(0, ax.get_xlim()[0]), None), ylim=(-0.6, len(divergences) - 0.4), xlabel=names.pop())
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles[:1], labels[:1], loc="lower left", bbox_to_anchor=(0, 1.02), borderaxespad=0)
    return ax


@styled
def plot_break_even(found: BreakEven, *, ax: Axes | None = None) -> Axes:
    """Two learning curves against the number of labelled images, and where the second overtakes the first."""
    ax = new_axes(ax, (9.2, 5.4))
    sizes = sorted({point.n for point in (*found.frozen, *found.tuned)})
    for curve, name, color, mark in ((found.frozen, "frozen", SKY, "o"), (found.tuned, "fine-tuned", ORANGE, "s")):
        n, accuracy, low, high = zip(*curve)
        ax.fill_between(n, low, high, color=color, alpha=0.18, lw=0)
        ax.plot(n, accuracy, mark + "-", color=color, label=name)
    ax.set_xscale("log")
    if found.low <= sizes[-1] and found.high >= sizes[0]:
        ax.axvspan(max(found.low, sizes[0]), min(found.high, sizes[-1]), color=GREY, alpha=0.15, lw=0)
    if found.n is not None:
        ax.axvline(found.n, color=GREY, ls="--")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="labelled images", ylabel="test accuracy", title=found.sentence.replace(": ", ":\n"))
    legend_below(ax)
    return ax


@styled
def plot_explained_variance(variances: Mapping[str, ExplainedVariance], *, ax: Axes | None = None) -> Axes:
    """The share of the variance that the first directions hold, for one or several sets of features."""
    if not variances:
        raise InputError("`variances` must hold at least one result, got none.")
    ax = new_axes(ax, (8.6, 5.0))
    for i, (name, found) in enumerate(variances.items()):
        shares = found.cumulative.numpy()
        every = max(1, len(shares) // 8)
        style: Any = {"color": PALETTE[i % len(PALETTE)], "marker": MARKS[i % len(MARKS)], "markevery": every}
        ax.plot(np.arange(1, len(shares) + 1), shares, label=f"{name}: 90 % in {found.n_for(0.9)}", **style)
    ax.axhline(0.9, color=GREY, ls=":")
    ax.set_xscale("log")
    ax.set(ylim=(0, 1.02), xlabel="principal directions", ylabel="share of the variance")
    ax.set_title("How many directions do the features fill?")
    legend_below(ax)
    return ax


@styled
def plot_clouds(clouds: Mapping[str, FeatureSet], *, ax: Axes | None = None) -> Axes:
    """Features of several samples in one plane.

    Args:
        clouds: Name to (n, 2) features, as ``reduce(source, target, n_features=2)`` gives them.
        ax: Where to draw.
    """
    rows = {name: feature_rows(x, name).numpy() for name, x in clouds.items()}
    if not rows or any(x.shape[1] != 2 for x in rows.values()):
        widths = [x.shape[1] for x in rows.values()]
        raise InputError(f"`clouds` must hold (n, 2) features, got widths {widths}. Use reduce(…, n_features=2).")
    ax = new_axes(ax, (7.6, 6.2))
    for (name, x), color, mark in zip(rows.items(), (SKY, ORANGE, GREEN, PURPLE), MARKS):
        ax.plot(*x.T, mark, color=color, ms=6, alpha=0.55, mew=0, label=name)
    ax.set(xticks=[], yticks=[], xlabel="first principal direction", ylabel="second")
    ax.grid(visible=False)
    legend_below(ax)
    return ax
