"""Heads as JSON and tensors, and back: each class by name, from a list, so that no file can name another.

A head of another class than those is stored by its tensors, and needs an instance of that class to be put into.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit.errors import InputError
from frozenkit.heads.columns import AllClasses, Columns
from frozenkit.heads.modules import AttentionHead, EfficientProbeHead, LayerMix, LayerMixHead, LinearHead, MLPHead
from frozenkit.heads.nearest import Centered, NearestMean, NearestNeighbours
from frozenkit.heads.prototypical import PrototypicalHead
from frozenkit.heads.ridge import LinearMap
from frozenkit.heads.scaling import Scaler

Options = dict[str, Any]


def _mlp(head: Any) -> Options:
    layers = list(head.layers)
    return {
        "d": layers[0].in_features,
        "k": layers[-1].out_features,
        "hidden": [layer.out_features for layer in layers[:-1] if isinstance(layer, nn.Linear)],
        "activation": next(type(layer).__name__.lower() for layer in layers if isinstance(layer, _ACTIVATIONS)),
        "dropout": next(layer.p for layer in layers if isinstance(layer, nn.Dropout)),
        "batch_norm": any(isinstance(layer, nn.BatchNorm1d) for layer in layers),
    }


def _linear(head: Any) -> Options:
    size = {"d": head.linear.in_features, "k": head.linear.out_features}
    return {**size, "normalize": head.normalize, "temperature": head.temperature}


_ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU)
# What makes an empty one of the class, whose tensors are then filled in.
_BUILT: dict[type[nn.Module], Callable[[Any], Options]] = {
    LinearHead: _linear,
    MLPHead: _mlp,
    AttentionHead: lambda h: {"d": h.linear.in_features, "k": h.linear.out_features, "heads": h.heads},
    EfficientProbeHead: lambda h: {
        "d": h.linear.in_features,
        "k": h.linear.out_features,
        "queries": len(h.queries),
        "values": isinstance(h.values, nn.Linear),
    },
    PrototypicalHead: lambda h: {"d": h.prototypes.shape[1], "k": h.prototypes.shape[0], "metric": h.metric},
    LayerMixHead: lambda h: {"dims": list(h.dims), "k": h.linear.out_features},
    LayerMix: lambda h: {"dims": [norm.normalized_shape[0] for norm in h.norms]},
    nn.Linear: lambda h: {
        "in_features": h.in_features,
        "out_features": h.out_features,
        "bias": h.bias is not None,
    },
    nn.LayerNorm: lambda h: {
        "normalized_shape": list(h.normalized_shape),
        "eps": h.eps,
        "elementwise_affine": h.elementwise_affine,
    },
    nn.BatchNorm1d: lambda h: {"num_features": h.num_features, "eps": h.eps, "affine": h.affine},
    nn.Dropout: lambda h: {"p": h.p},
    nn.GELU: lambda h: {"approximate": h.approximate},
    nn.ReLU: lambda h: {},
    nn.SiLU: lambda h: {},
    nn.Tanh: lambda h: {},
    nn.Identity: lambda h: {},
}
# Those whose constructors fit: their plain attributes; buffers and parts are stored as they are.
_FITTED: dict[type[nn.Module], tuple[str, ...]] = {
    Scaler: ("unit",),
    Centered: ("normalize",),
    NearestMean: (),
    NearestNeighbours: ("neighbours", "temperature", "k"),
    Columns: (),
    AllClasses: (),
}
_CLASSES = {cls.__name__: cls for cls in (*_BUILT, *_FITTED)}


def describe_head(head: LinearMap | nn.Module) -> tuple[Options, dict[str, Tensor]]:
    """JSON that says what a head is, and its tensors, from which `build_head` makes one that computes the same.

    Raises:
        InputError: If it computes something else than its class and tensors say, as with an edited ``forward``; or if
            more than one of its parts is of a class of your own.

    Example:
        >>> said, tensors = describe_head(LinearHead(4, 2))
        >>> said["class"], sorted(tensors)
        ('LinearHead', ['linear.bias', 'linear.weight'])
    """
    if isinstance(head, LinearMap):
        said: Options = {"class": "LinearMap", "unit": head.unit}
        return said, {"weights": head.weights, "intercept": head.intercept}
    said, tensors = _describe(head), head.state_dict()
    foreign = own_classes(said)
    if len(foreign) > 1:
        raise InputError(
            f"`head` can be saved with one part of a class that is not frozenkit's, got {', '.join(foreign)}. Put them "
            "into one module."
        )
    if not foreign:
        _check_faithful(head, build_head(said, tensors))
    return said, tensors


def build_head(
    said: Mapping[str, Any], tensors: Mapping[str, Tensor], head: nn.Module | None = None
) -> LinearMap | nn.Module:
    """The head that `describe_head` described, in eval mode.

    Args:
        said: Its JSON.
        tensors: Its tensors.
        head: An instance of the class that is not frozenkit's, where it has such a part. It is not changed.

    Raises:
        InputError: If `head` is needed and not given, given and not needed, or does not take the tensors.
    """
    if said["class"] == "LinearMap":
        if head is not None:
            raise InputError("`head` must be left out: what was saved is a linear map.")
        return LinearMap(tensors["weights"], tensors["intercept"], bool(said["unit"]))
    foreign = own_classes(said)
    if foreign and not isinstance(head, nn.Module):
        raise InputError(
            f"`head` must be given, an instance of {foreign[0]} built as the one that was saved: only its tensors are "
            "in the file, not its code."
        )
    if head is not None and not foreign:
        raise InputError(f"`head` must be left out: the file says all about its {said['class']}.")
    if head is not None and type(head).__name__ != foreign[0]:
        raise InputError(f"`head` must be an instance of {foreign[0]}, which was saved, got {type(head).__name__}.")
    try:
        return _build(said, "", tensors, copy.deepcopy(head)).eval()
    except RuntimeError as error:
        raise InputError(f"`head` must be built as the one that was saved: {' '.join(str(error).split())}") from error


def own_classes(said: Mapping[str, Any]) -> list[str]:
    """The classes in a description that are not frozenkit's or torch's, for which an instance is needed."""
    if said.get("own"):
        return [said["class"]]
    return [name for part in said.get("parts", {}).values() for name in own_classes(part)]


def _describe(module: nn.Module) -> Options:
    kind = type(module)
    if kind in _BUILT:
        return {"class": kind.__name__, "options": _BUILT[kind](module)}
    if kind in _FITTED or kind is nn.Sequential:
        said: Options = {"class": kind.__name__, "parts": {n: _describe(m) for n, m in module.named_children()}}
        if kind is nn.Sequential:
            return said
        buffers = [name for name, _ in module.named_buffers(recurse=False)]
        return {**said, "attributes": {name: getattr(module, name) for name in _FITTED[kind]}, "buffers": buffers}
    return {"class": kind.__name__, "own": True}


def _build(said: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor], own: nn.Module | None) -> nn.Module:
    if said.get("own"):
        assert own is not None
        module = own
        module.load_state_dict(_below(prefix, tensors))
        return module
    parts = {n: _build(part, f"{prefix}{n}.", tensors, own) for n, part in said.get("parts", {}).items()}
    if said["class"] == "Sequential":
        return nn.Sequential(*parts.values())
    kind = _CLASSES[said["class"]]
    if kind in _BUILT:
        with torch.device("meta"):
            module = kind(**said["options"])
        module.load_state_dict(_below(prefix, tensors), assign=True)
        return module
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    for name in said["buffers"]:
        module.register_buffer(name, tensors[prefix + name])
    for name, part in parts.items():
        module.add_module(name, part)
    for name in _FITTED[kind]:
        setattr(module, name, said["attributes"][name])
    return module


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Cloned, so that nobody trains what somebody else holds.
    return {name.removeprefix(prefix): t.clone() for name, t in tensors.items() if name.startswith(prefix)}


def _check_faithful(head: nn.Module, again: LinearMap | nn.Module) -> None:
    """Raise an `InputError` unless both give the same for the same features."""
    assert isinstance(again, nn.Module)
    device = next((t.device for t in (*head.parameters(), *head.buffers())), torch.device("cpu"))
    x = torch.randn(4, _width(head), generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        mine, its = copy.deepcopy(head).eval()(x), again.to(device)(x)
    if not torch.equal(mine.nan_to_num(), its.nan_to_num()):
        raise InputError(
            f"`head` computes something else than its class, {type(head).__name__}, and its tensors say, so that it "
            "cannot be saved. Make a class of your own of what was edited."
        )


def _width(head: nn.Module) -> int:
    """d, of the first part that tells it."""
    for module in head.modules():
        if isinstance(module, Scaler | Centered):
            return module.mean.shape[0]
        if isinstance(module, nn.Linear):
            return module.in_features
        if isinstance(module, nn.LayerNorm):
            return module.normalized_shape[0]
        if isinstance(module, PrototypicalHead):
            return module.prototypes.shape[1]
        if isinstance(module, LayerMixHead):
            return sum(module.dims)
    return 1
