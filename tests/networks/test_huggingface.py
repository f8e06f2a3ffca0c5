"""Networks of transformers: tiny ones, saved here, give what the library gives, tokens and registers included."""

import json
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

from frozenkit.errors import DataError, InputError, NotAvailableError
from frozenkit.extraction.extract import extract
from frozenkit.extraction.key import fingerprint_of
from frozenkit.fingerprint import probe_images
from frozenkit.networks.backbone import load_backbone
from frozenkit.networks.layers import pooled_activations
from tests.toy import NEEDS_EXPORT, Noise

with warnings.catch_warnings(action="ignore"):
    import transformers as hf

VIT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
TOWER = {**VIT, "image_size": 64, "patch_size": 16}
TEXT = {**VIT, "vocab_size": 12, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
DINOV2 = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 56, "patch_size": 14}
CONVOLUTIONS = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
EDGE, SQUARE = {"shortest_edge": 64}, {"height": 64, "width": 64}

# name -> (configuration, image processor, blocks, tokens before the patches)
FAMILIES: dict[str, Any] = {
    "dinov2": (
        lambda: hf.Dinov2Config(**DINOV2),
        lambda: hf.BitImageProcessor(size={"shortest_edge": 65}, crop_size={"height": 56, "width": 56}),
        "model.encoder.layer.{}",
        1,
    ),
    "dinov2-registers": (
        lambda: hf.Dinov2WithRegistersConfig(**DINOV2, num_register_tokens=4),
        lambda: hf.BitImageProcessor(size={"shortest_edge": 65}, crop_size={"height": 56, "width": 56}),
        "model.encoder.layer.{}",
        5,
    ),
    "dinov3": (
        lambda: hf.DINOv3ViTConfig(**TOWER, num_register_tokens=4),
        lambda: hf.DINOv3ViTImageProcessor(size=SQUARE),
        "model.model.layer.{}",
        5,
    ),
    "dinov3-convnext": (
        lambda: hf.DINOv3ConvNextConfig(**CONVOLUTIONS),
        lambda: hf.DINOv3ViTImageProcessor(size=SQUARE),
        "model.model.stages.{}",
        0,
    ),
    "siglip": (
        lambda: hf.SiglipConfig(text_config={**TEXT, "projection_size": 32}, vision_config=TOWER),
        lambda: hf.SiglipImageProcessor(size=SQUARE),
        "model.encoder.layers.{}",
        0,
    ),
    "clip": (
        lambda: hf.CLIPConfig(text_config=TEXT, vision_config=TOWER, projection_dim=24),
        lambda: hf.CLIPImageProcessor(size=EDGE, crop_size=SQUARE),
        "model.encoder.layers.{}",
        1,
    ),
    "mae": (lambda: hf.ViTMAEConfig(**TOWER), lambda: hf.ViTImageProcessor(size=SQUARE), "model.layers.{}", 1),
    "vit": (lambda: hf.ViTConfig(**TOWER), lambda: hf.ViTImageProcessor(size=SQUARE), "model.layers.{}", 1),
    "beit": (
        lambda: hf.BeitConfig(**TOWER, use_relative_position_bias=True, use_mask_token=True),
        lambda: hf.BeitImageProcessor(size={"height": 70, "width": 70}, crop_size=SQUARE, do_center_crop=True),
        "model.layers.{}",
        1,
    ),
    "convnext": (
        lambda: hf.ConvNextConfig(**CONVOLUTIONS),
        lambda: hf.ConvNextImageProcessor(size=EDGE),
        "model.encoder.stages.{}",
        0,
    ),
    "resnet": (
        lambda: hf.ResNetConfig(embedding_size=8, **CONVOLUTIONS),
        lambda: hf.ConvNextImageProcessor(size=EDGE),
        "model.encoder.stages.{}",
        0,
    ),
    "segformer": (  # no vector of its own: a map, averaged
        lambda: hf.SegformerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2]),
        lambda: hf.ViTImageProcessor(size=SQUARE),
        None,
        0,
    ),
    "swin": (
        lambda: hf.SwinConfig(image_size=64, embed_dim=16, depths=[1, 1, 2], num_heads=[2, 2, 4], window_size=4),
        lambda: hf.ViTImageProcessor(size=SQUARE),
        "stages.{}",
        0,
    ),
}


