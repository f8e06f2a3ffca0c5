"""Scores where an image may have several labels: average precision of each, their mean, and how sure both are.

For one label with scores s_i and y_i ∈ {0, 1} of n images, T of which have it, let A_i be the number of images that
score at least s_i, and P_i the share of them that has the label. Average precision is the mean of P_i over the T
images: the area under the precision-recall curve without interpolation.

It is a smooth function of how much each image counts, so its variance is to first order the sum of squares of its
derivatives by those weights (the infinitesimal jackknife)::

    ∂AP/∂w_j = y_j·(P_j − AP)/T + (1/T)·Σ_{i: s_i ≤ s_j} y_i·(y_j − P_i)/A_i

These are at hand in closed form, image by image: the mean over labels has the mean of their derivatives, which keeps
what labels of the same images have in common, and a difference of two scores the difference. Nothing is resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._arrays import as_tensor, check_finite, real_number, texts
from frozenkit._outputs import Shown, frame_html
from frozenkit.errors import InputError, require
from frozenkit.probes.intervals import normal_quantile, wilson_interval
from frozenkit.probes.scores import Gap

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class MultiLabelScore(Shown):
    """How well scores put the images that have a label before those that do not, label by label.

    Chance is no half here: images in random order have about the average precision that is the share of images with
    the label, its prevalence, and more where few images have it. Both stand beside each score.

    Attributes:
        mean_average_precision: Mean of `average_precision` over the labels that some image has (mAP), in [0, 1].
        low: Lower end of its interval.
        high: Upper end of it.
        n: Number of images.
        confidence: Nominal coverage of the intervals, such as 0.95.
        average_precision: (k,) float64; NaN for a label that no image has.
        lows: (k,) lower ends of their intervals.
        highs: (k,) upper ends of them.
        counts: (k, 3) int64: images that have the label, that are predicted to have it, and both.
        exact: Share of images with every label predicted right.
        classes: k names of the labels.
    """

    mean_average_precision: float
    low: float
    high: float
    n: int
    confidence: float
    average_precision: Tensor
    lows: Tensor
    highs: Tensor
    counts: Tensor
    exact: float
    classes: tuple[str, ...]

    @property
    def value(self) -> float:
        """`mean_average_precision`, by the name that all scores share."""
        return self.mean_average_precision

    @property
    def prevalence(self) -> Tensor:
        """(k,) float64 share of the images that have the label."""
        return self.counts[:, 0].double() / self.n

    @property
    def chances(self) -> Tensor:
        """(k,) float64 expected average precision of these images in random order; NaN for a label that none has.

        With m of n images and H_n = 1 + 1/2 + … + 1/n, it is (H_n + (n − H_n)·(m − 1)/(n − 1))/n.

        References:
            Y. Bestgen (2015), Exact expected average precision of the random baseline for system evaluation, The Prague
            Bulletin of Mathematical Linguistics 103.
        """
        n, m = self.n, self.counts[:, 0].double()
        harmonic = float((1 / np.arange(1, n + 1)).sum())
        return torch.where(m > 0, (harmonic + (n - harmonic) * (m - 1) / max(n - 1, 1)) / n, torch.nan)

    @property
    def chance(self) -> float:
        """Mean of `chances` over the labels that some image has: the level to beat."""
        return float(self.chances.nanmean())

    @property
    def f1(self) -> Tensor:
        """(k,) float64 F1 of each label at the threshold; NaN for one that no image has or is predicted to have."""
        have, predicted, both = self.counts.double().unbind(1)
        return 2 * both / (have + predicted)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the labels that some image has or is predicted to have."""
        return float(self.f1.nanmean())

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together, image by label."""
        have, predicted, both = self.counts.sum(0).tolist()
        return 2 * both / (have + predicted)

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a label: images, prevalence, chance, average precision with interval, precision,
        recall, F1.

        The last three are those of the decisions at the threshold.
        """
        pd = require("pandas", "course")

        have, predicted, both = self.counts.double().unbind(1)
        columns = {
            "images": self.counts[:, 0],
            "prevalence": self.prevalence,
            "chance": self.chances,
            "average precision": self.average_precision,
            "low": self.lows,
            "high": self.highs,
            "precision": both / predicted,
            "recall": both / have,
            "f1": self.f1,
        }
        return pd.DataFrame({k: v.numpy() for k, v in columns.items()}, index=pd.Index(self.classes, name="label"))

    def __repr__(self) -> str:
        there = int((self.counts[:, 0] > 0).sum())
        labels = f"{there} label{'s' * (there != 1)}" + f" of {len(self.classes)}" * (there < len(self.classes))
        return (
            f"mAP {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] over {labels} on {self.n} "
            f"image{'s' * (self.n != 1)}, chance {self.chance:.3f}"
        )

    def _table_html(self) -> str:
        return frame_html(self.to_frame, float_format="{:.3f}".format)


