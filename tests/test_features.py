"""FeatureSet, combine and reduce."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from torch.testing import assert_close

from frozenkit import (
    CachedFeatures,
    Features,
    cka,
    class_separation,
    decision_regions,
    domain_bound,
    effective_rank,
    explained_variance,
    fit_probe,
    frechet_distance,
    layer_report,
    learning_curve,
    margin_bound,
    mmd,
    pac_bayes_bound,
    proxy_a_distance,
    ridge_path,
    save_features,
    selectivity,
    softmax_path,
    train_head,
    width_curve,
)
from frozenkit.errors import DataError, InputError
from frozenkit.features import FeatureSet, combine, reduce
from frozenkit.fingerprint import Origin
from frozenkit.heads.modules import LinearHead
from tests.toy import clouds


def a_set(n=6, d=4, layer="a", seed=0, **changes):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    fields = {
        "features": x,
        "labels": torch.arange(n) % 2,
        "classes": ("cat", "dog"),
        "ids": tuple(f"image-{i}" for i in range(n)),
        "layer": layer,
        "fingerprint": f"{seed}{layer}",
    }
    return FeatureSet(**{**fields, **changes})


def test_subset_takes_rows_in_order_and_a_new_fingerprint():
    fs = a_set()
    part = fs.subset([4, 1])
    assert_close(part.features, fs.features[[4, 1]], rtol=0, atol=0)
    assert part.ids == ("image-4", "image-1")
    assert part.labels.tolist() == [0, 1]
    assert len({fs.fingerprint, part.fingerprint, fs.subset([1, 4]).fingerprint}) == 3


def test_subset_accepts_a_mask():
    fs = a_set()
    assert fs.subset(fs.labels == 1).ids == ("image-1", "image-3", "image-5")


def test_slices_masks_and_indices_take_rows():
    fs = a_set()
    for index in (slice(1, 6, 2), [1, 3, 5], np.array([1, 3, -1]), fs.labels == 1, range(1, 6, 2)):
        assert fs[index].ids == ("image-1", "image-3", "image-5")
    assert fs[:4].shape == (4, 4)
    assert fs[-2:].labels.tolist() == [0, 1]
    assert len(fs[6:]) == 0
    with pytest.raises(InputError, match=r"slice, a mask or indices, got 3. One image is \[3:4\]"):
        fs[3]
    with pytest.raises(InputError, match="mask must have one entry per image, 6, got"):
        fs[fs.labels[:5] == 1]


def test_a_fingerprint_is_worked_out_when_it_is_asked_for_and_once():
    asked = []
    fs = a_set(fingerprint=lambda: asked.append(1) or "abc")
    parts = [fs[:3], fs[1:3], fs.relabel([0] * 6, ("x",)), combine({"a": fs, "b": fs}), reduce(fs, n_features=2)[0]]
    same = fs.to("cpu")
    assert not asked
    assert len({part.fingerprint for part in parts}) == 5
    assert (fs.fingerprint, same.fingerprint, asked) == ("abc", "abc", [1])
    assert fs[:3].fingerprint == a_set(fingerprint="abc")[:3].fingerprint


class Streamed:
    """Features of somebody's own: only what the protocol asks for."""

    def __init__(self, inner):
        self._inner, self.loads = inner, 0
        self.labels, self.classes, self.ids, self.layer = inner.labels, inner.classes, inner.ids, inner.layer
        self.shape, self.n_features, self.n_classes = inner.shape, inner.n_features, inner.n_classes

    def __len__(self):
        return len(self.ids)

    def batches(self, size=4096):
        return self._inner.batches(size)

    def rows(self, indices):
        return self._inner.rows(indices)

    def load(self):
        self.loads += 1
        return self._inner


