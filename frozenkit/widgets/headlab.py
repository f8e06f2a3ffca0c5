"""HeadLab: which head, how many labels, how firm a hand; it refits at once and shows what that buys."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import traitlets

from frozenkit._outputs import measured
from frozenkit.errors import DataError, FrozenkitWarning, InputError
from frozenkit.features import Features, FeatureSet, load_set
from frozenkit.heads.ridge import RidgePath
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.probes.scores import Score
from frozenkit.splits import few_shot
from frozenkit.widgets.base import InputTraitError, Lab, Progress, assets
from frozenkit.widgets.headviews import boundary_of, curve_of, head_of, reliability_of

_HEADS = ("ridge", "softmax", "prototype", "knn", "mlp")
_SLOW = ("softmax", "mlp")  # fitted beside the kernel, once for each number of labels
_VIEWS = ("nothing", "reliability", "boundary", "learning curve")
_CHOSEN = {"leave-one-out": "leave-one-out", "cross-validation": "cross-validated", "val": "set-aside"}
_ROUND_SHOTS = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class HeadLab(Lab):
    """Move labels per class and strength; train and test accuracy and the leave-one-out path answer at once.

    A new number of labels costs one decomposition; a new strength on the same labels costs milliseconds. The strength
    is chosen by leave-one-out on the training labels and never on test, which is only reported.

    Args:
        train: Features (n, d) with class labels, such as ``extract(…)``; by default Google's emoji
            under the bundled backbone (extracted on first use, then cached).
        test: Features of the same layer and classes to report on; without it there is no test bar.
        shots: Labels per class to begin with, at least 2; None takes all of train.
        strengths: Ascending λ > 0 for the path; by default those of `ridge_path`.
        seed: Which images are drawn when there are fewer labels; draws are nested.

    Attributes:
        shots: Labels per class, or None for all; set it from code or by the slider.
        strength: λ of the mean loss; what is set snaps to the nearest strength of the path.
        follow_best: Whether each new number of labels takes the strength that leave-one-out chooses. Setting a
            strength turns it off.
        head: ``"ridge"``, ``"softmax"``, ``"prototype"`` (class means), ``"knn"`` or ``"mlp"``. Only ridge has a
            strength to move; softmax and mlp are fitted beside the kernel, and `answer` follows when they are done.
        normalize: Whether every image's features are scaled to length 1 first. `result` then expects them so. Class
            means and neighbours centre, and scale to length 1 after that, either way: they are those of `fit_probe`.
        also: What is shown besides: ``"nothing"``, ``"reliability"``, ``"boundary"`` (of the same head, fitted anew in
            a plane) or ``"learning curve"``; the last two are computed beside the kernel.
        temperature: What logits are divided by in the reliability diagram; predictions do not change.
        answer: All that the widget draws, as plain numbers.

    Raises:
        InputError: If `train` and `test` do not fit together, or `shots` is out of range.
        DataError: If there are fewer than two classes, or a class has fewer than two images.

    Example:
        >>> import torch
        >>> x = torch.cat([torch.randn(20, 4, generator=torch.manual_seed(0)) + 3 * c for c in (0, 1)])
        >>> lab = HeadLab(FeatureSet.from_arrays(x, ["low"] * 20 + ["high"] * 20, layer="layer"), shots=5)
        >>> lab.result.n_train, lab.result.strength == lab.strength
        (10, True)
        >>> lab.shots = None
        >>> lab
        HeadLab(data=layer: 40 train images, 2 classes, labels per class=all 40, head=ridge, strength=⟦...⟧, ...)
    """

    _esm, _css = assets("headlab", "headviews")

    about = traitlets.Unicode().tag(sync=True)
    shots = traitlets.Int(None, allow_none=True).tag(sync=True)
    shots_choices: Any = traitlets.List().tag(sync=True)
    strength = traitlets.Float(1.0).tag(sync=True)
    follow_best = traitlets.Bool(True).tag(sync=True)
    head = traitlets.Enum(_HEADS, "ridge").tag(sync=True)
    normalize = traitlets.Bool(False).tag(sync=True)
    also = traitlets.Enum(_VIEWS, "nothing").tag(sync=True)
    temperature = traitlets.Float(1.0).tag(sync=True)

    def __init__(
        self,
        train: Features | None = None,
        test: Features | None = None,
        *,
        shots: int | None = None,
        strengths: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        if train is None:
            if test is not None:
                raise InputError("`train` must come with `test`, got test alone. Give both, or none for the emoji.")
            train, test = _emoji()
        train, test = load_set(train, "train"), None if test is None else load_set(test, "test")
        _check(train, test)
        self._train, self._test = train, test
        self._strengths, self._seed = strengths, seed
        self._probes: dict[tuple[Any, ...], tuple[Probe, FeatureSet, str]] = {}
        self._extras: dict[tuple[Any, ...], Any] = {}
        self._finished: set[tuple[Any, ...]] = set()  # those of the extras that are computed to their end
        self._settling = True  # nothing to answer before all inputs are in place
        counts = np.bincount(self._train.labels.numpy())
        self._smallest_class = int(counts[counts > 0].min())
        about = f"{train.layer}: {len(train):,} train"
        about += f" and {len(test):,} test images" if test is not None else " images"
        super().__init__(about=f"{about}, {train.n_classes} classes")
        self.shots_choices = [*(m for m in _ROUND_SHOTS if m < self._smallest_class), None]
        self.shots = shots
        self._update_answer()
        self._settling = False

    @property
    def result(self) -> Probe:
        """The fitted probe at the present inputs: ``lab.result.predict(features)``."""
        probe, _, _ = self._fitted(self.shots)
        path = probe.strength_path
        if not isinstance(path, RidgePath):
            return probe
        step = _nearest(path.strengths, self.strength)
        score = float(path.loo_scores[step])
        return replace(probe, strength=self.strength, head=path.at(self.strength), choice_score=score)

    @traitlets.validate("shots")
    def _validate_shots(self, proposal: Any) -> int | None:
        shots = proposal["value"]
        if shots is not None and not 2 <= shots <= self._smallest_class:
            raise InputTraitError(
                f"`shots` must lie in 2..{self._smallest_class} (the smallest class has {self._smallest_class} "
                f"images), or be None for all; got {shots}."
            )
        return shots

    @traitlets.validate("strength")
    def _validate_strength(self, proposal: Any) -> float:
        strength = proposal["value"]
        if not (np.isfinite(strength) and strength > 0):
            raise InputTraitError(f"`strength` must be a finite number above 0, got {strength}. Try 0.01.")
        return strength

    @traitlets.validate("temperature")
    def _validate_temperature(self, proposal: Any) -> float:
        temperature = proposal["value"]
        if not (np.isfinite(temperature) and temperature > 0):
            raise InputTraitError(f"`temperature` must be a finite number above 0, got {temperature}. Try 1.")
        return temperature

    @traitlets.observe("shots", "strength", "follow_best", "head", "normalize", "also", "temperature")
    def _on_input(self, change: Any) -> None:
        if self._settling:
            return
        self._settling = True
        try:
            with self.hold_sync():
                if change["name"] == "strength":
                    self.follow_best = False
                self._answer_or_fit()
        finally:
            self._settling = False

    def _answer_or_fit(self) -> None:
        """Answer now, or, where the head takes longer than a moment, when it is fitted."""
        if self.head not in _SLOW or self._key(self.shots) in self._probes:
            self._update_answer()
            self._start_extra()
            return
        shots = self.shots

        def job(progress: Progress) -> None:
            self._fitted(shots)
            progress(1, 1)  # nothing is shown of what was stopped meanwhile
            self._update_answer()
            self._start_extra()

        self._run_in_background(f"fitting the {self.head} head", job)

    def _key(self, shots: int | None) -> tuple[Any, ...]:
        return (self.head, self.normalize, shots)

    def _scaled(self, features: FeatureSet) -> FeatureSet:
        if not self.normalize:
            return features
        return features.with_features(torch.nn.functional.normalize(features.features, dim=1))

    def _fitted(self, shots: int | None) -> tuple[Probe, FeatureSet, str]:
        """Probe, its training images and its warnings for a number of labels, fitted once."""
        key = self._key(shots)
        if key not in self._probes:
            name = self.head
            train = self._scaled(self._train)
            if shots is not None:
                train = train.subset(few_shot(train.labels, shots=shots, seed=self._seed))
            with warnings.catch_warnings(record=True, action="always", category=FrozenkitWarning) as caught:
                head = head_of(name, train.n_features, train.n_classes)
                strengths = self._strengths if name == "ridge" else None
                probe = fit_probe(train, head=head, strengths=strengths)
            note = " ".join(str(w.message) for w in caught if issubclass(w.category, FrozenkitWarning))
            self._probes[key] = probe, train, note
        return self._probes[key]

    def _extra_key(self) -> tuple[Any, ...]:
        return (self.also, self.head, self.normalize, None if self.also == "learning curve" else self.shots)

    def _start_extra(self) -> None:
        """Begin what takes longer than a moment and is not there yet."""
        key = self._extra_key()
        if self.also not in ("boundary", "learning curve") or key in self._finished:
            return
        test = None if self._test is None else self._scaled(self._test)
        head, train, choices = self.head, self._fitted(self.shots)[1], list(self.shots_choices)

        def show(found: Any) -> None:
            self._extras[key] = found
            self._update_answer()

        def job(progress: Progress) -> None:
            if key[0] == "boundary":
                found: Any = boundary_of(train, test, head)
            else:
                found = curve_of(choices, self._fitted, test, progress, show)
            progress(1, 1)
            self._finished.add(key)
            show(found)

        self._run_in_background("drawing the boundary" if key[0] == "boundary" else "fitting", job)

    def _extra(self, probe: Probe) -> Any:
        if self.also == "reliability" and self._test is not None:
            return reliability_of(probe, self._scaled(self._test), self.temperature)
        return self._extras.get(self._extra_key())

    def _snap_strength(self, probe: Probe) -> None:
        """Make the strength one of ridge's path: what leave-one-out chose, or the nearest to what was asked for."""
        path = probe.strength_path
        if self.head == "ridge" and isinstance(path, RidgePath):
            wanted = float(path.best) if self.follow_best else self.strength
            self.strength = float(path.strengths[_nearest(path.strengths, wanted)])

    def _path(self, probe: Probe) -> dict[str, Any]:
        """The strengths of ridge and where it stands among them; the other heads have none to move."""
        path = probe.strength_path
        if not isinstance(path, RidgePath):
            chosen = {"loo": float(probe.choice_score), "chosen_on": probe.chosen_on, "strength": probe.strength}
            return chosen | {"strengths": [], "path": [], "best": None, "is_best": False}
        grid = [float(strength) for strength in path.strengths]
        best = grid[_nearest(grid, float(path.best))]
        step = _nearest(grid, self.strength)
        return {
            "strength": self.strength,
            "strengths": grid,
            "path": [float(value) for value in path.loo_scores],
            "best": best,
            "is_best": grid[step] == best,
            "chosen_on": "leave-one-out",
            "loo": float(path.loo_scores[step]),
        }

    def _compute(self) -> dict[str, Any]:
        probe, train, note = self._fitted(self.shots)
        self._snap_strength(probe)
        path = self._path(probe)
        now = self.result
        train_score = now.score(train)
        test_score = None if self._test is None else now.score(self._scaled(self._test))
        return path | {
            "head": self.head,
            "shots": self.shots,
            "n_all": len(self._train),
            "also": self.also,
            "temperature": self.temperature,
            "extra": self._extra(now),
            "train": _plain(train_score),
            "test": None if test_score is None else _plain(test_score),
            "chance": (test_score or train_score).chance,
            "note": note,
        }

    def _summary(self) -> dict[str, Any]:
        answer = self.answer
        facts: dict[str, Any] = {
            "data": self.about,
            "labels per class": f"all {len(self._train)}" if answer["shots"] is None else str(answer["shots"]),
            "head": answer["head"] + (", features of length 1" if self.normalize else ""),
            "strength": "–" if answer["strength"] is None else measured(answer["strength"], ".2g"),
            f"{_CHOSEN[answer['chosen_on']]} accuracy": measured(answer["loo"]),
        }
        for name in ("train", "test"):
            if (part := answer[name]) is not None:
                text = f"{part['accuracy']:.3f} [{part['low']:.3f}, {part['high']:.3f}]"
                facts[f"{name} accuracy"] = measured(text)
        return facts


