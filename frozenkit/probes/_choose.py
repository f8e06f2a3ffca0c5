"""How each kind of probe is fitted and its strength chosen; what `fit_probe` hands its checked arrays to.

Each ``fit_`` function takes train features and labels, val ones or None, and returns a `Fit`. None of them is given
test data.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from frozenkit._arrays import constant_columns, r_squared, rarest_label, row_weights
from frozenkit.errors import DataError, FrozenkitWarning, InputError
from frozenkit.features import Features, FeatureSet
from frozenkit.heads.logistic import DEFAULT_LOGISTIC_STRENGTHS, LogisticPath, logistic_path
from frozenkit.heads.modules import in_batches
from frozenkit.heads.nearest import NearestMean, NearestNeighbours
from frozenkit.heads.ridge import LinearMap, RidgePath, ridge_path
from frozenkit.heads.scaling import Scaler
from frozenkit.heads.softmax import SoftmaxPath, softmax_path
from frozenkit.heads.training import TrainLog, train_head
from frozenkit.probes.calibration import fit_temperature
from frozenkit.probes.multilabel import mean_average_precision
from frozenkit.splits import split

Labelled = tuple[Any, Tensor]  # (features: Tensor or Features, labels)
SampleWeight = Tensor | str | None  # as in `ridge_path`
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
FOLDS = 5
SELF_SCALED = 1 / 3  # of the images; below it, leaving one out by hand agreed to a point (`results/scaling.json`)
FEW = 40  # images: of fewer, each has much to say in any scale, at a cost of about a point by the same record
LEAST_GAIN = 1e-4  # of a score at the edge of the grid over all others, to be worth a warning


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted head and how it was chosen: what of a `Probe` depends on its kind; the names mean the same there."""

    head: LinearMap | nn.Module
    chosen_on: str
    choice_score: float
    strength: float | None = None
    temperature: float = 1.0
    strength_path: RidgePath | SoftmaxPath | LogisticPath | None = None
    log: TrainLog | None = None
    settings: dict[str, int] = field(default_factory=dict)


def fit_ridge(
    train: Labelled,
    val: Labelled | None,
    strengths: Sequence[float] | None,
    sample_weight: SampleWeight = None,
    scale: str = "soft",
) -> Fit:
    """Ridge at the strength that is best by leave-one-out, or on val; on ±1 where there are several labels."""
    labels, on_val = train[1], val
    if labels.dtype == torch.bool:
        train, val = (part and (part[0], part[1].double() * 2 - 1) for part in (train, val))  # type: ignore[assignment]
    path = ridge_path(*train, strengths=strengths, sample_weight=sample_weight, scale=scale)
    grid = as_list(path.strengths)
    if val is None:
        strength, scores, chosen_on = float(path.best), as_list(path.loo_scores), "leave-one-out"
        best = int(np.abs(np.log(grid) - np.log(strength)).argmin())
    else:
        scores, chosen_on = [_quality(path.at(s), val, sample_weight) for s in grid], "val"
        best = best_of(scores)
        strength = grid[best]
    warn_at_edge(grid, scores, best)
    if val is None and len(train[1]) >= FEW and path.self_scaled > SELF_SCALED * len(train[1]):
        warnings.warn(
            f"{path.self_scaled} of {len(train[1])} images make up most of the scale of some feature, so leave-one-out "
            "flatters: a new image of their kind would come out far larger. Use scale='unit', or more images.",
            FrozenkitWarning,
            stacklevel=3,
        )
    temperature, score = 1.0, scores[best]
    if not labels.is_floating_point():
        held_out = path.leave_one_out(*train, strength)
        if labels.dtype == torch.bool:
            temperature = fit_temperature(*as_binary(held_out, labels))
            score = _quality(path.at(strength), on_val) if on_val else mean_average_precision(held_out, labels)
        else:
            temperature = fit_temperature(held_out, labels)
    return Fit(path.at(strength), chosen_on, score, strength, temperature, path)


