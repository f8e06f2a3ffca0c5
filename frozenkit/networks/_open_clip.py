"""The two towers of open_clip's models: images through the one, sentences through the other."""

import functools
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from frozenkit.errors import DataError, InputError, NotAvailableError, UnknownNameError, require
from frozenkit.networks._hub import quick_when_offline
from frozenkit.networks._loaded import FEATURES, Loaded, NoTokenizer
from frozenkit.networks.layers import prefix_tokens


@dataclass(frozen=True)
class ClipPreprocess:
    """PIL image to tensor by open_clip's transform for inference, whose settings are all there is to it.

    A plain value, so that it can be part of a fingerprint and travel to another process.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill_color: int

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, image_size, image_size) float32."""
        return _transform(self)(image.convert("RGB"))

    def at(self, image_size: int) -> "ClipPreprocess":
        """The same preprocessing at another size."""
        return ClipPreprocess(image_size, self.mean, self.std, self.interpolation, self.resize_mode, self.fill_color)


@functools.lru_cache(maxsize=8)
def _transform(settings: ClipPreprocess) -> Any:
    return require("open_clip.transform", "clip").image_transform(
        settings.image_size,
        is_train=False,
        mean=settings.mean,
        std=settings.std,
        interpolation=settings.interpolation,
        resize_mode=settings.resize_mode,
        fill_color=settings.fill_color,
    )


class ClipImageTower(nn.Module):
    """The image half: its features are projected into the space that is shared with sentences, lengths kept."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        self.features = nn.Identity()  # a name for the result
        trunk = getattr(visual, "trunk", None)  # of timm
        self.num_prefix_tokens = prefix_tokens(visual if trunk is None else trunk)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) → (b, d)."""
        output = self.visual(images)
        return self.features(output[0] if isinstance(output, tuple) else output)  # CoCa gives its tokens too


class ClipTextTower(nn.Module):
    """The text half.

    Args:
        model: A model of open_clip; its image half is taken off.
        tokenize: Its tokenizer, or why there is none.
    """

    def __init__(self, model: Any, tokenize: Any) -> None:
        super().__init__()
        model.visual = nn.Identity()
        self.model = model
        self.tokenize = tokenize

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """m sentences → (m, d)."""
        if isinstance(self.tokenize, NoTokenizer):
            raise self.tokenize.error()
        return self.model.encode_text(self.tokenize(list(prompts)).to(next(self.parameters()).device))


