"""LayerLab without a browser."""

import pytest
import torch

from frozenkit import (
    LayerLab,
    fit_probe,
)
from frozenkit.errors import DataError, InputError
from tests.toy import coloured_squares

LAYERS = ["blocks.1", "blocks.4", "blocks.6"]


@pytest.fixture
def layerlab(backbone, cache):
    lab = LayerLab(coloured_squares(24, 0), coloured_squares(16, 1), backbone=backbone, layers=LAYERS, cache=cache)
    yield lab
    lab.close()


def test_layerlab_chooses_by_leave_one_out_and_keeps_test_hidden(layerlab):
    scores = {c["name"]: c["value"] for c in layerlab.answer["curve"]}
    assert list(scores) == LAYERS
    assert layerlab.answer["best"] == max(LAYERS, key=scores.get)
    assert layerlab.answer["test"] is None
    layerlab.revealed = True
    train, test = (part[layerlab.best] for part in layerlab._sets["mean"])
    score = fit_probe(train).score(test)
    assert layerlab.answer["test"]["value"] == score.accuracy


def test_layerlab_puts_layers_side_by_side_in_their_order(layerlab):
    layerlab.chosen = ["blocks.6", "blocks.1"]
    assert layerlab.chosen == ["blocks.1", "blocks.6"]
    assert layerlab.answer["width"] == 24 + 320
    assert layerlab.result.n_features == 24 + 320


@pytest.mark.parametrize("view", ["PCA", "LDA"])
def test_layerlab_maps_every_shown_image(layerlab, view):
    layerlab.view = view
    assert len(layerlab.answer["points"]) == len(layerlab.answer["labels"]) == 16
    points = torch.tensor(layerlab.answer["points"])
    assert (points >= 0).all()  # inside the map's frame
    assert (points <= 1).all()


@pytest.mark.parametrize("each", [2, 3])
def test_layerlab_maps_very_few_images_per_class(backbone, cache, each):
    colours = ("red", "blue", "lime")
    lab = LayerLab(
        coloured_squares(3 * each, 0, colours),
        coloured_squares(9, 1, colours),
        backbone=backbone,
        layers=LAYERS,
        cache=cache,
    )
    assert torch.tensor(lab.answer["points"]).shape == (9, 2)
    lab.close()


def test_layerlab_pools_and_fits_beside_the_kernel(layerlab):
    layerlab.pooling = "max"
    layerlab.wait(60)
    assert "max" in layerlab._sets
    layerlab.shots = 5
    layerlab.wait(60)
    assert layerlab.answer["n_train"] == 10
    assert layerlab.work == {}
    assert layerlab.error == ""


def test_layerlab_refuses_what_does_not_fit(layerlab, backbone):
    with pytest.raises(InputError, match="at least one of blocks"):
        layerlab.chosen = []
    with pytest.raises(InputError, match=r"2\.\.12"):
        layerlab.shots = 99
    layerlab.set_state({"chosen": ["nowhere"]})
    assert "at least one of" in layerlab.error
    with pytest.raises(InputError, match="must come with `test`"):
        LayerLab(test=coloured_squares(4, 0), backbone=backbone)
    with pytest.raises(InputError, match="classes of train"):
        LayerLab(coloured_squares(8, 0), coloured_squares(8, 0, ("red", "green")), backbone=backbone)
    with pytest.raises(InputError, match="`train` must be an ImageDataset, got"):
        LayerLab([1], [2], backbone=backbone)
    with pytest.raises(DataError, match="two classes"):
        LayerLab(coloured_squares(8, 0, ("red",)), coloured_squares(8, 0, ("red",)), backbone=backbone)


def test_two_labs_share_one_cache(backbone, cache):
    data = coloured_squares(24, 0), coloured_squares(16, 1)
    a = LayerLab(*data, backbone=backbone, layers=LAYERS, cache=cache)
    stored = len(cache.entries())
    b = LayerLab(*data, backbone=backbone, layers=LAYERS, cache=cache)
    assert len(cache.entries()) == stored == 2 * len(LAYERS)
    a.pooling = b.pooling = "max"  # at once, beside the kernel
    a.wait(60)
    b.wait(60)
    assert (a.error, b.error) == ("", "")
    assert a.answer == b.answer


def test_two_hundred_classes_still_answer(backbone, cache):
    colours = tuple(f"#{(i * 40503) % 0xFFFFFF:06x}" for i in range(200))
    lab = LayerLab(
        coloured_squares(400, 0, colours),
        coloured_squares(200, 1, colours),
        backbone=backbone,
        layers=LAYERS[:1],
        cache=cache,
    )
    assert len(lab.answer["classes"]) == 200
    assert 0 <= lab.answer["now"]["value"] <= 1
