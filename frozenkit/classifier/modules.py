"""g∘φ as one module: a frozen network that gives features, and the head on them; what you ship."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from frozenkit.errors import InputError
from frozenkit.heads.modules import LayerMix
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.networks.layers import POOLINGS, pooled_activations, pooled_shape


class FeatureExtractor(nn.Module):
    """φ as a module: preprocessed images in, pooled features out; the backbone stays frozen and in eval mode.

    Args:
        backbone: From `load_backbone`, or your own.
        layers: Names from ``backbone.layers``; default the penultimate one.
        pooling: As in `extract`, but ``"tokens"`` only for a single layer.
        combine: ``"concat"``, ``"mean"`` (equal widths), or ``"learned"``: a `LayerMix`, the only part that trains.

    Attributes:
        output_dim: d, the width of the result.

    Example:
        >>> from frozenkit import load_backbone
        >>> phi = FeatureExtractor(load_backbone(image_size=64, device="cpu"), ["blocks.4", "blocks.6"])
        >>> phi.train()(torch.zeros(2, 3, 64, 64)).shape, phi.output_dim
        (torch.Size([2, 432]), 432)
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: str | Sequence[str] | None = None,
        *,
        pooling: str = "mean",
        combine: str = "concat",
    ) -> None:
        super().__init__()
        check_backbone(backbone)
        if combine not in ("concat", "mean", "learned"):
            raise InputError(f"`combine` must be 'concat', 'mean' or 'learned', got {combine!r}.")
        if pooling not in POOLINGS:
            raise InputError(f"`pooling` must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
        self.layers = backbone.check_layers(layers)
        if pooling == "tokens" and len(self.layers) > 1:
            raise InputError("`pooling='tokens'` works with one layer: others have other numbers of tokens.")
        self.module = backbone.module
        self.pooling = pooling
        self.combine = combine
        self._trace = backbone.trace()
        widths = [pooled_shape(self._trace, name, pooling)[-1] for name in self.layers]
        if combine == "mean" and len(set(widths)) > 1:
            raise InputError(f"`combine='mean'` needs layers of one width, got {widths}. Use 'concat' or 'learned'.")
        self.mix = LayerMix(widths) if combine == "learned" else None
        self.output_dim = sum(widths) if combine == "concat" else max(widths)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Train mode for the mix, if there is one; never for the backbone."""
        super().train(mode)
        self.module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) preprocessed images to (b, output_dim) features."""
        with torch.no_grad():
            pooled = pooled_activations(self.module, images, self.layers, self.pooling, self._trace)
        if self.mix is not None:
            return self.mix([pooled[name] for name in self.layers])
        members = [pooled[name] for name in self.layers]
        return torch.cat(members, -1) if self.combine == "concat" else torch.stack(members).mean(0)


class FrozenClassifier(nn.Module):
    """g∘φ as one module: images in, logits out; only the head ever moves.

    Args:
        extractor: φ, such as a `FeatureExtractor`. It stays in eval mode, also under ``.train()``, and gets no
            gradient, except its learned mix of layers (``extractor.mix``) where it has one: that is part of the head.
        head: g, a module. Of a ridge or softmax probe that is
            ``LinearHead.from_map(probe.head.weights, probe.head.intercept)``.

    Raises:
        InputError: If one of both is no module.

    Example:
        >>> from frozenkit import LinearHead
        >>> model = FrozenClassifier(nn.Flatten(), LinearHead(12, 2)).train()
        >>> model(torch.zeros(5, 3, 2, 2)).shape, sum(p.numel() for p in model.trainable_parameters())
        (torch.Size([5, 2]), 26)
    """

    def __init__(self, extractor: nn.Module, head: nn.Module) -> None:
        super().__init__()
        for name, part in {"extractor": extractor, "head": head}.items():
            if not isinstance(part, nn.Module):
                advice = {
                    "Probe": " Of a ridge or softmax probe: LinearHead.from_map(probe.head.weights, "
                    "probe.head.intercept); of another, probe.head.",
                    "Backbone": " Wrap it: FeatureExtractor(backbone).",
                }.get(type(part).__name__, "")
                raise InputError(f"`{name}` must be a torch module, got {type(part).__name__}.{advice}")
        self.extractor = extractor
        self.head = head
        mix = getattr(extractor, "mix", None)
        learned = {id(p) for p in mix.parameters()} if isinstance(mix, nn.Module) else set()
        for parameter in extractor.parameters():
            parameter.requires_grad_(id(parameter) in learned)
        self._learns_mix = bool(learned)
        self.train(self.training)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """What an optimiser may have: the head's parameters, and those of a learned mix of layers."""
        return (p for p in self.parameters() if p.requires_grad)

    def train(self, mode: bool = True) -> "FrozenClassifier":
        """Train mode for the head alone."""
        super().train(mode)
        self.extractor.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) preprocessed images to (b, k)."""
        if self._learns_mix:
            return self.head(self.extractor(images))  # the extractor itself keeps gradients out of the backbone
        with torch.no_grad():
            features = self.extractor(images)
        return self.head(features)
