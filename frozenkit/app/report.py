"""`frozenkit probe`: every stage of a backbone probed on some images, beside its controls, as one result."""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frozenkit.comparison.advice import Advice, Reason, advise
from frozenkit.comparison.controls import control_scores, randomized, raw_pixels
from frozenkit.errors import FrozenkitWarning, InputError, UnknownNameError
from frozenkit.extraction.cache import FeatureCache, check_cache
from frozenkit.extraction.extract import extract, extract_layers
from frozenkit.features import FeatureSet
from frozenkit.images.catalog import dataset_names, load_dataset
from frozenkit.images.dataset import FileSource, ImageDataset, check_images
from frozenkit.images.folder import image_folder
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.probes.intervals import newcombe_interval, wilson_interval
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.probes.reports import LayerReport, layer_report
from frozenkit.probes.scores import Score, confidently_wrong, score
from frozenkit.probes.selectivity import shuffled
from frozenkit.splits import duplicates, split

# From 385 test images on, no 95 % interval is wider than ±5 points, whatever the accuracy (Wilson, at one half).
ENOUGH_TEST = 385
FOLDS = (10, 5)  # for folders of fewer than 400 images, which need most of them to learn from, and for larger ones
# Predictions of one cross-validation are not independent: probes share nine tenths of their images, and the probe
# in the end is itself a draw. Simulated with this very procedure (clothes, 60 to 600 images; emoji, 180), a Wilson
# interval of n images covers that probe's accuracy in 85 to 88 of 100 cases, one of n/1.5 in 93 to 95.
SHARED = 1.5


