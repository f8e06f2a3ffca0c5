"""Extractor and head together: what extract gives, from a backbone that stays asleep; only the head moves."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from frozenkit import combine, fit_probe, load_backbone, load_probe, reduce
from frozenkit.classifier.modules import FeatureExtractor, FrozenClassifier
from frozenkit.errors import DataError, FrozenkitWarning, InputError, UnknownNameError
from frozenkit.extraction.cache import FeatureCache
from frozenkit.extraction.extract import extract, extract_layers
from frozenkit.features import FeatureSet
from frozenkit.heads.modules import LayerMix, LinearHead, MLPHead
from frozenkit.networks.backbone import Backbone, assert_frozen
from frozenkit.networks.layers import pool
from frozenkit.networks.zoo import Preprocess
from tests.toy import NEEDS_EXPORT, Noise, coloured_squares, stacked

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


@pytest.mark.parametrize("scale", ["soft", "unit"])
def test_a_frozen_classifier_takes_modules_and_says_how_a_probe_becomes_one(scale):
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 0] > 0).long()
    probe = fit_probe(FeatureSet.from_arrays(x, labels), strengths=[1.0], scale=scale)
    with pytest.raises(InputError, match="`head` must be a torch module, got Probe. Of a ridge or softmax probe: Lin"):
        FrozenClassifier(nn.Identity(), probe)
    with pytest.raises(InputError, match="`extractor` must be a torch module, got Backbone. Wrap it: FeatureExtr"):
        FrozenClassifier(load_backbone(image_size=32, device="cpu"), nn.Linear(4, 2))
    head = LinearHead.from_map(probe.head.weights, probe.head.intercept, unit=probe.head.unit)  # the advice itself
    torch.testing.assert_close(FrozenClassifier(nn.Identity(), head)(x), probe.head(x))


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


TRAIN, TEST = (coloured_squares(n, seed, ("red", "blue", "lime")) for n, seed in ((60, 0), (9, 1)))
HOW = {"layer": "blocks.2", "precision": "exact", "progress": False}


class TestFromProbe:
    @pytest.mark.parametrize("precision", ["exact", "fast"])
    @pytest.mark.parametrize("head", ["ridge", "softmax", "prototype", "knn", MLPHead(40, 3)], ids=str)
    def test_it_predicts_from_images_what_the_probe_predicts_from_features(self, backbone, head, precision):
        how = {**HOW, "precision": precision}
        probe = fit_probe(extract(backbone, TRAIN, **how), head=head)
        model = FrozenClassifier.from_probe(backbone, probe)
        test = extract(backbone, TEST, **how)
        found = model.predict(TEST, progress=False)
        assert_close(found.probabilities, probe.predict_proba(test), rtol=1e-5, atol=1e-5)
        assert_close(found.labels, probe.predict(test), rtol=0, atol=0)
        assert (found.ids, found.classes) == (TEST.ids, TRAIN.classes)
        if precision == "exact":
            logits = model(stacked(backbone, TEST)).detach()
            assert_close((logits / probe.temperature).softmax(1), found.probabilities, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("pooling", ["max", "pyramid", "flatten"])
    def test_it_pools_as_the_features_were_pooled(self, backbone, pooling):
        how = {**HOW, "pooling": pooling}
        probe = fit_probe(extract(backbone, TRAIN, **how), strengths=[1.0])
        found = FrozenClassifier.from_probe(backbone, probe).predict(TEST, progress=False)
        expected = probe.predict_proba(extract(backbone, TEST, **how))
        assert_close(found.probabilities, expected, rtol=1e-5, atol=1e-5)
        with pytest.raises(
            InputError, match=f"`pooling` must be '{pooling}', as in the features of this probe, got 'm"
        ):
            FrozenClassifier.from_probe(backbone, probe, pooling="mean")

    @pytest.mark.parametrize(("layers", "how"), [(["blocks.1", "blocks.2"], "concat"), (["conv_stem", "bn1"], "mean")])
    def test_several_layers_are_joined_as_they_were(self, backbone, layers, how):
        options = {"layers": layers, "precision": "exact", "progress": False}
        train, test = (combine(extract_layers(backbone, images, **options), how) for images in (TRAIN, TEST))
        probe = fit_probe(train, strengths=[1.0])
        found = FrozenClassifier.from_probe(backbone, probe).predict(TEST, progress=False)
        assert_close(found.probabilities, probe.predict_proba(test), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("head", ["ridge", "knn", LinearHead(40, 3)], ids=["ridge", "knn", "module"])
    def test_a_class_without_a_training_image_is_never_predicted(self, backbone, head):
        features = extract(backbone, TRAIN, **HOW)
        with pytest.warns(FrozenkitWarning, match="no training image"):
            probe = fit_probe(features[features.labels != 1], head=head)
        model = FrozenClassifier.from_probe(backbone, probe)
        found = model.predict(TEST, progress=False)
        assert_close(found.probabilities, probe.predict_proba(extract(backbone, TEST, **HOW)), rtol=1e-5, atol=1e-5)
        assert found.probabilities[:, 1].tolist() == [0.0] * 9
        assert found.classes == TRAIN.classes

    def test_regression_gives_values(self, backbone):
        features = extract(backbone, TRAIN, **HOW)
        values = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
        for labels in (values, values[:, 0]):
            probe = fit_probe(features.relabel(labels, []), strengths=[0.1])
            found = FrozenClassifier.from_probe(backbone, probe).predict(TEST, progress=False)
            assert_close(found.labels, probe.predict(extract(backbone, TEST, **HOW)), rtol=1e-4, atol=1e-5)
            assert (found.classes, found.probabilities) == ((), None)

    def test_what_contradicts_the_features_is_refused(self, backbone):
        features = extract(backbone, TRAIN, **HOW)
        probe = fit_probe(features, strengths=[1.0])
        for other, message in [
            (
                load_backbone(image_size=96, device="cpu"),
                "must take images of 64 px, .* got 96 px. Load it with image_siz",
            ),
            (
                load_backbone(weights=None, image_size=64, device="cpu"),
                "must be 'efficientnet-lite0', .* got 'efficientn",
            ),
        ]:
            with pytest.raises(InputError, match=message):
                FrozenClassifier.from_probe(other, probe)
        with pytest.raises(
            InputError, match="must be fitted on the 40 features that 'blocks.2' .* gives .*, got 5. Red"
        ):
            FrozenClassifier.from_probe(backbone, fit_probe(reduce(features, n_features=5)[0]), pooling="mean")
        with pytest.raises(UnknownNameError, match="`layer` must be a known name, got 'pool'"):
            FrozenClassifier.from_probe(backbone, fit_probe(replace(features, layer="pool"), strengths=[1.0]))
        with pytest.raises(InputError, match="`probe` must be a Probe, got the class Probe. Fit one"):
            FrozenClassifier.from_probe(backbone, type(probe))
        with pytest.raises(InputError, match="`backbone` must be a Backbone, got the module"):
            FrozenClassifier.from_probe(backbone.module, probe)

    @pytest.mark.parametrize("cached", [False, True])
    def test_another_network_of_the_same_name_is_refused(self, tmp_path, cached):
        made = {"weights": None, "image_size": 64, "device": "cpu"}
        right, equal, other = (load_backbone(seed=seed, **made) for seed in (0, 0, 1))
        features = extract(right, TRAIN, **HOW, cache=FeatureCache(tmp_path) if cached else None)
        fit_probe(features, strengths=[1.0]).save(tmp_path / "probe.safetensors")
        probe = load_probe(tmp_path / "probe.safetensors")
        FrozenClassifier.from_probe(equal, probe)
        with pytest.raises(InputError, match="`backbone` must be the .* are from, but its weights are others. Give"):
            FrozenClassifier.from_probe(other, probe)
        old = replace(probe, origin=replace(probe.origin, weights="", preprocessing=""))
        FrozenClassifier.from_probe(other, old)  # of a file that does not say
        right.preprocess, kept = Preprocess(64, 64, mean=(0.0,) * 3, std=(1.0,) * 3), right.preprocess
        with pytest.raises(InputError, match="are from, but its preprocessing gives other numbers. Give that one"):
            FrozenClassifier.from_probe(right, probe)
        right.preprocess = lambda image: kept(image) + torch.rand(1)  # random: nothing to compare
        FrozenClassifier.from_probe(right, probe)
        right.preprocess = kept
        with torch.no_grad():
            next(right.module.parameters()).mul_(1.5)
        with pytest.raises(InputError, match="but its weights are others"):
            FrozenClassifier.from_probe(right, probe)

    def test_features_that_do_not_say_how_they_were_pooled_need_to_be_told(self, backbone):
        features = replace(extract(backbone, TRAIN, **HOW), origin=None)
        probe = fit_probe(features, strengths=[1.0])
        with pytest.raises(InputError, match="`pooling` must be given, since the features of this probe do not say"):
            FrozenClassifier.from_probe(backbone, probe)
        model = FrozenClassifier.from_probe(backbone, probe, pooling="mean")
        assert model.precision == "auto"
        with pytest.raises(InputError, match="`pooling` must be one of mean"):
            FrozenClassifier.from_probe(backbone, probe, pooling="average")

    def test_the_probe_is_left_alone(self, backbone):
        probe = fit_probe(extract(backbone, TRAIN, **HOW), head=LinearHead(40, 3))
        before = probe.logits(extract(backbone, TEST, **HOW))
        train_a_step_on(FrozenClassifier.from_probe(backbone, probe), stacked(backbone, TEST))
        assert_close(probe.logits(extract(backbone, TEST, **HOW)), before, rtol=0, atol=0)


def train_a_step_on(model, images):
    model.train()
    optimiser = torch.optim.SGD(model.trainable_parameters(), lr=0.1)
    nn.functional.cross_entropy(model(images), torch.arange(len(images)) % 3).backward()
    optimiser.step()


@pytest.fixture
def model(backbone):
    return FrozenClassifier.from_probe(backbone, fit_probe(extract(backbone, TRAIN, **HOW), strengths=[1.0]))


class TestPredict:
    def test_a_folder_files_and_images_are_one_and_the_same(self, model, tmp_path):
        folder = tmp_path / "mixed"
        for i in range(4):
            (folder / f"{i % 2}").mkdir(parents=True, exist_ok=True)
            TEST[i][0].save(folder / f"{i % 2}" / f"{i}.png")
        files = sorted(folder.rglob("*.png"))
        by_folder = model.predict(folder, progress=False)
        assert by_folder.ids == ("0/0.png", "0/2.png", "1/1.png", "1/3.png")
        by_file = model.predict(files, progress=False)
        by_image = model.predict([TEST[i][0] for i in (0, 2, 1, 3)], progress=False)
        for other in (by_file, by_image, model.predict(TEST[[0, 2, 1, 3]], progress=False)):
            assert_close(other.probabilities, by_folder.probabilities, rtol=1e-5, atol=1e-6)
        assert by_file.ids == tuple(map(str, files))
        assert model.predict(str(files[0]), progress=False).class_ == by_folder.class_[:1]
        assert model.predict(TEST[0][0], progress=False).ids == ("0",)

    def test_bad_files_stop_it_or_are_listed(self, model, tmp_path):
        TEST[0][0].save(tmp_path / "good.png")
        (tmp_path / "bad.png").write_bytes(b"not an image")
        with pytest.raises(DataError, match=r"bad.png is not a readable image"):
            model.predict(tmp_path, progress=False)
        with pytest.warns(FrozenkitWarning, match="left out 1 unreadable images: bad.png"):
            found = model.predict(tmp_path, skip_bad=True, progress=False)
        assert found.ids == ("good.png",)
        ((name, reason),) = found.skipped
        assert name == "bad.png"
        assert "is not a readable image" in reason

    def test_batches_progress_and_a_cache_change_nothing(self, model, tmp_path):
        whole = model.predict(TEST, progress=False)
        seen = []
        small = model.predict(TEST, batch_size=2, workers=1, progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (9, 9)
        cache = FeatureCache(tmp_path)
        cold, warm = (model.predict(TEST, cache=cache, progress=False) for _ in range(2))
        for other in (small, cold, warm):
            assert_close(other.probabilities, whole.probabilities, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ([], "`images` must be a folder, files, PIL images or a dataset, at least one, got list of length 0"),
            (
                torch.zeros(2, 3, 64, 64),
                r"got Tensor of shape \(2, 3, 64, 64\). Images that are preprocessed already go",
            ),
            (["a.png", 3], "`images` must be a folder, files"),
            (None, "must have a length and rows"),
            (FeatureSet.from_arrays([[1.0]]), "are extracted already"),
        ],
        ids=["none", "tensor", "mixed", "None", "features"],
    )
    def test_what_is_no_image(self, model, images, message):
        with pytest.raises(InputError, match=message):
            model.predict(images)

    def test_a_missing_file_is_named(self, model, tmp_path):
        with pytest.raises(DataError, match="none.png"):
            model.predict(tmp_path / "none.png")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="empty must hold at least one image"):
            model.predict(tmp_path / "empty")

    def test_a_classifier_that_does_not_know_enough_says_what_it_lacks(self, backbone):
        with pytest.raises(
            InputError, match="`predict` needs to know how images are preprocessed, .* is a Flatten. Use"
        ):
            FrozenClassifier(nn.Flatten(), LinearHead(12, 2)).predict(TEST)
        phi = FeatureExtractor(backbone, "blocks.2")
        with pytest.raises(InputError, match="`classes` must be given to predict"):
            FrozenClassifier(phi, LinearHead(40, 3)).predict(TEST)
        with pytest.raises(InputError, match="`head` must give one number per class, 2, got 3"):
            FrozenClassifier(phi, LinearHead(40, 3), classes=["a", "b"]).predict(TEST)
        found = FrozenClassifier(phi, LinearHead(40, 3), classes=TEST.classes).predict(TEST, progress=False)
        assert_close(found.probabilities.sum(1), torch.ones(9))

    def test_a_mix_of_layers_and_a_head_in_train_mode_predict_as_in_eval(self, backbone):
        phi = FeatureExtractor(backbone, ["blocks.1", "blocks.2"], combine="learned")
        model = FrozenClassifier(phi, MLPHead(phi.output_dim, 3), classes=TEST.classes)
        model.precision = "exact"
        expected = model.eval()(stacked(backbone, TEST)).softmax(1)
        found = model.train().predict(TEST, progress=False)
        assert model.head.training
        assert_close(found.probabilities, expected.detach(), rtol=1e-4, atol=1e-4)


class TestInputGradients:
    def test_images_that_ask_for_gradients_get_those_of_the_logits(self, backbone, model):
        """As autograd gives them through timm's own stages, where nothing is hooked."""
        images = stacked(backbone, TEST[:2])
        wanted, plain = images.clone().requires_grad_(), images.clone().requires_grad_()
        model(wanted)[:, 0].sum().backward()
        net = backbone.module
        maps = net.blocks[:3](net.bn1(net.conv_stem(plain)))
        model.head(maps.mean((2, 3)))[:, 0].sum().backward()
        assert plain.grad.abs().max() > 1e-3
        assert_close(wanted.grad, plain.grad, rtol=1e-3, atol=1e-5)
        assert all(p.grad is None for p in model.extractor.parameters())

    def test_others_get_none_and_cost_nothing(self, backbone, model):
        features = model.extractor(stacked(backbone, TEST[:2]))
        assert not features.requires_grad
        with torch.no_grad():
            assert not model(stacked(backbone, TEST[:2]).requires_grad_()).requires_grad


@NEEDS_EXPORT
@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("efficientnet-lite0", "blocks.4", 64),
        ("resnet18", "layer3", 64),
        ("timm/vit_tiny_patch16_224", "blocks.5", None),
        ("timm/vit_tiny_patch16_224", "pre_logits", None),
    ],
)
def test_torch_exports_it(name, layer, size):
    backbone = load_backbone(name, weights=None, image_size=size, device="cpu")
    phi = FeatureExtractor(backbone, layer)
    model = FrozenClassifier(phi, LinearHead(phi.output_dim, 3)).eval()
    images = torch.randn(5, 3, backbone.image_size, backbone.image_size)
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(model, (images[:2],), dynamic_shapes=(batch,), strict=False).module()
    assert_close(exported(images), model(images), rtol=1e-4, atol=1e-4)
    assert_close(model(images[:1]), model(images)[:1], rtol=1e-4, atol=1e-4)  # and still stops where it did
