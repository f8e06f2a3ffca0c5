"""Paths, reports and learning curves: what was chosen is marked, and nothing is shown that is not there."""

import numpy as np

from frozenkit import plots
from frozenkit.probes.reports import layer_report
from tests.plots.results import CURVE, PROBE, WEAK_TRAIN


def test_the_path_marks_the_chosen_strength():
    chosen = plots.plot_ridge_path(PROBE.strength_path).lines[1]
    np.testing.assert_allclose(chosen.get_xdata(), [PROBE.strength])
    np.testing.assert_allclose(chosen.get_ydata(), [PROBE.choice_score])


def test_a_report_without_test_shows_none():
    ax = plots.plot_layer_report(layer_report({"early": WEAK_TRAIN, "late": WEAK_TRAIN}))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["leave-one-out (chooses)"]
    assert ax.get_title(loc="left") == "Chosen: early"


def test_heads_differ_in_mark_and_not_by_colour_alone():
    lines = [line for line in plots.plot_learning_curve(CURVE).lines if line.get_linestyle() == "-"]
    assert len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines}) == 2
