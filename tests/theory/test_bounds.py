"""Bounds: terms by hand and by scipy, certificates that hold, estimates that say what they are."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from frozenkit import (
    CachedFeatures,
    domain_bound,
    fit_probe,
    holdout_bound,
    linear_probe_bound,
    margin_bound,
    pac_bayes_bound,
    ridge_path,
    save_features,
)
from frozenkit.errors import DataError, InputError
from frozenkit.theory.bounds import Bound
from frozenkit.theory.pac_bayes import kl_inverse
from tests import toy

clouds = partial(toy.clouds, apart=2.0, drawn=True)


def significantly_above(violations: int, trials: int, delta: float) -> bool:
    return binomtest(violations, trials, delta, alternative="greater").pvalue < 0.001


# hold-out


@pytest.mark.parametrize(("errors", "n"), [(0, 10), (1, 10), (9, 10), (137, 1000)])
def test_the_holdout_bound_is_clopper_and_pearsons(errors, n):
    interval = binomtest(errors, n, alternative="less").proportion_ci(confidence_level=0.95, method="exact")
    assert holdout_bound(errors, n).value == pytest.approx(interval.high, abs=1e-12)


def test_the_holdout_bound_at_its_ends():
    assert holdout_bound(0, 20).value == pytest.approx(1 - 0.05 ** (1 / 20))  # no mistake: p with (1 − p)ⁿ = δ
    full = holdout_bound(5, 5)
    assert full.value == 1.0
    assert full.is_vacuous
    assert "vacuous" in repr(full)


def test_the_holdout_bound_holds_as_often_as_it_says():
    generator = np.random.default_rng(0)
    for p in (0.05, 0.2, 0.5):
        violations = sum(holdout_bound(int(k), 300).value < p for k in generator.binomial(300, p, 1000))
        assert not significantly_above(violations, 1000, 0.05)
        assert violations > 10  # and is not trivially wide


# the published expression


def test_the_published_expression_by_hand():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])  # variances ½ and 2
    w = torch.tensor([[1.0, 2.0], [3.0, 0.0]])  # ‖w‖² = 14
    found = linear_probe_bound(w, x)
    # Standardised: ‖w‖² is 5·½ + 9·2, and two features vary.
    assert found.terms == {"‖w‖²·Var/m": pytest.approx(20.5 * 2 / 4), "√(d/m)": pytest.approx(math.sqrt(2 / 4))}
    assert found.value == pytest.approx(sum(found.terms.values()))
    p = torch.tensor([2 / 3, 1 / 3])
    rank = float((-(p * p.log()).sum()).exp())
    assert found.details["√(effective rank/m)"] == pytest.approx(math.sqrt(rank / 4))
    assert not found.is_certificate
    assert "no certificate" in repr(found)
    assert found.delta is None
    assert found.details["effective rank of the sample"] == pytest.approx(rank)
    assert any("at most m − 1" in text for text in found.assumptions)


def test_the_published_expression_does_not_depend_on_units():
    data = clouds(200, 0)
    w = fit_probe(data).head.weights.double()
    units = torch.tensor([1e-4, 1e3, 1.0, 7.0, 1e-2, 1.0], dtype=torch.float64)
    x = data.features.double()
    one, other = linear_probe_bound(w, x), linear_probe_bound(w / units[:, None], x * units + 5)
    assert other.terms["‖w‖²·Var/m"] == pytest.approx(one.terms["‖w‖²·Var/m"])
    constant = linear_probe_bound(torch.cat([w, w[:1]]), torch.cat([x, torch.full((200, 1), 0.1)], 1))
    assert constant.terms["‖w‖²·Var/m"] == pytest.approx(one.terms["‖w‖²·Var/m"])


def test_one_tiny_column_more_does_not_move_the_published_expression():
    data = clouds(200, 0, d=50)
    tiny = 1e-4 * torch.randn(200, 1, generator=torch.Generator().manual_seed(1))
    more = replace(data, features=torch.cat([data.features, tiny], 1))
    before, after = (linear_probe_bound(fit_probe(d, strengths=[0.01]).head, d) for d in (data, more))
    assert after.terms["‖w‖²·Var/m"] == pytest.approx(before.terms["‖w‖²·Var/m"], rel=1.1 / 50)  # d is one larger


def test_the_published_expression_falls_with_the_root_of_m():
    x, w = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.ones(4, 2)
    once, four = linear_probe_bound(w, x), linear_probe_bound(w, x.repeat(4, 1))
    assert four.terms["√(d/m)"] == pytest.approx(once.terms["√(d/m)"] / 2)
    assert four.terms["‖w‖²·Var/m"] == pytest.approx(once.terms["‖w‖²·Var/m"] / 4, rel=1e-4)


# margins


MARGINS = [2.0**i for i in range(-6, 6)]


def test_the_margin_bound_by_hand():
    x, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    found = margin_bound(3 * torch.eye(2), x, labels, margins=[0.5, 1.0])
    # ‖W‖_F = 1 scales the logits to x/√2: margins 2/√2 and 1/√2.
    ramp = (0 + max(0, 1 - (1 / math.sqrt(2)) / 1.0)) / 2
    complexity = 4 * math.sqrt(2 * 5) / (1.0 * 2)
    confidence = 3 * math.sqrt(math.log(2 * 2 / 0.05) / 4)
    assert found.details["margin"] == 1.0
    assert list(found.terms.values()) == pytest.approx([ramp, complexity, confidence])
    assert found.value == pytest.approx(ramp + complexity + confidence)
    assert found.is_vacuous
    assert found.is_certificate


def test_the_margin_bound_does_not_depend_on_the_size_of_the_weights():
    data = clouds(200, 0)
    w = fit_probe(data).head
    one = margin_bound(w, data, margins=MARGINS)
    ten = margin_bound(type(w)(10 * w.weights, 10 * w.intercept), data, margins=MARGINS)
    assert ten.value == pytest.approx(one.value, rel=1e-5)


def test_the_margin_bound_holds_and_can_be_non_vacuous():
    test = clouds(20_000, 999, d=3, apart=12.0)
    found = []
    for seed in range(20):
        train = clouds(20_000, seed, d=3, apart=12.0)
        probe = fit_probe(train, strengths=[1e-3])
        bound = margin_bound(probe.head, train, margins=MARGINS)
        found.append((bound.value, probe.score(test).error))
    assert all(value >= error for value, error in found)
    assert found[0][0] < 1


# domains


def test_the_terms_of_the_domain_bound_are_what_they_say():
    source, other = clouds(400, 0), clouds(300, 1)
    target, rest = clouds(400, 2, shift=2.0), clouds(300, 3, shift=2.0)
    found = domain_bound(source, other, target, rest)
    probe = fit_probe(source)
    assert found.terms["source error"] == pytest.approx(probe.score(other).error)
    assert found.measured == pytest.approx(probe.score(rest).error)
    assert found.terms["λ"] == pytest.approx(found.details["λ, on the source"] + found.details["λ, on the target"])
    assert found.terms["half the divergence"] == pytest.approx(found.details["A-distance"] / 2)
    assert found.value == pytest.approx(sum(found.terms.values()))
    assert found.slack() == pytest.approx(found.value - found.measured)
    for name, value in {**found.terms, "sum": found.value}.items():
        low, high = found.intervals[name]
        assert low <= value <= high
    assert not found.is_certificate
    assert any("at most the theorem's" in text for text in found.assumptions)
    frame = found.to_frame()
    assert list(frame.index) == ["source error", "half the divergence", "λ", "sum", "measured error"]


def test_without_a_shift_the_divergence_is_about_nothing():
    found = domain_bound(clouds(400, 0), clouds(300, 1), clouds(400, 2), clouds(300, 3))
    assert found.terms["half the divergence"] < 0.1
    same = clouds(300, 4)
    assert domain_bound(same, clouds(300, 5), same, clouds(300, 5)).terms["half the divergence"] == 0.0


def test_labels_that_contradict_each_other_show_in_lambda():
    source, target = clouds(400, 0), clouds(400, 2)
    turned = replace(target, labels=(target.labels + 1) % 3)
    rest = clouds(300, 3)
    rest_turned = replace(rest, labels=(rest.labels + 1) % 3)
    found = domain_bound(source, clouds(300, 1), turned, rest_turned)
    assert found.terms["half the divergence"] < 0.1
    assert found.terms["λ"] > 0.8  # no one head serves both
    assert found.measured > 0.8


# sets on disk and arrays


def test_sets_on_disk_and_arrays_give_what_sets_in_memory_give(tmp_path):
    sets = {name: clouds(60, seed) for seed, name in enumerate(("a", "b", "c", "d"))}
    for name, data in sets.items():
        save_features(data, tmp_path / f"{name}.safetensors")
    left = {name: CachedFeatures(tmp_path / f"{name}.safetensors") for name in sets}
    assert domain_bound(*left.values()).terms == domain_bound(*sets.values()).terms
    assert pac_bayes_bound(left["a"]).terms == (pac := pac_bayes_bound(sets["a"])).terms
    assert pac.posterior.error(left["b"]) == pac.posterior.error(sets["b"])
    assert pac.posterior.score(left["b"]).accuracy == pac.posterior.score(sets["b"]).accuracy
    w, x, y = torch.ones(6, 3), sets["a"].features.numpy(), sets["a"].labels.numpy()
    for given in (left["a"], x):
        assert linear_probe_bound(w.numpy(), given).terms == linear_probe_bound(w, sets["a"]).terms
    expected = margin_bound(w, sets["a"], margins=MARGINS).terms
    assert margin_bound(w, left["a"], margins=MARGINS).terms == expected
    assert margin_bound(w.numpy(), x, y, margins=MARGINS).terms == expected
    save_features(replace(sets["a"], layer="late"), tmp_path / "late.safetensors")
    with pytest.raises(InputError, match="one feature space: `target_test`"):
        domain_bound(left["a"], left["b"], left["c"], CachedFeatures(tmp_path / "late.safetensors"))


# what does not fit


def test_inputs_that_break_an_assumption_name_it():
    data = clouds(60, 0)
    other = replace(data, classes=("x", "y", "z"))
    with pytest.raises(InputError, match="one label space: `target_train` must have the classes of `source_train`"):
        domain_bound(data, data, other, other)
    narrow = replace(data, features=data.features[:, :3])
    with pytest.raises(InputError, match="one feature space: `target_test`"):
        domain_bound(data, data, data, narrow)
    single = data.subset((data.labels == 0).nonzero().squeeze(1))
    with pytest.raises(DataError, match="at least two classes"):
        domain_bound(single, data, data, data)
    with pytest.raises(DataError, match="at least 16 images for two halves, got 10"):
        pac_bayes_bound(data.subset(torch.arange(10)))
    with pytest.raises(DataError, match="at least two classes in either half"):
        pac_bayes_bound(replace(data, labels=torch.zeros(60, dtype=torch.int64)))
    with pytest.raises(InputError, match="no such bound for regression"):
        pac_bayes_bound(replace(data, labels=data.features[:, 0], classes=()))


@pytest.mark.parametrize("delta", [0, 1, -0.1, 1.5, math.nan])
def test_delta_is_a_probability(delta):
    data = clouds(60, 0)
    for call in (
        lambda: holdout_bound(1, 10, delta=delta),
        lambda: pac_bayes_bound(data, delta=delta),
        lambda: margin_bound(torch.ones(6, 3), data, margins=[1.0], delta=delta),
    ):
        with pytest.raises(InputError, match="`delta` must lie between 0 and 1"):
            call()


def test_what_is_no_number_is_named():
    data, w = clouds(60, 0), torch.ones(6, 3)
    for odd in ("1", None, True, [1]):
        for call, name in (
            (lambda odd=odd: holdout_bound(odd, 10), "n_errors"),
            (lambda odd=odd: holdout_bound(1, odd), "n"),
            (lambda odd=odd: holdout_bound(1, 10, delta=odd), "delta"),
            (lambda odd=odd: pac_bayes_bound(data, delta=odd), "delta"),
        ):
            with pytest.raises(InputError, match=f"`{name}` must be a number, got"):
                call()
    with pytest.raises(InputError, match="`measured` must be a number, got str"):
        holdout_bound(1, 10).slack("0.1")
    for margins in (None, "a", ["a"], 1.0):
        with pytest.raises(InputError, match="`margins` must be an array of numbers"):
            margin_bound(w, data, margins=margins)
    with pytest.raises(InputError, match="`labels` must hold one class index for each of 60 images"):
        margin_bound(w, data.features, 5, margins=[1.0])
    for weights in (None, "w", [["a"]]):
        with pytest.raises(InputError, match="`weights` must be an array of numbers"):
            linear_probe_bound(weights, data)
    for seed in ("a", None, 1.5):
        with pytest.raises(InputError, match="`seed` must be a whole number"):
            pac_bayes_bound(data, seed=seed)


def test_other_inputs_out_of_range():
    data = clouds(60, 0)
    with pytest.raises(InputError, match=r"`n_errors` must lie in 0\.\.n"):
        holdout_bound(11, 10)
    for n_errors, n, name in ((0.5, 10, "n_errors"), (5, 10.5, "n"), (math.nan, 10, "n_errors")):
        with pytest.raises(InputError, match=f"`{name}` must be a whole number of images"):
            holdout_bound(n_errors, n)
    assert holdout_bound(np.int64(5), np.int64(10)).terms == holdout_bound(5.0, 10).terms == holdout_bound(5, 10).terms
    with pytest.raises(InputError, match=r"`labels` must lie in 0\.\.2, got 0\.\.3"):
        margin_bound(torch.ones(6, 3), data.features, torch.arange(60) % 4, margins=[1.0])
    bad = data.features.index_fill(0, torch.tensor([4]), math.nan)
    for call in (
        lambda: linear_probe_bound(torch.ones(6, 3), bad),
        lambda: margin_bound(torch.ones(6, 3), bad, data.labels, margins=[1.0]),
        lambda: pac_bayes_bound(replace(data, features=bad)),
    ):
        with pytest.raises(DataError, match="must be finite, but row 4"):
            call()
    with pytest.raises(DataError, match="`weights` must be finite"):
        linear_probe_bound(torch.full((6, 3), math.nan), data)
    with pytest.raises(InputError, match="`margins` must be numbers above 0"):
        margin_bound(torch.ones(6, 3), data, margins=[0.0])
    with pytest.raises(InputError, match="`margins` must be numbers above 0"):
        margin_bound(torch.ones(6, 3), data, margins=[])
    with pytest.raises(InputError, match=r"`weights` must be \(6, k\) for these features, got \(5, 3\)"):
        linear_probe_bound(torch.ones(5, 3), data)
    with pytest.raises(InputError, match="at least two classes, got k = 1"):
        margin_bound(torch.ones(6, 1), data, margins=[1.0])
    with pytest.raises(InputError, match="one class index for each of 60 images"):
        margin_bound(torch.ones(6, 3), data.features, margins=[1.0])
    with pytest.raises(InputError, match="an error in .0, 1., or a Score, got None"):
        holdout_bound(1, 10).slack()
    with pytest.raises(InputError, match="got 7"):
        holdout_bound(1, 10).slack(7)
    with pytest.raises(InputError, match="`q` must lie in"):
        kl_inverse(1.2, 0.1)


def test_how_a_bound_reads():
    bound = Bound({"one": 0.7, "two": 0.5}, None, ("<b>this</b>",), False, "some bound", measured=0.3)
    assert repr(bound) == (
        "some bound: error ≤ 1.200 = one 0.700 + two 0.500; measured 0.300 "
        "(estimate, no certificate; vacuous: an error is never above 1)"
    )
    assert "&lt;b&gt;this&lt;/b&gt;" in bound._repr_html_()


def test_bounds_of_a_map_that_brings_rows_to_length_one_are_of_those_rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator) * torch.randn(200, 1, generator=generator).mul(2).exp()
    labels = (x[:, 0] > 0).long()
    found = ridge_path(x, labels, scale="unit").at(1e-3)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    margins = 2.0 ** torch.arange(-8, 4)
    by_hand = margin_bound(
        torch.cat([found.weights, found.intercept[None]]),
        torch.cat([unit, torch.ones(200, 1)], 1),
        labels,
        margins=margins,
    )
    assert margin_bound(found, x, labels, margins=margins).value == pytest.approx(by_hand.value)
    assert linear_probe_bound(found, x).value == pytest.approx(linear_probe_bound(found.weights, unit).value)