def save(folder, family, seed=0):
    """A folder as save_pretrained leaves it, of a network whose every parameter is drawn."""
    configure, processor, _, _ = FAMILIES[family]
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(seed)
        model = hf.AutoModel.from_config(configure())
        for parameter in model.parameters():  # embeddings and biases start at zero, which hides where they go
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
        model.save_pretrained(folder)
        processor().save_pretrained(folder)
    return Path(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folders = {}

    def one(family):
        if family not in folders:
            folders[family] = save(tmp_path_factory.mktemp(family), family)
        return folders[family]

    return one


def theirs(folder, images, **options):
    """What the library gives: the output, and the vision part's hidden states."""
    model = hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    vision = getattr(model, "vision_model", model)
    if isinstance(vision, hf.ViTMAEModel):
        vision.config.mask_ratio = 0.0
        options["noise"] = torch.arange(16.0).expand(len(images), -1)
    with torch.no_grad():
        output = vision(images, output_hidden_states=True, **options)
        if hasattr(model, "get_image_features"):
            return model.get_image_features(images).pooler_output, output
    if isinstance(model, hf.ViTModel | hf.ViTMAEModel):  # what ViTForImageClassification reads
        return output.last_hidden_state[:, 0], output
    if isinstance(model, hf.SegformerModel):
        return output.last_hidden_state.mean((2, 3)), output
    return output.pooler_output.flatten(1), output


def pooled(backbone, images, layer, pooling):
    with torch.no_grad():
        return pooled_activations(backbone.module, images, [layer], pooling, backbone.trace())[layer]


@pytest.mark.parametrize("family", FAMILIES)
def test_features_and_blocks_are_the_librarys_own(saved, family):
    backbone = load_backbone(f"hf:{saved(family)}", device="cpu")
    _, _, blocks, n_prefix = FAMILIES[family]
    size = backbone.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    features, output = theirs(saved(family), images)
    assert backbone.default_layer == "features"
    assert_close(backbone(images), features, rtol=0, atol=1e-5)
    states = output.hidden_states[1:] if blocks else ()
    if family == "swin":
        states = output.reshaped_hidden_states[1:]
    if family == "dinov3-convnext":
        states = output.hidden_states[-4:]
    # The library's last state has been through the final norm, or not, as the family has it.
    for i, state in enumerate(states[:-1]):
        layer = blocks.format(i)
        if state.ndim == 4:
            assert_close(pooled(backbone, images, layer, "mean"), state.mean((2, 3)), rtol=0, atol=1e-5)
            continue
        assert_close(pooled(backbone, images, layer, "tokens"), state[:, n_prefix:], rtol=0, atol=1e-5)
        assert_close(pooled(backbone, images, layer, "mean"), state[:, n_prefix:].mean(1), rtol=0, atol=1e-5)
        assert backbone.trace().prefix(layer) == n_prefix
        if n_prefix:
            assert_close(pooled(backbone, images, layer, "cls"), state[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "norm", "n_prefix"),
    [
        ("dinov2", "model.layernorm", 1),
        ("dinov2-registers", "model.layernorm", 5),
        ("dinov3", "model.norm", 5),
        ("dinov3-convnext", "model.layer_norm", 1),  # the pooled map stands first
        ("siglip", "model.post_layernorm", 0),
        ("mae", "model.layernorm", 1),
        ("vit", "model.layernorm", 1),
        ("swin", "model.layernorm", 0),
    ],
)
def test_the_final_norm_is_a_layer_whose_patches_are_known(saved, family, norm, n_prefix):
    backbone = load_backbone(f"hf:{saved(family)}", device="cpu")
    size = backbone.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    _, output = theirs(saved(family), images)
    state = output.last_hidden_state
    mean = state[:, n_prefix:].mean(1)
    assert_close(pooled(backbone, images, norm, "mean"), mean, rtol=0, atol=1e-5)
    if n_prefix:  # what Dinov2ForImageClassification reads
        both = torch.cat([state[:, 0], mean], 1)
        assert_close(pooled(backbone, images, norm, "cls+mean"), both, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_prepared_as_the_processor_does(saved, family):
    folder = saved(family)
    preprocess: Any = load_backbone(f"hf:{folder}", device="cpu").preprocess
    processor = hf.AutoImageProcessor.from_pretrained(folder)
    grey = Image.new("L", (70, 41), 200)
    for image in [*probe_images(), *probe_images([(57, 57), (301, 63)])]:
        assert_close(preprocess(image), processor(image, return_tensors="pt")["pixel_values"][0], rtol=0, atol=0)
    assert_close(preprocess(grey), preprocess(grey.convert("RGB")), rtol=0, atol=0)
    again = pickle.loads(pickle.dumps(preprocess))  # as on its way to another process
    assert again == preprocess
    assert preprocess.at(preprocess.image_size) == preprocess


def test_another_size_keeps_the_fraction_that_is_cropped(saved):
    backbone = load_backbone(f"hf:{saved('dinov2')}", image_size=112, device="cpu")
    preprocess: Any = backbone.preprocess
    settings = json.loads(preprocess.settings)
    assert settings["size"] == {"shortest_edge": 130}
    assert settings["crop_size"] == {"height": 112, "width": 112}
    assert preprocess(Image.new("RGB", (80, 60))).shape == (3, 112, 112)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"segformer"}))