def _plain(score: Score) -> dict[str, float | int]:
    return {"accuracy": score.accuracy, "low": score.low, "high": score.high, "n": score.n}


def _nearest(strengths: Any, wanted: float) -> int:
    """Index of the strength closest on a log scale."""
    return int(np.argmin(np.abs(np.log(np.asarray(strengths, dtype=float)) - np.log(wanted))))


def _check(train: Any, test: Any) -> None:
    for name, part in (("train", train), ("test", test)):
        if part is None:
            continue
        if not part.classes:
            raise InputError(f"`{name}` must have class labels, got regression targets. HeadLab shows accuracies.")
    counts = np.bincount(np.asarray(train.labels))
    counts = counts[counts > 0]
    if len(counts) < 2:
        raise DataError(f"`train` must hold at least two classes, got {len(counts)}. Add images of another class.")
    if counts.min() < 2:
        raise DataError("every class of `train` must have at least two images: leave-one-out leaves one of them out.")
    if test is not None and (test.n_features, test.classes) != (train.n_features, train.classes):
        raise InputError(
            f"`test` must have the width and classes of train ({train.n_features}, {list(train.classes)}), "
            f"got {test.n_features}, {list(test.classes)}. Extract both from the same layer."
        )


def _emoji() -> tuple[FeatureSet, FeatureSet]:
    from frozenkit.extraction.cache import FeatureCache
    from frozenkit.extraction.extract import extract
    from frozenkit.images.catalog import load_dataset
    from frozenkit.networks.backbone import load_backbone

    backbone, cache = load_backbone(image_size=96), FeatureCache()  # as in the first lesson: often there already
    train, test = (
        extract(backbone, load_dataset("emoji-google", split=part), precision="exact", cache=cache, progress=False)
        for part in ("train", "test")
    )
    return train, test
