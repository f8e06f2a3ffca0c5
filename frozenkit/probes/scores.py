"""Scores with intervals: how good a set of predictions is, how sure that is, and whether two sets differ.

Everything here takes predictions and labels, never features: it can be used on any classifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from frozenkit._arrays import whole_number
from frozenkit._outputs import Shown
from frozenkit.errors import InputError, require
from frozenkit.probes.intervals import mcnemar_p_value, newcombe_interval, normal_quantile, wilson_interval

if TYPE_CHECKING:
    import pandas as pd

IntegerRows = Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True, eq=False)
class Score:
    """How many of n images were predicted right, with its interval and the metrics that the average hides.

    Attributes:
        accuracy: Share predicted right, in [0, 1].
        low: Lower end of the Wilson interval of `accuracy`.
        high: Upper end of it.
        n: Number of images.
        confidence: Nominal coverage of the interval, such as 0.95.
        balanced_accuracy: Mean recall over the classes that occur in the labels; NaN for n = 0.
        macro_f1: Mean F1 over the classes that occur in labels or predictions.
        per_class: (k,) recall of each class, float64; NaN for a class without an image.
        confusion: (k, k) int64 counts, row = label, column = prediction.
        classes: k class names, or ``("0", "1", …)``.
    """

    accuracy: float
    low: float
    high: float
    n: int
    confidence: float
    balanced_accuracy: float
    macro_f1: float
    per_class: Tensor
    confusion: Tensor
    classes: tuple[str, ...] = field(default=())

    @property
    def value(self) -> float:
        """`accuracy`, by the name that all scores share."""
        return self.accuracy

    @property
    def n_correct(self) -> int:
        """Number of images predicted right."""
        return int(self.confusion.trace())

    @property
    def error(self) -> float:
        """1 − accuracy."""
        return 1.0 - self.accuracy

    @property
    def chance(self) -> float:
        """Accuracy of always naming the commonest class of these labels: the level to beat."""
        return float(self.confusion.sum(1).max()) / self.n

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a class: images, recall with Wilson interval, precision, F1, commonest confusion."""
        pd = require("pandas", "course")

        counts = self.confusion.numpy()
        support, predicted, right = counts.sum(1), counts.sum(0), counts.diagonal()
        low, high = wilson_interval(right, support, confidence=self.confidence)
        wrong = counts - np.diag(right)
        columns = {
            "images": support,
            "recall": self.per_class.numpy(),
            "low": low,
            "high": high,
            "precision": _ratio(right, predicted),
            "f1": _ratio(2 * right, support + predicted),
            "most confused with": [self.classes[row.argmax()] if row.any() else "" for row in wrong],
        }
        return pd.DataFrame(columns, index=pd.Index(self.classes, name="class"))

    def __repr__(self) -> str:
        return f"{self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.n} image{'s' * (self.n != 1)}"

    def _repr_html_(self) -> str:
        rows = {
            "accuracy": f"<b>{self.accuracy:.3f}</b> &nbsp;[{self.low:.3f}, {self.high:.3f}]",
            "images": f"{self.n}, {self.n_correct} right",
            "balanced accuracy": f"{self.balanced_accuracy:.3f}",
            "macro F1": f"{self.macro_f1:.3f}",
            "commonest class alone": f"{self.chance:.3f}",
        }
        cells = "".join(f"<tr><td style='text-align:left'>{k}</td><td>{v}</td></tr>" for k, v in rows.items())
        return f"<table><caption>Score, {100 * self.confidence:.3g} % interval</caption>{cells}</table>"


