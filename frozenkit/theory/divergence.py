"""How far apart two samples of features are; how alike two layers see the same images.

Every divergence comes with what keeps a reader from taking noise for shift: a p-value from permuting which image
belongs to which sample, and an interval.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._arrays import whole_number
from frozenkit._outputs import Shown
from frozenkit.errors import DataError, InputError
from frozenkit.features import Features, feature_rows
from frozenkit.heads.ridge import ridge_path

AnyFeatures = Any  # `Features`, which are loaded, or an (n, d) tensor or array
STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # λ of the domain classifier, chosen inside each fold
LARGEST_SAMPLE = 2_000  # images a side of a kernel matrix


@dataclass(frozen=True)
class Divergence(Shown):
    """A divergence between two samples of features.

    Attributes:
        value: The estimate.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        p_value: Share of random relabellings with a value as large, this one counted among them; NaN without them.
        n_source: Images of the source that were used.
        n_target: Images of the target that were used.
        name: Of the divergence.
        baseline: Its mean over the random relabellings, where that says something: what no shift looks like in samples
            of these sizes.
    """

    value: float
    low: float
    high: float
    p_value: float
    n_source: int
    n_target: int
    name: str = "divergence"
    baseline: float = math.nan

    def __repr__(self) -> str:
        p = "" if math.isnan(self.p_value) else f", p = {self.p_value:.2g}"
        base = "" if math.isnan(self.baseline) else f"; without a shift about {self.baseline:.3g}"
        return (
            f"{self.name} {self.value:.3g} [{self.low:.3g}, {self.high:.3g}]{p} on {self.n_source} and "
            f"{self.n_target} images{base}"
        )


def proxy_a_distance(
    source: AnyFeatures, target: AnyFeatures, *, folds: int = 5, permutations: int = 100, seed: int = 0
) -> Divergence:
    """How well a linear classifier tells source from target: 2·(1 − 2ε), with ε its error on images it has not seen.

    0 where it cannot tell them apart, 2 where it always can. The classifier is ridge regression on ±1, cross-fitted:
    scaled as in `ridge_path`, and its strength chosen by leave-one-out, on the other folds alone. ε is the mean of the
    errors on either sample, so that unequal sizes do not count. A regularised linear classifier finds less than the
    supremum in the theory: the value is a lower estimate of that.

    Images of source and target with the same id (one image, shifted) fall into the same fold.

    Args:
        source: (n, d) features, n ≥ 2·folds; loaded, like target, where they are not in memory.
        target: (m, d) features.
        folds: Parts of the cross-fitting.
        permutations: Relabellings for the p-value, each with folds and strengths of its own; 0 leaves it out.
        seed: Of folds and permutations.

    Returns:
        A `Divergence` in [0, 2]; what would be negative is 0. Its interval is Student's over the folds.

    Raises:
        InputError: If the two are not features of one layer and width.
        DataError: If there are too few images, or a row is not finite.

    References:
        S. Ben-David, J. Blitzer, K. Crammer, F. Pereira (2007), Analysis of representations for domain adaptation.
    """
    from scipy.stats import t as student

    x, n = _pair(source, target, least=2 * folds)
    if folds < 2 or permutations < 0:
        raise InputError(f"`folds` must be at least 2 and `permutations` 0 or more, got {folds} and {permutations}.")
    generator = torch.Generator().manual_seed(whole_number("seed", seed, least=0))
    fold = _folds(source, target, (n, len(x) - n), folds, generator)
    # One column a labelling, the true one first: +1 is the target. A permutation keeps the size of either sample.
    true = torch.ones(len(x), dtype=torch.float64)
    true[:n] = -1
    columns = [true, *(true[torch.randperm(len(x), generator=generator)] for _ in range(permutations))]
    labels = torch.stack(columns, 1)
    values = torch.stack([_fold_distance(x, labels, fold == part) for part in range(folds)])  # (folds, columns)
    mean = values.mean(0)
    value = float(mean[0])
    half = float(student.ppf(0.975, folds - 1) * values[:, 0].std() / math.sqrt(folds))
    low, high = (min(max(end, 0.0), 2.0) for end in (value - half, value + half))
    return Divergence(max(value, 0.0), low, high, _p_value(mean), n, len(x) - n, "proxy A-distance")


def mmd(
    source: AnyFeatures, target: AnyFeatures, *, bandwidth: float | None = None, permutations: int = 200, seed: int = 0
) -> Divergence:
    """Maximum mean discrepancy, squared and unbiased, with a Gaussian kernel exp(−‖x − y‖² / (2·bandwidth²)).

    Of more than 2,000 images a side, a random 2,000 are used.

    Args:
        source: (n, d) features, n ≥ 3; loaded, like target, where they are not in memory.
        target: (m, d) features.
        bandwidth: Above 0; default the median distance between two images of both samples together.
        permutations: Relabellings for the p-value; 0 leaves it out.
        seed: Of permutations, and of the draw of large samples.

    Returns:
        A `Divergence`; without shift its value is 0 on average, and so as often below as above. The interval is the
        asymptotic one for samples that differ; where they do not, go by the p-value.

    Raises:
        InputError: If the two are not features of one layer and width, or `bandwidth` is not above 0.
        DataError: If there are too few images, or a row is not finite.

    References:
        A. Gretton et al. (2012), A kernel two-sample test, JMLR 13, equation 3.
    """
    x, n = _pair(source, target, least=3)
    generator = torch.Generator().manual_seed(whole_number("seed", seed, least=0))
    parts = [p[torch.randperm(len(p), generator=generator)[:LARGEST_SAMPLE]] for p in (x[:n], x[n:])]
    x, n = torch.cat(parts), len(parts[0])
    m = len(x) - n
    squared = torch.cdist(x, x).square()
    if bandwidth is None:
        rows, columns = torch.triu_indices(len(x), len(x), 1)
        bandwidth = float(squared[rows, columns].median().sqrt())
        bandwidth = bandwidth or 1.0  # all images alike: any bandwidth says so
    if not 0 < bandwidth < math.inf:
        raise InputError(f"`bandwidth` must be above 0, got {bandwidth!r}. None takes the median distance.")
    kernel = (squared / (-2 * bandwidth**2)).exp()
    first = torch.zeros(len(x), permutations + 1, dtype=torch.float64)
    first[:n, 0] = 1
    for column in range(1, permutations + 1):
        first[torch.randperm(len(x), generator=generator)[:n], column] = 1
    # All sums over pairs follow from a'Ka and K1, a being the indicator of the source.
    total = kernel.sum(1)
    inner = ((kernel @ first) * first).sum(0)
    of_first = total @ first
    cross = of_first - inner
    outer = total.sum() - 2 * of_first + inner
    values = (inner - n) / (n * (n - 1)) + (outer - m) / (m * (m - 1)) - 2 * cross / (n * m)
    witness = kernel[:, :n].mean(1) - kernel[:, n:].mean(1)
    spread = math.sqrt(4 * float(witness[:n].var()) / n + 4 * float(witness[n:].var()) / m)
    value = float(values[0])
    return Divergence(value, value - 1.96 * spread, value + 1.96 * spread, _p_value(values), n, m, "MMD²")


def frechet_distance(source: AnyFeatures, target: AnyFeatures, *, permutations: int = 20, seed: int = 0) -> Divergence:
    """The Fréchet distance of two Gaussians with the samples' means and covariances.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½), in squared units of the features. It is biased upwards, and by more the fewer
    images and the more features there are: `Divergence.baseline` is its mean over the relabellings, samples of the same
    sizes with no shift at all. Compare with that, or go by the p-value.

    Args:
        source: (n, d) features, n ≥ 4; loaded, like target, where they are not in memory.
        target: (m, d) features.
        permutations: Relabellings for p-value and baseline, each about as slow as the value itself; 0 leaves both out.
        seed: Of permutations and jackknife.

    Returns:
        A `Divergence`; its interval is a grouped jackknife's and does not know of the bias.

    Raises:
        InputError: If the two are not features of one layer and width.
        DataError: If there are too few images, or a row is not finite.

    References:
        D. C. Dowson, B. V. Landau (1982), The Fréchet distance between multivariate normal distributions.
    """
    x, n = _pair(source, target, least=4)
    generator = torch.Generator().manual_seed(whole_number("seed", seed, least=0))
    values = [_frechet(x[:n], x[n:])]
    for _ in range(permutations):
        order = torch.randperm(len(x), generator=generator)
        values.append(_frechet(x[order[:n]], x[order[n:]]))
    baseline = float(np.mean(values[1:])) if permutations else math.nan
    half_width = 1.96 * _jackknife(_frechet, x[:n], x[n:], generator)
    low, high = max(values[0] - half_width, 0.0), values[0] + half_width
    p = _p_value(torch.tensor(values))
    return Divergence(values[0], low, high, p, n, len(x) - n, "Fréchet distance", baseline)


def cka(a: AnyFeatures, b: AnyFeatures) -> float:
    """Centred kernel alignment with linear kernels, debiased: how alike two layers see the same images.

    1 where one is a rotation and scaling of the other; about 0 (either side) for unrelated features, however few the
    images: the plug-in estimate would be near 1 for wide features and few images. Works in O(n·d²), without an (n, n)
    matrix.

    Args:
        a: (n, d) features, n ≥ 4; loaded, like b, where they are not in memory.
        b: (n, e) features of the same images in the same order.

    Raises:
        InputError: If the images differ.
        DataError: If there are fewer than four images, a row is not finite, or one side is constant.

    Example:
        >>> x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> round(cka(x, 3 * x + 1), 6)
        1.0

    References:
        L. Song et al. (2012), Feature selection via dependence maximization, JMLR 13, equation 5 (HSIC₁).
        T. Nguyen, M. Raghu, S. Kornblith (2021), Do wide and deep networks learn the same things?, ICLR.
    """
    if _differ(a, b, "ids"):
        raise InputError("`a` and `b` must be features of the same images in the same order; their ids differ.")
    x, y = feature_rows(a, "a"), feature_rows(b, "b")
    if len(x) != len(y):
        raise InputError(f"`a` and `b` must be features of the same images, got {len(x)} and {len(y)}.")
    if len(x) < 4:
        raise DataError(f"debiased CKA needs at least 4 images, got {len(x)}.")
    x, y = x - x.mean(0), y - y.mean(0)
    own = _hsic(x, x) * _hsic(y, y)
    if not own > 0:
        raise DataError("debiased CKA needs features that vary from image to image on both sides, got constant ones.")
    return _hsic(x, y) / math.sqrt(own)


def _fold_distance(x: Tensor, labels: Tensor, held: Tensor) -> Tensor:
    """(columns,) 2·(1 − 2ε) on the rows of one fold, of classifiers fitted on the others, one for each labelling."""
    train, is_target = x[~held], labels > 0
    if (train == train[0]).all():  # nothing to tell apart
        return torch.zeros(labels.shape[1], dtype=x.dtype)
    path = ridge_path(train, labels[~held], STRENGTHS)
    assert path.loo_errors is not None
    linear = path.at(path.strengths[path.loo_errors.argmin(0)])
    logits = (x - train.mean(0)) @ linear.weights.double()
    # The threshold lies half way between the two samples' means, so that the larger sample does not pull it.
    of_target, of_source = (_mean_where(logits[~held], chosen[~held]) for chosen in (is_target, ~is_target))
    says_target = logits[held] > (of_target + of_source) / 2
    is_target = is_target[held]
    error = (_mean_where((~says_target).double(), is_target) + _mean_where(says_target.double(), ~is_target)) / 2
    return 2 * (1 - 2 * error)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """(columns,) mean of the chosen rows of each column; ½ where none is chosen."""
    count = chosen.sum(0)
    total = torch.where(chosen, values, 0.0).sum(0)
    return torch.where(count > 0, total / count.clamp_min(1), 0.5)


def _folds(
    source: AnyFeatures, target: AnyFeatures, sizes: tuple[int, int], folds: int, generator: torch.Generator
) -> Tensor:
    """(n + m,) fold of each row: dealt out at random; rows of one image in both samples share theirs."""
    dealt = [torch.randperm(size, generator=generator) % folds for size in sizes]
    if isinstance(source, Features) and isinstance(target, Features):
        of_source = dict(zip(source.ids, dealt[0].tolist()))
        dealt[1] = torch.tensor([of_source.get(i, f) for i, f in zip(target.ids, dealt[1].tolist())])
    return torch.cat(dealt)


def _frechet(x: Tensor, y: Tensor) -> float:
    a, b = _factor(x), _factor(y)
    # tr (Σ₁Σ₂)^½ is the sum of singular values of a·bᵀ for any Σ₁ = aᵀa, Σ₂ = bᵀb: no matrix root, no d ≤ n needed.
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    apart = (x.mean(0) - y.mean(0)).square().sum()
    return max(float(apart + a.square().sum() + b.square().sum() - 2 * overlap), 0.0)


def _factor(x: Tensor) -> Tensor:
    """(min(n, d), d) with the covariance of x as its Gram matrix."""
    centred = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred


def _jackknife(
    statistic: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, generator: torch.Generator, groups: int = 5
) -> float:
    """Standard error from leaving out a group of images of either sample in turn."""
    variance = 0.0
    for side, rows in ((0, x), (1, y)):
        g = min(groups, len(rows) // 2)
        group = torch.randperm(len(rows), generator=generator) % g
        pairs = [(rows[group != i], y) if side == 0 else (x, rows[group != i]) for i in range(g)]
        values = np.array([statistic(*pair) for pair in pairs])
        variance += (g - 1) / g * float(((values - values.mean()) ** 2).sum())
    return math.sqrt(variance)


def _hsic(x: Tensor, y: Tensor) -> float:
    """Unbiased HSIC of two linear kernels, up to the factor 1/(n(n − 3)), from features with column means of 0."""
    n = len(x)
    own_x, own_y = x.square().sum(1), y.square().sum(1)
    # K̃ = xxᵀ without its diagonal, L̃ likewise. Column sums of x are 0, so the row sums of K̃ are minus its diagonal.
    trace = (x.T @ y).square().sum() - (own_x * own_y).sum()
    sums = own_x.sum() * own_y.sum() / ((n - 1) * (n - 2))
    return float(trace + sums - 2 / (n - 2) * (own_x * own_y).sum())


def _p_value(values: Tensor) -> float:
    """Of the first among relabellings; NaN without any. The slack only forgives rounding between equal values."""
    if len(values) < 2:
        return math.nan
    return float((values >= values[0] - 1e-12 * values[0].abs()).double().mean())


def _differ(a: Any, b: Any, name: str) -> bool:
    """Whether both are `Features`, not arrays, and differ in this attribute."""
    return isinstance(a, Features) and isinstance(b, Features) and getattr(a, name) != getattr(b, name)


def _pair(source: AnyFeatures, target: AnyFeatures, *, least: int) -> tuple[Tensor, int]:
    """Both as one (n + m, d) float64 tensor, and n."""
    if _differ(source, target, "layer"):
        raise InputError(
            f"`source` and `target` must be features of one layer, got {source.layer!r} and {target.layer!r}."
        )
    x, y = feature_rows(source, "source"), feature_rows(target, "target")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"`source` and `target` must be equally wide, got {x.shape[1]} and {y.shape[1]} features.")
    if min(len(x), len(y)) < least:
        raise DataError(f"`source` and `target` must hold at least {least} images each, got {len(x)} and {len(y)}.")
    return torch.cat([x, y]), len(x)
