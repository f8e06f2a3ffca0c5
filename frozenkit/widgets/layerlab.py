"""LayerLab: walk through a network, see what each layer makes of the images, and choose one without the test set."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import traitlets

from frozenkit._outputs import measured
from frozenkit.errors import DataError, FrozenkitWarning, InputError
from frozenkit.extraction.cache import FeatureCache
from frozenkit.extraction.extract import extract_layers
from frozenkit.features import FeatureSet, combine, reduce
from frozenkit.heads.scaling import Scaler
from frozenkit.images.dataset import check_images
from frozenkit.networks.backbone import Backbone, check_backbone, layer_table, load_backbone
from frozenkit.networks.layers import POOLINGS
from frozenkit.probes.intervals import wilson_interval
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.splits import few_shot
from frozenkit.widgets._sprites import dataset_sprite, train_and_test
from frozenkit.widgets.base import InputTraitError, Lab, Progress, assets, offset_progress

_VECTORS = tuple(name for name in POOLINGS if name in ("mean", "max", "pyramid"))
_SHOTS = (2, 5, 10, 20, 50, 100, 200)
_SHOWN = 400  # test images in the cloud


class LayerLab(Lab):
    """A strip of layers to click or arrow through: accuracy by depth, a map of held-out images, and the choice.

    The choice is made by leave-one-out on the training images. The test score stays hidden until it is revealed.

    Args:
        train: Images with class labels; by default Google's emoji.
        test: Other images of the same classes; shown in the map, and scored when revealed.
        backbone: By default the bundled one at 96 px.
        layers: Names in order; by default the backbone's stages.
        cache: Where features are kept; by default the user's own.

    Attributes:
        chosen: Names of the layers looked at; more than one are taken side by side.
        pooling: ``"mean"``, ``"max"`` or ``"pyramid"``; another one extracts anew, beside the kernel.
        shots: Labels per class for the probes, or None for all.
        view: ``"PCA"`` or ``"LDA"``: which plane the map shows.
        revealed: Whether the test score is shown.
        answer: All that the widget draws, as plain numbers.

    Raises:
        InputError: If train and test have other classes, or a layer is unknown.
        DataError: If there are fewer than two classes, or a class has fewer than two images.

    Example:
        >>> lab = LayerLab(layers=["blocks.2", "blocks.5"])  # the bundled emoji
        >>> lab.result.layer == lab.best
        True
        >>> lab.chosen = ["blocks.2"]
        >>> lab
        LayerLab(data=600 train and 257 test images, 5 classes, shown=blocks.2, ...)
    """

    _esm, _css = assets("layerlab")

    about = traitlets.Unicode().tag(sync=True)
    layers: Any = traitlets.List().tag(sync=True)
    chosen: Any = traitlets.List().tag(sync=True)
    pooling = traitlets.Enum(_VECTORS, "mean").tag(sync=True)
    poolings: Any = traitlets.List(list(_VECTORS)).tag(sync=True)
    shots = traitlets.Int(None, allow_none=True).tag(sync=True)
    shots_choices: Any = traitlets.List().tag(sync=True)
    view = traitlets.Enum(("PCA", "LDA"), "LDA").tag(sync=True)
    revealed = traitlets.Bool(False).tag(sync=True)
    images = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        train: Any = None,
        test: Any = None,
        *,
        backbone: Backbone | None = None,
        layers: Sequence[str] | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        if train is None:
            if test is not None:
                raise InputError("`train` must come with `test`, got test alone. Give both, or none for the emoji.")
            train, test = train_and_test("emoji-google")
        self._data = (train, test)
        self._smallest_class = _check(train, test)
        self._backbone = load_backbone(image_size=96) if backbone is None else backbone
        check_backbone(self._backbone)
        self._names = [self._backbone.check_layer(name) for name in layers or self._backbone.stages]
        self._cache = cache or FeatureCache()
        self._sets: dict[str, tuple[dict[str, FeatureSet], dict[str, FeatureSet]]] = {}
        self._probes: dict[tuple[Any, ...], Probe] = {}
        self._maps: dict[tuple[Any, ...], list[list[float]]] = {}
        self._settling = True
        self._shown = torch.as_tensor(np.sort(np.random.RandomState(0).permutation(len(test))[:_SHOWN]))
        shapes = {row.name: row for row in layer_table(self._backbone, image_size=self._backbone.image_size)}
        image, grid = dataset_sprite(test, self._shown)
        self._fixed = {
            "labels": test.labels[self._shown].tolist(),
            "classes": list(test.classes),
            "sheet": grid,
        }
        about = f"{len(train):,} train and {len(test):,} test images, {len(train.classes)} classes"
        super().__init__(about=about, images=image)
        self.layers = [{"name": n, "shape": list(shapes[n].shape) if n in shapes else None} for n in self._names]
        self.shots_choices = [*(m for m in _SHOTS if m < self._smallest_class), None]
        self._extract(lambda *_: None)
        self._fit(lambda *_: None)
        self.chosen = [self.best]
        self._update_answer()
        self._settling = False

    @property
    def best(self) -> str:
        """The layer that leave-one-out chooses at the present pooling and labels; the earlier one in a tie."""
        return max(self._names, key=lambda name: self._probe((name,)).choice_score or 0.0)

    @property
    def result(self) -> Probe:
        """The probe on what is chosen: ``lab.result.predict(features)``; ``lab.result.layer`` names the layer."""
        return self._probe(tuple(self.chosen))

    @traitlets.validate("chosen")
    def _validate_chosen(self, proposal: Any) -> list[str]:
        wanted = set(proposal["value"])
        if not wanted or wanted - set(self._names):
            names = ", ".join(map(str, self._names))
            raise InputTraitError(f"`chosen` must hold at least one of {names}; got {list(proposal['value'])!r}.")
        return [name for name in self._names if name in wanted]

    @traitlets.validate("shots")
    def _validate_shots(self, proposal: Any) -> int | None:
        shots = proposal["value"]
        if shots is not None and not 2 <= shots <= self._smallest_class:
            raise InputTraitError(f"`shots` must lie in 2..{self._smallest_class}, or be None for all; got {shots}.")
        return shots

    @traitlets.observe("chosen", "view", "revealed")
    def _on_view(self, _change: Any) -> None:
        if not self._settling:
            self._update_answer()

    @traitlets.observe("pooling", "shots")
    def _on_data_choice(self, change: Any) -> None:
        if self._settling:
            return

        def job(progress: Progress) -> None:
            self._extract(progress)
            self._fit(progress)
            progress(1, 1)
            self._update_answer()

        self._run_in_background("extracting" if change["name"] == "pooling" else "fitting", job)

    def _extract(self, progress: Progress) -> None:
        if self.pooling not in self._sets:
            pooling, sizes = self.pooling, [len(part) for part in self._data]
            keys: dict[str, Any] = {"layers": self._names, "pooling": pooling, "precision": "exact"}
            keys["cache"] = self._cache
            found = [
                extract_layers(self._backbone, part, progress=offset_progress(before, sum(sizes), progress), **keys)
                for part, before in zip(self._data, (0, sizes[0]))
            ]
            self._sets[pooling] = (found[0], found[1])

    def _fit(self, progress: Progress) -> None:
        for i, name in enumerate(self._names):
            progress(i, len(self._names))
            self._probe((name,))

    def _pair(self, names: tuple[str, ...]) -> tuple[FeatureSet, FeatureSet]:
        train, test = (
            combine({name: part[name] for name in names}) if len(names) > 1 else part[names[0]]
            for part in self._sets[self.pooling]
        )
        return train, test

    def _probe(self, names: tuple[str, ...]) -> Probe:
        key = (self.pooling, self.shots, names)
        if key not in self._probes:
            train, _ = self._pair(names)
            if self.shots is not None:
                train = train.subset(few_shot(train.labels, shots=self.shots, seed=0))
            with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
                # of a path's edge, at every layer
                self._probes[key] = fit_probe(train)
        return self._probes[key]

    def _map(self, names: tuple[str, ...]) -> list[list[float]]:
        """(shown, 2): held-out images in a plane that was fitted on train."""
        key = (self.pooling, self.view, names)
        if key not in self._maps:
            train, test = self._pair(names)
            self._maps[key] = _plane(train, test.subset(self._shown), self.view)
        return self._maps[key]

    def _compute(self) -> dict[str, Any]:
        names = tuple(self.chosen) or (self.best,)
        probes = {name: self._probe((name,)) for name in self._names}
        now = self._probe(names)
        _, test = self._pair(names)
        score = now.score(test) if self.revealed else None
        return self._fixed | {
            "curve": [_interval(probes[name]) | {"name": name} for name in self._names],
            "best": self.best,
            "chosen": list(names),
            "now": _interval(now),
            "width": test.n_features,
            "n_train": now.n_train,
            "points": self._map(names),
            "view": self.view,
            "test": None if score is None else {"value": score.accuracy, "low": score.low, "high": score.high},
            "n_test": len(test),
            "chance": float(np.bincount(test.labels.numpy()).max() / len(test)),
        }

    def _summary(self) -> dict[str, Any]:
        now = self.answer["now"]
        facts: dict[str, Any] = {
            "data": self.about,
            "shown": " + ".join(self.chosen),
            "pooling": self.pooling,
            "labels": "all",
        }
        if self.shots is not None:
            facts["labels"] = f"{self.shots} per class"
        facts["features"] = str(self.answer["width"])
        facts["leave-one-out"] = measured(f"{now['value']:.3f} [{now['low']:.3f}, {now['high']:.3f}]")
        facts["chosen by it"] = measured(self.best)
        return facts


def _interval(probe: Probe) -> dict[str, float]:
    value = float(probe.choice_score or 0.0)
    low, high = wilson_interval(round(value * probe.n_train), probe.n_train)
    return {"value": value, "low": float(low), "high": float(high)}


def _plane(train: FeatureSet, test: FeatureSet, view: str) -> list[list[float]]:
    """(m, 2) of test in the plane of train, from 0 to 1; what lies further out, at the edge."""
    scale = Scaler(train.features, "standard")
    sets = [replace(part, features=scale(part.features.float())) for part in (train, test)]
    sets = list(reduce(*sets, n_features=min(50, *train.features.shape)))
    if view == "LDA" and len(train.labels.unique()) > 2 and sets[0].n_features > 1:
        sets = list(reduce(*sets, n_features=2, how="lda"))
    flat = torch.nn.functional.pad(sets[1].features, (0, 1))[:, :2].double()  # one feature alone has no second
    low, high = flat.quantile(0.01, dim=0), flat.quantile(0.99, dim=0)
    edge = 0.05 * (high - low).clamp_min(1e-9)
    unit = ((flat - low + edge) / (high - low + 2 * edge)).clamp(0, 1)
    return [[round(value, 4) for value in row] for row in unit.tolist()]


def _check(train: Any, test: Any) -> int:
    """Images of the smallest class of train."""
    for name, part in (("train", train), ("test", test)):
        check_images(name, part)
    if train.classes != test.classes:
        raise InputError(f"`test` must have the classes of train, {list(train.classes)}; got {list(test.classes)}.")
    counts = np.bincount(train.labels.numpy(), minlength=len(train.classes))
    if (counts > 0).sum() < 2:
        raise DataError(f"`train` must hold at least two classes, got {(counts > 0).sum()}.")
    if counts[counts > 0].min() < 2:
        raise DataError("every class of `train` must have at least two images: leave-one-out leaves one of them out.")
    return int(counts[counts > 0].min())
