"""Gaps: how much error is left on the table by freezing, with an interval, and from how many labels on it matters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from frozenkit._outputs import Shown
from frozenkit.errors import InputError, require
from frozenkit.probes.intervals import normal_quantile, wilson_interval
from frozenkit.probes.reports import LearningCurve
from frozenkit.probes.scores import Gap, IntegerRows, as_integers, compare

if TYPE_CHECKING:
    import pandas as pd

# A learning curve of one head, or what was recorded of one: labelled images → (accuracy, test images).
Curve = LearningCurve | Mapping[int, tuple[float, int]]


def representation_gap(
    frozen_predictions: IntegerRows, tuned_predictions: IntegerRows, labels: IntegerRows, *, confidence: float = 0.95
) -> Gap:
    """Error of the frozen probe less the error of the fine-tuned network, image by image.

    The theory's gap is to φ*, the best representation for the task. A fine-tuned backbone is a stand-in for it: it
    depends on the data, the learning rate and the patience spent on it. And it is the gap of *this* backbone: the order
    of backbones when frozen need not be their order when tuned. Among networks pretrained with ImageNet's labels it
    mostly is (Kornblith et al.); across ways of pretraining it is not (He et al.: masked autoencoders against
    contrastive learning).

    Args:
        frozen_predictions: (n,) class indices.
        tuned_predictions: (n,) class indices for the same images in the same order.
        labels: (n,) class indices.
        confidence: Of the interval.

    Returns:
        A `Gap`; positive when tuning helps.

    Raises:
        InputError: If the lengths differ or there is no image.

    Example:
        >>> representation_gap([1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1])
        +25.0 points [-32.0, +65.5], p = 1 on 4 images

    References:
        S. Kornblith, J. Shlens, Q. V. Le (2019), Do better ImageNet models transfer better?, CVPR.
        K. He, X. Chen, S. Xie, Y. Li, P. Dollár, R. Girshick (2022), Masked autoencoders are scalable vision learners,
        CVPR, section 4.3 (linear probing and partial fine-tuning).
    """
    test = compare(tuned_predictions, frozen_predictions, labels, confidence=confidence)
    return Gap(test.value, test.low, test.high, test.p_value, test.n, confidence)


class PublishedGap(NamedTuple):
    """Accuracies as published; not measured here, and without intervals."""

    frozen: float
    tuned: float

    @property
    def gap(self) -> float:
        """Tuned less frozen accuracy: positive when tuning helps."""
        return self.tuned - self.frozen


# Frozen linear probe against full fine-tuning, as published.
PUBLISHED_GAPS: Mapping[str, PublishedGap] = {
    "cifar10": PublishedGap(0.932, 0.974),
    "cifar100": PublishedGap(0.785, 0.869),
    "flowers102": PublishedGap(0.941, 0.982),
    "dtd": PublishedGap(0.738, 0.794),
    "retinal-oct": PublishedGap(0.682, 0.895),
}


class CurvePoint(NamedTuple):
    """A learning curve at one size.

    Attributes:
        n: Labelled images.
        accuracy: Mean over the draws.
        low: Lowest end of the draws' Wilson intervals.
        high: Highest end of them.
    """

    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class BreakEven(Shown):
    """The number of labelled images at which fine-tuning overtakes the frozen probe.

    Attributes:
        n: Interpolated in log n; None where fine-tuning does not overtake within the range measured, or nothing tells.
        low: Lower end of its interval; 0 where it may lie below the range.
        high: Upper end; infinite where it may lie above the range.
        leads: Where nobody overtakes: ``"frozen"`` or ``"tuned"`` if that arm is ahead over the range, by more than
            chance explains at one size at least; ``"tuned, then frozen"`` if the curves cross the other way;
            ``"level"`` if no size tells them apart. Else ``""``.
        measured: Smallest and largest number of images at which both were measured.
        frozen: The frozen probe's curve, a `CurvePoint` for each size.
        tuned: That of the tuned network.
        confidence: Of the interval.
    """

    n: float | None
    low: float
    high: float
    leads: str
    measured: tuple[int, int]
    frozen: tuple[CurvePoint, ...]
    tuned: tuple[CurvePoint, ...]
    confidence: float = 0.95

    @property
    def sentence(self) -> str:
        """Where fine-tuning overtakes; or that it does not, and who is ahead."""
        first, last = (f"{size:,}" for size in self.measured)
        if self.n is not None:
            return f"Fine-tuning overtakes at about {self.n:,.0f} labelled images"
        said = {
            "frozen": "the frozen probe is ahead",
            "tuned": "fine-tuning is ahead",
            "tuned, then frozen": "fine-tuning is ahead at first, the frozen probe at the end",
            "level": "nothing tells the two apart",
        }[self.leads]
        if self.leads == "tuned" and self.high >= self.measured[0]:
            said += f", level with it at {first}"
        if self.leads == "frozen" and self.low <= self.measured[1]:
            said += f", level with it at {last}"
        return f"As measured, no break-even between {first} and {last} labelled images: {said}"

    @property
    def interval(self) -> str:
        """The interval in words, such as "fewer than 100 to 800"."""
        first, last = self.measured
        if self.high < first or self.low > last:
            return f"fewer than {first:,}" if self.high < first else f"more than {last:,}"
        low = f"fewer than {first:,}" if self.low < first else f"{self.low:,.0f}"
        high = f"more than {last:,}" if self.high > last else f"{self.high:,.0f}"
        return f"{low} to {high}"

    def __repr__(self) -> str:
        return f"{self.sentence}; {100 * self.confidence:.3g} % interval: {self.interval}"


def break_even(
    frozen_curve: Any,
    tuned_curve: Any,
    *,
    labels: IntegerRows | None = None,
    gaps: Mapping[int, Gap] | None = None,
    draws: int = 4000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BreakEven:
    """From how many labelled images on fine-tuning is better, as far as two learning curves can tell.

    The difference of the mean accuracies is interpolated linearly in log n. The answer is the crossing from minus to
    plus that divides it best: with the least area above zero before it and below zero behind it. For the interval the
    same is done to `draws` curves with noise as large as the measured ones have; the interval leaves out equally many
    answers on either side.

    How large the noise is follows from what is given:

    * *Predictions* and `labels`: all of it, image by image. Two arms, and neighbouring sizes, mostly err on the same
      images. The interval covers the truth in about 95 % of experiments, at any number of sizes.
    * *Accuracies* alone: an upper limit. The arms count as measured on different images, and the errors of all sizes as
      moving together. The interval covers more often than it says, and is wide.
    * With `gaps` as well, the two arms are paired at each size, and only the sizes move together.

    Between draws of train images there is noise as well: it counts where there are several draws. A curve of one draw
    cannot know it, and the interval is then about these train images.

    Args:
        frozen_curve: A `LearningCurve` of one head; or labelled images → (accuracy, test images); or, with `labels`,
            labelled images → (n_test,) predicted classes, or (draws, n_test).
        tuned_curve: The same of the tuned network; at least two sizes in common with the other.
        labels: (n_test,) class indices of the test images, where the curves hold predictions.
        gaps: Labelled images → `representation_gap` on the same test images.
        draws: Simulated curves.
        confidence: Of the interval, in (0, 1).
        seed: Of the simulated curves.

    Returns:
        A `BreakEven`.

    Raises:
        InputError: If a curve holds several heads, fewer than two sizes are common to both, predictions do not fit
            `labels`, an accuracy lies outside [0, 1], or a gap is not that of the curves.

    Example:
        >>> break_even({100: (0.8, 1000), 10_000: (0.8, 1000)}, {100: (0.7, 1000), 10_000: (0.9, 1000)})
        Fine-tuning overtakes at about 1,000 labelled images; 95 % interval: 451 to 2,158
    """
    z = normal_quantile(confidence)
    sizes = sorted(set(_sizes(frozen_curve)) & set(_sizes(tuned_curve)))
    if len(sizes) < 2:
        raise InputError(
            "the curves must have at least two sizes in common, "
            f"got {_sizes(frozen_curve)} and {_sizes(tuned_curve)} images."
        )
    true = None if labels is None else as_integers("labels", labels)
    if true is not None:
        difference, covariance = _paired_noise(frozen_curve, tuned_curve, true, sizes)
    else:
        difference, covariance = _largest_noise(frozen_curve, tuned_curve, gaps, sizes)
    x = np.log(np.asarray(sizes, dtype=float))
    noise = np.random.default_rng(seed).multivariate_normal(
        np.zeros(len(x)), covariance, size=draws, method="eigh", check_valid="ignore"
    )
    found = float(_crossings(x, difference[None])[0])
    tail = (1 - confidence) / 2
    ends = np.exp(np.quantile(_crossings(x, difference + noise), [tail, 1 - tail], method="nearest"))
    leads = _leader(difference, z * np.sqrt(np.diag(covariance)))
    within = bool(np.isfinite(found)) and leads != "level"
    return BreakEven(
        n=float(np.exp(found)) if within else None,
        low=float(ends[0]),
        high=float(ends[1]),
        leads="" if within else leads,
        measured=(sizes[0], sizes[-1]),
        frozen=_points(_draws(frozen_curve, "frozen_curve", true)),
        tuned=_points(_draws(tuned_curve, "tuned_curve", true)),
        confidence=confidence,
    )


def _leader(difference: np.ndarray, noise: np.ndarray) -> str:
    """Who is ahead, if nobody overtakes; only differences larger than the noise speak."""
    frozen, tuned = (difference < -noise).any(), (difference > noise).any()
    if frozen and tuned:
        return "tuned, then frozen"
    return "frozen" if frozen else "tuned" if tuned else "level"


def _crossings(x: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """(m,) where each of (m, s) interpolated differences is best divided into minus before and plus behind.

    That is where its integral from the left end on is smallest: at an end (−∞ or ∞), or where a piece rises through 0.
    """
    a, b, step = difference[:, :-1], difference[:, 1:], np.diff(x)
    area = np.concatenate([np.zeros((len(a), 1)), np.cumsum((a + b) / 2 * step, axis=1)], axis=1)
    rises = (a < 0) & (b > 0)
    share = np.divide(-a, b - a, out=np.zeros_like(a), where=rises)
    inner = np.where(rises, area[:, :-1] + a * share * step / 2, np.inf)
    best, rows = inner.argmin(1), np.arange(len(a))
    outside = np.where(area[:, -1] < 0, np.inf, -np.inf)
    is_inner = inner[rows, best] < np.minimum(0, area[:, -1])
    return np.where(is_inner, x[best] + share[rows, best] * step[best], outside)


def _sizes(curve: Any) -> list[int]:
    return sorted({run.n for run in curve.runs}) if isinstance(curve, LearningCurve) else sorted(map(int, curve))


def _right(curve: Any, name: str, n: int, true: np.ndarray) -> np.ndarray:
    """(draws, n_test) 1.0 where the predictions of a curve at n labelled images are right."""
    predicted = np.atleast_2d(np.asarray(curve[n] if isinstance(curve, Mapping) else 0))
    if predicted.dtype.kind not in "iu" or predicted.ndim != 2 or predicted.shape[1] != len(true):
        raise InputError(
            f"with `labels`, `{name}` must map labelled images to {len(true)} predicted classes (or to several "
            f"draws of them), got {predicted.dtype} {predicted.shape} at {n}."
        )
    return (predicted == true).astype(float)


def _paired_noise(frozen: Any, tuned: Any, true: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(s,) differences and their (s, s) covariance, from predictions for the same test images at every size."""
    scores, between = [], []
    for n in sizes:
        arms = [_right(frozen, "frozen_curve", n, true), _right(tuned, "tuned_curve", n, true)]
        gain = [right.mean(0) for right in arms]
        scores.append(gain[1] - gain[0])
        # Draws of the same train images go together where there are equally many.
        means = [right.mean(1) for right in arms]
        spread = [means[1] - means[0]] if len(means[0]) == len(means[1]) else means
        between.append(sum(float(v.var(ddof=1)) / len(v) if len(v) > 1 else 0.0 for v in spread))
    c = np.stack(scores)  # (s, n_test), 1 where only the tuned network is right, −1 where only the probe is
    # One discordant image more keeps the noise of two arms that never differ from being 0.
    covariance = c @ c.T / c.shape[1] ** 2 + np.diag(np.asarray(between) + 1 / c.shape[1] ** 2)
    return c.mean(1), covariance


