"""Suspected label errors: images whose label a confident, out-of-sample prediction contradicts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from frozenkit._arrays import as_tensor, described, first_row
from frozenkit._outputs import Shown
from frozenkit.errors import InputError, require
from frozenkit.probes.scores import IntegerRows, class_indices

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class LabelErrors(Shown):
    """Images whose labels are worth a second look, the most suspicious first.

    Attributes:
        rows: (m,) int64 rows of what was given.
        labels: (m,) int64 the labels they have.
        suggested: (m,) int64 the labels that the predictions suggest.
        margin: (m,) float64 normalised margin p(label) − max p(other), in [−1, 0]; rows are in its order.
        thresholds: (k,) float64 mean self-confidence of each class: from where on a prediction of it counts as
            confident; ∞ for a class without an image.
        joint: (k, k) int64 the confident joint: row = label, column = what the confident predictions say. Its
            off-diagonal counts images also where their label is the likeliest class, which are no suspects.
        n: Number of images that were given.
    """

    rows: Tensor
    labels: Tensor
    suggested: Tensor
    margin: Tensor
    thresholds: Tensor
    joint: Tensor
    n: int

    def __len__(self) -> int:
        return len(self.rows)

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a suspect: its row, label, suggested label and margin."""
        columns = {name: getattr(self, name).numpy() for name in ("rows", "labels", "suggested", "margin")}
        return require("pandas", "course").DataFrame(columns)

    def __repr__(self) -> str:
        first = f", first rows {self.rows[:5].tolist()}" if len(self) else ""
        return f"LabelErrors({len(self):,} of {self.n:,} labels are suspected{first})"


def suspected_label_errors(probabilities: Any, labels: IntegerRows) -> LabelErrors:
    """Labels that confident predictions contradict, by the rule of confident learning.

    The threshold of a class is the mean probability that images labelled so have for it. A prediction is confident
    where the probability reaches the threshold of its class; of several such classes the likeliest counts. An image
    is suspected where that class is not its label, and its label is not the likeliest class either. Thresholds follow
    each class, so classes that are hard, or predicted too boldly, are not suspected wholesale.

    What is suspected is not thereby wrong: look at the images. Errors that follow a rule (all huskies labelled wolf)
    are learnt, and not found.

    Args:
        probabilities: (n, k) in [0, 1], rows summing to 1, of predictors that did not see the image: out of fold or
            leave-one-out. Those of a probe on its own train images find little, since it has learnt their errors.
        labels: (n,) class indices in ``range(k)``, as given, errors included.

    Returns:
        `LabelErrors`, the most suspicious first: by p(label) less the largest other probability; of equals, the first.

    Raises:
        InputError: If shapes do not fit, a row holds no probabilities, or a label is no class index.

    Example:
        >>> sure, unsure = [0.9, 0.1], [0.6, 0.4]
        >>> suspected_label_errors([sure, sure, unsure, [0.1, 0.9], [0.2, 0.8], sure], [0, 0, 0, 1, 1, 1])
        LabelErrors(1 of 6 labels are suspected, first rows [5])

    References:
        C. Northcutt, L. Jiang, I. Chuang (2021), Confident learning: estimating uncertainty in dataset labels, JAIR 70:
        thresholds (2), confident joint (1), off-diagonals of it (section 4, method 2), normalised margin (ibid.). That
        an image is no suspect where its label is the likeliest class is the rule of the authors' own implementation.
    """
    p = as_tensor(probabilities, "probabilities").double()
    if p.ndim != 2 or p.shape[0] < 1 or p.shape[1] < 2:
        raise InputError(
            f"`probabilities` must be (n, k) with n ≥ 1 images and k ≥ 2 classes, got {described(probabilities)}."
        )
    odd = ~((p >= 0).all(1) & ((p.sum(1) - 1).abs() < 1e-3))  # NaN is neither
    if odd.any():
        row = first_row(odd)
        shown = ", ".join(f"{v:.3g}" for v in p[row, :5].tolist()) + ", …" * (p.shape[1] > 5)
        raise InputError(f"`probabilities` must be at least 0 and sum to 1 in each row, but row {row} is {shown}.")
    n, k = p.shape
    y = torch.from_numpy(class_indices("labels", labels, k))
    if len(y) != n:
        raise InputError(f"`labels` must have one entry per row of `probabilities`, {n}, got {len(y)}.")

    own = p[torch.arange(n), y]
    counts = torch.bincount(y, minlength=k)
    total = torch.zeros(k, dtype=torch.float64).index_add_(0, y, own)
    thresholds = torch.where(counts > 0, total / counts.clamp_min(1), torch.inf)
    # Means of equal numbers are equal to them but for rounding, which must not decide.
    confident = p >= thresholds - 1e-9
    said = p.where(confident, -1).argmax(1)
    is_said = confident.any(1)
    joint = torch.bincount(y[is_said] * k + said[is_said], minlength=k * k).reshape(k, k)
    others = p.clone()
    others[torch.arange(n), y] = -1
    margin = own - others.max(1).values
    rows = (is_said & (said != y) & (margin < 0)).nonzero().squeeze(1)
    rows = rows[margin[rows].argsort(stable=True)]
    return LabelErrors(rows, y[rows], said[rows], margin[rows], thresholds, joint, n)