def fit_softmax(
    train: Labelled,
    val: Labelled | None,
    strengths: Sequence[float] | None,
    sample_weight: SampleWeight,
    seed: int,
    scale: str = "soft",
) -> Fit:
    """Multinomial logistic regression at the strength that is best in stratified cross-validation, or on val."""
    x, y = train
    path = softmax_path(x, y, strengths, sample_weight=sample_weight, scale=scale)
    grid = as_list(path.strengths)
    temperature = 1.0
    if val is not None:
        scores, chosen_on = [_quality(path.at(s), val, sample_weight) for s in grid], "val"
    else:
        (scores, held_out), chosen_on = _cross_validate(x, y, grid, sample_weight, seed, scale), "cross-validation"
        temperature = fit_temperature(held_out, y) if len(held_out) else 1.0
    if not all(path.converged):
        stuck = [f"{s:.3g}" for s, done in zip(grid, path.converged) if not done]
        warnings.warn(
            f"softmax regression did not converge at strengths {', '.join(stuck)}. "
            "Leave out the smallest strengths, or scale the features.",
            FrozenkitWarning,
            stacklevel=3,
        )
    best = best_of(scores)
    warn_at_edge(grid, scores, best)
    return Fit(path.at(grid[best]), chosen_on, scores[best], grid[best], temperature, path)


def fit_logistic(
    train: Labelled,
    val: Labelled | None,
    strengths: Sequence[float] | None,
    sample_weight: SampleWeight,
    seed: int,
    scale: str = "soft",
) -> Fit:
    """Independent logistic regressions of several labels, at the strength of least log-loss in cross-validation or on
    val.

    One strength serves all labels. Chosen label by label it cost up to 0.02 of log-loss with few images of a label (on
    handwritten digits), and gained as much where labels differed a hundredfold in how much the features say of them;
    mean average precision was the same within 0.003. Chosen by average precision, probabilities came out far worse.
    """
    x, y = train
    truth, chosen_on = (y, "cross-validation") if val is None else (val[1].cpu(), "val")
    w = row_weights(None if val else sample_weight, truth)
    log_loss, target = nn.functional.binary_cross_entropy_with_logits, truth.double()
    # Fits at the weakest strengths take most of the time: they are made only where one of them may be the best.
    for tried in [strengths] if strengths is not None else [DEFAULT_LOGISTIC_STRENGTHS[4:], DEFAULT_LOGISTIC_STRENGTHS]:
        path = logistic_path(x, y, tried, sample_weight=sample_weight, scale=scale)
        grid = as_list(path.strengths)
        if val is None:
            held_out = _held_out_logits(x, y, grid, w, seed, scale)
        else:
            held_out = torch.stack([in_batches(path.at(s), feature_batches(val[0]), len(val[1])) for s in grid])
        scores = [-float(w @ log_loss(z.double(), target, reduction="none").mean(1)) / len(truth) for z in held_out]
        if not scores or (best := best_of(scores)) > 0:
            break
    if not all(path.converged):
        stuck = [f"{s:.3g}" for s, done in zip(grid, path.converged) if not done]
        warnings.warn(
            f"logistic regression did not converge at strengths {', '.join(stuck)}. "
            "Leave out the smallest strengths, or scale the features.",
            FrozenkitWarning,
            stacklevel=3,
        )
    if not len(held_out):
        return Fit(path.at(grid[0]), chosen_on, float("nan"), grid[0], 1.0, path)
    warn_at_edge(grid, scores, best)
    temperature = fit_temperature(*as_binary(held_out[best], truth))
    score = mean_average_precision(held_out[best], truth)
    return Fit(path.at(grid[best]), chosen_on, score, grid[best], temperature, path)


