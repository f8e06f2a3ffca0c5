"""Ridge regression for a whole path of strengths, from one eigendecomposition, scored by leave-one-out.

Written with X (n, d) centred and scaled, Y (n, k) centred, α = λ·n, and XᵀX = B·diag(s)·Bᵀ:

* The minimiser of ``mean ½(y − f)² + λ/2·‖W‖²`` is W = B·diag(1/(s+α))·BᵀXᵀY; only the diagonal depends on λ.
* Its fitted values are linear in Y, with the hat matrix H = 11ᵀ/n + XB·diag(1/(s+α))·BᵀXᵀ; the first term is the
  intercept's. For such a smoother the prediction of row i by the fit without row i is y_i − (y_i − f_i)/(1 − H_ii)
  (Golub, Heath and Wahba, 1979; Rifkin and Lippert, 2007, section 3.2): exact for fixed α, with the intercept
  refitted. The scale of the features is not refitted: with ``scale="none"`` or ``"unit"`` there is nothing to refit, so
  leave-one-out is exact; with ``"soft"`` row i has had a part in its own scale. Where that part is more than half, in
  any feature, the row is counted in `RidgePath.self_scaled`.
* With weights w_i of mean 1 (rows that count for more), X and Y are centred by weighted means, XᵀX becomes
  Σ w_i·x_i·x_iᵀ, and H_ii is w_i times as large: a weight of 2 is the row written twice.
* Where n < d, the same s comes from the smaller XXᵀ = U·diag(s)·Uᵀ, and B = XᵀU·diag(1/√s).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from frozenkit._arrays import share_explained
from frozenkit._devices import resolve_device
from frozenkit.errors import InputError
from frozenkit.heads._design import Rows, checked_strengths, coded_targets, eigenpairs

# Four a decade; wide enough that honest runs seldom choose an end.
DEFAULT_STRENGTHS = tuple(float(x) for x in np.logspace(-9, 4, 53))


@dataclass(frozen=True)
class LinearMap:
    """x ↦ x·weights + intercept, for raw features, which `unit` first brings to length 1.

    Attributes:
        weights: (d, k) float32.
        intercept: (k,) float32.
        unit: Whether each row is first brought to length 1.
    """

    weights: Tensor
    intercept: Tensor
    unit: bool = False

    def __call__(self, features: Tensor) -> Tensor:
        """(m, d) to (m, k)."""
        if self.unit:
            features = nn.functional.normalize(features, dim=1)
        return torch.addmm(self.intercept, features.to(self.weights.dtype), self.weights)


@dataclass(frozen=True, eq=False)
class RidgePath:
    """All ridge fits along a path of strengths.

    Attributes:
        strengths: (s,) float64 λ, ascending.
        loo_scores: (s,) float64 leave-one-out accuracy, or R² in regression.
        loo_errors: (s, m) float64 mean squared leave-one-out error of each output in regression; None for classes.
        best: The λ with the highest leave-one-out score; of equals, the largest.
        scale: How features were scaled.
        self_scaled: Number of rows that make up more than half of the squared scale of some feature. Left out, such a
            row is judged at a scale that it has set itself, so leave-one-out is kinder to it than to a new image.
    """

    strengths: Tensor
    loo_scores: Tensor
    loo_errors: Tensor | None
    best: float
    scale: str
    self_scaled: int
    _basis: Tensor  # (d, r): eigenvectors B, divided by the scale of each feature
    _eigenvalues: Tensor  # (r,)
    _projected: Tensor  # (r, k): BᵀXᵀY
    _mean: Tensor  # (d,) of the raw features
    _target_mean: Tensor  # (k,)
    _row_weights: Tensor  # (n,) of mean 1
    _rotated: Tensor | None = None  # (n, r) rows in that basis, where n < d: float32 would cost too many digits

    @property
    def _n(self) -> int:
        return len(self._row_weights)

    def at(self, strength: float | Tensor) -> LinearMap:
        """The fit at any strength λ > 0, on or between those of the path; or at (k,) of them, one for each output."""
        if not torch.as_tensor(strength > 0).all():
            raise InputError(f"`strength` must be positive, got {strength!r}.")
        shrunk = self._projected / (self._eigenvalues.unsqueeze(1) + strength * self._n)
        # (Aᵀ·Bᵀ)ᵀ reads B row by row, twice as fast as B·A.
        weights = (shrunk.to(self._basis.dtype).T @ self._basis.T).T.contiguous()
        intercept = self._target_mean - (self._mean.to(weights.dtype) @ weights).double()
        return LinearMap(weights.float(), intercept.float(), self.scale == "unit")

    def leave_one_out(self, features: Any, targets: Tensor, strength: float) -> Tensor:
        """(n, k) float64 what the fit without row i says of row i, for the very rows that the path was fitted on."""
        source = Rows(features, targets, scale=self.scale)
        if source.n != self._n:
            raise InputError(f"`features` must be the {self._n} rows that were fitted on, got {source.n}.")
        coded = coded_targets(source.targets, len(self._target_mean))
        shrink = 1 / (self._eigenvalues + strength * self._n).unsqueeze(1)  # (r, 1)
        identity = torch.eye(len(shrink), dtype=torch.float64)
        fit = _Fit(identity, shrink, shrink * self._projected, self._target_mean, self._n)
        left_out = torch.empty_like(coded)  # filled in place: pieces kept between the chunks would keep their holes
        for start, x in source.chunks():
            rows = slice(start, start + len(x))
            if self._rotated is not None:
                z = self._rotated[rows]
            else:
                z = torch.zeros(len(x), len(shrink), dtype=torch.float64)
                for part in torch.arange(source.d).split(1024):  # of a wide basis no second copy is made
                    z.addmm_(x[:, part] - self._mean[part], self._basis[part].double())
            fitted, leverage = fit(z, self._row_weights[rows].unsqueeze(1))
            left = (coded[rows] - fitted.squeeze(1)) / (1 - leverage).clamp_min(1e-12)
            left_out[rows] = coded[rows] - left
        return left_out

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
    scale: str = "soft",
    n_classes: int | None = None,
    sample_weight: Tensor | str | None = None,
    device: str = "cpu",
) -> RidgePath:
    """Fits ridge regression at every strength, and scores each by leave-one-out.

    Leave-one-out is exact for ``scale="none"`` and ``"unit"``; otherwise it is exact but for the scale, which stays
    that of all rows (`RidgePath.self_scaled` counts those that decide their own). Directions with less than 10⁻¹² of
    the variance of the largest are left out: they would be lost in its rounding.

    Args:
        features: (n, d) tensor, or `CachedFeatures`, which is read in chunks so that memory does not grow with n.
        targets: (n,) int64 labels, coded ±1 one against the rest; or float (n,) or (n, m) for regression. May be left
            out if `features` carries labels.
        strengths: λ > 0 of the mean loss; default 53 from 1e-9 to 1e4.
        scale: What becomes of the features first, over all n rows; penalty and strength refer to the scaled features.
            ``"soft"``: each is centred and divided by the root of the mean of its own variance and the average variance
            of all, so that one which is hardly ever active cannot explode on a new image. ``"unit"``: rows are brought
            to length 1, then centred. ``"none"``: only centred. ``"standard"``: divided by the standard deviation.
        n_classes: k, where not every class occurs.
        sample_weight: (n,) how much each row counts, above 0; or ``"balanced"``, by which every class counts alike.
            Scaled to a mean of 1. Means, deviations and the leave-one-out score are weighted too; ``w[labels]`` weighs
            by class.
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
    source = Rows(features, targets, sample_weight, scale)
    grid = checked_strengths(DEFAULT_STRENGTHS if strengths is None else strengths)
    is_classification = not source.targets.is_floating_point()
    coded = coded_targets(source.targets, n_classes)
    mean, divisor = source.moments()
    on = resolve_device(device)
    with on:  # whatever is made in here is made there
        moved = [t.to(on) for t in (grid, coded, source.weights, mean, divisor)]
        path = _solve(source, *moved, is_classification=is_classification)
    here: dict[str, Any] = {name: part.cpu() for name, part in vars(path).items() if isinstance(part, Tensor)}
    return replace(path, **here)


