"""`frozenkit probe`: every stage of a backbone probed on some pictures, beside its controls, as one result."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from frozenkit.advice import Advice, advise
from frozenkit.backbones import Backbone
from frozenkit.cache import FeatureCache
from frozenkit.controls import control_scores
from frozenkit.datasets import ImageDataset, image_folder, list_datasets, load_dataset
from frozenkit.errors import FrozenkitWarning, InputError, UnknownNameError
from frozenkit.extraction import extract
from frozenkit.features import FeatureSet
from frozenkit.scores import Score
from frozenkit.splits import duplicates, split
from frozenkit.studies import LayerReport, layer_report


@dataclass(frozen=True, eq=False)
class ProbeReport:
    """What `frozenkit probe` found.

    Attributes:
        train: The pictures fitted on.
        test: The pictures reported on.
        backbone: Its name.
        image_size: Pixels.
        layers: One probe a layer; the best by leave-one-out is chosen.
        controls: Name to `Score` at the chosen layer.
        test_features: Of the chosen layer.
        seconds: Seconds that getting the backbone's features took.
        from_cache: Whether they all came from the cache.
        gpu: Whether the backbone ran on one.
        target_accuracy: What would be good enough, where it was said.
        similarity: Of the pictures to what the backbone saw, where it was said.
    """

    train: ImageDataset
    test: ImageDataset
    backbone: str
    image_size: int
    layers: LayerReport
    controls: dict[str, Score]
    test_features: FeatureSet
    seconds: float
    from_cache: bool
    gpu: bool = False
    target_accuracy: float | None = None
    similarity: str | None = None

    @property
    def score(self) -> Score:
        """The chosen layer's score on test."""
        return self.layers.scores[self.layers.chosen]

    @property
    def verdict(self) -> str:
        """One sentence: do frozen features beat what needs no pretraining, by more than chance explains?"""
        best = max(self.controls, key=lambda name: self.controls[name].accuracy)
        rival, mine = self.controls[best], self.score
        if mine.low > rival.high:
            return f"Frozen features beat every control; the best of them, {best}, reaches {rival.accuracy:.1%}."
        if mine.accuracy > rival.accuracy:
            return (
                f"Frozen features are ahead of every control, but the intervals overlap with {best} at "
                f"{rival.accuracy:.1%}: more test pictures would tell."
            )
        return f"Frozen features do not beat {best} at {rival.accuracy:.1%}: here they bring nothing beyond it."

    @property
    def advice(self) -> Advice:
        """Freeze, or fine-tune? From what was measured here."""
        untrained = {name: self.controls[name].accuracy for name in ("raw pixels", "random weights")}
        best = max(untrained, key=lambda name: untrained[name])
        return advise(
            n=len(self.train),
            n_classes=len(self.train.classes),
            probe_accuracy=self.score.accuracy,
            interval=(self.score.low, self.score.high),
            chance=self.score.chance,
            best_control=(best, untrained[best]),
            target_accuracy=self.target_accuracy,
            similarity=self.similarity,
            gpu=self.gpu,
        )


def load_pictures(target: str, *, limit: int | None, seed: int, skip_bad: bool) -> tuple[ImageDataset, ImageDataset]:
    """Train and test pictures of a data set's name, or of a folder (seeded, stratified, 70 % and 30 %).

    Raises:
        UnknownNameError: If it is neither.
        DataError: If the folder is not usable.
    """
    names = list(list_datasets().index)
    if target in names:
        train = load_dataset(target, limit=limit, seed=seed)
        return train, load_dataset(target, split="test")
    if not Path(target).exists():
        hint = "Or give a folder with one folder of pictures per class; no such folder is here."
        raise UnknownNameError("target", target, names, hint=hint)
    pictures = image_folder(target, skip_bad=skip_bad)
    for group in duplicates(pictures[i] for i in range(len(pictures)))[:1]:
        same = " and ".join(pictures.ids[i] for i in group[:2])
        warnings.warn(
            f"some pictures are equal pixel by pixel, such as {same}; a copy in train and test flatters the score",
            FrozenkitWarning,
            stacklevel=2,
        )
    rows = split(pictures.labels, fractions=(0.7, 0.3), seed=seed)
    train, test = (pictures.subset(part) for part in rows)
    if limit is not None and limit < len(train):
        train = train.subset(split(train.labels, fractions=(limit, len(train) - limit), seed=seed)[0])
    return train, test


def probe_pictures(
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
) -> ProbeReport:
    """Probes each layer with ridge, chooses one by leave-one-out, and reports it on test beside four controls.

    Args:
        train: Fitted and chosen on.
        test: Reported on.
        backbone: From `load_backbone`.
        layers: Default `Backbone.stages`.
        cache: As in `extract`.
        seed: Of the controls.
        progress: As in `extract`.
        target_accuracy: For the advice, as in `advise`.
        similarity: For the advice, as in `advise`.

    Raises:
        InputError: If there are too few pictures.
    """
    if min(len(train), len(test)) < 2:
        raise InputError(f"there must be at least two pictures to fit and to report on, got {len(train)}, {len(test)}.")
    wanted = list(layers or backbone.stages)
    before = len(list(cache.root.glob("*.h5"))) if cache else 0
    started = time.perf_counter()
    sets = [extract(backbone, part, layers=wanted, cache=cache, progress=progress) for part in (train, test)]
    seconds = time.perf_counter() - started
    from_cache = cache is not None and len(list(cache.root.glob("*.h5"))) == before
    report = layer_report(*sets)
    pair = (sets[0][report.chosen], sets[1][report.chosen])
    controls = control_scores(
        train, test, backbone, layer=report.chosen, seed=seed, cache=cache, progress=progress, features=pair
    )
    return ProbeReport(
        train=train,
        test=test,
        backbone=backbone.name,
        image_size=backbone.image_size,
        layers=report,
        controls=controls,
        test_features=pair[1],
        seconds=seconds,
        from_cache=from_cache,
        gpu=backbone.device.type == "cuda",
        target_accuracy=target_accuracy,
        similarity=similarity,
    )
