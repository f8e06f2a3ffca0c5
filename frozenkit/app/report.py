"""`frozenkit probe`: every stage of a backbone probed on some images, beside its controls, as one result."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frozenkit.app.cross_validation import (
    FOLDS,
    cross_validated,
    cross_validated_score,
    out_of_fold,
    paired_lead,
    stratified_parts,
    together,
    unpaired_lead,
)
from frozenkit.app.inspection import Inspection, draw_beside, draw_inside, inspect_features, leave_one_out_probabilities
from frozenkit.comparison.advice import Advice, Reason, advise
from frozenkit.comparison.controls import control_scores, randomized, raw_pixels
from frozenkit.errors import FrozenkitWarning, InputError
from frozenkit.extraction.cache import FeatureCache, check_cache
from frozenkit.extraction.extract import extract, extract_layers
from frozenkit.images.dataset import FileSource, ImageDataset, check_images
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.probes.probe import fit_probe
from frozenkit.probes.reports import LayerReport, layer_report
from frozenkit.probes.scores import Score, confidently_wrong
from frozenkit.probes.selectivity import shuffled
from frozenkit.splits import duplicates

# From 385 test images on, no 95 % interval is wider than ±5 points, whatever the accuracy (Wilson, at one half).
ENOUGH_TEST = 385


class NearPair(NamedTuple):
    """Two nearly equal images, as rows of train before test: how alike, on two sides of a split or not, and labels."""

    first: int
    second: int
    similarity: float
    across: bool
    same_label: bool


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
        inspection: A closer look at images and labels, by the features of the chosen layer.
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
    inspection: Inspection
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

    def right_and_wrong(self, label: int, *, most: int = 3) -> tuple[list[int], list[int]]:
        """Rows of a class that were predicted right, and wrong: of each the surest, the least sure, and between."""
        sure, predicted = self.probabilities.max(1)
        chosen = []
        for right in (True, False):
            rows = ((self.labels == label) & ((predicted == label) == right)).nonzero().flatten()
            rows = rows[sure[rows].argsort(descending=True, stable=True)]
            spread = torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().long()
            chosen.append(rows[spread].tolist())
        return chosen[0], chosen[1]

    def confused_pairs(self) -> list[tuple[int, int, int]]:
        """(label, predicted, images) of every confusion that occurred, the commonest first."""
        counts = self.score.confusion.clone().fill_diagonal_(0)
        pairs = [(*pair, int(counts[tuple(pair)])) for pair in counts.nonzero().tolist()]
        return sorted(pairs, key=lambda pair: -pair[2])

    def any_image(self, row: int) -> tuple[str, Any, int]:
        """Id, PIL image and label of a row of `inspection`, which counts train before test."""
        part, at = (self.train, row) if row < len(self.train) else (self.test, row - len(self.train))
        return part.ids[at], *part[at]

    def near_pairs(self) -> list[NearPair]:
        """Nearly equal images, other than those of `copies`: those on two sides first, then the most alike."""
        near = self.inspection.near
        if near is None:
            return []
        group = {name: number for number, names in enumerate(self.copies) for name in names}
        ids, labels = (*self.train.ids, *self.test.ids), torch.cat([self.train.labels, self.test.labels]).tolist()
        across, similarity = self.inspection.across.tolist(), near.similarity.tolist()
        pairs = [
            NearPair(a, b, similarity[i], across[i], labels[a] == labels[b])
            for i, (a, b) in enumerate(near.pairs.tolist())
            if ids[a] not in group or group[ids[a]] != group.get(ids[b])
        ]
        return sorted(pairs, key=lambda pair: not pair.across)

    @property
    def findings(self) -> list[str]:
        """What is worth knowing beyond the score, a sentence each; nothing where there is nothing to say."""
        found, classes = [], self.train.classes
        if pairs := self.near_pairs():
            across = sum(pair.across for pair in pairs)
            odd = sum(not pair.same_label for pair in pairs)
            words = f"{_count(len(pairs), 'pair')} of images nearly the same"
            words += f", {across:,} of them on two sides of the split" if across else ""
            words += f", {odd:,} with different labels" if odd else ""
            if without := self.inspection.without:
                words += (
                    f"; without those on two sides {without.accuracy:.1%} ({without.low:.1%} to {without.high:.1%})"
                )
            found.append(f"{words}.")
        if suspects := self.inspection.suspects:
            row, label, other = (int(part[0]) for part in (suspects.rows, suspects.labels, suspects.suggested))
            looks = f"{self.any_image(row)[0]} is labelled {classes[label]}, looks like {classes[other]}"
            found.append(f"{_count(len(suspects), 'label')} to look at again, by confident learning; first: {looks}.")
        if confused := self.confused_pairs():
            label, predicted, count = confused[0]
            times = {1: "once", 2: "twice"}.get(count, f"{count:,} times")
            found.append(f"Most often confused: {classes[label]}, {times} taken for {classes[predicted]}.")
        if outlook := self.inspection.outlook:
            said = [
                f"{forecast.n:,} labels: about {forecast.accuracy:.0%} ({forecast.low:.0%} to {forecast.high:.0%})"
                for forecast in outlook.forecasts
            ]
            found.append(f"What more labels would buy: {'; '.join(said)}.")
        return found

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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _points(lead: tuple[float, float, float]) -> str:
    difference, low, high = (100 * value for value in lead)
    return f"{difference:+.1f} points, {low:+.1f} to {high:+.1f}".replace("-", "\N{MINUS SIGN}")


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
    code: str = "",
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
        code: The Python expression that loads train and test together, for the recipe of a probe of both.

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
        probabilities, chosen = report.probe.predict_proba(pair[1]), report.scores[report.chosen]
        both, n = together(*pair), len(train)
        inspection = inspect_features(
            both,
            sides=torch.arange(len(both)) >= n,
            judged=torch.arange(n, len(both)),
            probabilities=torch.cat([leave_one_out_probabilities(report.probe, pair[0]), probabilities]),
            judge=lambda kept: report.probe.score(pair[1].subset(kept)),
            draw=draw_beside(both.labels, n, seed),
            last=(n, chosen),
        )
        return ProbeReport(
            layers=report,
            layer_scores=report.scores,
            score=chosen,
            controls=controls,
            leads={name: unpaired_lead(chosen, control) for name, control in controls.items()},
            probabilities=probabilities,
            inspection=inspection,
            copies=tuple(map(tuple, copies or ())),
            **about,
        )

    every = {name: together(sets[0][name], sets[1][name], code=code) for name in wanted}
    ids, labels = every[wanted[0]].ids, every[wanted[0]].labels
    if copies is None:
        copies = [[ids[i] for i in rows] for rows in duplicates(part[i] for part in parts for i in range(len(part)))]
    place = {name: row for row, name in enumerate(ids)}
    equal = [[place[name] for name in group if name in place] for group in copies]
    fractions = [1] * FOLDS[len(ids) >= 400]
    folds = [fold for fold in stratified_parts(labels, equal, fractions=fractions, seed=seed) if len(fold)]
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
        "shuffled labels": out_of_fold(
            every[final.chosen], folds, lambda fitted: fit_probe(shuffled(fitted, seed=next(seeds))).predict
        ),
        "raw pixels": out_of_fold(together(*raw_pixels(*parts)), folds),
        "random weights": out_of_fold(together(*random), folds),
    }
    layer_scores = {name: cross_validated_score(p.argmax(1), labels, train.classes) for name, p in by_layer.items()}
    sides = torch.zeros(len(ids), dtype=torch.int64)
    for number, fold in enumerate(folds):
        sides[fold] = number
    inspection = inspect_features(
        every[final.chosen],
        sides=sides,
        judged=torch.arange(len(ids)),
        probabilities=whole,
        judge=lambda kept: cross_validated_score(whole[kept].argmax(1), labels[kept], train.classes),
        draw=draw_inside(labels, equal, seed),
        last=(len(ids) - len(ids) // len(folds), layer_scores[final.chosen]),
    )
    return ProbeReport(
        layers=final,
        layer_scores=layer_scores,
        score=cross_validated_score(whole.argmax(1), labels, train.classes),
        controls={name: cross_validated_score(p, labels, train.classes) for name, p in blindly.items()},
        leads={name: paired_lead(whole.argmax(1), p, labels) for name, p in blindly.items()},
        probabilities=whole,
        inspection=inspection,
        folds=len(folds),
        held_out=once.scores[once.chosen],
        copies=tuple(map(tuple, copies)),
        **about,
    )


def _is_whole_folder(train: ImageDataset, test: ImageDataset) -> bool:
    source = train.source
    return (
        isinstance(source, FileSource)
        and test.source is source
        and len(train) + len(test) == len(set(train.ids) | set(test.ids)) == len(source.paths)
    )
