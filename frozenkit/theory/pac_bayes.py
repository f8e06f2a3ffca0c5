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

from frozenkit._arrays import whole_number
from frozenkit.errors import DataError, InputError
from frozenkit.features import Features, feature_rows, load_set
from frozenkit.heads.ridge import LinearMap, RidgePath, ridge_path
from frozenkit.heads.scaling import Scaler
from frozenkit.probes.scores import Score, score
from frozenkit.theory.bounds import Bound, check_delta

# To choose from, every pair paid for: the strength, times that which leave-one-out chose for the prior, and the
# deviation of a logit where the features have their mean length; logits of a ridge probe are of size 1.
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
SCALES = tuple(2.0 ** (step / 2) for step in range(-12, 1))
DRAWS = 100  # weights for each image when the error is estimated; the rest of its uncertainty is paid for


@dataclass(frozen=True, eq=False)
class GibbsClassifier:
    """A linear classifier whose weights are drawn anew for every image, from a Gaussian around a mean.

    Attributes:
        mean: (d + 1, k) float64 mean of weights and intercept, for features in `basis`.
        deviation: σ of each weight there.
        basis: Takes raw features to the coordinates in which weights vary alike and independently.
        classes: k names.
    """

    mean: Tensor
    deviation: float
    basis: "Basis"
    classes: tuple[str, ...]

    def mistakes(self, features: Tensor, labels: Tensor, *, draws: int, seed: int = 0) -> int:
        """Mistakes among n·draws independent draws, `draws` for each image.

        Given x, the k logits are independent Gaussians around xᵀ·mean with deviation σ·‖x‖: k numbers are drawn, and
        never the d·k weights.
        """
        return self._mistakes(self.basis(features), labels, draws, seed)

    def _mistakes(self, x: Tensor, labels: Tensor, draws: int, seed: int) -> int:
        logits, spread = x @ self.mean, self.deviation * x.norm(dim=1, keepdim=True)
        generator = torch.Generator().manual_seed(seed)
        wrong = 0
        for _ in range(draws):
            noise = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
            wrong += int(((logits + spread * noise).argmax(1) != labels).sum())
        return wrong

    def error(self, test: Features, *, draws: int = DRAWS, seed: int = 1) -> float:
        """Mean error on other images, over so many draws for each."""
        test = load_set(test, "test")
        return self.mistakes(test.features, test.labels, draws=draws, seed=seed) / (len(test) * draws)

    def score(self, test: Features) -> Score:
        """The `Score` of the classifier that always takes the mean weights: what one would use."""
        test = load_set(test, "test")
        x = self.basis(test.features)
        return score((x @ self.mean).argmax(1), test.labels, n_classes=len(self.classes), classes=self.classes)


