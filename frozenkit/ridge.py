"""Ridge regression for a whole path of strengths, from one eigendecomposition, with exact leave-one-out.

Written with X (n, d) standardised and centred, Y (n, k) centred, α = λ·n, and XᵀX = B·diag(s)·Bᵀ:

* The minimiser of ``mean ½(y − f)² + λ/2·‖W‖²`` is W = B·diag(1/(s+α))·BᵀXᵀY; only the diagonal depends on λ.
* Its fitted values are linear in Y, with the hat matrix H = 11ᵀ/n + XB·diag(1/(s+α))·BᵀXᵀ; the first term is the
  intercept's. For such a smoother the prediction of row i by the fit without row i is y_i − (y_i − f_i)/(1 − H_ii)
  (Golub, Heath and Wahba, 1979; Rifkin and Lippert, 2007, section 3.2): exact for fixed α and a scaler that is not
  refitted, with the intercept refitted.
* With weights w_i of mean 1 (rows that count for more), X and Y are centred by weighted means, XᵀX becomes
  Σ w_i·x_i·x_iᵀ, and H_ii is w_i times as large: a weight of 2 is the row written twice.
* Where n < d, the same s comes from the smaller XXᵀ = U·diag(s)·Uᵀ, and B = XᵀU·diag(1/√s).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit.devices import resolve_device
from frozenkit.errors import DataError, InputError

# Four a decade; wide enough that honest runs seldom choose an end.
DEFAULT_STRENGTHS = tuple(float(x) for x in np.logspace(-9, 4, 53))

_SMALL = 2**24  # float64 values: 128 MB


@dataclass(frozen=True)
class LinearMap:
    """x ↦ x·weights + intercept, for raw features.

    Attributes:
        weights: (d, k) float32.
        intercept: (k,) float32.
    """

    weights: Tensor
    intercept: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(m, d) to (m, k)."""
        return torch.addmm(self.intercept, features.to(self.weights.dtype), self.weights)


@dataclass(frozen=True, eq=False)
class RidgePath:
    """All ridge fits along a path of strengths.

    Attributes:
        strengths: (s,) float64 λ, ascending.
        loo_scores: (s,) float64 leave-one-out accuracy, or R² in regression.
        best: The λ with the highest leave-one-out score; of equals, the largest.
    """

    strengths: Tensor
    loo_scores: Tensor
    best: float
    _basis: Tensor  # (d, r): eigenvectors B, divided by the scale of each feature
    _eigenvalues: Tensor  # (r,)
    _projected: Tensor  # (r, k): BᵀXᵀY
    _mean: Tensor  # (d,) of the raw features
    _target_mean: Tensor  # (k,)
    _row_weights: Tensor  # (n,) of mean 1

    @property
    def _n(self) -> int:
        return len(self._row_weights)

    def at(self, strength: float) -> LinearMap:
        """The fit at any strength λ > 0, on or between those of the path."""
        if not strength > 0:
            raise InputError(f"`strength` must be positive, got {strength!r}.")
        shrunk = self._projected / (self._eigenvalues + strength * self._n).unsqueeze(1)
        # (Aᵀ·Bᵀ)ᵀ reads B row by row, twice as fast as B·A.
        weights = (shrunk.to(self._basis.dtype).T @ self._basis.T).T.contiguous()
        intercept = self._target_mean - (self._mean.to(weights.dtype) @ weights).double()
        return LinearMap(weights.float(), intercept.float())

    def leave_one_out(self, features: Any, targets: Tensor, strength: float) -> Tensor:
        """(n, k) float64 what the fit without row i says of row i, for the very rows that the path was fitted on."""
        source = _Rows(features, targets)
        if source.n != self._n:
            raise InputError(f"`features` must be the {self._n} rows that were fitted on, got {source.n}.")
        coded = _coded(source.targets, len(self._target_mean))
        shrink = 1 / (self._eigenvalues + strength * self._n).unsqueeze(1)  # (r, 1)
        parts = []
        for start, x in source.chunks():
            rows = slice(start, start + len(x))
            z = (x - self._mean) @ self._basis.double()
            fitted = z @ (shrink * self._projected) + self._target_mean
            left = (coded[rows] - fitted) / (1 - self._leverage(z, rows, shrink)).clamp_min(1e-12)
            parts.append(coded[rows] - left)
        return torch.cat(parts)

    def _leverage(self, z: Tensor, rows: slice, shrink: Tensor) -> Tensor:
        """(m, s) the diagonal of the hat matrix for some rows, z (m, r) of them in the basis; shrink (r, s)."""
        return self._row_weights[rows].unsqueeze(1) * (1 / self._n + z.square() @ shrink)

    def __repr__(self) -> str:
        low, high = float(self.strengths[0]), float(self.strengths[-1])
        return (
            f"RidgePath({len(self.strengths)} strengths in {low:.0e}..{high:.0e}, "
            f"best {self.best:.2g} with leave-one-out score {float(self.loo_scores.max()):.3f})"
        )


