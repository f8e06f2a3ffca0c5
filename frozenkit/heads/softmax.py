"""Softmax (multinomial logistic) regression along a whole path of strengths, each with a certificate.

Written with X (n, d) centred and scaled, and XᵀX = B·diag(s)·Bᵀ with B (d, r), r ≤ min(n, d):

* The minimiser of ``mean cross-entropy + λ/2·‖W‖²`` lies in the span of the samples, so W = B·V with ‖W‖ = ‖V‖:
  nothing is lost by solving for V (r, k) on Z = X·B. Where n < d this is the smaller problem.
* In this basis Böhning's bound on the Hessian, ½·ZᵀZ/n + λ, is diagonal: a preconditioner for free
  (Böhning, 1992, Multinomial logistic regression algorithm, theorem 1). L-BFGS improves on it.
* The minimiser is smooth in log λ. From the strongest λ down, each fit starts where the line through its two
  predecessors leads, and keeps their curvature pairs: a handful of steps each, where a cold start takes forty.
* With weights w_i of mean 1, sums over rows become weighted sums throughout, XᵀX is Σ w_i·x_i·x_iᵀ, and centring is by
  weighted means: a weight of 2 is the row written twice.
* Logits are linear in V, so neither a line search nor that start needs a product with Z for each point tried.
* With two classes logistic regression is meant: one weight vector w, the difference of the two columns, penalised by
  λ/2·‖w‖². At the minimum the columns are ∓w/2, so the same problem in two columns has the penalty 2λ/2·‖W‖².
* The objective is λ-strongly convex in W. With the intercepts at their optimum, ``objective − minimum ≤ ‖∂W‖²/(2λ)``
  (Boyd and Vandenberghe, 2004, equation 9.9): a certificate, evaluated in float64 and without B.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._devices import resolve_device
from frozenkit._outputs import Shown
from frozenkit.errors import InputError, require
from frozenkit.heads._design import Rows, check_varying, checked_strengths, coded_targets, eigenpairs, strength_index
from frozenkit.heads.ridge import LinearMap

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_SOFTMAX_STRENGTHS = tuple(float(x) for x in np.logspace(-5, 1, 25))
_MEMORY = 12  # curvature pairs kept by L-BFGS


@dataclass(frozen=True, eq=False)
class SoftmaxPath(Shown):
    """All softmax regressions along a path of strengths.

    Attributes:
        strengths: (s,) float64 λ, ascending.
        weights: (s, d, k) float32, for raw features.
        intercepts: (s, k) float32.
        objectives: (s,) float64 mean cross-entropy + λ/2·‖W‖², W in scaled space; with two classes
            λ/2·‖w‖² for the difference w of the two columns, as logistic regression has it.
        gaps: (s,) float64 certified upper bounds on objective − minimum.
        converged: (s,) bool: gap ≤ tolerance · objective.
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
        """The fit at one of the strengths of the path."""
        index = strength_index(self.strengths, strength)
        return LinearMap(self.weights[index], self.intercepts[index], self.scale == "unit")

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table: one row a strength."""
        pd = require("pandas", "course")

        names = ("objectives", "gaps", "converged")
        return pd.DataFrame({n: getattr(self, n).numpy() for n in names}, index=pd.Index(self.strengths.numpy()))

    def __repr__(self) -> str:
        low, high = float(self.strengths[0]), float(self.strengths[-1])
        done = int(self.converged.sum())
        return f"SoftmaxPath({len(self.strengths)} strengths in {low:.0e}..{high:.0e}, {done} converged)"


def softmax_path(
    features: Any,
    labels: Tensor | None = None,
    strengths: Sequence[float] | None = None,
    *,
    scale: str = "soft",
    tolerance: float = 1e-4,
    n_classes: int | None = None,
    max_iterations: int = 500,
    sample_weight: Tensor | str | None = None,
    device: str = "cpu",
) -> SoftmaxPath:
    """Fits softmax regression at every strength, each with a certificate of convergence.

    Args:
        features: (n, d) tensor, `FeatureSet` or `CachedFeatures`; the rows are held in memory.
        labels: (n,) int64 class indices; may be left out if `features` carries labels.
        strengths: λ > 0 of the mean loss; default 25 from 1e-5 to 10.
        scale: As in `ridge_path`: ``"soft"``, ``"unit"``, ``"none"`` or ``"standard"``.
        tolerance: A fit counts as converged once its objective is certified to lie within this fraction of the minimum.
        n_classes: k, where not every class occurs.
        max_iterations: At most so many steps in each precision.
        sample_weight: (n,) how much each row counts, above 0; or ``"balanced"``, by which every class counts alike.
            Scaled to a mean of 1; ``w[labels]`` weighs by class.
        device: Where to compute: ``"cpu"``, ``"cuda"``, ``"auto"``. What comes back lies on the CPU.

    Returns:
        A `SoftmaxPath`. ``converged`` tells where `max_iterations` did not suffice.

    Raises:
        InputError: If shapes, labels, tolerance or strengths do not fit.
        DataError: If a row is not finite (named), or there are fewer than two rows or classes.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> path = softmax_path(x, torch.tensor([0, 0, 1, 1]), [0.01, 0.1])
        >>> path, path.at(0.1)(x).argmax(1).tolist()
        (SoftmaxPath(2 strengths in 1e-02..1e-01, 2 converged), [0, 0, 1, 1])
    """
    if not tolerance > 0:
        raise InputError(f"`tolerance` must be positive, got {tolerance!r}.")
    source = Rows(features, labels, sample_weight, scale)
    if source.targets.is_floating_point():
        raise InputError("`labels` must be integer class indices, got floats. For regression use `ridge_path`.")
    grid = checked_strengths(DEFAULT_SOFTMAX_STRENGTHS if strengths is None else strengths)
    coded = (coded_targets(source.targets, n_classes) + 1) / 2  # (n, k) one-hot
    mean, divisor = source.moments()
    on = resolve_device(device)
    with on:  # whatever is made in here is made there
        grid, coded, mean, divisor, w = (t.to(on) for t in (grid, coded, mean, divisor, source.weights.unsqueeze(1)))
        x = torch.cat([chunk for _, chunk in source.scaled(mean, divisor, source.n)])
        basis, fit, b, objectives, gaps = _solve(x, coded, w, grid, tolerance, max_iterations, exact=scale == "none")
        raw = (basis / divisor.unsqueeze(1)) @ fit.flatten(1)  # (d, s·k)
        b -= (mean @ raw).view_as(b)
    by_strength = raw.view(source.d, *b.shape).transpose(0, 1)
    found = (grid, by_strength.float().contiguous(), b.float(), objectives, gaps, gaps <= tolerance * objectives)
    grid, weights_of, b, objectives, gaps, converged = (part.cpu() for part in found)
    return SoftmaxPath(grid, weights_of, b, objectives, gaps, converged, scale)


def _solve(
    x: Tensor, coded: Tensor, w: Tensor, grid: Tensor, tolerance: float, max_iterations: int, *, exact: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """B (d, r), V (r, s, k), intercepts (s, k), objectives and certified gaps (s,), all for scaled x."""
    basis, curvature = _eigenbasis(x * w.sqrt(), exact=exact)
    s, k = len(grid), coded.shape[1]
    penalties = grid * 2 if k == 2 else grid
    v = torch.zeros(basis.shape[1], s, k, dtype=torch.float64)
    # An absent class would have its best intercept at −∞; −30 is as good as that.
    b = (w * coded).mean(0).clamp_min(1e-13).log().expand(s, k).clone()
    objectives, gaps = torch.zeros(s, dtype=torch.float64), torch.full((s,), torch.inf, dtype=torch.float64)
    # float32 does most of the way; whatever is not certified then is finished in float64, from where it stands.
    for dtype in (torch.float32, torch.float64):
        todo = (~(gaps <= tolerance * objectives)).nonzero().flatten()
        if len(todo) == 0:
            break
        design = torch.cat([x.to(dtype) @ basis.to(dtype), torch.ones(len(x), 1, dtype=dtype)], 1)
        start = torch.cat([v, b.unsqueeze(0)])[:, todo] if dtype == torch.float64 else None
        params = _descend(
            design, coded.to(dtype), w.to(dtype), curvature, penalties[todo], b[0], start, max_iterations, tolerance / 2
        )
        v[:, todo], b[todo] = params[:-1].double(), params[-1].double()
        found = (basis @ v[:, todo].flatten(1)).view(len(basis), -1, k)
        b[todo], objectives[todo], gaps[todo] = _certify(x, coded, w, penalties[todo], found, b[todo])
    return basis, v, b, objectives, gaps


def _eigenbasis(x: Tensor, *, exact: bool) -> tuple[Tensor, Tensor]:
    """B (d, r) and Böhning's bound ½·s/n (r,), both float64."""
    n, d = x.shape
    if n < d:
        eigenvalues, left = eigenpairs(x @ x.T)
        basis = x.T @ left / eigenvalues.sqrt()
    else:
        # All d directions are kept, so B need only be orthonormal, which float32 gives to 1e-6 at half the cost. That
        # changes the penalty by as much, and what a fit falls short of its minimum by the square of it.
        z = x if exact else x.float()
        found = torch.linalg.eigh(z.T @ z)
        eigenvalues, basis = found.eigenvalues.double().clamp_min(0), found.eigenvectors.double()
        check_varying(eigenvalues)
    return basis, eigenvalues / (2 * n)


