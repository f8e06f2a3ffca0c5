"""Plots of results: ``plot_x(result, *, ax=None) -> Axes``. Nothing is computed here, shown, or set for other plots."""

from frozenkit.plots.pictures import plot_images
from frozenkit.plots.races import plot_race
from frozenkit.plots.scores import plot_confusion, plot_score, plot_scores
from frozenkit.plots.studies import plot_depths, plot_layer_report, plot_learning_curve, plot_ridge_path

__all__ = [
    "plot_confusion",
    "plot_depths",
    "plot_images",
    "plot_layer_report",
    "plot_learning_curve",
    "plot_race",
    "plot_ridge_path",
    "plot_score",
    "plot_scores",
]
