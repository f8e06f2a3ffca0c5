"""Probes: fit on train, choose on val or by leave-one-out, report on test.

No function here that fits or chooses takes test data; a finished `Probe` is the first to see it.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit._arrays import (
    as_tensor,
    check_finite,
    constant_columns,
    described,
    is_array,
    r_squared,
    whole_number,
)
from frozenkit._files import with_suffix, write_sealed
from frozenkit._outputs import Shown
from frozenkit.errors import DataError, FrozenkitWarning, InputError, UnknownNameError
from frozenkit.features import Features, FeatureSet, as_features, check_val, is_multilabel, load_set
from frozenkit.fingerprint import Origin
from frozenkit.heads.columns import Columns
from frozenkit.heads.logistic import LogisticPath, constant_text
from frozenkit.heads.modules import in_batches
from frozenkit.heads.ridge import LinearMap, RidgePath
from frozenkit.heads.softmax import SoftmaxPath
from frozenkit.heads.training import TrainLog, check_outputs
from frozenkit.probes._choose import (
    as_binary,
    feature_batches,
    fit_logistic,
    fit_module,
    fit_nearest_mean,
    fit_neighbours,
    fit_ridge,
    fit_softmax,
)
from frozenkit.probes.calibration import Reliability, fit_temperature, reliability
from frozenkit.probes.multilabel import multilabel_score
from frozenkit.probes.recipe import probe_recipe
from frozenkit.probes.scores import confidently_wrong, score
from frozenkit.probes.stored import VERSION, describe_probe, probe_facts

HEADS = ("ridge", "softmax", "prototype", "knn", "logistic")
_LINEAR, _NEAREST, _MULTILABEL = ("ridge", "softmax", "logistic"), ("prototype", "knn"), ("logistic", "ridge")


@dataclass(frozen=True, eq=False)
class Probe(Shown):
    """A fitted head: what one layer's features say about the classes.

    Its methods take `Features`, read in batches, or an (X, y) pair of arrays. Those that need no labels also take
    (n, d) arrays: NumPy, torch, pandas, or lists. A row with NaN or infinity is an error that names it.

    Attributes:
        kind: ``"ridge"``, ``"softmax"``, ``"logistic"``, ``"prototype"``, ``"knn"``, or the class name of the module
            that was trained.
        classes: k class names, or those of k labels, as in train; empty for regression.
        layer: The layer whose features it was fitted on.
        n_features: d.
        n_train: Number of images of train, those carved out to choose on included.
        label_shape: Shape of one label: ``()``; ``(m,)`` in a regression of m numbers, ``(k,)`` of k labels per image.
        head: The fitted map, for raw features: (b, d) → (b, present classes), or (b, numbers) in regression.
        present: Indices of the classes that had a training image; the others cannot be predicted.
        strength: λ chosen, or None where there is none to choose.
        chosen_on: ``"leave-one-out"``, ``"cross-validation"`` or ``"val"``.
        choice_score: Accuracy there; R² in regression, mean average precision of several labels. Having been chosen by,
            it flatters; test does not.
        temperature: Divides logits before the softmax, or the sigmoid of several labels; fitted on val, else on logits
            of rows left out, else 1.
        strength_path: The `RidgePath`, `SoftmaxPath` or `LogisticPath` of all strengths, where there is one.
        log: The `TrainLog` of a module.
        settings: What else was chosen, such as the number of neighbours.
        origin: How the features of train were made, where they say so.
        given: Arguments of `fit_probe` beside train and head that were given, as JSON; in place of arrays a word.
    """

    kind: str
    classes: tuple[str, ...]
    layer: str
    n_features: int
    n_train: int
    label_shape: tuple[int, ...]
    head: LinearMap | nn.Module
    present: Tensor
    strength: float | None
    chosen_on: str
    choice_score: float
    temperature: float
    strength_path: RidgePath | SoftmaxPath | LogisticPath | None
    log: TrainLog | None
    settings: dict[str, int]
    origin: Origin | None = None
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def is_multilabel(self) -> bool:
        """Whether an image may have any number of the labels."""
        return bool(self.classes and self.label_shape)

    def logits(self, x: Features | Any) -> Tensor:
        """(n, k) float32 logits on the CPU; −∞ for a class without a training image. (n, m) values in regression.

        Raises:
            InputError: If `x` holds no features, or those of another layer, width or number of dimensions.
            DataError: If a row is not finite; the message names it.
        """
        x = as_tensor(x, "x") if is_array(x) else as_features(x, "x", labelled=False)  # an array needs no ids
        rows = in_batches(self.head, self._batches(x), len(x))
        if not self.classes or len(self.present) == len(self.classes):
            return rows
        full = torch.full((len(rows), len(self.classes)), -torch.inf)
        full[:, self.present] = rows
        return full

    def predict(self, x: Features | Any) -> Tensor:
        """(n,) int64 indices of `classes`; in regression the values, shaped like the labels. Raises like `logits`.

        Of several labels (n, k) booleans: those with a probability above ½.
        """
        logits = self.logits(x)
        if self.is_multilabel:
            return logits > 0
        if self.classes:
            return logits.argmax(1)
        return logits.reshape(len(logits), *self.label_shape)

    def predict_proba(self, x: Features | Any) -> Tensor:
        """(n, k) float32 probabilities: softmax of logits / temperature. Raises like `logits`.

        Of several labels each has its own, the sigmoid of logits / temperature.
        """
        self._need_classes("predict_proba")
        scaled = self.logits(x) / self.temperature
        return scaled.sigmoid() if self.is_multilabel else scaled.softmax(1)

    def score(self, test: Features | Any, labels: Any = None, *, confidence: float = 0.95) -> Any:
        """The `Score` on images that took no part in fitting or choosing; of several labels a `MultiLabelScore`.

        Args:
            test: Features with labels; or (n, d) arrays, with `labels` as `FeatureSet.from_arrays` takes them.
            labels: Of arrays.
            confidence: Of the interval, in (0, 1).

        Raises:
            InputError: If `test` has no labels or other classes, or as `logits` does; in regression (use `r_squared`).
            DataError: If a row is not finite; the message names it.
        """
        self._need_classes("score")
        test = self._labelled(test, labels)
        self._check_same_task(test)
        if self.is_multilabel:
            return multilabel_score(
                self.logits(test), test.labels.cpu(), threshold=0, classes=self.classes, confidence=confidence
            )
        return score(
            self.predict(test),
            test.labels.cpu(),
            n_classes=len(self.classes),
            confidence=confidence,
            classes=self.classes,
        )

    def r_squared(self, test: Features | Any, labels: Any = None) -> float:
        """R² of a regression probe on `test`, given as in `score`: 1 is perfect, 0 is the mean of the labels."""
        if self.classes:
            raise InputError("`r_squared` is for regression; this probe predicts classes. Use `score`.")
        test = self._labelled(test, labels)
        found = self.predict(test).float()
        if test.classes or test.labels.shape != found.shape:
            raise InputError(
                f"`test` must have numbers as labels, shaped {tuple(found.shape)} as in train, got "
                f"{'classes' if test.classes else tuple(test.labels.shape)}."
            )
        return r_squared(found, test.labels.cpu().float())

    def calibrate(self, val: Features) -> "Probe":
        """The same probe with the temperature that makes its probabilities likeliest on `val`."""
        self._need_classes("calibrate")
        val = self._labelled(val, None, "val")
        self._check_same_task(val)
        labels = val.labels.cpu()
        if self.is_multilabel:
            return replace(
                self,
                given={**self.given, "val": "…"},
                temperature=fit_temperature(*as_binary(self.logits(val), labels)),
            )
        seen = torch.isin(labels, self.present)
        logits, place = self.logits(val)[seen][:, self.present], torch.searchsorted(self.present, labels[seen])
        return replace(self, given={**self.given, "val": "…"}, temperature=fit_temperature(logits, place))

    def calibration_error(self, test: Features, *, bins: int = 15) -> float:
        """Expected calibration error of `predict_proba` on `test`, in [0, 1]."""
        return self.reliability(test, bins=bins).error

    def reliability(self, test: Features, *, bins: int = 10) -> Reliability:
        """Confidence against accuracy of `predict_proba` on `test`, bin by bin."""
        self._need_one_class("reliability")
        test = self._labelled(test, None)
        self._check_same_task(test)
        return reliability(self.predict_proba(test), test.labels.cpu(), bins=bins)

    def confidently_wrong(self, test: Features) -> Tensor:
        """Row indices of `test` that are predicted wrong, the most confident mistake first."""
        self._need_one_class("confidently_wrong")
        test = self._labelled(test, None)
        self._check_same_task(test)
        return confidently_wrong(self.predict_proba(test), test.labels.cpu())

    def recipe(self) -> str:
        """The few lines of Python that fit this probe again; what is not known is marked ``TO FILL IN``.

        Features must say how they were made (`origin`), and their images come from `load_dataset` or `image_folder`.
        """
        return probe_recipe(probe_facts(self))

    def save(self, path: str | Path) -> None:
        """Writes the probe to one safetensors file, without pickle: written aside, renamed, and sealed by a sha256.

        `load_probe` reads it. The path of strengths and the log of training stay behind.

        Args:
            path: Ends in ``.safetensors``; a file that is there is replaced.

        Raises:
            InputError: If the suffix is another one, or the head cannot be saved.
            CacheError: If the file cannot be written; what was there is still there.
        """
        about, tensors = describe_probe(self)
        write_sealed(with_suffix(path, ".safetensors"), "probe", VERSION, about, tensors)

    def __repr__(self) -> str:
        details = [f"{k}={v!r}" for k, v in self.settings.items()]
        if self.strength is not None:
            details.insert(0, f"strength={self.strength:.3g}")
        task = f"{len(self.classes)} classes" if self.classes else "regression"
        task = f"any of {len(self.classes)} labels" if self.is_multilabel else task
        return (
            f"Probe({', '.join([self.kind, *details])}: {self.n_train} images × {self.n_features} features of "
            f"{self.layer!r}, {task}; {self.chosen_on} {self.choice_score:.3f})"
        )

    def _batches(self, x: Any, size: int = 4096) -> Iterator[Tensor]:
        is_tensor = isinstance(x, Tensor)
        if not is_tensor and x.layer != self.layer:
            raise InputError(
                f"this probe was fitted on features of {self.layer!r}, got {x.layer!r}. Fit one probe per layer."
            )
        shape = tuple(x.shape)
        if len(shape) < 2:
            raise InputError(f"`x` must be (n, {self.n_features}), got shape {shape}. A single image is x[None].")
        if shape[-1] != self.n_features:
            raise InputError(f"`x` must hold {self.n_features} features per image like train, got {shape[-1]}.")
        if len(shape) > 3 or (len(shape) == 3 and self.kind in HEADS):
            raise InputError(f"`x` must be (n, {self.n_features}) for this head, got tokens {shape}. Average them.")
        return _finite_batches(x, "x", size)

    def _labelled(self, test: Any, labels: Any, name: str = "test") -> Features:
        """`test` with labels."""
        classes, several = self.classes or None, self.is_multilabel
        return as_features(test, name, labels, multilabel=several, classes=classes, layer=self.layer)

    def _check_same_task(self, test: Features) -> None:
        if tuple(test.classes) != self.classes:
            odd = sorted(set(test.classes) ^ set(self.classes))
            reason = f"these are in only one of them: {odd[:5]}" if odd else "their order differs"
            raise InputError(f"these images must have the classes of train in the same order; {reason}.")
        if self.is_multilabel:
            if not is_multilabel(test):
                raise InputError(
                    f"these images must have any of {len(self.classes)} labels each, (n, {len(self.classes)}) booleans "
                    "like train, got one class each."
                )
            return
        missing = sorted(set(test.labels.unique().tolist()) - set(self.present.tolist()))
        if missing:
            names = ", ".join(repr(self.classes[i]) for i in missing[:5])
            warnings.warn(
                f"{names} had no training image, so each of its images here counts as wrong.",
                FrozenkitWarning,
                stacklevel=3,
            )

    def _need_classes(self, what: str) -> None:
        if not self.classes:
            raise InputError(f"`{what}` needs classes; this probe is a regression. Use `predict` and `r_squared`.")

    def _need_one_class(self, what: str) -> None:
        if self.is_multilabel:
            raise InputError(
                f"`{what}` needs one class per image; this probe predicts any of {len(self.classes)} labels. "
                "Use `score`, or fit one label by itself: train.relabel(train.labels[:, 0], ['without', 'with'])."
            )


def fit_probe(
    train: Features | Any,
    labels: Any = None,
    *,
    head: str | nn.Module = "ridge",
    val: Features | Any = None,
    strengths: Sequence[float] | None = None,
    seed: int = 0,
    center: bool | None = None,
    normalize: bool | None = None,
    sample_weight: Tensor | str | None = None,
    scale: str | None = None,
) -> Probe:
    """Fit a head on train features, and choose its strength without seeing test.

    Args:
        train: (n, d) features, n ≥ 2, at least two classes (or float labels for regression, or several labels per
            image, each in some images and not in others): `Features`, read in chunks for ridge and loaded for the other
            heads; an (X, y) pair of arrays; or an array, with `labels`.
        labels: Of an array: names, class indices or numbers, as `FeatureSet.from_arrays` takes them.
        head: ``"ridge"`` (least squares on ±1), ``"softmax"`` (multinomial logistic), ``"prototype"`` (nearest class
            mean), ``"knn"``, or an ``nn.Module`` from d features to k logits; a copy of the module is trained.
            Where an image may have several labels: ``"logistic"`` (a logistic regression of each) or ``"ridge"``.
        val: Where strength, neighbours, epoch and temperature are chosen. Without it: ridge, prototype and knn by
            leave-one-out, softmax and logistic by 5-fold cross-validation, a module on a fifth of train, carved out.
            Other images than train, a set or an (X, y) pair of arrays; it is loaded.
        strengths: Linear heads: λ > 0 to choose from, of the mean loss plus λ/2·‖W‖²; None is a wide grid.
        seed: For folds, the carved part and the training of a module.
        center: Prototype and knn: subtract the train mean (SimpleShot); True if not given.
        normalize: Prototype and knn: scale features to length 1 (SimpleShot); True if not given.
        sample_weight: Linear heads: (n,) how much each image counts, or ``"balanced"``, by which every class
            counts alike. So in fitting and in choosing; but on val, of which no weights are known, numbers for each
            image of train do not count, and ``"balanced"`` does.
        scale: Linear heads and modules: how features are scaled first, by train alone, as in `ridge_path`; "soft" if
            not given.

    Returns:
        A `Probe`.

    Raises:
        DataError: If features of train or val are not finite, all images of train have the same features or number, or
            train has fewer than two images or classes, or one of several labels is in all of its images or in none.
        InputError: If `head` is neither a known name nor a module with one output per class; if something is no set of
            features, strengths, shapes or classes do not fit, an argument belongs to another head, or an image of val
            is one of train.

    Warns:
        FrozenkitWarning: If the best strength is at an edge of the grid, a class has no training image, or an
            optimiser did not converge.

    Example:
        >>> x = torch.cat([torch.randn(20, 3), torch.randn(20, 3) + 5])
        >>> train = FeatureSet.from_arrays(x, ["cat"] * 20 + ["dog"] * 20, layer="avgpool")
        >>> probe = fit_probe(train)
        >>> probe.predict(torch.tensor([[5.0, 5.0, 5.0]]))
        tensor([1])
        >>> fit_probe([[0.0], [0.1], [1.0], [1.1]], ["low", "low", "high", "high"], head="prototype").classes
        ('high', 'low')
        >>> tags = [["warm"], ["warm", "wide"], [], ["wide"], ["warm"], [], ["wide"], ["warm", "wide"]]
        >>> wide = torch.tensor([[2.0, 0], [2, 3], [0, 0], [0, 3], [2, 0], [0, 0], [0, 3], [2, 3]])
        >>> fit_probe(wide, tags, head="logistic", strengths=[0.01]).predict(torch.tensor([[2.0, 3.0]]))
        tensor([[True, True]])
    """
    train, seed = as_features(train, "train", labels, multilabel=True), whole_number("seed", seed, least=0)
    _check_head(head, train)
    name = head if isinstance(head, str) else type(head).__name__
    options = {"val": val, "scale": scale, "center": center, "normalize": normalize, "sample_weight": sample_weight}
    given: dict[str, Any] = {
        key: value if isinstance(value, str | bool) else "…" for key, value in options.items() if value is not None
    }
    given |= {"seed": seed} if seed else {}
    _check_options(
        head, strengths=strengths, sample_weight=sample_weight, scale=scale, center=center, normalize=normalize
    )
    # Ridge adds up chunks, so features on disk may stay there; the others need the rows at hand.
    data = train if head == "ridge" else load_set(train, "train", multilabel=True)
    _check_features(data, tokens=isinstance(head, nn.Module))
    present = _check_labels(data, regression=isinstance(head, nn.Module) or head == "ridge")
    if val is not None:
        val = _as_val(data, val, present)
    scale = "soft" if scale is None else scale
    fit_on = _as_present(data, present)
    choose_on = None if val is None else _as_present(val, present)
    if isinstance(head, nn.Module):
        check_outputs(head, data)
        if 0 < len(present) < len(data.classes):
            head = nn.Sequential(head, Columns(present))
        fit = fit_module(fit_on, choose_on, head, seed, scale)
    else:
        rows = (fit_on if head == "ridge" else _precise(fit_on.features), fit_on.labels.cpu())
        val_rows = None if choose_on is None else (choose_on.features, choose_on.labels)
        if head == "ridge":
            fit = fit_ridge(rows, val_rows, strengths, sample_weight, scale)
        elif head in ("softmax", "logistic"):
            fit_by_folds = fit_softmax if head == "softmax" else fit_logistic
            fit = fit_by_folds(rows, val_rows, strengths, sample_weight, seed, scale)
        else:
            fit_by_distance = fit_nearest_mean if head == "prototype" else fit_neighbours
            fit = fit_by_distance(rows, val_rows, center=center is not False, normalize=normalize is not False)
    probe = Probe(
        kind=name,
        classes=tuple(data.classes),
        layer=data.layer,
        n_features=data.n_features,
        n_train=len(data),
        label_shape=tuple(data.labels.shape[1:]),
        head=fit.head,
        present=present,
        strength=fit.strength,
        chosen_on=fit.chosen_on,
        choice_score=fit.choice_score,
        temperature=fit.temperature,
        strength_path=fit.strength_path,
        log=fit.log,
        settings=fit.settings,
        origin=getattr(data, "origin", None),
        given=given,
    )
    return probe if val is None or not data.classes else probe.calibrate(val)


def _check_head(head: Any, train: Any) -> None:
    if isinstance(head, nn.Module) or (isinstance(head, str) and head in HEADS):
        if is_multilabel(train) and head not in _MULTILABEL:
            got = repr(head) if isinstance(head, str) else described(head)
            raise InputError(
                f"`head` must be 'logistic' or 'ridge' where an image may have several labels, got {got:.80}. If each "
                "has exactly one, give train.relabel(train.labels.int().argmax(1), train.classes)."
            )
        if head == "logistic" and not is_multilabel(train):
            raise InputError(
                "`head` must be 'softmax' for logistic regression with one class per image; 'logistic' is for several "
                "labels per image, given as lists of names, or as (n, k) columns of 0 and 1."
            )
        return
    if isinstance(head, str):
        raise UnknownNameError("head", head, HEADS, hint="Or pass an nn.Module.")
    names = ", ".join(map(repr, HEADS))
    if isinstance(head, type) and issubclass(head, nn.Module):
        hint = f"Pass an instance: {head.__name__}({train.n_features}, {train.n_classes or 1})."
    elif hasattr(head, "fit") and hasattr(head, "predict"):
        hint = "Fit that one by itself: X, y = train.numpy()."
    else:
        hint = f"Write an nn.Module from {train.n_features} features to {train.n_classes or 1} logits."
    raise InputError(f"`head` must be one of {names}, or an nn.Module, got {described(head)}. {hint}")


def _check_options(head: Any, **given: Any) -> None:
    """Nothing that was given is ignored."""
    takes = {
        "strengths": _LINEAR,
        "sample_weight": _LINEAR,
        "scale": (*_LINEAR, "a module"),
        "center": _NEAREST,
        "normalize": _NEAREST,
    }
    kind = head if isinstance(head, str) else "a module"
    for name, value in given.items():
        if value is not None and kind not in takes[name]:
            *others, last = takes[name]
            raise InputError(f"`{name}` must be left out for {kind!r}: it is for {', '.join(others)} and {last}.")


def _precise(x: Tensor) -> Tensor:
    """Half precision in float32, which every head can compute with."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _finite_batches(x: Any, name: str, size: int = 4096) -> Iterator[Tensor]:
    """float32 batches on the CPU; the first row with NaN or infinity is named."""
    ids, start = None if isinstance(x, Tensor) else x.ids, 0
    for batch in feature_batches(x, size):
        rows = batch.cpu()
        check_finite(rows, name, ids, start)
        start += len(rows)
        yield rows


