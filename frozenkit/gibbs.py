"""The PAC-Bayes bound: a certificate for a classifier that draws its weights anew for every image.

With prior P and posterior Q over weights, m images that P does not depend on, R(Q) the error of the Gibbs classifier
(a fresh draw from Q for each image) and R̂(Q) its mean on the m images, with probability 1 − δ for all Q at once

    kl(R̂(Q) ‖ R(Q)) ≤ (KL(Q‖P) + log(2√m/δ)) / m,   kl(q‖p) = q·log(q/p) + (1 − q)·log((1 − q)/(1 − p)).

`kl_inverse` turns that into a bound on R(Q).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from frozenkit.bounds import Bound, check_delta
from frozenkit.errors import DataError, InputError
from frozenkit.features import FeatureSet
from frozenkit.fits import Standardize
from frozenkit.ridge import LinearMap, ridge_path
from frozenkit.scores import Score, score

# Deviations to choose from, times the size of the prior's mean over √(d·k): a factor of 4 either way, each paid for.
SCALES = tuple(2.0 ** (step / 2) for step in range(-6, 7))
DRAWS = 100  # weights for each image when the error is estimated; the rest of its uncertainty is paid for


@dataclass(frozen=True, eq=False)
class GibbsClassifier:
    """A linear classifier whose weights are drawn anew for every image, from a Gaussian around a mean.

    Attributes:
        mean: (d + 1, k) float64 mean of weights and intercept, for scaled features.
        deviation: σ of each weight.
        scale: Scales raw features.
        classes: k names.
    """

    mean: Tensor
    deviation: float
    scale: Standardize
    classes: tuple[str, ...]

    def mistakes(self, features: Tensor, labels: Tensor, *, draws: int, seed: int = 0) -> int:
        """Mistakes among n·draws independent draws, `draws` for each image.

        Given x, the k logits are independent Gaussians around xᵀ·mean with deviation σ·‖x‖: k numbers are drawn, and
        never the d·k weights.
        """
        x = _with_one(self.scale(features.float()).double())
        logits, spread = x @ self.mean, self.deviation * x.norm(dim=1, keepdim=True)
        generator = torch.Generator().manual_seed(seed)
        wrong = 0
        for _ in range(draws):
            noise = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
            wrong += int(((logits + spread * noise).argmax(1) != labels).sum())
        return wrong

    def error(self, test: FeatureSet, *, draws: int = DRAWS, seed: int = 1) -> float:
        """Mean error on other images, over so many draws for each."""
        return self.mistakes(test.features, test.labels, draws=draws, seed=seed) / (len(test) * draws)

    def score(self, test: FeatureSet) -> Score:
        """The `Score` of the classifier that always takes the mean weights: what one would use."""
        x = _with_one(self.scale(test.features.float()).double())
        return score((x @ self.mean).argmax(1), test.labels, n_classes=len(self.classes), classes=self.classes)


def pac_bayes_bound(train: FeatureSet, *, delta: float = 0.05, seed: int = 0) -> Bound:
    """A certificate for a randomised linear probe, from its training images alone.

    One half of train fits the *prior*: a Gaussian around the ridge probe of that half, at the strength that its own
    leave-one-out chooses. All of train fits the *posterior* around the ridge probe at the same strength, with the same
    deviation σ. The bound is evaluated on the other half, which the prior has not seen. σ is the best of a grid, and
    the grid is paid for by a union bound; the error of the Gibbs classifier there is estimated from independent draws,
    and the estimate is paid for by a Chernoff bound. Half of δ goes to the theorem, half to the draws.

    It is honest and not tight: a hold-out bound on as many images, at the same δ, is usually tighter, and the best
    posterior often stays next to the prior, where the two are the same bound in different clothes.

    Args:
        train: (n, d) features, n ≥ 16, integer labels.
        delta: Probability of failure, in (0, 1).
        seed: Of the halves and of the draws.

    Returns:
        A `Bound`; ``.posterior`` is the `GibbsClassifier` whose error it bounds, `details` has KL, σ and m.

    Raises:
        InputError: If `delta` lies outside (0, 1), or `train` is no set for classification.
        DataError: If there are fewer than 16 images, or one half lacks all but one class.

    References:
        A. Maurer (2004), A note on the PAC Bayesian theorem, theorem 5; M. Seeger (2002), PAC-Bayesian generalisation
        error bounds for Gaussian process classification, JMLR 3, theorem 1.
        J. Langford, R. Caruana (2001), (Not) bounding the true error, NIPS: the price of the draws.
    """
    check_delta(delta)
    train = train.load() if hasattr(train, "load") else train
    if not train.classes or train.features.ndim != 2:
        raise InputError("`train` must hold (n, d) features with classes; there is no such bound for regression here.")
    if len(train) < 16:
        raise DataError(f"`train` must hold at least 16 images for two halves, got {len(train)}.")
    # A plain random half, not a stratified one: the images of the other half must be independent draws.
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    if len(train.labels[half].unique()) < 2:
        raise DataError("`train` must hold at least two classes in either half; one class has nearly all images.")
    m, k = len(rest), train.n_classes
    scale = Standardize(train.features[half])

    def fitted(rows: Tensor, strength: float | None) -> tuple[Tensor, float]:
        path = ridge_path(
            scale(train.features[rows]),
            train.labels[rows],
            strengths=None if strength is None else [strength],
            standardize=False,
            n_classes=k,
        )
        return _stacked(path.at(path.best)), path.best

    prior, strength = fitted(half, None)
    posterior, _ = fitted(order, strength)
    distance = float((posterior - prior).square().sum())
    unit = float(prior.norm()) / math.sqrt(prior.numel())
    share = delta / (2 * len(SCALES))  # for each σ: one part for the theorem, one for the draws
    found: list[tuple[float, dict[str, float], dict[str, float], GibbsClassifier]] = []
    for i, step in enumerate(SCALES):
        gibbs = GibbsClassifier(posterior, step * unit, scale, train.classes)
        seen = gibbs.mistakes(train.features[rest], train.labels[rest], draws=DRAWS, seed=seed + i) / (m * DRAWS)
        at_most = kl_inverse(seen, math.log(1 / share) / (m * DRAWS))
        kl = distance / (2 * gibbs.deviation**2)
        value = kl_inverse(at_most, (kl + math.log(2 * math.sqrt(m) / share)) / m)
        terms = {"Gibbs error on the other half": seen, "its draws": at_most - seen, "complexity": value - at_most}
        details = {
            "KL": kl,
            "deviation": gibbs.deviation,
            "deviations tried": len(SCALES),
            "m": m,
            "strength": strength,
        }
        found.append((value, terms, details, gibbs))
    value, terms, details, gibbs = min(found, key=lambda one: one[0])
    return Bound(
        value=value,
        terms=terms,
        delta=delta,
        assumptions=(
            "The images were drawn independently from the distribution on which the error is meant.",
            "The backbone, and the grid of deviations, were fixed without these images.",
            "It bounds the error of the classifier that draws its weights anew for every image.",
        ),
        is_certificate=True,
        name="PAC-Bayes bound",
        details=details,
        posterior=gibbs,
    )


def binary_kl(q: float, p: float) -> float:
    """kl(q‖p) between two coins, in nats.

    Example:
        >>> round(binary_kl(0.1, 0.2), 6)
        0.03669
    """
    parts = [(q, p), (1 - q, 1 - p)]
    return sum(a * math.log(a / b) if b > 0 else math.inf for a, b in parts if a > 0)


def kl_inverse(q: float, budget: float) -> float:
    """The largest p in [q, 1] with kl(q‖p) ≤ `budget`, by bisection to the last bits.

    Example:
        >>> round(kl_inverse(0.1, binary_kl(0.1, 0.2)), 9)
        0.2
    """
    if not 0 <= q <= 1 or not budget >= 0:
        raise InputError(f"`q` must lie in [0, 1] and `budget` be 0 or more, got {q!r} and {budget!r}.")
    low, high = q, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binary_kl(q, middle) <= budget else (low, middle)
    return high


def _stacked(found: LinearMap) -> Tensor:
    """(d + 1, k): the intercept is the weight of a feature that is 1."""
    return torch.cat([found.weights, found.intercept[None]]).double()


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
