"""Extractor and head together: what extract gives, from a backbone that stays asleep; only the head moves."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit.classifier.modules import FeatureExtractor, FrozenClassifier
from frozenkit.errors import InputError
from frozenkit.extraction.extract import extract_layers
from frozenkit.features import FeatureSet
from frozenkit.heads.modules import LayerMix, LinearHead, MLPHead
from frozenkit.networks.backbone import Backbone, assert_frozen
from frozenkit.networks.layers import pool
from frozenkit.networks.zoo import Preprocess
from tests.toy import Noise, stacked

pytestmark = pytest.mark.usefixtures("seeded")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x):
        return self.layers(x).mean((2, 3))


class WithMix(nn.Module):
    def __init__(self):
        super().__init__()
        self.module, self.mix = Network(), LayerMix([4, 4])

    def forward(self, x):
        with torch.no_grad():
            pooled = self.module(x)
        return self.mix([pooled, pooled**2])


def train_a_step(model):
    model.train()
    optimiser = torch.optim.SGD(model.trainable_parameters(), lr=0.1)
    images = torch.randn(8, 3, 6, 6)
    nn.functional.cross_entropy(model(images), torch.arange(8) % 2).backward()
    optimiser.step()


class TestFrozenClassifier:
    def test_only_the_head_moves(self):
        backbone, head = Network(), LinearHead(4, 2)
        before = {name: t.clone() for name, t in backbone.state_dict().items()}
        start = head.linear.weight.detach().clone()
        train_a_step(FrozenClassifier(backbone, head))
        assert_close(backbone.state_dict(), before, rtol=0, atol=0)
        with pytest.raises(AssertionError):
            assert_close(head.linear.weight, start)

    def test_a_backbone_woken_by_train_is_caught(self):
        # The broken variant: requires_grad is off, yet batch norm's running statistics move in train mode.
        backbone = Network().requires_grad_(False).train()
        before = {name: t.clone() for name, t in backbone.state_dict().items()}
        backbone(torch.randn(8, 3, 6, 6))
        with pytest.raises(AssertionError):
            assert_close(backbone.state_dict(), before, rtol=0, atol=0)

    def test_train_wakes_the_head_alone(self):
        model = FrozenClassifier(Network().train(), MLPHead(4, 2))
        assert not any(m.training for m in model.extractor.modules())
        model.eval().train()
        assert not any(m.training for m in model.extractor.modules())
        assert model.head.training

    def test_a_learned_mix_counts_as_head(self):
        model = FrozenClassifier(WithMix(), LinearHead(4, 2))
        names = {name for name, p in model.named_parameters() if p.requires_grad}
        assert names == {"extractor.mix.logits", "head.linear.weight", "head.linear.bias"}
        before = model.extractor.mix.logits.detach().clone()
        train_a_step(model)
        with pytest.raises(AssertionError):
            assert_close(model.extractor.mix.logits.detach(), before)


def test_a_frozen_classifier_takes_modules_and_says_how_a_probe_becomes_one():
    from frozenkit import fit_probe, load_backbone

    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 0] > 0).long()
    probe = fit_probe(FeatureSet.from_arrays(x, labels), strengths=[1.0])
    with pytest.raises(InputError, match="`head` must be a torch module, got Probe. Of a ridge or softmax probe: Lin"):
        FrozenClassifier(nn.Identity(), probe)
    with pytest.raises(InputError, match="`extractor` must be a torch module, got Backbone. Wrap it: FeatureExtr"):
        FrozenClassifier(load_backbone(image_size=32, device="cpu"), nn.Linear(4, 2))
    head = LinearHead.from_map(probe.head.weights, probe.head.intercept)  # the advice itself
    torch.testing.assert_close(FrozenClassifier(nn.Identity(), head)(x).argmax(1), probe.head(x).argmax(1))


class TestFeatureExtractor:
    def test_concat_is_what_extract_gives_side_by_side(self, backbone):
        dataset = Noise(3)
        layers = ["blocks.2", "blocks.6"]
        sets = extract_layers(backbone, dataset, layers=layers, precision="exact", progress=False)
        phi = FeatureExtractor(backbone, layers)
        both = torch.cat([sets[layer].features for layer in layers], 1)
        assert_close(phi(stacked(backbone, dataset)), both)
        assert phi.output_dim == both.shape[1]

    def test_backbone_stays_in_eval_mode_and_only_the_mix_trains(self, backbone):
        phi = FeatureExtractor(backbone, ["blocks.2", "blocks.6"], combine="learned").train()
        assert phi.training
        assert not backbone.module.training
        with assert_frozen(backbone):
            phi(stacked(backbone, Noise(3))).sum().backward()
        trained = [n for n, p in phi.named_parameters() if p.grad is not None]
        assert trained
        assert all(n.startswith("mix.") for n in trained)

    def test_refusals(self, backbone):
        with pytest.raises(InputError, match="needs layers of one width"):
            FeatureExtractor(backbone, ["blocks.2", "blocks.6"], combine="mean")
        with pytest.raises(InputError, match="`combine` must be"):
            FeatureExtractor(backbone, combine="sum")
        with pytest.raises(InputError, match="works with one layer"):
            FeatureExtractor(backbone, ["blocks.2", "blocks.6"], pooling="tokens")


@pytest.mark.parametrize("pooling", ["mean", "max", "tokens", "pyramid"])
def test_cls_and_register_tokens_never_count_as_patches(pooling):
    """Trap 18: what stands before the patches is left out, by every pooling over positions and in the extractor too."""
    torch.manual_seed(0)
    module = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56)
    for token in (module.cls_token, module.reg_token):
        nn.init.normal_(token, std=5.0)
    backbone = Backbone(module, Preprocess(56, 56), name="registers", device="cpu")
    images = stacked(backbone, Noise(2))
    with torch.no_grad():
        _, (maps,) = module.eval().forward_intermediates(images, indices=[6], output_fmt="NCHW")
    ours = FeatureExtractor(backbone, "blocks.6", pooling=pooling)(images)
    assert_close(ours, pool(maps, pooling), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        _, ((_, prefix),) = module.forward_intermediates(
            images, indices=[6], output_fmt="NLC", return_prefix_tokens=True
        )
    assert_close(FeatureExtractor(backbone, "blocks.6", pooling="cls")(images), prefix[:, 0], rtol=1e-4, atol=1e-4)
