"""Gaps: how much error is left on the table by freezing, with an interval, and from how many labels on it matters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import numpy as np
import torch

from frozenkit.errors import InputError
from frozenkit.scores import IntegerRows, compare
from frozenkit.studies import LearningCurve

# A learning curve of one head, or what was recorded of one: labelled images → (accuracy, test images).
Curve = LearningCurve | Mapping[int, tuple[float, int]]


@dataclass(frozen=True)
class Gap:
    """A signed difference of errors on the same test images: error a − error b.

    Attributes:
        value: In [−1, 1]; of a representation gap positive when tuning helps.
        low: Lower end of Newcombe's paired interval.
        high: Upper end of it.
        p_value: Exact two-sided McNemar test.
        n: Test images.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int

    def __repr__(self) -> str:
        ends = f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{100 * self.value:+.1f} points {ends}, p = {self.p_value:.2g} on {self.n} images"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def representation_gap(
    frozen_predictions: IntegerRows, tuned_predictions: IntegerRows, labels: IntegerRows, *, confidence: float = 0.95
) -> Gap:
    """Error of the frozen probe less the error of the fine-tuned network, image by image.

    The theory's gap is to φ*, the best representation for the task. A fine-tuned backbone is a stand-in for it: it
    depends on the data, the learning rate and the patience spent on it. And it is the gap of *this* backbone: which
    backbone is best when frozen says little about which is best when tuned.

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
    """
    test = compare(tuned_predictions, frozen_predictions, labels, confidence=confidence)
    return Gap(test.difference, test.low, test.high, test.p_value, test.n)


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


@dataclass(frozen=True)
class BreakEven:
    """The number of labelled images at which fine-tuning overtakes the frozen probe.

    Attributes:
        n: Interpolated in log n; None where the curves do not cross within the range measured.
        low: Lower end of its interval; 0 where it may lie below the range.
        high: Upper end; infinite where it may lie above the range.
        leads: Who is ahead over the whole range where nobody overtakes: ``"frozen"``, ``"tuned"``; else ``""``.
        measured: Smallest and largest number of images at which both were measured.
        confidence: Of the interval.
    """

    n: float | None
    low: float
    high: float
    leads: str
    measured: tuple[int, int]
    confidence: float = 0.95

    def __repr__(self) -> str:
        first, last = self.measured
        low = f"fewer than {first}" if self.low < first else f"{self.low:.0f}"
        high = f"more than {last}" if self.high > last else f"{self.high:.0f}"
        interval = f"{100 * self.confidence:.3g} % interval: {low} to {high}"
        if self.n is None:
            return f"not within the range measured ({first} to {last} images: {self.leads} is ahead); {interval}"
        return f"at {self.n:.0f} images; {interval}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def break_even(
    frozen_curve: Curve,
    tuned_curve: Curve,
    *,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BreakEven:
    """From how many labelled images on fine-tuning is better, as far as two learning curves can tell.

    The difference of the mean accuracies is interpolated linearly in log n; its first change of sign from minus to plus
    is the answer. For the interval the same is done to `draws` pairs of curves with noise as large as the measured
    ones have: that of the test images, and that between draws of train images where there are several. The images are
    the same for both arms, which makes the real noise of a difference smaller: the interval errs on the wide side.

    Args:
        frozen_curve: Of one head; or labelled images → (accuracy, test images).
        tuned_curve: The same of the tuned network; at least two sizes in common with the other.
        draws: Simulated pairs of curves.
        confidence: Of the interval.
        seed: Of the draws.

    Returns:
        A `BreakEven`.

    Raises:
        InputError: If a curve holds several heads, or fewer than two sizes are common to both.
    """
    frozen, tuned = _by_size(frozen_curve, "frozen_curve"), _by_size(tuned_curve, "tuned_curve")
    sizes = sorted(set(frozen) & set(tuned))
    if len(sizes) < 2:
        raise InputError(
            f"the curves must have at least two sizes in common, got {sorted(frozen)} and {sorted(tuned)} images."
        )
    x = np.log(np.asarray(sizes, dtype=float))
    difference = np.array([tuned[n][0] - frozen[n][0] for n in sizes])
    noise = np.array([math.hypot(tuned[n][1], frozen[n][1]) for n in sizes])
    found = _crossing(x, difference)
    generator = np.random.default_rng(seed)
    drawn = np.array([_crossing(x, difference + noise * generator.standard_normal(len(x))) for _ in range(draws)])
    tail = (1 - confidence) / 2
    ends = np.exp(np.quantile(drawn, [tail, 1 - tail], method="nearest"))
    within = bool(np.isfinite(found))
    return BreakEven(
        n=float(np.exp(found)) if within else None,
        low=float(ends[0]),
        high=float(ends[1]),
        leads="" if within else ("tuned" if found < 0 else "frozen"),
        measured=(sizes[0], sizes[-1]),
        confidence=confidence,
    )


def curve_points(curve: Curve, name: str = "curve") -> dict[int, list[tuple[float, int]]]:
    """Labelled images → (accuracy, test images) of each draw, ascending.

    Raises:
        InputError: If the curve holds several heads; `name` is how the message calls it.
    """
    if not isinstance(curve, LearningCurve):
        return {int(n): [curve[n]] for n in sorted(curve)}
    if len(curve.heads) != 1:
        raise InputError(f"`{name}` must hold one head, got {list(curve.heads)}. Compare one at a time.")
    sizes = sorted({run.n for run in curve.runs})
    return {n: [(run.score.accuracy, run.score.n) for run in curve.runs if run.n == n] for n in sizes}


def _by_size(curve: Curve, name: str) -> dict[int, tuple[float, float]]:
    """Images → (mean accuracy, its standard error)."""
    found = {}
    for n, draws in curve_points(curve, name).items():
        accuracies = torch.tensor([accuracy for accuracy, _ in draws], dtype=torch.float64)
        p, images = float(accuracies.mean()), draws[0][1]
        # Half an image either way keeps the error of a perfect score from being 0.
        p_safe = min(max(p, 0.5 / images), 1 - 0.5 / images)
        of_test = p_safe * (1 - p_safe) / images
        of_draws = float(accuracies.var()) / len(draws) if len(draws) > 1 else 0.0
        found[n] = (p, math.sqrt(of_test + of_draws))
    return found


def _crossing(x: np.ndarray, difference: np.ndarray) -> float:
    """Where the difference first turns from below 0 to 0 or above; −∞ if it starts there, ∞ if it never gets there."""
    if difference[0] >= 0:
        return -math.inf
    above = np.flatnonzero(difference >= 0)
    if not len(above):
        return math.inf
    i = int(above[0])
    share = -difference[i - 1] / (difference[i] - difference[i - 1])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


def published_gaps_table() -> Any:
    """`PUBLISHED_GAPS` as a pandas table."""
    import pandas as pd

    rows = [
        {"dataset": name, "frozen": published.frozen, "fine-tuned": published.tuned, "gap": published.gap}
        for name, published in PUBLISHED_GAPS.items()
    ]
    return pd.DataFrame(rows).set_index("dataset")
