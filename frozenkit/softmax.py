"""Softmax (multinomial logistic) regression at every strength of a path, solved together as one batched problem.

Written with X (n, d) standardised and centred, and XᵀX = B·diag(s)·Bᵀ with B (d, r), r ≤ min(n, d):

* The minimiser of ``mean cross-entropy + λ/2·‖W‖²`` lies in the span of the samples, so W = B·V with ‖W‖ = ‖V‖:
  nothing is lost by solving for V (r, k) on Z = X·B. Where n < d this is the smaller problem.
* In this basis Böhning's bound on the Hessian, ½·ZᵀZ/n + λ, is diagonal: a preconditioner for free
  (Böhning, 1992, Multinomial logistic regression algorithm, theorem 1). L-BFGS improves on it.
* Logits are linear in V, so a line search needs one product for the direction, and none for each step tried.
* With two classes logistic regression is meant: one weight vector w, the difference of the two columns, penalised by
  λ/2·‖w‖². At the minimum the columns are ∓w/2, so the same problem in two columns has the penalty 2λ/2·‖W‖².
* The objective is λ-strongly convex in V. With the intercepts at their optimum, ``objective − minimum ≤ ‖∂V‖²/(2λ)``
  (Boyd and Vandenberghe, 2004, equation 9.9): a certificate, evaluated in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit.errors import InputError
from frozenkit.ridge import LinearMap, _checked_strengths, _coded, _Rows, _significant

DEFAULT_SOFTMAX_STRENGTHS = tuple(float(x) for x in np.logspace(-5, 1, 25))
_MEMORY = 10


@dataclass(frozen=True, eq=False)
class SoftmaxPath:
    """All softmax regressions along a path of strengths.

    Attributes:
        strengths: (s,) float64 λ, ascending.
        weights: (s, d, k) float32, for raw features.
        intercepts: (s, k) float32.
        objectives: (s,) float64 mean cross-entropy + λ/2·‖W‖², W in standardised space; with two classes
            λ/2·‖w‖² for the difference w of the two columns, as logistic regression has it.
        gaps: (s,) float64 certified upper bounds on objective − minimum.
        converged: (s,) bool: gap ≤ tolerance · objective.
    """

    strengths: Tensor
    weights: Tensor
    intercepts: Tensor
    objectives: Tensor
    gaps: Tensor
    converged: Tensor

    def at(self, strength: float) -> LinearMap:
        """The fit at one of the strengths of the path."""
        index = int((self.strengths.log() - np.log(max(float(strength), 1e-300))).abs().argmin())
        nearest = float(self.strengths[index])
        if not abs(nearest - strength) <= 1e-6 * nearest:
            raise InputError(f"`strength` must be one of the path's, got {strength!r}; the nearest is {nearest:.6g}.")
        return LinearMap(self.weights[index], self.intercepts[index])

    def to_frame(self) -> Any:
        """A pandas table: one row a strength."""
        import pandas as pd

        names = ("objectives", "gaps", "converged")
        return pd.DataFrame({n: getattr(self, n).numpy() for n in names}, index=pd.Index(self.strengths.numpy()))

    def __repr__(self) -> str:
        low, high = float(self.strengths[0]), float(self.strengths[-1])
        done = int(self.converged.sum())
        return f"SoftmaxPath({len(self.strengths)} strengths in {low:.0e}..{high:.0e}, {done} converged)"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def softmax_path(
    features: Any,
    labels: Tensor | None = None,
    strengths: Sequence[float] | None = None,
    *,
    standardize: bool = True,
    tolerance: float = 1e-4,
    n_classes: int | None = None,
    max_iterations: int = 500,
) -> SoftmaxPath:
    """Fits softmax regression at every strength, each with a certificate of convergence.

    Args:
        features: (n, d) tensor, `FeatureSet` or `CachedFeatures`; the rows are held in memory.
        labels: (n,) int64 class indices; may be left out if `features` carries labels.
        strengths: λ > 0 of the mean loss; default 25 from 1e-5 to 10.
        standardize: Centre and scale each feature; a constant feature is left at zero.
        tolerance: A fit counts as converged once its objective is certified to lie within this fraction of the minimum.
        n_classes: k, where not every class occurs.
        max_iterations: At most so many steps in each precision.

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
    source = _Rows(features, labels)
    if source.targets.is_floating_point():
        raise InputError("`labels` must be integer class indices, got floats. For regression use `ridge_path`.")
    grid = _checked_strengths(DEFAULT_SOFTMAX_STRENGTHS if strengths is None else strengths)
    coded = (_coded(source.targets, n_classes) + 1) / 2  # (n, k) one-hot
    mean, scale = source.moments(standardize)
    x = (torch.cat([chunk for _, chunk in source.chunks()]) - mean) / scale
    if source.d <= source.n:
        eigenvalues, basis = _significant(*torch.linalg.eigh(x.T @ x))
        z = x @ basis
    else:
        eigenvalues, left = _significant(*torch.linalg.eigh(x @ x.T))
        basis, z = x.T @ left / eigenvalues.sqrt(), left * eigenvalues.sqrt()

    s, k = len(grid), coded.shape[1]
    lam = grid * 2 if k == 2 else grid
    v = torch.zeros(len(eigenvalues), s, k, dtype=torch.float64)
    # An absent class would have its best intercept at −∞; −30 is as good as that.
    b = coded.mean(0).clamp_min(1e-13).log().expand(s, k).clone()
    objectives = torch.zeros(s, dtype=torch.float64)
    gaps = torch.full((s,), torch.inf, dtype=torch.float64)
    # float32 does most of the way; whatever is not certified then is finished in float64.
    for dtype in (torch.float32, torch.float64):
        todo = (gaps > tolerance * objectives).nonzero().flatten()
        if len(todo) == 0:
            break
        steps = (max_iterations, tolerance / 2)
        v[:, todo], b[todo] = _minimise(z, eigenvalues, coded, lam[todo], v[:, todo], b[todo], dtype, *steps)
        b[todo], objectives[todo], gaps[todo] = _certify(z, coded, lam[todo], v[:, todo], b[todo])

    weights = (basis / scale.unsqueeze(1)) @ v.flatten(1)  # (d, s·k)
    intercepts = b - (mean @ weights).view(s, k)
    return SoftmaxPath(
        grid,
        weights.view(-1, s, k).transpose(0, 1).float().contiguous(),
        intercepts.float(),
        objectives,
        gaps,
        gaps <= tolerance * objectives,
    )


