"""Plots of heads and of theory: what stands where, on axes given or their own."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import (
    CachedFeatures,
    compare,
    domain_bound,
    explained_variance,
    fit_probe,
    frechet_distance,
    holdout_bound,
    mmd,
    plots,
    save_features,
    score,
    train_head,
)
from frozenkit.comparison.gaps import break_even, representation_gap
from frozenkit.errors import InputError
from frozenkit.probes.regions import decision_regions
from frozenkit.probes.reports import LearningCurve, Run, width_curve
from tests.toy import clouds


def curve(accuracies, head):
    runs = []
    for n, accuracy in accuracies.items():
        right = round(1000 * accuracy)
        runs.append(Run(head, n, n, 0, score([0] * right + [1] * (1000 - right), [0] * 1000, n_classes=2), None))
    return LearningCurve(tuple(runs))


TRAIN, TEST = clouds(60, 0), clouds(90, 1)
REGIONS = decision_regions(TRAIN, TEST, resolution=20)[0]
RELIABILITY = fit_probe(TRAIN).reliability(TEST)
WIDTHS = width_curve(TRAIN, TEST, widths=[2, 6])
BOUND = domain_bound(TRAIN, TEST, clouds(60, 2, shift=1.0), clouds(90, 3, shift=1.0))
VACUOUS = holdout_bound(3, 3)
A, B = fit_probe(TRAIN).predict(TEST), (TEST.labels + (torch.arange(90) % 4 == 0)) % 3
PAIRED, GAP = compare(A, B, TEST.labels), representation_gap(A, B, TEST.labels)
FROZEN, TUNED = curve({100: 0.8, 10_000: 0.8}, "ridge"), curve({100: 0.7, 10_000: 0.9}, "tuned")

NEAR, FAR = (frechet_distance(TRAIN, clouds(60, 7, shift=shift), permutations=19) for shift in (0.0, 2.0))
LOG = train_head(torch.nn.Linear(6, 3), TRAIN, TEST, epochs=5)

CALLS = {
    "regions": lambda ax: plots.plot_regions(REGIONS, ax=ax),
    "reliability": lambda ax: plots.plot_reliability(RELIABILITY, ax=ax),
    "widths": lambda ax: plots.plot_width_curve(WIDTHS, ax=ax),
    "bounds": lambda ax: plots.plot_bounds({"a": BOUND, "b": VACUOUS}, ax=ax),
    "differences": lambda ax: plots.plot_differences({"paired": PAIRED, "gap": GAP}, ax=ax),
    "break-even": lambda ax: plots.plot_break_even(FROZEN, TUNED, break_even(FROZEN, TUNED), ax=ax),
    "divergences": lambda ax: plots.plot_divergences({"none": NEAR, "shift": FAR}, ax=ax),
    "history": lambda ax: plots.plot_history(LOG, ax=ax),
    "variance": lambda ax: plots.plot_explained_variance({"late": explained_variance(TRAIN)}, ax=ax),
    "clouds": lambda ax: plots.plot_clouds({"source": TRAIN, "target": TEST.features}, ax=ax),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_plot_draws_on_the_axes_given_or_on_its_own_and_leaves_no_style(name):
    _, given = plt.subplots()
    before = dict(mpl.rcParams)
    assert CALLS[name](given) is given
    own = CALLS[name](None)
    assert own is not given
    own.figure.canvas.draw()
    assert own.figure.get_facecolor()[3] == 1  # its own ground: legible on light and on dark pages
    assert dict(mpl.rcParams) == before


def test_regions_ring_exactly_the_mistakes():
    ax = plots.plot_regions(REGIONS)
    ringed = ax.lines[-1].get_xdata()
    mistakes = REGIONS.score.n - REGIONS.score.n_correct
    assert abs(len(ringed) - mistakes) <= 3  # the grid is coarse: a point near a border may fall beside it
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["ant", "bee", "cat"]


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
    ax = plots.plot_break_even(FROZEN, TUNED, break_even(FROZEN, TUNED))
    assert ax.get_title(loc="left") == "Fine-tuning overtakes at about 1,000 labelled images"
    low = curve({100: 0.1, 10_000: 0.1}, "tuned")
    none = plots.plot_break_even(FROZEN, low, break_even(FROZEN, low))
    start = "As measured, no break-even between 100 and 10,000 labelled images:\n"
    assert none.get_title(loc="left") == start + "the frozen probe is ahead"
    assert len(none.patches) == 0
    meeting = curve({100: 0.8, 10_000: 0.9}, "tuned")
    edge = plots.plot_break_even(FROZEN, meeting, break_even(FROZEN, meeting))
    assert edge.get_title(loc="left") == start + "fine-tuning is ahead, level with it at 100"
    assert len(edge.patches) == 1  # the interval begins below the range and reaches into it
    assert plots.plot_break_even(FROZEN, TUNED).get_title(loc="left") == ""


def test_attention_is_brightest_where_the_weight_is():
    weights = torch.zeros(2, 9)
    weights[0, 4] = 1.0  # the middle of three by three
    weights[1] = 1 / 9
    axes = plots.plot_attention(Image.new("RGB", (30, 30)), weights)
    assert [ax.get_title(loc="left") for ax in axes] == ["picture", "query 1", "query 2"]
    veil = np.asarray(axes[1].images[1].get_array())[..., 3]
    assert veil[1, 1] == 0
    assert veil[0, 0] == pytest.approx(0.85)
    assert np.asarray(axes[2].images[1].get_array())[..., 3].max() == 0
    with pytest.raises(InputError, match="t a square number"):
        plots.plot_attention(Image.new("RGB", (30, 30)), torch.ones(1, 8))


def test_clouds_of_sets_on_disk_and_arrays(tmp_path):
    save_features(TRAIN, tmp_path / "train.h5")
    drawn = []
    for given in (TRAIN, CachedFeatures(tmp_path / "train.h5"), TRAIN.features.numpy()):
        drawn.append(plots.plot_clouds({"a": given, "b": TEST}).lines[0].get_xydata())
        plt.close("all")
    for other in drawn[1:]:
        np.testing.assert_allclose(other, drawn[0])


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


def test_the_history_marks_the_kept_epoch():
    ax = plots.plot_history(LOG)
    assert ax.lines[1].get_xdata()[0] == LOG.best_epoch
    assert ax.lines[1].get_ydata()[0] == LOG.best_score