TRAIN, TEST = clouds(90, 1), clouds(60, 2)
BELOW = {
    "fit_probe": lambda a, b: repr(fit_probe(a)),
    "fit_probe softmax": lambda a, b: repr(fit_probe(a, head="softmax", strengths=[0.1])),
    "fit_probe val": lambda a, b: repr(fit_probe(a, val=b)),
    "score": lambda a, b: repr(fit_probe(a).score(b)),
    "calibrate": lambda a, b: fit_probe(a).calibrate(b).temperature,
    "calibration_error": lambda a, b: fit_probe(a).calibration_error(b),
    "confidently_wrong": lambda a, b: fit_probe(a).confidently_wrong(b).tolist(),
    "layer_report": lambda a, b: repr(layer_report({"features": a}, {"features": b})),
    "learning_curve": lambda a, b: repr(learning_curve(a, b, sizes=[3], repeats=2)),
    "width_curve": lambda a, b: repr(width_curve(a, b, widths=[2])),
    "selectivity": lambda a, b: repr(selectivity(a, b, permutations=1)),
    "decision_regions": lambda a, b: decision_regions(a, b, resolution=5)[0].predictions.tolist(),
    "reduce": lambda a, b: reduce(a, b, n_features=2)[1].features.tolist(),
    "combine": lambda a, b: combine({"a": a, "b": a}).features.tolist(),
    "ridge_path": lambda a, b: ridge_path(a).at(0.1).weights.tolist(),
    "softmax_path": lambda a, b: softmax_path(a, strengths=[0.1]).at(0.1).weights.tolist(),
    "train_head": lambda a, b: train_head(seeded_head(), a, b, epochs=2).history,
    "cka": lambda a, b: cka(a, a),
    "mmd": lambda a, b: repr(mmd(a, b, permutations=3)),
    "frechet_distance": lambda a, b: repr(frechet_distance(a, b, permutations=3)),
    "proxy_a_distance": lambda a, b: repr(proxy_a_distance(a, b, permutations=3)),
    "class_separation": lambda a, b: repr(class_separation(a)),
    "effective_rank": lambda a, b: repr(effective_rank(a)),
    "explained_variance": lambda a, b: repr(explained_variance(a)),
    "pac_bayes_bound": lambda a, b: pac_bayes_bound(a).value,
    "domain_bound": lambda a, b: domain_bound(a, b, a, b).value,
    "margin_bound": lambda a, b: margin_bound(torch.eye(TRAIN.n_features, 3), a, margins=[1.0]).value,
}


def seeded_head():
    torch.manual_seed(0)
    return LinearHead(TRAIN.n_features, 3)


@pytest.mark.filterwarnings("ignore::frozenkit.errors.FrozenkitWarning")
@pytest.mark.parametrize("name", BELOW)
def test_below_the_waist_all_kinds_of_features_are_the_same(name, tmp_path):
    def forms(data, side):
        pair = data.features, data.labels
        numbered = FeatureSet.from_arrays(*pair)
        save_features(numbered, tmp_path / f"{side}.safetensors")
        return numbered, CachedFeatures(tmp_path / f"{side}.safetensors"), Streamed(numbered), pair

    for form in (forms_of_train := forms(TRAIN, "train")):
        assert isinstance(form, Features | tuple)
    pairs = zip(forms_of_train, forms(TEST, "test"), strict=True)
    given, *others = [BELOW[name](a, b) for a, b in pairs]
    for other in others:
        assert other == given


def test_ridge_does_not_load_what_it_can_stream():
    train, test = Streamed(TRAIN), Streamed(TEST)
    fit_probe(train).score(test)
    ridge_path(train)
    assert (train.loads, test.loads) == (0, 0)
    fit_probe(train, head="prototype")
    assert train.loads == 1