def pac_bayes_bound(train: Features, *, delta: float = 0.05, seed: int = 0) -> Bound:
    """A certificate for a randomised linear probe, from its training images alone.

    One half of train fits the *prior*: a Gaussian around the ridge probe of that half. All of train fits the
    *posterior* around the ridge probe at the same strength, with the same covariance: σ²·(C + λ)⁻¹, C being the
    covariance of the features of the first half. It is that of the weights of Bayesian linear regression: wide in
    directions of which the features say little. In the coordinates of `Basis` it is σ² times the identity, and
    KL = ‖difference of means‖²/(2σ²).

    The bound is evaluated on the other half, which the prior has not seen. Strength and σ are the best of a grid, and
    the grid is paid for by a union bound; the error of the Gibbs classifier there is estimated from independent draws,
    and the estimate is paid for by a Chernoff bound. Half of δ goes to the theorem, half to the draws.

    It is honest and not tight: a hold-out bound on as many images, at the same δ, is usually tighter, and the best
    posterior often stays next to the prior, where the two are the same bound in different clothes.

    Args:
        train: (n, d) features, n ≥ 16, integer labels; loaded into memory.
        delta: Probability of failure, in (0, 1).
        seed: Of the halves and of the draws.

    Returns:
        A `Bound`; ``.posterior`` is the `GibbsClassifier` whose error it bounds, `details` has KL, σ, strength
        and m.

    Raises:
        InputError: If `delta` lies outside (0, 1), or `train` is no set for classification.
        DataError: If there are fewer than 16 images, or one half lacks all but one class.

    References:
        A. Maurer (2004), A note on the PAC Bayesian theorem, theorem 5; M. Seeger (2002), PAC-Bayesian generalisation
        error bounds for Gaussian process classification, JMLR 3, theorem 1.
        J. Langford, R. Caruana (2001), (Not) bounding the true error, NIPS: the price of the draws.
    """
    check_delta(delta)
    seed = whole_number("seed", seed, least=0)
    train = load_set(train, "train")
    if not train.classes or train.features.ndim != 2:
        raise InputError("`train` must hold (n, d) features with classes; there is no such bound for regression here.")
    feature_rows(train, "train")  # NaN and infinity are named
    if len(train) < 16:
        raise DataError(f"`train` must hold at least 16 images for two halves, got {len(train)}.")
    # A plain random half, not a stratified one: the images of the other half must be independent draws.
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    if len(train.labels[half].unique()) < 2:
        raise DataError("`train` must hold at least two classes in either half; one class has nearly all images.")
    m, n_classes = len(rest), train.n_classes
    scale = Scaler(train.features[half])
    spectrum, rotation = _principal(scale(train.features[half]).double())

    def fitted(rows: Tensor, strengths: list[float] | None) -> RidgePath:
        x, y = scale(train.features[rows]), train.labels[rows]
        return ridge_path(x, y, strengths, scale="none", n_classes=n_classes)

    of_half = fitted(half, None)
    grid = [of_half.best * factor for factor in STRENGTHS]
    of_all = fitted(order, grid)
    share = delta / (2 * len(grid) * len(SCALES))  # for each pair: one part for the theorem, one for the draws
    found: list[tuple[float, dict[str, float], dict[str, float], GibbsClassifier]] = []
    for i, strength in enumerate(grid):
        basis = Basis(scale, rotation, (spectrum + strength).sqrt())
        prior, posterior = (basis.weights(path.at(strength)) for path in (of_half, of_all))
        distance = float((posterior - prior).square().sum())
        length = float(basis(train.features[half]).norm(dim=1).mean())
        held, labels = basis(train.features[rest]), train.labels[rest]
        for j, step in enumerate(SCALES):
            gibbs = GibbsClassifier(posterior, step / length, basis, train.classes)
            seen = gibbs._mistakes(held, labels, DRAWS, seed + i * len(SCALES) + j) / (m * DRAWS)
            at_most = kl_inverse(seen, math.log(1 / share) / (m * DRAWS))
            kl = distance / (2 * gibbs.deviation**2)
            value = kl_inverse(at_most, (kl + math.log(2 * math.sqrt(m) / share)) / m)
            terms = {"Gibbs error on the other half": seen, "its draws": at_most - seen, "complexity": value - at_most}
            details = {"KL": kl, "deviation": gibbs.deviation, "strength": strength, "m": m}
            found.append((value, terms, details, gibbs))
    _, terms, details, gibbs = min(found, key=lambda one: one[0])
    return Bound(
        terms=terms,
        delta=delta,
        assumptions=(
            "The images were drawn independently from the distribution on which the error is meant.",
            "The backbone, and the grid of strengths and deviations, were fixed without these images.",
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
    if budget == 0:
        return q
    low, high = q, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binary_kl(q, middle) <= budget else (low, middle)
    return high


@dataclass(frozen=True, eq=False)
class Basis:
    """Coordinates in which the weights of the probe are about equally uncertain.

    Attributes:
        scale: Scales raw features.
        rotation: (d, d) principal directions of the first half.
        lengths: (d,) √(eigenvalue + λ) of each.
    """

    scale: Scaler
    rotation: Tensor
    lengths: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(n, d) raw features to (n, d + 1) float64, the last of them 1 for the intercept."""
        x = self.scale(features.float()).double() @ self.rotation / self.lengths
        return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)

    def weights(self, found: LinearMap) -> Tensor:
        """(d + 1, k) in these coordinates, of a map of standardised features."""
        turned = self.lengths[:, None] * (self.rotation.T @ found.weights.double())
        return torch.cat([turned, found.intercept.double()[None]])


def _principal(x: Tensor) -> tuple[Tensor, Tensor]:
    """(d,) eigenvalues of the covariance of centred rows, and (d, d) its eigenvectors."""
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    return values.clamp_min(0), vectors