def _minimise(
    z: Tensor,
    eigenvalues: Tensor,
    coded: Tensor,
    grid: Tensor,
    v: Tensor,
    b: Tensor,
    dtype: torch.dtype,
    max_iterations: int,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Preconditioned L-BFGS on all strengths at once; the intercepts ride along as the last row of the parameters."""
    n, k = coded.shape
    # The column of ones makes the intercept a weight that is not penalised; Z is centred, so the bound stays diagonal.
    design = torch.cat([z, torch.ones(n, 1)], 1).to(dtype)
    params = torch.cat([v, b.unsqueeze(0)]).to(dtype)  # (r+1, s, k)
    y, lam = coded.to(dtype), grid.to(dtype)
    penalty = lam.expand(len(params), -1).clone()
    penalty[-1] = 0
    curvature = torch.cat([eigenvalues / n, torch.ones(1)]).to(dtype).unsqueeze(1) / 2 + penalty  # (r+1, s)
    ids = torch.arange(len(grid))
    result = params.clone()
    logits = (design @ params.flatten(1)).view(n, -1, k)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    gradient, loss = _gradient(design, y, penalty, params, logits)
    for _ in range(max_iterations):
        near = gradient[:-1].square().sum((0, 2)) / (2 * lam) <= tolerance * loss
        if near.any():
            # The certificate wants intercepts at their optimum; that needs no product with the design but the last.
            shift = _intercept_shift(logits[:, near], y)
            params[-1, near] += shift
            logits[:, near] += shift
            gradient[:, near], loss[near] = _gradient(design, y, penalty[:, near], params[:, near], logits[:, near])
            keep = gradient[:-1].square().sum((0, 2)) / (2 * lam) > tolerance * loss
            result[:, ids[~keep]] = params[:, ~keep]
            if not keep.any():
                break
            ids, lam, loss = ids[keep], lam[keep], loss[keep]
            penalty, curvature, params, gradient = (t[:, keep] for t in (penalty, curvature, params, gradient))
            logits = logits[:, keep]
            history = [(p[:, keep], q[:, keep], rho[keep]) for p, q, rho in history]
        direction = _two_loops(gradient, curvature, history)
        slope = (gradient * direction).sum((0, 2))
        uphill = slope >= 0
        if uphill.any():
            direction[:, uphill] = -(gradient / curvature.unsqueeze(2))[:, uphill]
            slope = (gradient * direction).sum((0, 2))
        change = (design @ direction.flatten(1)).view_as(logits)
        step = _line_search(y, penalty, params, direction, logits, change, loss, slope)
        if not (step > 0).any():
            break  # rounding hides any further descent at this precision
        move = direction * step.view(1, -1, 1)
        params, logits = params + move, logits + change * step.view(1, -1, 1)
        new, loss = _gradient(design, y, penalty, params, logits)
        bend = new - gradient
        product = (move * bend).sum((0, 2))
        rho = torch.where(product > 0, 1 / product, 0.0)  # 0 leaves a useless pair out
        history = [*history[-_MEMORY + 1 :], (move, bend, rho)]
        gradient = new
    result[:, ids] = params
    return result[:-1].double(), result[-1].double()


def _gradient(design: Tensor, y: Tensor, penalty: Tensor, params: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (r+1, s, k) and objective (s,)."""
    log_p = logits.log_softmax(2)
    loss = -(log_p * y.unsqueeze(1)).sum((0, 2)) / len(y)
    residual = (log_p.exp() - y.unsqueeze(1)) / len(y)
    penalised = penalty.unsqueeze(2) * params
    gradient = (design.T @ residual.flatten(1)).view_as(params) + penalised
    return gradient, loss + (penalised * params).sum((0, 2)) / 2


def _two_loops(gradient: Tensor, curvature: Tensor, history: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The L-BFGS direction for each strength (Nocedal and Wright, 2006, algorithm 7.4), Böhning's diagonal inside."""
    q, alphas = gradient.clone(), []
    for move, bend, rho in reversed(history):
        alpha = rho * (move * q).sum((0, 2))
        q -= alpha.view(1, -1, 1) * bend
        alphas.append(alpha)
    q = q / curvature.unsqueeze(2)
    if history:  # Böhning's bound is an upper one; the last pair says by how much it overstates the curvature
        move, bend, rho = history[-1]
        scaled = (bend.square() / curvature.unsqueeze(2)).sum((0, 2))
        q *= torch.where(rho > 0, 1 / (rho * scaled).clamp_min(1e-30), 1.0).view(1, -1, 1)
    for (move, bend, rho), alpha in zip(history, reversed(alphas)):
        beta = rho * (bend * q).sum((0, 2))
        q += (alpha - beta).view(1, -1, 1) * move
    return -q


def _line_search(
    y: Tensor,
    penalty: Tensor,
    params: Tensor,
    direction: Tensor,
    logits: Tensor,
    change: Tensor,
    loss: Tensor,
    slope: Tensor,
) -> Tensor:
    """(s,) first step of 1, ½, ¼ … that descends enough (Armijo); 0 where none does."""
    linear = (penalty.unsqueeze(2) * params * direction).sum((0, 2))
    square = (penalty.unsqueeze(2) * direction.square()).sum((0, 2))
    start = (penalty.unsqueeze(2) * params.square()).sum((0, 2)) / 2
    step = torch.ones_like(loss)
    open_ = torch.ones_like(loss, dtype=torch.bool)
    for _ in range(20):
        moved = logits[:, open_] + change[:, open_] * step[open_].view(1, -1, 1)
        t = step[open_]
        fit = (moved.logsumexp(2) - (moved * y.unsqueeze(1)).sum(2)).mean(0)
        value = fit + start[open_] + t * linear[open_] + t.square() * square[open_] / 2
        worse = value > loss[open_] + 1e-4 * t * slope[open_]
        index = open_.nonzero().flatten()
        open_[index[~worse]] = False
        if not open_.any():
            return step
        step[open_] /= 2
    return torch.where(open_, 0.0, step)


def _certify(z: Tensor, coded: Tensor, grid: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intercepts at their optimum in float64, the objective, and a bound on its distance to the minimum."""
    logits = (z @ v.flatten(1)).view(len(z), -1, coded.shape[1]) + b
    shift = _intercept_shift(logits, coded)
    log_p = (logits + shift).log_softmax(2)
    objectives = -(log_p * coded.unsqueeze(1)).sum((0, 2)) / len(z) + grid / 2 * v.square().sum((0, 2))
    gradient = (z.T @ ((log_p.exp() - coded.unsqueeze(1)) / len(z)).flatten(1)).view_as(v) + grid.view(1, -1, 1) * v
    return b + shift, objectives, gradient.square().sum((0, 2)) / (2 * grid)


def _intercept_shift(logits: Tensor, coded: Tensor) -> Tensor:
    """(s, k) what to add to the intercepts so that predicted and true class shares agree, by damped Newton steps."""
    n, k = coded.shape
    present = coded.sum(0) > 0
    # Logits are free up to a constant, so that the Hessian is singular along it: pin their mean.
    pinned = torch.full((k, k), 1 / k, dtype=logits.dtype) + 10 * torch.finfo(logits.dtype).eps * torch.eye(k)
    shift = torch.zeros_like(logits[0])
    for _ in range(5):
        p = (logits + shift).softmax(2)
        slope = (p.mean(0) - coded.mean(0)) * present
        by_strength = p.transpose(0, 1)  # (s, n, k)
        hessian = pinned + torch.diag_embed(p.mean(0)) - by_strength.mT @ by_strength / n
        shift = shift - torch.linalg.solve(hessian, slope.unsqueeze(2)).squeeze(2).clamp(-2, 2)
    return shift
