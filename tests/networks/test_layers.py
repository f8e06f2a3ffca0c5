"""The trace of a network: which layers there are, in which order, of what shape."""

import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from frozenkit import extract, from_torch, zero_shot
from frozenkit.errors import (
    ActivationError,
    InputError,
)
from frozenkit.networks.backbone import Backbone, load_backbone
from frozenkit.networks.layers import (
    PRE_LOGITS,
    hooked,
    in_eval_mode,
    pool,
    pooled_activations,
    prefix_tokens,
    trace_layers,
)
from frozenkit.networks.zoo import Preprocess

ARCHITECTURES = [
    "resnet18",
    "mobilenetv3_small_100",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "regnety_002",
]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_equal_a_real_pass(name):
    module = timm.create_model(name).eval()
    trace = trace_layers(module, 224)
    seen = {}

    def note(layer, output):
        return seen.setdefault(layer, tuple(output.shape[1:]))

    with hooked(module, note, trace.names, trace.classifiers), torch.no_grad():
        module(torch.zeros(1, 3, 224, 224))
    assert list(seen.items()) == list(trace.outputs.items())


def test_maps_with_channels_last_are_recognised():
    trace = trace_layers(timm.create_model("swin_tiny_patch4_window7_224"), 224)
    assert trace.hwc("layers.3") == (7, 7, 768)
    resnet = trace_layers(timm.create_model("resnet18"), 224)
    assert resnet.hwc("layer4") == (7, 7, 512)
    assert not resnet.is_channels_last("layer4")


def test_a_module_that_runs_twice_or_gives_no_tensor_is_left_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.once, self.twice, self.pair, self.never = nn.ReLU(), nn.ReLU(), _Pair(), nn.ReLU()

        def forward(self, x):
            return self.once(self.pair(self.twice(self.twice(x)))[0])

    assert trace_layers(Net(), 32).names == ("once",)


class _Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_modes_and_hooks_are_given_back_on_an_error():
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3)).train()
    net[0].eval()
    with pytest.raises(ValueError, match="expected 4D input"), in_eval_mode(net), hooked(net, lambda *_: None):
        net(torch.zeros(3))
    assert [m.training for m in net.modules()] == [True, False, True]
    assert not any(m._forward_hooks for m in net.modules())


def test_penultimate_layer_skips_what_does_nothing():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 2))
    assert trace_layers(net, 32).penultimate == "1"
    assert trace_layers(net[:2], 32).penultimate == "1"
    assert trace_layers(net, 32).classifiers == ("4",)
    assert trace_layers(net[:2], 32).classifiers == ()


def test_a_map_that_is_flattened_is_not_what_the_classifier_reads():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2))
    trace = trace_layers(net, 32)
    assert (trace.penultimate, trace.outputs[PRE_LOGITS]) == (PRE_LOGITS, (32,))
    assert trace.names == ("0", "1", "2", PRE_LOGITS, "3")