@dataclass(frozen=True, eq=False)
class ProbeReport:
    """What `frozenkit probe` found.

    Attributes:
        train: The images fitted on.
        test: The images held out.
        backbone: Its name.
        image_size: Pixels.
        layers: One probe a layer, the best by leave-one-out chosen: fitted on train, or, cross-validated, on all.
        layer_scores: Layer to `Score`, measured as `score` is.
        score: The answer. On test, at the chosen layer; or cross-validated over train and test together, the choice of
            layer and strength repeated in each fold.
        controls: Name to `Score` at the chosen layer, measured as `score` is.
        leads: Name of a control to (difference, low, high): by how much `score` is ahead of it, with its interval;
            image by image where it is cross-validated.
        probabilities: (m, k) behind `score`: of test, or of train and then test.
        folds: Number of folds; 0 where `score` is on test.
        held_out: Where `score` is cross-validated: what fitting on train and reporting on test would have said.
        copies: Groups of ids whose images are equal pixel by pixel, where they were looked for.
        seconds: Seconds that getting the backbone's features took.
        from_cache: Whether they all came from the cache.
        gpu: Whether the backbone ran on one.
        target_accuracy: What would be good enough, where it was said.
        similarity: Of the images to what the backbone saw, where it was said.
    """

    train: ImageDataset
    test: ImageDataset
    backbone: str
    image_size: int
    layers: LayerReport
    layer_scores: dict[str, Score]
    score: Score
    controls: dict[str, Score]
    leads: dict[str, tuple[float, float, float]]
    probabilities: Tensor
    seconds: float
    from_cache: bool
    folds: int = 0
    held_out: Score | None = None
    copies: tuple[tuple[str, ...], ...] = ()
    gpu: bool = False
    target_accuracy: float | None = None
    similarity: str | None = None

    @property
    def n_train(self) -> int:
        """Number of images that there are to learn from: all, where `score` is cross-validated."""
        return len(self.train) + (len(self.test) if self.folds else 0)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the images behind `score`, in the order of `probabilities`."""
        return (*self.train.ids, *self.test.ids) if self.folds else self.test.ids

    def image(self, row: int) -> tuple[Any, int]:
        """PIL image and label of one of them."""
        if not self.folds:
            return self.test[row]
        return self.train[row] if row < len(self.train) else self.test[row - len(self.train)]

    @property
    def labels(self) -> Tensor:
        """Their labels."""
        return torch.cat([self.train.labels, self.test.labels]) if self.folds else self.test.labels

    def wrong(self) -> list[int]:
        """Those that were predicted wrong, the most confident mistake first."""
        return confidently_wrong(self.probabilities, self.labels).tolist()

    @property
    def method(self) -> str:
        """How `score` was measured, and why so."""
        if not self.folds:
            words = (
                f"Fitted on {len(self.train):,} images, layer and strength chosen on them by leave-one-out, and "
                f"reported on {len(self.test):,} others."
            )
            few = " With so few of them, the draw decides much: see the interval."
            return words + (few if len(self.test) < ENOUGH_TEST // 2 else "")
        share = {10: "tenth", 5: "fifth"}.get(self.folds, f"{self.folds}th part")
        words = (
            f"Cross-validated over all {self.n_train:,} images: each is predicted by a probe that was fitted, and "
            f"its layer and strength chosen, without the {share} that it belongs to. The interval allows for what "
            "these probes share."
        )
        if self.held_out is not None:
            words += (
                f" A test part would hold {len(self.test):,} images, and the draw would decide: one draw says "
                f"{self.held_out.accuracy:.1%} ({self.held_out.low:.1%} to {self.held_out.high:.1%})."
            )
        return words

    @property
    def rival(self) -> str:
        """The control that `score` is least surely ahead of."""
        return min(self.leads, key=lambda name: self.leads[name][1])

    @property
    def verdict(self) -> str:
        """One sentence: do frozen features beat what needs no pretraining, by more than chance explains?"""
        best = max(self.controls, key=lambda name: self.controls[name].accuracy)
        if self.leads[self.rival][1] > 0:
            return (
                f"Frozen features beat every control; the best of them, {best}, reaches "
                f"{self.controls[best].accuracy:.1%} (they lead by {_points(self.leads[best])})."
            )
        if self.controls[best].accuracy >= self.score.accuracy:
            return (
                f"Frozen features do not beat {best} at {self.controls[best].accuracy:.1%}: here they bring nothing "
                "beyond it."
            )
        reached = f"{self.controls[self.rival].accuracy:.1%} (by {_points(self.leads[self.rival])})"
        return (
            f"Frozen features are ahead of every control, but not surely of {self.rival} at {reached}: more images "
            "would tell."
        )

    @property
    def advice(self) -> Advice:
        """Freeze, or fine-tune? From what was measured here; never against the `verdict`."""
        untrained = {name: self.controls[name].accuracy for name in ("raw pixels", "random weights")}
        best = max(untrained, key=lambda name: untrained[name])
        advice = advise(
            n=self.n_train,
            n_classes=len(self.train.classes),
            probe_accuracy=self.score.accuracy,
            interval=(self.score.low, self.score.high),
            chance=self.score.chance,
            best_control=(best, untrained[best]),
            target_accuracy=self.target_accuracy,
            similarity=self.similarity,
            gpu=self.gpu,
        )
        lead = self.leads[self.rival]
        if advice.choice != "freeze" or lead[1] > 0:
            return advice
        if self.target_accuracy is not None and self.score.accuracy >= self.target_accuracy:
            if lead[0] <= 0:  # said already
                return advice
            but = f" But {self.rival} may do as well without pretraining, and would be simpler."
            return replace(advice, next_step=advice.next_step + but)
        doubt = Reason("beats its controls?", f"not surely: {self.rival} by {_points(lead)}", "")
        reasons: list[Reason] = []
        for reason in advice.reasons:
            asked = reason.criterion == "can these data tell?"
            reasons += [reason._replace(finding="no"), doubt] if asked else [reason]
        return replace(
            advice,
            choice="look at the data first",
            reasons=tuple(reasons),
            next_step=f"Frozen features are not surely ahead of {self.rival}: label more images before deciding.",
        )


def _points(lead: tuple[float, float, float]) -> str:
    difference, low, high = (100 * value for value in lead)
    return f"{difference:+.1f} points, {low:+.1f} to {high:+.1f}".replace("-", "\N{MINUS SIGN}")


class Target(NamedTuple):
    """What `load_target` loads.

    Attributes:
        train: Images to learn from.
        test: Images to report on.
        copies: Groups of ids whose images are equal pixel by pixel, in a folder.
        image_size: Pixels that show them well: 96 where they came by name; None, the backbone's own, for a folder.
    """

    train: ImageDataset
    test: ImageDataset
    copies: tuple[tuple[str, ...], ...] = ()
    image_size: int | None = None


def load_images(target: str, *, limit: int | None, seed: int, skip_bad: bool) -> tuple[ImageDataset, ImageDataset]:
    """Train and test images of a data set's name, or of a folder: the first two of `load_target`."""
    return load_target(target, limit=limit, seed=seed, skip_bad=skip_bad)[:2]


