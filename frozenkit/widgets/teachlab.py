"""TeachLab: show the machine a few images of each class, and watch it learn."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import traitlets
from PIL import Image, ImageOps

from frozenkit._outputs import measured
from frozenkit.errors import DataError, FrozenkitError, FrozenkitWarning, InputError
from frozenkit.extraction.saved import load_features, save_features
from frozenkit.features import FeatureSet
from frozenkit.images.catalog import load_dataset
from frozenkit.images.dataset import read_image, to_rgb
from frozenkit.networks.backbone import Backbone, check_backbone, load_backbone
from frozenkit.networks.layers import pooled_activations
from frozenkit.probes.intervals import wilson_interval
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.widgets._sprites import make_sprite
from frozenkit.widgets.base import InputTraitError, Lab, assets

_MOST_CLASSES = 20
_MOST_IMAGES = 2000
_KEPT_SIDE = 64


class TeachLab(Lab):
    """Name two classes or more, add images by file, drawing, camera or from a data set; a probe is refitted at once.

    Each new image is run through the frozen backbone once. Images stay in memory; only `save` writes anything,
    and it writes features, not images.

    Args:
        classes: Names to begin with.
        backbone: By default the bundled one at 96 px.

    Attributes:
        classes: Names; a class may be renamed at any time, and one without images may be removed.
        answer: All that the widget draws, as plain numbers.
        live: What the probe makes of the image it was last asked about.

    Raises:
        InputError: If there are no names, two alike, or more than twenty.

    Example:
        >>> from frozenkit import load_dataset
        >>> lab, emoji = TeachLab(["animals", "food"]), load_dataset("emoji-google", limit=100)
        >>> animals, food = ([emoji[i][0] for i in range(100) if emoji[i][1] == k] for k in (1, 2))
        >>> lab.add("animals", animals[:5])
        >>> lab.add("food", food[:5])
        >>> shares = lab.look(animals[5])
        >>> max(shares, key=shares.get)
        'animals'
    """

    _esm, _css = assets("teachlab")

    classes: Any = traitlets.List().tag(sync=True)
    images = traitlets.Bytes().tag(sync=True)
    live = traitlets.Dict().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)

    def __init__(self, classes: Sequence[str] = ("this", "that"), *, backbone: Backbone | None = None) -> None:
        self._backbone = load_backbone(image_size=96) if backbone is None else backbone
        check_backbone(self._backbone)
        self._layer = self._backbone.default_layer
        self._features: list[torch.Tensor] = []
        self._labels: list[int] = []
        self._thumbnails: list[Image.Image] = []
        self._probe: Probe | None = None
        super().__init__(classes=list(classes))
        self._fit()

    # --- from code ---

    @property
    def result(self) -> Probe | None:
        """The fitted probe, or None as long as there are not two classes with an image each."""
        return self._probe

    @property
    def features(self) -> FeatureSet:
        """What has been taught so far: a row for each image.

        Raises:
            DataError: If there is no image yet.
        """
        if not self._features:
            raise DataError("there is no image yet: add some of each class.")
        x, labels = torch.stack(self._features), torch.as_tensor(self._labels)
        ids = [f"taught-{i}" for i in range(len(x))]
        return FeatureSet.from_arrays(x, labels, classes=self.classes, ids=ids, layer=self._layer)

    def add(self, name: str, images: Sequence[Image.Image]) -> None:
        """Teach images of one class.

        Raises:
            InputError: If there is no such class, or there would be more than 2,000 images.
        """
        if name not in self.classes:
            raise InputError(f"`name` must be one of {', '.join(self.classes)}; got {name!r}.")
        if len(self._labels) + len(images) > _MOST_IMAGES:
            raise InputError(f"TeachLab holds at most {_MOST_IMAGES:,} images. `frozenkit probe` takes any number.")
        if odd := [image for image in images if not isinstance(image, Image.Image)]:
            raise InputError(f"`images` must be PIL images, got {type(odd[0]).__name__}. Open files with open_image.")
        smalls = [to_rgb(image) for image in images]
        self._features += [self._read(small) for small in smalls]  # all of them, or none
        self._labels += [self.classes.index(name)] * len(smalls)
        self._thumbnails += [ImageOps.fit(small, (_KEPT_SIDE, _KEPT_SIDE)) for small in smalls]
        self._fit()

    def remove(self, index: int) -> None:
        """Forget one image, counted in the order of teaching."""
        if not 0 <= index < len(self._labels):
            raise InputError(f"`index` must lie in 0..{len(self._labels) - 1}, got {index}.")
        for values in (self._features, self._labels, self._thumbnails):
            del values[index]
        self._fit()

    def look(self, image: Image.Image) -> dict[str, float]:
        """Class → probability of an image; nothing is learned from it. Empty as long as there is no probe."""
        x = self._read(to_rgb(image))
        if self._probe is None:
            self.live = {}
            return {}
        shares = self._probe.predict_proba(x[None])[0].tolist()
        unit = torch.nn.functional.normalize(torch.stack([x, *self._features]), dim=1)
        near = (unit[1:] @ unit[0]).topk(min(3, len(self._features))).indices.tolist()
        self.live = {"shares": shares, "near": near}
        return dict(zip(self.classes, shares))

    def save(self, path: str | Path) -> Path:
        """Write the features, labels and class names to a file; the images are not in it.

        Args:
            path: Its name; ``.safetensors`` is added unless it ends so already.

        Returns:
            The path that was written.

        Raises:
            InputError: If that names no file.
            DataError: If there is no image yet.
            CacheError: If the file cannot be written; what it held before stays.
        """
        path = _file(path)
        save_features(self.features, path)
        return path

    def load(self, path: str | Path) -> None:
        """Take up what `save` wrote, in place of what is here. A file that is refused changes nothing.

        Args:
            path: As for `save`.

        Raises:
            InputError: If that names no file, or the file was made with another backbone or layer, or holds more or
                other classes than TeachLab takes.
            DataError: If it holds values that are not finite.
            CacheError: If it cannot be read.
        """
        found = load_features(_file(path))
        width = len(self._read(Image.new("RGB", (8, 8))))
        if found.layer != self._layer or found.n_features != width:
            raise InputError(
                f"this file holds {found.layer} with {found.n_features} features, not {self._layer}, {width}."
            )
        classes = _class_names(found.classes)
        if len(found) > _MOST_IMAGES:
            raise InputError(f"TeachLab holds at most {_MOST_IMAGES:,} images; this file holds {len(found):,}.")
        if not found.features.isfinite().all():
            raise DataError("this file holds features that are not finite. Teach the images anew.")
        if found.features.ndim != 2:
            raise InputError("this file holds features token by token, and TeachLab takes one row per image.")
        before = self._features, self._labels, self._thumbnails, list(self.classes)
        self._features = list(found.features)
        self._labels = found.labels.tolist()
        self._thumbnails = [Image.new("RGB", (_KEPT_SIDE, _KEPT_SIDE), "#999999") for _ in self._labels]
        try:
            self.classes = classes
            self._fit()
        except Exception:  # no probe can be fitted to it
            self._features, self._labels, self._thumbnails, self.classes = before
            self._fit()
            raise

    # --- from the browser ---

    def _on_message(self, widget: Any, content: Any, buffers: Any) -> None:
        super()._on_message(widget, content, buffers)
        try:
            self._act_on(content if isinstance(content, dict) else {}, [bytes(b) for b in buffers or []])
        except (FrozenkitError, OSError) as error:
            self.error = str(error)
        except Exception as error:  # ours to mend; but whoever pressed the button must see that something happened
            self.error = f"{type(error).__name__}: {error}"
            raise

    def _act_on(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        if "look" not in content:  # the camera asks five times a second: it must not wipe out what an alert says
            self.error = ""
        if "add" in content:
            good, bad = [], []
            for i, data in enumerate(buffers):
                try:
                    good.append(_decode(data))
                except DataError as error:
                    bad.append(f"image {i + 1}: {error}")
            if good:
                self.add(self.classes[_index(content["add"], self.classes)], good)
            if bad:
                self.error = " ".join(bad)
        elif "look" in content and buffers:
            self.look(_decode(buffers[0]))
        elif "remove" in content:
            self.remove(_index(content["remove"], self._labels))
        elif "sample" in content:
            label = _index(content["sample"], self.classes)
            self.add(self.classes[label], _samples(label, self._labels.count(label)))
        elif "save" in content:
            self.said = f"saved {len(self._labels)} images' features to {self.save(str(content['save']))}"
        elif "load" in content:
            self.load(str(content["load"]))
            self.said = f"loaded {len(self._labels)} images' features; the images themselves are not in the file"

    @traitlets.validate("classes")
    def _validate_classes(self, proposal: Any) -> list[str]:
        names = _class_names(proposal["value"])
        used = 1 + max(self._labels, default=-1)
        if len(names) < used:
            raise InputTraitError(f"class {used} has images; remove them before the class.")
        return names

    @traitlets.observe("classes")
    def _on_classes(self, change: Any) -> None:
        if change["old"]:
            self._fit()

    def _read(self, image: Image.Image) -> torch.Tensor:
        """(d,) features of one image."""
        backbone = self._backbone
        x = backbone.preprocess(image)[None].to(backbone.device)
        with torch.no_grad():
            found = pooled_activations(backbone.module, x, [self._layer], "mean", backbone.trace())
        return found[self._layer][0].float().cpu()

    def _fit(self) -> None:
        counts = [self._labels.count(k) for k in range(len(self.classes))]
        self._probe = None
        if sum(count > 0 for count in counts) >= 2:
            head = "ridge" if min(count for count in counts if count) >= 2 else "prototype"
            with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
                # few images are what this lab is for
                self._probe = fit_probe(self.features, head=head)
        self.live = {}
        self.images, self._grid = make_sprite(self._thumbnails, side=_KEPT_SIDE)
        self._update_answer()

    def _compute(self) -> dict[str, Any]:
        counts = [self._labels.count(k) for k in range(len(self.classes))]
        judged = self._probe is not None and self._probe.kind == "ridge" and self._probe.choice_score is not None
        value = float(self._probe.choice_score or 0.0) if judged and self._probe else None
        n = len(self._labels)
        loo = None
        if value is not None:
            low, high = wilson_interval(round(value * n), n)
            loo = {"value": value, "low": float(low), "high": float(high), "n": n}
        return {
            "counts": counts,
            "labels": list(self._labels),
            "sheet": self._grid,
            "ready": self._probe is not None,
            "loo": loo,
            "note": _note(counts),
        }

    def _summary(self) -> dict[str, Any]:
        counts = self.answer.get("counts", [])
        facts: dict[str, Any] = {"taught": ", ".join(f"{c}: {n}" for c, n in zip(self.classes, counts))}
        if found := self.answer.get("loo"):
            facts["leave-one-out"] = measured(f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
        return facts


def _note(counts: list[int]) -> str:
    used = [count for count in counts if count]
    if len(used) < 2:
        return "Two classes with an image each, and it starts to answer."
    if min(used) < 2:
        return "With one image of a class, all it can do is compare. Two of each, and it can judge itself."
    if max(used) > 3 * min(used):
        return "The classes are unequal: it may favour the larger one. Add images of the smaller."
    if min(used) < 10:
        return "Fewer than ten images of a class: the interval says how little is known yet."
    return ""


def _class_names(values: Sequence[Any]) -> list[str]:
    names = [str(name).strip() for name in values]
    if not 1 <= len(names) <= _MOST_CLASSES or len(set(names)) < len(names) or not all(names):
        raise InputTraitError(f"`classes` must be 1 to {_MOST_CLASSES} different names, got {names}.")
    return names


def _file(path: str | Path) -> Path:
    """The ``.safetensors`` file that a name means; nothing of the name is cut off, so that no other file is meant."""
    text = str(path).strip()
    try:
        file = Path(text).expanduser()
        file.is_dir()
    except (RuntimeError, OSError) as error:  # ~nobody; a name that is too long
        raise InputError(f"`path` must name a file, got {text!r}: {error} Try 'taught.safetensors'.") from error
    if not text or text.endswith("/") or not file.name or file.name == ".." or file.is_dir():
        raise InputError(f"`path` must name a file, got {text!r}. Try 'taught.safetensors'.")
    return file if file.suffix == ".safetensors" else file.with_name(f"{file.name}.safetensors")


def _decode(data: bytes) -> Image.Image:
    """An RGB image from an uploaded file, reduced at once: only a small copy is needed."""
    try:
        small = read_image(data, side=512)
    except DataError as error:
        raise DataError(f"it could not be read as an image: {error}. PNG, JPEG, WebP, GIF and BMP can.") from error
    small.thumbnail((512, 512))
    return small


def _index(value: Any, among: Sequence[Any]) -> int:
    if not isinstance(value, int) or not 0 <= value < len(among):
        raise InputError(f"there is no number {value!r} among {len(among)}.")
    return value


def _samples(label: int, have: int) -> list[Image.Image]:
    """Ten more emoji for a class: the first class gets animals, the second food, and so on."""
    emoji = load_dataset("emoji-google")
    kinds = [1, 2, 4, 0, 3]
    rows = (emoji.labels == kinds[label % len(kinds)]).nonzero().squeeze(1).tolist()
    return [emoji[rows[(have + i) % len(rows)]][0] for i in range(10)]
