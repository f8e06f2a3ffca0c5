"""The trace of a network: which layers there are, in which order, of what shape."""

import pytest
import timm
import torch
from torch import nn

from frozenkit.networks.layers import PRE_LOGITS, hooked, in_eval_mode, prefix_tokens, trace_layers

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