def test_a_larger_image_has_its_position_embeddings_interpolated(saved, family):
    size = 112 if family.startswith("dinov2") else 96
    backbone = load_backbone(f"hf:{saved(family)}", image_size=size, device="cpu")
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    model = hf.AutoModel.from_pretrained(saved(family)).eval()
    vision = getattr(model, "vision_model", model)
    options = {"interpolate_pos_encoding": True} if family in ("clip", "siglip", "vit", "mae", "swin", "beit") else {}
    if family == "mae":
        vision.config.mask_ratio = 0.0
        options["noise"] = torch.arange(36.0).expand(2, -1)
    with torch.no_grad():
        output = vision(images, **options)
    expected = output.last_hidden_state[:, 0] if family in ("vit", "mae") else output.pooler_output.flatten(1)
    if family == "clip":
        expected = model.visual_projection(expected).detach()
    assert_close(backbone(images), expected, rtol=0, atol=1e-5)


def test_a_masked_autoencoder_sees_every_patch_in_its_place(saved):
    backbone = load_backbone(f"hf:{saved('mae')}", device="cpu")
    images = torch.randn(1, 3, 64, 64)
    first, second = (pooled(backbone, images, "model.layers.1", "tokens") for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)
    changed = images.clone()
    changed[..., 16:32, 32:48] += 1  # patch 1 · 4 + 2
    before, after = (pooled(backbone, x, "model.embeddings.patch_embeddings", "tokens") for x in (images, changed))
    assert (before != after).any(-1).nonzero().tolist() == [[0, 6]]
    before, after = (pooled(backbone, x, "model.layers.0", "tokens") for x in (images, changed))
    assert int((before - after).norm(dim=-1).argmax()) == 6


@NEEDS_EXPORT
@pytest.mark.parametrize("family", ["dinov2-registers", "mae", "clip", "swin"])
def test_towers_are_exported_for_any_number_of_images(saved, family):
    module = load_backbone(f"hf:{saved(family)}", device="cpu").module
    size = 56 if "dinov2" in family else 64
    images = torch.randn(3, 3, size, size)
    exported = torch.export.export(module, (images[:2],), dynamic_shapes=({0: torch.export.Dim("b")},)).module()
    with torch.no_grad():
        assert_close(exported(images), module(images), rtol=0, atol=1e-5)


def test_a_checkpoint_with_a_classifier_or_a_decoder_gives_the_same_features(saved, tmp_path):
    images = torch.randn(2, 3, 64, 64)
    for family, name in (("vit", "ViTForImageClassification"), ("mae", "ViTMAEForPreTraining")):
        bare = hf.AutoModel.from_pretrained(saved(family))
        full = getattr(hf, name)(bare.config).eval()
        inner = getattr(full, full.base_model_prefix)
        inner.load_state_dict({k: v for k, v in bare.state_dict().items() if not k.startswith("pooler.")})
        full.save_pretrained(tmp_path / family)
        shutil.copy(saved(family) / "preprocessor_config.json", tmp_path / family)
        ours, same = (load_backbone(f"hf:{folder}", device="cpu") for folder in (tmp_path / family, saved(family)))
        assert_close(ours(images), same(images), rtol=0, atol=0)
        assert ours.digest == same.digest  # the pooler that the checkpoint lacks is drawn at random, and left out
        if family == "vit":
            with torch.no_grad():
                assert_close(full.classifier(ours(images)), full(images).logits, rtol=0, atol=1e-5)


