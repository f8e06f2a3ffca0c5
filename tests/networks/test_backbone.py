"""Backbones: their layers, and frozen."""

from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from frozenkit.errors import (
    ActivationError,
    FreezeError,
    InputError,
    UnknownNameError,
)
from frozenkit.extraction.extract import extract
from frozenkit.networks.backbone import Backbone, assert_frozen, layer_table, load_backbone
from frozenkit.networks.zoo import Preprocess
from tests.toy import Noise, stacked


def noise(size, count=2):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


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
    assert vit.stages == ("patch_embed", *(f"blocks.{i}" for i in range(12)), "norm", "pre_logits")
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
    with pytest.raises(ActivationError, match="does not take 100 px images"):
        load_backbone("maxvit_t", weights=None, image_size=100)
    for name, patch, sizes in (("vit_b_16", 16, "96 or 112"), ("timm/vit_small_patch14_dinov2", 14, "98 or 112")):
        with pytest.raises(InputError, match=f"must be a multiple of its {patch} px patches, got 100. Take {sizes}"):
            load_backbone(name, weights=None, image_size=100)


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


@pytest.mark.parametrize(
    "name", ["efficientnet-lite0", "timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"]
)
def test_a_backbone_is_called_as_extract_calls_it(name):
    backbone = load_backbone(name, weights=None, image_size=None if "timm" in name else 64, device="cpu")
    dataset = Noise(3)
    expected = extract(backbone, dataset, precision="exact", progress=False).features
    backbone.module.train()
    with assert_frozen(backbone):
        of_images = backbone([dataset[i][0] for i in range(3)])
    assert backbone.module.training  # given back
    batch = stacked(backbone, dataset).double().requires_grad_()
    for found in (of_images, backbone(batch), torch.cat([backbone(batch[:1]), backbone(batch[1:])])):
        assert (found.dtype, found.device.type, found.requires_grad) == (torch.float32, "cpu", False)
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_grey_images_are_called_as_extract_reads_them(backbone):
    grey = [Image.fromarray(pixels[..., 0]) for pixels in Noise(8).pixels]
    expected = extract(backbone, [(image, 0) for image in grey], precision="exact", progress=False).features
    assert_close(backbone(grey), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (Image.new("RGB", (40, 40)), r"a list of PIL images, at least one, got Image.* A single one is images\[None\]"),
        (torch.zeros(3, 64, 64), r"must be a float tensor \(b, 3, h, w\).*got Tensor of shape \(3, 64, 64\)"),
        (torch.zeros(0, 3, 64, 64), r"got Tensor of shape \(0, 3, 64, 64\)"),
        (torch.zeros(2, 64, 64, 3), r"got Tensor of shape \(2, 64, 64, 3\)"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "must be a float tensor"),
        ([], "at least one, got list of length 0"),
        (["a.png"], "got list of length 1"),
        (Noise(3), r"got Noise.* For datasets use extract\(backbone, dataset\)"),
        ([Image.new("RGBA", (40, 40))], r"must be RGB or grey \(L\), got the mode RGBA. Try image.convert\('RGB'\)"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(backbone, images, message):
    with pytest.raises(InputError, match=message):
        backbone(images)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="got 'efficientnet-lit0'. Did you mean 'efficientnet-lite0'"):
        load_backbone("efficientnet-lit0")
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        load_backbone("resnt50")
    with pytest.raises(UnknownNameError, match="Did you mean 'blocks.6'"):
        load_backbone("efficientnet-lite0").check_layer("block.6")
    with pytest.raises(UnknownNameError, match="`weights` must be a known name"):
        load_backbone("resnet50", weights="IMAGENET1K_V9")
    for name in (None, 3, ["resnet18"], nn.Linear):
        with pytest.raises(InputError, match=r"`name` must be text, got .* list_backbones\(offline=True\)"):
            load_backbone(name)
    with pytest.raises(InputError, match=r"must lie in 32\.\.1024 pixels, got 7"):
        load_backbone(image_size=7)


def test_own_module_becomes_a_backbone():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    backbone = Backbone(net, Preprocess(32, 32), name="mine", device="cpu")
    assert backbone.layers == ("0", "1", "2", "3", "4")
    assert backbone.default_layer == "2"
    with pytest.raises(InputError, match="`image_size` must be given"):
        Backbone(net, lambda image: torch.zeros(3, 32, 32))


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


class Counting(nn.Module):
    """A text tower whose (m, 2) are the numbers of letters and words."""

    def forward(self, prompts):
        return torch.tensor([[len(p), len(p.split())] for p in prompts]).double()


def test_sentences_become_directions_of_length_one():
    backbone = Backbone(nn.Flatten(), lambda image: torch.zeros(3, 4, 4), image_size=4, text=Counting(), device="cpu")
    rows = backbone.encode_text(["abc", "one two", "x"] * 100)  # more than go through at once
    assert rows.shape == (300, 2)
    assert rows.dtype == torch.float32
    assert_close(rows[:2], torch.tensor([[3 / 10**0.5, 1 / 10**0.5], [7 / 53**0.5, 2 / 53**0.5]]))
    assert_close(rows[297:], rows[:3])
    for wrong in ("a photo", [], [""], ["a", 3], None):
        with pytest.raises(InputError, match=r"`prompts` must be a list of sentences.* A single one is \[prompt\]"):
            backbone.encode_text(wrong)


def test_a_text_tower_is_a_module():
    tower: Any = Counting
    with pytest.raises(InputError, match="`text` must be a torch module .* got the class Counting"):
        Backbone(nn.Flatten(), lambda image: torch.zeros(3, 4, 4), image_size=4, text=tower)


def test_an_unknown_name_says_how_those_of_other_libraries_begin():
    with pytest.raises(UnknownNameError, match="of the Hugging Face hub 'hf:<org>/<model>', of open_clip 'open_clip:"):
        load_backbone("facebook/dinov2-small")


def test_what_has_no_text_tower_says_which_has():
    with pytest.raises(InputError, match="efficientnet-lite0 has no text tower; take a backbone .* 'open_clip:"):
        load_backbone("efficientnet-lite0", device="cpu").encode_text(["a photo"])