def _descend(
    design: Tensor,
    y: Tensor,
    w: Tensor,
    curvature: Tensor,
    penalties: Tensor,
    intercepts: Tensor,
    start: Tensor | None,
    max_iterations: int,
    tolerance: float,
) -> Tensor:
    """(r+1, s, k) parameters for each penalty, the intercepts as the last row; from the strongest penalty down."""
    bound = torch.cat([curvature, curvature.new_full((1,), 0.5)]).to(design.dtype).unsqueeze(1)
    result = torch.empty(len(bound), len(penalties), y.shape[1], dtype=design.dtype)
    params = torch.zeros_like(result[:, 0])
    params[-1] = intercepts
    logits = design @ params
    before: tuple[Tensor, Tensor] | None = None
    history: list[tuple[Tensor, Tensor]] = []
    values = penalties.tolist()
    for i in reversed(range(len(values))):
        problem = _Problem(design, y, w, bound, values[i])
        if start is not None:
            params = start[:, i].to(design.dtype)
            logits, history = design @ params, []
        elif i + 2 < len(values) and before is not None:
            ahead = math.log(values[i + 1] / values[i]) / max(math.log(values[i + 2] / values[i + 1]), 1e-9)
            moves = params - before[0], logits - before[1]
            before = params, logits
            tries = [
                (params + f * moves[0], logits + f * moves[1]) for f in (min(ahead, 2.0), min(ahead, 2.0) / 2, 0.0)
            ]
            params, logits = min(tries, key=lambda at: problem.loss(*at))
        else:
            before = params, logits
        if i + 1 < len(values):  # the curvature along each step, as it is under the new penalty
            change = values[i] - values[i + 1]
            history = [(move, bend + change * move * problem.penalised) for move, bend in history]
        params, logits, history = _minimise(problem, params, logits, history, max_iterations, tolerance)
        result[:, i] = params
    return result


