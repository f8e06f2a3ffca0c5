"""Cross-validation of the whole procedure: folds, predictions out of them, and an interval that allows for both."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from frozenkit.errors import FrozenkitWarning
from frozenkit.features import FeatureSet
from frozenkit.probes.intervals import newcombe_interval, wilson_interval
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.probes.scores import Score, score
from frozenkit.splits import split

FOLDS = (10, 5)  # for folders of fewer than 400 images, which need most of them to learn from, and for larger ones
# Predictions of one cross-validation are not independent: probes share nine tenths of their images, and the probe
# in the end is itself a draw. Simulated with this very procedure (clothes, 60 to 600 images; emoji, 180), a Wilson
# interval of n images covers that probe's accuracy in 85 to 88 of 100 cases, one of n/1.5 in 93 to 95.
SHARED = 1.5


def cross_validated(sets: Mapping[str, FeatureSet], folds: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Each image predicted by probes that never saw it, neither to fit nor to choose.

    Args:
        sets: Layer to features of the same images.
        folds: Rows of each fold; together every row once.

    Returns:
        (n, k) probabilities of the whole procedure, which chooses a layer by leave-one-out outside the fold, and of
        each layer alone.
    """
    any_set = next(iter(sets.values()))
    by_layer = {name: torch.zeros(len(any_set), any_set.n_classes) for name in sets}
    whole = torch.zeros(len(any_set), any_set.n_classes)
    for fold in folds:
        rest = outside(fold, len(any_set))
        probes = {name: fit_quietly(part.subset(rest)) for name, part in sets.items()}
        for name, probe in probes.items():
            by_layer[name][fold] = probe.predict_proba(sets[name].subset(fold))
        whole[fold] = by_layer[max(probes, key=lambda name: probes[name].choice_score)][fold]
    return whole, by_layer


def cross_validated_score(predictions: Tensor, labels: Tensor, classes: Sequence[str]) -> Score:
    """The `Score` of predictions from cross-validation, with an interval for the probe that is fitted on all images.

    The interval is Wilson's for n/1.5 images: that for n is too narrow, because the folds share most of what they are
    fitted on. By how much was simulated with this very procedure (see `SHARED`). It is too low where classes have about
    five images: a probe of all of them is better than one that lacks one in five (Gaussian clouds, n = 25, five
    classes: covered in 77 to 83 of 100 cases, with hardly any miss on the other side).

    References:
        S. Bates, T. Hastie, R. Tibshirani (2024), Cross-validation: what does it estimate and how well does it do it?,
        JASA 119.
    """
    found = score(predictions, labels, n_classes=len(classes), classes=classes)
    low, high = wilson_interval(found.n_correct / SHARED, found.n / SHARED)
    return replace(found, low=float(low), high=float(high))


def paired_lead(predictions: Tensor, other: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Difference in accuracy of two cross-validations on the same folds, with Newcombe's paired interval for n/1.5."""
    right, other_right = predictions == labels, other == labels
    counts = [int((a & b).sum()) / SHARED for a in (right, ~right) for b in (other_right, ~other_right)]
    difference, low, high = newcombe_interval(*counts)
    return float(difference), float(low), float(high)


def unpaired_lead(mine: Score, other: Score) -> tuple[float, float, float]:
    """Difference in accuracy with Newcombe's interval for two samples; a paired one would be narrower."""
    difference = mine.accuracy - other.accuracy
    down = math.hypot(mine.accuracy - mine.low, other.high - other.accuracy)
    up = math.hypot(mine.high - mine.accuracy, other.accuracy - other.low)
    return difference, difference - down, difference + up


def out_of_fold(
    features: FeatureSet,
    folds: Sequence[Tensor],
    fit: Callable[[FeatureSet], Callable[[FeatureSet], Tensor]] | None = None,
) -> Tensor:
    """(n,) predictions, each by a probe that was fitted without the fold."""
    found = torch.zeros(len(features), dtype=torch.int64)
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):  # of a path's edge, in every fold
        for fold in folds:
            rest = features.subset(outside(fold, len(features)))
            predict = fit(rest) if fit is not None else fit_probe(rest).predict
            found[fold] = predict(features.subset(fold))
    return found


def fit_quietly(train: FeatureSet) -> Probe:
    """`fit_probe` without its warnings, which would come once a fold."""
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        return fit_probe(train)


def outside(rows: Tensor, n: int) -> Tensor:
    """(n,) whether a row is not among these."""
    mask = torch.ones(n, dtype=torch.bool)
    mask[rows] = False
    return mask


def together(train: FeatureSet, test: FeatureSet, *, code: str = "") -> FeatureSet:
    """The images of both, train before test; `code` is the Python expression that loads them, where it is known."""
    return replace(
        train,
        features=torch.cat([train.features, test.features]),
        labels=torch.cat([train.labels, test.labels]),
        ids=(*train.ids, *test.ids),
        fingerprint="",
        origin=train.origin and replace(train.origin, n_images=len(train) + len(test), code=code),
    )


def stratified_parts(
    labels: Tensor, copies: Sequence[Sequence[int]], *, fractions: Sequence[float], seed: int
) -> tuple[Tensor, ...]:
    """`split`, with copies in the same part, unless that would leave all but one part without some class."""
    if any(len(rows) > 1 for rows in copies):
        groups = list(range(len(labels)))
        for rows in copies:
            for row in rows:
                groups[row] = rows[0]
        n_groups, classes = len(set(groups)), len(labels.unique())
        parts = split(labels, fractions=fractions[:n_groups], groups=groups, seed=seed)
        if all(len(labels[outside(part, len(labels))].unique()) == classes for part in parts):
            return parts
    return split(labels, fractions=fractions, seed=seed)
