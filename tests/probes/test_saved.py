"""Probes in files: what is loaded predicts what was saved, and nothing else is ever loaded."""

import random
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit import (
    AttentionHead,
    EfficientProbeHead,
    LayerMixHead,
    LinearHead,
    MLPHead,
    PrototypicalHead,
    fit_probe,
    load_probe,
)
from frozenkit._files import read_sealed, write_sealed
from frozenkit.errors import CacheError, FrozenkitWarning, InputError
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Origin
from tests.toy import blobs

TRAIN, TEST = blobs(120), blobs(50, seed=3)
MADE = Origin("resnet18", 64, "mean", "exact", "pets", 120)


class Mine(nn.Module):
    def __init__(self, d=20, k=4):
        super().__init__()
        self.map = nn.Linear(d, k)

    def forward(self, x):
        return self.map(x).tanh()


def saved(probe, folder):
    path = folder / "probe.safetensors"
    probe.save(path)
    return path


HEADS = [
    "ridge",
    "softmax",
    "prototype",
    "knn",
    LinearHead(20, 4, normalize=True, temperature=0.5),
    MLPHead(20, 4, hidden=(8, 6), activation="gelu", dropout=0.1),
    MLPHead(20, 4, hidden=(8,), batch_norm=False, activation="silu"),
    AttentionHead(20, 4, heads=2),
    EfficientProbeHead(20, 4, queries=4),
    EfficientProbeHead(20, 4, queries=2, values=True),
    PrototypicalHead(20, 4, metric="euclidean"),
    LayerMixHead([5, 15], 4),
    nn.Sequential(nn.Linear(20, 5), nn.LayerNorm(5), nn.Tanh(), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 4)),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head if isinstance(head, str) else type(head).__name__)
def test_what_is_loaded_predicts_what_was_saved(head, tmp_path):
    probe = fit_probe(replace(TRAIN, origin=MADE), head=head, seed=2)
    back = load_probe(saved(probe, tmp_path))
    assert_close(back.predict_proba(TEST), probe.predict_proba(TEST), rtol=0, atol=0)
    assert repr(back) == repr(probe)
    assert (back.classes, back.temperature, back.origin) == (probe.classes, probe.temperature, MADE)
    assert (back.given, back.strength_path, back.log) == ({"seed": 2}, None, None)
    assert back.score(TEST).n == 50


@pytest.mark.parametrize("head", ["ridge", "prototype", LinearHead(20, 4)], ids=["ridge", "prototype", "module"])
def test_classes_without_a_training_image_stay_without(head, tmp_path):
    with pytest.warns(FrozenkitWarning, match="no training image"):
        probe = fit_probe(TRAIN[TRAIN.labels != 1], head=head)
    back = load_probe(saved(probe, tmp_path))
    assert_close(back.logits(TEST), probe.logits(TEST), rtol=0, atol=0)
    assert (back.logits(TEST)[:, 1] == -torch.inf).all()


def test_regression_and_rows_of_length_one_come_back(tmp_path):
    values = FeatureSet.from_arrays(TRAIN.features, TRAIN.features[:, :2] * 2)
    probe = fit_probe(values, scale="unit")
    back = load_probe(saved(probe, tmp_path))
    assert_close(back.predict(values), probe.predict(values), rtol=0, atol=0)
    assert back.given == {"scale": "unit"}


def test_a_head_of_ones_own_is_put_into_an_instance_built_alike(tmp_path):
    probe = fit_probe(TRAIN, head=Mine())
    path = saved(probe, tmp_path)
    given = Mine()
    before = given.map.weight.detach().clone()
    back = load_probe(path, head=given)
    assert_close(back.predict_proba(TEST), probe.predict_proba(TEST), rtol=0, atol=0)
    assert_close(given.map.weight.detach(), before, rtol=0, atol=0)
    with pytest.raises(InputError, match="`head` must be given, an instance of Mine built as the one that was saved"):
        load_probe(path)
    with pytest.raises(InputError, match="`head` must be given, an instance of Mine"):
        load_probe(path, head=Mine)
    with pytest.raises(InputError, match="must be an instance of Mine, which was saved, got Linear"):
        load_probe(path, head=nn.Linear(20, 4))
    with pytest.raises(InputError, match="must be built as the one that was saved: .*size mismatch"):
        load_probe(path, head=Mine(20, 5))
    with pytest.raises(InputError, match="`head` must be left out: what was saved is a linear map"):
        load_probe(saved(fit_probe(TRAIN), tmp_path), head=Mine())
    with pytest.raises(InputError, match="`head` must be left out: the file says all about its Sequential"):
        load_probe(saved(fit_probe(TRAIN, head=LinearHead(20, 4)), tmp_path), head=Mine())


def test_of_any_flipped_bit_no_probe_is_served(tmp_path):
    path = saved(fit_probe(TRAIN), tmp_path)
    content = path.read_bytes()
    draw = random.Random(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CacheError, match="is damaged"):
            load_probe(path)
    for n in (0, 7, 8, 100, len(content) - 1):
        path.write_bytes(content[:n])
        with pytest.raises(CacheError, match="is damaged"):
            load_probe(path)


def test_what_is_no_probe_is_refused_by_name(tmp_path):
    path = tmp_path / "x.safetensors"
    write_sealed(path, "classifier", 1, {}, {})
    with pytest.raises(CacheError, match="holds a classifier, and must hold a probe"):
        load_probe(path)
    write_sealed(path, "probe", 99, {}, {})
    with pytest.raises(CacheError, match="was written in version 99 of a probe file, this frozenkit reads 1"):
        load_probe(path)
    about, tensors, _ = read_sealed(saved(fit_probe(TRAIN), tmp_path), "probe", 1)
    for wrong in ({}, about | {"head": {"class": "Popen", "parts": {}, "buffers": []}}, about | {"classes": 3}):
        write_sealed(path, "probe", 1, wrong, tensors)
        with pytest.raises(CacheError, match="says what no probe of frozenkit says"):
            load_probe(path)
    with pytest.raises(CacheError, match="does not exist"):
        load_probe(tmp_path / "none.safetensors")
    with pytest.raises(CacheError, match="is a folder, a pipe or a device"):
        load_probe(tmp_path)


def test_a_suffix_that_promises_something_else_is_refused(tmp_path):
    probe = fit_probe(TRAIN)
    for path in (None, 3, tmp_path.joinpath):
        with pytest.raises(InputError, match="`path` must be the path of a file, as text or a Path, got"):
            probe.save(path)
        with pytest.raises(InputError, match="`path` must be the path of a file"):
            load_probe(path)
    for path in (tmp_path / "probe.pt", str(tmp_path / "probe")):
        with pytest.raises(InputError, match=r"`path` must be a path that ends in .safetensors, got"):
            probe.save(path)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = saved(fit_probe(TRAIN), tmp_path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CacheError, match="No space left on device. Free some space"):
        fit_probe(TRAIN, head="knn").save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["probe.safetensors"]