def load_target(target: str, *, limit: int | None, seed: int, skip_bad: bool) -> Target:
    """Train and test images of a data set's name, or of a folder (seeded, stratified, 70 % and 30 %).

    A name goes before a folder that is called the same; ``./digits`` is the folder. Images that are equal pixel by
    pixel go into the same part.

    Raises:
        UnknownNameError: If it is neither.
        DataError: If the folder is not usable.
    """
    if target in dataset_names():
        if Path(target).is_dir():
            warnings.warn(
                f"{target} is taken for the data set of that name, not for the folder; that one is ./{target}",
                FrozenkitWarning,
                stacklevel=2,
            )
        train = load_dataset(target, limit=limit, seed=seed)
        return Target(train, load_dataset(target, split="test"), image_size=96)
    if not Path(target).exists():
        hint = "Or give a folder with one folder of images per class; no such folder is here."
        raise UnknownNameError("target", target, dataset_names(), hint=hint)
    images = image_folder(target, skip_bad=skip_bad)
    copies = duplicates(images[i] for i in range(len(images)))
    if copies:
        shown = "; ".join(" = ".join(images.ids[i] for i in rows[:3]) for rows in copies[:3])
        warnings.warn(
            f"{sum(map(len, copies))} images are equal to others, pixel by pixel: {shown}"
            f"{'; …' if len(copies) > 3 else ''}. Equal images stay on one side of every split; leave-one-out sees "
            "them all the same, and flatters",
            FrozenkitWarning,
            stacklevel=2,
        )
    rows = _parts(images.labels, copies, fractions=(0.7, 0.3), seed=seed)
    train, test = (images.subset(part) for part in rows)
    if limit is not None and limit < len(train):
        train = train.subset(split(train.labels, fractions=(limit, len(train) - limit), seed=seed)[0])
    return Target(train, test, tuple(tuple(images.ids[i] for i in group) for group in copies))