def test_relabel_is_a_second_task_on_the_same_features():
    fs = a_set()
    other = fs.relabel(torch.tensor([0, 1, 2, 0, 1, 2]), ["x", "y", "z"])
    assert (other.n_classes, fs.n_classes) == (3, 2)
    assert other.features is fs.features
    assert other.fingerprint != fs.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.zeros(6)}, r"must be \(n, d\) or \(n, t, d\)"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "one row per image, got 6, 5 and 6"),
        ({"ids": ("same",) * 6}, "must be unique"),
        ({"labels": torch.full((6,), 2)}, r"must lie in 0\.\.1 for 2 classes, got 2\.\.2"),
        ({"labels": torch.full((6,), -1)}, r"got -1\.\.-1"),
        ({"labels": torch.zeros(6)}, "must be .* integers"),
        ({"classes": ()}, "leave it empty only for regression"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        a_set(**changes)


def test_combine_concat_and_mean_by_hand():
    a, b = a_set(layer="a", seed=0), a_set(layer="b", seed=1)
    assert_close(combine({"a": a, "b": b}).features, torch.cat([a.features, b.features], 1))
    mean = combine({"a": a, "b": b}, how="mean")
    assert_close(mean.features, (a.features + b.features) / 2)
    assert mean.layer == "a+b"


@pytest.mark.parametrize(
    ("other", "how", "message"),
    [
        (a_set(ids=tuple("bacdef")), "concat", "same images in the same order; 'b' differs"),
        (a_set(labels=torch.zeros(6, dtype=torch.int64)), "concat", "same labels; 'b' differs"),
        (a_set(d=3), "mean", "one width, got {'a': 4, 'b': 3}"),
        (a_set(), "learned", "A learned mix is `LayerMix`"),
    ],
)
def test_combine_refuses_what_does_not_belong_together(other, how, message):
    with pytest.raises(InputError, match=message):
        combine({"a": a_set(), "b": other}, how=how)


def test_pca_agrees_with_scikit_learn():
    from sklearn.decomposition import PCA

    train, test = a_set(n=40, d=7), a_set(n=10, d=7, seed=1)
    ours = reduce(train, test, n_features=3)
    pca = PCA(3, svd_solver="full").fit(train.features.double().numpy())
    for mine, theirs in zip(ours, (train, test), strict=True):
        expected = pca.transform(theirs.features.double().numpy())
        np.testing.assert_allclose(np.abs(mine.features.numpy()), np.abs(expected), atol=1e-5)


def test_pca_does_not_look_at_the_others():
    train, test = a_set(n=40, d=7), a_set(n=10, d=7, seed=1)
    alone = reduce(train, n_features=3)[0]
    assert_close(reduce(train, test, n_features=3)[0].features, alone.features, rtol=0, atol=0)


def test_random_projection_keeps_distances_on_average():
    train = a_set(n=30, d=500)
    (small,) = reduce(train, n_features=400, how="random")
    ratio = torch.pdist(small.features).mean() / torch.pdist(train.features).mean()
    assert abs(ratio.item() - 1) < 0.05


@pytest.mark.parametrize(("n_features", "how"), [(0, "pca"), (5, "pca"), (8, "random"), (2, "tsne"), (2, "lda")])
def test_reduce_refuses_impossible_requests(n_features, how):
    with pytest.raises(InputError, match="must"):
        reduce(a_set(n=4, d=7), n_features=n_features, how=how)


def test_the_discriminant_plane_is_fitted_on_train_alone():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6000) % 3  # so many that shrinking fades
    x = torch.randn(6000, 6, generator=generator) + 4 * torch.nn.functional.one_hot(labels, 6)
    train = FeatureSet.from_arrays(x, labels.numpy())
    plane, moved = reduce(train, replace(train, features=x + 100), n_features=2, how="lda")
    means = torch.stack([plane.features[labels == c].mean(0) for c in range(3)])
    within = plane.features - means[labels]
    assert torch.pdist(means).min() > 4  # in units of the spread within classes, which is 1 along either direction
    assert_close(within.square().sum(0) / 6000, torch.ones(2), rtol=0.02, atol=0)
    shift = moved.features - plane.features
    assert_close(shift, shift[:1].expand(6000, 2), rtol=0, atol=1e-3)


def test_discriminants_need_classes():
    with pytest.raises(InputError, match="`how='lda'` needs classes to tell apart, got FeatureSet.* Use how='pca'"):
        reduce(FeatureSet.from_arrays(np.eye(4)), n_features=1, how="lda")


def test_frame_and_torch_dataset_carry_the_same_values():
    fs = a_set()
    frame = fs.to_frame()
    assert list(frame.index) == list(fs.ids)
    assert list(frame["label"][:2]) == ["cat", "dog"]
    np.testing.assert_array_equal(frame.iloc[:, 1:].to_numpy(), fs.features.numpy())
    x, y = fs.to_torch()[3]
    assert_close(x, fs.features[3])
    assert y.item() == 1


def test_a_list_of_names_with_something_else_among_them_is_named_row_by_row():
    x = np.eye(4)
    for odd in (float("nan"), None, 1):
        with pytest.raises(DataError, match="names throughout, but row 1"):
            FeatureSet.from_arrays(x, ["a", odd, "a", "b"])