def test_random_weights_are_drawn_from_the_seed_and_the_configuration(saved):
    name = f"hf:{saved('dinov2')}"
    a, b, c = (load_backbone(name, weights=None, seed=seed, device="cpu") for seed in (0, 0, 1))
    assert a.digest == b.digest != c.digest
    assert a.digest != load_backbone(name, device="cpu").digest


def test_two_checkpoints_never_share_a_key_and_a_copied_folder_does(saved, tmp_path):
    images = Noise(3)
    folder = saved("dinov2-registers")
    other = save(tmp_path / "other", "dinov2-registers", seed=1)
    copied = shutil.copytree(folder, tmp_path / "copied")
    here, there, else_ = (load_backbone(f"hf:{path}", device="cpu") for path in (folder, copied, other))
    assert here.digest == there.digest != else_.digest
    prints = [fingerprint_of(backbone, images, "features") for backbone in (here, there, else_)]
    assert prints[0].differences(prints[1]).keys() == {"backbone"}
    assert {"weights_digest", "output_digest"} <= prints[0].differences(prints[2]).keys()


def tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "photo", "of", "cat", "dog", "the", "red", "green"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return fast


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_sentences_are_where_the_library_puts_them(saved, tmp_path, family):
    folder = shutil.copytree(saved(family), tmp_path / family)
    fast = tokenizer(folder)
    backbone = load_backbone(f"hf:{folder}", device="cpu")
    prompts = ["a photo of a cat", "the red dog", "green " * 40]
    rows = backbone.encode_text(prompts)
    tokens = fast(prompts, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    model = hf.AutoModel.from_pretrained(folder).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output = model(tokens["input_ids"], pixel_values=images, attention_mask=tokens["attention_mask"])
    assert_close(rows, output.text_embeds, rtol=0, atol=1e-5)
    ours = torch.nn.functional.normalize(backbone(images), dim=-1)
    assert_close(ours, output.image_embeds, rtol=0, atol=1e-5)
    alone = backbone.encode_text([prompts[1]])
    assert_close(alone[0], rows[1], rtol=0, atol=1e-6)  # whatever stands beside it


@pytest.mark.parametrize("family", ["dinov2", "dinov3-convnext", "convnext", "resnet", "siglip"])
def test_the_steps_of_a_report_are_the_blocks(saved, family):
    backbone = load_backbone(f"hf:{saved(family)}", device="cpu")
    _, _, blocks, _ = FAMILIES[family]
    wanted = [name for name in backbone.layers if name in {blocks.format(i) for i in range(4)}]
    assert [name for name in backbone.stages if name in wanted] == wanted
    assert len(wanted) == (4 if "conv" in family or family == "resnet" else 3)
    assert backbone.stages[-1] == "features"


def test_images_do_without_a_tokenizer(saved):
    backbone = load_backbone(f"hf:{saved('clip')}", device="cpu")
    with pytest.raises(NotAvailableError, match=r"needs its tokenizer, .* tokenizer.json and tokenizer_config.json"):
        backbone.encode_text(["a photo"])
    with pytest.raises(InputError, match="has no text tower"):
        load_backbone(f"hf:{saved('vit')}", device="cpu").encode_text(["a photo"])


def test_what_a_folder_lacks_is_named(saved, tmp_path):
    with pytest.raises(NotAvailableError, match=r"nowhere must be a folder .*`hf download <org>/<model>"):
        load_backbone(f"hf:{tmp_path}/nowhere")
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    (folder / "preprocessor_config.json").rename(tmp_path / "kept.json")
    with pytest.raises(NotAvailableError, match="vit lacks preprocessor_config.json"):
        load_backbone(f"hf:{folder}")
    (tmp_path / "kept.json").rename(folder / "preprocessor_config.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(NotAvailableError, match=r"lacks model.safetensors; pickled weights \(.bin, .pt\) are never"):
        load_backbone(f"hf:{folder}")
    assert load_backbone(f"hf:{folder}", weights=None).image_size == 64  # needs none
    torch.save(hf.ViTModel(hf.ViTConfig(**TOWER)).state_dict(), folder / "pytorch_model.bin")
    shutil.copy(saved("dinov2") / "model.safetensors", folder / "of_another_kind.safetensors")
    with pytest.raises(DataError, match="must hold a model that transformers loads, but it says: .*model.safetensors"):
        load_backbone(f"hf:{folder}")  # rather than read the pickle


def test_damaged_folders_are_refused(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(saved("dinov2"), tmp_path / "dinov2")
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.1.mlp.fc1.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"lack 1 tensors, such as 'encoder.layer.1.mlp.fc1.weight', which would be"):
        load_backbone(f"hf:{folder}")
    whole = (saved("dinov2") / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="must hold a model that transformers loads, but it says"):
        load_backbone(f"hf:{folder}")
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match="must hold a model that transformers loads, but it says"):
        load_backbone(f"hf:{folder}")


def test_code_in_a_folder_never_runs(saved, tmp_path):
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="needs code from its repository, which is never run here"):
        load_backbone(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_names_and_models_that_are_none(saved, tmp_path, monkeypatch):
    for name in ("hf:", "hf:vit", "hf:a/b/c", "hf:org/mod el"):
        with pytest.raises(InputError, match="`name` must be 'hf:<org>/<model>'"):
            load_backbone(name)
    with pytest.raises(InputError, match="must be 'default' or None, got 'IMAGENET1K_V1'"):
        load_backbone(f"hf:{saved('vit')}", weights="IMAGENET1K_V1")
    text = tmp_path / "org" / "text"
    hf.BertModel(hf.BertConfig(**VIT, vocab_size=20)).save_pretrained(text)
    shutil.copy(saved("vit") / "preprocessor_config.json", text)
    with pytest.raises(InputError, match="is a model of type 'bert', which is no image network"):
        load_backbone(f"hf:{text}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"for the folder say 'hf:./org/text'"):
        load_backbone("hf:org/text")
    patches = hf.Siglip2Config(text_config=TEXT, vision_config={**VIT, "num_patches": 16})
    patches.save_pretrained(tmp_path / "naflex")
    shutil.copy(saved("vit") / "preprocessor_config.json", tmp_path / "naflex")
    with pytest.raises(InputError, match=r"varying number of patches. Take one of a fixed size, such as 'hf:google/"):
        load_backbone("hf:./naflex", weights=None)
    settings = json.loads((saved("dinov2") / "preprocessor_config.json").read_text()) | {"do_center_crop": False}
    oblong = shutil.copytree(saved("dinov2"), tmp_path / "oblong")
    (oblong / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"must give square images of one size, but gave the shape \(3, 65, 87\)"):
        load_backbone("hf:./oblong")


def test_absent_weights_say_how_to_get_them(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(NotAvailableError, match="efficientnet-lite0") as caught:
        load_backbone("hf:facebook/dinov3-vits16-pretrain-lvd1689m")
    for part in ("https://huggingface.co/facebook/dinov3-vits16-pretrain-lvd1689m", "hf auth login", "--local-dir"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_in_the_hubs_cache_needs_no_network(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise OSError("Network is unreachable")

    revision = "0123456789" * 4
    repository = tmp_path / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    folder = save(repository / "snapshots" / revision, "clip")
    tokenizer(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cached, local = (load_backbone(name, device="cpu") for name in ("hf:org/tiny", f"hf:{folder}"))
    assert cached.digest == local.digest
    assert cached.encode_text(["a photo of a cat"]).shape == (1, 24)
    assert load_backbone("hf:org/tiny", weights=None, device="cpu").image_size == 64


def test_features_come_out_of_a_folder_end_to_end(saved):
    backbone = load_backbone(f"hf:{saved('dinov2')}", device="cpu")
    features = extract(backbone, Noise(5), progress=False)
    assert features.features.shape == (5, 32)
    one, other = (extract(backbone, Noise(5), batch_size=n, precision="exact", progress=False) for n in (1, 5))
    assert_close(one.features, other.features, rtol=0, atol=1e-5)
