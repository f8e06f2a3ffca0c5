"""How each kind of probe is fitted and its strength chosen; what `fit_probe` hands its checked arrays to.

Each ``fit_`` function takes train features and labels, val ones or None, and returns the fields of a `Probe` that it
decides. None of them is given test data.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from frozenkit.errors import DataError, FrozenkitWarning, InputError, UnknownNameError
from frozenkit.features import FeatureSet
from frozenkit.nearest import NearestMean, NearestNeighbours
from frozenkit.rows import SCALES, feature_scale, row_weights
from frozenkit.scores import r_squared
from frozenkit.solvers import ridge_path
from frozenkit.splits import split

Labelled = tuple[Any, Tensor]  # (features: Tensor or CachedFeatures, labels)
Weights = Tensor | str | None  # of rows, as in `ridge_path`
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
FOLDS = 5
SELF_SCALED = 1 / 3  # of the images; below it, leaving one out by hand agreed to a point (`results/scaling.json`)
FEW = 40  # images: of fewer, each has much to say in any scale, at a cost of about a point by the same record
LEAST_GAIN = 1e-4  # of a score at the edge of the grid over all others, to be worth a warning


def fit_ridge(
    train: Labelled,
    val: Labelled | None,
    strengths: Sequence[float] | None,
    weights: Weights = None,
    scale: str = "soft",
) -> dict[str, Any]:
    """Ridge at the strength that is best by leave-one-out, or on val."""
    path = ridge_path(*train, strengths=strengths, weights=weights, scale=scale)
    grid = as_list(path.strengths)
    if val is None:
        strength, scores, chosen_on = float(path.best), as_list(path.loo_scores), "leave-one-out"
        best = int(np.abs(np.log(grid) - np.log(strength)).argmin())
    else:
        scores, chosen_on = [_quality(path.at(s), val) for s in grid], "val"
        best = best_of(scores)
        strength = grid[best]
    warn_at_edge(grid, scores, best)
    if val is None and len(train[1]) >= FEW and path.self_scaled > SELF_SCALED * len(train[1]):
        warnings.warn(
            f"{path.self_scaled} of {len(train[1])} images make up most of the scale of some feature, so leave-one-out "
            "flatters: a new image of their kind would come out far larger. Use scale='unit', or more images.",
            FrozenkitWarning,
            stacklevel=4,
        )
    is_regression = train[1].is_floating_point()
    return {
        "logits_of": path.at(strength),
        "temperature": 1.0 if is_regression else fit_temperature(path.leave_one_out(*train, strength), train[1]),
        "strength": strength,
        "chosen_on": chosen_on,
        "choice_score": scores[best],
        "path": path,
        "settings": {"flat": train[1].ndim == 1} if is_regression else {},
    }


def fit_softmax(
    train: Labelled,
    val: Labelled | None,
    strengths: Sequence[float] | None,
    weights: Weights,
    seed: int,
    scale: str = "soft",
) -> dict[str, Any]:
    """Multinomial logistic regression at the strength that is best in stratified cross-validation, or on val."""
    from frozenkit.solvers import softmax_path

    x, y = train
    path = softmax_path(x, y, strengths, weights=weights, scale=scale)
    grid = as_list(path.strengths)
    temperature = 1.0
    if val is not None:
        scores, chosen_on = [_quality(path.at(s), val) for s in grid], "val"
    else:
        (scores, held_out), chosen_on = _cross_validate(x, y, grid, weights, seed, scale), "cross-validation"
        temperature = fit_temperature(held_out, y) if len(held_out) else 1.0
    if not all(path.converged):
        stuck = [f"{s:.3g}" for s, done in zip(grid, path.converged) if not done]
        warnings.warn(
            f"softmax regression did not converge at strengths {', '.join(stuck)}. "
            "Leave out the smallest strengths, or scale the features.",
            FrozenkitWarning,
            stacklevel=4,
        )
    best = best_of(scores)
    warn_at_edge(grid, scores, best)
    return {
        "logits_of": path.at(grid[best]),
        "temperature": temperature,
        "strength": grid[best],
        "chosen_on": chosen_on,
        "choice_score": scores[best],
        "path": path,
    }


def fit_nearest(train: Labelled, val: Labelled | None, head: str, options: dict[str, bool]) -> dict[str, Any]:
    """Nearest class mean, or nearest neighbours with their number chosen by leave-one-out or on val."""
    x, y = train
    found: dict[str, Any] = {"strength": None, "chosen_on": "leave-one-out" if val is None else "val"}
    if head == "prototype":
        means = NearestMean(x, y, **options)
        held_out = means.leave_one_out(x, y)
        own = _share_right(held_out, y) if val is None else _quality(means, val)
        cooled = {"temperature": fit_temperature(held_out, y)}
        return found | cooled | {"logits_of": means, "choice_score": own, "settings": options}
    choices = [m for m in NEIGHBOURS if m < len(y)]
    candidates = [NearestNeighbours(x, y, neighbours=m, **options) for m in choices]
    if val is None:
        scores = [_share_right(c.leave_one_out(x), y) for c in candidates]
    else:
        scores = [_quality(c, val) for c in candidates]
    best = int(np.argmax(scores))  # the fewest neighbours among equals: no edge to warn of
    return found | {
        "logits_of": candidates[best],
        "choice_score": scores[best],
        "temperature": fit_temperature(candidates[best].leave_one_out(x), y),
        "settings": {"neighbours": choices[best], **options},
    }


class Scaler(nn.Module):
    """The scaling that a linear head gets (see `rows`), as a layer: fitted on train alone, then fixed.

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


