"""What people hand in: arrays of every kind, sets on disk, wrong heads, NaN, and the sizes where things break."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.testing import assert_close

from frozenkit import (
    CacheLab,
    FeatureExtractor,
    LayerLab,
    ShiftLab,
    TeachLab,
    control_scores,
    extract,
    finetune,
    layer_table,
    probe_report,
    race,
    randomized,
    raw_pixels,
    shift,
    zero_shot,
)
from frozenkit.errors import DataError, FrozenkitError, FrozenkitWarning, InputError, UnknownNameError
from frozenkit.extraction.cache import CachedFeatures, FeatureCache
from frozenkit.extraction.saved import load_features, save_features
from frozenkit.features import FeatureSet, combine, feature_rows, reduce
from frozenkit.heads.modules import AttentionHead, EfficientProbeHead, LinearHead, MLPHead
from frozenkit.heads.nearest import NearestMean, NearestNeighbours
from frozenkit.heads.prototypical import PrototypicalHead
from frozenkit.heads.ridge import ridge_path
from frozenkit.heads.rules import select_head
from frozenkit.heads.softmax import softmax_path
from frozenkit.heads.training import train_head
from frozenkit.images.catalog import load_dataset
from frozenkit.probes.estimators import SoftmaxProbe
from frozenkit.probes.probe import fit_probe
from frozenkit.probes.regions import decision_regions
from frozenkit.probes.reports import backbone_report, layer_report, learning_curve, width_curve
from frozenkit.probes.selectivity import selectivity
from frozenkit.splits import few_shot, split
from tests import toy

HEADS = ("ridge", "softmax", "prototype", "knn")


def make(n=60, d=5, k=3, *, seed=0, noise=1.0, layer="late"):
    return toy.blobs(n, d, seed=seed, apart=3.0, noise=noise, classes=[f"class {i}" for i in range(k)], layer=layer)


def regression(fs):
    return replace(fs, labels=fs.features @ torch.arange(1.0, fs.n_features + 1), classes=())


TRAIN, VAL, TEST = make(), make(30, seed=1), make(90, seed=2)


def with_nan(fs, row=7, value=float("nan")):
    x = fs.features.clone()
    x[row, 1] = value
    return replace(fs, features=x)


# --- arrays ---

X = np.arange(12, dtype=np.float64).reshape(4, 3) / 4
FORMS = {
    "float64": X,
    "float32": X.astype(np.float32),
    "float16": X.astype(np.float16),
    "big-endian": X.astype(">f8"),
    "reversed": X[::-1].copy()[::-1],
    "fortran": np.asfortranarray(X),
    "read-only": np.frombuffer(X.tobytes()).reshape(4, 3),
    "list": X.tolist(),
    "list of tensors": list(torch.tensor(X)),
    "table": pd.DataFrame(X, columns=list("abc")),
    "table of objects": pd.DataFrame(X).astype(object),
    "table with nullable numbers": pd.DataFrame(X).astype("Float64"),
    "tensor": torch.tensor(X),
    "half": torch.tensor(X).half(),
    "bfloat16": torch.tensor(X).bfloat16(),
    "strided": torch.tensor(X).T.contiguous().T,
    "with gradient": torch.tensor(X, requires_grad=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_array_becomes_float32(form):
    fs = FeatureSet.from_arrays(FORMS[form], [0, 1, 0, 1])
    assert_close(fs.features, torch.tensor(X, dtype=torch.float32))
    assert (fs.layer, len(fs.ids), fs.features.requires_grad) == ("features", 4, False)
    assert len(fs.fingerprint) == 64


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int32, np.int64, np.uint32])
def test_whole_numbers_are_features_too(dtype):
    x = (np.arange(8).reshape(4, 2) % 2).astype(dtype)
    assert_close(FeatureSet.from_arrays(x, [0, 1, 0, 1]).features, torch.tensor([[0.0, 1.0]] * 4))
    assert FeatureSet(x, [0, 1, 0, 1], ["a", "b"], list("wxyz"), "l", "").features.dtype == torch.float32


@pytest.mark.parametrize(
    ("labels", "classes", "indices", "names"),
    [
        (["dog", "cat", "cat", "dog"], None, [1, 0, 0, 1], ("cat", "dog")),
        (np.array(["b", "a", "b", "b"]), ["b", "a"], [0, 1, 0, 0], ("b", "a")),
        (np.array(["b", "a", "b", "b"], dtype=object), None, [1, 0, 1, 1], ("a", "b")),
        (pd.Series(["b", "a", "b", "b"]), None, [1, 0, 1, 1], ("a", "b")),
        (pd.Series(["b", "a", "b", "b"], dtype="category"), ["a", "b", "c"], [1, 0, 1, 1], ("a", "b", "c")),
        ([2, 0, 0, 2], None, [2, 0, 0, 2], ("0", "1", "2")),
        (np.array([[1], [0], [0], [1]], dtype=np.int16), None, [1, 0, 0, 1], ("0", "1")),
        (pd.Series([1, 0, 0, 1], dtype="Int64"), ["no", "yes"], [1, 0, 0, 1], ("no", "yes")),
        (torch.tensor([1, 0, 0, 1], dtype=torch.uint8), ["no", "yes"], [1, 0, 0, 1], ("no", "yes")),
        ([True, False, False, False], None, [1, 0, 0, 0], ("False", "True")),
        ([1.0, 0.0, 0.0, 1.0], ["no", "yes"], [1, 0, 0, 1], ("no", "yes")),
    ],
)
def test_labels_are_names_or_indices(labels, classes, indices, names):
    fs = FeatureSet.from_arrays(X, labels, classes=classes)
    assert fs.labels.tolist() == indices
    assert (fs.labels.dtype, fs.classes) == (torch.int64, names)


def test_floating_point_labels_are_a_regression():
    fs = FeatureSet.from_arrays(X, np.array([0.5, 1, 2, 3]))
    assert (fs.classes, fs.labels.dtype, fs.labels.shape) == ((), torch.float32, (4,))
    assert FeatureSet.from_arrays(X, X).labels.shape == (4, 3)


def test_rows_of_another_array_are_other_images():
    one, other = FeatureSet.from_arrays(X), FeatureSet.from_arrays(X + 1)
    assert not set(one.ids) & set(other.ids)
    assert FeatureSet.from_arrays(X, ids=list("abcd")).ids == tuple("abcd")
    assert one.fingerprint != other.fingerprint


def test_images_without_labels_can_be_predicted_and_no_more():
    fs = FeatureSet.from_arrays(make(40).features, layer="late")
    assert "no labels" in repr(fs)
    assert "label" not in fs.to_frame()
    assert fs.subset([1, 2]).to("cpu").labels is None
    assert len(combine({"a": fs, "b": fs}).ids) == len(reduce(fs, n_features=2)[0].ids) == 40
    assert fit_probe(TRAIN).predict(fs).shape == (40,)
    for use in (fs.numpy, fs.to_torch, lambda: fit_probe(fs), lambda: fit_probe(TRAIN).score(fs),
                lambda: fit_probe(TRAIN).calibrate(fs), lambda: train_head(nn.Linear(5, 2), fs, fs),
                lambda: learning_curve(fs, TEST, sizes=[1]), lambda: save_features(fs, "x.npz")):  # fmt: skip
        with pytest.raises(InputError, match="must have labels, got FeatureSet.* relabel"):
            use()


@pytest.mark.parametrize(
    ("kind", "message", "arguments"),
    [
        (InputError, "`features` must be an array of numbers, got None", {"features": None}),
        (InputError, "array of numbers, got dict of length 1", {"features": {"a": X}}),
        (InputError, "array of numbers, got list of length 4 of <U1", {"features": list("abcd")}),
        (InputError, "of object", {"features": pd.DataFrame({"a": ["x", 1.0], "b": [1.0, 2.0]})}),
        (InputError, "rows of one length, got list of length 2", {"features": [[1.0], [1.0, 2.0]]}),
        (InputError, "must be real and dense", {"features": torch.zeros(4, 3, dtype=torch.complex64)}),
        (DataError, r"\(n, d\) or \(n, t, d\), got shape \(4,\). A single image is x\[None\]", {"features": X[:, 0]}),
        (DataError, r"at least one image and one number, got shape \(4, 0\)", {"features": X[:, :0]}),
        (DataError, "fit into float32 .* row 2 does not", {"features": np.where(np.arange(4)[:, None] == 2, 1e300, X)}),
        (DataError, "one row per image, got 4, 3 and 4", {"labels": [0, 1, 0]}),
        (InputError, "`labels` must be an array of names or numbers, or None, got str 'cat'", {"labels": "cat"}),
        (DataError, "row 1 has None", {"labels": ["a", None, "a", "a"]}),
        (DataError, "names throughout, but row 0 has 3", {"labels": np.array([3, "a", "a", "a"], dtype=object)}),
        (DataError, "names or numbers, but row 1 has None", {"labels": [1, None, 0, 0]}),
        (DataError, "must be finite, but row 3 has NaN", {"labels": [0.0, 1.0, 2.0, float("nan")]}),
        (DataError, r"class indices from 0 on, got -1..1. Give names", {"labels": [-1, 1, 1, 1]}),
        (DataError, r"class indices from 0 on, got 0..7000000", {"labels": [0, 7_000_000, 1, 1]}),
        (DataError, "row 1 has a fraction", {"labels": [0.0, 0.5, 1.0, 1.0], "classes": ["a", "b"]}),
        (DataError, "among `classes`, but row 2 has 'c'", {"labels": list("abca"), "classes": ["a", "b"]}),
        (DataError, r"0\.\.1 for 2 classes, got 0\.\.2", {"labels": [0, 1, 2, 0], "classes": ["a", "b"]}),
        (InputError, r"class names or indices, got shape \(4, 2, 1\)", {"labels": np.zeros((4, 2, 1), dtype=int)}),
        (InputError, "`classes` must be a sequence of names, got str 'ab'", {"labels": [0, 1, 0, 1], "classes": "ab"}),
        (
            DataError,
            "`classes` must be unique, but 'a' occurs 2 times",
            {"labels": [0, 1, 0, 1], "classes": ["a", "a"]},
        ),
        (DataError, "`ids` must be unique, but 'b' occurs 3 times", {"ids": list("abbb")}),
        (DataError, "one row per image, got 4, no and 2", {"ids": list("ab")}),
    ],
)
def test_what_is_no_array_is_named(kind, message, arguments):
    with pytest.raises(kind, match=message):
        FeatureSet.from_arrays(**{"features": X, **arguments})


# --- FeatureSet brings its parts into their form ---


def test_lists_and_arrays_become_tuples_and_tensors():
    parts = (np.eye(4), np.array([0, 1, 0, 1], dtype=np.int16), ["a", "b"], np.array(list("wxyz")))
    listed = FeatureSet(*parts, "one", "")
    assert (listed.classes, listed.ids) == (("a", "b"), tuple("wxyz"))
    assert (listed.features.dtype, listed.labels.dtype) == (torch.float32, torch.int64)
    other = FeatureSet.from_arrays(torch.eye(4), list("abab"), ids=list("wxyz"), layer="two")
    assert combine({"one": listed, "two": other}).n_features == 8


def test_subset_takes_rows_and_masks_of_any_kind_and_names_what_is_neither():
    wanted = ("0/1", "0/4")
    for rows in ([1, 4], (1, 4), np.array([1, 4], dtype=np.int16), torch.tensor([1, 4]), [-59, -56], range(1, 5, 3)):
        assert TRAIN.subset(rows).ids == wanted
    mask = np.isin(np.arange(60), [1, 4])
    for rows in (mask, mask.tolist(), torch.tensor(mask), pd.Series(mask)):
        assert TRAIN.subset(rows).ids == wanted
    for odd in ([60], [-61], [0.5], [[1]], [True, False], slice(3), "ab", None):
        with pytest.raises(InputError, match="`indices`"):
            TRAIN.subset(odd)
    assert len(TRAIN.subset([])) == 0


# --- heads ---


class Wide(nn.Module):
    def forward(self, x):
        raise KeyError("this one is broken")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (LogisticRegression(), "got LogisticRegression.*X, y = train.numpy"),
        (MLPHead, r"got the class MLPHead. Pass an instance: MLPHead\(5, 3\)"),
        (None, "got None. Write an nn.Module from 5 features to 3 logits"),
        (7, "got int 7"),
        (lambda x: x, "got function"),
        (["ridge"], "got list of length 1"),
        (torch.nn.functional.relu, "got function"),
        (LinearHead(5, 2), r"one output per class, 3, but LinearHead turns \(2, 5\) into \(2, 2\)"),
        (LinearHead(5, 4), r"into \(2, 4\)"),
        (LinearHead(6, 3), r"must take features of shape \(2, 5\), but LinearHead says"),
        (Wide(), "but Wide says: 'this one is broken'"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_an_unknown_kind_of_head_is_an_error(head, message, on_disk, tmp_path):
    train = TRAIN
    if on_disk:
        save_features(TRAIN, tmp_path / "train.safetensors")
        train = CachedFeatures(tmp_path / "train.safetensors")
    with pytest.raises(InputError, match=message):
        fit_probe(train, head=head)


def test_studies_refuse_what_is_no_head_and_take_a_single_one():
    assert learning_curve(TRAIN, TEST, sizes=2, repeats=1, heads="knn").heads == ("knn",)
    for study in (
        lambda h: learning_curve(TRAIN, TEST, sizes=[2], heads=h),
        lambda h: decision_regions(TRAIN, TEST, heads=h),
    ):
        with pytest.raises(InputError, match="at least one head"):
            study([])
        with pytest.raises(InputError, match=r"Pass an instance: MLPHead"):
            study(MLPHead)
    with pytest.raises(UnknownNameError, match="Did you mean 'ridge'"):
        width_curve(TRAIN, TEST, widths=[2], head="rigde")


def test_a_module_is_fitted_on_the_classes_that_are_there():
    head = LinearHead(5, 3)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    with pytest.warns(FrozenkitWarning, match="1 of 3 classes have no training image"):
        probe = fit_probe(TRAIN.subset(TRAIN.labels != 1), head=head)
    assert probe.kind == "LinearHead"
    assert probe.logits(TEST)[:, 1].isneginf().all()
    assert probe.predict(TEST).unique().tolist() == [0, 2]
    for name, value in head.state_dict().items():  # a copy is trained, and tried
        assert_close(value, before[name])


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("ridge", {"center": True}, "`center` must be left out for 'ridge': it is for prototype and knn"),
        ("softmax", {"normalize": False}, "`normalize` must be left out for 'softmax'"),
        (LinearHead(5, 3), {"normalize": True}, "`normalize` must be left out for 'a module'"),
        (
            "knn",
            {"sample_weight": "balanced"},
            "`sample_weight` must be left out for 'knn': it is for ridge, softmax and logistic",
        ),
        (LinearHead(5, 3), {"sample_weight": "balanced"}, "`sample_weight` must be left out for 'a module'"),
        ("prototype", {"scale": "soft"}, "`scale` must be left out for 'prototype'"),
        ("prototype", {"strengths": [1.0]}, "`strengths` must be left out for 'prototype'"),
        (
            "knn",
            {"scale": "unit"},
            "`scale` must be left out for 'knn': it is for ridge, softmax, logistic and a module",
        ),
    ],
)
def test_nothing_that_was_given_is_ignored(head, options, message):
    with pytest.raises(InputError, match=message):
        fit_probe(TRAIN, head=head, **options)


# --- NaN and infinity ---


@pytest.mark.parametrize("head", [*HEADS, "module"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named_in_train_val_and_test(head, value):
    head = LinearHead(5, 3) if head == "module" else head
    with pytest.raises(DataError, match=r"`train` must be finite, but row 7 \('0/7'\) has NaN or infinity"):
        fit_probe(with_nan(TRAIN, value=value), head=head)
    with pytest.raises(DataError, match=r"`val` must be finite, but row 7 \('1/7'\)"):
        fit_probe(TRAIN, head=head, val=with_nan(VAL, value=value))
    probe, bad = fit_probe(TRAIN, head=head, val=VAL), with_nan(TEST, value=value)
    for use in (probe.logits, probe.predict, probe.predict_proba, probe.score, probe.calibrate, probe.reliability,
                probe.calibration_error, probe.confidently_wrong):  # fmt: skip
        with pytest.raises(DataError, match=r"row 7 \('2/7'\) has NaN or infinity"):
            use(bad)
    for array in (bad.features, bad.features.numpy(), pd.DataFrame(bad.features.numpy()), bad.features.tolist()):
        with pytest.raises(DataError, match="`x` must be finite, but row 7 has NaN or infinity"):
            probe.predict(array)


def test_a_bad_row_is_counted_from_the_first_batch_on(tmp_path):
    many = make(9000)
    save_features(with_nan(many, 8500), tmp_path / "bad.safetensors")
    for bad in (with_nan(many, 8500), CachedFeatures(tmp_path / "bad.safetensors")):
        with pytest.raises(DataError, match=r"row 8500 \('0/8500'\)"):
            fit_probe(many).predict(bad)


def test_what_is_not_finite_is_named_elsewhere():
    bad = with_nan(TRAIN)
    for name, use in {
        "train": lambda: reduce(bad, n_features=2),
        r"others\[0\]": lambda: reduce(TRAIN, bad, n_features=2),
        "features": lambda: PrototypicalHead(5, 3).fit_means(bad.features, bad.labels),
        "test": lambda: decision_regions(TRAIN, bad),
        "val": lambda: train_head(LinearHead(5, 3), TRAIN, replace(bad, ids=VAL.ids + TEST.ids[:30])),
        "source": lambda: feature_rows(bad, "source"),
        "train.labels": lambda: fit_probe(replace(regression(TRAIN), labels=torch.full((60,), torch.inf))),
        "val.labels": lambda: fit_probe(
            regression(TRAIN), val=replace(regression(VAL), labels=torch.full((30,), torch.nan))
        ),
    }.items():
        with pytest.raises(DataError, match=f"`{name}` must be finite, but row"):
            use()


# --- arrays and wrong kinds at every door ---


@pytest.mark.parametrize("head", HEADS)
def test_arrays_give_what_a_set_gives(head):
    x, y = TRAIN.numpy()
    wanted = fit_probe(TRAIN, head=head, val=VAL)
    table, names = pd.DataFrame(x), [f"class {i}" for i in y]
    for probe in (
        fit_probe(x, y, head=head, val=VAL.numpy()),
        fit_probe(table, pd.Series(names), head=head, val=(VAL.features, [f"class {i}" for i in VAL.labels])),
        fit_probe((x.tolist(), y.tolist()), head=head, val=VAL.numpy()),
    ):
        assert probe.choice_score == wanted.choice_score
        for test in (TEST.features, TEST.features.numpy(), pd.DataFrame(TEST.features.numpy()), TEST.features.tolist()):
            assert_close(probe.logits(test), wanted.logits(TEST))
            assert_close(probe.predict(test), wanted.predict(TEST))
            assert_close(probe.predict_proba(test), wanted.predict_proba(TEST))
        assert fit_probe(x, y, head=head, val=VAL.numpy()).score(*TEST.numpy()).accuracy == wanted.score(TEST).accuracy


def test_predictions_are_the_labels_that_were_given():
    x, y = TRAIN.numpy()
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):  # classes 0, 2, 4 and 6 have no image
        probe = fit_probe(x, 2 * y + 1)
    assert set(probe.predict(x).tolist()) == {1, 3, 5}
    assert probe.score(x, 2 * y + 1).accuracy > 0.9
    named = fit_probe(x, [f"class {i}" for i in y])
    assert named.classes[int(named.predict(x[:1]))] == "class 0"
    assert named.score(x[:20], ["class 0"] * 20).n == 20  # a test set without some of the classes


def test_regression_takes_arrays():
    train, test = regression(TRAIN), regression(TEST)
    probe = fit_probe(train.features.numpy(), train.labels.numpy())
    assert probe.r_squared(test.features.numpy(), test.labels.numpy()) > 0.99
    with pytest.raises(InputError, match=r"numbers as labels, shaped \(90,\) as in train, got \(90, 1\)"):
        probe.r_squared(test.features.numpy(), test.labels[:, None].numpy())


@pytest.mark.parametrize("path", [ridge_path, softmax_path])
def test_paths_take_any_array(path):
    wanted = path(TRAIN.features, TRAIN.labels, [0.1])
    x, y = TRAIN.numpy()
    for features, labels in ((x, y), (x.tolist(), y.tolist()), (pd.DataFrame(x), pd.Series(y)), (TRAIN, None),
                             (TRAIN.features.double(), TRAIN.labels.to(torch.uint8)),
                             (TRAIN.features.clone().requires_grad_(), TRAIN.labels.int())):  # fmt: skip
        assert_close(path(features, labels, np.array([0.1])).at(0.1).weights, wanted.at(0.1).weights)
    for features, labels in ((None, y), ({"a": TRAIN}, y), (x, list("ab" * 30)), (x, None)):
        with pytest.raises(InputError):
            path(features, labels)


WRONG = {
    "array": TRAIN.features.numpy(),
    "tensor": TRAIN.features,
    "list": TRAIN.features.tolist(),
    "table": pd.DataFrame(TRAIN.features.numpy()),
    "None": None,
    "number": 3,
    "class": FeatureSet,
}
DOORS = {
    "combine": lambda wrong: combine({"a": TRAIN, "b": wrong}),
    "reduce": lambda wrong: reduce(wrong, n_features=2),
    "reduce others": lambda wrong: reduce(TRAIN, wrong, n_features=2),
    "layer_report": lambda wrong: layer_report({"a": TRAIN, "b": wrong}),
    "layer_report test": lambda wrong: layer_report({"a": TRAIN}, {"a": wrong}),
    "backbone_report": lambda wrong: backbone_report({"a": wrong}),
    "learning_curve": lambda wrong: learning_curve(wrong, TEST, sizes=[2]),
    "learning_curve test": lambda wrong: learning_curve(TRAIN, wrong, sizes=[2]),
    "width_curve": lambda wrong: width_curve(wrong, TEST, widths=[2]),
    "width_curve test": lambda wrong: width_curve(TRAIN, wrong, widths=[2]),
    "decision_regions": lambda wrong: decision_regions(wrong, TEST),
    "decision_regions test": lambda wrong: decision_regions(TRAIN, wrong),
    "train_head": lambda wrong: train_head(LinearHead(5, 3), wrong, VAL),
    "train_head val": lambda wrong: train_head(LinearHead(5, 3), TRAIN, wrong),
    "calibrate": lambda wrong: fit_probe(TRAIN).calibrate(wrong),
    "reliability": lambda wrong: fit_probe(TRAIN).reliability(wrong),
    "calibration_error": lambda wrong: fit_probe(TRAIN).calibration_error(wrong),
    "confidently_wrong": lambda wrong: fit_probe(TRAIN).confidently_wrong(wrong),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("door", DOORS)
def test_a_wrong_kind_is_told_the_way(door, wrong):
    with pytest.raises(InputError, match="must be a FeatureSet.*FeatureSet.from_arrays"):
        DOORS[door](WRONG[wrong])


@pytest.mark.parametrize("door", DOORS)
def test_a_dict_of_layers_is_told_the_way(door):
    with pytest.raises(InputError, match=r"Take one layer out of it, as in features\['late'\]"):
        DOORS[door]({"late": TRAIN})


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: fit_probe(TRAIN.features), r"pair of arrays, got Tensor of shape \(60, 5\). Give labels with it"),
        (lambda: fit_probe(TRAIN, TRAIN.labels), r"`labels` must be left out .* train.relabel\(labels, classes\)"),
        (lambda: fit_probe({"late": TRAIN}), r"as in features\['late'\]"),
        (lambda: fit_probe(None), "must be a FeatureSet.* got None"),
        (lambda: fit_probe(TRAIN, val=VAL.features), "`val` must be a FeatureSet.*Give labels with it"),
        (lambda: fit_probe(TRAIN).score(TEST.features), "`test` must be a FeatureSet.*Give labels with it"),
        (lambda: fit_probe(TRAIN).score(TEST, TEST.labels), "`labels` must be left out"),
        (lambda: fit_probe(TRAIN).predict(None), "`x` must be a FeatureSet.* got None"),
        (lambda: fit_probe(TRAIN).predict("cat"), "`x` must be a FeatureSet.* got str 'cat'"),
        (lambda: fit_probe(TRAIN).predict(TEST.features[0]), r"`x` must be \(n, 5\), got shape \(5,\)"),
        (lambda: fit_probe(TRAIN).predict(torch.ones(2, 3, 5)), "for this head, got tokens"),
        (lambda: fit_probe(TRAIN).predict(list("abcde")), "array of numbers"),
        (lambda: fit_probe(load_dataset("digits", limit=20)), r"features first: extract\(backbone, dataset\)"),
        (lambda: learning_curve(regression(TRAIN), regression(TEST), sizes=[2]), "it has numbers, a regression"),
        (lambda: width_curve(regression(TRAIN), regression(TEST), widths=[2]), "a regression"),
        (lambda: decision_regions(regression(TRAIN), regression(TEST)), "a regression"),
        (lambda: decision_regions(TRAIN, make(d=6, seed=1)), "width, layer and classes of train"),
        (lambda: decision_regions(make(d=1), make(d=1, seed=1)), "at least two features for a plane"),
        (lambda: reduce(TRAIN, make(layer="early"), n_features=2), "must come from 'late' like train, got 'early'"),
        (lambda: combine([TRAIN]), "`sets` must map at least one layer"),
        (lambda: combine({"a": TRAIN, "b": replace(TRAIN, features=torch.ones(60, 2, 5))}), "Average tokens first"),
        (lambda: layer_report({"a": TRAIN, "b": replace(TRAIN, labels=TRAIN.labels.flip(0))}), "same labels .* 'b'"),
        (lambda: train_head(LinearHead, TRAIN, VAL), "must be an nn.Module, .* got the class LinearHead"),
        (lambda: train_head(LinearHead(5, 2), TRAIN, VAL), "one output per class, 3"),
        (lambda: train_head(LinearHead(5, 2), regression(TRAIN), regression(VAL)), r"outputs shaped \(2,\)"),
        (lambda: fit_probe(TRAIN, strengths="many"), "strengths"),
        (lambda: split(TRAIN, fractions=(0.5, 0.5)), "got FeatureSet.* Give its .labels"),
        (lambda: split(TRAIN.labels, fractions=0.5), "one per part, such as"),
        (lambda: split(TRAIN.labels, fractions=None), "one per part, such as"),
        (lambda: few_shot(TRAIN.labels, shots=2.5), "`shots` must be a whole number of at least 1, got 2.5"),
        (lambda: few_shot(TRAIN.labels, shots=True), "`shots` must be a whole number of at least 1, got True"),
        (lambda: few_shot(TRAIN.labels, shots=1, seed=-1), "`seed` must be a whole number of at least 0, got -1"),
        (lambda: few_shot(TRAIN.labels, shots=1, seed=2**32), "`seed` must be below"),
    ],
)  # fmt: skip
def test_errors_say_what_must_hold_what_came_and_what_to_do(use, message):
    with pytest.raises(InputError, match=message):
        use()


def test_a_report_says_which_layer_it_was():
    with pytest.raises(DataError) as raised:
        layer_report({"a": TRAIN, "b": with_nan(TRAIN)})
    assert raised.value.__notes__ == ["(That was layer 'b'.)"]


# --- on disk ---


@pytest.fixture
def disk(tmp_path):
    def put(fs, name):
        save_features(fs, tmp_path / f"{name}.safetensors")
        return CachedFeatures(tmp_path / f"{name}.safetensors")

    return {"train": put(TRAIN, "train"), "val": put(VAL, "val"), "test": put(TEST, "test")}


@pytest.mark.parametrize("head", [*HEADS, "module"])
def test_a_set_on_disk_gives_what_it_gives_in_memory(head, disk):
    module = LinearHead(5, 3)

    def fit(train, val):
        return fit_probe(
            train,
            head=module if head == "module" else head,
            val=val,
            strengths=[1e-3, 1e-2, 1e-1] if head == "softmax" else None,
        )

    for val in (None, "val"):
        lazy, dense = fit(disk["train"], val and disk[val]), fit(TRAIN, val and VAL)
        assert lazy.choice_score == dense.choice_score
        assert_close(lazy.logits(disk["test"]), dense.logits(TEST))
        assert repr(lazy.score(disk["test"])) == repr(dense.score(TEST))
        assert lazy.calibrate(disk["val"]).temperature == pytest.approx(dense.calibrate(VAL).temperature)
        assert lazy.calibration_error(disk["test"]) == pytest.approx(dense.calibration_error(TEST))


def test_studies_take_sets_on_disk(disk):
    train, test = disk["train"], disk["test"]
    assert_close(combine({"a": train, "b": TRAIN}).features, combine({"a": TRAIN, "b": TRAIN}).features)
    for lazy, dense in zip(reduce(train, test, n_features=2), reduce(TRAIN, TEST, n_features=2)):
        assert_close(lazy.features, dense.features)
    for study in (
        lambda a, b: learning_curve(a, b, sizes=[3], repeats=2).runs,
        lambda a, b: width_curve(a, b, widths=[2]).points,
        lambda a, b: [(r.predictions.tolist(), r.score) for r in decision_regions(a, b, resolution=5)],
        lambda a, b: layer_report({"x": a}, {"x": b}).scores,
        lambda a, b: backbone_report({"x": a}, {"x": b}).scores,
        lambda a, b: train_head(nn.Linear(5, 3), a, b, epochs=1).best_epoch,
    ):
        assert repr(study(train, test)) == repr(study(TRAIN, TEST))


def test_sets_on_disk_are_guarded_like_those_in_memory(disk, tmp_path):
    save_features(make(30, layer="early", seed=5), tmp_path / "early.safetensors")
    early = CachedFeatures(tmp_path / "early.safetensors")
    for use, message in (
        (lambda: combine({"a": disk["train"], "b": disk["test"]}), "'b' differs in its ids"),
        (lambda: reduce(disk["train"], early, n_features=2), "must come from 'late'"),
        (lambda: fit_probe(TRAIN).score(early), "fitted on features of 'late', got 'early'"),
        (lambda: fit_probe(disk["train"], val=early), "`val` must have the classes, layer and width"),
        (lambda: fit_probe(disk["train"], val=disk["train"]), "but '0/0' is in both"),
        (lambda: layer_report({"a": disk["train"], "b": disk["test"]}), "'b' differs"),
        (lambda: decision_regions(disk["train"], early), "width, layer and classes"),
        (lambda: fit_probe(disk["train"], [0] * 60), "`labels` must be left out"),
    ):
        with pytest.raises(InputError, match=message):
            use()


# --- val is no part of train ---


@pytest.mark.parametrize("head", [*HEADS, "module"])
def test_a_val_that_overlaps_train_is_refused(head, disk):
    head = LinearHead(5, 3) if head == "module" else head
    part = TRAIN.subset(range(40, 60))
    both = replace(
        VAL,
        features=torch.cat([VAL.features, part.features[3:4]]),
        labels=torch.cat([VAL.labels, part.labels[3:4]]),
        ids=(*VAL.ids, part.ids[3]),
    )
    for val, name in ((TRAIN, "0/0"), (part, "0/40"), (both, "0/43")):
        with pytest.raises(InputError, match=f"`val` must hold other images than train, but '{name}' is in both"):
            fit_probe(TRAIN, head=head, val=val)
    with pytest.raises(InputError, match="is in both"):
        fit_probe(disk["train"], head=head, val=part)
    with pytest.raises(InputError, match="is in both"):
        train_head(LinearHead(5, 3), TRAIN, part)


def test_the_same_names_for_other_images_are_no_overlap():
    # Two folders may both hold 001.jpg.
    fit_probe(TRAIN, val=replace(VAL, ids=TRAIN.ids[:30]))
    fit_probe(*TRAIN.numpy(), val=VAL.numpy())
    with pytest.raises(InputError, match="is in both"):
        fit_probe(*TRAIN.numpy(), val=TRAIN.numpy())


# --- the sizes where things break ---


def heads_for(fs):
    torch.manual_seed(0)
    d, k = fs.n_features, fs.n_classes
    return [
        *HEADS,
        LinearHead(d, k),
        MLPHead(d, k, hidden=(8,)),
        PrototypicalHead(d, k),
        AttentionHead(d, k, heads=1),
        EfficientProbeHead(d, k, queries=1),
    ]


def fits(train, test, val=None):
    """(head, probe or the error raised on purpose) for every head."""
    for head in heads_for(train):
        name = head if isinstance(head, str) else type(head).__name__
        with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
            try:
                # Two strengths: the whole grid of softmax takes seconds.
                probe = fit_probe(train, head=head, val=val, strengths=[1e-3, 1e-1] if head == "softmax" else None)
            except FrozenkitError as error:
                yield name, error
                continue
            probabilities = probe.predict_proba(test)
            assert probabilities.isfinite().all(), name
            assert_close(probabilities.sum(1), torch.ones(len(test)))
        yield name, probe


def scaled(fs, *factors):
    """The features times the first factor beside two of them times the second."""
    parts = [fs.features * factors[0]] + [fs.features[:, :2] * f for f in factors[1:]]
    return replace(fs, features=torch.cat(parts, 1))


WHOLE = {  # data on which every head does well
    "k = 2": (make(k=2), make(90, k=2, seed=2)),
    "n < d": (make(30, 40), make(90, 40, seed=2)),
    "huge": (scaled(TRAIN, 1e15), scaled(TEST, 1e15)),
    "one huge column": (scaled(TRAIN, 1.0, 1e15), scaled(TEST, 1.0, 1e15)),
    "tiny": (scaled(TRAIN, 1e-8), scaled(TEST, 1e-8)),
    "tiny columns": (scaled(TRAIN, 1.0, 1e-8), scaled(TEST, 1.0, 1e-8)),
    "overflow when squared": (scaled(TRAIN, 1e30), scaled(TEST, 1e30)),
    "duplicate columns": (scaled(TRAIN, 1.0, 1.0), scaled(TEST, 1.0, 1.0)),
    "a constant column": (scaled(TRAIN, 1.0, 0.0), scaled(TEST, 1.0, 0.0)),
    "far from the origin": (replace(TRAIN, features=TRAIN.features + 1e4), replace(TEST, features=TEST.features + 1e4)),
    "float16": (replace(TRAIN, features=TRAIN.features.half()), TEST),
    "bfloat16": (replace(TRAIN, features=TRAIN.features.bfloat16()), replace(TEST, features=TEST.features.bfloat16())),
    "float64": (replace(TRAIN, features=TRAIN.features.double()), TEST),
    "not contiguous": (replace(TRAIN, features=TRAIN.features.T.contiguous().T), TEST),
}


@pytest.mark.parametrize("case", WHOLE)
def test_every_head_works_at(case):
    train, test = WHOLE[case]
    scores = {name: probe.score(test).accuracy for name, probe in fits(train, test)}
    linear = 0.5 if case == "one huge column" else 0.9  # where two of the columns drown the others
    assert all(scores[name] >= linear for name in HEADS), scores
    assert all(score > 0.45 for score in scores.values()), scores


def test_two_hundred_classes():
    train, test = make(600, 30, 200), make(400, 30, 200, seed=2)
    for name, probe in fits(train, test):
        assert probe.predict_proba(test).shape == (400, 200)
        assert probe.score(test).accuracy > 0.3, name


def test_one_image_is_named():
    for _, error in fits(TRAIN.subset([0]), TEST):
        assert isinstance(error, DataError)
        assert "at least two images" in str(error)


def test_two_images():
    for name, found in fits(TRAIN.subset([0, 1]), TEST):
        if name in ("ridge", "prototype", "knn"):
            assert found.choice_score == 0  # without one of the two, only the other's class is left
        else:
            assert "al` " in str(found) or "Give `val`" in str(found), name
    for name, probe in fits(TRAIN.subset([0, 1]), TEST, val=VAL):
        found = probe.predict(TEST)
        assert set(found.tolist()) <= {0, 1}, name
        assert name not in HEADS or (found == TEST.labels).double().mean() > 0.4, name


@pytest.mark.parametrize("val", [None, VAL], ids=["alone", "val"])
def test_a_class_missing_in_train(val):
    train = TRAIN.subset(TRAIN.labels != 1)
    for name, probe in fits(train, TEST, val=val):
        assert (probe.predict_proba(TEST)[:, 1] == 0).all(), name
        assert probe.present.tolist() == [0, 2]


def test_a_class_missing_in_val_or_the_only_one_there():
    for rows in (VAL.labels != 1, VAL.labels == 1):
        for name, probe in fits(TRAIN, TEST, val=VAL.subset(rows)):
            assert probe.chosen_on == "val", name
    for name, error in fits(TRAIN.subset(TRAIN.labels != 1), TEST, val=VAL.subset(VAL.labels == 1)):
        assert "at least one image of a class that train has, got 10 images" in str(error), name
    with pytest.raises(DataError, match="got 0 images"):
        fit_probe(TRAIN, val=VAL.subset([]))


def test_features_or_targets_that_are_all_the_same_are_named():
    for _, error in fits(replace(TRAIN, features=torch.full((60, 5), 7.3)), TEST):
        assert isinstance(error, DataError)
        assert "features that vary, but all 60 images have the same" in str(error)
    flat = replace(regression(TRAIN), labels=torch.full((60,), 3.5))
    for head in ("ridge", LinearHead(5, 1)):
        with pytest.raises(DataError, match="`train` must hold labels that vary, but all are 3.5"):
            fit_probe(flat, head=head)
        with pytest.raises(DataError, match="`val` must hold labels that vary"):
            fit_probe(regression(TRAIN), head=head, val=regression(VAL).subset([3]))


def test_nothing_to_predict_is_an_empty_answer():
    for _, probe in fits(TRAIN, TEST):
        assert probe.predict(TEST.subset([])).shape == (0,)
        assert probe.predict_proba(torch.zeros(0, 5)).shape == (0, 3)


# --- exact means exact ---


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("factor", [1e-8, 1.0, 1e15])
def test_leave_one_out_of_means_and_neighbours_is_a_refit_at_any_scale(normalize, factor):
    fs = make(40, noise=3.0)
    x, y = fs.features * factor + (0 if normalize else 50 * factor), fs.labels
    options = {"center": False, "normalize": normalize}
    means = NearestMean(x, y, **options).leave_one_out(x, y)
    votes = NearestNeighbours(x / factor, y, neighbours=5, **options).leave_one_out(x / factor)
    for i in range(40):
        rest = torch.arange(40) != i
        expected = NearestMean(x[rest], y[rest], **options)(x[i : i + 1])[0]
        assert_close(means[i] / factor**2, expected / factor**2, rtol=1e-4, atol=1e-5)
        alone = NearestNeighbours(x[rest] / factor, y[rest], neighbours=5, **options)
        assert_close(votes[i], alone(x[i : i + 1] / factor)[0], rtol=1e-3, atol=1e-3)


def test_nearest_means_keep_their_digits_far_from_the_origin():
    x = make(60, 5, noise=0.1).features.double()
    labels = make(60, 5).labels
    near = NearestMean(x, labels, normalize=False, center=False)(x)
    far = NearestMean(x + 1e6, labels, normalize=False, center=False)(x + 1e6)
    assert_close(far, near, rtol=1e-4, atol=1e-4)


def test_votes_are_counted_by_class():
    x, y = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), torch.tensor([0, 2, 1, 1])
    found = NearestNeighbours(x, y, neighbours=4, center=False, temperature=1.0)(x).exp()
    unit = x / x.norm(dim=1, keepdim=True)
    weights = (unit @ unit.T).exp()
    share = torch.stack([weights[:, y == c].sum(1) for c in range(3)], 1) / weights.sum(1, keepdim=True)
    assert_close(found, (4 * share + 1 / 3) / 5)


# --- NumPy's whole numbers ---


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_whole_numbers_of_numpy_are_whole_numbers(kind):
    y = TRAIN.labels
    assert few_shot(y, shots=kind(3), seed=kind(1)).tolist() == few_shot(y, shots=3, seed=1).tolist()
    one, other = split(y, fractions=(0.5, 0.5), seed=kind(4)), split(y, fractions=np.array([0.5, 0.5]), seed=4)
    assert [part.tolist() for part in one] == [part.tolist() for part in other]
    assert len(load_dataset("digits", limit=kind(20), seed=kind(1))) == 20
    assert LinearHead(kind(5), kind(3)).linear.weight.shape == (3, 5)
    assert select_head(kind(5), kind(3), kind(100)).head is not None
    assert MLPHead(kind(5), kind(3), hidden=(kind(4),))(torch.zeros(2, 5)).shape == (2, 3)
    assert AttentionHead(kind(4), kind(3), heads=kind(2))(torch.zeros(2, 4)).shape == (2, 3)
    assert EfficientProbeHead(kind(4), kind(3), queries=kind(2))(torch.zeros(2, 4)).shape == (2, 3)
    assert reduce(TRAIN, n_features=kind(2))[0].n_features == 2
    assert len(learning_curve(TRAIN, TEST, sizes=np.array([2, 3], dtype=kind), repeats=kind(1)).runs) == 2
    assert width_curve(TRAIN, TEST, widths=np.array([2], dtype=kind), how="pca").points[0].n_features == 2
    assert decision_regions(TRAIN, TEST, resolution=kind(4))[0].predictions.shape == (4, 4)
    assert train_head(nn.Linear(5, 3), TRAIN, VAL, epochs=kind(1), batch_size=kind(9), patience=kind(1)).best_epoch == 1
    for head in HEADS:
        fit_probe(TRAIN, head=head, seed=kind(1))
    x, y = TRAIN.numpy()
    one, other = (SoftmaxProbe([0.1, 0.01], random_state=seed).fit(x, y) for seed in (1, kind(1)))
    assert one.choice_score_ == other.choice_score_
    SoftmaxProbe([0.1, 0.01], random_state=None).fit(x, y)


@pytest.mark.parametrize("value", [True, 2.0, "2", None, 0, np.float64(2)])
def test_other_things_are_no_whole_numbers(value):
    for use in (
        lambda: LinearHead(value, 3),
        lambda: few_shot(TRAIN.labels, shots=value),
        lambda: reduce(TRAIN, n_features=value),
        lambda: learning_curve(TRAIN, TEST, sizes=[value]),
        lambda: learning_curve(TRAIN, TEST, sizes=[1], repeats=value),
        lambda: train_head(nn.Linear(5, 3), TRAIN, VAL, epochs=value),
        lambda: decision_regions(TRAIN, TEST, resolution=value),
    ):
        with pytest.raises(InputError, match="must be a whole number of at least"):
            use()


# --- devices ---


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_set_on_a_gpu_fits_and_predicts_like_one_on_the_cpu():
    train, val, test = (fs.to("cuda") for fs in (TRAIN, VAL, TEST))
    for head in (*HEADS, LinearHead(5, 3)):
        found, wanted = fit_probe(train, head=head, val=val), fit_probe(TRAIN, head=head, val=VAL)
        assert_close(found.logits(test), wanted.logits(TEST), rtol=1e-3, atol=1e-3)
        assert_close(found.predict(test.features), wanted.predict(TEST))
        assert found.score(test).accuracy == wanted.score(TEST).accuracy
    assert len(learning_curve(train, test, sizes=[2], repeats=1).runs) == 1
    assert reduce(train, test, n_features=2)[1].features.device.type == "cpu"
    decision_regions(train, test, resolution=4)
    layer_report({"a": train}, {"a": test})
    PrototypicalHead(5, 3).fit_means(train.features, train.labels)
    train_head(LinearHead(5, 3), train, val, epochs=1)
    few_shot(train.labels, shots=2)
    ridge_path(train.features, train.labels)
    ridge_path(train)


def test_to_the_cpu_changes_nothing():
    there = TRAIN.to("cpu")
    assert there.features is TRAIN.features
    assert_close(fit_probe(there).logits(TEST.to("cpu")), fit_probe(TRAIN).logits(TEST))


def test_selectivity_names_arrays():
    with pytest.raises(InputError, match="FeatureSet"):
        selectivity(TRAIN.features, TEST)


@pytest.mark.parametrize("kind", ["resnet18", torch.nn.Linear(2, 2), None, 3], ids=["name", "module", "None", "number"])
@pytest.mark.parametrize(
    "door",
    [
        layer_table,
        FeatureExtractor,
        lambda backbone: race(backbone, load_dataset("digits", limit=20)),
        lambda backbone: probe_report(*[load_dataset("digits", limit=20)] * 2, backbone),
        lambda backbone: control_scores(*[load_dataset("digits", limit=20)] * 2, backbone),
        randomized,
        lambda backbone: zero_shot(backbone, {"cat": ["tabby"]}),
        lambda backbone: TeachLab(backbone=backbone or 0),  # None is the bundled one
        lambda backbone: ShiftLab(backbone=backbone or 0),
        lambda backbone: CacheLab(backbone=backbone or 0),
        lambda backbone: LayerLab(backbone=backbone or 0),
    ],
    ids=[
        "layer_table",
        "FeatureExtractor",
        "race",
        "probe_report",
        "control_scores",
        "randomized",
        "zero_shot",
        "TeachLab",
        "ShiftLab",
        "CacheLab",
        "LayerLab",
    ],
)
def test_what_is_no_backbone_is_told_the_way(door, kind):
    with pytest.raises(InputError, match="`backbone` must be a Backbone, got .*(Wrap it|Load one)"):
        door(kind)


def test_rows_and_names_of_every_kind_fit_one_probe():
    x, y = np.random.RandomState(0).randn(40, 5), np.array(["cat", "dog"] * 20)
    x[:, 0] += 4 * (y == "dog")
    tables = [x, x.astype(np.float32), torch.tensor(x), pd.DataFrame(x), x.tolist()]
    names = [y, y.astype(object), y.tolist(), tuple(y), pd.Series(y), pd.Index(y), pd.DataFrame(y)]
    names += [pd.Series(y, dtype=kind) for kind in ("category", "string", "string[pyarrow]")]
    expected = fit_probe(x, y).choice_score
    for table in tables:
        for labels in names:
            probe = fit_probe(table, labels)
            assert (probe.classes, probe.choice_score) == (("cat", "dog"), expected)


# --- images without labels ------------------------------------------------------------------------

UNLABELLED = toy.tiny_images(None, ())
NEED_LABELS = {
    "control_scores": lambda backbone, lab: control_scores(lab, UNLABELLED, backbone),
    "probe_report": lambda backbone, lab: probe_report(UNLABELLED, lab, backbone),
    "race": lambda backbone, lab: race(backbone, UNLABELLED),
    "finetune": lambda backbone, lab: finetune(backbone, lab, UNLABELLED),
    "LayerLab": lambda backbone, lab: LayerLab(lab, UNLABELLED, backbone=backbone),
    "ShiftLab": lambda backbone, lab: ShiftLab(UNLABELLED, UNLABELLED, backbone=backbone),
    "fit_probe": lambda backbone, lab: fit_probe(extract(backbone, UNLABELLED, progress=False)),
}


@pytest.mark.parametrize("call", NEED_LABELS)
def test_images_without_labels_are_refused_where_labels_are_needed(backbone, call):
    which = "`(test_images|train|test|val)` must have (one class per image|labels)"
    with pytest.raises(InputError, match=f"{which}, got .*4 images.* no labels"):
        NEED_LABELS[call](backbone, toy.tiny_images())


def test_images_without_labels_go_everywhere_else(backbone, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    cold, warm = (extract(backbone, UNLABELLED, cache=cache, progress=False) for _ in range(2))
    lazy = extract(backbone, UNLABELLED, cache=cache, lazy=True, progress=False)
    save_features(cold, tmp_path / "saved.safetensors")
    labelled = extract(backbone, toy.tiny_images(), progress=False)
    for features in (cold, warm, lazy.load(), load_features(tmp_path / "saved.safetensors"), lazy):
        assert (features.labels, features.classes, features.ids) == (None, (), UNLABELLED.ids)
        assert features.fingerprint == cold.fingerprint != labelled.fingerprint
        assert_close(features.rows(range(4)), labelled.features, rtol=0, atol=0)
    assert len(cache.records()) == 1
    assert fit_probe(labelled).predict(cold).shape == (4,)
    assert raw_pixels(UNLABELLED)[0].labels is None
    assert raw_pixels(toy.tiny_images(np.ones(4), ()))[0].labels.dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.ones(3, 2), [1, 2], 3, TRAIN], ids=["array", "list", "number", "features"])
@pytest.mark.parametrize(
    "door",
    [
        lambda data: shift(data, "blur", 2),
        lambda data: shift(data, "blur", 0),
        raw_pixels,
        lambda d: CacheLab(dataset=d),
    ],
    ids=["shift", "shift by nothing", "raw_pixels", "CacheLab"],
)
def test_what_is_no_set_of_images_is_told_the_way(door, kind):
    with pytest.raises(InputError, match="must be an ImageDataset, got .* See `image_folder`, `from_torch`"):
        door(kind)
