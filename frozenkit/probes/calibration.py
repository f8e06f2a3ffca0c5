"""Calibration: of the images that a probe is 80 % sure of, are 80 % right?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from frozenkit._outputs import Shown, frame_html
from frozenkit.errors import InputError, require
from frozenkit.probes.intervals import wilson_interval
from frozenkit.probes.scores import IntegerRows, class_indices

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Reliability(Shown):
    """Confidence in the top class against how often it is right, bin by bin.

    Attributes:
        confidence: (b,) mean confidence of the images in a bin; NaN where there is none.
        accuracy: (b,) share of them that is right; NaN where there is none.
        count: (b,) int64 images.
        n: Images in all.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor
    n: int

    @property
    def error(self) -> float:
        """Expected calibration error: mean of \\|accuracy − confidence\\| over the bins, weighted by their images.

        In [0, 1]; 0 is calibrated. Biased upwards for small n (Naeini, Cooper and Hauskrecht, 2015).
        """
        there = self.count > 0
        return float(((self.accuracy - self.confidence).abs() * self.count)[there].sum() / self.n)

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a bin with images: confidence, accuracy with Wilson interval, images."""
        pd = require("pandas", "course")

        there = (self.count > 0).numpy()
        count = self.count.numpy()[there]
        accuracy = self.accuracy.numpy()[there]
        low, high = wilson_interval(np.round(accuracy * count), count)
        columns = {
            "confidence": self.confidence.numpy()[there],
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "images": count,
        }
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        return f"Reliability(calibration error {self.error:.3f} on {self.n} images in {len(self.count)} bins)"

    def _table_html(self) -> str:
        return frame_html(self.to_frame, float_format="{:.3f}".format, index=False)


def reliability(probabilities: Tensor, labels: IntegerRows, *, bins: int = 10) -> Reliability:
    """What a reliability diagram shows: equally wide bins of the confidence in the top class.

    Args:
        probabilities: (n, k), rows that sum to 1.
        labels: (n,) class indices.
        bins: Number of bins over [0, 1].

    Raises:
        InputError: If shapes do not fit, or there is no image or bin.

    Example:
        >>> reliability(torch.tensor([[0.75, 0.25]] * 4), [0, 0, 0, 1])
        Reliability(calibration error 0.000 on 4 images in 10 bins)

    References:
        A. Niculescu-Mizil, R. Caruana (2005), Predicting good probabilities with supervised learning, ICML.
    """
    p = torch.as_tensor(probabilities).double()
    if p.ndim != 2 or not len(p) or len(p) != len(labels) or bins < 1:
        raise InputError(
            f"`probabilities` must be (n, k) with n = {len(labels)} > 0 labels and `bins` at least 1, "
            f"got {tuple(p.shape)} and {bins}."
        )
    true = torch.from_numpy(class_indices("labels", labels, p.shape[1]))
    confidence, named = p.max(1)
    index = (confidence * bins).long().clamp(max=bins - 1)
    count = torch.bincount(index, minlength=bins)

    def mean(values: Tensor) -> Tensor:
        total = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, values)
        return torch.where(count > 0, total / count.clamp_min(1), torch.nan)

    return Reliability(mean(confidence), mean((named == true).double()), count, len(p))


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