def _check_features(data: Features, *, tokens: bool) -> None:
    shape = data.shape
    if len(shape) != 2 and not tokens:
        raise InputError(
            f"`train` must be (n, d) for this head, got tokens {shape}. Average them, or use AttentionHead."
        )
    if len(data) < 2 or shape[-1] < 1:
        raise DataError(f"`train` must hold at least two images of one feature, got {len(data)} of {shape[-1]}.")
    first, varies = None, False
    for batch in _finite_batches(data, "train"):
        first = batch[:1] if first is None else first
        varies = varies or bool((batch != first).any())
    if not varies:
        raise DataError(
            f"`train` must hold features that vary, but all {len(data)} images have the same. Look at the images: are "
            "they all alike?"
        )


def _check_labels(data: Features, *, regression: bool) -> Tensor:
    """Sorted indices of the classes that have a training image; empty for regression."""
    if not data.classes:
        if not regression:
            raise InputError("`head` must be 'ridge' or a module for float labels; this head predicts classes.")
        _check_numbers(data, "train")
        return torch.empty(0, dtype=torch.int64)
    if is_multilabel(data):
        if constant := constant_columns(data.labels.cpu()):
            raise DataError(
                "`train` must hold images with each label and images without it, but "
                f"{constant_text(constant, data.classes)}. Leave such labels out: keep = train.labels.any(0) & "
                "~train.labels.all(0), and relabel with labels[:, keep] and their names."
            )
        return torch.arange(data.n_classes)
    present = data.labels.unique().cpu()
    if len(present) < 2:
        raise DataError(
            f"`train` must hold images of at least two classes, got only {data.classes[int(present[0])]!r}."
        )
    if len(present) < len(data.classes):
        missing = sorted(set(range(len(data.classes))) - set(present.tolist()))
        names = ", ".join(repr(data.classes[i]) for i in missing[:5]) + ", …" * (len(missing) > 5)
        warnings.warn(
            f"{len(missing)} of {len(data.classes)} classes have no training image and cannot be predicted: {names}.",
            FrozenkitWarning,
            stacklevel=3,
        )
    return present