def fit_module(
    train: FeatureSet, val: FeatureSet | None, head: nn.Module, seed: int, scale: str = "soft"
) -> dict[str, Any]:
    """A copy of `head` trained on scaled features, its epoch chosen on val or on a fifth of train."""
    from frozenkit.solvers import train_head

    if val is None:
        train, val = _carve(train, seed)
    scaler = Scaler(train.features, scale)
    trained = copy.deepcopy(head)
    scaled = [FeatureSet(scaler(p.features), p.labels, p.classes, p.ids, p.layer, "") for p in (train, val)]
    log = train_head(trained, scaled[0], scaled[1], seed=seed)
    module = nn.Sequential(scaler, trained).eval().cpu()
    return {
        "logits_of": module,
        "strength": None,
        "chosen_on": "val",
        "choice_score": _quality(module, (val.features, val.labels)),
        "path": log,
        "settings": {"flat": train.labels.ndim == 1} if train.labels.is_floating_point() else {},
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 that makes softmax(logits / T) likeliest for the labels, smoothed by what n images leave open.

    A head that has every one of n images right is not certain to be right about the next: the rule of succession gives
    that (n + 1)/(n + 2). So the target is 1 − ε for an image's own class and ε, shared out evenly, for the others, with
    ε = 1/(n + 2). Without it, T → 0 on perfect predictions, and every later mistake is made with probability 1.
    The loss is convex in 1/T, so it has one minimum in log T; golden-section search finds it.

    Args:
        logits: (n, k); −∞ for a class out of reach.
        labels: (n,) class indices.

    Returns:
        T, between 1/1000 and 1000 times the spread of the logits.

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017), On calibration of modern neural networks, ICML, section 4.2.
        J. Platt (1999), Probabilistic outputs for support vector machines, section 2.2: the smoothed targets.
    """
    if not len(labels):
        raise InputError("`val` must hold at least one image of a class that train has, got none.")
    # Where the own class was out of reach (left out and thereby empty), no temperature helps: such rows say nothing.
    reachable = logits.gather(1, labels[:, None]).squeeze(1).isfinite()
    if not reachable.any():
        return 1.0
    logits, labels = logits[reachable], labels[reachable]
    others = logits.isfinite().scatter(1, labels[:, None], False)
    epsilon = 1 / (len(labels) + 2) * others.any(1, keepdim=True)  # (n, 1)
    target = (epsilon / others.sum(1, keepdim=True).clamp_min(1) * others).scatter(1, labels[:, None], 1 - epsilon)
    z = logits.double().clamp(min=-1e30)  # 0 · ∞ must not arise
    z = z - z.amax(1, keepdim=True)
    spread = max(float(z[logits.isfinite()].std()), 1e-12)
    aimed = (target * z).sum(1)

    def loss(log_t: float) -> float:
        t = float(np.exp(log_t))
        return float(((z / t).logsumexp(1) - aimed / t).mean())

    low, high = float(np.log(spread / 1e3)), float(np.log(spread * 1e3))
    golden = (5**0.5 - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def best_of(scores: Sequence[float]) -> int:
    """The index of the best score along ascending strengths; of equals the last, as in `RidgePath.best`."""
    if np.isnan(scores).all():
        return 0
    tied = np.flatnonzero(np.asarray(scores) >= np.nanmax(scores))
    return int(tied[-1])


def warn_at_edge(strengths: Sequence[float], scores: Sequence[float], best: int) -> None:
    """Warn if the best strength is the smallest or largest tried and strictly better than every other.

    A grid that the best lies inside of shows that nothing better was cut off; a tie with an inner strength does too,
    and so does a gain that nobody would notice (R² still creeping towards 1).
    """
    if len(strengths) < 2:
        return
    order = np.argsort(strengths)
    others = np.delete(np.asarray(scores), best)
    if best not in (order[0], order[-1]) or scores[best] <= np.nanmax(others) + LEAST_GAIN:
        return
    smallest = best == order[0]
    word, way, factor = ("smallest", "smaller", 1e-3) if smallest else ("largest", "larger", 1e3)
    warnings.warn(
        f"the best strength, {strengths[best]:.3g}, is the {word} of those tried, so a {way} one may be better. "
        f"Extend `strengths` to {way} values, such as {strengths[best] * factor:.0e}.",
        FrozenkitWarning,
        stacklevel=4,
    )


def feature_batches(x: Any, size: int = 4096) -> Iterator[Tensor]:
    """Rows of a tensor, a `FeatureSet` or `CachedFeatures`, as float32 batches."""
    if hasattr(x, "batches"):
        yield from (rows for rows, _ in x.batches(size))
    else:
        features = x if isinstance(x, Tensor) else x.features
        yield from features.float().split(size)


def in_batches(logits_of: Callable[[Tensor], Tensor], batches: Iterator[Tensor], n: int) -> Tensor:
    """(n, k) float32 on the CPU, what `logits_of` makes of all batches, without gradients.

    Filled in place: pieces kept between the batches would keep the allocator from using their neighbourhood again, and
    memory would grow with the features of sets that were left on disk for its sake.
    """
    start, out = 0, torch.empty(n, 0)
    with torch.no_grad():
        for batch in batches:
            part = logits_of(batch)
            if start == 0:
                out = torch.empty(n, *part.shape[1:])
            out[start : start + len(part)] = part
            start += len(part)
    return out


def as_list(values: Any) -> list[float]:
    """Numbers of a tensor, array or sequence."""
    return [float(v) for v in values]


def _quality(logits_of: Any, val: Labelled) -> float:
    """Accuracy on val; R² where the labels are numbers."""
    x, y = val
    logits = in_batches(logits_of, feature_batches(x), len(y))
    return r_squared(logits, y) if y.is_floating_point() else _share_right(logits, y)


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1).cpu() == labels.cpu()).double().mean())


def _cross_validate(
    x: Tensor, y: Tensor, grid: Sequence[float], weights: Weights, seed: int, scale: str
) -> tuple[list[float], Tensor]:
    """Accuracy of each strength over all rows, and (n, k) logits at the best, all by paths that did not see the row.

    The logits of a class that was missing from the rest are −∞.
    """
    from frozenkit.solvers import softmax_path

    fold, w = _folds(y, seed), row_weights(weights, y)
    right = np.zeros(len(grid))
    parts = []
    for part in fold.unique().tolist():
        held = fold == part
        seen, place = y[~held].unique(return_inverse=True)
        if len(seen) < 2:
            if len(grid) == 1:
                return [float("nan")], torch.empty(0, 0)
            raise DataError(
                "choosing a strength by cross-validation needs at least two images of two classes in train. "
                "Give `val`, or one strength."
            )
        path = softmax_path(x[~held], place, grid, weights=w[~held], scale=scale)
        right += [float(w[held][seen[path.at(s)(x[held]).argmax(1)] == y[held]].sum()) for s in grid]
        parts.append((held, seen, path))
    scores = (right / len(y)).tolist()
    logits = torch.full((len(y), int(y.max()) + 1), -torch.inf)
    for held, seen, path in parts:
        logits[held.nonzero(), seen] = path.at(grid[best_of(scores)])(x[held])
    return scores, logits


def _folds(labels: Tensor, seed: int) -> Tensor:
    """(n,) fold of each row: classes are shuffled, then dealt out in turn, one after another."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    dealt = shuffled[labels[shuffled].argsort(stable=True)]
    fold = torch.empty(len(labels), dtype=torch.int64)
    fold[dealt] = torch.arange(len(labels)) % min(FOLDS, len(labels))
    return fold


def _carve(train: FeatureSet, seed: int) -> tuple[FeatureSet, FeatureSet]:
    """Four fifths to fit on and one to choose on, stratified."""
    strata = torch.zeros(len(train), dtype=torch.int64) if train.labels.is_floating_point() else train.labels
    fit_rows, val_rows = split(strata, fractions=(0.8, 0.2), seed=seed)
    if not len(val_rows) or len(strata[fit_rows].unique()) < len(strata.unique()):
        raise InputError(
            f"`val` must be given: a fifth of {len(train)} train images cannot be set aside without losing a class."
        )
    return train.subset(fit_rows), train.subset(val_rows)
