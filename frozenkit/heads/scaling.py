"""How features are scaled before a linear head is fitted.

It decides what a strength means and how much a single image can do:

* ``"soft"`` centres each feature j and divides it by √((var_j + v̄)/2), v̄ being the mean variance of all that vary: the
  standard deviation, shrunk half way to what is usual among its neighbours. Features of equal variance come out
  standardised, and one that hardly ever occurs cannot explode, for no scale is smaller than √(v̄/2). But one that is
  10⁴ times as large as the others, or more, leaves next to nothing of them: then there is a warning.
* ``"unit"`` brings each row to length 1 and centres; no other row has a say in what becomes of one.
* ``"none"`` only centres.
* ``"standard"`` divides by the standard deviation alone. A feature that is active in one image of n reaches at most
  √(n−1) there, but on a new image thousands: kept for comparison, not for use.
"""

import warnings

import torch
from torch import Tensor, nn

from frozenkit.errors import FrozenkitWarning, UnknownNameError


class Scaler(nn.Module):
    """The scaling that a linear head gets (see `scaling`), as a layer: fitted on train alone, then fixed.

    Args:
        train: (n, d), or (n, t, d), where means and variances are over images and tokens.
        scale: ``"soft"``, ``"unit"``, ``"none"`` or ``"standard"``.

    Example:
        >>> Scaler(torch.tensor([[0.0, 7.0], [2.0, 7.0]]), "standard")(torch.tensor([[4.0, 7.0]]))
        tensor([[3., 0.]])
    """

    mean: Tensor
    divisor: Tensor

    def __init__(self, train: Tensor, scale: str = "soft") -> None:
        super().__init__()
        if scale not in SCALES:
            raise UnknownNameError("scale", scale, SCALES)
        self.unit = scale == "unit"
        rows = self._of_length_one(train.reshape(-1, train.shape[-1]).double())
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        has_one = scale in ("soft", "standard")
        self.register_buffer("mean", mean.float())
        self.register_buffer(
            "divisor", (feature_scale(variance, mean, scale) if has_one else torch.ones_like(mean)).float()
        )

    def _of_length_one(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1) if self.unit else x

    def forward(self, x: Tensor) -> Tensor:
        """(…, d) to (…, d)."""
        return (self._of_length_one(x) - self.mean) / self.divisor


SCALES = ("soft", "unit", "none", "standard")


def feature_scale(variance: Tensor, mean: Tensor, kind: str) -> Tensor:
    """(d,) what each centred feature is divided by, from its (d,) variance and mean; 1 where there is nothing to scale.

    Args:
        variance: (d,) of train.
        mean: (d,) of train: what counts as rounding is judged by its size.
        kind: ``"soft"`` or ``"standard"``.
    """
    # Rounding leaves a constant feature a tiny deviation, which is no scale to divide by.
    constant = variance.sqrt() <= 1e-7 * mean.abs().clamp_min(1e-30)
    if kind == "soft":
        usual = variance[~constant].mean()  # a constant feature more or less changes nothing
        _warn_of_giants(variance[~constant], usual)
        variance = (variance + usual) / 2
    return torch.where(constant, 1.0, variance.sqrt())


def _warn_of_giants(variance: Tensor, usual: Tensor) -> None:
    """Warn if the mean variance is that of so few giants that most features are scaled to nothing."""
    if len(variance) and float(variance.median()) < LEAST_SHARE * float(usual):
        times = float((variance.max() / variance.median()).sqrt())
        warnings.warn(
            f"the largest of {len(variance)} features is {times:.0e} times "
            "as large as the median one, so that scale='soft' leaves next to nothing of most. Divide it, leave it out, "
            "or use scale='standard'.",
            FrozenkitWarning,
            stacklevel=5,
        )


LEAST_SHARE = 1e-8  # of the mean variance; with less, most features lie below the smallest strengths
