"""Fewer features: what is left of a probe's accuracy when its features are reduced."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from frozenkit.errors import InputError
from frozenkit.features import FeatureSet, load_set, reduce
from frozenkit.probes import fit_probe
from frozenkit.scores import Score
from frozenkit.studies import whole_numbers


class Width(NamedTuple):
    """One reduction: how, to how many features, and the score on test."""

    how: str
    n_features: int
    score: Score


@dataclass(frozen=True, eq=False)
class WidthCurve:
    """Test accuracy against the number of features kept.

    Attributes:
        points: A `Width` for each way and number.
        full: Score with all features.
        n_features: How many those are.
    """

    points: tuple[Width, ...]
    full: Score
    n_features: int

    def to_frame(self) -> Any:
        """A pandas table, one row a way and width: accuracy, interval, and the share of numbers kept."""
        import pandas as pd

        rows = [
            {
                "how": p.how,
                "features": p.n_features,
                "share": p.n_features / self.n_features,
                "accuracy": p.score.accuracy,
                "low": p.score.low,
                "high": p.score.high,
            }
            for p in self.points
        ]
        return pd.DataFrame(rows).set_index(["how", "features"])

    def __repr__(self) -> str:
        table = self.to_frame().to_string(float_format="{:.3f}".format)
        return f"WidthCurve: {self.full!r} with all {self.n_features} features\n{table}"

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(float_format="{:.3f}".format, border=0)


def width_curve(
    train: FeatureSet,
    test: FeatureSet,
    *,
    widths: Sequence[int],
    how: Sequence[str] = ("pca", "random"),
    head: str = "ridge",
    seed: int = 0,
) -> WidthCurve:
    """Reduces features to each width, fitted on train alone, and probes them.

    Args:
        train: (n, d) features with classes. A set on disk is loaded, here and as test.
        test: Other images; only reported on.
        widths: Numbers of features to keep, 1 to d.
        how: Ways of `reduce`: ``"pca"``, ``"random"``.
        head: As in `fit_probe`.
        seed: Of the random projection and of `fit_probe`.

    Raises:
        InputError: If `widths` is empty or holds no whole numbers; as `reduce` and `fit_probe` do.

    References:
        S. Dasgupta, A. Gupta (2003), An elementary proof of a theorem of Johnson and Lindenstrauss.
    """
    widths = whole_numbers("widths", widths)
    train, test = load_set(train, "train"), load_set(test, "test")
    if not train.classes:
        raise InputError("`train` must have classes: the curve shows accuracies. It has numbers, a regression.")
    points = []
    for way in [how] if isinstance(how, str) else how:
        for width in sorted(set(widths)):
            small, held = reduce(train, test, n_features=width, how=way, seed=seed)
            points.append(Width(way, width, fit_probe(small, head=head, seed=seed).score(held)))
    return WidthCurve(tuple(points), fit_probe(train, head=head, seed=seed).score(test), train.n_features)
