"""Plots of results: ``plot_x(result, *, ax=None) -> Axes``. Nothing is computed here, shown, or set for other plots."""

from frozenkit.errors import require

require("matplotlib", "course")  # before the files below import it

from frozenkit.plots.heads import plot_attention, plot_regions, plot_reliability, plot_width_curve
from frozenkit.plots.images import plot_images
from frozenkit.plots.race import plot_race
from frozenkit.plots.reports import plot_depths, plot_layer_report, plot_learning_curve, plot_ridge_path
from frozenkit.plots.scores import plot_confusion, plot_score, plot_scores
from frozenkit.plots.style import panels
from frozenkit.plots.theory import (
    plot_bounds,
    plot_break_even,
    plot_clouds,
    plot_differences,
    plot_divergences,
    plot_explained_variance,
)
from frozenkit.plots.training import plot_history

__all__ = [
    "panels",
    "plot_attention",
    "plot_bounds",
    "plot_break_even",
    "plot_clouds",
    "plot_confusion",
    "plot_depths",
    "plot_differences",
    "plot_divergences",
    "plot_explained_variance",
    "plot_history",
    "plot_images",
    "plot_layer_report",
    "plot_learning_curve",
    "plot_race",
    "plot_regions",
    "plot_reliability",
    "plot_ridge_path",
    "plot_score",
    "plot_scores",
    "plot_width_curve",
]
