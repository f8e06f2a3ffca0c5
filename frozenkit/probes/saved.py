"""Probes in a file of their own, loaded again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit._files import as_path, read_sealed
from frozenkit.errors import CacheError
from frozenkit.fingerprint import Origin
from frozenkit.heads.stored import build_head
from frozenkit.probes.probe import Probe
from frozenkit.probes.stored import VERSION


def load_probe(path: str | Path, *, head: nn.Module | None = None) -> Probe:
    """Reads what `Probe.save` wrote; it predicts what the saved one predicts, bit for bit on the same machine.

    Args:
        path: The file.
        head: Where a head of a class of your own was trained: an instance built alike. The file holds its tensors only.

    Raises:
        CacheError: If the file is damaged, of another version, or no probe.
        InputError: If `head` is needed, or not the one that was saved.

    Example:
        >>> import tempfile
        >>> from frozenkit import fit_probe
        >>> probe = fit_probe([[0.0], [0.1], [1.0], [1.1]], ["low", "low", "high", "high"], head="prototype")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     probe.save(f"{folder}/probe.safetensors")
        ...     load_probe(f"{folder}/probe.safetensors").classes
        ('high', 'low')
    """
    path = as_path(path)
    about, tensors, _ = read_sealed(path, "probe", VERSION)
    return build_probe(about, tensors, path, head)


def build_probe(about: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path, head: nn.Module | None) -> Probe:
    """The probe that `describe_probe` described.

    Raises:
        CacheError: If what the file says is nothing that we would have written.
        InputError: As `build_head` does.
    """
    try:
        return Probe(
            kind=about["kind"],
            classes=tuple(about["classes"]),
            layer=about["layer"],
            n_features=about["n_features"],
            n_train=about["n_train"],
            label_shape=tuple(about["label_shape"]),
            head=build_head(about["head"], tensors, head),
            present=torch.tensor(about["present"], dtype=torch.int64),
            strength=about["strength"],
            chosen_on=about["chosen_on"],
            choice_score=about["choice_score"],
            temperature=about["temperature"],
            strength_path=None,
            log=None,
            settings=about["settings"],
            origin=None if about["origin"] is None else Origin.from_ingredients(about["origin"]),
            given=about["given"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CacheError(f"{path} says what no probe of frozenkit says ({error!r}). Save it again.") from error
