"""What loading a network by name gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from frozenkit.errors import NotAvailableError

FEATURES = "features"  # the layer with what a tower gives for a whole image


@dataclass(frozen=True)
class Loaded:
    """A network with its own preprocessing, and with what only its library knows about it.

    Attributes:
        module: (b, 3, h, w) → one tensor.
        preprocess: PIL image → (3, image_size, image_size) float32; tells its `image_size` and has ``at(image_size)``.
        default_layer: Where the features are that its library gives for a whole image; None lets `Backbone` find it.
        text: The text tower of a network that was trained with one: a list of m strings → (m, d), comparable with the
            features of the default layer.
    """

    module: nn.Module
    preprocess: Callable[..., Any]
    default_layer: str | None = None
    text: nn.Module | None = None


@dataclass(frozen=True)
class NoTokenizer:
    """Stands where a text tower's tokenizer could not be loaded; images do without.

    Attributes:
        reason: What the library said.
    """

    reason: str

    def error(self) -> NotAvailableError:
        """What to raise once somebody wants it."""
        return NotAvailableError(
            f"the text tower needs its tokenizer, which could not be loaded ({self.reason}). The files tokenizer.json "
            "and tokenizer_config.json belong beside the configuration."
        )

    @classmethod
    def unless_whole(cls, tokenizer: Any, n_known: int, n_rows: int) -> Any:
        """The tokenizer itself, unless it fits the tower's table no better than one that is made without its files."""
        fits = n_rows // 2 <= n_known <= n_rows
        return tokenizer if fits else cls(f"it knows {n_known} tokens where the tower knows {n_rows}")
