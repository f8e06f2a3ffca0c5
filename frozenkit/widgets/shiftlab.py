"""ShiftLab: change the images, and see what the features, the bound and the real error make of it."""

from typing import Any

import traitlets

from frozenkit._outputs import measured
from frozenkit.errors import InputError
from frozenkit.extraction.cache import FeatureCache
from frozenkit.extraction.extract import extract
from frozenkit.features import FeatureSet, reduce
from frozenkit.images.dataset import check_images
from frozenkit.images.shifts import KINDS, shift
from frozenkit.networks.backbone import Backbone, check_backbone, load_backbone
from frozenkit.theory.bounds import Bound, domain_bound
from frozenkit.widgets._sprites import dataset_sprite, train_and_test
from frozenkit.widgets.base import InputTraitError, Lab, Progress, assets, offset_progress

_LOOK = 8  # images before and after
_CLOUD = 150  # points of each domain


class ShiftLab(Lab):
    """Drag a shift's severity: images before and after, both clouds, and the domain bound beside the real error.

    The head is fitted on the images as they are and stays. The target's features are extracted beside the kernel,
    once for each severity.

    Args:
        train: Images with class labels, the source; by default clothes.
        test: Other images of the same classes.
        backbone: By default the bundled one at 64 px.
        layer: Read there; by default ``"blocks.5"`` where there is one, else the backbone's default.
        cache: Where features are kept; by default the user's own.

    Attributes:
        kind: One of the shifts, such as ``"rotate"``.
        severity: From 0, which changes nothing, to 5.
        answer: All that the widget draws, as plain numbers.

    Raises:
        InputError: If train and test have other classes.

    Example:
        >>> lab = ShiftLab()
        >>> lab.result.terms["half the divergence"]  # nothing is shifted yet
        0.0
        >>> lab.severity = 3
        >>> lab.wait()
        >>> lab.result.measured > lab.bound_at(0).measured
        True
    """

    _esm, _css = assets("shiftlab")

    about = traitlets.Unicode().tag(sync=True)
    kind = traitlets.Enum(tuple(KINDS), "rotate").tag(sync=True)
    kinds: Any = traitlets.List(list(KINDS)).tag(sync=True)
    severity = traitlets.Int(0).tag(sync=True)
    before = traitlets.Bytes().tag(sync=True)
    after = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        train: Any = None,
        test: Any = None,
        *,
        backbone: Backbone | None = None,
        layer: str | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        if train is None:
            train, test = train_and_test("fashion-mnist", 300)
        elif test is None:
            raise InputError("`test` must come with `train`: the error is measured on images that fitted nothing.")
        check_images("train", train)
        check_images("test", test)
        if train.classes != test.classes:
            raise InputError(f"`test` must have the classes of train, {list(train.classes)}; got {list(test.classes)}.")
        self._data = {"train": train, "test": test}
        self._backbone = load_backbone(image_size=64) if backbone is None else backbone
        check_backbone(self._backbone)
        usual = "blocks.5" if "blocks.5" in self._backbone.layers else self._backbone.default_layer
        self._layer = self._backbone.check_layer(layer) if layer else usual
        self._cache = cache or FeatureCache()
        self._measured: dict[tuple[str, int], tuple[Bound, list[list[float]]]] = {}
        self._settling = True
        super().__init__(about=f"{len(train):,} and {len(test):,} images, {len(train.classes)} classes, {self._layer}")
        self.before, self._grid = dataset_sprite(test, range(min(_LOOK, len(test))), side=72)
        self.after = self.before
        self._source = self._features(0, lambda *_: None)
        self._measure(self.kind, 0, lambda *_: None)
        self._update_answer()
        self._settling = False

    @property
    def result(self) -> Bound:
        """The bound at the present shift, with each of its terms and the error that was measured."""
        return self.bound_at(self.severity)

    def bound_at(self, severity: int) -> Bound:
        """The bound at a severity of the present kind that has been looked at.

        Raises:
            InputError: If it has not.
        """
        key = self._key(self.kind, severity)
        if key not in self._measured:
            raise InputError(f"severity {severity} of {self.kind!r} has not been looked at. Set it, then `wait()`.")
        return self._measured[key][0]

    @traitlets.validate("severity")
    def _validate_severity(self, proposal: Any) -> int:
        severity: int = proposal["value"]
        if severity not in range(6):
            raise InputTraitError(f"`severity` must be a whole number from 0 to 5, got {severity}.")
        return severity

    @traitlets.observe("kind", "severity")
    def _on_input(self, _change: Any) -> None:
        if self._settling:
            return
        kind, severity = self.kind, self.severity
        some = shift(self._data["test"].subset(range(min(_LOOK, len(self._data["test"])))), kind, severity)
        self.after = dataset_sprite(some, range(len(some)), side=72)[0]
        if self._key(kind, severity) in self._measured:
            self.stop()
            self._update_answer()
            return

        def job(progress: Progress) -> None:
            self._measure(kind, severity, progress)
            progress(1, 1)
            self._update_answer()

        self._run_in_background("extracting the shifted images", job)

    @staticmethod
    def _key(kind: str, severity: int) -> tuple[str, int]:
        return (kind if severity else "", severity)

    def _features(self, severity: int, progress: Progress, kind: str = "") -> dict[str, FeatureSet]:
        sizes, found, before = [len(part) for part in self._data.values()], {}, 0
        for name, part in self._data.items():
            shifted = shift(part, kind, severity) if severity else part
            part_progress = offset_progress(before, sum(sizes), progress)
            keys: dict[str, Any] = {"layer": self._layer, "precision": "exact", "cache": self._cache}
            found[name] = extract(self._backbone, shifted, progress=part_progress, **keys)
            before += len(part)
        return found

    def _measure(self, kind: str, severity: int, progress: Progress) -> None:
        target = self._features(severity, progress, kind) if severity else self._source
        bound = domain_bound(self._source["train"], self._source["test"], target["train"], target["test"])
        self._measured[self._key(kind, severity)] = bound, self._points(target)

    def _points(self, target: dict[str, FeatureSet]) -> list[list[float]]:
        """Test images in the plane of the source's first two principal directions, in units of its spread there."""
        shown = target["test"].subset(range(min(_CLOUD, len(target["test"]))))
        plane, flat = reduce(self._source["train"], shown, n_features=2)
        spread = plane.features.std(0).clamp_min(1e-6)
        return [[round(value, 3) for value in row] for row in (flat.features / spread).tolist()]

    def _compute(self) -> dict[str, Any]:
        kind, severity = self.kind, self.severity
        seen = {level: self._measured.get(self._key(kind, level)) for level in range(6)}
        now = seen[severity]
        return {
            "kind": kind,
            "severity": severity,
            "sheet": self._grid,
            "count": min(_LOOK, len(self._data["test"])),
            "source": self._measured[self._key(kind, 0)][1],
            "target": now[1] if now else [],
            "bounds": [
                {
                    "severity": level,
                    "terms": {name: float(value) for name, value in found[0].terms.items()},
                    "sum": float(found[0].value),
                    "measured": float(found[0].measured or 0.0),
                    "vacuous": bool(found[0].is_vacuous),
                }
                for level, found in seen.items()
                if found
            ],
        }

    def _summary(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"data": self.about, "shift": f"{self.kind}, severity {self.severity}"}
        found = self._measured.get(self._key(self.kind, self.severity))
        if found:
            facts |= {name: measured(value) for name, value in found[0].terms.items()}
            facts |= {"sum": measured(found[0].value), "measured error": measured(found[0].measured)}
        return facts
