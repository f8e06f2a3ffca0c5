"""Bounds on the error of a probe: every term as a number, what it assumes, whether it certifies, whether it is vacuous.

A *certificate* holds with probability at least 1 − δ over the draw of the images, whatever their distribution. An
*estimate* puts measured numbers into the terms of a theorem that holds for others (a supremum, an infimum): it teaches
which term is large, and promises nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from frozenkit._arrays import as_tensor, is_array, real_number
from frozenkit._outputs import frame_html
from frozenkit.errors import DataError, InputError, require
from frozenkit.features import Features, FeatureSet, feature_rows, is_pair, load_set
from frozenkit.heads.ridge import LinearMap
from frozenkit.probes.probe import fit_probe
from frozenkit.probes.scores import Score, class_indices
from frozenkit.theory.divergence import proxy_a_distance
from frozenkit.theory.geometry import effective_rank

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Bound:
    """A bound on an error in [0, 1], with its terms.

    Attributes:
        terms: Name to number, in the order of the formula.
        delta: Probability with which a certificate may fail; None for an estimate.
        assumptions: What must hold, a sentence each.
        is_certificate: Whether it holds with probability 1 − `delta` under the assumptions.
        name: Of the bound.
        intervals: Name of a term, or ``"sum"``, to the 95 % interval of its estimate, where it is one.
        details: Numbers that the terms are made of.
        measured: The error that is bounded, as measured, where the inputs allow to measure it.
        posterior: Of `pac_bayes_bound`: the `GibbsClassifier` whose error is bounded.
    """

    terms: dict[str, float]
    delta: float | None
    assumptions: tuple[str, ...]
    is_certificate: bool
    name: str = "bound"
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    details: dict[str, float] = field(default_factory=dict)
    measured: float | None = None
    posterior: Any = field(default=None, repr=False)

    @property
    def value(self) -> float:
        """What the error is bounded by: the sum of the terms."""
        return math.fsum(self.terms.values())

    @property
    def is_vacuous(self) -> bool:
        """Whether it says no more than that an error is at most 1, but for rounding."""
        return not self.value < 1 - 1e-12

    def slack(self, measured: float | Score | None = None) -> float:
        """The bound less the error that it bounds: how loose it was. Negative, an estimate has failed.

        Raises:
            InputError: If no error is given and none was measured, or it lies outside [0, 1].
        """
        error = measured.error if isinstance(measured, Score) else self.measured if measured is None else measured
        if error is None or not 0 <= real_number("measured", error) <= 1:
            raise InputError(f"`measured` must be an error in [0, 1], or a Score, got {error!r}.")
        return self.value - error

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a term, the sum, and the measured error where there is one."""
        pd = require("pandas", "course")

        rows: list[tuple[str, float]] = [*self.terms.items(), ("sum", self.value)]
        if self.measured is not None:
            rows.append(("measured error", self.measured))
        none = (math.nan, math.nan)
        table = [(name, number, *self.intervals.get(name, none)) for name, number in rows]
        return pd.DataFrame(table, columns=["term", "value", "low", "high"]).set_index("term")

    def __repr__(self) -> str:
        kind = f"certificate, δ = {self.delta:g}" if self.is_certificate else "estimate, no certificate"
        terms = " + ".join(f"{name} {number:.3f}" for name, number in self.terms.items())
        seen = "" if self.measured is None else f"; measured {self.measured:.3f}"
        vacuous = "; vacuous: an error is never above 1" if self.is_vacuous else ""
        return f"{self.name}: error ≤ {self.value:.3f} = {terms}{seen} ({kind}{vacuous})"

    def _repr_html_(self) -> str:
        def known() -> "pd.DataFrame":
            return self.to_frame().dropna(axis=1, how="all")

        table = frame_html(known, float_format="{:.3f}".format, na_rep="")
        assumed = "".join(f"<li>{escape(text)}</li>" for text in self.assumptions)
        return f"<p>{escape(repr(self))}</p>{table}<p>It assumes:</p><ul>{assumed}</ul>"


