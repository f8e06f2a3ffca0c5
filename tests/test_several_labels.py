"""Images with several labels, from every kind of labels through storage to probes and reports; or a refusal by name."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file
from sklearn import metrics
from torch import nn
from torch.testing import assert_close

from frozenkit import (
    HeadLab,
    MultiLabelScore,
    backbone_report,
    cka,
    class_separation,
    combine,
    compare_multilabel,
    decision_regions,
    domain_bound,
    effective_rank,
    few_shot,
    fit_probe,
    imbalance,
    layer_report,
    learning_curve,
    load_features,
    load_probe,
    logistic_path,
    margin_bound,
    mmd,
    multilabel_score,
    pac_bayes_bound,
    plots,
    reduce,
    ridge_path,
    save_features,
    selectivity,
    softmax_path,
    split,
    train_head,
    width_curve,
)
from frozenkit.errors import CacheError, DataError, FrozenkitWarning, InputError
from frozenkit.extraction.cache import CachedFeatures
from frozenkit.features import FeatureSet
from frozenkit.heads.modules import LinearHead

X = np.arange(12.0).reshape(4, 3) ** 1.5
BOTH = [[True, True], [False, False], [True, False], [False, True]]


def tagged(n=120, k=3, *, d=8, seed=0, noise=1.0, shift=1.0, layer="late", classes=None):
    """Each label is a direction in the features, and noise; the further on, the rarer."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    directions = torch.randn(d, k, generator=torch.Generator().manual_seed(99))
    z = x @ directions / d**0.5 + noise * torch.randn(n, k, generator=generator)
    names = classes or [f"label {j}" for j in range(k)]
    ids = [f"{seed}/{i}" for i in range(n)]
    return FeatureSet.from_arrays(x, z > torch.linspace(0, shift, k), classes=names, ids=ids, layer=layer)


TRAIN, VAL, TEST = tagged(), tagged(seed=1), tagged(200, seed=2)


# --- labels of every kind ---


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        (BOTH, None, ("0", "1")),
        (np.array(BOTH), ["cat", "dog"], ("cat", "dog")),
        (np.array(BOTH, dtype=np.uint8), None, ("0", "1")),
        (torch.tensor(BOTH).long(), None, ("0", "1")),
        (np.array(BOTH, dtype=float), ["cat", "dog"], ("cat", "dog")),
        ([["cat", "dog"], [], ["cat"], ["dog"]], None, ("cat", "dog")),
        ([{"cat", "dog"}, set(), {"cat"}, ("dog", "dog")], None, ("cat", "dog")),
        (pd.Series([["cat", "dog"], [], ["cat"], ["dog"]]), ["cat", "dog"], ("cat", "dog")),
        (np.array([["cat", "dog"], [], ["cat"], ["dog"]], dtype=object), None, ("cat", "dog")),
        (pd.DataFrame(BOTH, columns=["cat", "dog"]), None, ("cat", "dog")),
        (pd.DataFrame(BOTH).astype(int), ["cat", "dog"], ("cat", "dog")),
        (pd.DataFrame(BOTH, columns=["cat", "dog"])[["dog", "cat"]], ["cat", "dog"], ("cat", "dog")),
        (pd.DataFrame(BOTH, columns=["cat", "dog"]).astype({"cat": int}), None, ("cat", "dog")),
        (pd.DataFrame(BOTH, columns=["cat", "dog"]).astype("boolean"), None, ("cat", "dog")),
        (pd.DataFrame(BOTH, columns=["cat", "dog"]).astype("Int64"), None, ("cat", "dog")),
        (pd.DataFrame(BOTH, columns=["cat", "dog"]).astype(float), ["cat", "dog"], ("cat", "dog")),
    ],
)
def test_several_labels_come_in_many_forms(labels, classes, names):
    fs = FeatureSet.from_arrays(X, labels, classes=classes)
    assert (fs.labels.tolist(), fs.labels.dtype, fs.classes) == (BOTH, torch.bool, names)
    assert fs.is_multilabel
    assert repr(fs) == "FeatureSet(4 images × 3 features, any of 2 labels, layer='features')"


