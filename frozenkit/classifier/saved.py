"""Classifiers in a file of their own, loaded again."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit._files import as_path, read_sealed
from frozenkit.classifier.card import VERSION
from frozenkit.classifier.identity import check_identity
from frozenkit.classifier.modules import FeatureExtractor, FrozenClassifier
from frozenkit.errors import CacheError, InputError
from frozenkit.fingerprint import digest_weights
from frozenkit.heads.ridge import LinearMap
from frozenkit.heads.stored import build_head
from frozenkit.networks.backbone import Backbone, check_backbone, load_backbone


def load_classifier(
    path: str | Path,
    *,
    backbone: Backbone | None = None,
    head: nn.Module | None = None,
    device: str | torch.device = "auto",
) -> FrozenClassifier:
    """Reads what `FrozenClassifier.save` wrote; it predicts what the saved one predicted.

    Not a byte is believed before the file's sha256 is verified, and the backbone is compared with the one that the
    classifier was made with: weights, preprocessing, and what its layers give. A seal shows damage; it does not show
    who wrote the file. No code is loaded from it. The backbone is loaded by its name, as `load_backbone` does, which
    may download it.

    Args:
        path: The file.
        backbone: The backbone, where it cannot be loaded by name: one of your own, or ``"hub:…"``, which runs code. It
            is not changed; where the file holds weights, a copy of it gets them.
        head: Where the head is of a class of your own: an instance built alike.
        device: Where to compute, as in `load_backbone`; unused if `backbone` is given.

    Raises:
        CacheError: If the file is damaged, of another version, or no classifier.
        InputError: If the backbone is not the one that the classifier was made with, or it or `head` must be given.
        NotAvailableError: If the backbone's weights are neither here nor to be downloaded.

    Example:
        >>> load_classifier("none.safetensors")
        Traceback (most recent call last):
        frozenkit.errors.CacheError: none.safetensors does not exist.
    """
    path = as_path(path)
    about, tensors, _ = read_sealed(path, "classifier", VERSION)
    try:
        said, pooling = about["backbone"], about["pooling"]
        if backbone is None:
            backbone = _load_backbone(said, bool(_below("backbone.", tensors)), device)
            advice = "Load that one and give it as backbone=…; or save the classifier with include_weights=True."
        else:
            check_backbone(backbone)
            advice = "Give that one, or leave it out where load_backbone knows its name."
        weights = _below("backbone.", tensors)
        if weights and digest_weights(backbone.module) != said["weights"]:
            backbone = _with_weights(backbone, weights, said)
        check_identity(said, backbone, pooling, advice)
        phi = FeatureExtractor(backbone, about["layers"], pooling=pooling, combine=about["combine"])
        if phi.mix is not None:
            phi.mix.load_state_dict(_below("mix.", tensors))
            phi.mix.to(backbone.device)
        built = build_head(about["head"], _below("head.", tensors), head)
        assert not isinstance(built, LinearMap)
        model = FrozenClassifier(phi, built.to(backbone.device), classes=about["classes"]).eval()
        model.temperature, model.precision = float(about["temperature"]), about["precision"]
        model.facts = about["facts"]
        return model
    except (KeyError, TypeError, AttributeError) as error:
        raise CacheError(f"{path} says what no classifier of frozenkit says ({error!r}). Save it again.") from error


def _load_backbone(said: Mapping[str, Any], has_weights: bool, device: str | torch.device) -> Backbone:
    """By the arguments that it was loaded with; where the file holds its weights, none are looked for."""
    given = said["loaded"]
    if given is None or given["name"].startswith("hub:"):
        why = "whose code is not in the file" if given is None else "which runs code of its repository"
        raise InputError(f"`backbone` must be given: this classifier was made with {said['name']!r}, {why}.")
    weights = None if has_weights else given["weights"]
    return load_backbone(
        given["name"], weights=weights, image_size=given["image_size"], seed=given["seed"], device=device
    )


def _with_weights(backbone: Backbone, weights: Mapping[str, Tensor], said: Mapping[str, Any]) -> Backbone:
    """A copy of the backbone that has these weights, and so is the one that was saved, by name as well.

    Raises:
        InputError: If they do not fit.
    """
    other = copy.copy(backbone)
    other.name, other.loaded = said["name"], said["loaded"]
    other.module = copy.deepcopy(backbone.module)
    try:
        other.module.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise InputError(
            f"`backbone` must be built as the one whose weights are in the file: {' '.join(str(error).split())[:300]}"
        ) from error
    return other


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
