"""Learning curves continued: exact curves are met, noisy ones covered, and too short ones refused."""

import numpy as np
import pytest
import torch

from frozenkit import extrapolate, fit_probe, learning_curve, score
from frozenkit.errors import InputError
from frozenkit.probes.reports import LearningCurve, Run
from tests.toy import blobs

NS = (60, 120, 240, 480)


def curve_of(errors: dict[int, list[float]], tested: int = 100_000, head: str = "ridge") -> LearningCurve:
    """A curve that measured these errors, on so many images."""

    def measured(error: float):
        wrong = round(error * tested)
        return score((torch.arange(tested) < wrong).long(), torch.zeros(tested, dtype=torch.int64), n_classes=2)

    def runs(n, found):
        return [Run(head, n // 2, n, repeat, measured(error), None) for repeat, error in enumerate(found)]

    return LearningCurve(tuple(run for n, found in errors.items() for run in runs(n, found)))


@pytest.mark.parametrize(("a", "b", "c"), [(2.0, 0.5, 0.0), (2.0, 0.5, 0.1), (0.5, 0.1, 0.0), (10.0, 1.0, 0.05)])
def test_a_curve_of_that_form_is_continued(a, b, c):
    def truth(n):
        return a * n**-b + c

    found = extrapolate(curve_of({n: [truth(n)] * 3 for n in (50, 100, 200, 400)}))
    assert (found.n, found.accuracy) == (400, pytest.approx(1 - truth(400), abs=1e-5))
    for forecast, times in zip(found.forecasts, (2, 4)):
        assert (forecast.times, forecast.n) == (times, 400 * times)
        assert forecast.low <= 1 - truth(400 * times) <= forecast.high
        assert forecast.accuracy == pytest.approx(1 - truth(400 * times), abs=0.012)
    assert found.exponent == pytest.approx(b, abs=0.25)


def test_a_small_test_set_and_few_labels_widen_it():
    def width(tested, sizes):
        found = extrapolate(curve_of({n: [n**-0.5, 1.1 * n**-0.5] for n in sizes}, tested)).forecasts[1]
        return found.high - found.low

    assert width(100_000, (50, 100, 200, 400)) < width(100, (50, 100, 200, 400))
    assert width(100_000, (50, 100, 200, 400)) < width(100_000, (5, 10, 20, 40))


def test_ends_and_middle_stay_among_accuracies_and_grow():
    perfect = extrapolate(curve_of({10: [0.0] * 2, 20: [0.0], 40: [0.0]}))
    assert perfect.forecasts[0].high == 1
    hopeless = extrapolate(curve_of({10: [1.0] * 2, 20: [1.0], 40: [1.0]}))
    assert 0 <= hopeless.forecasts[0].low <= hopeless.forecasts[0].high <= 1
    falling = extrapolate(curve_of({10: [0.3] * 2, 20: [0.4], 40: [0.5]}), times=[2, 4, 8])
    accuracies = [forecast.accuracy for forecast in falling.forecasts]
    assert accuracies == sorted(accuracies)


def test_it_covers_what_more_labels_bring():
    """Toy data whose accuracy at four times as many labels is known; a nominal 95 %, forty draws."""
    held = 0
    test_many = blobs(4_000, seed=999, apart=0.6)
    for seed in range(40):
        every = blobs(320, seed=seed, apart=0.6)
        few, small_test = every[:80], blobs(120, seed=1_000 + seed, apart=0.6)
        curve = learning_curve(few, small_test, sizes=[3, 5, 10, 20], seed=seed)
        forecast = extrapolate(curve, times=4).forecasts[0]
        held += forecast.low <= fit_probe(every).score(test_many).accuracy <= forecast.high
    assert held >= 36


@pytest.mark.parametrize("tested", [2, 30, 200])
def test_it_covers_where_few_test_images_show_no_error(tested):
    """Seen wrong once: without an error in the last size, the test set counted as endless."""
    random, held = np.random.default_rng(0), 0
    for _ in range(100):
        hardness = random.random(tested)  # of one test set
        errors = {
            n: [float((hardness < 0.1 * n**-0.5 * random.uniform(0.9, 1.1)).mean()) for _ in range(5)] for n in NS
        }
        forecast = extrapolate(curve_of(errors, tested), times=2).forecasts[0]
        held += forecast.low <= 1 - 0.1 * 960**-0.5 <= forecast.high
    assert held >= 93


def test_text_and_table():
    found = extrapolate(curve_of({n: [n**-0.5] * 2 for n in (25, 100, 400)}))
    assert repr(found).startswith("Extrapolation: 0.950 with 400 labelled images; error ≈ a·n^−0.")
    np.testing.assert_array_equal(found.to_frame().n, [800, 1600])


@pytest.mark.parametrize("case", ["frame", "times", "one", "head", "several", "short", "draws"])
def test_what_cannot_be_continued(case):
    good = curve_of({n: [n**-0.5] * 2 for n in (25, 100, 400)})
    both = LearningCurve((*good.runs, *curve_of({25: [0.3]}, head="knn").runs))
    call, message = {
        "frame": (lambda: extrapolate([0.1, 0.2]), r"must be a LearningCurve, got list of length 2. Make one"),
        "times": (lambda: extrapolate(good, times=[0.5]), "`times` must be numbers above 1"),
        "one": (lambda: extrapolate(good, times="2"), r"`times\[0\]` must be a number"),
        "head": (lambda: extrapolate(good, head="soft"), "`head` must be one of 'ridge', got 'soft'"),
        "several": (lambda: extrapolate(both), "`head` must be one of 'ridge', 'knn', got None"),
        "short": (lambda: extrapolate(both, head="knn"), "at least three sizes, got 1"),
        "draws": (
            lambda: extrapolate(curve_of({n: [n**-0.5] for n in (20, 90, 300)})),
            "several draws of a size, which show how far they differ, got one of each",
        ),
    }[case]
    with pytest.raises(InputError, match=message):
        call()