def test_a_single_label_needs_a_name():
    for labels in (np.array([[1], [0], [1], [0]]), [[True], [False], [True], [False]], [["cat"], [], ["cat"], []]):
        fs = FeatureSet.from_arrays(X, labels, classes=["cat"])
        assert (fs.is_multilabel, fs.labels.tolist()) == (True, [[True], [False], [True], [False]])
    assert FeatureSet.from_arrays(X, [["cat"], [], ["cat"], []]).classes == ("cat",)
    with pytest.raises(InputError, match=r"one of two classes or a single label. For classes give labels\[:, 0\]"):
        FeatureSet.from_arrays(X, np.array(BOTH)[:, :1])
    assert not FeatureSet.from_arrays(X, np.array(BOTH)[:, :1], classes=["no", "yes"]).is_multilabel


@pytest.mark.parametrize(
    ("kind", "message", "labels", "classes"),
    [
        (DataError, r"shape \(4, 3\) must be 0 and 1, .* but row 0 has 2. One class per", np.full((4, 3), 2), None),
        (DataError, "but row 1 has -1", np.array([[0, 1], [1, -1], [0, 0], [1, 1]]), None),
        (DataError, "must name each of the 2 columns of `labels`, got 3 names", BOTH, ["a", "b", "c"]),
        (DataError, "row 3 has 'cow'. They are", [["cat"], [], ["dog"], ["cow"]], ["cat", "dog"]),
        (
            DataError,
            r"list of names for each image, but row 1 has None. An image without",
            [["cat"], None, [], []],
            None,
        ),
        (DataError, "but row 1 has 'dog'", [["cat", "dog"], "dog", [], []], None),
        (DataError, "but row 0 has 7", [["cat", 7], [], [], []], None),
        (DataError, "but row 1 has nan", pd.Series([["cat"], float("nan"), [], []]), None),
        (InputError, "rows of one length, got 1 to 2 entries. Several", [[0, 1], [1], [0, 1], [1]], None),
        (InputError, "rows of one length, got 0 to 1 entries", [np.array(["a"]), np.array([]), *["a"] * 2], None),
        (DataError, "names or numbers, but row 0 has {0, 1}", [{0, 1}, {1}, {0}, {1}], None),
        (DataError, "no image has any. Give `classes`", [[], [], [], []], None),
        (DataError, "one row per image, got 4, 3 and 4", BOTH[:3], ["a", "b"]),
        (DataError, "distinct names, got a, a", pd.DataFrame(BOTH, columns=["a", "a"]), None),
        (
            InputError,
            "a column for each of `classes`, a, b; got a, c",
            pd.DataFrame(BOTH, columns=["a", "c"]),
            ["a", "b"],
        ),
        (InputError, r"got shape \(4, 2\) of <U1. Several labels per image are", np.array([list("ab")] * 4), None),
        (
            DataError,
            "must be finite, but row 1",
            pd.DataFrame({"a": [1, None, 0, 1], "b": [1, 0, 0, 1]}, dtype="Int64"),
            None,
        ),
        (DataError, "must be finite, but row 1", pd.DataFrame({"a": [1, None, 0, 1.0], "b": [1, 0, 0, 1]}), ["a", "b"]),
        (DataError, "row 2 has a fraction", np.array([[0, 1], [1, 1], [0.5, 0], [1, 1]]), ["a", "b"]),
        (DataError, "`classes` must be unique", BOTH, ["a", "a"]),
    ],
)
def test_labels_that_are_none_are_named(kind, message, labels, classes):
    with pytest.raises(kind, match=message):
        FeatureSet.from_arrays(X, labels, classes=classes)


def test_one_label_each_is_more_likely_a_class():
    with pytest.warns(
        FrozenkitWarning, match=r"each of 4 images has exactly one of 3 labels. .* labels.argmax\(1\)"
    ) as seen:
        FeatureSet.from_arrays(X, np.eye(3, dtype=int)[[0, 1, 2, 0]])
    assert seen[0].filename == __file__
    FeatureSet.from_arrays(X, np.eye(3, dtype=int)[[0, 1, 2, 0]], classes=list("abc"))  # meant


def test_a_set_checks_its_labels():
    parts = {"features": torch.zeros(4, 3), "ids": list("wxyz"), "layer": "l", "fingerprint": ""}
    assert FeatureSet(labels=BOTH, classes=["a", "b"], **parts).is_multilabel
    for classes in ((), ("a",), ("a", "b", "c")):
        with pytest.raises(DataError, match=f"name each of 2 labels .* got {len(classes)} names"):
            FeatureSet(labels=torch.tensor(BOTH), classes=classes, **parts)
    with pytest.raises(DataError, match=r"must be \(n,\) integers"):
        FeatureSet(labels=torch.tensor(BOTH).long(), classes=("a", "b"), **parts)