def as_binary(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n, k) logits and booleans as n·k images of two classes, whose softmax is the sigmoid."""
    flat = logits.flatten()
    return torch.stack([torch.zeros_like(flat), flat], 1), labels.flatten().long()


def fit_nearest_mean(train: Labelled, val: Labelled | None, *, center: bool, normalize: bool) -> Fit:
    """Nearest class mean; nothing is chosen."""
    means = NearestMean(*train, center=center, normalize=normalize)
    held_out = means.leave_one_out(*train)
    score = _share_right(held_out, train[1]) if val is None else _quality(means, val)
    temperature = fit_temperature(held_out, train[1])
    return Fit(
        means, _name_of(val), score, temperature=temperature, settings={"center": center, "normalize": normalize}
    )


def fit_neighbours(train: Labelled, val: Labelled | None, *, center: bool, normalize: bool) -> Fit:
    """Nearest neighbours, their number chosen by leave-one-out or on val."""
    x, y = train
    choices = [m for m in NEIGHBOURS if m < len(y)]
    candidates = [NearestNeighbours(x, y, neighbours=m, center=center, normalize=normalize) for m in choices]
    if val is None:
        scores = [_share_right(c.leave_one_out(x), y) for c in candidates]
    else:
        scores = [_quality(c, val) for c in candidates]
    best = int(np.argmax(scores))  # the fewest neighbours among equals: no edge to warn of
    temperature = fit_temperature(candidates[best].leave_one_out(x), y)
    settings = {"neighbours": choices[best], "center": center, "normalize": normalize}
    return Fit(candidates[best], _name_of(val), scores[best], temperature=temperature, settings=settings)


def fit_module(train: FeatureSet, val: FeatureSet | None, head: nn.Module, seed: int, scale: str = "soft") -> Fit:
    """A copy of `head` trained on scaled features, its epoch chosen on val or on a fifth of train."""
    if val is None:
        train, val = _carve(train, seed)
    scaler = Scaler(train.features, scale)
    scaled = [part.with_features(scaler(part.features)) for part in (train, val)]
    log = train_head(head, scaled[0], scaled[1], seed=seed)
    module = nn.Sequential(scaler, log.head).eval().cpu()
    return Fit(module, "val", _quality(module, (val.features, val.labels)), log=log)


def _name_of(val: Labelled | None) -> str:
    return "leave-one-out" if val is None else "val"


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


def feature_batches(x: Tensor | Features, size: int = 4096) -> Iterator[Tensor]:
    """Rows as float32 batches."""
    parts = x.split(size) if isinstance(x, Tensor) else (rows for rows, _ in x.batches(size))
    yield from (rows.float() for rows in parts)


def as_list(values: Any) -> list[float]:
    """Numbers of a tensor, array or sequence."""
    return [float(v) for v in values]


def _quality(head: Callable[[Tensor], Tensor], val: Labelled, sample_weight: SampleWeight = None) -> float:
    """Accuracy on val, of classes that count alike if balanced; R² where the labels are numbers, mAP where several.

    Weights given row by row are of train: on val each image counts once.
    """
    x, y = val
    logits = in_batches(head, feature_batches(x), len(y))
    if y.dtype == torch.bool:
        return mean_average_precision(logits, y.cpu())
    if y.is_floating_point():
        return r_squared(logits, y)
    return _share_right(logits, y, row_weights("balanced", y.cpu()) if isinstance(sample_weight, str) else None)


def _share_right(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    right = (logits.argmax(1).cpu() == labels.cpu()).double()
    return float((right if weights is None else weights * right).mean())


def _cross_validate(
    x: Tensor, y: Tensor, grid: Sequence[float], sample_weight: SampleWeight, seed: int, scale: str
) -> tuple[list[float], Tensor]:
    """Accuracy of each strength over all rows, and (n, k) logits at the best, all by paths that did not see the row.

    The logits of a class that was missing from the rest are −∞.
    """
    fold, w = _folds(y, seed), row_weights(sample_weight, y)
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
        path = softmax_path(x[~held], place, grid, sample_weight=w[~held], scale=scale)
        right += [float(w[held][seen[path.at(s)(x[held]).argmax(1)] == y[held]].sum()) for s in grid]
        parts.append((held, seen, path))
    scores = (right / len(y)).tolist()
    logits = torch.full((len(y), int(y.max()) + 1), -torch.inf)
    for held, seen, path in parts:
        logits[held.nonzero(), seen] = path.at(grid[best_of(scores)])(x[held])
    return scores, logits


def _held_out_logits(x: Tensor, y: Tensor, grid: Sequence[float], w: Tensor, seed: int, scale: str) -> Tensor:
    """(s, n, k) logits of several labels at each strength, by paths that did not see the row; (0,) for want of images.

    A label that all of the rest have, or none, gets the same logit everywhere, from its share, half an image added.
    """
    fold = _folds(rarest_label(y), seed)
    logits = torch.empty(len(grid), len(y), y.shape[1])
    fitted = False
    for part in fold.unique().tolist():
        held, rest = fold == part, y[fold != part]
        logits[:, held] = torch.logit((rest.sum(0) + 0.5) / (len(rest) + 1))
        varying = [j for j in range(y.shape[1]) if j not in constant_columns(rest)]
        if not varying:
            continue
        path = logistic_path(x[~held], rest[:, varying], grid, sample_weight=w[~held], scale=scale)
        rows, columns, fitted = held.nonzero(), torch.tensor(varying), True
        for i, strength in enumerate(grid):
            logits[i, rows, columns] = path.at(strength)(x[held])
    if not fitted:
        if len(grid) == 1:
            return torch.empty(0)
        raise DataError(
            "choosing a strength by cross-validation needs a label that at least two images in train have and two do "
            "not. Give `val`, or one strength."
        )
    return logits


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
