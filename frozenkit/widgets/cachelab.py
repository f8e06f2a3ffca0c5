"""CacheLab: three ways to train a head, raced on this machine, for real."""

from typing import Any

import traitlets

from frozenkit._outputs import measured
from frozenkit.comparison.race import LANES, PUBLISHED_RACE, Race, race
from frozenkit.errors import InputError
from frozenkit.images.catalog import load_dataset
from frozenkit.images.dataset import check_images
from frozenkit.networks.backbone import Backbone, check_backbone, load_backbone
from frozenkit.widgets.base import InputTraitError, Lab, Progress, assets

_STEPS = ("fine-tuned", "frozen", "extraction", "frozen, cached")


class CacheLab(Lab):
    """A race between fine-tuning, a frozen backbone, and a frozen backbone that ran once and was cached.

    Nothing is simulated: `frozenkit.race` trains in all three lanes, on the same images and batches. The given
    backbone is left as it is.

    Args:
        dataset: Images with class labels; by default clothes.
        backbone: By default the bundled one at 64 px.
        epochs: Epochs of each lane, from 1 to 10; the quickest one counts.
        n: Images to train on, at most all of them.

    Attributes:
        n: May be changed between races.
        epochs: The same.
        answer: All that the widget draws, as plain numbers.

    Raises:
        InputError: If the data set is empty or holds no classes, or `n` or `epochs` is out of range.

    Example:
        >>> lab = CacheLab(n=32, epochs=1)
        >>> lab.start()
        >>> lab.wait()
        >>> lab.result.ratio() > 1
        True
    """

    _esm, _css = assets("cachelab")

    about = traitlets.Unicode().tag(sync=True)
    n = traitlets.Int(120).tag(sync=True)
    n_choices: Any = traitlets.List().tag(sync=True)
    epochs = traitlets.Int(2).tag(sync=True)

    def __init__(
        self, dataset: Any = None, backbone: Backbone | None = None, *, n: int | None = None, epochs: int = 2
    ) -> None:
        self._data = dataset if dataset is not None else load_dataset("fashion-mnist", limit=1000)
        check_images("dataset", self._data)
        if not self._data.classes or len(self._data) < 2:
            raise InputError("`dataset` must hold two images or more, with class labels.")
        self._backbone = load_backbone(image_size=64) if backbone is None else backbone
        check_backbone(self._backbone)
        self._race: Race | None = None
        self._done: dict[str, float] = {}
        most = len(self._data)
        super().__init__(about=f"{self._backbone.name}, {most:,} images at hand")
        self.n_choices = [m for m in (32, 64, 120, 240, 500, 1000, 2000) if m < most] + [most] * (most <= 2000)
        self.n = min(120, most) if n is None else n
        self.epochs = epochs
        self._update_answer()

    @property
    def result(self) -> Race | None:
        """The last race that was run to its end, or None."""
        return self._race

    def start(self) -> None:
        """Run a race beside the kernel; one that is under way is ended."""

        def job(progress: Progress) -> None:
            data, totals = self._data.subset(range(self.n)), dict.fromkeys(_STEPS, 0)

            def advance(lane: str, done: int, of: int) -> None:
                self._done[lane] = done / max(1, of)
                if lane == LANES[2] and done < of:
                    return  # this lane is over in milliseconds: telling would be most of what is timed
                progress(done, of)
                if totals[lane] != (step := int(20 * self._done[lane])):
                    totals[lane] = step
                    self._update_answer()

            found = race(self._backbone, data, epochs=self.epochs, progress=advance)
            progress(1, 1)
            self._race = found
            self._update_answer()

        self._race, self._done = None, {}
        self._update_answer()
        self._run_in_background("racing", job)

    def _on_message(self, widget: Any, content: Any, buffers: Any) -> None:
        super()._on_message(widget, content, buffers)
        if isinstance(content, dict) and content.get("start"):
            self.start()

    @traitlets.validate("n")
    def _validate_n(self, proposal: Any) -> int:
        n: int = proposal["value"]
        if not 2 <= n <= len(self._data):
            raise InputTraitError(f"`n` must lie in 2..{len(self._data)}, the images at hand; got {n}.")
        return n

    @traitlets.validate("epochs")
    def _validate_epochs(self, proposal: Any) -> int:
        epochs: int = proposal["value"]
        if not 1 <= epochs <= 10:
            raise InputTraitError(f"`epochs` must lie in 1..10, got {epochs}.")
        return epochs

    def _compute(self) -> dict[str, Any]:
        found = self._race
        lanes = []
        for name in LANES:
            done = self._done.get(name, 0.0) if found is None else 1.0
            seconds = found[name].seconds_per_epoch if found else None
            lanes.append({"name": name, "done": done, "seconds": seconds, "published": PUBLISHED_RACE[name]})
        return {
            "lanes": lanes,
            "extraction": self._done.get("extraction", 0.0) if found is None else 1.0,
            "once": found.extraction_seconds if found else None,
            "ratio": found.ratio() if found else None,
            "ratio_frozen": found.ratio("frozen") if found else None,
            "break_even": found.break_even() if found else None,
            "n": found.n if found else self.n,
        }

    def _summary(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"data": self.about, "images": str(self.n), "epochs": str(self.epochs)}
        if self._race is None:
            return facts | {"race": "not run yet"}
        return facts | {
            f"{lane.name}, s per epoch": measured(lane.seconds_per_epoch, ".3g") for lane in self._race.lanes
        }