def test_rows_labels_and_fingerprints_follow():
    part = TRAIN[[3, 1]]
    assert_close(part.labels, TRAIN.labels[[3, 1]])
    one = TRAIN.relabel(TRAIN.labels[:, 1], ["without", "with"])
    assert (one.is_multilabel, one.labels.dtype, one.labels.tolist()) == (
        False,
        torch.int64,
        TRAIN.labels[:, 1].tolist(),
    )
    fewer = TRAIN.relabel(TRAIN.labels[:, :2], TRAIN.classes[:2])
    assert (fewer.is_multilabel, fewer.n_classes) == (True, 2)
    assert len({TRAIN.fingerprint, one.fingerprint, fewer.fingerprint}) == 3
    # Eight booleans have the bytes of one class index.
    y, names = np.array([1, 0, 0, 1]), list("abcdefgh")
    bits = y.astype(np.int64).view(np.bool_).reshape(4, 8)
    classes, labels = (FeatureSet.from_arrays(X, v, classes=names) for v in (y, bits))
    assert classes.fingerprint != labels.fingerprint
    assert classes.relabel(y, names).fingerprint != classes.relabel(bits, names).fingerprint
    y = TRAIN.numpy()[1]
    assert (y.dtype, y.shape) == (np.bool_, (120, 3))
    assert TRAIN.to_torch()[0][1].tolist() == TRAIN.labels[0].tolist()
    assert [len(y) for _, y in TRAIN.batches(50)] == [50, 50, 20]


def test_a_table_has_a_column_for_each_label():
    fs = tagged(classes=["f0", "label", "<b>"])
    frame = fs.to_frame()
    assert frame.columns[:4].tolist() == ["label f0", "label label", "label <b>", "f0"]
    assert_array_equal(frame[frame.columns[:3]], fs.labels)


