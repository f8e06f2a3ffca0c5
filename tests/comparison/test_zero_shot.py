"""Zero-shot: the classifier's own rows, by name, and nothing fitted."""

import copy
import json
import warnings
from typing import Any

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


@pytest.fixture(scope="module")
def two_towers(tmp_path_factory):
    """A tiny CLIP model of open_clip with drawn weights: the library's own, and as a backbone."""
    with warnings.catch_warnings(action="ignore"):
        import open_clip

    folder = tmp_path_factory.mktemp("clip")
    vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 16, "head_width": 8}
    text = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"model_cfg": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    backbone = load_backbone(f"open_clip:{folder}", weights=None, device="cpu")
    assert backbone.text is not None
    tower: Any = copy.deepcopy(backbone.text)
    model = tower.model
    model.visual = copy.deepcopy(backbone.module.visual)
    return open_clip, model, backbone


def test_words_become_what_open_clips_own_builder_makes_of_them(two_towers):
    open_clip, model, backbone = two_towers
    names = ["running shoe", "handbag", "{0.__class__}"]
    templates = ["a photo of a {}.", "the {}, drawn.", "{} and {}"]
    found = zero_shot(backbone, names, templates=templates)
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=20)
    theirs = open_clip.build_zero_shot_classifier(
        model, tokenizer, names, [lambda c, t=t: t.replace("{}", c) for t in templates]
    )
    torch.testing.assert_close(found.weights, theirs, rtol=0, atol=1e-6)
    rows = backbone.encode_text(["a photo of a handbag.", "the handbag, drawn.", "handbag and handbag"])
    by_hand = rows.sum(0) / rows.sum(0).norm()
    torch.testing.assert_close(found.weights[:, 1], by_hand, rtol=0, atol=1e-6)
    assert "3 classes on 'features', 3 templates" in repr(found)
    features = extract(backbone, load_dataset("digits", limit=40), precision="exact", progress=False)
    images = torch.stack([backbone.preprocess(load_dataset("digits", limit=40)[i][0]) for i in range(40)])
    with torch.no_grad():
        logits = model.encode_image(images, normalize=True) @ theirs
    cosines = nn.functional.normalize(features.features, dim=1) @ found.weights
    torch.testing.assert_close(cosines, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.predict(features), cosines.argmax(1), rtol=0, atol=0)


def test_several_words_for_a_class_share_its_direction(two_towers):
    _, _, backbone = two_towers
    found = zero_shot(backbone, {"footwear": ["shoe", "boot"], "bag": ["bag"]}, templates=["a {}"])
    mean = backbone.encode_text(["a shoe", "a boot"]).mean(0)
    torch.testing.assert_close(found.weights[:, 0], mean / mean.norm(), rtol=0, atol=1e-6)
    assert found.classes == ("footwear", "bag")
    whole = zero_shot(backbone, {"bag": ["a bag"]}, templates=["{}"])
    torch.testing.assert_close(whole.weights[:, 0], found.weights[:, 1], rtol=0, atol=1e-6)


def test_a_list_of_classes_that_the_classifier_knows_stands_for_itself(backbone):
    listed, named = (zero_shot(backbone, r) for r in (["sandal", "purse"], {"sandal": ["sandal"], "purse": ["purse"]}))
    torch.testing.assert_close(listed.weights, named.weights, rtol=0, atol=0)
    assert repr(listed) == "ZeroShot(2 classes on 'global_pool'. sandal: sandal; purse: purse)"


def test_words_that_make_no_head(two_towers, backbone):
    _, _, clip = two_towers
    for wrong in ([], ["a photo"], "a {}", [3]):
        with pytest.raises(InputError, match=r"`templates` must be a list of sentences with a gap \{\}"):
            zero_shot(clip, ["cat"], templates=wrong)
    for wrong in ([], "cat", ["cat", "cat"], [3], None, 5):
        with pytest.raises(InputError, match="a list of different classes that stand for themselves, got"):
            zero_shot(clip, wrong)
    with pytest.raises(InputError, match="at least one class, got none"):
        zero_shot(clip, {})
    with pytest.raises(InputError, match=r"a list of names for 'cat', got \[\]"):
        zero_shot(clip, {"cat": []})
    with pytest.raises(InputError, match="has a text tower, to which any word is known"):
        zero_shot(clip, ["cat"], known=["cat"])
    with pytest.raises(UnknownNameError, match="got 'cat'"):
        zero_shot(backbone, ["cat"])
