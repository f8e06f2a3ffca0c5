"""What leaves the layers of a network: pooled activations of a batch, in a pass that ends after the last one wanted."""

import math
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from frozenkit.errors import ActivationError, InputError
from frozenkit.layers import Trace, hooked

POOLINGS = ("mean", "max", "pyramid", "flatten", "tokens", "cls")


def pooled_activations(
    module: nn.Module, images: Tensor, layers: Sequence[str], pooling: str, trace: Trace
) -> dict[str, Tensor]:
    """Pooled float32 activations of one batch; the pass ends as soon as the last layer wanted has finished.

    Gradients flow where the caller has them on. Each hook pools, and thereby copies, at once: a later in-place
    activation cannot reach what it keeps.

    Raises:
        ActivationError: If a layer did not run.
    """
    pooled: dict[str, Tensor] = {}

    def note(name: str, output: object) -> None:
        if name in pooled:
            raise ActivationError(
                f"the layer {name!r} ran twice in one pass. List those that run once: backbone.layers."
            )
        pooled[name] = pool(output, pooling, trace.is_channels_last(name), trace.prefix(name))  # type: ignore[arg-type]
        if len(pooled) == len(layers):
            raise _Stop

    if images.ndim == 4:  # convolutions then read pixels whole: two thirds of the time, in float32 too
        images = images.to(memory_format=torch.channels_last)
    with hooked(module, note, layers, trace.classifiers), suppress(_Stop):
        module(images)
    if silent := [name for name in layers if name not in pooled]:
        raise ActivationError(f"the layer {silent[0]!r} did not run. List those that do with backbone.layers.")
    return pooled


def pool(output: Tensor, pooling: str, channels_last: bool = False, n_prefix: int = 0) -> Tensor:
    """Activations to features; the result is float32 and owns its memory.

    Args:
        output: (b, c, h, w), or (b, h, w, c) if `channels_last`, or (b, t, d) tokens, or (b, d).
        pooling: See `extract`.
        n_prefix: How many of the tokens are CLS, distillation or register tokens, which stand first and are no patches.

    Example:
        >>> pool(torch.ones(2, 3, 8, 8), "pyramid").shape
        torch.Size([2, 63])
    """
    x = output.float()
    if x.ndim == 4 and channels_last:
        x = x.permute(0, 3, 1, 2)
    if x.ndim == 2:
        if pooling in ("tokens", "cls"):
            raise InputError(f"`pooling={pooling!r}` needs tokens or a map, but this layer gives one vector an image.")
        return x.clone()
    if pooling == "flatten":
        return x.flatten(1).clone(memory_format=torch.contiguous_format)
    if pooling == "cls":
        if x.ndim != 3:
            raise InputError("`pooling='cls'` takes the first token of a transformer, but this layer gives a map.")
        if n_prefix < 1:
            raise InputError(
                "`pooling='cls'` needs a CLS token, but this layer has patches only. Take 'mean', or say "
                "`n_prefix_tokens` to `Backbone`."
            )
        return x[:, 0].clone()
    if x.ndim == 3:
        x = x[:, n_prefix:]
    if pooling == "tokens":
        return (x.flatten(2).transpose(1, 2) if x.ndim == 4 else x).clone(memory_format=torch.contiguous_format)
    if pooling == "mean":
        return x.mean((2, 3)) if x.ndim == 4 else x.mean(1)
    if pooling == "max":
        return x.amax((2, 3)) if x.ndim == 4 else x.amax(1)
    if x.ndim == 3:
        side = math.isqrt(x.shape[1])
        if side**2 != x.shape[1]:
            raise InputError(
                f"`pooling='pyramid'` needs a square of patches, but this layer gives {x.shape[1]} tokens. Take 'mean'."
            )
        x = x.transpose(1, 2).unflatten(2, (side, side))
    cells = [nn.functional.adaptive_avg_pool2d(x, size).flatten(1) for size in (1, 2, 4)]
    return torch.cat(cells, 1)


class _Stop(BaseException):
    """Ends a forward pass; not an `Exception`, so that no module's own except clause catches it."""


def pooled_shape(trace: Trace, layer: str, pooling: str) -> tuple[int, ...]:
    """Shape of one image's features: (d,), or (t, d) for tokens."""
    imaginary = torch.empty(1, *trace.outputs[layer], device="meta")
    return tuple(pool(imaginary, pooling, trace.is_channels_last(layer), trace.prefix(layer)).shape[1:])
