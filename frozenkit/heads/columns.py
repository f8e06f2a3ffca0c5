"""Where some classes have no training image: the outputs of a head for those that have, and for all."""

import torch
from torch import Tensor, nn


class Columns(nn.Module):
    """The outputs for some classes alone.

    Args:
        kept: (p,) indices of those classes.

    Example:
        >>> Columns(torch.tensor([0, 2]))(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 3.]])
    """

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, logits: Tensor) -> Tensor:
        """(b, k) to (b, p)."""
        return logits[:, self.kept]


class AllClasses(nn.Module):
    """The logits of a head for all k classes: −∞ for those that it does not know.

    Args:
        present: (p,) ascending indices, in 0..k−1, of the classes that it knows.
        k: Number of all classes.

    Example:
        >>> AllClasses(torch.tensor([0, 2]), 3)(torch.tensor([[1.0, 3.0]]))
        tensor([[1., -inf, 3.]])
    """

    place: Tensor

    def __init__(self, present: Tensor, k: int) -> None:
        super().__init__()
        place = torch.full((k,), len(present))  # of what is appended
        place[present] = torch.arange(len(present))
        self.register_buffer("place", place)

    def forward(self, logits: Tensor) -> Tensor:
        """(b, p) to (b, k)."""
        absent = logits.new_full((logits.shape[0], 1), -torch.inf)
        return torch.cat([logits, absent], 1)[:, self.place]
