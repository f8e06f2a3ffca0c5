"""Zero-shot: the classifier's own rows, by name, and nothing fitted."""

import pytest
import torch
from torch import nn

from frozenkit import extract, load_backbone, load_dataset, zero_shot
from frozenkit.comparison.zero_shot import imagenet_classes
from frozenkit.errors import InputError, UnknownNameError
from frozenkit.networks.backbone import Backbone

RELATIVES = {"Sandal": ["sandal"], "Trouser": ["jean"], "Bag": ["backpack", "purse"]}


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("efficientnet-lite0", image_size=96, device="cpu")


def test_a_class_of_one_relative_has_that_relatives_own_row(backbone):
    found = zero_shot(backbone, RELATIVES)
    row = imagenet_classes().index("sandal")
    classifier = backbone.module.classifier
    torch.testing.assert_close(found.weights[:, 0], classifier.weight.detach()[row])
    assert found.intercept[0] == classifier.bias.detach()[row]
    rows = [imagenet_classes().index(name) for name in RELATIVES["Bag"]]
    torch.testing.assert_close(found.weights[:, 2], classifier.weight.detach()[rows].mean(0))


def test_it_beats_chance_on_clothes_without_any_label(backbone):
    test = load_dataset("fashion-mnist", split="test", limit=300)
    kept = [i for i in range(len(test)) if test.classes[test.labels[i]] in RELATIVES]
    features = extract(backbone, test.subset(kept), progress=False)
    old = [test.classes.index(name) for name in RELATIVES]
    labels = torch.tensor([old.index(int(label)) for label in features.labels])
    score = zero_shot(backbone, RELATIVES).score(features.relabel(labels, list(RELATIVES)))
    assert score.low > score.chance


def test_the_names_are_a_thousand_and_unique():
    assert len(set(imagenet_classes())) == 1000


def test_what_has_no_zero_shot_head(backbone):
    with pytest.raises(UnknownNameError, match="Did you mean 'sandal'"):
        zero_shot(backbone, {"Sandal": ["sandale"]})
    with pytest.raises(InputError, match="a list of names for 'Sandal', got 'sandal'"):
        zero_shot(backbone, {"Sandal": "sandal"})
    with pytest.raises(InputError, match="must have 3 outputs, got 1000"):
        zero_shot(backbone, {"a": ["x"]}, known=["x", "y", "z"])
    headless = Backbone(nn.Flatten(), lambda image: torch.zeros(3, 32, 32), image_size=32, default_layer="")
    with pytest.raises(InputError, match="got no linear layer"):
        zero_shot(headless, {"a": ["sandal"]})
    features = extract(backbone, load_dataset("digits", limit=20), layer="blocks.6", progress=False)
    head = zero_shot(backbone, RELATIVES)
    with pytest.raises(InputError, match="must be of 'global_pool'"):
        head.predict(features)
    with pytest.raises(InputError, match="`test` must have the classes Sandal, .* in this order, got 0, 1"):
        head.score(features)
