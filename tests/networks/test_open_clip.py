"""Models of open_clip: tiny ones, saved here, give what the library itself gives, images and sentences."""

import json
import logging
import pickle
import shutil
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from frozenkit.errors import DataError, InputError, NotAvailableError, UnknownNameError
from frozenkit.extraction.key import fingerprint_of
from frozenkit.fingerprint import probe_images
from frozenkit.networks.backbone import load_backbone
from frozenkit.networks.layers import pooled_activations
from tests.toy import Noise

with warnings.catch_warnings(action="ignore"):
    import open_clip

TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
VIT_TOWER = {"image_size": 64, "patch_size": 16, "layers": 3, "width": 32, "head_width": 8}
SIGLIP = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}

# name -> (configuration, preprocessing, layer of a block, tokens before the patches)
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], str, int]] = {
    "vit": ({"embed_dim": 24, "vision_cfg": VIT_TOWER, "text_cfg": TEXT}, {}, "visual.transformer.resblocks.{}", 1),
    "vit-quick-gelu-average": (
        {
            "embed_dim": 24,
            "quick_gelu": True,
            "vision_cfg": VIT_TOWER | {"pool_type": "avg", "final_ln_after_pool": True},
            "text_cfg": TEXT,
        },
        {"interpolation": "bilinear", "resize_mode": "longest", "fill_color": 7},
        "visual.transformer.resblocks.{}",
        1,
    ),
    "coca": (
        {
            "embed_dim": 24,
            "vision_cfg": VIT_TOWER | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
            "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
            "custom_text": True,
        },
        {},
        "visual.transformer.resblocks.{}",
        1,
    ),
    "resnet": (
        {"embed_dim": 24, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": TEXT},
        {},
        "visual.layer{}",
        0,
    ),
    "timm-convolutional": (
        {
            "embed_dim": 24,
            "vision_cfg": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
            "text_cfg": TEXT,
        },
        {},
        "visual.trunk.layer{}",
        0,
    ),
    "siglip": (
        {
            "embed_dim": 192,
            "vision_cfg": {
                "timm_model_name": "vit_tiny_patch16_224",
                "timm_pool": "map",
                "timm_proj": "none",
                "image_size": 224,
            },
            "text_cfg": TEXT,
            "custom_text": True,
        },
        SIGLIP,
        "visual.trunk.blocks.{}",
        1,
    ),
}


def save(folder, name, seed=0):
    """A folder as open_clip's hub models are, of a model whose every parameter is drawn."""
    config, preprocessing, _, _ = MODELS[name]
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing}))
    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(seed)
        logging.disable(logging.CRITICAL)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        logging.disable(logging.NOTSET)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folders = {}

    def one(name) -> Path:
        if name not in folders:
            folders[name] = save(tmp_path_factory.mktemp("models") / name, name)
        return folders[name]

    return one


def theirs(folder, **options):
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}", **options)
    return model.eval(), preprocess


def pooled(backbone, images, layer, pooling):
    with torch.no_grad():
        return pooled_activations(backbone.module, images, [layer], pooling, backbone.trace())[layer]


@pytest.mark.parametrize("name", MODELS)
def test_features_blocks_and_sentences_are_the_librarys_own(saved, name):
    backbone = load_backbone(f"open_clip:{saved(name)}", device="cpu")
    model, preprocess = theirs(saved(name))
    _, _, block, n_prefix = MODELS[name]
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(1))
    prompts = ["a photo of a cat", "two dogs on a sofa, one of them asleep"]
    with torch.no_grad():
        image_features = model.encode_image(images, normalize=False)  # which CoCa would
        text_features = model.encode_text(open_clip.get_tokenizer(f"local-dir:{saved(name)}")(prompts), normalize=True)
        inner = model.visual.forward_intermediates(
            images, output_fmt="NLC" if n_prefix else "NCHW", output_extra_tokens=bool(n_prefix)
        )
    assert backbone.default_layer == "features"
    assert_close(backbone(images), image_features, rtol=0, atol=1e-5)
    assert_close(backbone.encode_text(prompts), text_features, rtol=0, atol=1e-6)
    for i, state in enumerate(inner["image_intermediates"][-4:]):
        layer = block.format(i if n_prefix or "trunk" not in block else i + 1)
        if not n_prefix:
            layer = block.format(i + 1)
            assert_close(pooled(backbone, images, layer, "mean"), state.mean((2, 3)), rtol=0, atol=1e-5)
            continue
        layer = block.format(len(inner["image_intermediates"][:-4]) + i)
        if name == "siglip":  # timm's map pooling reads patches alone, and its network has a CLS token all the same
            assert backbone.trace().prefix(layer) == n_prefix
        assert_close(pooled(backbone, images, layer, "tokens"), state, rtol=0, atol=1e-5)
        first = inner["image_intermediates_prefix"][-4:][i][:, 0]
        assert_close(pooled(backbone, images, layer, "cls"), first, rtol=0, atol=1e-5)
    for image in [*probe_images(), *probe_images([(57, 57), (301, 63)])]:
        assert_close(backbone.preprocess(image), preprocess(image), rtol=0, atol=0)