def multilabel_score(
    scores: Any,
    labels: Any,
    *,
    threshold: float,
    classes: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> MultiLabelScore:
    """Average precision of each label and their mean, with intervals.

    Args:
        scores: (n, k) finite numbers: the larger, the likelier the label. Any order-preserving change leaves average
            precision as it is, but a probability that was rounded to 1 has lost its order: logits are better.
        labels: (n, k) booleans, or 0 and 1.
        threshold: Above it a label counts as predicted: 0 for logits, 0.5 for probabilities.
        classes: k names for tables.
        confidence: Nominal coverage of the intervals, in (0, 1).

    Returns:
        A `MultiLabelScore`. Equal scores are one step of the curve, as in scikit-learn's ``average_precision_score``.
        Intervals are symmetric in log(AP/(1 − AP)), with the variance above and Student's t for T − 1 degrees of
        freedom; for an average precision of 1 Wilson's with T images; [0, 1] for a single image.

        What they cover is the average precision that test sets of this size have in the mean. In ever more images it
        would be lower, as chance is: of a label that 20 images in 1,000 have and that is hardly told apart, 0.08
        instead of 0.11. So compare labels, and test sets, of like numbers.

        Simulated, with Gaussian scores, intervals of 95 % cover in 93 to 97 % of draws from 30 images with the label
        on, and in more where there are fewer or nearly all is right; in 90 % where a label of 1 % prevalence is hardly
        told apart. Those of the mean over 5 to 50 labels cover in 95 to 99 % where each label has the same number of
        images in every draw; where that number is drawn too, as in new images at large, in 92 to 95 % (5 or 20 labels
        of prevalence 0.3 on 100 images, or 0.5 on 200).

    Raises:
        InputError: If shapes do not fit, labels are others than 0 and 1, or no image has any label.
        DataError: If a score is not finite; the message names the row.

    Example:
        >>> multilabel_score([[2.0, -1.0], [1.0, 0.5], [-1.0, 1.0]], [[1, 0], [0, 0], [1, 1]], threshold=0)
        mAP 0.917 [0.000, 1.000] over 2 labels on 3 images, chance 0.708

    References:
        B. Efron (1982), The jackknife, the bootstrap and other resampling plans, SIAM, chapter 6.
        K. Boyd, K. H. Eng, C. D. Page (2013), Area under the precision-recall curve: point estimates and confidence
        intervals, ECML PKDD: intervals on the scale of log odds.
    """
    s, y = _scores_and_labels(scores, labels, "scores")
    n, k = y.shape
    names = tuple(map(str, range(k))) if classes is None else texts(classes, "classes")
    if len(names) != k:
        raise InputError(f"`classes` must hold {k} names, got {len(names)}.")
    normal_quantile(confidence)  # in range
    found = [_Precision.of(s[:, j], y[:, j]) for j in range(k)]
    some = [part for part in found if part.positives]
    low, high = _interval_of_mean(some, confidence)
    ends = [_interval_of_mean([p], confidence) if p.positives else (np.nan, np.nan) for p in found]
    predicted = s > real_number("threshold", threshold)
    return MultiLabelScore(
        mean_average_precision=float(np.mean([p.value for p in some])),
        low=low,
        high=high,
        n=n,
        confidence=confidence,
        average_precision=torch.tensor([p.value for p in found], dtype=torch.float64),
        lows=torch.tensor([a for a, _ in ends], dtype=torch.float64),
        highs=torch.tensor([b for _, b in ends], dtype=torch.float64),
        counts=torch.from_numpy(np.stack([y.sum(0), predicted.sum(0), (y & predicted).sum(0)], axis=1)),
        exact=float((predicted == y).all(1).mean()),
        classes=names,
    )


@dataclass(frozen=True)
class PrecisionGap(Gap):
    """Two sets of scores for the same images and labels: mean average precision of a minus that of b.

    Attributes:
        value: In [−1, 1].
        low: Lower end of its interval.
        high: Upper end of it.
        p_value: Two-sided, that both are equally good.
        n: Test images.
        confidence: Nominal coverage of the interval.
    """

    def __repr__(self) -> str:
        return f"mAP {self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.2g} on {self.n} images"


def compare_multilabel(scores_a: Any, scores_b: Any, labels: Any, *, confidence: float = 0.95) -> PrecisionGap:
    """Whether a has the higher mean average precision than b, on the same images.

    Args:
        scores_a: (n, k) finite numbers: the larger, the likelier the label.
        scores_b: (n, k), for the same images in the same order; the scale may be another.
        labels: (n, k) booleans, or 0 and 1.
        confidence: Nominal coverage of the interval, in (0, 1).

    Returns:
        A `PrecisionGap`, by Student's t from the differences of the derivatives by each image. A label that one image
        has counts as uncertain as both its scores are by themselves, and alone as nothing: [−1, 1], p = 1.

    Raises:
        InputError: If shapes do not fit, labels are others than 0 and 1, or no image has any label.
        DataError: If a score is not finite; the message names the row.

    Example:
        >>> labels = torch.arange(60)[:, None] % 3 == 0
        >>> noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
        >>> compare_multilabel(noise + 2 * labels, noise, labels)
        mAP +0.592 [+0.464, +0.720], p = 8.7e-09 on 60 images
    """
    from scipy.stats import t as student

    a, y = _scores_and_labels(scores_a, labels, "scores_a")
    b, _ = _scores_and_labels(scores_b, labels, "scores_b")
    normal_quantile(confidence)  # in range
    pairs = [(_Precision.of(a[:, j], y[:, j]), _Precision.of(b[:, j], y[:, j])) for j in np.flatnonzero(y.any(0))]
    value = float(np.mean([one.value - other.value for one, other in pairs]))
    moved = [one.influence - other.influence for one, other in pairs]
    positives = [one.positives for one, _ in pairs]
    if positives == [1] and moved[0].any():
        return PrecisionGap(value, -1.0, 1.0, 1.0, len(y), confidence)
    floors = [_floor(one) + _floor(other) if one.positives == 1 else 0.0 for one, other in pairs]
    variance, freedom = _variance_of_mean(moved, positives, floors)
    error = np.sqrt(variance)
    if error == 0 or not np.any(moved):
        return PrecisionGap(value, value, value, float(value == 0), len(y), confidence)
    half = float(student.ppf(0.5 + confidence / 2, freedom)) * error
    p_value = float(2 * student.sf(abs(value) / error, freedom))
    return PrecisionGap(value, max(value - half, -1.0), min(value + half, 1.0), p_value, len(y), confidence)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean average precision of (n, k) scores and labels, over the labels that some image has; NaN if there is none."""
    s, y = scores.double().numpy(), labels.numpy().astype(bool)
    found = [_Precision.of(s[:, j], y[:, j]).value for j in np.flatnonzero(y.any(0))]
    return float(np.mean(found)) if found else float("nan")


@dataclass(frozen=True, eq=False)
class _Precision:
    """Average precision of one label, NaN if no image has it, and its (n,) derivatives by the weights of the images."""

    value: float
    influence: np.ndarray
    positives: int

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray) -> "_Precision":
        """From (n,) scores and booleans."""
        n, positives = len(labels), int(labels.sum())
        if not positives:
            return cls(float("nan"), np.zeros(n), 0)
        order = np.argsort(-scores, kind="stable")
        s, y = scores[order], labels[order].astype(float)
        starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])  # of images with equal scores, best first
        group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, n]))
        above = np.r_[starts[1:], n][group]  # A_i
        precision = y.cumsum()[above - 1] / above  # P_i
        value = float(y @ precision) / positives
        from_here = [part[::-1].cumsum()[::-1][starts][group] for part in (y / above, y * precision / above)]
        influence = np.empty(n)
        influence[order] = (y * (precision - value) + y * from_here[0] - from_here[1]) / positives
        return cls(value, influence, positives)


def _interval_of_mean(parts: Sequence[_Precision], confidence: float) -> tuple[float, float]:
    """Interval of the mean of average precisions, each of a label that some image has."""
    from scipy.stats import t as student

    mean = float(np.mean([part.value for part in parts]))
    positives = np.array([part.positives for part in parts])
    if len(parts) == 1 and positives[0] == 1:
        return 0.0, 1.0
    floors = [_floor(part) for part in parts]
    variance, freedom = _variance_of_mean([part.influence for part in parts], positives, floors)
    quantile = float(student.ppf(0.5 + confidence / 2, freedom))
    if mean > 1 - 1e-12:
        alike = len(parts) ** 2 / (1 / positives).sum()  # images of one label that would measure as well
        level = float(student.cdf(quantile, freedom) * 2 - 1)
        low, _ = wilson_interval(alike, alike, confidence=level)
        return float(low), 1.0
    centre, half = np.log(mean / (1 - mean)), quantile * np.sqrt(variance) / (mean * (1 - mean))
    low, high = 1 / (1 + np.exp(-np.clip([centre - half, centre + half], -700, 700)))
    return float(low), float(high)


def _floor(part: _Precision) -> float:
    """Variance where rounding leaves nothing, or one image is alone: as of a share, of as many images and two more."""
    share = (part.positives * part.value + 1) / (part.positives + 2)
    return share * (1 - share) / part.positives


def _variance_of_mean(
    influences: Sequence[np.ndarray], positives: Sequence[int] | np.ndarray, floors: Sequence[float]
) -> tuple[float, float]:
    """Variance of a mean over labels, and its degrees of freedom by Welch and Satterthwaite.

    A label that m images have counts as m/(m − 1) times as uncertain as its derivatives say, and as its floor if there
    is one image, or nothing in them.
    """
    own = np.array([float(part @ part) for part in influences])
    m = np.asarray(positives, dtype=float)
    raised = np.where((own < 1e-20) | (m == 1), np.maximum(floors, own), own * m / np.maximum(m - 1, 1))
    together = np.mean(influences, axis=0)
    variance, total = float(together @ together), own.sum()
    # What labels have in common raises or lowers the sum of their variances; so it does for the raised ones.
    variance = variance * raised.sum() / total if total > 0 else raised.sum() / len(m) ** 2
    freedom = raised.sum() ** 2 / max((raised**2 / np.maximum(m - 1, 1)).sum(), 1e-300)
    return float(variance), float(max(freedom, 1.0))


def _scores_and_labels(scores: Any, labels: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) float64 and bool, of n ≥ 1 images of which one at least has a label."""
    s, y = as_tensor(scores, name), as_tensor(labels, "labels")
    if s.ndim != 2 or y.shape != s.shape or not s.numel():
        raise InputError(
            f"`{name}` and `labels` must be (n, k) for n ≥ 1 images and k ≥ 1 labels, got {tuple(s.shape)} and "
            f"{tuple(y.shape)}."
        )
    if bool(((y != 0) & (y != 1)).any()):
        raise InputError(f"`labels` must be booleans, or 0 and 1, got {y.dtype} with other values.")
    if not bool(y.any()):
        raise InputError(f"`labels` must hold an image with a label, but none of {len(y)} has any.")
    check_finite(s.double(), name)
    return s.double().numpy(), y.bool().numpy()