def test_what_a_function_changes_in_place_is_not_what_the_classifier_reads():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.pool(x).relu_().flatten(1))

    assert trace_layers(Net(), 32).penultimate == PRE_LOGITS


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("vit_tiny_patch16_224", 64, 1),
        ("deit_tiny_distilled_patch16_224", 64, 2),
        ("vit_small_patch14_reg4_dinov2", 56, 5),
        ("vit_small_patch16_dinov3", 32, 5),  # 2² patches: nine tokens, which might be 3²
    ],
)
def test_prefix_tokens_are_counted_where_they_are(name, size, count):
    module = timm.create_model(name, **({} if "dinov3" in name else {"img_size": size}))
    trace = trace_layers(module, size)
    patches = (size // (14 if "14" in name else 16)) ** 2
    assert trace.n_prefix_tokens == prefix_tokens(module) == count
    assert trace.prefix("patch_embed") == 0
    assert trace.prefix("blocks.3") == count
    assert trace.outputs["blocks.3"][0] == patches + count
    assert trace.prefix(trace.penultimate) == 0


def test_layers_without_prefix_tokens_have_none_although_the_network_has_them():
    trace = trace_layers(timm.create_model("cait_xxs24_224", img_size=64), 64)  # its CLS comes after the blocks
    assert (trace.prefix("blocks.5"), trace.prefix("norm")) == (0, 1)


def test_prefix_tokens_are_known_by_the_names_of_parameters():
    from torchvision.models import resnet18, vit_b_16

    assert prefix_tokens(vit_b_16(image_size=32)) == 1
    assert prefix_tokens(resnet18()) == 0
    own = nn.Module()
    own.embeddings = nn.Module()
    own.embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
    own.embeddings.register_tokens = nn.Parameter(torch.zeros(1, 4, 8))
    own.embeddings.class_embedding = nn.Parameter(torch.zeros(8))
    own.embeddings.mask_token = nn.Parameter(torch.zeros(1, 1, 8))
    assert prefix_tokens(own) == 6


def test_heads_side_by_side_are_read_together_though_their_widths_differ():
    import timm

    trace = trace_layers(timm.create_model("crossvit_tiny_240"), 240)
    assert (trace.classifiers, trace.outputs[trace.penultimate]) == (("head.0", "head.1"), (96 + 192,))


def test_a_layer_that_feeds_the_classifier_is_no_second_one():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10), nn.Linear(10, 10))
    assert trace_layers(net, 32).classifiers == ("3",)


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


def noise_images(n):
    pixels = np.random.RandomState(0).randint(0, 256, (n, 40, 40, 3), np.uint8)
    images = [(Image.fromarray(rows), i % 2) for i, rows in enumerate(pixels)]
    return from_torch(images, classes=("a", "b"))


@pytest.mark.parametrize(("name", "settings", "size"), CLASSIFIERS, ids=lambda value: str(value))
def test_default_features_are_what_the_own_classifier_reads(name, settings, size):
    backbone = created(name, settings, size)
    images = noise_images(4)
    with torch.no_grad():
        logits = backbone.module(torch.stack([backbone.preprocess(images[i][0]) for i in range(4)]))
        features = extract(backbone, images, precision="exact", progress=False)
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
    images = noise_images(2)
    with torch.no_grad():
        output = backbone.module(torch.stack([backbone.preprocess(images[i][0]) for i in range(2)]))
    features = extract(backbone, images, precision="exact", progress=False)
    assert_close(features.features, output, rtol=1e-4, atol=1e-5)
    assert backbone.trace().classifiers == ()


def test_a_convolution_may_be_the_classifier():
    backbone = load_backbone("squeezenet1_1", weights=None, image_size=64, device="cpu")
    assert backbone.default_layer == "features"  # not the 1,000 logits


@pytest.mark.parametrize(
    ("pooling", "width"), [("mean", 3), ("max", 3), ("pyramid", 63), ("flatten", 192), ("tokens", 3)]
)
def test_pooling_of_maps_by_hand(pooling, width):
    x = torch.arange(2 * 3 * 64.0).reshape(2, 3, 8, 8)
    out = pool(x, pooling)
    assert out.shape[-1] == width
    assert out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    if pooling == "mean":
        assert_close(out[0], torch.tensor([31.5, 95.5, 159.5]))
    if pooling == "max":
        assert_close(out[0], torch.tensor([63.0, 127.0, 191.0]))
    if pooling == "pyramid":
        assert_close(out[:, :3], x.mean((2, 3)))
        assert_close(out[0, 3:7], x[0, 0].reshape(2, 4, 2, 4).mean((1, 3)).flatten())
    if pooling == "tokens":
        assert_close(out[1, 9], x[1, :, 1, 1])