def domain_bound(
    source_train: Features,
    source_test: Features,
    target_train: Features,
    target_test: Features,
    *,
    head: str = "ridge",
    seed: int = 0,
) -> Bound:
    """What a probe fitted on the source may do on the target: source error + ½ divergence + λ, each measured.

    The inequality, between the two distributions: for every h of a class H of classifiers, error on the target ≤ error
    on the source + ½·d_HΔH + λ, with λ = min over h in H of (source error + target error). HΔH holds the sets on which
    two members of H disagree, and d_HΔH is twice the largest difference between the probabilities that source and
    target give to one of them. Theorem 2 of the reference states it for two classes with d_HΔH as found in samples of
    m' images, for which it adds 4·√((2d·log 2m' + log(2/δ))/m'); what is written here is its population version. For
    k classes it follows by the same triangle inequality: target error of h ≤ that of h* + how often h and h* disagree
    on the target ≤ … + how often on the source + ½·d_HΔH ≤ … + source errors of h and h*.

    Three plug-ins stand for its terms:

    * *source error*: of the probe on `source_test`.
    * *half the divergence*: half the proxy A-distance. A regularised linear domain classifier can only under-estimate
      the supremum over HΔH.
    * *λ*: the summed error, on both test sets, of one probe fitted on both train sets. It can only over-estimate the
      minimum, and does so by less the more images there are.

    One term too small and one too large: the sum is an estimate of the bound and may lie below the target error. It is
    shown because of what its terms teach: low source error is not enough; the divergence is that of the features; and
    where λ is large no single head serves both domains.

    Args:
        source_train: (n, d) labelled source features; the probe is fitted on them. All four are loaded into memory.
        source_test: Other source images.
        target_train: Target images; their labels are used for λ alone.
        target_test: Other target images; the error of the probe on them is `Bound.measured`.
        head: As in `fit_probe`.
        seed: Of the folds of the domain classifier.

    Returns:
        A `Bound`, no certificate, with intervals for the terms and for their sum.

    Raises:
        InputError: If the four do not share classes, layer and width: the theorem needs one label space and one
            feature space.

    References:
        S. Ben-David, J. Blitzer, K. Crammer, A. Kulesza, F. Pereira, J. W. Vaughan (2010), A theory of learning from
        different domains, Machine Learning 79, theorem 2 (without its sampling term) and its proof.
    """
    given = {
        "source_train": source_train,
        "source_test": source_test,
        "target_train": target_train,
        "target_test": target_test,
    }
    first = load_set(source_train, "source_train")
    sets = {name: load_set(data, name, like=first) for name, data in given.items()}
    _check_one_task(sets)
    source_train, source_test, target_train, target_test = sets.values()
    probe = fit_probe(source_train, head=head, seed=seed)
    on_source, on_target = probe.score(source_test), probe.score(target_test)
    joint = fit_probe(_together(sets["source_train"], sets["target_train"]), head=head, seed=seed)
    both = [joint.score(source_test), joint.score(target_test)]
    distance = proxy_a_distance(source_train, target_train, seed=seed)
    parts = {
        "source error": [_error(on_source)],
        "half the divergence": [(distance.value / 2, distance.low / 2, distance.high / 2)],
        "λ": [_error(s) for s in both],
    }
    combined = {name: _sum_of(values) for name, values in parts.items()}
    total = _sum_of([value for values in parts.values() for value in values])
    return Bound(
        terms={name: values[0] for name, values in combined.items()},
        delta=None,
        assumptions=(
            "Source and target share their classes, and the backbone was trained on neither of these images.",
            "The divergence is that which a regularised linear classifier finds: at most the theorem's.",
            "λ is the error of one fitted joint probe, out of sample: at least the theorem's.",
        ),
        is_certificate=False,
        name="domain bound",
        intervals={**{name: values[1:] for name, values in combined.items()}, "sum": total[1:]},
        details={"λ, on the source": both[0].error, "λ, on the target": both[1].error, "A-distance": distance.value},
        measured=on_target.error,
    )


def linear_probe_bound(weights: Any, features: Any) -> Bound:
    """The published expression ‖w‖²·Var(φ(X))/m + √(d/m), for these weights and features, in standardised units.

    It says in which proportion more images, narrower features and a solution of small norm help, *all else equal*. Its
    constants are unknown, so its value is no bound on any error: read how it moves, not how large it is. Between probes
    of different strengths, or of other features, several things move at once, and its terms need not fall with m.

    A raw weight has the unit 1/feature, so that ‖w‖² and Var each depend on the units. Here every feature is divided by
    its standard deviation in these images and its weights multiplied by it, which leaves all predictions as they are:
    ‖w‖² becomes Σ_j ‖w_j‖²·var_j, and Var the number of features that vary. The value then does not depend on the units
    of any feature, and a constant one adds nothing to the first term.

    `details` has the second term once more with the effective rank in the place of d. That is the rank of this sample
    of m images in their own units, so it does depend on them; it is at most m − 1, and grows with m until m is many
    times d.

    Args:
        weights: (d, k), or what ``RidgePath.at`` gives; for features in their raw units.
        features: (m, d) that the weights were fitted on; rows of length 1 are made of them where the map does so too.

    Raises:
        InputError: If the widths differ.
        DataError: If a row is not finite, or there are fewer than two images that differ.
    """
    w, x = _weights_of(weights).double(), _as_mapped(weights, feature_rows(features))
    _check_width(w, x)
    m, d = x.shape
    variances = x.var(0, correction=0)
    # What rounding leaves of a constant feature is no variance.
    variances = torch.where(variances.sqrt() > 1e-7 * x.abs().amax(0), variances, 0.0)
    norm, variance = float(variances @ w.square().sum(1)), int((variances > 0).sum())
    rank = float(effective_rank(x))
    terms = {"‖w‖²·Var/m": norm * variance / m, "√(d/m)": math.sqrt(d / m)}
    return Bound(
        terms=terms,
        delta=None,
        assumptions=(
            "The constants of the published expression, which are not known, are set to 1.",
            "Features are in units of their standard deviation in these images.",
            "The effective rank is that of these images in their own units, at most m − 1.",
        ),
        is_certificate=False,
        name="linear-probe bound",
        details={
            "‖w‖²": norm,
            "Var": variance,
            "m": m,
            "d": d,
            "effective rank of the sample": rank,
            "√(effective rank/m)": math.sqrt(rank / m),
            "sum with the effective rank": terms["‖w‖²·Var/m"] + math.sqrt(rank / m),
        },
    )