def _largest_noise(
    frozen: Any, tuned: Any, gaps: Mapping[int, Gap] | None, sizes: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(s,) differences and a covariance that is none too small, from accuracies with their numbers of test images."""
    parts = [_by_size(frozen, "frozen_curve"), _by_size(tuned, "tuned_curve")]
    difference = np.array([parts[1][n][0] - parts[0][n][0] for n in sizes])
    of_test = np.array([math.hypot(parts[0][n][1], parts[1][n][1]) for n in sizes])
    of_draws = np.array([math.hypot(parts[0][n][2], parts[1][n][2]) for n in sizes])
    for i, n in enumerate(sizes if gaps is not None else []):
        if gaps is None or n not in gaps or abs(gaps[n].value - difference[i]) > 0.5 / gaps[n].n:
            raise InputError(
                f"`gaps` must hold the gap at each size of the curves, but at {n} images their difference is "
                f"{difference[i]:+.4f}, got {None if gaps is None else gaps.get(n)!r}."
            )
        of_test[i] = (gaps[n].high - gaps[n].low) / 2 / normal_quantile(gaps[n].confidence)
    return difference, np.outer(of_test, of_test) + np.diag(of_draws**2)


def _draws(curve: Any, name: str, true: np.ndarray | None = None) -> dict[int, list[tuple[float, int]]]:
    """Labelled images → (accuracy, test images) of each draw, ascending; from predictions, if `true` labels are given.

    Raises:
        InputError: If the curve holds several heads; `name` is how the message calls it.
    """
    if not isinstance(curve, LearningCurve):
        if true is None:
            return {int(n): [curve[n]] for n in sorted(curve)}
        return {int(n): [(float(p), len(true)) for p in _right(curve, name, n, true).mean(1)] for n in sorted(curve)}
    if len(curve.heads) != 1:
        raise InputError(f"`{name}` must hold one head, got {list(curve.heads)}. Compare one at a time.")
    sizes = sorted({run.n for run in curve.runs})
    return {n: [(run.score.accuracy, run.score.n) for run in curve.runs if run.n == n] for n in sizes}


def _points(draws: Mapping[int, list[tuple[float, int]]]) -> tuple[CurvePoint, ...]:
    points = []
    for n, group in draws.items():
        accuracies, images = np.array(group).T
        low, high = wilson_interval(accuracies * images, images)
        points.append(CurvePoint(n, float(accuracies.mean()), float(low.min()), float(high.max())))
    return tuple(points)


def _by_size(curve: Curve, name: str) -> dict[int, tuple[float, float, float]]:
    """Images → mean accuracy, its standard error from the test images, and that from the draws of train images."""
    found = {}
    for n, draws in _draws(curve, name).items():
        accuracies = torch.tensor([accuracy for accuracy, _ in draws], dtype=torch.float64)
        p, images = float(accuracies.mean()), draws[0][1]
        if not 0 <= p <= 1 or images < 1:
            raise InputError(
                f"`{name}` must map labelled images to (accuracy in [0, 1], test images), got {draws[0]!r} at {n}. "
                "Predictions? Give `labels` too."
            )
        # Half an image either way keeps the error of a perfect score from being 0.
        p_safe = min(max(p, 0.5 / images), 1 - 0.5 / images)
        of_draws = math.sqrt(float(accuracies.var()) / len(draws)) if len(draws) > 1 else 0.0
        found[n] = (p, math.sqrt(p_safe * (1 - p_safe) / images), of_draws)
    return found


def published_gaps_table() -> "pd.DataFrame":
    """`PUBLISHED_GAPS` as a pandas table."""
    pd = require("pandas", "course")

    rows = [
        {"dataset": name, "frozen": published.frozen, "fine-tuned": published.tuned, "gap": published.gap}
        for name, published in PUBLISHED_GAPS.items()
    ]
    return pd.DataFrame(rows).set_index("dataset")