def test_pooling_of_tokens_and_vectors_by_hand():
    x = torch.randn(2, 5, 4)
    assert_close(pool(x, "cls", n_prefix=1), x[:, 0])
    assert_close(pool(x, "mean"), x.mean(1))
    assert_close(pool(x, "flatten", n_prefix=1), x.flatten(1))
    for pooling, expected in (("mean", x[:, 1:].mean(1)), ("max", x[:, 1:].amax(1)), ("tokens", x[:, 1:])):
        assert_close(pool(x, pooling, n_prefix=1), expected)
    assert_close(pool(x, "cls+mean", n_prefix=2), torch.cat([x[:, 0], x[:, 2:].mean(1)], 1))  # a CLS and a register
    grid = x[:, 1:].transpose(1, 2).reshape(2, 4, 2, 2)
    assert_close(pool(x, "pyramid", n_prefix=1), pool(grid, "pyramid"))
    assert_close(pool(x[:, 0], "max"), x[:, 0])
    assert_close(pool(torch.randn(2, 7, 7, 4), "mean", channels_last=True).shape, torch.Size([2, 4]))


@pytest.mark.parametrize(
    ("shape", "pooling"),
    [
        ((2, 3, 4, 4), "cls"),
        ((2, 3, 4, 4), "cls+mean"),
        ((2, 5, 4), "cls"),
        ((2, 5, 4), "cls+mean"),
        ((2, 5, 4), "pyramid"),
    ],
)
def test_pooling_that_makes_no_sense_is_refused(shape, pooling):
    with pytest.raises(InputError, match=re.escape(f"`pooling={pooling!r}`")):
        pool(torch.zeros(shape), pooling)


@pytest.mark.parametrize("pooling", ["tokens", "cls", "cls+mean"])
def test_a_vector_has_no_tokens_and_the_message_names_the_layer_that_has(pooling):
    vit = Backbone(timm.create_model("vit_tiny_patch16_224", img_size=32), Preprocess(32, 32), device="cpu")
    advice = "the layer 'pre_logits' gives one vector per image. Take the layer before it, 'norm', or 'mean'."
    with pytest.raises(InputError, match=re.escape(f"`pooling={pooling!r}` needs tokens or a map, but {advice}")):
        extract(vit, noise_images(1), pooling=pooling, progress=False)
    assert extract(vit, noise_images(1), layer="norm", pooling=pooling, progress=False).features.shape[0] == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_base_patch16_gap_224", "has patches only. Take 'mean', or say `n_prefix_tokens` to `Backbone`."),
        ("vit_little_patch16_reg4_gap_256", "has registers and patches only. Take 'mean'."),
        ("vit_base_patch16_siglip_gap_224", "has patches only"),
    ],
)
def test_a_network_without_a_cls_token_gives_no_patch_or_register_as_one(name, reason):
    module = timm.create_model(name, img_size=32, depth=2, embed_dim=32, num_heads=2)
    trace = trace_layers(module, 32)
    for pooling in ("cls", "cls+mean"):
        with pytest.raises(
            InputError, match=re.escape(f"`pooling={pooling!r}` needs a CLS token, but this layer {reason}")
        ):
            pooled_activations(module, torch.zeros(1, 3, 32, 32), ["blocks.1"], pooling, trace)


def test_a_cls_token_is_taken_for_granted_only_where_no_parameter_tells():
    own = Tokens(n_prefix=5)
    assert trace_layers(own, 32, n_prefix_tokens=5).has_cls
    assert not trace_layers(own, 32, n_prefix_tokens=0).has_cls
    own.register_tokens = nn.Parameter(torch.zeros(1, 4, 8))
    assert not trace_layers(own, 32, n_prefix_tokens=5).has_cls
    own.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
    assert trace_layers(own, 32).has_cls


class Tokens(nn.Module):
    """A transformer's shell: a patch is 8×16 pixels, so that there are 4·2 of them in 32 px images."""

    def __init__(self, n_prefix):
        super().__init__()
        self.prefix = nn.Buffer(torch.randn(1, n_prefix, 8))
        self.proj = nn.Conv2d(3, 8, (8, 16), (8, 16))
        self.block = nn.Identity()

    def forward(self, x):
        patches = self.proj(x).flatten(2).transpose(1, 2)
        return self.block(torch.cat([self.prefix.expand(len(x), -1, -1), patches], 1))


