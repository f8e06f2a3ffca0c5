"""Image networks of the library transformers, from the Hugging Face hub or a local folder, with their processors."""

import functools
import inspect
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from frozenkit.errors import DataError, InputError, NotAvailableError, require
from frozenkit.networks._hub import quick_when_offline
from frozenkit.networks._loaded import FEATURES, Loaded, NoTokenizer
from frozenkit.networks.layers import prefix_tokens


@dataclass(frozen=True)
class ProcessorPreprocess:
    """PIL image to tensor by an image processor of transformers, whose settings are all there is to it.

    A plain value, so that it can be part of a fingerprint and travel to another process.

    Attributes:
        settings: The processor's class and settings as JSON with sorted keys.
        image_size: Side of what it gives, pixels.
    """

    settings: str
    image_size: int

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, image_size, image_size) float32."""
        return _processor(self.settings)(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]

    def at(self, image_size: int) -> "ProcessorPreprocess":
        """The same preprocessing at another size: a crop keeps its fraction of the image."""
        settings = json.loads(self.settings)

        def scaled(length: int) -> int:
            return max(image_size, math.floor(length * image_size / self.image_size))

        settings["size"] = {side: scaled(length) for side, length in settings["size"].items()}
        if settings.get("crop_size"):
            settings["crop_size"] = dict.fromkeys(settings["crop_size"], image_size)
        return ProcessorPreprocess(json.dumps(settings, sort_keys=True), image_size)


@functools.lru_cache(maxsize=8)
def _processor(settings: str) -> Any:
    transformers = require("transformers", "hf")
    values = json.loads(settings)
    return getattr(transformers, values.pop("image_processor_type")).from_dict(values)


class ImageTower(nn.Module):
    """A network of transformers that gives one vector per image, the way its family's own classifier reads it.

    Args:
        model: Takes `pixel_values` and gives a ``ModelOutput``.
        trained_size: Side of the images that its position embeddings are for, pixels; None if any size is the same.
        n_prefix_tokens: Tokens before the patches.
        projection: From its vectors to those that are compared with a text's.
    """

    def __init__(
        self, model: Any, trained_size: int | None, n_prefix_tokens: int, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.projection = projection
        self.features = nn.Identity()  # a name for the result
        self.trained_size = trained_size
        self.num_prefix_tokens = n_prefix_tokens
        parameters = inspect.signature(model.forward).parameters
        self.interpolates = "interpolate_pos_encoding" in parameters
        self.shuffles = "noise" in parameters
        self.patch_size: Any = getattr(model.config, "patch_size", None)
        # Swin's blocks give tuples, which are no layers; its stages as maps get names here.
        n_stages = len(model.config.depths) if model.config.model_type.startswith("swin") else 0
        self.stages = nn.ModuleList(nn.Identity() for _ in range(n_stages))

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) → (b, d)."""
        options: dict[str, Any] = {}
        if self.interpolates and self.trained_size not in (None, images.shape[-1]):
            options["interpolate_pos_encoding"] = True
        if self.shuffles:  # a masked autoencoder sorts its patches by noise, unmasked ones too: leave them in order
            n_patches = (images.shape[-2] // self.patch_size) * (images.shape[-1] // self.patch_size)
            order = torch.arange(n_patches, device=images.device)
            options["noise"] = order.expand(images.shape[0], -1)  # len() would be a constant in an export
        if self.stages:
            options["output_hidden_states"] = True
        output = self.model(images, **options)
        for stage, maps in zip(self.stages, output.reshaped_hidden_states[1:] if self.stages else (), strict=True):
            stage(maps)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            vector = pooled.flatten(1)
        else:
            last = output.last_hidden_state
            is_map = last.ndim == 4
            vector = last.mean((2, 3)) if is_map else last[:, 0] if self.num_prefix_tokens else last.mean(1)
        return self.features(vector if self.projection is None else self.projection(vector))


class TextTower(nn.Module):
    """The text half of a CLIP or SigLIP model.

    Args:
        model: Its text transformer, which gives a ``pooler_output``.
        projection: Into the space shared with images, where that is a layer of its own.
        tokenizer: The tokenizer, or why there is none.
        length: Tokens per sentence.
    """

    def __init__(self, model: nn.Module, projection: nn.Module | None, tokenizer: Any, length: int) -> None:
        super().__init__()
        self.model = model
        self.projection = projection
        self.tokenizer = tokenizer
        self.length = length

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """m sentences → (m, d)."""
        if isinstance(self.tokenizer, NoTokenizer):
            raise self.tokenizer.error()
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        device = next(self.parameters()).device
        wanted = {key: tokens[key].to(device) for key in ("input_ids", "attention_mask") if key in tokens}
        pooled = self.model(**wanted).pooler_output
        return pooled if self.projection is None else self.projection(pooled)


def load_huggingface(name: str, weights: str | None) -> Loaded:
    """The image network ``"hf:<org>/<model>"``, or one from a local folder, ``"hf:/folder"`` or ``"hf:./folder"``.

    No code of a repository is run, and weights are read from safetensors files only. A hub's errors pass through.

    Args:
        name: As in `load_backbone`.
        weights: ``"default"``, or None for what torch draws now.

    Raises:
        NotAvailableError: If the extra is missing, or the folder is, or a file in it.
        InputError: If the name or the kind of model is none that can be loaded.
        DataError: If a folder's files are damaged, or lack some weights.
    """
    if weights not in (None, "default"):
        raise InputError(f"`weights` of {name} must be 'default' or None, got {weights!r}.")
    with warnings.catch_warnings(action="ignore"):
        transformers = require("transformers", "hf")
    source = name.removeprefix("hf:")
    if not source.startswith(("/", "./", "../", "~")):
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
            raise InputError(f"`name` must be 'hf:<org>/<model>', or 'hf:/folder' or 'hf:./folder', got {name!r}.")
        if Path(source).exists():  # transformers would take it
            raise InputError(
                f"{name} may be a model on the hub or the folder here; for the folder say 'hf:./{source}'."
            )
        with _quiet(transformers), quick_when_offline("huggingface.co"):
            return _load(transformers, name, source, weights)
    folder = Path(source).expanduser()
    if not (folder / "config.json").is_file():
        raise NotAvailableError(
            f"{folder} must be a folder with config.json, preprocessor_config.json and model.safetensors, as "
            "save_pretrained writes them and `hf download <org>/<model> --local-dir FOLDER` brings them; it has no "
            "config.json."
        )
    absent = [] if (folder / "preprocessor_config.json").is_file() else ["preprocessor_config.json"]
    if weights and not [*folder.glob("*.safetensors")]:
        pickled = (
            "; pickled weights (.bin, .pt) are never loaded" if [*folder.glob("*.bin"), *folder.glob("*.pt")] else ""
        )
        absent.append(f"model.safetensors{pickled}")
    if absent:
        raise NotAvailableError(f"{folder} lacks {' and '.join(absent)}. Save the model with save_pretrained again.")
    try:
        with _quiet(transformers):
            return _load(transformers, name, str(folder), weights)
    except (InputError, DataError):
        raise
    except Exception as error:  # whatever a damaged file makes the library raise
        raise DataError(f"{folder} must hold a model that transformers loads, but it says: {_first(error)}") from error


def _load(transformers: Any, name: str, source: str, weights: str | None) -> Loaded:
    local: dict[str, Any] = {"trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **local)
    except ValueError as error:
        if "custom code" not in str(error):
            raise
        raise InputError(
            f"{name} needs code from its repository, which is never run here. Load it yourself once you trust it, and "
            "wrap it: Backbone(module, preprocess, image_size=…)."
        ) from error
    if config.model_type in _ELSEWHERE:
        raise InputError(f"{name} is a model of type {config.model_type!r}, {_ELSEWHERE[config.model_type]}.")
    preprocess = _preprocess(name, transformers.AutoImageProcessor.from_pretrained(source, **local))
    if weights is None:
        model = transformers.AutoModel.from_config(config, dtype=torch.float32, **local)
        missing: list[str] = []
    else:
        model, report = transformers.AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **local
        )
        missing = sorted(report["missing_keys"])
    for part in model.modules():
        if hasattr(part, "name_or_path"):
            part.name_or_path = ""  # a copy elsewhere is the same network
    vision, text = _vision_and_text(name, model)
    unread = _drop_unread(vision, missing)
    if lacking := [key for key in missing if key not in unread]:
        raise DataError(
            f"the weights of {name} lack {len(lacking)} tensors, such as {lacking[0]!r}, which would be random."
        )
    tower = ImageTower(
        vision, _trained_size(vision.config), _n_prefix_tokens(vision), getattr(model, "visual_projection", None)
    )
    return Loaded(tower, preprocess, FEATURES, None if text is None else _text_tower(transformers, source, model))


_ELSEWHERE = {
    "siglip2": "whose images are cut into a varying number of patches. Take one of a fixed size, such as "
    "'hf:google/siglip2-base-patch16-224'",
    "timm_wrapper": "which is timm's. Take it from there: 'timm/<name>'",
}


def _vision_and_text(name: str, model: Any) -> tuple[Any, nn.Module | None]:
    """The part that takes images, and the text transformer if both share a space."""
    vision, text = getattr(model, "vision_model", None), getattr(model, "text_model", None)
    if vision is not None and text is not None and hasattr(model, "get_image_features"):
        return vision, text
    if getattr(model, "main_input_name", None) != "pixel_values" or text is not None or vision is not None:
        raise InputError(
            f"{name} is a model of type {model.config.model_type!r}, which is no image network that gives features. "
            "Such are DINOv2, DINOv3, SigLIP, CLIP, MAE, ViT, ConvNeXt, Swin, ResNet, BEiT."
        )
    return model, None


def _drop_unread(vision: Any, missing: Sequence[str]) -> set[str]:
    """Removes what no image classifier of the family reads and what has no weights; the names of what is missing."""
    unread = {key for key in missing if key.endswith("mask_token")}  # for pretraining only
    for name, parameter in vision.named_parameters():
        if name in unread:
            parameter.data.zero_()
    pooler = getattr(vision, "pooler", None)
    untrained = {key for key in missing if key.startswith("pooler.")}
    # BERT's kind, linear and tanh, of ViT and DeiT: their classifiers read the CLS token instead.
    if pooler is not None and (untrained or any(isinstance(part, nn.Linear) for part in pooler.modules())):
        vision.pooler = None
    if hasattr(vision.config, "mask_ratio"):
        vision.config.mask_ratio = 0.0
    return unread | untrained


def _n_prefix_tokens(vision: Any) -> int:
    if vision.config.model_type == "dinov3_convnext":
        return 1  # the pooled map, put before its positions in the last norm
    return prefix_tokens(vision)


def _trained_size(config: Any) -> int | None:
    size = getattr(config, "image_size", None)
    return size[0] if isinstance(size, list | tuple) else size


def _preprocess(name: str, processor: Any) -> ProcessorPreprocess:
    settings = {key: value for key, value in processor.to_dict().items() if key not in ("processor_class", "auto_map")}
    text = json.dumps(settings, sort_keys=True)
    shape = tuple(ProcessorPreprocess(text, 0)(Image.new("RGB", (331, 247))).shape)
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise InputError(
            f"the image processor of {name} must give square images of one size, but gave the shape {shape} for one of "
            "331×247 pixels. Set its crop_size in preprocessor_config.json."
        )
    return ProcessorPreprocess(text, shape[1])


def _text_tower(transformers: Any, source: str, model: Any) -> TextTower:
    config = model.config.text_config
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        tokenizer = NoTokenizer.unless_whole(tokenizer, len(tokenizer), config.vocab_size)
    except Exception as error:  # a missing file or a missing library: the images can do without
        tokenizer = NoTokenizer(_first(error))
    length = min(config.max_position_embeddings, getattr(tokenizer, "model_max_length", config.max_position_embeddings))
    return TextTower(model.text_model, getattr(model, "text_projection", None), tokenizer, length)


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No warnings, reports and bars of the library about its own loading; what matters is raised here."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    try:
        log.set_verbosity(log.CRITICAL)
        log.disable_progress_bar()
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