def margin_bound(
    weights: Any,
    features: Any,
    labels: Any = None,
    *,
    margins: Sequence[float],
    delta: float = 0.05,
) -> Bound:
    """A certificate from the margins with which a linear probe gets its own training images right.

    For weights scaled to ‖W‖_F = 1, the margin of an image is its own logit less the largest other. With ρ one of M
    margins fixed beforehand, with probability 1 − δ for all W at once:

        error ≤ mean ramp(margin/ρ) + 4·√(k·Σ‖x‖²)/(ρ·m) + 3·√(log(2M/δ)/(2m)),   ramp(t) = min(1, max(0, 1 − t)).

    The margin is √2-Lipschitz in the logits, so the ramp is √2/ρ-Lipschitz; the vector-contraction inequality then
    bounds its empirical Rademacher complexity by √2·√2/ρ times that of the k linear maps, √(k·Σ‖x‖²)/m, and the
    standard bound takes it twice.

    Args:
        weights: (d, k), or what ``RidgePath.at`` gives (its intercept becomes a weight on a feature that is 1).
        features: (m, d) train features, as they are: scaling fitted on these images would break the proof. Length 1,
            which is no matter of other images, they get where the map gives it to them.
        labels: (m,) class indices; not needed for `Features` that carry them.
        margins: ρ > 0 to take the best of, in units of the features; chosen without looking at these images.
        delta: Probability of failure, in (0, 1).

    Returns:
        A `Bound` for the best margin.

    Raises:
        InputError: If shapes do not fit, a margin is not above 0, or `delta` lies outside (0, 1).

    References:
        M. Mohri, A. Rostamizadeh, A. Talwalkar (2018), Foundations of machine learning, theorem 3.3 (equation 3.4).
        A. Maurer (2016), A vector-contraction inequality for Rademacher complexities, ALT, corollary 4.
    """
    check_delta(delta)
    rho = as_tensor(margins, "margins").flatten().tolist()
    if not rho or not all(0 < r < math.inf for r in rho):
        raise InputError(f"`margins` must be numbers above 0, got {rho}. For instance 2.0 ** torch.arange(-8, 4).")
    if labels is None and is_pair(features):
        features, labels = features
    x, w = _as_mapped(weights, feature_rows(features)), _weights_of(weights).double()
    y = features.labels if labels is None and isinstance(features, Features) else labels
    if y is None or not is_array(y) or len(y) != len(x):
        raise InputError(f"`labels` must hold one class index for each of {len(x)} images.")
    _check_width(w, x)
    if isinstance(weights, LinearMap):
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        w = torch.cat([w, weights.intercept.double()[None]])
    (m, _), k = x.shape, w.shape[1]
    if k < 2:
        raise InputError(f"`weights` must be (d, k) with at least two classes, got k = {k}.")
    y = torch.from_numpy(class_indices("labels", y, k))
    logits = x @ (w / w.norm().clamp_min(1e-300))
    own = logits.gather(1, y[:, None]).squeeze(1)
    margin = own - logits.scatter(1, y[:, None], -torch.inf).amax(1)
    size = 4 * math.sqrt(k * float(x.square().sum())) / m
    confidence = 3 * math.sqrt(math.log(2 * len(rho) / delta) / (2 * m))

    def terms_at(r: float) -> dict[str, float]:
        ramp = float((1 - margin / r).clamp(0, 1).mean())
        return {"ramp loss on train": ramp, "complexity": size / r, "confidence": confidence}

    best = min(rho, key=lambda r: sum(terms_at(r).values()))
    terms = terms_at(best)
    return Bound(
        terms=terms,
        delta=delta,
        assumptions=(
            "The images were drawn independently from the distribution on which the error is meant.",
            "The backbone, and the margins to choose from, were fixed without these images.",
        ),
        is_certificate=True,
        name="margin bound",
        details={"margin": best, "margins tried": len(rho), "m": m, "median margin": float(margin.median())},
    )


