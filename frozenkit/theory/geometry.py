"""The shape of a cloud of features: how far apart classes lie, how many directions it fills, how unequal it is."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from frozenkit._arrays import as_tensor, real_number, whole_number
from frozenkit._outputs import Shown, frame_html
from frozenkit.errors import DataError, InputError, require
from frozenkit.features import Features, FeatureSet, as_features, feature_rows, load_set
from frozenkit.heads.scaling import feature_scale

if TYPE_CHECKING:
    import pandas as pd

PROBE_STRENGTH = 0.01  # λ of the linear probe in `Separation.linear`: small, and enough where n ≤ d


@dataclass(frozen=True)
class Separation(Shown):
    """How far apart classes lie, against how wide they are.

    Attributes:
        within: Root mean square distance of an image to the mean of its class.
        between: Root mean square distance of a class mean to the mean of all, weighted by images.
        ratio: between / within: above 1, the classes are further apart than they are wide.
        explained: Share of the summed variance that lies between classes, less what random labels would have, which is
            (k − 1)/(n − 1): at most 1, and 0 on average for random labels (so sometimes a little below 0).
        linear: The same share where a linear probe looks: after whitening, so that a direction counts by how well it
            tells classes apart and not by its length. It need not rise with `ratio`.
        n: Images.
        n_features: d.
        note: What makes it meaningless, where something does; else empty.
    """

    within: float
    between: float
    ratio: float
    explained: float
    linear: float
    n: int
    n_features: int
    note: str = ""

    def __repr__(self) -> str:
        text = (
            f"between {self.between:.3g} / within {self.within:.3g} = {self.ratio:.3g} (explains {self.explained:.3f}, "
            f"whitened {self.linear:.3f})"
        )
        return text + (f"; {self.note}" if self.note else "")


def class_separation(features: Features) -> Separation:
    """Distances between class means against distances within classes.

    The mean of each class is corrected for its noise, which alone would set class means apart by within²·(k − 1)/n:
    `between` is what remains of it, and `explained` is 0 on average for random labels.

    Distances are summed over all directions as they are, so that a few long ones decide: one class far off is enough
    for a high `ratio`, and the others may lie on top of one another. A linear probe sees otherwise: it may stretch a
    short direction that tells classes apart. `linear` is tr((S_t + λ)⁻¹·S_b)/(k − 1) of softly scaled features (see
    `ridge_path`), S_t being their covariance and λ = 0.01, corrected like `explained`: about the share of the class
    indicators that a ridge fit explains. Without λ no linear map of the features would change it.

    Args:
        features: (n, d) with classes, loaded into memory; only classes with an image count.

    Returns:
        A `Separation`, with a note where n ≤ d: then almost any labels can be separated by a linear map, and a large
        distance between classes is no longer needed for a high train accuracy.

    Raises:
        InputError: If there are no classes, or features are tokens.
        DataError: If there are fewer than two classes with images, or no class with two.

    References:
        K. Fukunaga (1990), Introduction to statistical pattern recognition, section 10.2: tr S_b / tr S_w, and
        tr(S_t⁻¹·S_b), which is also known as Pillai's trace.
        M. Ezekiel (1930), Methods of correlation analysis: the correction of a share for what chance explains.
    """
    features = load_set(features, "features")
    if not features.classes:
        raise InputError("`features` must have classes; there is nothing to separate in regression.")
    x, labels = feature_rows(features), features.labels
    present, index = labels.unique(return_inverse=True)
    n, k = len(x), len(present)
    if k < 2 or n <= k:
        raise DataError(
            f"`features` must hold two classes and more images than classes, got {n} images in {k} classes."
        )
    counts = torch.bincount(index, minlength=k).double()
    means = torch.zeros(k, x.shape[1], dtype=torch.float64).index_add_(0, index, x) / counts[:, None]
    residual = (x - means[index]).square().sum()
    spread = (counts[:, None] * (means - x.mean(0)).square()).sum()
    variance = float(residual) / (n - k)  # summed over features, unbiased
    within, between = math.sqrt(variance), math.sqrt(max(float(spread) - (k - 1) * variance, 0.0) / n)
    ratio = between / within if within > 0 else math.inf if between > 0 else 0.0
    total, chance = float(spread + residual), (k - 1) / (n - 1)
    explained = (float(spread) / total - chance) / (1 - chance) if total > 0 else 0.0
    note = _note(n, x.shape[1], "any labels separate")
    return Separation(within, between, ratio, explained, _linear_share(x, index, counts), n, x.shape[1], note)


def _linear_share(x: Tensor, index: Tensor, counts: Tensor) -> float:
    """tr(H·P)/(k − 1), H being the ridge map and P the projection onto class means, corrected for chance."""
    n, k = len(x), len(counts)
    mean = x.mean(0)
    scaled = (x - mean) / feature_scale(x.var(0, correction=0), mean, "soft")
    u, sigma, _ = torch.linalg.svd(scaled, full_matrices=False)
    kept = sigma.square() / (sigma.square() + n * PROBE_STRENGTH)  # eigenvalues of H, which has the columns of u
    sums = torch.zeros(k, u.shape[1], dtype=u.dtype).index_add_(0, index, u)
    share = float(kept @ (sums.square() / counts[:, None]).sum(0)) / (k - 1)
    chance = float(kept.sum()) / (n - 1)  # the mean over all ways to hand out the labels
    return (share - chance) / (1 - chance)


@dataclass(frozen=True)
class EffectiveRank(Shown):
    """In how many directions features vary.

    Attributes:
        value: exp of the entropy of the singular values' shares (Roy and Vetterli).
        participation_ratio: (Σλ)²/Σλ² of the eigenvalues λ of the covariance; it counts small directions less.
        n: Images.
        n_features: d.
        note: What makes it meaningless, where something does; else empty.
    """

    value: float
    participation_ratio: float
    n: int
    n_features: int
    note: str = ""

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        text = (
            f"effective rank {self.value:.1f}, participation ratio {self.participation_ratio:.1f}, "
            f"of {self.n_features} features"
        )
        return text + (f"; {self.note}" if self.note else "")


def effective_rank(features: FeatureSet | Tensor) -> EffectiveRank:
    """How many directions (n, d) features fill in this sample, in two definitions; both lie in 1..min(n − 1, d).

    With σ the singular values of the centred features and p = σ/Σσ, the effective rank is exp(−Σ p·log p). It is 1 if
    all variance lies in one direction, and d if all directions vary alike. It is the rank of the *sample*, and grows
    with n until n is many times d: compare samples of one size.

    Args:
        features: (n, d), n ≥ 2; loaded into memory.

    Returns:
        An `EffectiveRank`, with a note where n ≤ d: it then also counts how few images there are.

    Raises:
        DataError: If there are fewer than two images, or all are alike.

    Example:
        >>> square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> effective_rank(square)
        effective rank 2.0, participation ratio 2.0, of 2 features

    References:
        O. Roy, M. Vetterli (2007), The effective rank: a measure of effective dimensionality, EUSIPCO, equation 2.
    """
    x = feature_rows(features)
    spectrum = _spectrum(x)  # eigenvalues of the covariance, descending
    sigma = spectrum.sqrt()
    p = sigma / sigma.sum()
    entropy = -torch.xlogy(p, p).sum()
    ratio = float(spectrum.sum() ** 2 / spectrum.square().sum())
    note = _note(len(x), x.shape[1], "the rank is limited by the images, not by the features")
    return EffectiveRank(float(entropy.exp()), ratio, len(x), x.shape[1], note)


@dataclass(frozen=True, eq=False)
class ExplainedVariance(Shown):
    """How much of the variance the first principal directions hold.

    Attributes:
        ratios: (r,) float64 share of each direction, descending, summing to 1; r = min(n − 1, d).
        n: Images.
        n_features: d.
        note: What makes it meaningless, where something does; else empty.
    """

    ratios: Tensor
    n: int
    n_features: int
    note: str = ""

    @property
    def cumulative(self) -> Tensor:
        """(r,) share of the first 1, 2, … directions together."""
        return self.ratios.cumsum(0)

    def n_for(self, share: float) -> int:
        """The fewest directions that together hold at least this share of the variance."""
        if not 0 < real_number("share", share) <= 1:
            raise InputError(f"`share` must lie in (0, 1], got {share!r}.")
        enough = (self.cumulative >= share - 1e-9).nonzero()
        return int(enough[0]) + 1

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table: how many directions for 50, 80, 90, 95 and 99 % of the variance."""
        pd = require("pandas", "course")

        rows = [{"share": share, "directions": self.n_for(share)} for share in (0.5, 0.8, 0.9, 0.95, 0.99)]
        return pd.DataFrame(rows).set_index("share")

    def __repr__(self) -> str:
        shares = ", ".join(f"{self.n_for(s)} for {100 * s:.0f} %" for s in (0.5, 0.9, 0.99))
        return f"of {self.n_features} directions {shares} of the variance" + (f"; {self.note}" if self.note else "")

    def _table_html(self) -> str:
        return frame_html(self.to_frame)