def test_patches_need_not_be_a_square():
    own = Tokens(n_prefix=1).eval()  # nine tokens, which are no 3²
    images = torch.randn(2, 3, 32, 32)
    trace = trace_layers(own, 32, n_prefix_tokens=1)
    assert (trace.prefix("proj"), trace.prefix("block")) == (0, 1)
    with torch.no_grad():
        tokens = own(images)
    pooled = {p: pooled_activations(own, images, ["block"], p, trace)["block"] for p in ("mean", "cls+mean")}
    assert_close(pooled["mean"], tokens[:, 1:].mean(1))
    assert_close(pooled["cls+mean"], torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))
    with pytest.raises(InputError, match="`pooling='pyramid'` needs a square of patches, but this layer gives 8"):
        pooled_activations(own, images, ["block"], "pyramid", trace)


def test_tokens_of_several_scales_or_towers_count_once():
    towers = nn.ModuleDict({name: nn.Module() for name in ("image", "other")})
    for tower in towers.values():
        tower.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
    towers["image"].cls_token2 = nn.Parameter(torch.zeros(1, 1, 8))
    assert prefix_tokens(towers) == 1
    assert prefix_tokens(timm.create_model("coat_tiny")) == 1


def test_tokens_that_are_given_out_are_no_logits():
    class Blocks(nn.Module):
        def __init__(self, several):
            super().__init__()
            self.proj, self.fc1, self.act = nn.Conv2d(3, 8, 16, 16), nn.Linear(8, 8), nn.GELU()
            self.fc2, self.norm, self.several = nn.Linear(8, 8), nn.LayerNorm(8), several

        def forward(self, x):
            x = self.proj(x).flatten(2).transpose(1, 2)
            x = self.norm(x + self.fc2(self.act(self.fc1(x))))
            return (x, x.mean(1)) if self.several else x

    for several in (False, True):  # fc2 has the shape of what the network gives
        trace = trace_layers(Blocks(several), 64)
        assert (trace.classifiers, trace.penultimate) == ((), "norm")


BLOCKS = {
    "vit_tiny_patch16_224": (["patch_embed"], "blocks", ["norm", "pre_logits"]),
    "vit_little_patch16_reg4_gap_256": (["patch_embed"], "blocks", ["fc_norm"]),
    "deit3_small_patch16_224": (["patch_embed"], "blocks", ["norm", "pre_logits"]),
    "beit_base_patch16_224": (["patch_embed"], "blocks", ["fc_norm"]),
    "eva02_tiny_patch14_224": (["patch_embed"], "blocks", ["fc_norm"]),
    "vit_base_patch16_siglip_224": (["patch_embed"], "blocks", ["norm", "attn_pool"]),
    "tv vit_b_16": (["conv_proj"], "encoder.layers.encoder_layer_", ["encoder.ln", "pre_logits"]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_layers_of_a_transformer_are_its_blocks_and_the_final_norm(name):
    from torchvision.models import VisionTransformer

    if name.startswith("tv "):
        module = VisionTransformer(32, 16, 3, 2, 32, 64)
        size = 32
    else:
        size = 28 if "patch14" in name else 32
        module = timm.create_model(name, img_size=size, depth=3, embed_dim=32, num_heads=2)
    before, blocks, after = BLOCKS[name]
    backbone = Backbone(module, Preprocess(size, size), device="cpu")
    separator = "" if blocks.endswith("_") else "."
    assert list(backbone.stages) == [*before, *(f"{blocks}{separator}{i}" for i in range(3)), *after]
    assert backbone.stages[-1] == backbone.default_layer


def test_stages_of_a_hierarchy_are_its_levels():
    swin = Backbone(timm.create_model("swin_tiny_patch4_window7_224"), Preprocess(224, 224), device="cpu")
    assert swin.stages == ("patch_embed", *(f"layers.{i}" for i in range(4)), "head.global_pool")


def test_a_layer_that_does_not_run_is_an_error():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    net.unused = nn.ReLU()
    with pytest.raises(ActivationError, match="the layer 'never' did not run"):
        pooled_activations(net, torch.zeros(1, 3, 8, 8), ["0", "never"], "mean", trace_layers(net, 8))
