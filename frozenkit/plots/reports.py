"""Reports as plots: a ridge path, a layer report, a learning curve."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from frozenkit.errors import InputError
from frozenkit.plots.style import GREY, MARKS, ORANGE, PALETTE, SKY, VERMILION, legend_below, new_axes, styled
from frozenkit.probes.reports import LayerReport, LearningCurve


@styled
def plot_ridge_path(path: Any, *, ax: Axes | None = None) -> Axes:
    """Leave-one-out score against strength, and the one that was chosen."""
    ax = new_axes(ax, (8.5, 4.8))
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
        weight="bold",
    )
    ax.set(xlabel="strength λ", ylabel="leave-one-out score")
    ax.set_title("Too weak on the left, too strong on the right")
    ax.margins(y=0.15)
    return ax


@styled
def plot_layer_report(report: LayerReport, *, ax: Axes | None = None) -> Axes:
    """What each layer was chosen on, and test with intervals beside it; the chosen one is marked."""
    names = list(report.probes)
    ax = new_axes(ax, (max(8.0, 2.5 + 1.1 * len(names)), 5.2))
    places = np.arange(len(names))
    chosen_on = report.probe.chosen_on
    choice = [p.choice_score for p in report.probes.values()]
    ax.axvspan(names.index(report.chosen) - 0.4, names.index(report.chosen) + 0.4, color=GREY, alpha=0.15, lw=0)
    ax.plot(places - 0.1, choice, color=SKY, marker="o", ls="-", label=f"{chosen_on} (chooses)")
    if report.scores:
        values = [report.scores[n] for n in names]
        middle = np.array([v.value for v in values])
        ends = np.array([[v.value - v.low, v.high - v.value] for v in values]).T
        style: dict[str, Any] = {"color": ORANGE, "marker": "s", "ls": "none", "elinewidth": 3}
        ax.errorbar(places + 0.1, middle, yerr=ends, label="test (reported)", **style)
    ax.set_xticks(places, names, rotation=30 if len(names) > 6 else 0, ha="right" if len(names) > 6 else "center")
    ax.grid(visible=False, axis="x")
    ax.set(ylabel="mean average precision" if report.probe.is_multilabel else "accuracy", xlabel=report.kind)
    ax.set_title(f"Chosen: {report.chosen}")
    legend_below(ax)
    return ax


@styled
def plot_learning_curve(curve: LearningCurve, *, ax: Axes | None = None) -> Axes:
    """Mean test accuracy against labels per class, every draw as a faint mark."""
    ax = new_axes(ax, (9, 5.4))
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
    legend_below(ax)
    return ax


@styled
def plot_depths(
    reports: Mapping[str, LayerReport], controls: Mapping[str, LayerReport] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Test accuracy by layer for several data sets, intervals as bands, each chosen layer ringed.

    Args:
        reports: Name of the data to its report, all with the same layers and with test.
        controls: The same of a network with random weights: dashed.
        ax: Where to draw.
    """
    if not reports or any(not report.scores for report in reports.values()):
        raise InputError("`reports` must hold at least one report, each with test scores.")
    ax = new_axes(ax, (11, 5.6))
    layers = list(next(iter(reports.values())).probes)
    places = np.arange(len(layers))
    for index, (name, report) in enumerate(reports.items()):
        color, mark = PALETTE[index % len(PALETTE)], MARKS[index % len(MARKS)]
        scores = [report.scores[layer] for layer in layers]
        ax.fill_between(places, [s.low for s in scores], [s.high for s in scores], color=color, alpha=0.18, lw=0)
        ax.plot(places, [s.value for s in scores], color=color, marker=mark, label=name)
        best = layers.index(report.chosen)
        ring: dict[str, Any] = {"markersize": 19, "markerfacecolor": "none", "markeredgewidth": 2.5, "ls": "none"}
        ax.plot(best, scores[best].value, marker="o", markeredgecolor=color, **ring)
        if controls and name in controls:
            random = [controls[name].scores[layer].value for layer in layers]
            ax.plot(places, random, color=color, marker=mark, ms=5, ls="--", lw=1.5, label=f"{name}, random weights")
    ax.set_xticks(places, layers, rotation=30, ha="right")
    ax.grid(visible=False, axis="x")
    ax.set(ylabel="test accuracy", ylim=(0, 1))
    ax.set_title("Accuracy by depth; the ring is what leave-one-out chooses")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    return ax
