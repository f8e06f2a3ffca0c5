"""Many probes side by side: which layer, which backbone, how many labels.

Every study chooses by what `fit_probe` chose on (leave-one-out, cross-validation or val). Test scores stand beside the
choice for the reader; no code here decides by them.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from frozenkit._arrays import described, whole_number
from frozenkit._outputs import frame_html, table, text_html
from frozenkit.errors import FrozenkitError, FrozenkitWarning, InputError, require
from frozenkit.features import Features, as_features, is_multilabel, is_pair, load_set, reduce, same_labels
from frozenkit.probes.intervals import holm, wilson_interval
from frozenkit.probes.multilabel import compare_multilabel
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.probes.scores import Gap, Score, compare
from frozenkit.splits import few_shot

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class LayerReport:
    """One probe a layer (or a backbone), and the one chosen.

    Attributes:
        probes: Name to `Probe`, in the order given.
        chosen: The name with the best choice score; of equals, the first.
        scores: Name to `Score` on test, or `MultiLabelScore`; empty without test.
        tests: Name to `PairedTest` (or `PrecisionGap`) of the chosen against that one, on test; empty without test.
        p_values: Name to the p-value of that test, corrected for their number by Holm's method.
        kind: ``"layer"`` or ``"backbone"``.
    """

    probes: dict[str, Probe]
    chosen: str
    scores: dict[str, Any]
    tests: dict[str, Gap]
    p_values: dict[str, float]
    kind: str = "layer"

    @property
    def probe(self) -> Probe:
        """The chosen probe."""
        return self.probes[self.chosen]

    @property
    def score(self) -> Any:
        """The chosen probe's score on test; None without test."""
        return self.scores.get(self.chosen)

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a layer: width, strength, choice score; with test also score, interval, p-value."""
        return require("pandas", "course").DataFrame(self._rows()).set_index(self.kind)

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for name, probe in self.probes.items():
            row: dict[str, Any] = {
                self.kind: name,
                "features": probe.n_features,
                "strength": probe.strength,
                probe.chosen_on: probe.choice_score,
                "chosen": "←" if name == self.chosen else "",
            }
            if name in self.scores:
                found = self.scores[name]
                row |= {"test": found.value, "low": found.low, "high": found.high}
                row["p against chosen"] = self.p_values.get(name, float("nan"))
            rows.append(row)
        return rows

    def __repr__(self) -> str:
        end = f"; on test {self.score!r}" if self.score else ""
        how = f"{self.probe.chosen_on} {self.probe.choice_score:.3f}"
        return (
            f"{self.kind.capitalize()}Report: {self.chosen!r} of {len(self.probes)}, {how}{end}\n"
            f"{table(self._rows(), formats={'strength': '.3g'})}"
        )

    def _repr_html_(self) -> str:
        return frame_html(self.to_frame, float_format="{:.3g}".format) or text_html(self)


def layer_report(
    train: Mapping[str, Features],
    test: Mapping[str, Features] | None = None,
    *,
    head: str | nn.Module = "ridge",
    val: Mapping[str, Features] | None = None,
    strengths: Sequence[float] | None = None,
    scale: str | None = None,
    sample_weight: Tensor | str | None = None,
    seed: int = 0,
) -> LayerReport:
    """Fit a probe to each layer, choose a layer without test, and report all of them on test.

    Args:
        train: Layer to train features, all of the same images in the same order: what `extract_layers`
            returns. Sets may stay on disk: see `fit_probe`.
        test: The same layers of the test images. Only reported on.
        head: As in `fit_probe`, and so are `strengths`, `scale`, `sample_weight` and `seed`.
        val: The same layers of images to choose on.
        strengths: λ > 0 to choose from.
        scale: How features are scaled.
        sample_weight: How much each image counts.
        seed: Of folds and of training.

    Returns:
        A `LayerReport`.

    Raises:
        InputError: If layers, images or labels differ within a mapping, or a value is no set of features.
        FrozenkitError: What `fit_probe` raises, with a note on which layer it was.

    Example:
        >>> x, y = torch.randn(40, 3), torch.arange(40) % 2
        >>> report = layer_report({"noise": (x, y), "signal": (x + 5 * y[:, None], y)})
        >>> report.chosen
        'signal'
    """
    fit = partial(fit_probe, head=head, strengths=strengths, scale=scale, sample_weight=sample_weight, seed=seed)
    return _report(train, test, val, "layer", fit)


def backbone_report(
    train: Mapping[str, Features],
    test: Mapping[str, Features] | None = None,
    *,
    head: str | nn.Module = "ridge",
    val: Mapping[str, Features] | None = None,
    strengths: Sequence[float] | None = None,
    scale: str | None = None,
    sample_weight: Tensor | str | None = None,
    seed: int = 0,
) -> LayerReport:
    """Which backbone represents this data better: `layer_report` with one entry a backbone.

    The features of each backbone come from a layer that was chosen without test, such as ``layer_report(…).chosen``
    of each. Frozen rank is not fine-tuned rank: the best backbone here need not be the best one to fine-tune.

    Args:
        train: Backbone name to train features, all of the same images in the same order.
        test: The same for the test images. Only reported on.
        head: As for `layer_report`, and so are the others.
        val: The same for images to choose on.
        strengths: λ > 0 to choose from.
        scale: How features are scaled.
        sample_weight: How much each image counts.
        seed: Of folds and of training.

    Returns:
        A `LayerReport` with ``kind="backbone"``.
    """
    fit = partial(fit_probe, head=head, strengths=strengths, scale=scale, sample_weight=sample_weight, seed=seed)
    return _report(train, test, val, "backbone", fit)


def _report(
    train: Mapping[str, Features],
    test: Mapping[str, Features] | None,
    val: Mapping[str, Features] | None,
    kind: str,
    fit: Callable[..., Probe],
) -> LayerReport:
    train = _as_sets("train", train, train, kind)
    test, val = (None if s is None else _as_sets(name, s, train, kind) for name, s in (("test", test), ("val", val)))
    probes = {}
    for name, features in train.items():
        with warnings.catch_warnings(record=True, action="always", category=FrozenkitWarning) as caught:
            try:
                probes[name] = fit(features, val=None if val is None else val[name])
            except FrozenkitError as error:
                error.add_note(f"(That was {kind} {name!r}.)")
                raise
        for warning in caught:
            warnings.warn(f"{kind} {name!r}: {warning.message}", warning.category, stacklevel=3)
    chosen = max(probes, key=lambda name: probes[name].choice_score)
    scores: dict[str, Any] = {}
    tests: dict[str, Gap] = {}
    p_values: dict[str, float] = {}
    if test is not None:
        scores = {name: probe.score(test[name]) for name, probe in probes.items()}
        several = is_multilabel(test[chosen])
        outputs = {name: (p.logits if several else p.predict)(test[name]) for name, p in probes.items()}
        labels, judge = test[chosen].labels.cpu(), compare_multilabel if several else compare
        tests = {name: judge(outputs[chosen], found, labels) for name, found in outputs.items() if name != chosen}
        p_values = dict(zip(tests, holm([t.p_value for t in tests.values()])))
    return LayerReport(probes, chosen, scores, tests, p_values, kind)


def _as_sets(what: str, sets: Any, train: Mapping[str, Features], kind: str) -> dict[str, Features]:
    """Name to `Features` of the same images and labels; an (X, y) pair of arrays numbers its images."""
    if not isinstance(sets, Mapping) or not sets:
        raise InputError(f"`{what}` must map at least one {kind} to its features, got {described(sets)}.")
    missing = [name for name in train if name not in sets]
    if missing:
        raise InputError(f"`{what}` must hold every {kind} of train; {missing[0]!r} is missing.")
    sets = {
        name: as_features(
            features,
            f"{what}[{name!r}]",
            multilabel=True,
            layer=name,
            classes=train[name].classes or None if isinstance(train.get(name), Features) else None,
            ids=[f"{what}/{i}" for i in range(len(features[0]))] if is_pair(features) else None,
        )
        for name, features in sets.items()
    }
    first = next(iter(sets.values()))
    for name, features in sets.items():
        if features.ids != first.ids:
            raise InputError(f"`{what}` must hold the same images in the same order throughout; {name!r} differs.")
        if not same_labels(features, first):
            raise InputError(f"`{what}` must carry the same labels throughout; those of {name!r} differ.")
    return sets


@dataclass(frozen=True)
class Run:
    """One draw of a learning curve.

    Attributes:
        head: Name of the head.
        shots: Labels per class asked for.
        n: Training images drawn.
        repeat: Number of the draw.
        score: `Score` on test.
        strength: λ that was chosen.
    """

    head: str
    shots: int
    n: int
    repeat: int
    score: Score
    strength: float | None


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Test accuracy against the number of labels, over distinct draws of them.

    Attributes:
        runs: One `Run` for each head, size and draw.
    """

    runs: tuple[Run, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads, in the order given."""
        return tuple(dict.fromkeys(run.head for run in self.runs))

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a head and size.

        ``mean``, ``lowest`` and ``highest`` are over draws of training images: the spread says how much the draw
        matters. ``low`` and ``high`` are the Wilson interval of the mean accuracy on n test images: they say how well
        the test set measures.
        """
        return require("pandas", "course").DataFrame(self._rows()).set_index(["head", "shots"])

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for head in self.heads:
            for shots in dict.fromkeys(r.shots for r in self.runs if r.head == head):
                runs = [r for r in self.runs if r.head == head and r.shots == shots]
                found = np.array([r.score.accuracy for r in runs])
                low, high = wilson_interval(found.mean() * runs[0].score.n, runs[0].score.n)
                rows.append(
                    {
                        "head": head,
                        "shots": shots,
                        "n": runs[0].n,
                        "draws": len(runs),
                        "mean": found.mean(),
                        "lowest": found.min(),
                        "highest": found.max(),
                        "low": float(low),
                        "high": float(high),
                    }
                )
        return rows

    def __repr__(self) -> str:
        return f"LearningCurve\n{table(self._rows())}"

    def _repr_html_(self) -> str:
        return frame_html(self.to_frame, float_format="{:.3f}".format) or text_html(self)


def learning_curve(
    train: Features,
    test: Features,
    *,
    sizes: Sequence[int],
    repeats: int = 5,
    heads: Sequence[str | nn.Module] = ("ridge",),
    val: Features | None = None,
    strengths: Sequence[float] | None = None,
    scale: str | None = None,
    sample_weight: str | None = None,
    seed: int = 0,
) -> LearningCurve:
    """Test accuracy of each head with ever more labels per class.

    Args:
        train: Where labels are drawn from; with classes. Loaded into memory, here and as test.
        test: What every probe is reported on.
        sizes: Labels per class; a class with fewer gives all it has.
        repeats: Draws a size. Draws are distinct sets of images; where fewer exist, fewer are made.
        heads: Heads as in `fit_probe`; each sees the same draws.
        val: Where every probe chooses, as in `fit_probe`; by default on its own images.
        strengths: As in `fit_probe`, and so are `scale` and `sample_weight`; every head must take what is given.
        scale: How features are scaled.
        sample_weight: ``"balanced"``, or None.
        seed: Of the first draw.

    Returns:
        A `LearningCurve`.

    Raises:
        InputError: If train is no set of features or a regression; if `sizes` or `heads` is empty, or a size or
            `repeats` is no whole number of at least 1; as `fit_probe` does.

    Note:
        The best strength of a handful of images is often at an edge of the grid, by chance; no warning is shown here.
    """
    train = load_set(train, "train")
    test = load_set(test, "test", like=train)
    if not train.classes:
        raise InputError("`train` must have classes, since labels are drawn per class; it has numbers, a regression.")
    sizes = whole_numbers("sizes", sizes)
    repeats, heads, seed = whole_number("repeats", repeats), head_list(heads), whole_number("seed", seed, least=0)
    fit = partial(fit_probe, val=val, strengths=strengths, scale=scale, sample_weight=sample_weight)
    runs = []
    for shots in sorted(set(sizes)):
        for repeat, rows in enumerate(_draws(train, shots, repeats, seed)):
            few = train.subset(rows)
            for head in heads:
                with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
                    probe = fit(few, head=head, seed=seed + repeat)
                runs.append(Run(probe.kind, shots, len(few), repeat, probe.score(test), probe.strength))
    return LearningCurve(tuple(runs))


def head_list(heads: Any) -> list[str | nn.Module]:
    """Heads to try one after another; a single one may come without a list."""
    one = isinstance(heads, str | nn.Module | type) or not isinstance(heads, Iterable)
    found = [heads] if one else list(heads)
    if not found:
        raise InputError("`heads` must hold at least one head, such as 'ridge', got none.")
    return found


def whole_numbers(name: str, values: Any) -> list[int]:
    """At least one whole number of at least 1."""
    if not isinstance(values, Iterable) or isinstance(values, str):
        values = [values]
    found = [whole_number(f"{name}[{i}]", value) for i, value in enumerate(values)]
    if not found:
        raise InputError(f"`{name}` must hold at least one whole number, got none.")
    return found


def _draws(train: Features, shots: int, repeats: int, seed: int) -> list[Tensor]:
    """Up to `repeats` distinct sets of rows, `shots` of each class where it has so many."""
    counts = torch.bincount(train.labels, minlength=train.n_classes)
    ample = counts[train.labels] > shots
    scarce = (~ample).nonzero().squeeze(1)
    if not ample.any():
        return [scarce]
    rows = ample.nonzero().squeeze(1)
    found: dict[tuple[int, ...], Tensor] = {}
    for attempt in range(10 * repeats):  # draws of one image from two may coincide
        drawn = torch.cat([scarce, rows[few_shot(train.labels[rows], shots=shots, seed=seed + attempt)]]).sort().values
        found.setdefault(tuple(drawn.tolist()), drawn)
        if len(found) == repeats:
            break
    return list(found.values())


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

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a way and width: accuracy, interval, and the share of numbers kept."""
        return require("pandas", "course").DataFrame(self._rows()).set_index(["how", "features"])

    def _rows(self) -> list[dict[str, Any]]:
        return [
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

    def __repr__(self) -> str:
        return f"WidthCurve: {self.full!r} with all {self.n_features} features\n{table(self._rows())}"

    def _repr_html_(self) -> str:
        return frame_html(self.to_frame, float_format="{:.3f}".format) or text_html(self)


def width_curve(
    train: Features,
    test: Features,
    *,
    widths: Sequence[int],
    how: Sequence[str] = ("pca", "random"),
    head: str = "ridge",
    seed: int = 0,
) -> WidthCurve:
    """Reduces features to each width, fitted on train alone, and probes them.

    Args:
        train: (n, d) features with classes. Loaded into memory, here and as test.
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
    train = load_set(train, "train")
    test = load_set(test, "test", like=train)
    if not train.classes:
        raise InputError("`train` must have classes: the curve shows accuracies. It has numbers, a regression.")
    points = []
    for way in [how] if isinstance(how, str) else how:
        for width in sorted(set(widths)):
            small, held = reduce(train, test, n_features=width, how=way, seed=seed)
            points.append(Width(way, width, fit_probe(small, head=head, seed=seed).score(held)))
    return WidthCurve(tuple(points), fit_probe(train, head=head, seed=seed).score(test), train.n_features)
