"""Saved classifiers: what is loaded predicts what was saved, with the backbone that it was made with, or not at all."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit import (
    Backbone,
    FeatureExtractor,
    FrozenClassifier,
    LinearHead,
    MLPHead,
    extract,
    fit_probe,
    load_backbone,
    load_classifier,
)
from frozenkit._files import read_sealed, write_sealed
from frozenkit.errors import CacheError, FrozenkitWarning, InputError
from frozenkit.networks.zoo import Preprocess
from tests.toy import coloured_squares

TRAIN, TEST = (coloured_squares(n, seed, ("red", "blue", "lime")) for n, seed in ((60, 0), (9, 1)))
HOW = {"layer": "blocks.2", "precision": "exact", "progress": False}


def made(backbone, head="ridge", layer="blocks.2", **options):
    features = extract(backbone, TRAIN, **{**HOW, "layer": layer})
    return FrozenClassifier.from_probe(backbone, fit_probe(features, head=head, **options))


def same(one, other):
    mine, its = (model.predict(TEST, progress=False) for model in (one, other))
    assert_close(its.probabilities, mine.probabilities, rtol=0, atol=0)
    assert (its.ids, its.classes) == (mine.ids, mine.classes)


@pytest.mark.parametrize(
    "head",
    ["ridge", "softmax", "prototype", "knn", MLPHead(40, 3)],
    ids=["ridge", "softmax", "prototype", "knn", "mlp"],
)
def test_what_is_loaded_predicts_what_was_saved(backbone, head, tmp_path):
    model = made(backbone, head)
    model.save(path := tmp_path / "model.safetensors")
    back = load_classifier(path, device="cpu")
    same(model, back)
    assert (back.precision, back.temperature, back.facts) == (model.precision, model.temperature, model.facts)
    back.save(again := tmp_path / "again.safetensors")
    same(model, load_classifier(again, device="cpu"))


def test_in_another_process(backbone, tmp_path):
    model = made(backbone)
    model.save(path := tmp_path / "model.safetensors")
    TEST[0][0].save(tmp_path / "x.png")
    code = (
        f"from frozenkit import load_classifier; m = load_classifier({str(path)!r}, device='cpu');"
        f"print(m.predict({str(tmp_path / 'x.png')!r}, progress=False).probabilities.tolist())"
    )
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True)
    expected = model.predict(tmp_path / "x.png", progress=False).probabilities
    assert_close(torch.tensor(eval(done.stdout)), expected, rtol=1e-5, atol=1e-6)


def test_all_kinds_of_task_come_back(backbone, tmp_path):
    path, features = tmp_path / "model.safetensors", extract(backbone, TRAIN, **HOW)
    values = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    model = FrozenClassifier.from_probe(backbone, fit_probe(features.relabel(values, []), strengths=[1.0]))
    model.save(path)
    found = load_classifier(path, device="cpu").predict(TEST, progress=False)
    assert_close(found.labels, model.predict(TEST, progress=False).labels, rtol=0, atol=0)
    with pytest.warns(FrozenkitWarning, match="no training image"):
        probe = fit_probe(features[features.labels != 1])
    FrozenClassifier.from_probe(backbone, probe).save(path)
    back = load_classifier(path, device="cpu").predict(TEST, progress=False)
    assert_close(back.probabilities, probe.predict_proba(extract(backbone, TEST, **HOW)), rtol=1e-5, atol=1e-5)
    several = torch.stack([features.labels == 0, features.labels != 1], 1)
    probe = fit_probe(features.relabel(several, ["red", "warm"]), head="logistic", strengths=[0.1])
    FrozenClassifier.from_probe(backbone, probe).save(path)
    back = load_classifier(path, device="cpu").predict(TEST, progress=False)
    assert_close(back.probabilities, probe.predict_proba(extract(backbone, TEST, **HOW)), rtol=1e-5, atol=1e-5)
    assert_close(back.labels, probe.predict(extract(backbone, TEST, **HOW)))
    assert back.labels.dtype == torch.bool


def test_a_trained_mix_and_head_without_a_probe_come_back(backbone, tmp_path):
    phi = FeatureExtractor(backbone, ["blocks.1", "blocks.2"], combine="learned")
    model = FrozenClassifier(phi, LinearHead(phi.output_dim, 3), classes=TEST.classes)
    with torch.no_grad():
        phi.mix.logits.copy_(torch.tensor([1.0, -1.0]))
    model.save(path := tmp_path / "model.safetensors")
    same(model.eval(), load_classifier(path, device="cpu"))
    with pytest.raises(InputError, match="`save` needs a FeatureExtractor and class names"):
        FrozenClassifier(phi, LinearHead(phi.output_dim, 3)).save(path)


class Net(nn.Module):
    def __init__(self, power=2):
        super().__init__()
        self.power = power
        self.conv = nn.Conv2d(3, 8, 5, stride=4)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc((self.conv(x).abs() ** self.power).mean((2, 3)))


def own(seed=0, power=2, size=32, mean=0.5):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Backbone(Net(power), Preprocess(size, size, mean=(mean,) * 3), name="mine", device="cpu")


def test_of_another_backbone_it_says_what_differs(tmp_path):
    model = made(own(), layer="conv")
    model.save(path := tmp_path / "model.safetensors")
    same(model, load_classifier(path, backbone=own()))
    with pytest.raises(
        InputError, match="`backbone` must be given: this classifier was made with 'mine', whose code is"
    ):
        load_classifier(path)
    differs = {
        "its weights are others": own(seed=1),
        "it takes images of 32 px, and this one 64": own(size=64),
        "its preprocessing, Preprocess.*, gave other numbers than": own(mean=0.4),
    }
    for message, other in differs.items():
        with pytest.raises(
            InputError, match=f"must be the one that this classifier was made with, 'mine', but {message}"
        ):
            load_classifier(path, backbone=other)
    made(own(), layer="pre_logits").save(path)
    with pytest.raises(InputError, match="with the same weights its layer 'pre_logits' gave other numbers"):
        load_classifier(path, backbone=own(power=3))
    with pytest.raises(InputError, match="`backbone` must be a Backbone, got the module Net"):
        load_classifier(path, backbone=Net())


def test_weights_in_the_file_need_no_source(tmp_path):
    resnet = load_backbone("resnet18", weights=None, seed=5, image_size=64, device="cpu")
    with torch.no_grad():
        resnet.module.conv1.weight.mul_(2)  # so that the seed alone does not tell
    model = made(resnet, layer="layer1")
    model.save(path := tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="its weights are others. Load that one and give it as backbone=…; or save"):
        load_classifier(path, device="cpu")
    model.save(path, include_weights=True)
    same(model, load_classifier(path, device="cpu"))
    model = made(own(), layer="conv")
    model.save(path, include_weights=True)
    empty = own(seed=9)
    before = empty.module.conv.weight.clone()
    same(model, load_classifier(path, backbone=empty))
    assert_close(empty.module.conv.weight, before, rtol=0, atol=0)
    with pytest.raises(
        InputError, match="`backbone` must be built as the one whose weights are in the file: .*Missing"
    ):
        load_classifier(path, backbone=Backbone(nn.Conv2d(3, 8, 5), Preprocess(32, 32), device="cpu"))


def test_what_came_with_its_weights_keeps_its_name(tmp_path):
    model = made(load_backbone(image_size=64, device="cpu"), layer="blocks.2")
    model.save(path := tmp_path / "model.safetensors", include_weights=True)
    loaded = load_classifier(path, device="cpu")
    assert loaded.extractor.backbone.name == "efficientnet-lite0"
    loaded.save(again := tmp_path / "again.safetensors")  # which then loads by name
    assert "random" not in again.with_suffix(".md").read_text()
    same(model, load_classifier(again, device="cpu"))


def test_random_weights_load_by_their_seed(tmp_path):
    model = made(load_backbone("resnet18", weights=None, seed=5, image_size=64, device="cpu"), layer="layer1")
    model.save(path := tmp_path / "model.safetensors")
    same(model, load_classifier(path, device="cpu"))


def test_of_200_flipped_bits_no_classifier_is_served(backbone, tmp_path):
    made(backbone).save(path := tmp_path / "model.safetensors")
    content, draw = path.read_bytes(), random.Random(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CacheError, match="is damaged"):
            load_classifier(path)
    for n in (0, 8, 100, len(content) - 1):
        path.write_bytes(content[:n])
        with pytest.raises(CacheError, match="is damaged"):
            load_classifier(path)


def test_what_is_no_classifier_is_refused_by_name(backbone, tmp_path):
    path = tmp_path / "x.safetensors"
    fit_probe(extract(backbone, TRAIN, **HOW)).save(path)
    with pytest.raises(CacheError, match="holds a probe, and must hold a classifier"):
        load_classifier(path)
    made(backbone).save(path)
    about, tensors, _ = read_sealed(path, "classifier", 1)
    write_sealed(path, "classifier", 2, about, tensors)
    with pytest.raises(CacheError, match="was written in version 2 of a classifier file, this frozenkit reads 1"):
        load_classifier(path)
    for wrong in ({}, {**about, "head": 3}, {**about, "layers": None, "classes": 1}):
        write_sealed(path, "classifier", 1, wrong, tensors)
        with pytest.raises((CacheError, InputError)):
            load_classifier(path, device="cpu")
    about["backbone"]["loaded"]["name"] = "hub:someone/something/net"
    write_sealed(path, "classifier", 1, about, tensors)
    with pytest.raises(InputError, match="`backbone` must be given: .* which runs code of its repository"):
        load_classifier(path)
    with pytest.raises(CacheError, match="does not exist"):
        load_classifier(tmp_path / "none.safetensors")


def test_a_head_of_ones_own_needs_an_instance(backbone, tmp_path):
    class Mine(nn.Linear):
        pass

    model = made(backbone, Mine(40, 3))
    model.save(path := tmp_path / "model.safetensors")
    same(model, load_classifier(path, head=Mine(40, 3), device="cpu"))
    with pytest.raises(InputError, match="`head` must be given, an instance of Mine"):
        load_classifier(path, device="cpu")
