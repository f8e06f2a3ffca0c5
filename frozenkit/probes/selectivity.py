"""Selectivity: how much better a probe does on the real labels than on the same labels shuffled."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from frozenkit._outputs import Shown
from frozenkit.errors import FrozenkitWarning, InputError
from frozenkit.features import Features, FeatureSet, load_set
from frozenkit.probes.probe import fit_probe
from frozenkit.probes.scores import Score


@dataclass(frozen=True, eq=False)
class Selectivity(Shown):
    """A probe on the real labels beside probes on shuffled ones.

    Attributes:
        score: `Score` on test of the probe that was fitted on the real labels.
        controls: `Score` on the same test images of each probe that was fitted on shuffled labels, worst first.
        memorised: Mean accuracy of those probes on the shuffled labels that they were fitted on. Near 1 where there are
            more features than images: the probe could learn anything, and its train accuracy says nothing.
    """

    score: Score
    controls: tuple[Score, ...]
    memorised: float

    @property
    def control(self) -> Score:
        """The median control.

        Test images of one class lie together and so are right or wrong together: a single permutation strays from
        chance by far more than the interval of its score, which counts images as independent, would allow.
        """
        return self.controls[len(self.controls) // 2]

    @property
    def value(self) -> float:
        """Accuracy less that of the median control."""
        return self.score.accuracy - self.control.accuracy

    @property
    def rank_p_value(self) -> float:
        """Share of permutations, this labelling counted among them, that score as well; 1/(1 + controls) at least."""
        as_good = sum(c.accuracy >= self.score.accuracy for c in self.controls)
        return (1 + as_good) / (1 + len(self.controls))

    @property
    def p_value(self) -> float:
        """One-sided, of real labels that say nothing: how far the accuracy lies above the controls', by Student's t.

        Labels that say nothing are one shuffle more. Accuracies of shuffles are about normal, so a further one differs
        from the mean of P of them by s·√(1 + 1/P) times a t variable with P − 1 degrees of freedom, s being their
        standard deviation; it counts as no less than the standard error of one accuracy. With a single control,
        `rank_p_value`.
        """
        from scipy.stats import t as student

        p = len(self.controls)
        if p < 2:
            return self.rank_p_value
        found = np.array([c.accuracy for c in self.controls])
        mean, n = float(found.mean()), self.score.n
        spread = max(float(found.std(ddof=1)), math.sqrt(max(mean * (1 - mean), 1 / n) / n))
        return float(student.sf((self.score.accuracy - mean) / (spread * math.sqrt(1 + 1 / p)), p - 1))

    def __repr__(self) -> str:
        return (
            f"Selectivity {self.value:.3f}: accuracy {self.score.accuracy:.3f}, with shuffled labels "
            f"{self.control.accuracy:.3f} (median of {len(self.controls)}, which fit those to {self.memorised:.3f}), "
            f"p = {self.p_value:.2g}"
        )


def selectivity(
    train: Features,
    test: Features,
    *,
    permutations: int = 11,
    head: str | nn.Module = "ridge",
    val: Features | None = None,
    strengths: Sequence[float] | None = None,
    scale: str | None = None,
    sample_weight: Tensor | str | None = None,
    seed: int = 0,
) -> Selectivity:
    """Fit a probe on the real labels, and the same probe on shuffled ones.

    Args:
        train: Features to fit on; a set on disk is loaded.
        test: Features to report on.
        permutations: How many shuffles; odd, so that there is a median. The more, the surer a small p-value.
        head: As in `fit_probe`, and so are `val`, `strengths`, `scale` and `sample_weight`.
        val: Where the probes choose; its labels stay as they are.
        strengths: λ > 0 to choose from.
        scale: How features are scaled.
        sample_weight: How much each image counts.
        seed: Of the first shuffle.

    Returns:
        A `Selectivity`.

    Raises:
        InputError: If `permutations` is no odd number of 1 or more.

    Example:
        >>> x, y = torch.randn(60, 3), torch.arange(60) % 2
        >>> train, test = (FeatureSet.from_arrays(z + 5 * y[:, None], y) for z in (x, torch.randn(60, 3)))
        >>> selectivity(train, test).score.accuracy > 0.9
        True

    References:
        J. Hewitt, P. Liang (2019), Designing and interpreting probes with control tasks, EMNLP.
    """
    if permutations < 1 or permutations % 2 == 0:
        raise InputError(f"`permutations` must be an odd number of 1 or more, got {permutations}.")
    fit_on = load_set(train, "train")
    test = load_set(test, "test", like=fit_on)
    fit = partial(fit_probe, head=head, val=val, strengths=strengths, scale=scale, sample_weight=sample_weight)
    real = fit(fit_on).score(test)
    found, memorised = [], []
    for i in range(permutations):
        mixed = shuffled(fit_on, seed=seed + i)
        # On noise the best strength is an accident, and so is its place in the grid.
        with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
            probe = fit(mixed)
            found.append(probe.score(test))
        memorised.append(float((probe.predict(mixed) == mixed.labels).float().mean()))
    return Selectivity(real, tuple(sorted(found, key=lambda s: s.accuracy)), sum(memorised) / permutations)


def shuffled(train: FeatureSet, *, seed: int = 0) -> FeatureSet:
    """The same features with the labels permuted among them, so that nothing is left to learn."""
    generator = torch.Generator().manual_seed(seed)
    return train.relabel(train.labels[torch.randperm(len(train), generator=generator)], train.classes)