def holdout_bound(n_errors: int, n: int, *, delta: float = 0.05) -> Bound:
    """A certificate from images that took no part in fitting: the one-sided Clopper–Pearson bound.

    The largest error rate under which so few mistakes among n still have probability δ. Nothing else is assumed, and on
    equal terms little is tighter.

    Args:
        n_errors: Mistakes, 0 to n: a count, not a rate.
        n: Held-out images, at least 1.
        delta: Probability of failure, in (0, 1).

    Raises:
        InputError: If one is no whole number in its range, or `delta` lies outside (0, 1).

    Example:
        >>> holdout_bound(272, 2000)
        hold-out bound: error ≤ 0.149 = error on the held-out images 0.136 + confidence 0.013 (certificate, δ = 0.05)

    References:
        C. J. Clopper, E. S. Pearson (1934), The use of confidence or fiducial limits, Biometrika 26.
    """
    from scipy.stats import beta

    check_delta(delta)
    for name, count in (("n_errors", n_errors), ("n", n)):
        if not math.isfinite(real_number(name, count)) or count != int(count):
            raise InputError(
                f"`{name}` must be a whole number of images, got {count!r}. For a rate, give rate times n."
            )
    n_errors, n = int(n_errors), int(n)
    if n < 1 or not 0 <= n_errors <= n:
        raise InputError(f"`n_errors` must lie in 0..n with n at least 1, got {n_errors} of {n}.")
    value = 1.0 if n_errors == n else float(beta.ppf(1 - delta, n_errors + 1, n - n_errors))
    error = n_errors / n
    return Bound(
        terms={"error on the held-out images": error, "confidence": value - error},
        delta=delta,
        assumptions=(
            "The held-out images were drawn independently from the distribution on which the error is meant.",
            "They took no part in fitting or choosing, and were looked at once.",
        ),
        is_certificate=True,
        name="hold-out bound",
        details={"mistakes": n_errors, "n": n},
    )


def _error(found: Score) -> tuple[float, float, float]:
    """(error, low, high) of a score."""
    return found.error, 1 - found.high, 1 - found.low


def _sum_of(parts: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """A sum of independent estimates with its interval: distances to the ends add in squares (Zou and Donner, 2008)."""
    total = sum(value for value, _, _ in parts)
    down = math.sqrt(sum((value - low) ** 2 for value, low, _ in parts))
    up = math.sqrt(sum((high - value) ** 2 for value, _, high in parts))
    return total, total - down, total + up


def _together(a: FeatureSet, b: FeatureSet) -> FeatureSet:
    """Both sets as one; the ids say which domain an image is from."""
    ids = (*(f"source/{i}" for i in a.ids), *(f"target/{i}" for i in b.ids))
    features, labels = torch.cat([a.features, b.features]), torch.cat([a.labels, b.labels])
    return FeatureSet(features, labels, a.classes, ids, a.layer, "")


def _check_one_task(sets: Mapping[str, FeatureSet]) -> None:
    first_name, first = next(iter(sets.items()))
    for name, data in sets.items():
        if tuple(data.classes) != tuple(first.classes):
            raise InputError(
                f"the theorem needs one label space: `{name}` must have the classes of `{first_name}` in the same "
                f"order, got {len(data.classes)} classes {list(data.classes)[:3]} against {list(first.classes)[:3]}. "
                "Use `relabel` where they mean the same."
            )
        if data.layer != first.layer or data.n_features != first.n_features:
            raise InputError(
                f"the theorem needs one feature space: `{name}` must be of layer {first.layer!r} with "
                f"{first.n_features} features, got {data.layer!r} with {data.n_features}."
            )


def _weights_of(weights: Any) -> Tensor:
    w = weights.weights if isinstance(weights, LinearMap) else as_tensor(weights, "weights")
    if not w.isfinite().all():
        raise DataError("`weights` must be finite, got NaN or infinity.")
    return w


def _as_mapped(weights: Any, x: Tensor) -> Tensor:
    """The rows that the weights are multiplied with: of length 1, if the map brings them there first."""
    return torch.nn.functional.normalize(x, dim=1) if isinstance(weights, LinearMap) and weights.unit else x


def _check_width(w: Tensor, x: Tensor) -> None:
    if not len(x):
        raise InputError("`features` must hold at least one image, got none.")
    if w.ndim != 2 or w.shape[0] != x.shape[1]:
        raise InputError(f"`weights` must be ({x.shape[1]}, k) for these features, got {tuple(w.shape)}.")


def check_delta(delta: float) -> None:
    """δ is a probability strictly between 0 and 1."""
    if not 0 < real_number("delta", delta) < 1:
        raise InputError(f"`delta` must lie between 0 and 1, got {delta!r}. 0.05 is usual.")