def ridge_path(
    features: Any,
    targets: Tensor | None = None,
    strengths: Sequence[float] | None = None,
    *,
    standardize: bool = True,
    n_classes: int | None = None,
    weights: Tensor | str | None = None,
    device: str = "cpu",
) -> RidgePath:
    """Fits ridge regression at every strength, and scores each by exact leave-one-out.

    Args:
        features: (n, d) tensor, or `CachedFeatures`, which is read in chunks so that memory does not grow with n.
        targets: (n,) int64 labels, coded ±1 one against the rest; or float (n,) or (n, m) for regression. May be left
            out if `features` carries labels.
        strengths: λ > 0 of the mean loss; default 53 from 1e-9 to 1e4.
        standardize: Centre and scale each feature by its mean and standard deviation over all n rows; a constant
            feature is left at zero. Penalty and strength refer to the scaled features.
        n_classes: k, where not every class occurs.
        weights: (n,) how much each row counts, above 0; or ``"balanced"``, by which every class counts alike. Scaled to
            a mean of 1. Means, deviations and the leave-one-out score are weighted too; ``w[labels]`` weighs by class.
        device: Where to compute: ``"cpu"``, ``"cuda"``, ``"auto"``; in float64, so on a GPU that is made for it. What
            comes back lies on the CPU.

    Returns:
        A `RidgePath`; ``.at(strength)`` gives weights for raw features.

    Raises:
        InputError: If shapes or strengths do not fit.
        DataError: If a row is not finite (named), or there are fewer than two rows or classes.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> path = ridge_path(x, torch.tensor([0, 0, 1, 1]))
        >>> float(path.loo_scores.max()), path.at(path.best)(x).argmax(1).tolist()
        (1.0, [0, 0, 1, 1])
    """
    source = _Rows(features, targets, weights)
    grid = _checked_strengths(strengths)
    is_classification = not source.targets.is_floating_point()
    coded = _coded(source.targets, n_classes)
    mean, scale = source.moments(standardize)
    on = resolve_device(device)
    with on:  # whatever is made in here is made there
        moved = [t.to(on) for t in (grid, coded, source.weights, mean, scale, source.targets)]
        path = _solve(source, *moved, is_classification=is_classification)
    here: dict[str, Any] = {name: part.cpu() for name, part in vars(path).items() if isinstance(part, Tensor)}
    return replace(path, **here)