def probe_report(
    train: ImageDataset,
    test: ImageDataset,
    backbone: Backbone,
    *,
    layers: Sequence[str] | None = None,
    cache: FeatureCache | None = None,
    seed: int = 0,
    progress: bool | Callable[[int, int], None] | None = None,
    target_accuracy: float | None = None,
    similarity: str | None = None,
    cross_validate: bool | None = None,
    copies: Sequence[Sequence[str]] | None = None,
) -> ProbeReport:
    """Probes each layer with ridge, chooses one by leave-one-out, and reports it beside four controls.

    Reported on test; or, where a folder is so small that its test part would decide by the draw, cross-validated over
    train and test together, in ten or five stratified folds: layer and strength are chosen anew without each of them,
    and the controls that are fitted are measured in the same way. The interval allows for what the folds share.

    Args:
        train: Fitted and chosen on.
        test: Reported on.
        backbone: From `load_backbone`.
        layers: Default `Backbone.stages`.
        cache: As in `extract`.
        seed: Of the controls and folds.
        progress: As in `extract`.
        target_accuracy: For the advice, as in `advise`.
        similarity: For the advice, as in `advise`.
        cross_validate: Default: if train and test are the two parts of one folder, with nothing left out, and test
            holds fewer than 385 images. From there on no 95 % interval is wider than ±5 points.
        copies: Groups of ids of equal images, which stay in one fold; by default they are looked for.

    Raises:
        InputError: If there are too few images.
    """
    check_backbone(backbone)
    check_cache(cache)
    check_images("train", train)
    check_images("test", test)
    if cross_validate is None:
        cross_validate = len(test) < ENOUGH_TEST and _is_whole_folder(train, test)
    if min(len(train), len(test)) < 2 - cross_validate:
        raise InputError(
            f"there must be at least two images to fit and to report on, got {len(train)}, {len(test)}. Add some."
        )
    wanted = list(layers or backbone.stages)
    before = cache.state() if cache else None
    started = time.perf_counter()
    parts = (train, test)
    sets = [extract_layers(backbone, part, layers=wanted, cache=cache, progress=progress) for part in parts]
    seconds = time.perf_counter() - started
    from_cache = cache is not None and cache.state() == before
    about: dict[str, Any] = {
        "train": train,
        "test": test,
        "backbone": backbone.name,
        "image_size": backbone.image_size,
        "seconds": seconds,
        "from_cache": from_cache,
        "gpu": backbone.device.type == "cuda",
        "target_accuracy": target_accuracy,
        "similarity": similarity,
    }
    if not cross_validate:
        report = layer_report(*sets)
        pair = (sets[0][report.chosen], sets[1][report.chosen])
        controls = control_scores(
            *parts, backbone, layer=report.chosen, seed=seed, cache=cache, progress=progress, features=pair
        )
        return ProbeReport(
            layers=report,
            layer_scores=report.scores,
            score=report.scores[report.chosen],
            controls=controls,
            leads={name: _lead(report.scores[report.chosen], control) for name, control in controls.items()},
            probabilities=report.probe.predict_proba(pair[1]),
            copies=tuple(map(tuple, copies or ())),
            **about,
        )

    every = {name: _together(sets[0][name], sets[1][name]) for name in wanted}
    ids, labels = every[wanted[0]].ids, every[wanted[0]].labels
    if copies is None:
        copies = [[ids[i] for i in rows] for rows in duplicates(part[i] for part in parts for i in range(len(part)))]
    place = {name: row for row, name in enumerate(ids)}
    equal = [[place[name] for name in group if name in place] for group in copies]
    fractions = [1] * FOLDS[len(ids) >= 400]
    folds = [fold for fold in _parts(labels, equal, fractions=fractions, seed=seed) if len(fold)]
    whole, by_layer = cross_validated(every, folds)
    final = layer_report(every)
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):  # of what is said in passing only
        once = layer_report(*sets)
    blind = randomized(backbone, seed=seed)
    random = [extract(blind, part, layer=final.chosen, cache=cache, progress=progress) for part in parts]
    seeds = iter(range(seed, seed + len(folds)))
    blindly = {
        # Of all images: what is commonest without a fold is rare in it, so that five classes of five would score 0.
        "majority": torch.bincount(labels).argmax().expand(len(labels)),
        "shuffled labels": _out_of_fold(
            every[final.chosen], folds, lambda fitted: fit_probe(shuffled(fitted, seed=next(seeds))).predict
        ),
        "raw pixels": _out_of_fold(_together(*raw_pixels(*parts)), folds),
        "random weights": _out_of_fold(_together(*random), folds),
    }
    return ProbeReport(
        layers=final,
        layer_scores={name: cross_validated_score(p.argmax(1), labels, train.classes) for name, p in by_layer.items()},
        score=cross_validated_score(whole.argmax(1), labels, train.classes),
        controls={name: cross_validated_score(p, labels, train.classes) for name, p in blindly.items()},
        leads={name: _paired_lead(whole.argmax(1), p, labels) for name, p in blindly.items()},
        probabilities=whole,
        folds=len(folds),
        held_out=once.scores[once.chosen],
        copies=tuple(map(tuple, copies)),
        **about,
    )


