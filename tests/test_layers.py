"""The trace of a network: which layers there are, in which order, of what shape."""

import pytest
import timm
import torch
from torch import nn

from frozenkit.layers import hooked, in_eval_mode, penultimate_layer, trace_layers

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

    with hooked(module, note, trace.names), torch.no_grad():
        module(torch.zeros(1, 3, 224, 224))
    assert seen == trace.outputs
    assert list(seen) == list(trace.names)


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
    assert penultimate_layer(net, trace_layers(net, 32)) == "1"
    assert penultimate_layer(net[:2], trace_layers(net[:2], 32)) == "1"