def test_preprocessing_is_a_value(saved):
    preprocess: Any = load_backbone(f"open_clip:{saved('vit')}", device="cpu").preprocess
    assert pickle.loads(pickle.dumps(preprocess)) == preprocess == preprocess.at(64)  # as to another process
    assert preprocess(Image.new("L", (30, 20))).shape == (3, 64, 64)
    assert preprocess.at(96)(Image.new("RGB", (30, 20))).shape == (3, 96, 96)


def test_another_size_is_the_librarys_own(saved):
    for name in ("vit", "siglip"):
        size = 96
        backbone = load_backbone(f"open_clip:{saved(name)}", image_size=size, device="cpu")
        model, preprocess = theirs(saved(name), force_image_size=size)
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert_close(backbone(images), model.encode_image(images), rtol=0, atol=1e-5)
        image = probe_images()[0]
        assert_close(backbone.preprocess(image), preprocess(image), rtol=0, atol=0)
    with pytest.raises(InputError, match="`image_size` of .* cannot be 96: .* Leave it out"):
        load_backbone(f"open_clip:{saved('resnet')}", image_size=96)


def test_the_image_half_alone_decides_the_key(saved, tmp_path):
    folder = saved("vit")
    copied = shutil.copytree(folder, tmp_path / "copied")
    other = save(tmp_path / "other", "vit", seed=1)
    here, there, else_ = (load_backbone(f"open_clip:{path}", device="cpu") for path in (folder, copied, other))
    prints = [fingerprint_of(backbone, Noise(3), "features") for backbone in (here, there, else_)]
    assert prints[0].differences(prints[1]).keys() == {"backbone"}
    assert {"weights_digest", "output_digest"} <= prints[0].differences(prints[2]).keys()
    assert not any("token_embedding" in name for name, _ in here.module.named_parameters())
    assert here.text is not None
    assert not any("visual" in name for name, _ in here.text.named_parameters())


def test_random_weights_are_drawn_from_the_seed(saved):
    name = f"open_clip:{saved('vit')}"
    a, b, c = (load_backbone(name, weights=None, seed=seed, device="cpu") for seed in (0, 0, 1))
    assert a.digest == b.digest != c.digest
    assert_close(a.encode_text(["a cat"]), b.encode_text(["a cat"]), rtol=0, atol=0)


@pytest.fixture
def registered(saved, monkeypatch):
    """A tag of a built-in architecture, whose weights are a file here."""
    config = MODELS["vit"][0]
    for name in ("tiny", "tiny-quickgelu"):
        quick = {"quick_gelu": True} if "quick" in name else {}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config | quick)
        tags = {
            "plain": {"file": str(saved("vit") / "open_clip_model.safetensors"), "mean": (0.1, 0.2, 0.3)},
            "quick": {"file": str(saved("vit") / "open_clip_model.safetensors"), "quick_gelu": True},
            "far": {"hf_hub": "org/far/"},
        }
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)


def test_a_tag_brings_its_preprocessing_and_its_activation(registered, saved):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain, quick, named = (
        load_backbone(f"open_clip:{tag}", device="cpu") for tag in ("tiny/plain", "tiny/quick", "tiny-quickgelu/quick")
    )
    assert getattr(plain.preprocess, "mean") == (0.1, 0.2, 0.3)  # noqa: B009 (a Callable to mypy)
    folder = load_backbone(f"open_clip:{saved('vit')}", device="cpu")
    assert_close(plain(images), folder(images), rtol=0, atol=0)
    assert_close(quick(images), named(images), rtol=0, atol=0)
    assert float((quick(images) - plain(images)).abs().max()) > 1e-4
    with pytest.raises(InputError, match="trained without quick GELU: take 'open_clip:tiny/plain'"):
        load_backbone("open_clip:tiny-quickgelu/plain")
    untrained: Any = load_backbone("open_clip:tiny/plain", weights=None, device="cpu").preprocess
    assert untrained == plain.preprocess
    assert load_backbone("open_clip:tiny", weights=None, device="cpu").image_size == 64
    file = saved("vit") / "open_clip_model.safetensors"
    assert_close(load_backbone(f"open_clip:tiny/{file}", device="cpu")(images), folder(images), rtol=0, atol=0)


