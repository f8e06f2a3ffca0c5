"""Labelled rows of features as linear solvers want them: checked, weighted, scaled, chunk by chunk in float64."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit._arrays import as_tensor, check_finite, is_array, row_weights
from frozenkit.errors import DataError, InputError, UnknownNameError
from frozenkit.features import as_features, is_pair
from frozenkit.heads.scaling import SCALES, feature_scale

_CHUNK = 2**20  # values: 8 MB; their float64 copies are made over and over in the same warm memory


class Rows:
    """n rows of features in float64 chunks, wherever they are kept, with their targets."""

    def __init__(
        self, features: Any, targets: Tensor | None, sample_weight: Tensor | str | None = None, scale: str = "none"
    ) -> None:
        if scale not in SCALES:
            raise UnknownNameError("scale", scale, SCALES)
        self.scale = scale
        if targets is None and is_pair(features):
            features, targets = features
        if is_array(features):  # not made a set of: float64 stays float64
            x, self.ids = as_tensor(features, "features"), None
            self._split: Callable[[int], Iterable[Tensor]] = x.split
            shape = tuple(x.shape)
        else:
            data = as_features(features, "features", labelled=False)
            self._split = lambda rows: (part for part, _ in data.batches(rows))
            shape, self.ids = data.shape, data.ids
            targets = data.labels if targets is None else targets
        if targets is None:
            raise InputError("`targets` must be given, since `features` carries no labels.")
        self.targets = as_tensor(targets, "targets")
        if not self.targets.is_floating_point():
            self.targets = self.targets.long()
        if len(shape) != 2:
            raise InputError(f"`features` must be (n, d), got shape {shape}. Pool tokens first.")
        self.n, self.d = shape
        self.chunk = min(4096, max(64, _CHUNK // max(1, self.d)))  # rows
        if len(self.targets) != self.n:
            raise InputError(
                f"`targets` must have one row for each of {self.n} rows of features, got {len(self.targets)}."
            )
        if self.n < 2:
            raise DataError(f"`features` must have at least two rows to fit and leave one out, got {self.n}.")
        if self.targets.is_floating_point():
            check_finite(self.targets, "targets", self.ids)
        self.weights = row_weights(sample_weight, self.targets)  # (n,) float64 of mean 1

    def chunks(self, rows: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """(first row, (m, d) float64) until all rows were seen."""
        start = 0
        for x in self._split(rows or self.chunk):
            yield start, self._of_length_one(x.cpu().double())
            start += len(x)

    def _of_length_one(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=1) if self.scale == "unit" else x

    def scaled(self, mean: Tensor, scale: Tensor, rows: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """(first row, (m, d) float64 centred and scaled), where `mean` is."""
        for start, chunk in self.chunks(rows):
            yield start, (chunk.to(mean.device) - mean).div_(scale)

    def moments(self) -> tuple[Tensor, Tensor]:
        """(d,) mean and (d,) scale, both float64; a feature without a scale of its own has 1."""
        total = torch.zeros(self.d, dtype=torch.float64)
        for start, x in self.chunks():
            part = x.sum(0)  # NaN and infinity stay in a sum, and float32 values cannot overflow it
            if not torch.isfinite(part).all():
                check_finite(x, "features", self.ids, start)
            total += self.weights[start : start + len(x)] @ x
        mean = total / self.n
        if self.scale in ("none", "unit"):
            return mean, torch.ones_like(mean)
        squares = torch.zeros_like(mean)
        for start, x in self.chunks():
            squares += self.weights[start : start + len(x)] @ (x - mean).square_()
        return mean, feature_scale(squares / self.n, mean, self.scale)


def coded_targets(targets: Tensor, n_classes: int | None) -> Tensor:
    """(n, k) float64: ±1 for labels, the values themselves for regression."""
    if targets.is_floating_point():
        return targets.double().reshape(len(targets), -1)
    if targets.ndim != 1 or int(targets.min()) < 0:
        raise InputError("integer `targets` must be (n,) class indices from 0 on.")
    if len(targets.unique()) < 2:
        raise DataError("`targets` must hold at least two classes, got one: there is nothing to tell apart.")
    return torch.nn.functional.one_hot(targets.long(), n_classes or -1).double() * 2 - 1


def checked_strengths(strengths: Sequence[float]) -> Tensor:
    """(s,) float64, ascending."""
    grid = as_tensor(strengths if is_array(strengths) else [strengths], "strengths").double().flatten()
    if len(grid) == 0 or not torch.isfinite(grid).all() or grid.min() <= 0:
        raise InputError(
            f"`strengths` must be finite numbers above 0, got {grid[:5].tolist()}. For hardly any, try 1e-6."
        )
    return grid.sort().values


def strength_index(strengths: Tensor, strength: float) -> int:
    """Where a strength lies in a path that has fits at its own strengths alone."""
    index = int((strengths.log() - math.log(max(float(strength), 1e-300))).abs().argmin())
    nearest = float(strengths[index])
    if not abs(nearest - strength) <= 1e-6 * nearest:
        raise InputError(f"`strength` must be one of the path's, got {strength!r}; the nearest is {nearest:.6g}.")
    return index


def eigenpairs(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors (columns), without directions that do not vary beyond rounding.

    Args:
        gram: (m, m) symmetric; only its lower triangle is read.
    """
    if gram.device.type == "cpu":  # LAPACK as scipy builds it takes half the time of torch's on some machines
        from scipy.linalg import eigh

        found = eigh(gram.numpy(), driver="evd", overwrite_a=True, check_finite=False)
        eigenvalues, vectors = (torch.from_numpy(part) for part in found)
    else:
        eigenvalues, vectors = torch.linalg.eigh(gram)
    check_varying(eigenvalues)
    keep = eigenvalues > eigenvalues.amax() * 1e-12
    return eigenvalues[keep], vectors[:, keep]


def check_varying(eigenvalues: Tensor) -> None:
    """Raise if no direction varies: there is nothing to fit on features that are the same for every image."""
    if not eigenvalues.amax() > 0:
        raise DataError(
            "`features` must vary from row to row, but all rows are the same. Look at the images: are they all alike?"
        )