def score(
    predictions: IntegerRows,
    labels: IntegerRows,
    *,
    n_classes: int,
    confidence: float = 0.95,
    classes: Sequence[str] | None = None,
) -> Score:
    """The score of predicted classes against labels.

    Args:
        predictions: (n,) integers in ``range(n_classes)``.
        labels: (n,) integers in ``range(n_classes)``.
        n_classes: k, given and not guessed: a class may be missing from both.
        confidence: Nominal coverage of the interval, in (0, 1).
        classes: k names for tables and plots.

    Returns:
        A `Score`; its interval is Wilson's, which keeps its coverage near 0 and 1 and for small n.

    Raises:
        InputError: If shapes differ, there is no image, or a class index lies outside the range.

    Example:
        >>> score([0, 1, 1, 0], [0, 1, 0, 0], n_classes=2)
        0.750 [0.301, 0.954] on 4 images

    References:
        E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
    """
    n_classes = whole_number("n_classes", n_classes)
    names = tuple(map(str, range(n_classes))) if classes is None else tuple(classes)
    if len(names) != n_classes:
        raise InputError(f"`classes` must hold {n_classes} names, got {len(names)}.")
    predicted = class_indices("predictions", predictions, n_classes)
    true = class_indices("labels", labels, n_classes)
    if len(predicted) != len(true):
        raise InputError(f"`predictions` and `labels` must be equally long, got {len(predicted)} and {len(true)}.")
    if not len(true):
        raise InputError("`labels` must hold at least one image, got none.")
    confusion = np.bincount(true * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    right, support, named = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    low, high = wilson_interval(right.sum(), len(true), confidence=confidence)
    recall, f1 = _ratio(right, support), _ratio(2 * right, support + named)
    return Score(
        accuracy=float(right.sum() / len(true)),
        low=float(low),
        high=float(high),
        n=len(true),
        confidence=confidence,
        balanced_accuracy=float(np.nanmean(recall)),
        macro_f1=float(np.nanmean(f1)),
        per_class=torch.from_numpy(recall),
        confusion=torch.from_numpy(confusion),
        classes=names,
    )


@dataclass(frozen=True)
class Gap(Shown):
    """A signed difference between two predictors on the same test images: error a − error b.

    Attributes:
        value: In [−1, 1]; of a representation gap positive when tuning helps.
        low: Lower end of Newcombe's paired interval.
        high: Upper end of it.
        p_value: Exact two-sided McNemar test that both are equally often right.
        n: Test images.
        confidence: Nominal coverage of the interval.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int
    confidence: float = 0.95

    def __repr__(self) -> str:
        ends = f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{100 * self.value:+.1f} points {ends}, p = {self.p_value:.2g} on {self.n} images"


@dataclass(frozen=True, kw_only=True)
class PairedTest(Gap):
    """Two sets of predictions for the same images, compared image by image: a `Gap` of accuracies, with its counts.

    Attributes:
        value: Accuracy of a minus accuracy of b, in [−1, 1]; also called `difference`.
        only_a: Images that a alone predicts right.
        only_b: Images that b alone predicts right.
    """

    only_a: int
    only_b: int

    @property
    def difference(self) -> float:
        """Accuracy of a minus accuracy of b."""
        return self.value

    def __repr__(self) -> str:
        return (
            f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.2g} on {self.n} images "
            f"(a alone right on {self.only_a}, b alone on {self.only_b})"
        )


def compare(
    predictions_a: IntegerRows, predictions_b: IntegerRows, labels: IntegerRows, *, confidence: float = 0.95
) -> PairedTest:
    """Whether a is right more often than b, on the same images.

    Two overlapping intervals do not answer this: most images are easy or hard for both, and only those on which the
    two disagree count.

    Args:
        predictions_a: (n,) class indices.
        predictions_b: (n,) class indices, for the same images in the same order.
        labels: (n,) class indices.
        confidence: Nominal coverage of the interval, in (0, 1).

    Returns:
        A `PairedTest` with Newcombe's paired interval and McNemar's exact p-value.

    Raises:
        InputError: If lengths differ or there is no image.

    Example:
        >>> compare([1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1])
        +0.400 [-0.163, +0.726], p = 0.5 on 5 images (a alone right on 2, b alone on 0)

    References:
        R. G. Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on
        paired data, Statistics in Medicine 17, method 10.
    """
    a, b = as_integers("predictions_a", predictions_a), as_integers("predictions_b", predictions_b)
    true = as_integers("labels", labels)
    if not len(a) == len(b) == len(true):
        raise InputError(
            "`predictions_a`, `predictions_b` and `labels` must be equally long, "
            f"got {len(a)}, {len(b)} and {len(true)}."
        )
    if not len(true):
        raise InputError("`labels` must hold at least one image, got none.")
    right_a, right_b = a == true, b == true
    table = [int((x & y).sum()) for x in (right_a, ~right_a) for y in (right_b, ~right_b)]
    difference, low, high = newcombe_interval(*table, confidence=confidence)
    only_a, only_b = table[1], table[2]
    return PairedTest(
        value=float(difference),
        low=float(low),
        high=float(high),
        p_value=mcnemar_p_value(only_a, only_b),
        n=len(true),
        confidence=confidence,
        only_a=only_a,
        only_b=only_b,
    )


def macro_interval(value: Score, *, metric: str = "balanced_accuracy", confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a macro metric: Wilson's, for as many images as would measure it so well in one class.

    Given the labels, each row of the confusion matrix is a multinomial; the delta method turns their variances into
    that of the metric, V, and q·(1 − q)/V images of one class, q being the metric, would have the same. V is computed
    twice: with one recall for all classes, which a rare class with no mistake needs, and with the recall of each drawn
    towards it by two images; the wider end counts. The interval has a width at a perfect score, and for equally
    frequent classes of one recall it is Wilson's.

    Simulated, 95 % intervals cover in 93 to 97 % of draws from 300 images on, and for equally frequent classes from 30
    on; less where the rarest class has a handful of images or fewer, whose recall takes a handful of values.

    What is covered is the metric at the class frequencies of these images. Macro F1 depends on them, as precision does:
    over draws of the labels too, the interval covers less where a class has few images (simulated: 85 % with 15 images
    in the rarer of two classes, 50 % with five in each of 200).

    Args:
        value: The score to give an interval to.
        metric: ``"balanced_accuracy"`` or ``"macro_f1"``.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        InputError: If `metric` is unknown, or `confidence` out of range.

    Example:
        >>> low, high = macro_interval(score([0, 1, 1, 0] * 25, [0, 1, 0, 0] * 25, n_classes=2))
        >>> print(f"{low:.2f} {high:.2f}")
        0.73 0.90

    References:
        E. L. Korn, B. I. Graubard (1998), Confidence intervals for proportions with small expected number of positive
        counts estimated from survey data, Survey Methodology 24: the effective number of observations.
        A. Agresti, B. A. Coull (1998), Approximate is better than "exact" for interval estimation of binomial
        proportions, The American Statistician 52: the two images.
    """
    if metric not in ("balanced_accuracy", "macro_f1"):
        raise InputError(f"`metric` must be 'balanced_accuracy' or 'macro_f1', got {metric!r}.")
    squared = normal_quantile(confidence) ** 2
    counts = value.confusion.numpy().astype(float)
    occurs = counts.sum(1) > 0
    if metric == "macro_f1":
        occurs |= counts.sum(0) > 0
    support, counts = counts.sum(1)[occurs], counts[np.ix_(occurs, occurs)]
    k = len(counts)
    pooled = (value.n_correct + squared / 2) / (value.n + squared)
    alike = np.full((k, k), (1 - pooled) / max(k - 1, 1))
    np.fill_diagonal(alike, pooled)
    observed, ends = getattr(value, metric), []
    for shares in (alike, (counts + 2 * alike) / (support[:, None] + 2)):
        level, variance = _macro_moments(shares, support, metric)
        effective = level * (1 - level) / variance
        ends.append(wilson_interval(observed * effective, effective, confidence=confidence))
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def _macro_moments(shares: np.ndarray, support: np.ndarray, metric: str) -> tuple[float, float]:
    """The metric where (k, k) `shares` of each class are predicted as each, and its variance by the delta method."""
    table = shares * support[:, None]
    right, k = table.diagonal(), len(table)
    if metric == "balanced_accuracy":
        slope, values = np.diag(1 / support) / k, right / support
    else:  # 2·right / (images + predictions) of each class: a prediction more adds to the images of its column
        below = support + table.sum(0)
        values = 2 * right / below
        slope = (np.diag(2 / below) - values / below) / k
    spread = (shares * slope**2).sum(1) - (shares * slope).sum(1) ** 2
    return float(values.mean()), float(support @ spread)


def confidently_wrong(probabilities: Tensor, labels: IntegerRows) -> Tensor:
    """Rows predicted wrong, the most confident mistake first.

    Args:
        probabilities: (n, k).
        labels: (n,) class indices.

    Returns:
        (m,) int64 row indices: the images to look at.

    Example:
        >>> confidently_wrong(torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8]]), [1, 0, 1])
        tensor([1, 0])
    """
    p = torch.as_tensor(probabilities)
    true = torch.from_numpy(class_indices("labels", labels, p.shape[1]))
    if len(p) != len(true):
        raise InputError(f"`probabilities` and `labels` must be equally long, got {len(p)} and {len(true)}.")
    confidence, named = p.max(1)
    wrong = (named != true).nonzero().squeeze(1)
    return wrong[confidence[wrong].argsort(descending=True, stable=True)]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below in float64, NaN where below is 0."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def as_integers(name: str, values: IntegerRows) -> np.ndarray:
    """(n,) int64, or an `InputError` that calls them `name`."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1:
        raise InputError(
            f"`{name}` must be (n,) class indices, got shape {array.shape}. Scores per class? Take argmax(1)."
        )
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"`{name}` must be integers, got {array.dtype}. Map names to indices first.")
    return array.astype(np.int64)


def class_indices(name: str, values: IntegerRows, n_classes: int) -> np.ndarray:
    """(n,) int64 indices in ``range(n_classes)``.

    Raises:
        InputError: If the values are anything else; `name` is how the message calls them.
    """
    array = as_integers(name, values)
    if array.size and (array.min() < 0 or array.max() >= n_classes):
        raise InputError(f"`{name}` must lie in 0..{n_classes - 1}, got {array.min()}..{array.max()}.")
    return array
