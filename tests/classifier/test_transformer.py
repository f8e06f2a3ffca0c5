"""FrozenFeatures: the numbers of `extract`, in pipelines and searches that compute each image once."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_estimator_repr,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)

from frozenkit import FeatureCache, FrozenFeatures, extract, fit_probe, image_folder
from frozenkit.classifier import transformer
from frozenkit.errors import DataError, InputError, NotAvailableError, UnknownNameError
from frozenkit.networks.backbone import Backbone, load_backbone
from tests.toy import coloured_squares, turned_photograph

SQUARES = coloured_squares(24, seed=0)
IMAGES = [SQUARES[i][0] for i in range(24)]
ARRAY = np.stack([np.asarray(image) for image in IMAGES])
Y = SQUARES.labels.numpy()
SMALL = {"image_size": 64, "layer": "blocks.2"}


@pytest.fixture
def computed(monkeypatch):
    """How many images went through a network, extraction by extraction, from an empty memory on."""
    transformer._memory.clear()
    counts = []
    real = transformer.extract

    def counting(backbone, dataset, **options):
        counts.append(len(dataset))
        return real(backbone, dataset, **options)

    monkeypatch.setattr(transformer, "extract", counting)
    return counts


def kinds(folder):
    paths = [str(folder / f"{i:02}.png") for i in range(24)]
    for image, path in zip(IMAGES, paths, strict=True):
        image.save(path)
    return {
        "images": IMAGES,
        "tuple": tuple(IMAGES),
        "array": ARRAY,
        "tensor": torch.from_numpy(ARRAY),
        "arrays": list(ARRAY),
        "pairs": [(image, None) for image in IMAGES],
        "paths": paths,
        "array of paths": np.array(paths),
        "column": pd.Series(paths),
        "table": pd.DataFrame({"file": paths}),
        "dataset": SQUARES,
        "files": image_folder(folder, labelled=False),
        "torch": [(image, 0) for image in IMAGES],
    }


def test_images_of_every_kind_give_the_numbers_of_extract(backbone, tmp_path):
    expected = extract(backbone, SQUARES, layer="blocks.2", precision="exact", progress=False).features.numpy()
    for kind, given in kinds(tmp_path).items():
        got = FrozenFeatures(backbone, layer="blocks.2", precision="exact").fit_transform(given)
        assert (got.dtype, got.shape) == (np.float32, (24, 40)), kind
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=kind)


def test_grey_images_and_images_of_different_sizes(backbone):
    features = FrozenFeatures(backbone)
    grey = features.fit_transform(ARRAY[..., 0])
    np.testing.assert_array_equal(grey, features.transform(np.repeat(ARRAY[..., :1], 3, 3)))
    assert features.transform([np.zeros((8, 9), np.uint8), np.zeros((10, 8, 3), np.uint8)]).shape == (2, 1280)
    assert features.transform(IMAGES[:1] * 3).shape == (3, 1280)


def test_a_photograph_stands_upright_however_it_is_given(backbone, tmp_path):
    file = turned_photograph(tmp_path)
    phi = FrozenFeatures(backbone, layer="blocks.2", precision="exact").fit([str(file)])
    with Image.open(file) as image:
        np.testing.assert_array_equal(phi.transform([image]), phi.transform([str(file)]))


def pipeline():
    steps = [("features", FrozenFeatures(**SMALL)), ("scale", StandardScaler()), ("clf", LogisticRegression())]
    return Pipeline(steps)


def test_a_grid_search_computes_each_image_once_for_each_layer(computed):
    grid = {"features__layer": ["blocks.0", "blocks.2"], "clf__C": [0.01, 1.0, 100.0]}
    search = GridSearchCV(pipeline(), grid, cv=3).fit(IMAGES, Y)
    assert sum(computed) == 2 * 24
    assert search.best_score_ > 0.9
    assert search.predict(IMAGES[:4]).tolist() == [0, 1, 0, 1]
    assert sum(computed) == 2 * 24
    shuffled = np.random.RandomState(0).permutation(Y)
    assert cross_val_score(pipeline(), IMAGES, shuffled, cv=3).mean() < 0.75
    assert sum(computed) == 2 * 24


@pytest.mark.parametrize("given", [SQUARES, ARRAY, IMAGES], ids=["dataset", "array", "list"])
def test_parts_of_each_kind_are_what_searches_hand_on(given):
    search = GridSearchCV(pipeline(), {"clf__C": [1.0]}, cv=2).fit(given, Y)
    assert search.best_score_ > 0.9


def test_a_search_runs_in_two_processes():
    search = GridSearchCV(pipeline(), {"clf__C": [0.1, 1.0]}, cv=2, n_jobs=2).fit(IMAGES, Y)
    assert search.best_score_ > 0.9


def test_a_table_with_a_column_of_files(tmp_path):
    table = kinds(tmp_path)["table"].assign(weight=np.arange(24.0))
    columns = ColumnTransformer([("image", FrozenFeatures(**SMALL), ["file"]), ("weight", "passthrough", ["weight"])])
    assert make_pipeline(columns, StandardScaler(), LogisticRegression()).fit(table, Y).score(table, Y) > 0.9
    assert columns.fit_transform(table).shape == (24, 41)


def test_features_have_names_and_come_as_tables():
    features = FrozenFeatures(**SMALL).set_output(transform="pandas").fit(IMAGES)
    frame = features.transform(IMAGES[:3])
    assert list(frame.columns) == list(features.get_feature_names_out())
    assert (frame.shape, frame.columns[0], frame.columns[39]) == ((3, 40), "blocks.2.0", "blocks.2.39")


def test_clones_share_the_backbone_and_are_not_fitted(backbone):
    for given in (backbone, "efficientnet-lite0"):
        fitted = FrozenFeatures(given, layer="blocks.2").fit(IMAGES)
        copied = clone(fitted)
        assert copied.backbone is fitted.backbone
        assert copied._loaded() is fitted._loaded()
        assert copied.get_params() == fitted.get_params()
        assert not hasattr(copied, "layer_")
        with pytest.raises(Exception, match="is not fitted yet"):
            copied.transform(IMAGES)
    assert FrozenFeatures(**SMALL)._loaded() is FrozenFeatures(**SMALL)._loaded()
    assert FrozenFeatures(image_size=96)._loaded() is not FrozenFeatures(image_size=64)._loaded()


def test_a_fitted_one_survives_pickling_without_carrying_a_named_network():
    fitted = FrozenFeatures(**SMALL).fit(IMAGES)
    pickled = pickle.dumps(fitted)
    assert len(pickled) < 2000
    np.testing.assert_array_equal(pickle.loads(pickled).transform(IMAGES), fitted.transform(IMAGES))


def test_what_is_remembered_follows_the_backbone_and_every_option(computed):
    backbone = load_backbone(image_size=64, device="cpu")
    first = FrozenFeatures(backbone, layer="blocks.2").fit_transform(IMAGES)
    FrozenFeatures(backbone, layer="blocks.2", pooling="max").fit_transform(IMAGES)
    FrozenFeatures(load_backbone(image_size=64, device="cpu"), layer="blocks.2").fit_transform(IMAGES)
    FrozenFeatures(backbone, layer="blocks.2").fit_transform(IMAGES[::-1])
    assert computed == [24, 24, 24]
    with torch.no_grad():
        backbone.module.blocks[2][0].conv_dw.weight.mul_(2)
    changed = FrozenFeatures(backbone, layer="blocks.2").fit_transform(IMAGES)
    assert computed == [24, 24, 24, 24]
    assert np.abs(changed - first).max() > 0.01


def test_what_is_returned_can_be_written_to_without_harm():
    features = FrozenFeatures(**SMALL).fit(IMAGES)
    before = features.transform(IMAGES).copy()
    features.transform(IMAGES)[:] = 0
    np.testing.assert_array_equal(features.transform(IMAGES), before)


def test_memory_has_an_end(computed, monkeypatch):
    monkeypatch.setattr(transformer, "_MOST_BYTES", 30 * 40 * 4)
    features = FrozenFeatures(**SMALL).fit(IMAGES)
    turned = [image.transpose(Image.Transpose.ROTATE_90) for image in IMAGES]
    for given in (IMAGES, IMAGES, turned, IMAGES):
        features.transform(given)
    assert computed == [24, 24, 24]
    kept = sum(len(rows) for rows in transformer._kept(features._loaded()).values())
    assert kept == 24
    features.transform(IMAGES + turned)
    assert computed == [24, 24, 24, 24]
    monkeypatch.setattr(transformer, "_MOST_BYTES", 0)
    for expected in (5, 6):
        features.transform(IMAGES[:12])
        assert len(computed) == expected


def test_a_cache_keeps_features_on_disk(computed, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    features = FrozenFeatures(**SMALL, cache=cache)
    first = features.fit_transform(IMAGES)
    assert len(cache.records()) == 1
    np.testing.assert_array_equal(clone(features).fit_transform(IMAGES), first)
    assert len(cache.records()) == 1


def test_a_file_that_changes_is_computed_again(tmp_path, computed):
    path = kinds(tmp_path)["paths"][0]
    features = FrozenFeatures(**SMALL).fit([path])
    before = features.transform([path])
    IMAGES[1].save(path)
    assert np.abs(features.transform([path]) - before).max() > 0.01


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "X must hold at least one image, got none"),
        (np.zeros((0, 8, 8), np.uint8), "X must hold at least one image, got none"),
        (np.zeros((4, 8)), r"as \(n, h, w\) or \(n, h, w, 3\) of uint8, got ndarray of shape \(4, 8\) of float64"),
        (np.zeros((4, 3, 8, 8), np.uint8), r"got ndarray of shape \(4, 3, 8, 8\) of uint8"),
        (torch.zeros(4, 8, 8, 3), r"got Tensor of shape \(4, 8, 8, 3\) of float32"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), r"got ndarray of shape \(1, 2\) of object"),
        ("photos", r"one entry per image, got 'photos'\. A folder is image_folder\(path, labelled=False\)"),
        ([1, 2], "uint8 arrays .* throughout, got int"),
        ([IMAGES[0], "a.png"], "throughout, got Image, str"),
        ([np.zeros((8, 8))], "throughout, got ndarray"),
        (None, "got None"),
        ({"a": 1}, "got dict of length 1"),
    ],
)
def test_what_holds_no_images_is_told_so(given, message):
    with pytest.raises(InputError, match=message):
        FrozenFeatures(**SMALL).fit(given)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"text")
    for name in ("bad.png", "gone.png"):
        with pytest.raises(DataError, match=name):
            FrozenFeatures(**SMALL).fit_transform([str(tmp_path / name)])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backbone": "efficientnet-lite9"}, UnknownNameError, "efficientnet-lite9"),
        ({"backbone": Backbone}, InputError, "`backbone` must be"),
        ({"layer": "blocks.99"}, InputError, "Did you mean"),
        ({"layer": ["blocks.1", "blocks.2"]}, InputError, "`layer` must name one layer, got list of length 2"),
        ({"pooling": "tokens"}, InputError, "`pooling` must be one of mean, .* which give one vector, got 'tokens'"),
        ({"pooling": "median"}, InputError, "got 'median'"),
        ({"cache": "folder"}, InputError, "`cache` must be a FeatureCache or None"),
        ({"precision": "double"}, InputError, "`precision` must be"),
        ({"batch_size": 0}, InputError, "`batch_size` must be"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options, error, message, computed):
    with pytest.raises((error, NotAvailableError), match=message):
        FrozenFeatures(**options).fit_transform(IMAGES[:1])


def test_an_image_size_beside_a_backbone_must_be_its_own(backbone):
    with pytest.raises(InputError, match=r"must be left out beside a Backbone, which has its own, 64; got 96"):
        FrozenFeatures(backbone, image_size=96).fit(IMAGES)
    assert FrozenFeatures(backbone, image_size=64).fit(IMAGES).n_features_out_ == 1280


@pytest.mark.parametrize(
    "check",
    [
        check_estimator_repr,
        check_get_params_invariance,
        check_no_attributes_set_in_init,
        check_set_params,
    ],
)
def test_the_checks_of_scikit_learn_that_ask_for_no_table_of_numbers(check):
    check("FrozenFeatures", FrozenFeatures())
    check_parameters_default_constructible("FrozenFeatures", FrozenFeatures())


def test_the_probe_of_frozenkit_agrees_on_these_features(backbone):
    x = FrozenFeatures(backbone, layer="blocks.2", precision="exact").fit_transform(IMAGES)
    own = fit_probe(extract(backbone, SQUARES, layer="blocks.2", precision="exact", progress=False))
    assert fit_probe(x, Y).choice_score == own.choice_score
