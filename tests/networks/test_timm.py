"""timm: by name, tag and folder; every kind of token at every block equals what timm itself gives."""

import json
import re
import shutil

import pytest
import timm
import torch
from torch.testing import assert_close

from frozenkit import extract, load_backbone
from frozenkit.comparison.controls import randomized
from frozenkit.errors import DataError, InputError, NotAvailableError, UnknownNameError
from frozenkit.networks._timm import hub_name, load_timm
from frozenkit.networks.backbone import Backbone
from frozenkit.networks.layers import pooled_activations
from frozenkit.networks.zoo import Preprocess
from tests.toy import Noise, stacked

SMALL = {"depth": 3, "embed_dim": 32, "num_heads": 2}

# Architecture → arguments, side in pixels, tokens before the patches.
TOKENS = {
    "vit_tiny_patch16_224": ({**SMALL, "img_size": 64}, 64, 1),
    "vit_base_patch16_gap_224": ({**SMALL, "img_size": 64}, 64, 0),
    "vit_little_patch16_reg4_gap_256": ({**SMALL, "img_size": 64}, 64, 4),
    "vit_small_patch14_reg4_dinov2": ({**SMALL, "img_size": 56}, 56, 5),
    "vit_small_patch16_dinov3": (SMALL, 64, 5),
    "vit_base_patch16_siglip_224": ({**SMALL, "img_size": 64}, 64, 0),
    "vit_base_patch16_clip_224": ({**SMALL, "img_size": 64}, 64, 1),
    "deit_tiny_distilled_patch16_224": ({**SMALL, "img_size": 64}, 64, 2),
    "deit3_small_patch16_224": ({**SMALL, "img_size": 64}, 64, 1),
    "beit_base_patch16_224": ({**SMALL, "img_size": 64}, 64, 1),
    "eva02_tiny_patch14_224": ({**SMALL, "img_size": 56}, 56, 1),
}