def _check_numbers(data: Any, name: str) -> None:
    """Labels of a regression: finite, and not all the same."""
    check_finite(data.labels, f"{name}.labels", data.ids)
    if (data.labels == data.labels[:1]).all():
        raise DataError(f"`{name}` must hold labels that vary, but all are {data.labels[0].tolist()}.")


def _as_val(train: Any, val: Any, present: Tensor) -> FeatureSet:
    """val in memory, if it is fit to choose on."""
    classes = {"classes": train.classes} if train.classes else {}
    several = is_multilabel(train)
    val = load_set(as_features(val, "val", layer=train.layer, multilabel=several, **classes), "val", multilabel=several)
    check_val(train, val)
    if several:
        if not val.labels.any():
            raise DataError(f"`val` must hold at least one image with a label, got {len(val)} images.")
    elif not len(val) or (val.classes and not torch.isin(val.labels, present).any()):
        raise DataError(f"`val` must hold at least one image of a class that train has, got {len(val)} images.")
    check_finite(val.features, "val", val.ids)
    if not val.classes:
        _check_numbers(val, "val")
    return val


def _as_present(data: Any, present: Tensor) -> Any:
    """The rows whose class is in train, with labels counting only such classes; the same object if that is all."""
    if not data.classes or len(present) == len(data.classes):
        return data
    loaded = load_set(data, "train")
    kept = loaded.subset(torch.isin(loaded.labels, present))
    return kept.relabel(torch.searchsorted(present, kept.labels), [data.classes[i] for i in present.tolist()])
