"""What made these numbers? Digests, and a fingerprint whose ingredients stay readable."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

# Part of every fingerprint. Raise it whenever the same ingredients would give other numbers or another file layout.
FORMAT = 2


@dataclass(frozen=True)
class Fingerprint:
    """Everything that decides the value of stored features, and its digest.

    Attributes:
        ingredients: Name to a JSON value; every one counts, defaults included.

    Example:
        >>> a = Fingerprint({"layer": "blocks.6", "pooling": "mean"})
        >>> b = Fingerprint({"layer": "blocks.6", "pooling": "max"})
        >>> a.digest == b.digest, a.differences(b)
        (False, {'pooling': ('mean', 'max')})
    """

    ingredients: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits, the same on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(dict(self.ingredients), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def differences(self, other: "Fingerprint") -> dict[str, tuple[Any, Any]]:
        """Ingredient to (mine, theirs), for each that differs."""
        names = sorted({*self.ingredients, *other.ingredients})
        pairs = {name: (self.ingredients.get(name), other.ingredients.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and every buffer, those that `state_dict` leaves out included."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def digest_tensor(tensor: Tensor) -> str:
    """A digest of shape, dtype and every bit.

    Example:
        >>> import torch
        >>> digest_tensor(torch.tensor([0.0])) == digest_tensor(torch.tensor([-0.0]))
        False
    """
    data = tensor.detach().cpu().contiguous()
    header = f"{data.dtype}{tuple(data.shape)}".encode()
    # As bytes: NumPy has no bfloat16. Flattened first: a 0-dimensional tensor has no byte view.
    return hashlib.sha256(header + data.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def digest_module(module: nn.Module) -> str:
    """A digest of a module's structure (its `repr`) and of all its parameters and buffers."""
    total = hashlib.sha256(repr(module).encode())
    for name, tensor in named_tensors(module):
        total.update(f"{name}={digest_tensor(tensor)}".encode())
    return total.hexdigest()