def test_unsigned_numbers_keep_their_sign():
    features = FeatureSet.from_arrays(np.full((2, 1), 2**63, dtype=np.uint64)).features
    assert features.tolist() == [[2.0**63]] * 2
    with pytest.raises(DataError, match="class indices from 0 on, got whole numbers above 2⁶³. Give names instead"):
        FeatureSet.from_arrays(np.eye(2), np.array([2**63, 2**63 + 9], dtype=np.uint64))


def test_a_principal_axis_that_is_only_rounding_gives_no_feature():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) @ torch.randn(3, 8) + 5  # rank 3 in 8 columns
    fs = FeatureSet.from_arrays(x, torch.arange(50) % 2)
    (few,) = reduce(fs, n_features=6)
    assert few.features[:, :3].std(0).min() > 0.1
    torch.testing.assert_close(few.features[:, 3:], torch.zeros(50, 3), rtol=0, atol=0)


def test_the_origin_stays_while_the_features_do():
    made = Origin("resnet18", 64, "mean", "exact", "pets", 9)
    fs = replace(clouds(9), origin=made)
    kept = [fs[:4], fs.relabel([0, 1, 0] * 3, ["x", "y"]), fs.to("cpu"), combine({"a": fs, "b": fs})]
    assert [each.origin for each in kept] == [made] * 4
    other = replace(fs, origin=replace(made, pooling="max"))
    assert [each.origin for each in (combine({"a": fs, "b": other}), *reduce(fs, n_features=2))] == [None, None]
    another = replace(fs, origin=replace(made, weights="ab"))  # a network of the same name
    assert combine({"a": fs, "b": another}).origin is None
    assert fs.with_features(fs.features * 2).origin is None
    assert repr(fs) == repr(clouds(9))


def test_what_is_made_of_the_unknown_stays_unknown():
    known, blank = a_set(fingerprint="abc"), a_set(fingerprint="")
    made = [blank[:3], blank.relabel(blank.labels, blank.classes), combine({"a": known, "b": blank})]
    made += [*reduce(blank, n_features=1), reduce(known, blank, n_features=1)[1]]
    assert [part.fingerprint for part in made] == [""] * 5
    assert reduce(known, blank, n_features=1)[0].fingerprint


# --- tables of arrow ------------------------------------------------------------------------------

LABELLED = {
    "classes": (torch.tensor([1, 0, 1, 1]), ("ant", "bee", "cat")),
    "none": (None, ()),
    "numbers": (torch.tensor([0.5, -1.0, 2.0, 0.0]), ()),
    "pairs of numbers": (torch.arange(8.0).reshape(4, 2), ()),
    "several labels": (torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]]).bool(), ("ant", "bee")),
}


@pytest.mark.parametrize("kind", LABELLED)
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)], ids=["rows", "tokens"])
def test_a_table_of_arrow_holds_everything(kind, shape, tmp_path):
    labels, classes = LABELLED[kind]
    fs = FeatureSet(torch.randn(shape), labels, classes, ("a", "b", "c", "d"), "late", "")
    parquet.write_table(fs.to_arrow(), tmp_path / "features.parquet")
    table = parquet.read_table(tmp_path / "features.parquet")
    assert table.column_names == ["id", *(["label"] if labels is not None else []), "features"]
    about = json.loads(table.schema.metadata[b"frozenkit"])
    x = torch.tensor(table["features"].to_pylist())
    y = table["label"].to_pylist() if labels is not None else None
    again = FeatureSet.from_arrays(
        x, y, classes=about["classes"] or None, ids=table["id"].to_pylist(), layer=about["layer"]
    )
    assert (again.ids, again.classes, again.layer) == (fs.ids, fs.classes, fs.layer)
    torch.testing.assert_close(again.features, fs.features, rtol=0, atol=0)
    if labels is None:
        assert again.labels is None
    else:
        torch.testing.assert_close(again.labels, labels, rtol=0, atol=0)


def test_a_table_of_pandas_gives_the_set_back():
    fs = FeatureSet.from_arrays(torch.randn(4, 3), ["b", "a", "c", "a"], ids=list("wxyz"), layer="late")
    frame = fs.to_frame()
    again = FeatureSet.from_arrays(frame.drop(columns="label"), frame["label"], ids=frame.index, layer="late")
    assert (again.ids, again.classes) == (fs.ids, fs.classes)
    torch.testing.assert_close(again.features, fs.features, rtol=0, atol=0)
    torch.testing.assert_close(again.labels, fs.labels, rtol=0, atol=0)
