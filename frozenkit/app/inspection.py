"""A closer look at images and labels, by features that are at hand: near duplicates, label errors, more labels."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from frozenkit.app.cross_validation import stratified_parts
from frozenkit.errors import DataError, FrozenkitWarning
from frozenkit.features import FeatureSet
from frozenkit.heads.ridge import RidgePath
from frozenkit.probes.extrapolation import Extrapolation, extrapolate
from frozenkit.probes.label_errors import LabelErrors, suspected_label_errors
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.probes.reports import LearningCurve, Run
from frozenkit.probes.scores import Score
from frozenkit.splits import NearDuplicates, near_duplicates

MOST_COMPARED = 20_000  # images: their 200 million pairs take about ten seconds
SHARES = (8, 4, 2)  # of the images, one eighth, one quarter, one half; and then all
DRAWS = 5
TIMES = (2, 4)


@dataclass(frozen=True, eq=False)
class Inspection:
    """What the features of the chosen layer tell about images and labels. Rows count all images, train before test.

    Attributes:
        near: Pairs of images that are nearly the same; None where there are more than 20,000 images.
        across: (m,) whether such a pair lies on two sides of a split: one image in train and one in test, or in two
            folds, so that a probe was judged by an image which it all but knew.
        without: `ProbeReport.score` of the judged images that are in no such pair; None where no pair is, or no image
            is left.
        suspects: Labels that out-of-sample predictions contradict: those behind `ProbeReport.score`, and leave-one-out
            for images of train where test is judged.
        curve: Accuracy of the chosen layer with fewer images; None where there are too few to leave any out.
        outlook: The same curve continued to twice and four times as many.
    """

    near: NearDuplicates | None
    across: Tensor
    without: Score | None
    suspects: LabelErrors
    curve: LearningCurve | None
    outlook: Extrapolation | None


def inspect_features(
    features: FeatureSet,
    sides: Tensor,
    judged: Tensor,
    probabilities: Tensor,
    *,
    judge: Callable[[Tensor], Score],
    draw: Callable[[int, int], tuple[Tensor, Tensor] | None],
    last: tuple[int, Score],
) -> Inspection:
    """Looks at the features of all images, train before test.

    Args:
        features: (n, d) at the chosen layer.
        sides: (n,) the side of a split that each image is on: train or test, or the number of its fold.
        judged: Rows of the images behind the score.
        probabilities: (n, k) of predictors that did not see the image.
        judge: From a mask of the judged rows to the score of those alone.
        draw: From a number of images and the number of the draw to rows to learn from, and rows to report on; None
            where there are not so many.
        last: Number of images that the report's own probe learnt from, and its score at this layer.
    """
    near = near_duplicates(features) if len(features) <= MOST_COMPARED else None
    across, without = torch.empty(0, dtype=torch.bool), None
    if near is not None:
        across = sides[near.pairs[:, 0]] != sides[near.pairs[:, 1]]
        clean = ~torch.isin(judged, near.pairs[across])
        if bool(across.any()) and bool(clean.any()):
            without = judge(clean)
    curve = _curve(features, draw, last)
    outlook = None
    if curve is not None and 3 <= len({run.n for run in curve.runs}) < len(curve.runs):
        n = len(features) if len(judged) == len(features) else last[0]
        outlook = extrapolate(curve, times=[factor * n / last[0] for factor in TIMES])
    return Inspection(near, across, without, suspected_label_errors(probabilities, features.labels), curve, outlook)


def leave_one_out_probabilities(probe: Probe, train: FeatureSet) -> Tensor:
    """(n, k) probabilities of each image of train by the ridge probe that is fitted without it."""
    path = probe.strength_path
    assert isinstance(path, RidgePath)
    assert probe.strength is not None
    labels = torch.searchsorted(probe.present, train.labels)
    logits = path.leave_one_out(train.features, labels, probe.strength).float()
    full = torch.full((len(train), len(probe.classes)), -torch.inf)
    full[:, probe.present] = logits
    return (full / probe.temperature).softmax(1)


def draw_inside(
    labels: Tensor, copies: Sequence[Sequence[int]], seed: int
) -> Callable[[int, int], tuple[Tensor, Tensor] | None]:
    """Draws that learn from some images and are reported on all the others."""

    def draw(size: int, repeat: int) -> tuple[Tensor, Tensor] | None:
        if not 2 <= size < len(labels):
            return None
        parts = stratified_parts(labels, copies, fractions=(size, len(labels) - size), seed=seed + repeat)
        return (parts[0], parts[1]) if len(parts) == 2 and len(parts[0]) and len(parts[1]) else None

    return draw


def draw_beside(labels: Tensor, n_train: int, seed: int) -> Callable[[int, int], tuple[Tensor, Tensor] | None]:
    """Draws that learn from some of train, the first rows, and are reported on test, the rest."""
    inside = draw_inside(labels[:n_train], (), seed)
    test = torch.arange(n_train, len(labels))

    def draw(size: int, repeat: int) -> tuple[Tensor, Tensor] | None:
        found = inside(size, repeat)
        return None if found is None else (found[0], test)

    return draw


def _curve(
    features: FeatureSet, draw: Callable[[int, int], tuple[Tensor, Tensor] | None], last: tuple[int, Score]
) -> LearningCurve | None:
    n, score = last
    runs, k = [], features.n_classes
    for share in SHARES:
        size = n // share
        if size < 2 * k:  # of each class two, where they are equally frequent
            continue
        for repeat in range(DRAWS):
            rows = draw(size, repeat)
            if rows is None:
                continue
            try:
                with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):  # of small draws, on purpose
                    probe = fit_probe(features.subset(rows[0]))
                    found = probe.score(features.subset(rows[1]))
            except DataError:  # a draw of one class, or of equal images
                continue
            runs.append(Run(probe.kind, size // k, len(rows[0]), repeat, found, probe.strength))
    if not runs:
        return None
    return LearningCurve((*runs, Run("ridge", n // k, n, 0, score, None)))
