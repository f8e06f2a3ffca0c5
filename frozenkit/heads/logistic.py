"""Logistic regression for several labels per image: k problems on the same features, along a path of strengths.

Label j has the minimiser of ``mean log-loss + λ/2·‖w_j‖²`` of its own; what the k problems share is the arithmetic.
Written with X (n, d) centred and scaled, and XᵀX = B·diag(s)·Bᵀ with B (d, r), r ≤ min(n, d), as in `softmax`:

* The minimisers lie in the span of the rows, so W = B·V, solved for V (r, k) on Z = X·B: one basis for all labels and
  strengths, and a product with Z serves all labels at once.
* The intercept that is best for given w is found by Newton's method in one dimension, so that V alone is searched for.
  The Hessian of what remains is at most ¼·ZᵀZ/n + λ, which is diagonal in this basis: a preconditioner for free.
* L-BFGS improves on it. Each label has its own line search and its own curvature pairs. From the strongest λ down, each
  fit starts at its predecessor and keeps those pairs.
* The objective is λ-strongly convex in w, so ``objective − minimum ≤ ‖∂w‖²/(2λ)``
  (Boyd and Vandenberghe, 2004, equation 9.9): a certificate for each label and strength.

With two classes, `softmax_path` solves the same problem: w is the difference of its two columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from frozenkit._arrays import constant_columns
from frozenkit._outputs import Shown
from frozenkit.errors import DataError, InputError
from frozenkit.heads._design import Rows, checked_strengths, strength_index
from frozenkit.heads.ridge import LinearMap
from frozenkit.heads.softmax import _eigenbasis

# Two a decade; on noise log-loss goes on falling until next to nothing is left of w.
DEFAULT_LOGISTIC_STRENGTHS = tuple(float(x) for x in np.logspace(-5, 3, 17))
_MEMORY = 12  # curvature pairs kept by L-BFGS
_HALVINGS = 30  # of a step, after which rounding hides any further descent


@dataclass(frozen=True, eq=False)
class LogisticPath(Shown):
    """Logistic regressions of k labels along a path of strengths.

    Attributes:
        strengths: (s,) float64 λ, ascending.
        weights: (s, d, k) float32, for raw features.
        intercepts: (s, k) float32.
        objectives: (s, k) float64 mean log-loss + λ/2·‖w‖², w in scaled space.
        gaps: (s, k) float64 certified upper bounds on objective − minimum.
        converged: (s,) bool: gap ≤ tolerance · objective for every label.
        scale: How features were scaled.
    """

    strengths: Tensor
    weights: Tensor
    intercepts: Tensor
    objectives: Tensor
    gaps: Tensor
    converged: Tensor
    scale: str = "soft"

    def at(self, strength: float) -> LinearMap:
        """The fit at one of the strengths of the path: (m, d) features to (m, k) logits."""
        index = strength_index(self.strengths, strength)
        return LinearMap(self.weights[index], self.intercepts[index], self.scale == "unit")

    def __repr__(self) -> str:
        low, high = float(self.strengths[0]), float(self.strengths[-1])
        return (
            f"LogisticPath({len(self.strengths)} strengths in {low:.0e}..{high:.0e}, {self.weights.shape[2]} labels, "
            f"{int(self.converged.sum())} converged)"
        )


def logistic_path(
    features: Any,
    labels: Tensor | None = None,
    strengths: Sequence[float] | None = None,
    *,
    scale: str = "soft",
    tolerance: float = 1e-4,
    max_iterations: int = 500,
    sample_weight: Tensor | str | None = None,
) -> LogisticPath:
    """Fits an independent logistic regression to each label at every strength, each with a certificate.

    Args:
        features: (n, d) tensor, `FeatureSet` or `CachedFeatures`; the rows are held in memory.
        labels: (n, k) booleans, or 0 and 1; may be left out if `features` carries labels.
        strengths: λ > 0 of the mean loss; default 17 from 1e-5 to 1000. scikit-learn's C is 1/(λ·n).
        scale: As in `ridge_path`: ``"soft"``, ``"unit"``, ``"none"`` or ``"standard"``.
        tolerance: A fit counts as converged once its objective is certified to lie within this fraction of the minimum.
        max_iterations: At most so many steps at each strength.
        sample_weight: (n,) how much each row counts, above 0; scaled to a mean of 1. Not ``"balanced"``: rows have no
            one class.

    Returns:
        A `LogisticPath`. ``converged`` tells where `max_iterations` did not suffice.

    Raises:
        InputError: If shapes, labels, tolerance or strengths do not fit.
        DataError: If a row is not finite (named), a label is in every row or in none, or there are fewer than two rows.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> path = logistic_path(x, torch.tensor([[0, 1], [0, 1], [1, 0], [1, 1]]), [0.01, 0.1])
        >>> path, (path.at(0.1)(x) > 0).long().tolist()
        (LogisticPath(2 strengths in 1e-02..1e-01, 2 labels, 2 converged), [[0, 1], [0, 1], [1, 1], [1, 1]])
    """
    if not tolerance > 0:
        raise InputError(f"`tolerance` must be positive, got {tolerance!r}.")
    source = Rows(features, labels, sample_weight, scale)
    y = source.targets
    if y.ndim != 2 or not y.shape[1] or bool(((y != 0) & (y != 1)).any()):
        raise InputError(
            f"`labels` must be (n, k) booleans, or 0 and 1, got {y.dtype} of shape {tuple(y.shape)}. For one class per "
            "image use `softmax_path`."
        )
    y = y.double()
    if constant := constant_columns(y):
        raise DataError(f"`labels` must be in some rows and not in others, but {constant_text(constant)}.")
    grid = checked_strengths(DEFAULT_LOGISTIC_STRENGTHS if strengths is None else strengths)
    mean, divisor = source.moments()
    x = torch.cat([chunk for _, chunk in source.scaled(mean, divisor, source.n)])
    w = source.weights.unsqueeze(1)
    basis, curvature = _eigenbasis(x * w.sqrt(), exact=True)
    found = (basis @ _descend(x @ basis, y, w, curvature / 2, grid, tolerance / 2, max_iterations).flatten(1)).view(
        source.d, len(grid), -1
    )  # (d, s, k)
    b, objectives, gaps = _certify(x, y, w, grid, found)
    raw = found / divisor.view(-1, 1, 1)
    b = b - torch.einsum("d,dsk->sk", mean, raw)
    converged = (gaps <= tolerance * objectives).all(1)
    by_strength = raw.transpose(0, 1).float().contiguous()
    return LogisticPath(grid, by_strength, b.float(), objectives, gaps, converged, scale)


class _Pair(NamedTuple):
    """A step and the change of the gradient along it, (r, k) each, and 1 over their product, (k,): 0 where useless."""

    move: Tensor
    bend: Tensor
    inverse: Tensor


def _paired(move: Tensor, bend: Tensor) -> _Pair:
    product = (move * bend).sum(0)
    useful = product > 1e-300
    return _Pair(move, bend, torch.where(useful, 1 / product.where(useful, torch.ones_like(product)), 0.0))


class _Problem:
    """One strength: for all labels at once the objective with the best intercept, and its gradient."""

    def __init__(self, design: Tensor, y: Tensor, w: Tensor, curvature: Tensor, strength: float) -> None:
        self.design, self.y, self.w, self.strength = design, y, w, strength
        self.curvature = (curvature + strength).unsqueeze(-1)  # (r, 1)

    def logits(self, params: Tensor) -> Tensor:
        return (params.T @ self.design.T).T  # reads the design row by row, which is faster

    def loss(self, params: Tensor, logits: Tensor) -> Tensor:
        """(k,), of logits that include the intercept."""
        each = self.w * (nn.functional.softplus(logits) - self.y * logits)
        return each.mean(0) + self.strength / 2 * params.square().sum(0)

    def gradient(self, params: Tensor, logits: Tensor) -> Tensor:
        residual = (logits.sigmoid() - self.y) * (self.w / len(self.y))
        return (residual.T @ self.design).T + self.strength * params


def _descend(
    design: Tensor, y: Tensor, w: Tensor, curvature: Tensor, grid: Tensor, tolerance: float, max_iterations: int
) -> Tensor:
    """(r, s, k) parameters at each strength, from the strongest down."""
    params = torch.zeros(design.shape[1], y.shape[1], dtype=torch.float64)
    result = torch.empty(len(params), len(grid), y.shape[1], dtype=torch.float64)
    history: list[_Pair] = []
    values = grid.tolist()
    for i in reversed(range(len(values))):
        problem = _Problem(design, y, w, curvature, values[i])
        if i + 1 < len(values):  # the curvature along each step, as it is under the new penalty
            history = [_paired(p.move, p.bend + (values[i] - values[i + 1]) * p.move) for p in history]
        params, history = _minimise(problem, params, history, tolerance, max_iterations)
        result[:, i] = params
    return result


def _minimise(
    problem: _Problem, params: Tensor, history: list[_Pair], tolerance: float, max_iterations: int
) -> tuple[Tensor, list[_Pair]]:
    """Preconditioned L-BFGS until the certificate holds for every label, or rounding hides any further descent."""
    y, w = problem.y, problem.w
    logits = problem.logits(params)
    logits = logits + _best_intercept(logits, y, w)
    loss, gradient = problem.loss(params, logits), problem.gradient(params, logits)
    for _ in range(max_iterations):
        open_ = gradient.square().sum(0) / (2 * problem.strength) > tolerance * loss  # (k,)
        if not open_.any():
            break
        direction = _two_loops(gradient, problem.curvature, history)
        slope = (gradient * direction).sum(0)
        plain = slope >= 0
        direction = torch.where(plain, -gradient / problem.curvature, direction) * open_
        slope = (gradient * direction).sum(0)
        change = problem.logits(direction)
        slack = 4 * torch.finfo(loss.dtype).eps * loss  # what rounding alone may add
        step = open_.to(loss.dtype)
        for _ in range(_HALVINGS):
            ahead = logits + step * change
            ahead = ahead + _best_intercept(ahead, y, w)
            new = problem.loss(params + step * direction, ahead)
            failed = open_ & ~(new <= loss + 1e-4 * step * slope + slack)  # Armijo
            if not failed.any():
                break
            step = torch.where(failed, step / 2, step)
        else:
            break
        move = step * direction
        params, logits, loss = params + move, ahead, new
        before, gradient = gradient, problem.gradient(params, logits)
        history = [*history[1 - _MEMORY :], _paired(move, gradient - before)]
    return params, history


def _two_loops(gradient: Tensor, curvature: Tensor, history: list[_Pair]) -> Tensor:
    """The L-BFGS direction (Nocedal and Wright, 2006, algorithm 7.4) of each label, the bound's diagonal inside."""
    q, alphas = gradient, []
    for pair in reversed(history):
        alphas.append((pair.move * q).sum(0) * pair.inverse)
        q = q - alphas[-1] * pair.bend
    q = q / curvature
    if history:  # the diagonal is an upper bound; the last pair says by how much it overstates the curvature
        move, bend, inverse = history[-1]
        overstated = (move * bend).sum(0) / (bend.square() / curvature).sum(0).clamp_min(1e-300)
        q = q * torch.where(inverse > 0, overstated, 1.0)
    for pair, alpha in zip(history, reversed(alphas)):
        q = q + (alpha - (pair.bend * q).sum(0) * pair.inverse) * pair.move
    return -q


