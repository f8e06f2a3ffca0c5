import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from frozenkit.errors import DataError, FrozenkitWarning, InputError, UnknownNameError
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Origin
from frozenkit.heads.modules import LinearHead
from frozenkit.heads.scaling import Scaler
from frozenkit.probes.probe import fit_probe
from frozenkit.probes.reports import layer_report, learning_curve
from tests.toy import CLASSES, blobs

TRAIN, VAL, TEST = blobs(200), blobs(100, seed=1), blobs(400, seed=2)
HEADS = ("ridge", "softmax", "prototype", "knn")


def test_ridge_predicts_like_scikit_learn():
    probe = fit_probe(TRAIN, strengths=[0.5], scale="standard")
    reference = make_pipeline(StandardScaler(), RidgeClassifier(alpha=0.5 * len(TRAIN)))
    expected = reference.fit(*TRAIN.numpy()).predict(TEST.features.numpy())
    np.testing.assert_array_equal(probe.predict(TEST), expected)


@pytest.mark.parametrize("val", [None, VAL], ids=["alone", "val"])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_fits_reports_and_calibrates(head, val):
    probe = fit_probe(TRAIN, head=head, val=val)
    found = probe.score(TEST)
    assert found.low > 0.8
    alone = "cross-validation" if head == "softmax" else "leave-one-out"
    assert probe.chosen_on == (alone if val is None else "val")
    assert abs(probe.choice_score - found.accuracy) < 0.1
    probabilities = probe.predict_proba(TEST)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(TEST)))
    torch.testing.assert_close(probabilities.argmax(1), probe.predict(TEST))
    assert probe.calibration_error(TEST) < 0.1
    wrong = probe.confidently_wrong(TEST)
    assert len(wrong) == found.n - found.n_correct
    assert head in repr(probe)
    assert "late" in probe._repr_html_()


def test_an_uncalibrated_ridge_is_far_off():
    assert replace(fit_probe(TRAIN), temperature=1.0).calibration_error(TEST) > 0.3


def test_shuffled_labels_score_chance_even_when_train_is_learnt_by_heart():
    wide = blobs(120, d=400)
    order = torch.randperm(len(wide), generator=torch.Generator().manual_seed(3))
    noise = replace(wide, labels=wide.labels[order])
    test = blobs(800, seed=5, d=400)
    probe = fit_probe(noise, strengths=[1e-6])
    assert probe.score(noise).accuracy == 1
    assert probe.score(test).accuracy < 0.4  # 4 classes; the labels of train are permuted, so 0.25 is expected
    assert probe.choice_score < 0.4