# --- storage ---


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("n", [0, 1, 120])
def test_files_keep_booleans(tmp_path, suffix, n):
    fs = TRAIN[:n]
    save_features(fs, tmp_path / f"f{suffix}")
    back = load_features(tmp_path / f"f{suffix}")
    assert (back.labels.dtype, back.labels.shape, back.classes) == (torch.bool, (n, 3), fs.classes)
    assert_close((back.features, back.labels), (fs.features, fs.labels), rtol=0, atol=0)
    assert back.fingerprint == fs.fingerprint
    if suffix == ".safetensors":
        assert load_file(tmp_path / "f.safetensors")["labels"].dtype == torch.bool


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_flipped_label_is_seen(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    save_features(TRAIN, path)
    content, labels = bytearray(path.read_bytes()), TRAIN.labels.numpy().tobytes()
    at = bytes(content).index(labels)
    for value in (1 - content[at], 2, 255):
        content[at] = value
        path.write_bytes(content)
        with pytest.raises(CacheError, match="damaged"):
            load_features(path)


def test_the_cache_keeps_booleans(tmp_path):
    save_features(TRAIN, tmp_path / "f.safetensors")
    stored = CachedFeatures(tmp_path / "f.safetensors")
    assert stored.is_multilabel
    assert stored[3][1].tolist() == TRAIN.labels[3].tolist()
    assert [y.dtype for _, y in stored.batches(60)] == [torch.bool] * 2
    for head in ("ridge", "logistic"):
        one, other = (fit_probe(train, head=head, strengths=[0.1]) for train in (stored, TRAIN))
        assert_close(one.logits(stored), other.logits(TRAIN))
        assert_close(one.score(stored).average_precision, other.score(TRAIN).average_precision)


# --- probes ---


@pytest.mark.parametrize("head", ["logistic", "ridge"])
@pytest.mark.parametrize("val", [None, VAL], ids=["alone", "val"])
def test_a_probe_of_several_labels(head, val):
    probe = fit_probe(TRAIN, head=head, val=val)
    assert probe.is_multilabel
    assert (probe.kind, probe.label_shape, probe.present.tolist()) == (head, (3,), [0, 1, 2])
    assert f"any of 3 labels; {probe.chosen_on} 0." in repr(probe)
    logits, named, shares = probe.logits(TEST), probe.predict(TEST), probe.predict_proba(TEST)
    assert_close(named, logits > 0)
    assert_close(named, shares > 0.5)
    assert_close(shares, (logits / probe.temperature).sigmoid())
    found = probe.score(TEST)
    assert isinstance(found, MultiLabelScore)
    assert_close(found.value, multilabel_score(logits, TEST.labels, threshold=0).value)
    expected = metrics.average_precision_score(TEST.labels, logits, average="macro")
    assert_close(found.mean_average_precision, expected)
    assert found.low > found.chance
    assert abs(probe.choice_score - found.value) < 0.1
    for pair in ((TEST.features.numpy(), TEST.labels.numpy()), (TEST.features, TEST.labels.int())):
        assert probe.score(*pair).value == probe.score(pair).value == found.value
    names = [[probe.classes[j] for j in row.nonzero().flatten()] for row in TEST.labels]
    assert probe.score(TEST.features, names).value == found.value


@pytest.mark.parametrize("head", ["logistic", "ridge"])
def test_a_saved_probe_predicts_the_same(tmp_path, head):
    probe = fit_probe(TRAIN, head=head, strengths=[0.1])
    probe.save(tmp_path / "p.safetensors")
    back = load_probe(tmp_path / "p.safetensors")
    assert (back.is_multilabel, repr(back)) == (True, repr(probe))
    assert_close(back.predict(TEST), probe.predict(TEST))
    assert_close(back.predict_proba(TEST), probe.predict_proba(TEST), rtol=0, atol=0)
    assert repr(back.score(TEST)) == repr(probe.score(TEST))


def test_a_label_is_fitted_as_if_it_were_alone():
    together = fit_probe(TRAIN, head="logistic", strengths=[0.03])
    for j, name in enumerate(TRAIN.classes):
        two = fit_probe(TRAIN.relabel(TRAIN.labels[:, j], ["no", name]), head="softmax", strengths=[0.03])
        # Each is certified to lie within 1e-4 of the minimum, so weights agree to about a hundredth.
        assert_close(together.head.weights[:, j], (two.head.weights @ torch.tensor([-1.0, 1.0])), atol=0.02, rtol=0.05)
    ridge = fit_probe(TRAIN, strengths=[0.03])
    path = ridge_path(TRAIN.features, TRAIN.labels.double() * 2 - 1, [0.03])
    assert_close(ridge.head.weights, path.at(0.03).weights)


def test_the_choice_is_made_on_rows_that_were_left_out():
    noise = replace(TRAIN, features=torch.randn(120, 200, generator=torch.Generator().manual_seed(0)))
    for head in ("logistic", "ridge"):
        probe = fit_probe(noise, head=head, strengths=[0.01])
        assert probe.score(noise).value > 0.99  # saturated
        assert probe.choice_score < 0.6, head


def test_strength_and_temperature_make_probabilities_likely():
    probe = fit_probe(TRAIN, head="logistic")

    def loss(p):
        return float(nn.functional.binary_cross_entropy(p, TEST.labels.float()))

    weakest, strongest = (fit_probe(TRAIN, head="logistic", strengths=[s]) for s in (1e-5, 10.0))
    assert loss(probe.predict_proba(TEST)) < min(loss(p.logits(TEST).sigmoid()) for p in (weakest, strongest))
    at_once = fit_probe(TRAIN, head="logistic", val=VAL, strengths=[probe.strength])
    assert probe.calibrate(VAL).temperature == pytest.approx(at_once.temperature, rel=0.01)
    ridge = fit_probe(TRAIN)
    assert loss(ridge.predict_proba(TEST)) < loss(ridge.logits(TEST).sigmoid())


@pytest.mark.parametrize("head", ["logistic", "ridge"])
@pytest.mark.parametrize("k", [1, 50])
def test_one_label_and_fifty(head, k):
    train, test = tagged(150, k, noise=0.5), tagged(150, k, seed=1, noise=0.5)
    found = fit_probe(train, head=head).score(test)
    assert found.counts.shape == (k, 3)
    assert found.low > found.chance


def test_weak_strengths_are_tried_where_one_of_them_is_the_best():
    assert len(fit_probe(TRAIN, head="logistic").strength_path.strengths) == 13
    sharp = tagged(300, 1, noise=0.1)
    probe = fit_probe(sharp, head="logistic")
    assert len(probe.strength_path.strengths) == 17
    assert probe.strength < 1e-3


def test_labels_that_one_image_in_a_hundred_has():
    train, test = (tagged(1500, 3, seed=s, noise=0.1, shift=2.0) for s in (0, 1))
    assert 5 <= int(train.labels[:, 2].sum()) <= 20
    found = fit_probe(train, head="logistic").score(test)
    assert float(found.average_precision[2]) > 10 * float(found.prevalence[2])


def test_two_images_will_do_where_nothing_is_chosen():
    two = FeatureSet.from_arrays([[0.0, 1.0], [1.0, 0.0]], [["a"], []])
    for head in ("logistic", "ridge"):
        probe = fit_probe(two, head=head, strengths=[0.1])
        assert probe.predict(two).tolist() == [[True], [False]]
    with pytest.raises(DataError, match="a label that at least two images in train have and two do not"):
        fit_probe(two, head="logistic")
    assert (
        fit_probe(two, head="logistic", val=([[0.1, 1.0], [1.0, 0.1]], [[1], [0]]), strengths=[0.1]).chosen_on == "val"
    )


def test_weights_count():
    w = torch.linspace(0.1, 3.0, 120)
    weighted = fit_probe(TRAIN, head="logistic", strengths=[0.1], sample_weight=w)
    assert_close(weighted.head.weights, logistic_path(TRAIN, strengths=[0.1], sample_weight=w).at(0.1).weights)
    for head in ("logistic", "ridge"):
        with pytest.raises(InputError, match=r"must be 'balanced' \(with class labels\)"):
            fit_probe(TRAIN, head=head, sample_weight="balanced")


def test_constant_labels_are_named():
    y = TRAIN.labels.clone()
    y[:, 1], y[:, 2] = True, False
    for head in ("logistic", "ridge"):
        with pytest.raises(
            DataError, match="'label 1' is in every image and 'label 2' is in none. Leave such"
        ) as error:
            fit_probe(TRAIN.relabel(y, TRAIN.classes), head=head)
    assert "keep = train.labels.any(0) & ~train.labels.all(0)" in str(error.value)
    # On test they are no obstacle: average precision is of the labels that occur.
    found = fit_probe(TRAIN).score(TEST.relabel(torch.cat([y, y])[:200], TEST.classes))
    assert bool(found.average_precision[2].isnan())


@pytest.mark.parametrize(
    ("kind", "message", "use"),
    [
        (
            InputError,
            "must be 'logistic' or 'ridge' where .* got 'softmax'. If",
            lambda: fit_probe(TRAIN, head="softmax"),
        ),
        (InputError, "got 'prototype'", lambda: fit_probe(TRAIN, head="prototype")),
        (InputError, "got 'knn'", lambda: fit_probe(TRAIN, head="knn")),
        (InputError, "got LinearHead", lambda: fit_probe(TRAIN, head=LinearHead(8, 3))),
        (
            InputError,
            "must be 'softmax' for logistic regression with one class per image",
            lambda: fit_probe(X, [0, 1, 0, 1], head="logistic"),
        ),
        (InputError, "must be 'softmax'", lambda: fit_probe(X, np.arange(4.0), head="logistic")),
        (InputError, "`center` must be left out", lambda: fit_probe(TRAIN, head="logistic", center=True)),
        (
            InputError,
            "'val' must|`val` must have one class|labels shaped like",
            lambda: fit_probe(TRAIN, val=classes_of(VAL)),
        ),
        (InputError, "`val` must have one class per image", lambda: fit_probe(classes_of(TRAIN), val=VAL)),
        (DataError, "`val` must hold at least one image with a label", lambda: fit_probe(TRAIN, val=bare(VAL))),
        (InputError, "must have any of 3 labels each", lambda: fit_probe(TRAIN).score(classes_of(TEST))),
        (InputError, "`test` must have one class per image", lambda: fit_probe(classes_of(TRAIN)).score(TEST)),
        (InputError, "none of 200 has any", lambda: fit_probe(TRAIN).score(bare(TEST))),
        (
            InputError,
            "same order; their order",
            lambda: fit_probe(TRAIN).score(tagged(classes=["label 1", "label 0", "label 2"])),
        ),
        (InputError, "`reliability` needs one class per image", lambda: fit_probe(TRAIN).reliability(TEST)),
        (InputError, "`reliability` needs one class", lambda: fit_probe(TRAIN).calibration_error(TEST)),
        (InputError, "`confidently_wrong` needs one class", lambda: fit_probe(TRAIN).confidently_wrong(TEST)),
        (InputError, "`r_squared` is for regression", lambda: fit_probe(TRAIN).r_squared(TEST)),
    ],
)
def test_what_does_not_fit_is_named(kind, message, use):
    with pytest.raises(kind, match=message):
        use()


def classes_of(fs):
    """The same images with one class each, under the same names."""
    return fs.relabel(torch.arange(len(fs)) % 3, fs.classes)


def bare(fs):
    """The same images without any label."""
    return fs.relabel(torch.zeros_like(fs.labels), fs.classes)


# --- every door: it works, or it says that it needs one class per image ---

SETS = {"early": replace(TRAIN, features=TRAIN.features * 0 + torch.randn(120, 8), layer="early"), "late": TRAIN}
OPEN = {
    "combine": lambda: combine({"a": TRAIN, "b": TRAIN}),
    "reduce pca": lambda: reduce(TRAIN, TEST, n_features=2),
    "reduce random": lambda: reduce(TRAIN, n_features=2, how="random"),
    "split": lambda: split(TRAIN.labels, fractions=(0.5, 0.5)),
    "effective_rank": lambda: effective_rank(TRAIN),
    "cka": lambda: cka(TRAIN, TRAIN),
    "mmd": lambda: mmd(TRAIN, TEST),
    "layer_report": lambda: layer_report(SETS),
    "backbone_report": lambda: backbone_report(SETS, head="logistic"),
    "logistic_path": lambda: logistic_path(TRAIN),
    "compare_multilabel": lambda: compare_multilabel(TEST.features[:, :3], TEST.features[:, 3:6], TEST.labels),
}
CLOSED = {
    "reduce lda": lambda: reduce(TRAIN, n_features=1, how="lda"),
    "few_shot": lambda: few_shot(TRAIN.labels, shots=1),
    "learning_curve": lambda: learning_curve(TRAIN, TEST, sizes=[1]),
    "learning_curve of arrays": lambda: learning_curve((TRAIN.features, TRAIN.labels), TEST, sizes=[1]),
    "width_curve": lambda: width_curve(TRAIN, TEST, widths=[1]),
    "selectivity": lambda: selectivity(TRAIN, TEST),
    "decision_regions": lambda: decision_regions(TRAIN, TEST),
    "train_head": lambda: train_head(LinearHead(8, 3), TRAIN, VAL),
    "softmax_path": lambda: softmax_path(TRAIN),
    "ridge_path": lambda: ridge_path(TRAIN),
    "class_separation": lambda: class_separation(TRAIN),
    "imbalance": lambda: imbalance(TRAIN),
    "imbalance of labels": lambda: imbalance(TRAIN.labels),
    "domain_bound": lambda: domain_bound(source_train=TRAIN, source_test=TEST, target_train=TRAIN, target_test=TEST),
    "margin_bound": lambda: margin_bound(torch.eye(8, 3), TRAIN, margins=[1.0]),
    "pac_bayes_bound": lambda: pac_bayes_bound(TRAIN),
    "HeadLab": lambda: HeadLab(TRAIN, TEST),
}


@pytest.mark.parametrize("door", OPEN)
def test_open_doors(door):
    OPEN[door]()


@pytest.mark.parametrize("door", CLOSED)
def test_closed_doors(door):
    with pytest.raises(InputError, match=r"one class per image|must be \(n,\) class indices"):
        CLOSED[door]()


def test_a_split_spreads_every_label():
    labels = tagged(1000, 6, shift=2.4).labels
    train, test = split(labels, fractions=(0.8, 0.2), seed=3)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(1000))
    assert_close(labels[train].double().mean(0), labels[test].double().mean(0), atol=0.06, rtol=0)
    rarest = int(labels.sum(0).argmin())
    assert abs(int(labels[test, rarest].sum()) - 0.2 * int(labels[:, rarest].sum())) <= 1
    assert_close(split(labels.numpy(), fractions=(0.8, 0.2), seed=3)[1], test)


@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_a_layer_report_shows_mean_average_precision(head):
    test = {"early": replace(TEST, features=torch.randn(200, 8), layer="early"), "late": TEST}
    report = layer_report(SETS, test, head=head)
    assert (report.chosen, list(report.scores)) == ("late", ["early", "late"])
    assert report.score.value == report.probe.score(TEST).value
    assert report.tests["early"].value == pytest.approx(report.score.value - report.scores["early"].value)
    assert report.p_values["early"] < 0.05
    assert "mAP 0." in repr(report)
    assert_close(report.to_frame().loc["late", "test"], report.score.value)
    ax = plots.plot_layer_report(report)
    assert ax.get_ylabel() == "mean average precision"
    arrays = {name: (s.features, s.labels) for name, s in SETS.items()}
    assert layer_report(arrays, head=head).chosen == "late"
