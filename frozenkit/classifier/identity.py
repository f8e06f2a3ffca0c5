"""Which backbone is it? What a saved classifier says of its own, and how another is compared with that."""

from collections.abc import Mapping, Sequence
from typing import Any

from frozenkit.errors import InputError
from frozenkit.extraction.key import probe_backbone
from frozenkit.fingerprint import behaviours, digest_weights, stable_repr
from frozenkit.networks.backbone import Backbone


def describe_backbone(backbone: Backbone, layers: Sequence[str], pooling: str) -> dict[str, Any]:
    """JSON by which `check_identity` knows this backbone again, on any machine.

    Weights and buffers count bit by bit, preprocessing by every byte of what it makes of fixed images, and the network
    by what these layers give for one of them, rounding aside (see `frozenkit.fingerprint.behaviours`).

    Raises:
        InputError: If preprocessing is random, or does not take any RGB image.
    """
    preprocessed, outputs = probe_backbone(backbone, layers, pooling)
    return {
        "name": backbone.name,
        "loaded": backbone.loaded,
        "image_size": backbone.image_size,
        "parameters": sum(p.numel() for p in backbone.module.parameters()),
        "weights": digest_weights(backbone.module),
        "preprocess": stable_repr(backbone.preprocess)[:500],
        "preprocess_digest": preprocessed,
        "outputs": {layer: behaviours(outputs[layer]) for layer in layers},
    }


def check_identity(said: Mapping[str, Any], backbone: Backbone, pooling: str, advice: str) -> None:
    """Raise an `InputError` that says what differs, unless this is the backbone that `describe_backbone` described."""
    if backbone.image_size != said["image_size"]:
        differs = f"it takes images of {said['image_size']} px, and this one {backbone.image_size}"
    elif digest_weights(backbone.module) != said["weights"]:
        differs = "its weights are others"
    else:
        differs = _difference(said, backbone, pooling)
    if differs:
        raise InputError(
            f"`backbone` must be the one that this classifier was made with, {said['name']!r}, but {differs}. {advice}"
        )


def _difference(said: Mapping[str, Any], backbone: Backbone, pooling: str) -> str:
    layers = list(said["outputs"])
    if missing := [layer for layer in layers if layer not in backbone.layers]:
        return f"this one has no layer {missing[0]!r}"
    preprocessed, outputs = probe_backbone(backbone, layers, pooling)
    if preprocessed != said["preprocess_digest"]:
        return (
            f"its preprocessing, {said['preprocess']}, gave other numbers than {stable_repr(backbone.preprocess)[:200]}"
        )
    for layer in layers:
        then, now = said["outputs"][layer], behaviours(outputs[layer])
        if then[0] not in now and now[0] not in then:
            return (
                f"with the same weights its layer {layer!r} gave other numbers, in other code or another version of it"
            )
    return ""