def load_open_clip(name: str, weights: str | None, image_size: int | None) -> Loaded:
    """The model ``"open_clip:<model>/<tag>"``; ``<tag>`` may be a file of weights, and the whole a local folder.

    Weights are read from safetensors, or by torch without unpickling code. A hub's errors pass through.

    Args:
        name: As in `load_backbone`.
        weights: ``"default"``, or None for what torch draws now.
        image_size: Side of the images that it is built for, pixels; None takes that of training.

    Raises:
        NotAvailableError: If the extra is missing, or the folder or file is.
        InputError: If the name is none that can be loaded, or the model takes no other size.
        DataError: If a folder's files are damaged.
    """
    if weights not in (None, "default"):
        raise InputError(f"`weights` of {name} must be 'default' or None, got {weights!r}: name the tag, model/tag.")
    with warnings.catch_warnings(action="ignore"):
        open_clip = require("open_clip", "clip")
    source = name.removeprefix("open_clip:").removeprefix("local-dir:")
    if source.startswith(("/", "./", "../", "~")):
        folder = Path(source).expanduser()
        _check_folder(folder, weights)
        with _reported(str(folder)), _quiet():
            return _load(open_clip, f"local-dir:{folder}", None, weights, image_size)
    if source.startswith("hf-hub:"):
        with _quiet(), quick_when_offline("huggingface.co"):
            return _load(open_clip, source, None, weights, image_size)
    model, _, tag = source.partition("/")
    if model not in open_clip.list_models():
        raise UnknownNameError(
            "name",
            f"open_clip:{model}",
            [f"open_clip:{known}" for known in open_clip.list_models()],
            hint="A local folder is 'open_clip:/folder' or 'open_clip:./folder'.",
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    file = tag if tag.startswith(("/", "./", "../", "~")) else None
    if file is None and weights and not tags:
        raise InputError(
            f"`name` must name weights, but none were published for {model}. Name a file of yours, "
            f"'open_clip:{model}//folder/file.safetensors', or take weights=None for random ones."
        )
    if file is None and not (tag == "" and weights is None) and not open_clip.get_pretrained_cfg(model, tag):
        raise UnknownNameError("name", f"open_clip:{source}", [f"open_clip:{model}/{known}" for known in tags])
    if file is None:
        with _quiet(), quick_when_offline("huggingface.co") if weights else nullcontext():
            return _load(open_clip, model, tag, weights, image_size)
    path = Path(file).expanduser()
    if not path.is_file():
        raise NotAvailableError(f"the weights of {name} must be a file, but {path} is none.")
    with _reported(str(path)), _quiet():
        return _load(open_clip, model, str(path), weights, image_size)


def _check_folder(folder: Path, weights: str | None) -> None:
    absent = [] if (folder / "open_clip_config.json").is_file() else ["open_clip_config.json"]
    if weights and not any([*folder.glob(f"*.{kind}")] for kind in ("safetensors", "bin", "pth")):
        absent.append("open_clip_model.safetensors")
    if absent:
        raise NotAvailableError(
            f"{folder} must be a folder with open_clip_config.json and open_clip_model.safetensors, as `hf download "
            f"<org>/<model> --local-dir FOLDER` brings them; it lacks {' and '.join(absent)}."
        )


def _load(open_clip: Any, model_name: str, tag: str | None, weights: str | None, image_size: int | None) -> Loaded:
    published = open_clip.get_pretrained_cfg(model_name, tag) if tag else {}
    config = open_clip.get_model_config(model_name)
    text = config["text_cfg"]
    if remote := text.get("hf_model_name"):  # asked for here first: open_clip would ask whether to run its code
        require("transformers", "hf").AutoConfig.from_pretrained(remote, trust_remote_code=False)
    # Weights that were trained with OpenAI's approximation of GELU need it, whatever the architecture's name says.
    quick, named_quick = bool(published.get("quick_gelu")), bool(config.get("quick_gelu"))
    if published and named_quick and not quick:
        plain = model_name.removesuffix("-quickgelu")
        raise InputError(f"the weights {tag!r} were trained without quick GELU: take 'open_clip:{plain}/{tag}'.")
    try:
        model = open_clip.create_model(
            model_name,
            tag if weights else None,
            load_weights=bool(weights),
            require_pretrained=bool(weights),
            pretrained_text=False,
            force_quick_gelu=quick,
            force_image_size=image_size,
            force_preprocess_cfg={key: published[key] for key in _PREPROCESSING if key in published},
            weights_only=True,
        )
    except (RuntimeError, AssertionError) as error:
        if image_size is None or "size" not in str(error):
            raise
        raise InputError(
            f"`image_size` of {model_name} cannot be {image_size}: {_first(error)}. Leave it out."
        ) from error
    settings = model.visual.preprocess_cfg
    size = settings["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise InputError(f"{model_name} takes images of {size} pixels, but backbones here take square ones.")
    preprocess = ClipPreprocess(
        sides.pop(),
        tuple(settings["mean"]),
        tuple(settings["std"]),
        settings["interpolation"],
        settings["resize_mode"],
        settings["fill_color"],
    )
    tower = ClipImageTower(model.visual)
    return Loaded(tower, preprocess, FEATURES, ClipTextTower(model, _tokenizer(open_clip, model_name, model, text)))


_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")


def _tokenizer(open_clip: Any, model_name: str, model: Any, config: Any) -> Any:
    options = {"trust_remote_code": False} if config.get("hf_tokenizer_name") else {}
    try:
        tokenizer = open_clip.get_tokenizer(model_name, **options)
    except Exception as error:  # a missing file or a missing library: the images can do without
        return NoTokenizer(_first(error))
    inner = getattr(tokenizer, "tokenizer", None)  # transformers'
    if inner is None:
        return tokenizer
    return NoTokenizer.unless_whole(tokenizer, len(inner), getattr(model, "text", model).vocab_size)


def _first(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


@contextmanager
def _reported(path: str) -> Iterator[None]:
    """Whatever a damaged local file makes the library raise, as a `DataError` that names it."""
    try:
        yield
    except (InputError, DataError, NotAvailableError):
        raise
    except Exception as error:
        raise DataError(f"{path} must hold a model that open_clip loads, but it says: {_first(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and logging of the library about its own loading; what matters is raised here."""
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers  # a first message to the root logger gives it one