def explained_variance(features: FeatureSet | Tensor) -> ExplainedVariance:
    """The share of the variance that each principal direction of (n, d) features holds.

    Args:
        features: (n, d), n ≥ 2; loaded into memory.

    Returns:
        An `ExplainedVariance`, with a note where n ≤ d: n − 1 directions then hold all of it, whatever the features.

    Raises:
        DataError: If there are fewer than two images, or all are alike.

    Example:
        >>> explained_variance(torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]])).ratios
        tensor([0.9000, 0.1000], dtype=torch.float64)
    """
    x = feature_rows(features)
    spectrum = _spectrum(x)
    note = _note(len(x), x.shape[1], f"{len(x) - 1} directions hold everything")
    return ExplainedVariance(spectrum / spectrum.sum(), len(x), x.shape[1], note)


@dataclass(frozen=True, eq=False)
class Imbalance(Shown):
    """How unequal classes are.

    Attributes:
        counts: (k,) int64 images of each class.
        ratio: Largest class over smallest; infinite where a class has no image.
        majority: Share of the largest class: the accuracy of always naming it.
        balance: Entropy of the shares over log k, in [0, 1]; 1 is balanced.
        effective_classes: exp of the entropy: as many equal classes would be as uncertain.
        classes: Names.
    """

    counts: Tensor
    ratio: float
    majority: float
    balance: float
    effective_classes: float
    classes: tuple[str, ...]

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a class: images and share."""
        pd = require("pandas", "course")

        index = pd.Index(self.classes, name="class")
        return pd.DataFrame({"images": self.counts.numpy(), "share": (self.counts / self.counts.sum()).numpy()}, index)

    def __repr__(self) -> str:
        return (
            f"largest class {self.ratio:.3g} times the smallest, {100 * self.majority:.1f} % of all; balance "
            f"{self.balance:.3f} ({self.effective_classes:.1f} effective of {len(self.counts)} classes)"
        )

    def _table_html(self) -> str:
        return frame_html(self.to_frame, float_format="{:.3f}".format)


def imbalance(labels: Any, *, n_classes: int | None = None) -> Imbalance:
    """Measures of how unequal classes are.

    Args:
        labels: (n,) class indices (a tensor, an array or a list), or a `FeatureSet`.
        n_classes: k; default that of the `FeatureSet`, or the largest index and one.

    Raises:
        DataError: If there is no label.
        InputError: If labels are no class indices below k.

    Example:
        >>> imbalance(torch.tensor([0, 0, 0, 1]))
        largest class 3 times the smallest, 75.0 % of all; balance 0.811 (1.8 effective of 2 classes)
    """
    names: tuple[str, ...] = ()
    if isinstance(labels, Features):
        as_features(labels, "labels")  # with labels
        names, labels = tuple(labels.classes), labels.labels
        if not names:
            raise InputError("`labels` must be class indices, or a set that has classes; this one has none.")
        n_classes = len(names)
    labels = as_tensor(labels, "labels")
    if not labels.numel():
        raise DataError("`labels` must hold at least one label, got none.")
    if labels.is_floating_point() or labels.ndim != 1:
        raise InputError(f"`labels` must be (n,) class indices, got {labels.dtype} of shape {tuple(labels.shape)}.")
    labels = labels.long()  # booleans count as 0 and 1
    k = int(labels.max()) + 1 if n_classes is None else whole_number("n_classes", n_classes)
    if int(labels.min()) < 0 or int(labels.max()) >= k:
        raise InputError(f"`labels` must lie in 0..{k - 1}, got {int(labels.min())}..{int(labels.max())}.")
    counts = torch.bincount(labels.cpu(), minlength=k)
    p = counts.double() / counts.sum()
    entropy = float(-torch.xlogy(p, p).sum())
    smallest = int(counts.min())
    return Imbalance(
        counts=counts,
        ratio=int(counts.max()) / smallest if smallest else math.inf,
        majority=float(p.max()),
        balance=entropy / math.log(k) if k > 1 else 0.0,
        effective_classes=math.exp(entropy),
        classes=names or tuple(map(str, range(k))),
    )


def _note(n: int, d: int, consequence: str) -> str:
    return f"{n} images are not more than {d} features: {consequence}" if n <= d else ""


def _spectrum(x: Tensor) -> Tensor:
    """(min(n − 1, d),) eigenvalues of the covariance, descending."""
    if len(x) < 2:
        raise DataError(f"`features` must hold at least two images, got {len(x)}.")
    x = x - x.mean(0)
    gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)[: min(len(x) - 1, x.shape[1])]
    if not values[0] > 0:
        raise DataError("`features` must vary from image to image, got constant ones.")
    # What rounding leaves of an empty direction is none: it would count in the entropy of the square roots.
    return torch.where(values > values[0] * len(x) * 1e-14, values, 0.0) / (len(x) - 1)