class _Problem:
    """One strength: objective and gradient from parameters and their logits."""

    def __init__(self, design: Tensor, y: Tensor, w: Tensor, bound: Tensor, penalty: float) -> None:
        self.design, self.y, self.w, self.penalty = design, y, w, penalty
        self.penalised = torch.ones_like(bound)
        self.penalised[-1] = 0  # the column of ones: Z is centred, so the bound stays diagonal with it
        self.curvature = bound + penalty * self.penalised

    def logits(self, params: Tensor) -> Tensor:
        # (Vᵀ·Zᵀ)ᵀ, and (Rᵀ·Z)ᵀ below: both read Z row by row, two and four times as fast as the plain products.
        return (params.T @ self.design.T).T

    def loss(self, params: Tensor, logits: Tensor) -> float:
        each = logits.logsumexp(1) - (logits * self.y).sum(1)
        return float((self.w.squeeze(1) * each).double().mean() + self.penalty / 2 * params[:-1].square().sum())

    def gradient(self, params: Tensor, logits: Tensor) -> Tensor:
        residual = (logits.softmax(1) - self.y) * (self.w / len(self.y))
        return (residual.T @ self.design).T + self.penalty * self.penalised * params


def _minimise(
    problem: _Problem,
    params: Tensor,
    logits: Tensor,
    history: list[tuple[Tensor, Tensor]],
    max_iterations: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Preconditioned L-BFGS until the certificate holds, or rounding hides any further descent."""
    gradient, loss = problem.gradient(params, logits), problem.loss(params, logits)
    for _ in range(max_iterations):
        if float(gradient[:-1].square().sum()) / (2 * problem.penalty) <= tolerance * loss:
            # The certificate wants intercepts at their optimum; that needs no product with the design but the last.
            shift = _intercept_shift(logits.unsqueeze(1), problem.y, problem.w)[0]
            logits, params = logits + shift, params.clone()
            params[-1] += shift
            gradient, loss = problem.gradient(params, logits), problem.loss(params, logits)
            if float(gradient[:-1].square().sum()) / (2 * problem.penalty) <= tolerance * loss:
                break
        direction = _two_loops(gradient, problem.curvature, history)
        slope = float((gradient * direction).sum())
        if not slope < 0:
            direction, history = -gradient / problem.curvature, []
            slope = float((gradient * direction).sum())
        change = problem.logits(direction)
        step, slack = 1.0, 4 * torch.finfo(logits.dtype).eps * loss  # what rounding alone may add
        while problem.loss(params + step * direction, logits + step * change) > loss + 1e-4 * step * slope + slack:
            step /= 2  # Armijo
            if step < 1e-6:
                return params, logits, history
        move = step * direction
        params, logits = params + move, logits + step * change
        new, loss = problem.gradient(params, logits), problem.loss(params, logits)
        if float((move * (new - gradient)).sum()) > 0:
            history = [*history[1 - _MEMORY :], (move, new - gradient)]
        gradient = new
    return params, logits, history


def _two_loops(gradient: Tensor, curvature: Tensor, history: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The L-BFGS direction (Nocedal and Wright, 2006, algorithm 7.4), Böhning's diagonal inside."""
    q, alphas = gradient, []
    for move, bend in reversed(history):
        alpha = (move * q).sum() / (move * bend).sum()
        q = q - alpha * bend
        alphas.append(alpha)
    q = q / curvature
    if history:  # Böhning's bound is an upper one; the last pair says by how much it overstates the curvature
        move, bend = history[-1]
        q = q * ((move * bend).sum() / (bend.square() / curvature).sum())
    for (move, bend), alpha in zip(history, reversed(alphas)):
        q = q + (alpha - (bend * q).sum() / (move * bend).sum()) * move
    return -q


def _certify(
    x: Tensor, coded: Tensor, w: Tensor, grid: Tensor, weights: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Intercepts at their optimum in float64, the objective, and a bound on its distance to the minimum."""
    logits = (x @ weights.flatten(1)).view(len(x), -1, coded.shape[1]) + b
    shift = _intercept_shift(logits, coded, w)
    log_p = (logits + shift).log_softmax(2)
    objectives = -(log_p * (w * coded).unsqueeze(1)).sum((0, 2)) / len(x) + grid / 2 * weights.square().sum((0, 2))
    residual = (log_p.exp() - coded.unsqueeze(1)) * (w / len(x)).unsqueeze(2)
    gradient = (x.T @ residual.flatten(1)).view_as(weights) + grid.view(1, -1, 1) * weights
    return b + shift, objectives, gradient.square().sum((0, 2)) / (2 * grid)


def _intercept_shift(logits: Tensor, coded: Tensor, w: Tensor) -> Tensor:
    """(s, k) what to add to the intercepts so that predicted and true class shares agree, by short Newton steps."""
    n, k = coded.shape
    present, share = coded.sum(0) > 0, (w * coded).mean(0)
    by_row = w.unsqueeze(2)  # (n, 1, 1)
    # Logits are free up to a constant, so that the Hessian is singular along it: pin their mean.
    pinned = torch.full((k, k), 1 / k, dtype=logits.dtype) + 10 * torch.finfo(logits.dtype).eps * torch.eye(k)
    shift = torch.zeros_like(logits[0])
    for _ in range(5):
        p = (logits + shift).softmax(2)
        mean = (by_row * p).mean(0)
        slope = (mean - share) * present
        if float(slope.abs().max()) < 2 * torch.finfo(logits.dtype).eps:
            break
        by_strength = p.transpose(0, 1)  # (s, n, k)
        hessian = pinned + torch.diag_embed(mean) - by_strength.mT @ (by_row * p).transpose(0, 1) / n
        # LDLᵀ because the Hessian is symmetric, and because MKL's batched LU fails on several threads beyond 150
        # columns (pytorch/pytorch#142815).
        factors, pivots = torch.linalg.ldl_factor(hessian)
        step = torch.linalg.ldl_solve(factors, pivots, slope.unsqueeze(2)).squeeze(2)
        shift = shift - step.clamp(-2, 2)
    return shift
