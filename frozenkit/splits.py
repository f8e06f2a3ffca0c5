"""Disjoint, seeded, stratified index sets: who is in train, val and test; and which images are the same, or nearly."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._arrays import as_tensor, check_finite, described, is_array, rarest_label, real_number, whole_number
from frozenkit._outputs import Shown
from frozenkit.errors import DataError, InputError

_NEARLY_EQUAL, _LEAST, _MOST = 0.95, 0.85, 0.98  # similarities: where few images say little, and the ends
_ENOUGH, _SAMPLE, _DEVIATIONS = 20, 1_000, 3.5  # images to choose a threshold by, and how odd a pair must be
_NEIGHBOURS, _LEAP = 5, 0.6  # how many nearest may be copies: those at less than 0.6 of the distance to the next
_BLOCK = 2048  # rows of a block of similarities: 16 MB


def split(
    labels: Tensor | np.ndarray | Sequence[int],
    *,
    fractions: Sequence[float],
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> tuple[Tensor, ...]:
    """Disjoint index sets, stratified by label, that together hold every row once.

    Each class is divided in the given proportions, rounded so that no part is more than one image off in any class.
    Where an image may have several labels, an image counts as one of its rarest.
    With `groups` (patients, photographers, videos) all rows of a group land in the same part.

    Args:
        labels: (n,) class indices, or names: a tensor, NumPy array, pandas column or list; or (n, k) booleans.
        fractions: Positive proportions, one a part; they are scaled to sum to 1.
        groups: (n,) group of each row; then proportions hold approximately.
        seed: Decides the draw; the same seed gives the same sets on every machine.

    Returns:
        One sorted (m,) int64 tensor a part, in the order of `fractions`.

    Raises:
        InputError: If labels are no such thing, or fractions, lengths or the seed do not fit.

    Example:
        >>> train, test = split([0, 0, 0, 0, 1, 1, 1, 1], fractions=(0.75, 0.25))
        >>> len(train), len(test)
        (6, 2)
    """
    y, random = _classes_of(labels, multilabel=True), _seeded(seed)
    try:
        share = np.asarray(fractions, dtype=float)
    except (TypeError, ValueError):
        share = np.empty(0)
    if share.ndim != 1 or len(share) == 0 or not np.isfinite(share).all() or share.min() <= 0:
        raise InputError(f"`fractions` must be positive numbers, one per part, such as (0.8, 0.2); got {fractions!r}.")
    share = share / share.sum()
    if groups is None:
        part = _stratified_parts(y, share, random)
    else:
        if len(groups) != len(y):
            raise InputError(f"`groups` must name a group for each of {len(y)} rows, got {len(groups)}.")
        part = _grouped_parts(y, np.asarray(groups), share, random)
    return tuple(torch.from_numpy(np.flatnonzero(part == p)) for p in range(len(share)))


def few_shot(labels: Tensor | np.ndarray | Sequence[int], *, shots: int, seed: int = 0) -> Tensor:
    """`shots` random rows of every class, without replacement.

    Args:
        labels: (n,) class indices, or names: a tensor, NumPy array, pandas column or list.
        shots: Labelled examples per class, ≥ 1.
        seed: Distinct seeds are distinct draws.

    Returns:
        (k · shots,) sorted int64 indices.

    Raises:
        InputError: If labels are no such thing, or `shots` or the seed is no whole number in range.
        DataError: If a class has fewer than `shots` rows.

    Example:
        >>> y = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> y[few_shot(y, shots=2)].tolist()
        [0, 0, 1, 1]
    """
    y, random, shots = _classes_of(labels), _seeded(seed), whole_number("shots", shots)
    chosen = []
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        if len(rows) < shots:
            raise DataError(f"class {label} has {len(rows)} examples, fewer than `shots`={shots}.")
        chosen.append(random.permutation(rows)[:shots])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def duplicates(dataset: Iterable[tuple[Any, Any]]) -> list[tuple[int, ...]]:
    """Rows whose images are equal pixel by pixel, as groups of two or more indices.

    Args:
        dataset: Anything that yields (image, label), such as an `ImageDataset`.

    Returns:
        Groups in order of their first row; empty when every image is unique.

    Example:
        >>> duplicates([(np.zeros((2, 2)), 0), (np.ones((2, 2)), 1), (np.zeros((2, 2)), 0)])
        [(0, 2)]
    """
    seen: dict[bytes, list[int]] = {}
    for i, (image, _) in enumerate(dataset):
        pixels = np.ascontiguousarray(np.asarray(image))
        head = f"{pixels.shape}{pixels.dtype}".encode()
        seen.setdefault(hashlib.sha256(head + pixels.tobytes()).digest(), []).append(i)
    return [tuple(rows) for rows in seen.values() if len(rows) > 1]


@dataclass(frozen=True, eq=False)
class NearDuplicates(Shown):
    """Pairs of images whose features are nearly the same, the most alike first.

    Attributes:
        pairs: (m, 2) int64 rows, the smaller first.
        similarity: (m,) float32 cosine similarity of centred features, in [threshold, 1].
        threshold: From where on a pair counts.
    """

    pairs: Tensor
    similarity: Tensor
    threshold: float

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        count = f"{len(self):,} pair{'s' * (len(self) != 1)}"
        return f"NearDuplicates({count} with a cosine similarity of {self.threshold:.3g} or more)"


def near_duplicates(features: Any, *, threshold: float | None = None) -> NearDuplicates:
    """Pairs of images that a backbone sees as nearly the same: resized, compressed or slightly cut copies.

    Cosine similarity of features, from which the mean over all images is subtracted first: without that all features
    of one layer point the same way, and images of one class look like copies. Exact: every pair is compared, in blocks,
    so time grows with the square of n, and memory with the number of pairs: m equal images make m·(m − 1)/2 of them, so
    drop all but one of `duplicates` first where there are thousands.

    Args:
        features: (n, d) of all images together: an array, or `Features` of one layer.
        threshold: In (−1, 1]. By default chosen from the data: how near an image lies to its nearest differs between
            sets of images, so a pair counts if its distance is odd among those to the nearest, 3.5 robust deviations of
            its logarithm below the median of up to 1,000 images; at least 0.85 and at most 0.98. What lies much nearer
            than the next nearest is a copy already and is passed over there, so that many copies, up to four of every
            image, do not count as usual. With fewer than 20 images, 0.95. Very small images, below about 100 pixels,
            change so much by compression that copies of them are missed.

    Returns:
        `NearDuplicates`, of which images that are equal are a part.

    Raises:
        InputError: If this is no (n, d) array of numbers, or `threshold` lies outside (−1, 1].
        DataError: If a row is not finite; the message names it.

    Example:
        >>> x = torch.eye(6)
        >>> x[5] = x[2] + torch.tensor([0.0, 0.0, 0.0, 0.1, 0.0, 0.0])
        >>> near_duplicates(x).pairs
        tensor([[2, 5]])
    """
    if threshold is not None and not -1 < real_number("threshold", threshold) <= 1:
        raise InputError(f"`threshold` must lie above −1 and be at most 1, got {threshold!r}.")
    ids = None
    if not is_array(features):
        if isinstance(features, type) or not hasattr(features, "load"):
            raise InputError(f"`features` must be an array or a set of features, got {described(features)}.")
        ids, features = features.ids, features.load().features
    x = as_tensor(features, "features").float()
    if x.ndim != 2 or not x.shape[1]:
        raise InputError(f"`features` must be (n, d) with d ≥ 1, got shape {tuple(x.shape)}. Average tokens first.")
    check_finite(x, "features", ids)
    directions = _centred_directions(x)
    least = _threshold(directions) if threshold is None else float(threshold)
    pairs, similarity = [], []
    for top in range(0, len(x), _BLOCK):
        for left in range(top, len(x), _BLOCK):
            block = directions[top : top + _BLOCK] @ directions[left : left + _BLOCK].T
            if top == left:
                block = block.triu(1).sub_(torch.ones_like(block).tril_().mul_(2))  # each pair once, no row with itself
            near = (block >= least - 1e-6).nonzero()  # rounding: equal rows are at 1
            similarity.append(block[near[:, 0], near[:, 1]].clamp(max=1))
            pairs.append(near + torch.tensor([top, left]))
    every, alike = torch.cat([torch.empty(0, 2, dtype=torch.int64), *pairs]), torch.cat([torch.empty(0), *similarity])
    order = alike.argsort(descending=True, stable=True)
    return NearDuplicates(every[order], alike[order], least)


def _centred_directions(x: Tensor) -> Tensor:
    """(n, d + 1) rows of length 1; those that lie at the mean, which have no direction, share one of their own."""
    centred = (x.double() - x.double().mean(0)).float() if len(x) else x
    length = centred.norm(dim=1)
    at_mean = length <= 1e-6 * x.norm(dim=1)
    directions = centred / torch.where(at_mean, torch.inf, length)[:, None]
    return torch.cat([directions, at_mean.float()[:, None]], 1)


def _threshold(directions: Tensor) -> float:
    """The similarity from where on a pair is odd among nearest pairs."""
    n = len(directions)
    if n < _ENOUGH:
        return _NEARLY_EQUAL
    rows = torch.linspace(0, n - 1, min(n, _SAMPLE)).long()
    similarity = directions[rows] @ directions.T
    similarity[torch.arange(len(rows)), rows] = -1
    nearest = (2 - 2 * similarity.topk(_NEIGHBOURS).values).clamp_min(1e-6).sqrt()  # by ascending distance
    leaps = nearest[:, :-1] < _LEAP * nearest[:, 1:]
    beyond = (leaps * torch.arange(1, _NEIGHBOURS)).max(1).values  # copies, all before the last leap
    distance = nearest[torch.arange(len(rows)), beyond].log()
    middle = distance.median()
    deviation = 1.4826 * (distance - middle).abs().median()
    return float((1 - (2 * (middle - _DEVIATIONS * deviation)).exp() / 2).clamp(_LEAST, _MOST))


def _classes_of(labels: Any, *, multilabel: bool = False) -> np.ndarray:
    """(n,) what tells classes apart."""
    if not is_array(labels) and not isinstance(labels, range):
        hint = " Give its .labels." if hasattr(labels, "labels") else ""
        raise InputError(f"`labels` must be (n,) with n ≥ 1, got {described(labels)}.{hint}")
    y = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if y.ndim == 2 and y.dtype == np.bool_ and y.size:
        if not multilabel:
            raise InputError(
                f"`labels` must be (n,), one class per image, got any of {y.shape[1]} labels. Take one label by "
                "itself, as in labels[:, 0]."
            )
        return rarest_label(torch.from_numpy(np.ascontiguousarray(y))).numpy()
    if y.ndim != 1 or len(y) == 0:
        raise InputError(f"`labels` must be (n,) with n ≥ 1, got shape {y.shape}.")
    return y


def _seeded(seed: int) -> np.random.RandomState:
    if (number := whole_number("seed", seed, least=0)) >= 2**32:
        raise InputError(f"`seed` must be below 2³², got {seed}.")
    return np.random.RandomState(number)


def _stratified_parts(y: np.ndarray, share: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """The part of each row; leftovers of each class go to the parts that are furthest behind overall."""
    part = np.empty(len(y), dtype=int)
    owed = np.zeros(len(share))  # how many rows each part is behind its share, over all classes so far
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        exact = share * len(rows)
        counts = np.floor(exact + 1e-9).astype(int)
        owed += exact - counts
        leftover = len(rows) - counts.sum()
        for behind in np.argsort(-owed, kind="stable")[:leftover]:  # distinct parts, so that none gets two
            counts[behind] += 1
            owed[behind] -= 1
        part[rows] = np.repeat(np.arange(len(share)), counts)
    return part


def _grouped_parts(y: np.ndarray, groups: np.ndarray, share: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Greedy: the largest groups first, each to the part that its rows' classes miss most."""
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < len(share):
        raise InputError(f"`groups` must hold at least one group a part: {len(names)} groups for {len(share)} parts.")
    classes, label = np.unique(y, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (member, label), 1)
    missing = share[:, None] * counts.sum(0)
    order = random.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    home = np.empty(len(names), dtype=int)
    for rank, group in enumerate(order):
        left = len(order) - rank
        empty = [p for p in range(len(share)) if not (home[order[:rank]] == p).any()]
        choices = empty if len(empty) >= left else range(len(share))
        home[group] = max(choices, key=lambda p: float((missing[p] / share[p] * counts[group]).sum()))
        missing[home[group]] -= counts[group]
    return home[member]