def test_the_scale_is_fitted_on_train_alone():
    shifted = replace(TEST, features=TEST.features + 100)
    probe = fit_probe(TRAIN)
    torch.testing.assert_close(probe.logits(TEST), probe.logits(TEST.features))
    alone = torch.cat([probe.logits(shifted.features[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(probe.logits(shifted)[:20], alone, rtol=1e-3, atol=1e-3)


def test_units_do_not_matter():
    for unit in (1e-8, 1e6):
        other = fit_probe(replace(TRAIN, features=TRAIN.features * unit))
        torch.testing.assert_close(other.predict(TEST.features * unit), fit_probe(TRAIN).predict(TEST))
    each = torch.logspace(-3, 3, TRAIN.n_features)
    other = fit_probe(replace(TRAIN, features=TRAIN.features * each), scale="standard")
    torch.testing.assert_close(other.predict(TEST.features * each), fit_probe(TRAIN, scale="standard").predict(TEST))


@pytest.mark.parametrize("scale", ["soft", "unit", "none", "standard"])
@pytest.mark.parametrize("head", ["ridge", "softmax", LinearHead(TRAIN.n_features, TRAIN.n_classes)])
def test_every_scale_fits_every_linear_head(head, scale):
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        # the edge of a grid that suits other units
        assert fit_probe(TRAIN, head=head, scale=scale).score(TEST).low > 0.8


@pytest.mark.parametrize("head", HEADS)
def test_a_perfect_leave_one_out_does_not_make_a_probe_certain(head):
    train, test = blobs(30, seed=6, noise=0.6), blobs(400, seed=7, noise=1.5)
    probe = fit_probe(train, head=head)
    assert probe.choice_score == 1
    wrong = probe.predict(test) != test.labels
    assert wrong.any()
    assert float(torch.nn.functional.nll_loss(probe.predict_proba(test).log(), test.labels)) < 0.7
    unsmoothed = replace(probe, temperature=probe.temperature / 100)  # T → 0, the broken variant
    assert float(torch.nn.functional.nll_loss(unsmoothed.predict_proba(test).clamp_min(1e-30).log(), test.labels)) > 1


def test_constant_and_duplicate_features_change_nothing_much():
    def padded(s):
        return replace(s, features=torch.cat([s.features, torch.full((len(s), 2), 7.0)], 1))

    torch.testing.assert_close(fit_probe(padded(TRAIN)).predict(padded(TEST)), fit_probe(TRAIN).predict(TEST))
    torch.testing.assert_close(Scaler(padded(TRAIN).features)(padded(TRAIN).features)[:, -1], torch.zeros(200))
    doubled = replace(TRAIN, features=TRAIN.features.repeat(1, 2))
    assert fit_probe(doubled).score(replace(TEST, features=TEST.features.repeat(1, 2))).low > 0.8


@pytest.mark.parametrize("head", HEADS)
def test_fewer_images_than_features(head):
    assert fit_probe(blobs(16, d=300), head=head).score(blobs(100, seed=4, d=300)).low > 0.8


@pytest.mark.parametrize("head", HEADS)
def test_a_class_without_training_image_is_named_and_never_predicted(head):
    few = TRAIN.subset(TRAIN.labels != 1)
    with pytest.warns(FrozenkitWarning, match="1 of 4 classes have no training image.*'bee'"):
        probe = fit_probe(few, head=head)
    assert 1 not in probe.predict(TEST)
    assert probe.predict_proba(TEST)[:, 1].max() == 0
    with pytest.warns(FrozenkitWarning, match="'bee' had no training image"):
        found = probe.score(TEST)
    assert found.per_class[1] == 0
    assert found.per_class[[0, 2, 3]].min() > 0.8


@pytest.mark.parametrize("flat", [True, False])
def test_regression(flat):
    truth = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))

    def relabelled(s):
        y = s.features @ truth
        return replace(s, labels=y[:, 0] if flat else y, classes=())

    probe = fit_probe(relabelled(TRAIN))
    assert probe.predict(TEST.features).shape == ((400,) if flat else (400, 2))
    assert probe.r_squared(relabelled(TEST)) > 0.99
    with pytest.raises(InputError, match="this probe is a regression"):
        probe.score(relabelled(TEST))


BAD_ROW = replace(TRAIN, features=TRAIN.features.index_put((torch.tensor(7), torch.tensor(3)), torch.tensor(torch.nan)))


@pytest.mark.parametrize(
    ("kind", "call", "text"),
    [
        (UnknownNameError, lambda: fit_probe(TRAIN, head="rigde"), "Did you mean 'ridge'"),
        (DataError, lambda: fit_probe(TRAIN.subset([0])), "at least two images of one feature, got 1 of 20"),
        (DataError, lambda: fit_probe(TRAIN.subset([0, 4])), "at least two classes, got only 'ant'"),
        (DataError, lambda: fit_probe(BAD_ROW), r"row 7 \('0/7'\) has NaN or infinity"),
        (InputError, lambda: fit_probe(TRAIN, strengths=[0, 1]), "above 0, got"),
        (InputError, lambda: fit_probe(TRAIN, strengths=[-1.0]), "above 0, got"),
        (InputError, lambda: fit_probe(TRAIN, strengths=[]), "above 0, got"),
        (InputError, lambda: fit_probe(replace(TRAIN, features=torch.ones(200, 3, 4))), "got tokens"),
        (InputError, lambda: fit_probe(TRAIN, val=blobs(20, d=3)), "`val` must have the classes, layer and width"),
        (InputError, lambda: fit_probe(TRAIN, val=TRAIN), "other images than train"),
        (InputError, lambda: fit_probe(TRAIN).predict(blobs(4, layer="early")), "'late', got 'early'"),
        (InputError, lambda: fit_probe(TRAIN).predict(torch.ones(2, 3)), "20 features per image like train, got 3"),
        (InputError, lambda: fit_probe(TRAIN).score(blobs(8, classes=("ant", "bee"))), "only one of them"),
        (InputError, lambda: fit_probe(TRAIN).score(blobs(8, classes=CLASSES[::-1])), "their order differs"),
        (InputError, lambda: fit_probe(TRAIN).r_squared(TEST), "is for regression"),
        (InputError, lambda: layer_report({}), "at least one layer"),
        (InputError, lambda: layer_report({"a": TRAIN}, {"b": TEST}), "'a' is missing"),
        (InputError, lambda: layer_report({"a": TRAIN, "b": VAL}), "'b' differs"),
        (InputError, lambda: learning_curve(TRAIN, TEST, sizes=[]), "at least one whole number, got none"),
        (
            InputError,
            lambda: learning_curve(TRAIN, TEST, sizes=[0]),
            r"`sizes\[0\]` must be a whole number of at least 1, got 0",
        ),
    ],
)
def test_errors_say_what_came(kind, call, text):
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.parametrize("val", [None, VAL], ids=["alone", "val"])
def test_a_module_is_trained_as_a_copy(val):
    torch.manual_seed(0)
    head = torch.nn.Linear(20, 4)
    before = head.weight.clone()
    probe = fit_probe(TRAIN, head=head, val=val)
    assert probe.score(TEST).low > 0.8
    assert (probe.kind, probe.chosen_on, probe.strength) == ("Linear", "val", None)
    torch.testing.assert_close(head.weight, before, rtol=0, atol=0)
    torch.testing.assert_close(fit_probe(TRAIN, head=head, val=val).logits(TEST), probe.logits(TEST))


def test_two_tasks_on_one_extraction():
    other = TRAIN.relabel(TRAIN.labels // 2, ("small", "large"))
    assert fit_probe(other).score(TEST.relabel(TEST.labels // 2, ("small", "large"))).low > 0.7


def test_softmax_predicts_like_scikit_learn():
    probe = fit_probe(TRAIN, head="softmax", strengths=[0.05], scale="standard")
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.05 * len(TRAIN)), tol=1e-8, max_iter=5000))
    expected = reference.fit(*TRAIN.numpy()).predict_proba(TEST.features.numpy())
    found = replace(probe, temperature=1.0).predict_proba(TEST)
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("head", ["ridge", "softmax"])
def test_balanced_weights_help_the_rare_class(head):
    generator = torch.Generator().manual_seed(0)

    def draw(*counts):
        labels = torch.arange(2).repeat_interleave(torch.tensor(counts))
        x = torch.randn(len(labels), 4, generator=generator) + 1.2 * labels[:, None]
        return FeatureSet.from_arrays(x, labels, classes=("often", "rare"))

    train, test = draw(300, 20), draw(200, 200)
    plain = fit_probe(train, head=head, strengths=[0.1]).score(test)
    fair = fit_probe(train, head=head, strengths=[0.1], sample_weight="balanced").score(test)
    assert fair.accuracy > plain.accuracy + 0.1


@pytest.mark.filterwarnings("ignore:the best strength")  # at the edge of four
@pytest.mark.parametrize("head", ["ridge", "softmax"])
def test_balanced_weights_choose_on_val_as_well(head):
    generator = torch.Generator().manual_seed(3)

    def draw(n):
        labels = (torch.rand(n, generator=generator) < 0.15).long()
        x = torch.randn(n, 40, generator=generator)
        x[:, 0] += 1.5 * labels
        return FeatureSet.from_arrays(x, labels)

    train, val = draw(80), draw(200)
    options = {"head": head, "strengths": [1e-4, 1e-2, 1.0, 100.0], "val": val}
    fair = fit_probe(train, sample_weight="balanced", **options)

    def balanced(strength):
        right = fair.strength_path.at(strength)(val.features).argmax(1) == val.labels
        return float(sum(right[val.labels == label].double().mean() for label in (0, 1)) / 2)

    each = [balanced(strength) for strength in options["strengths"]]
    assert fair.choice_score == pytest.approx(max(each))
    assert balanced(fair.strength) == max(each)
    weights = 1 + 4 * train.labels  # of which val has none
    odd = fit_probe(train, sample_weight=weights.double(), **options)
    assert odd.choice_score == pytest.approx(odd.score(val).accuracy)


def test_weights_are_for_linear_heads():
    with pytest.raises(
        InputError, match="`sample_weight` must be left out for 'knn': it is for ridge, softmax and logistic"
    ):
        fit_probe(TRAIN, head="knn", sample_weight="balanced")


@pytest.mark.parametrize("head", [*HEADS, torch.nn.Linear(20, 4)], ids=[*HEADS, "module"])
def test_a_set_on_disk_is_as_good_as_one_in_memory(head, tmp_path):
    from frozenkit import CachedFeatures, save_features

    save_features(TRAIN, tmp_path / "train.safetensors")
    save_features(TEST, tmp_path / "test.safetensors")
    dense = fit_probe(TRAIN, head=head)
    lazy = fit_probe(CachedFeatures(tmp_path / "train.safetensors"), head=head)
    assert lazy.choice_score == dense.choice_score
    assert repr(lazy.score(CachedFeatures(tmp_path / "test.safetensors"))) == repr(dense.score(TEST))


def test_nothing_that_chooses_can_be_given_test_images():
    import inspect

    from frozenkit import fit_probe, ridge_path, softmax_path, train_head

    for chooses in (fit_probe, ridge_path, softmax_path, train_head):
        assert not any("test" in name for name in inspect.signature(chooses).parameters)


@pytest.mark.parametrize("head", [*HEADS, LinearHead(20, 4)], ids=[*HEADS, "module"])
def test_a_probe_knows_how_its_features_were_made(head):
    made = Origin("resnet18", 64, "mean", "exact", "pets", 200)
    assert fit_probe(replace(TRAIN, origin=made), head=head).origin == made
    assert fit_probe((TRAIN.features, TRAIN.labels), strengths=[1.0]).origin is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sample_weight": torch.ones(3)}, r"must be 200 finite numbers above 0, one per row, got shape \(3,\)\.$"),
        ({"sample_weight": [1.0] * 7 + [0.0] + [1.0] * 192}, r"one per row, got 0 in row 7\. Leave out rows that"),
        ({"sample_weight": [float("nan")] * 200}, r"one per row, got nan in row 0\. Leave out"),
        ({"scale": ""}, "`scale` must be a known name, got ''"),
    ],
)
def test_wrong_weights_and_scales_are_told_apart(wrong, message):
    with pytest.raises(InputError, match=message):
        fit_probe(TRAIN, **wrong)