def cross_validated(sets: Mapping[str, FeatureSet], folds: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Each image predicted by probes that never saw it, neither to fit nor to choose.

    Args:
        sets: Layer to features of the same images.
        folds: Rows of each fold; together every row once.

    Returns:
        (n, k) probabilities of the whole procedure, which chooses a layer by leave-one-out outside the fold, and of
        each layer alone.
    """
    any_set = next(iter(sets.values()))
    by_layer = {name: torch.zeros(len(any_set), any_set.n_classes) for name in sets}
    whole = torch.zeros(len(any_set), any_set.n_classes)
    for fold in folds:
        rest = _outside(fold, len(any_set))
        probes = {name: _fitted(part.subset(rest)) for name, part in sets.items()}
        for name, probe in probes.items():
            by_layer[name][fold] = probe.predict_proba(sets[name].subset(fold))
        whole[fold] = by_layer[max(probes, key=lambda name: probes[name].choice_score)][fold]
    return whole, by_layer


def cross_validated_score(predictions: Tensor, labels: Tensor, classes: Sequence[str]) -> Score:
    """The `Score` of predictions from cross-validation, with an interval for the probe that is fitted on all images.

    The interval is Wilson's for n/1.5 images: that for n is too narrow, because the folds share most of what they are
    fitted on. By how much was simulated with this very procedure (see `SHARED`). It is too low where classes have about
    five images: a probe of all of them is better than one that lacks one in five (Gaussian clouds, n = 25, five
    classes: covered in 77 to 83 of 100 cases, with hardly any miss on the other side).

    References:
        S. Bates, T. Hastie, R. Tibshirani (2024), Cross-validation: what does it estimate and how well does it do it?,
        JASA 119.
    """
    found = score(predictions, labels, n_classes=len(classes), classes=classes)
    low, high = wilson_interval(found.n_correct / SHARED, found.n / SHARED)
    return replace(found, low=float(low), high=float(high))


def _paired_lead(predictions: Tensor, other: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Difference in accuracy of two cross-validations on the same folds, with Newcombe's paired interval for n/1.5."""
    right, other_right = predictions == labels, other == labels
    counts = [int((a & b).sum()) / SHARED for a in (right, ~right) for b in (other_right, ~other_right)]
    difference, low, high = newcombe_interval(*counts)
    return float(difference), float(low), float(high)


def _lead(mine: Score, other: Score) -> tuple[float, float, float]:
    """Difference in accuracy with Newcombe's interval for two samples; a paired one would be narrower."""
    difference = mine.accuracy - other.accuracy
    down = math.hypot(mine.accuracy - mine.low, other.high - other.accuracy)
    up = math.hypot(mine.high - mine.accuracy, other.accuracy - other.low)
    return difference, difference - down, difference + up


def _out_of_fold(
    features: FeatureSet,
    folds: Sequence[Tensor],
    fit: Callable[[FeatureSet], Callable[[FeatureSet], Tensor]] | None = None,
) -> Tensor:
    """(n,) predictions, each by a probe that was fitted without the fold."""
    found = torch.zeros(len(features), dtype=torch.int64)
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):  # of a path's edge, in every fold
        for fold in folds:
            rest = features.subset(_outside(fold, len(features)))
            predict = fit(rest) if fit is not None else fit_probe(rest).predict
            found[fold] = predict(features.subset(fold))
    return found


def _fitted(train: FeatureSet) -> Probe:
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        return fit_probe(train)


def _outside(rows: Tensor, n: int) -> Tensor:
    """(n,) whether a row is not among these."""
    mask = torch.ones(n, dtype=torch.bool)
    mask[rows] = False
    return mask


def _together(train: FeatureSet, test: FeatureSet) -> FeatureSet:
    return replace(
        train,
        features=torch.cat([train.features, test.features]),
        labels=torch.cat([train.labels, test.labels]),
        ids=(*train.ids, *test.ids),
        fingerprint="",
    )


def _is_whole_folder(train: ImageDataset, test: ImageDataset) -> bool:
    source = train.source
    return (
        isinstance(source, FileSource)
        and test.source is source
        and len(train) + len(test) == len(set(train.ids) | set(test.ids)) == len(source.paths)
    )


def _parts(
    labels: Tensor, copies: Sequence[Sequence[int]], *, fractions: Sequence[float], seed: int
) -> tuple[Tensor, ...]:
    """`split`, with copies in the same part, unless that would leave all but one part without some class."""
    if any(len(rows) > 1 for rows in copies):
        groups = list(range(len(labels)))
        for rows in copies:
            for row in rows:
                groups[row] = rows[0]
        n_groups, classes = len(set(groups)), len(labels.unique())
        parts = split(labels, fractions=fractions[:n_groups], groups=groups, seed=seed)
        if all(len(labels[_outside(part, len(labels))].unique()) == classes for part in parts):
            return parts
    return split(labels, fractions=fractions, seed=seed)