def _solve(
    source: Rows,
    grid: Tensor,
    coded: Tensor,
    row_weights: Tensor,
    mean: Tensor,
    divisor: Tensor,
    *,
    is_classification: bool,
) -> RidgePath:
    """The path and its leave-one-out scores, on the device of what is given."""
    n = source.n
    target_mean = row_weights @ coded / n
    residual = coded - target_mean
    decompose = _decompose_columns if source.d <= n else _decompose_rows
    spectrum = decompose(source, mean, divisor, row_weights, residual)
    shrink = 1 / (spectrum.eigenvalues.unsqueeze(1) + grid * n)  # (r, s)
    coefficients = (shrink.unsqueeze(2) * spectrum.projected.unsqueeze(1)).flatten(1)  # (r, s·k)
    fit = _Fit(spectrum.basis, shrink, coefficients, target_mean, n)
    right = torch.zeros(len(grid), dtype=torch.float64)
    losses = torch.zeros(coefficients.shape[1], dtype=torch.float64)
    for start, x in spectrum.rows(min(source.chunk, max(64, 20_000_000 // coefficients.shape[1]))):
        rows = slice(start, start + len(x))
        w = row_weights[rows]
        if is_classification:
            right += w @ _left_out_right(fit, x, w.unsqueeze(1), coded[rows].argmax(1)).double()
        else:
            fitted, leverage = fit(x, w.unsqueeze(1))
            left = (coded[rows].unsqueeze(1) - fitted) / (1 - leverage).clamp_min(1e-12).unsqueeze(2)
            losses += w @ left.square_().flatten(1)
    if is_classification:
        errors, scores = None, right / n
    else:
        errors = losses.view(len(grid), -1) / n
        total, size = ((row_weights @ y.square()).sum() / n for y in (residual, coded))
        scores = share_explained(errors.sum(1), total, size)
    best = float(grid[scores >= scores.max() - 1e-12].max())
    return RidgePath(
        strengths=grid,
        loo_scores=scores,
        loo_errors=errors,
        best=best,
        scale=source.scale,
        self_scaled=spectrum.self_scaled,
        _basis=spectrum.raw,
        _eigenvalues=spectrum.eigenvalues,
        _projected=spectrum.projected,
        _mean=mean,
        _target_mean=target_mean,
        _row_weights=row_weights,
        _rotated=spectrum.rotated,
    )


class _Spectrum(NamedTuple):
    """XᵀX = B·diag(s)·Bᵀ, and where to find the rows that are left out one by one."""

    eigenvalues: Tensor  # (r,)
    projected: Tensor  # (r, k): BᵀXᵀY
    raw: Tensor  # (d, r): B, divided by the scale of each feature
    basis: Tensor  # What takes `rows` to that basis: B, or the identity (r, r) where they lie in it already.
    rows: Callable[[int], Iterable[tuple[int, Tensor]]]  # chunk size → (first row, rows) until all were seen
    rotated: Tensor | None  # (n, r) rows in that basis, where they are kept
    self_scaled: int


def _decompose_columns(source: Rows, mean: Tensor, divisor: Tensor, row_weights: Tensor, residual: Tensor) -> _Spectrum:
    """Where d ≤ n: from XᵀX, added up chunk by chunk."""
    n, d = source.n, source.d
    root, are_weighted = row_weights.sqrt().unsqueeze(1), float(row_weights.min()) < 1
    gram = torch.zeros(d, d, dtype=torch.float64)
    products = torch.zeros(d, residual.shape[1], dtype=torch.float64)
    self_scaled = 0
    for start, x in source.scaled(mean, divisor):
        rows = slice(start, start + len(x))
        products.addmm_(x.T, row_weights[rows].unsqueeze(1) * residual[rows])
        if are_weighted:
            x = x * root[rows]
        self_scaled += _count_self_scaled(x, n, divisor, source.scale)
        for first in range(0, d, block := -(-d // 4)):  # the lower triangle by blocks, which is all that eigh reads
            gram[first:, first : first + block].addmm_(x[:, first:].T, x[:, first : first + block])
    eigenvalues, basis = eigenpairs(gram)
    raw = basis / divisor.unsqueeze(1)  # float64: what a row is in this basis decides what is left out of it
    rows_of = partial(source.scaled, mean, divisor)
    return _Spectrum(eigenvalues, basis.T @ products, raw, basis, rows_of, None, self_scaled)


def _decompose_rows(source: Rows, mean: Tensor, divisor: Tensor, row_weights: Tensor, residual: Tensor) -> _Spectrum:
    """Where n < d: from XXᵀ, with all rows at hand."""
    n, d = source.n, source.d
    root = row_weights.sqrt().unsqueeze(1)
    whole = torch.empty(n, d, dtype=torch.float64)
    self_scaled = 0
    for start, x in source.scaled(mean, divisor):
        rows = slice(start, start + len(x))
        torch.mul(x, root[rows], out=whole[rows])
        self_scaled += _count_self_scaled(whole[rows], n, divisor, source.scale)
    eigenvalues, left = eigenpairs(whole @ whole.T)
    # X·B is at hand as U·√s, so no row is needed again, and B, which is wide, only for the weights, in float32.
    raw = torch.empty(d, len(eigenvalues))
    for part in torch.arange(d).split(1024):
        raw[part] = (whole[:, part].T @ (left / eigenvalues.sqrt())).div_(divisor[part].unsqueeze(1)).float()
    rotated = left * eigenvalues.sqrt() / root
    projected = eigenvalues.sqrt().unsqueeze(1) * (left.T @ (root * residual))
    identity = torch.eye(len(eigenvalues), dtype=torch.float64)
    return _Spectrum(
        eigenvalues, projected, raw, identity, lambda m: zip(range(0, n, m), rotated.split(m)), rotated, self_scaled
    )


def _count_self_scaled(x: Tensor, n: int, divisor: Tensor, scale: str) -> int:
    """How many of these scaled rows make up more than half of the squared scale of some feature."""
    if scale in ("none", "unit"):
        return 0
    # In these units the squared scale is 1, and leaving row i out takes x_ij²/(n−1) from the variance: all of the
    # squared scale if standardised. A soft one is half that, and half the mean variance, in which the row has a part.
    part = x.square()
    if scale == "soft":
        squared = divisor.square()
        varying = (divisor != 1).sum().clamp_min(1)
        part.add_(((part @ squared) / varying).unsqueeze(1) / squared).div_(2)
    return int((part.amax(1) > (n - 1) / 2).sum())


class _Fit(NamedTuple):
    """The terms of all fits along a path, in one precision."""

    basis: Tensor  # (d, r)
    shrink: Tensor  # (r, s)
    coefficients: Tensor  # (r, s·k)
    target_mean: Tensor  # (k,)
    n: int

    def __call__(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """(m, s, k) fitted values and (m, s) leverages of rows x (m, d) with weights w (m, 1)."""
        z = x @ self.basis
        fitted = (z @ self.coefficients).unflatten(1, (self.shrink.shape[1], -1)) + self.target_mean
        return fitted, w * (1 / self.n + z.square() @ self.shrink)

    def to(self, dtype: torch.dtype) -> "_Fit":
        basis, shrink, coefficients, target_mean = (t.to(dtype) for t in self[:4])
        return _Fit(basis, shrink, coefficients, target_mean, self.n)


def _left_out_right(fit: _Fit, x: Tensor, w: Tensor, own: Tensor) -> Tensor:
    """(m, s) whether the fit without a row still gives it its own class.

    float32 decides, at half the cost, wherever its rounding cannot tip the decision; float64 decides the rest.
    """
    margin = _margin(fit.to(torch.float32), x.float(), w.float(), own)
    # Of a product over d terms, rounding leaves about √d·ε times the two norms; the basis is orthonormal. Twice that:
    slip = 2 * x.shape[1] ** 0.5 * torch.finfo(torch.float32).eps * x.norm(dim=1, keepdim=True)  # (m, 1), of a row of z
    strongest = fit.coefficients.unflatten(1, (fit.shrink.shape[1], -1)).norm(dim=0).amax(1)  # (s,)
    steepest = fit.shrink.amax(0)  # (s,)
    doubt = 4 * slip * strongest + 2 * w * (2 * slip * steepest.sqrt() + slip.square() * steepest)
    unsure = (margin.abs() <= doubt).any(1)
    right = margin > 0
    right[unsure] = _margin(fit, x[unsure], w[unsure], own[unsure]) > 0
    return right


def _margin(fit: _Fit, x: Tensor, w: Tensor, own: Tensor) -> Tensor:
    """(m, s) by how much the own class of a row is ahead of all others in the fit without it, but for a factor."""
    # y − (y − f)/(1 − h) = (f − h·y)/(1 − h). The order of classes stays the same without the denominator, and with h
    # added to all: with y = ±1 that leaves f, less 2h for the row's own class.
    fitted, leverage = fit(x, w)
    index = own.view(-1, 1, 1).expand(-1, fitted.shape[1], 1)
    mine = fitted.gather(2, index).squeeze(2) - 2 * leverage
    return mine - fitted.scatter(2, index, -torch.inf).amax(2)