def created(name, kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, **kwargs)
        for parameter in module.parameters():  # layer scale, registers and classifiers may start at nearly zero
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return module.eval()


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_of_all_kinds_equal_timms(name):
    kwargs, size, n_prefix = TOKENS[name]
    module = created(name, kwargs)
    backbone = Backbone(module, Preprocess(size, size), device="cpu")
    assert backbone.n_prefix_tokens == n_prefix
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    blocks = ["blocks.0", "blocks.2"]
    with torch.no_grad():
        theirs = module.forward_intermediates(
            images, indices=[0, 2], output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        last = module.forward_features(images)

        def ours(pooling, layers=blocks):
            return pooled_activations(module, images, layers, pooling, backbone.trace())

        for block, each in zip(blocks, theirs, strict=True):
            patches, prefix = each if isinstance(each, tuple) else (each, None)
            assert_close(ours("tokens")[block], patches, rtol=1e-4, atol=1e-5)
            assert_close(ours("mean")[block], patches.mean(1), rtol=1e-4, atol=1e-5)
            everything = patches if prefix is None else torch.cat([prefix, patches], 1)
            assert_close(ours("flatten")[block], everything.flatten(1), rtol=1e-4, atol=1e-5)
            if backbone.trace().has_cls:
                assert_close(ours("cls")[block], prefix[:, 0], rtol=1e-4, atol=1e-5)
                both = torch.cat([prefix[:, 0], patches.mean(1)], 1)
                assert_close(ours("cls+mean")[block], both, rtol=1e-4, atol=1e-5)
        if "norm" in backbone.stages:
            assert_close(ours("tokens", ["norm"])["norm"], last[:, n_prefix:], rtol=1e-4, atol=1e-5)
        if len(backbone.trace().classifiers) == 1 or not backbone.trace().classifiers:
            theirs_default = module.forward_head(last, pre_logits=True)
            assert_close(backbone(images), theirs_default, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small transformer as timm saves one for the hub."""
    path = tmp_path_factory.mktemp("timm") / "vit"
    kwargs = {**SMALL, "img_size": 32, "num_classes": 5}
    module = created("vit_tiny_patch16_224", kwargs)
    timm.models.save_for_hf(module, path, model_args=kwargs, safe_serialization=True)
    return path


@pytest.mark.parametrize("size", [None, 64])
def test_a_folder_gives_what_timm_gives_at_each_size(folder, size):
    name = f"timm/local-dir:{folder}"
    backbone = load_backbone(name, image_size=size, device="cpu")
    theirs = timm.create_model(name[5:], pretrained=True, **({"img_size": size} if size else {})).eval()
    images = Noise(3)
    batch = stacked(backbone, images)
    assert batch.shape[-1] == backbone.image_size == (size or 32)
    with torch.no_grad():
        expected = theirs.forward_features(batch)
    found = extract(backbone, images, layer="norm", pooling="tokens", precision="exact", progress=False)
    assert_close(found.features, expected[:, 1:], rtol=1e-4, atol=1e-5)
    config = timm.data.resolve_data_config({"input_size": (3, batch.shape[-1], batch.shape[-1])}, model=theirs)
    transform = timm.data.create_transform(**config)
    assert_close(batch[0], transform(images[0][0]), rtol=0, atol=1e-6)


def test_a_folder_has_its_control(folder):
    backbone = load_backbone(f"timm/local-dir:{folder}", image_size=64, device="cpu")
    random = randomized(backbone, seed=1)
    assert random.digest != backbone.digest
    assert random(torch.zeros(1, 3, 64, 64)).shape == (1, 32)


def test_folders_that_are_none_of_timms_are_refused(folder, tmp_path):
    with pytest.raises(NotAvailableError, match=r"absent must be a folder with config.json .*it has no config.json"):
        load_backbone(f"timm/local-dir:{tmp_path / 'absent'}")
    other = tmp_path / "other"
    other.mkdir()
    for text in ("{", "[]", "{}", '{"architecture": "nothing", "pretrained_cfg": {}}', '{"model_type": "dinov2"}'):
        (other / "config.json").write_text(text)
        with pytest.raises(DataError, match=r"config.json must be timm's, with a known `architecture`.*'hf:"):
            load_backbone(f"timm/local-dir:{other}")
    shutil.copy(folder / "config.json", other)
    with pytest.raises(
        DataError, match="that timm loads without unpickling code, but it says: No suitable checkpoints"
    ):
        load_backbone(f"timm/local-dir:{other}")
    weights = (folder / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataError, match="that timm loads without unpickling code, but it says"):
        load_backbone(f"timm/local-dir:{other}")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["depth"] = 2  # other weights than the architecture's
    (other / "config.json").write_text(json.dumps(config))
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match="but it says: Error.* in loading state_dict"):
        load_backbone(f"timm/local-dir:{other}")


def test_pickled_code_in_a_folder_does_not_run(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "config.json", other)
    torch.save({"x": Evil()}, other / "pytorch_model.bin")
    with pytest.raises(DataError, match="that timm loads without unpickling code, but it says"):
        load_backbone(f"timm/local-dir:{other}")
    assert not (tmp_path / "ran").exists()


def test_a_network_that_cannot_be_resized_says_its_size(tmp_path):
    kwargs = {"img_size": 32, "num_classes": 3}
    timm.models.save_for_hf(
        timm.create_model("pit_ti_224", **kwargs), tmp_path, model_args=kwargs, safe_serialization=True
    )
    assert load_backbone(f"timm/local-dir:{tmp_path}", device="cpu").image_size == 32
    with pytest.raises(InputError, match=r"`image_size` of .* must be 32, as in its training, got 64: .*size mismatch"):
        load_backbone(f"timm/local-dir:{tmp_path}", image_size=64)


def test_names_are_checked_before_anything_is_downloaded():
    with pytest.raises(UnknownNameError, match="Did you mean 'timm/vit_small_patch14_dinov2.lvd142m'"):
        load_timm("timm/vit_small_patch14_dinov2.lvd142", "default", None)
    with pytest.raises(UnknownNameError, match="Did you mean 'timm/resnet10t.c3_in1k'"):
        load_backbone("timm/resnet10t.c3_in1k\n")
    for name in ("timm/org/name", "timm/hf-hub:name", "timm/local-dir:", "timm/s3:org/name"):
        with pytest.raises(InputError, match=re.escape(f"'timm/local-dir:<folder>', got {name!r}")):
            load_timm(name, "default", None)
    with pytest.raises(InputError, match="`weights` of a timm backbone must be 'default' or None, got 'a1': name the"):
        load_timm("timm/resnet10t", "a1", None)


def test_where_weights_lie_on_the_hub():
    assert hub_name("timm/vit_small_patch14_dinov2") == "timm/vit_small_patch14_dinov2.lvd142m"
    assert hub_name("timm/hf-hub:org/name") == "org/name"


def test_random_weights_at_another_size_are_those_of_timm_there():
    ours = load_backbone("timm/vit_tiny_patch16_224", weights=None, image_size=64, seed=3, device="cpu").module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = timm.create_model("vit_tiny_patch16_224", img_size=64)
    assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)