def _solve(
    source: "_Rows",
    grid: Tensor,
    coded: Tensor,
    row_weights: Tensor,
    mean: Tensor,
    scale: Tensor,
    targets: Tensor,
    *,
    is_classification: bool,
) -> RidgePath:
    """The path and its leave-one-out scores, on the device of what is given."""
    n, d = source.n, source.d
    target_mean = row_weights @ coded / n
    residual = coded - target_mean
    root, are_weighted = row_weights.sqrt().unsqueeze(1), float(row_weights.min()) < 1

    if d <= n:
        gram = torch.zeros(d, d, dtype=torch.float64)
        products = torch.zeros(d, coded.shape[1], dtype=torch.float64)
        for start, x in source.scaled(mean, scale):
            rows = slice(start, start + len(x))
            products.addmm_(x.T, row_weights[rows].unsqueeze(1) * residual[rows])
            if are_weighted:
                x = x * root[rows]
            for first in range(0, d, block := -(-d // 4)):  # the lower triangle by blocks, which is all that eigh reads
                gram[first:, first : first + block].addmm_(x[:, first:].T, x[:, first : first + block])
        eigenvalues, basis = torch.linalg.eigh(gram, UPLO="L")
        eigenvalues, basis = _significant(eigenvalues, basis)
        projected = basis.T @ products
    else:
        x = torch.cat([chunk for _, chunk in source.scaled(mean, scale)]) * root
        eigenvalues, left = _significant(*torch.linalg.eigh(x @ x.T))
        basis = x.T @ left / eigenvalues.sqrt()
        projected = eigenvalues.sqrt().unsqueeze(1) * (left.T @ (root * residual))

    alphas = grid * n
    shrink = 1 / (eigenvalues.unsqueeze(1) + alphas)  # (r, s)
    coefficients = (shrink.unsqueeze(2) * projected.unsqueeze(1)).flatten(1)  # (r, s·k)
    total = torch.zeros(len(grid), dtype=torch.float64)
    path = RidgePath(
        grid, total, 0.0, (basis / scale.unsqueeze(1)).float(), eigenvalues, projected, mean, target_mean, row_weights
    )
    chunk = max(64, min(4096, 20_000_000 // coefficients.shape[1]))
    for start, x in source.scaled(mean, scale, chunk):
        z, rows = x @ basis, slice(start, start + len(x))
        leverage = path._leverage(z, rows, shrink)  # (m, s)
        fitted = (z @ coefficients).unflatten(1, (len(grid), -1)) + target_mean  # (m, s, k)
        if is_classification:
            # y − (y − f)/(1 − h) = (f − h·y)/(1 − h). The largest of a row over classes stays the largest without the
            # denominator, and with h added to all: with y = ±1 that leaves f, less 2h for the row's own class.
            own = targets[rows].long()
            fitted[torch.arange(len(z)), :, own] -= 2 * leverage
            total += row_weights[rows] @ (fitted.argmax(2) == own.unsqueeze(1)).double()
        else:
            y = coded[rows].unsqueeze(1)
            left = (y - fitted) / (1 - leverage).clamp_min(1e-12).unsqueeze(2)
            total += row_weights[rows] @ left.square().sum(2)
    scores = total / n if is_classification else 1 - total / (row_weights @ residual.square()).sum()
    return replace(path, loo_scores=scores, best=float(grid[scores >= scores.max() - 1e-12].max()))


class _Rows:
    """n rows of features in float64 chunks, wherever they are kept, with their targets."""

    def __init__(self, features: Any, targets: Tensor | None, weights: Tensor | str | None = None) -> None:
        self.lazy = None if isinstance(features, Tensor) else features
        self._kept: Tensor | None = None
        if isinstance(features, Tensor):
            self.dense = features
        elif not hasattr(features, "batches"):
            self.dense, self.lazy = features.features, None
        if targets is None:
            targets = getattr(features, "labels", None)
        if targets is None:
            raise InputError("`targets` must be given, since `features` carries no labels.")
        self.targets = torch.as_tensor(targets).cpu()
        shape = tuple(self.dense.shape) if self.lazy is None else tuple(self.lazy.shape)
        if len(shape) != 2:
            raise InputError(f"`features` must be (n, d), got shape {shape}. Pool tokens first.")
        self.n, self.d = shape
        if len(self.targets) != self.n:
            raise InputError(
                f"`targets` must have one row for each of {self.n} rows of features, got {len(self.targets)}."
            )
        if self.n < 2:
            raise DataError(f"`features` must have at least two rows to fit and leave one out, got {self.n}.")
        if self.targets.is_floating_point() and not torch.isfinite(self.targets).all():
            raise DataError(f"`targets` must be finite, but rows {_first_bad(self.targets)} are not.")
        self.weights = row_weights(weights, self.targets)  # (n,) float64 of mean 1

    def chunks(self, rows: int = 4096) -> Iterator[tuple[int, Tensor]]:
        """(first row, (m, d) float64) until all rows were seen."""
        if self.lazy is not None:
            start = 0
            for x, _ in self.lazy.batches(rows):
                yield start, x.double()
                start += len(x)
        else:
            for start in range(0, self.n, rows):
                yield start, self.dense[start : start + rows].detach().cpu().double()

    def scaled(self, mean: Tensor, scale: Tensor, rows: int = 4096) -> Iterator[tuple[int, Tensor]]:
        """(first row, (m, d) float64 standardised), where `mean` is; what is small and in memory is made only once."""
        if self.lazy is not None or self.n * self.d > _SMALL:
            yield from ((start, (chunk.to(mean.device) - mean) / scale) for start, chunk in self.chunks(rows))
            return
        if self._kept is None:
            self._kept = (self.dense.detach().to(mean.device) - mean).div_(scale)  # the mean makes it float64
        for start in range(0, self.n, rows):
            yield start, self._kept[start : start + rows]

    def moments(self, standardize: bool) -> tuple[Tensor, Tensor]:
        """(d,) mean, and (d,) scale: the standard deviation, or 1 for a constant feature or without standardising."""
        total = torch.zeros(self.d, dtype=torch.float64)
        for start, x in self.chunks():
            part = x.sum(0)  # NaN and infinity stay in a sum, and float32 values cannot overflow it
            if not torch.isfinite(part).all() and not torch.isfinite(x).all():
                raise DataError(f"`features` must be finite, but rows {_first_bad(x, start)} are not.")
            total += self.weights[start : start + len(x)] @ x
        mean = total / self.n
        if not standardize:
            return mean, torch.ones_like(mean)
        squares = torch.zeros_like(mean)
        for start, x in self.chunks():
            squares += self.weights[start : start + len(x)] @ (x - mean).square_()
        deviation = (squares / self.n).sqrt()
        # Rounding leaves a constant feature a tiny deviation; blown up to 1 it would be noise.
        constant = deviation <= 1e-7 * mean.abs().clamp_min(1e-30)
        return mean, torch.where(constant, 1.0, deviation)


def _coded(targets: Tensor, n_classes: int | None) -> Tensor:
    """(n, k) float64: ±1 for labels, the values themselves for regression."""
    if targets.is_floating_point():
        return targets.double().reshape(len(targets), -1)
    if targets.ndim != 1 or int(targets.min()) < 0:
        raise InputError("integer `targets` must be (n,) class indices from 0 on.")
    if len(targets.unique()) < 2:
        raise DataError("`targets` must hold at least two classes, got one: there is nothing to tell apart.")
    return torch.nn.functional.one_hot(targets.long(), n_classes or -1).double() * 2 - 1


def row_weights(weights: Tensor | str | None, targets: Tensor) -> Tensor:
    """(n,) float64 of mean 1: how much each row counts."""
    n = len(targets)
    if weights is None:
        return torch.ones(n, dtype=torch.float64)
    if isinstance(weights, str):
        if weights != "balanced" or targets.is_floating_point():
            raise InputError(f"`weights` must be 'balanced' (with class labels), or one number a row, got {weights!r}.")
        found = 1 / targets.long().bincount().double()[targets.long()]
    else:
        found = torch.as_tensor(weights).detach().cpu().double()
    if found.shape != (n,) or not found.isfinite().all() or not (found > 0).all():
        raise InputError(f"`weights` must be {n} finite numbers above 0, one a row, got shape {tuple(found.shape)}.")
    return found / found.mean()


def _checked_strengths(strengths: Sequence[float] | None) -> Tensor:
    grid = torch.as_tensor(DEFAULT_STRENGTHS if strengths is None else strengths, dtype=torch.float64).flatten()
    if len(grid) == 0 or not torch.isfinite(grid).all() or grid.min() <= 0:
        raise InputError(f"`strengths` must be positive numbers, got {grid.tolist()}.")
    return grid.sort().values


def _significant(eigenvalues: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Without directions in which the data do not vary beyond rounding."""
    keep = eigenvalues > eigenvalues.max() * 1e-12
    return eigenvalues[keep], vectors[:, keep]


def _first_bad(x: Tensor, start: int = 0) -> str:
    rows = (~torch.isfinite(x)).reshape(len(x), -1).any(1).nonzero().flatten()[:5] + start
    return ", ".join(map(str, rows.tolist()))
