"""Bounds, gaps, divergences and clouds: what stands where."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from frozenkit import CachedFeatures, mmd, plots, save_features
from frozenkit.comparison.gaps import break_even
from frozenkit.errors import InputError
from tests.plots.results import BOUND, FAR, FLAT, FROZEN, GAP, NEAR, PAIRED, TEST, TRAIN, TUNED, VACUOUS, curve


def test_bounds_stack_their_terms_and_mark_the_measured_error():
    ax = plots.plot_bounds({"a": BOUND, "b": VACUOUS})
    first = [bar for bar in ax.patches if abs(bar.get_y() + bar.get_height() / 2 - 1) < 0.01]
    np.testing.assert_allclose([bar.get_width() for bar in first], list(BOUND.terms.values()))
    np.testing.assert_allclose(first[-1].get_x() + first[-1].get_width(), BOUND.value)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [BOUND.measured])
    written = [t.get_text() for t in ax.texts]
    assert written[1] == "1.000 vacuous"
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert len(labels) == len(set(labels))
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in first}) == len(first)


def test_a_paired_test_and_a_gap_of_the_same_predictions_are_opposite():
    ax = plots.plot_differences({"paired": PAIRED, "gap": GAP})
    middles = [float(container.lines[0].get_xdata()[0]) for container in ax.containers]
    assert middles[0] == pytest.approx(-middles[1])
    assert middles[0] == pytest.approx(100 * PAIRED.difference)


def test_break_even_says_where_or_that_there_is_none():
    ax = plots.plot_break_even(break_even(FROZEN, TUNED))
    assert ax.get_title(loc="left") == "Fine-tuning overtakes at about 1,000 labelled images"
    low = curve({100: 0.1, 10_000: 0.1}, "tuned")
    none = plots.plot_break_even(break_even(FROZEN, low))
    start = "As measured, no break-even between 100 and 10,000 labelled images:\n"
    assert none.get_title(loc="left") == start + "the frozen probe is ahead"
    assert len(none.patches) == 0
    meeting = curve({100: 0.8, 10_000: 0.9}, "tuned")
    edge = plots.plot_break_even(break_even(FROZEN, meeting))
    assert edge.get_title(loc="left") == start + "fine-tuning is ahead, level with it at 100"
    assert len(edge.patches) == 1  # the interval begins below the range and reaches into it


def test_clouds_of_sets_on_disk_and_arrays(tmp_path):
    save_features(FLAT[0], tmp_path / "train.safetensors")
    for given in (FLAT[0], CachedFeatures(tmp_path / "train.safetensors"), FLAT[0].features.numpy()):
        drawn = plots.plot_clouds({"a": given, "b": FLAT[1]}).lines[0].get_xydata()
        np.testing.assert_allclose(drawn, FLAT[0].features)
        plt.close("all")
    with pytest.raises(InputError, match=r"must hold \(n, 2\) features, got widths \[2, 6\]. Use reduce"):
        plots.plot_clouds({"a": FLAT[0], "b": TEST})


def test_nothing_to_draw_is_said():
    for draw in (plots.plot_bounds, plots.plot_differences, plots.plot_explained_variance, plots.plot_clouds):
        with pytest.raises(InputError, match="must hold"):
            draw({})


def test_divergences_show_what_may_be_noise_and_their_baseline():
    ax = plots.plot_divergences({"none": NEAR, "shift": FAR})
    colors = [container.lines[0].get_color() for container in ax.containers]
    assert colors[0] != colors[1]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["without a shift, about"]
    with pytest.raises(InputError, match="of one kind, got"):
        plots.plot_divergences({"a": NEAR, "b": mmd(TRAIN, TEST, permutations=0)})
