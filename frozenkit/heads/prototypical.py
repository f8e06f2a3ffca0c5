"""The prototypical head, for few shots, and what all heads share."""

import math

import torch
from torch import Tensor, nn

from frozenkit._arrays import as_tensor, check_finite, whole_number
from frozenkit.errors import DataError, InputError, UnknownNameError


class PrototypicalHead(nn.Module):
    """One prototype a class; the logit is the similarity to it, divided by a learned temperature.

    Made for few shots: `fit_means` starts from the class means, and no step of training is needed. Training goes on
    from there. (Snell et al., 2017, Prototypical networks, equations 1 and 2; cosine as in Gidaris
    and Komodakis, 2018.)

    Args:
        d: Width of the features.
        k: Number of classes.
        metric: ``"cosine"``: cosine similarity; ``"euclidean"``: minus the squared distance.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0]])
        >>> PrototypicalHead(2, 2).fit_means(x, torch.tensor([0, 0, 1]))(x).argmax(1)
        tensor([0, 0, 1])
    """

    def __init__(self, d: int, k: int, *, metric: str = "cosine") -> None:
        super().__init__()
        check_sizes(d=d, k=k)
        if metric not in ("cosine", "euclidean"):
            raise UnknownNameError("metric", metric, ["cosine", "euclidean"])
        self.metric = metric
        self.prototypes = nn.Parameter(torch.randn(k, d) / d**0.5)
        # Trained as its logarithm, so that it stays positive. Cosines span only [−1, 1]; at T = 1 they hardly differ.
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.1 if metric == "cosine" else 1.0)))

    @property
    def temperature(self) -> float:
        """T > 0."""
        return float(self._temperature().detach())

    def fit_means(self, features: Tensor, labels: Tensor) -> "PrototypicalHead":
        """Sets the prototypes to the class means, in closed form; returns the head.

        With ``"cosine"`` each row has length 1 before it is averaged. With ``"euclidean"`` the temperature becomes
        2σ², σ² being the variance within classes: then softmax of the logits is the class probability under Gaussian
        classes of one spherical covariance, as equally many.

        Args:
            features: (n, d), or (n, t, d) to be averaged.
            labels: (n,) int64 in 0..k−1; each class at least once.

        Raises:
            InputError: If shapes do not fit, or a label is out of range.
            DataError: If a class has no row, or a row is not finite.
        """
        k, d = self.prototypes.shape
        x = as_tensor(features, "features").to(self.prototypes.device)
        x = averaged(x if x.dtype == torch.float64 else x.float())
        y = as_tensor(labels, "labels").to(x.device)
        y = y if y.is_floating_point() else y.long()
        if x.ndim != 2 or x.shape[1] != d or y.shape != x.shape[:1] or y.is_floating_point():
            raise InputError(
                f"`features` must be (n, {d}) with (n,) integer labels, got {tuple(x.shape)} and {tuple(y.shape)}."
            )
        if not len(y) or int(y.min()) < 0 or int(y.max()) >= k:
            raise InputError(f"`labels` must lie in 0..{k - 1}, and there must be some.")
        check_finite(x, "features")
        counts = torch.bincount(y, minlength=k)
        if int(counts.min()) == 0:
            missing = (counts == 0).nonzero().flatten().tolist()
            raise DataError(f"every class must have at least one row, but {missing[:5]} have none.")
        if self.metric == "cosine":
            x = _unit(x)
        x = x.double()
        means = torch.zeros(k, d, dtype=x.dtype, device=x.device).index_add_(0, y, x) / counts.unsqueeze(1)
        with torch.no_grad():
            self.prototypes.copy_(means)
            spare = (len(y) - k) * d  # with one shot a class there is no variance to see
            variance = float((x - means[y]).square().sum()) / spare if spare > 0 else 0.0
            if self.metric == "euclidean" and variance > 0:
                self.log_temperature.fill_(math.log(2 * variance))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(b, d) or (b, t, d) to (b, k)."""
        if self.metric == "cosine":
            similarity = _unit(averaged(x).float()) @ _unit(self.prototypes.float()).T
        else:
            # Squared, float16 overflows beyond a length of 256; what float32 can hold never overflows float64.
            middle = self.prototypes.detach().double().mean(0)  # differences lose fewer digits near the origin
            similarity = _minus_squared_distances(averaged(x).double() - middle, self.prototypes.double() - middle)
        # The largest logit of a row becomes 0. Softmax does not care, but exp of what comes out can no longer overflow.
        shifted = similarity - similarity.detach().amax(1, keepdim=True)
        return (shifted / self._temperature()).clamp_min(-1e30).float()

    def _temperature(self) -> Tensor:
        return self.log_temperature.float().clamp(-20, 60).exp()


def averaged(x: Tensor) -> Tensor:
    """(b, d) from (b, d) or (b, t, d)."""
    return x.mean(1) if x.ndim == 3 else x


def check_sizes(**sizes: int) -> None:
    """Raises an `InputError` that names the first size that is not a whole number of at least 1."""
    for name, value in sizes.items():
        whole_number(name, value)


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1; scaled by their largest entry first, so that squares neither overflow nor vanish."""
    x = x / x.detach().abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return nn.functional.normalize(x, dim=-1)


def _minus_squared_distances(x: Tensor, prototypes: Tensor) -> Tensor:
    """(b, k) minus squared distances, by one product instead of (b, k, d) differences."""
    return 2 * x @ prototypes.T - x.square().sum(1, keepdim=True) - prototypes.square().sum(1)
