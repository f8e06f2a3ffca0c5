"""What loading a network by name gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


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