def _best_intercept(logits: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """(k,) what to add to (n, k) logits so that predicted and true shares agree, by short Newton steps."""
    share, shift = (w * y).mean(0), torch.zeros_like(logits[0])
    for _ in range(60):
        p = (logits + shift).sigmoid()
        wrong = (w * p).mean(0) - share
        if float(wrong.abs().max()) < 1e-14:
            break
        shift = shift - (wrong / (w * p * (1 - p)).mean(0).clamp_min(1e-300)).clamp(-2, 2)
    return shift


def _certify(x: Tensor, y: Tensor, w: Tensor, grid: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(s, k) each: the best intercepts, the objectives, and bounds on their distances to the minimum; without B."""
    found = []
    for i, strength in enumerate(grid.tolist()):  # one by one: n·s·k logits may be many
        problem, params = _Problem(x, y, w, torch.zeros(()), strength), weights[:, i]
        logits = problem.logits(params)
        b = _best_intercept(logits, y, w)
        gradient = problem.gradient(params, logits + b)
        found.append((b, problem.loss(params, logits + b), gradient.square().sum(0) / (2 * strength)))
    b, objectives, gaps = (torch.stack(parts) for parts in zip(*found, strict=True))
    return b, objectives, gaps


def constant_text(constant: dict[int, bool], names: Sequence[str] | None = None) -> str:
    """Which labels are in every image, and which in none, for a message."""
    parts = []
    for always, what in ((True, "in every image"), (False, "in none")):
        found = [repr(names[j]) if names else f"label {j}" for j, value in constant.items() if value is always]
        if found:
            parts.append(f"{', '.join(found[:5])}{', …' * (len(found) > 5)} {'are' if len(found) > 1 else 'is'} {what}")
    return " and ".join(parts)