def test_names_that_are_none(registered, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "untagged", MODELS["vit"][0])
    with pytest.raises(
        InputError, match="none were published for untagged. Name a file of yours, 'open_clip:untagged//"
    ):
        load_backbone("open_clip:untagged/tag")
    with pytest.raises(UnknownNameError, match="got 'open_clip:tinny'. Did you mean 'open_clip:tiny'"):
        load_backbone("open_clip:tinny/plain")
    with pytest.raises(UnknownNameError, match="got 'open_clip:tiny/plane'. Did you mean 'open_clip:tiny/plain'"):
        load_backbone("open_clip:tiny/plane")
    with pytest.raises(UnknownNameError, match="got 'open_clip:tiny'"):
        load_backbone("open_clip:tiny")
    with pytest.raises(InputError, match="must be 'default' or None, got 'plain': name the tag, model/tag"):
        load_backbone("open_clip:tiny", weights="plain")
    with pytest.raises(NotAvailableError, match="must be a file, but /nowhere/x.pt is none"):
        load_backbone("open_clip:tiny//nowhere/x.pt")


def test_folders_that_lack_something_or_are_damaged(saved, tmp_path):
    with pytest.raises(NotAvailableError, match=r"it lacks open_clip_config.json and open_clip_model.safetensors"):
        load_backbone(f"open_clip:{tmp_path}/nowhere")
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    whole = (folder / "open_clip_model.safetensors").read_bytes()
    (folder / "open_clip_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="vit must hold a model that open_clip loads, but it says"):
        load_backbone(f"open_clip:local-dir:{folder}")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(NotAvailableError, match=r"it lacks open_clip_model.safetensors"):
        load_backbone(f"open_clip:{folder}")
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(DataError, match="vit must hold a model that open_clip loads, but it says"):
        load_backbone(f"open_clip:{folder}", weights=None)


class _Runs:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_a_pickle_with_code_is_refused(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": _Runs()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(
        DataError, match="must hold a model that open_clip loads, but it says: Weights only load failed"
    ):
        load_backbone(f"open_clip:{folder}")
    assert not Path("ran").exists()


def test_an_absent_tokenizer_costs_only_sentences(saved, tmp_path):
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "org/tokenizer"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    backbone = load_backbone(f"open_clip:{folder}", device="cpu")
    assert backbone([Image.new("RGB", (30, 30))]).shape == (1, 24)
    with pytest.raises(NotAvailableError, match=r"the text tower needs its tokenizer, which could not be loaded"):
        backbone.encode_text(["a cat"])


def test_loading_leaves_logging_alone(saved, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # as outside pytest: a first message would give it one
    before = root.manager.disable
    load_backbone(f"open_clip:{saved('vit')}", weights=None, device="cpu")
    assert (root.handlers, root.manager.disable) == ([], before)


def test_a_text_tower_of_transformers(tmp_path):
    """Its words are in its own tokenizer; its weights, where none are asked for, are drawn too."""
    from tests.networks.test_huggingface import VIT, hf, tokenizer

    words = tmp_path / "words"
    hf.BertModel(hf.BertConfig(**VIT, vocab_size=12, max_position_embeddings=20)).save_pretrained(words)
    tokenizer(words)
    folder = tmp_path / "model"
    text = {
        "hf_model_name": str(words),
        "hf_tokenizer_name": str(words),
        "hf_proj_type": "linear",
        "context_length": 20,
    }
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": VIT_TOWER, "text_cfg": text}, "preprocess_cfg": {}}
    folder.mkdir()
    tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    a, b = (load_backbone(f"open_clip:{folder}", weights=None, seed=seed, device="cpu") for seed in (0, 1))
    for backbone in (a, b):
        rows = backbone.encode_text(["a photo of a cat", "the red dog", "a photo of a cat"])
        assert_close(rows[0], rows[2], rtol=0, atol=0)
        assert float((rows[0] - rows[1]).abs().max()) > 1e-3
    towers: list[Any] = [a.text, b.text]
    drawn = [tower.model.text.transformer.embeddings.word_embeddings.weight for tower in towers]
    assert float((drawn[0] - drawn[1]).abs().max()) > 1e-3


def test_absent_weights_say_how_to_get_them(registered, monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(
        NotAvailableError, match=r"--local-dir FOLDER.* 'open_clip:/FOLDER'.* efficientnet-lite0"
    ) as caught:
        load_backbone("open_clip:tiny/far")
    assert "\n" not in str(caught.value)
