"""Probes: fit on train, choose on val or by leave-one-out, report on test.

No function here that fits or chooses takes test data; a finished `Probe` is the first to see it.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from frozenkit.calibration import Reliability, reliability
from frozenkit.errors import DataError, FrozenkitWarning, InputError, UnknownNameError
from frozenkit.features import FeatureSet
from frozenkit.fits import (
    feature_batches,
    fit_module,
    fit_nearest,
    fit_ridge,
    fit_softmax,
    fit_temperature,
    in_batches,
)
from frozenkit.scores import Score, confidently_wrong, r_squared, score

HEADS = ("ridge", "softmax", "prototype", "knn")


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted head: what one layer's features say about the classes.

    Attributes:
        head: ``"ridge"``, ``"softmax"``, ``"prototype"``, ``"knn"``, or the class name of the module that was trained.
        classes: k class names, as in train; empty for regression.
        layer: The layer whose features it was fitted on.
        n_features: d.
        n_train: Number of images fitted on.
        logits_of: Callable (b, d) → (b, present classes): the fitted map, for raw features.
        present: Indices of the classes that had a training image; the others cannot be predicted.
        strength: λ chosen, or None where there is none to choose.
        chosen_on: ``"leave-one-out"``, ``"cross-validation"`` or ``"val"``.
        choice_score: Accuracy there (R² in regression). Having been chosen by, it flatters; test does not.
        temperature: Divides logits before the softmax; fitted on val, else on leave-one-out logits, else 1.
        path: The `RidgePath` or `SoftmaxPath` over all strengths, where there is one.
        settings: What else was chosen, such as the number of neighbours.
    """

    head: str
    classes: tuple[str, ...]
    layer: str
    n_features: int
    n_train: int
    logits_of: Callable[[Tensor], Tensor] = field(repr=False)
    present: Tensor = field(repr=False)
    strength: float | None
    chosen_on: str
    choice_score: float
    temperature: float = 1.0
    path: Any = None
    settings: dict[str, Any] = field(default_factory=dict)

    def logits(self, x: FeatureSet | Tensor) -> Tensor:
        """(n, k) float32 logits on the CPU; −∞ for a class without a training image. (n, m) values in regression."""
        rows = in_batches(self.logits_of, self._batches(x), len(x))
        if not self.classes or len(self.present) == len(self.classes):
            return rows
        full = torch.full((len(rows), len(self.classes)), -torch.inf)
        full[:, self.present] = rows
        return full

    def predict(self, x: FeatureSet | Tensor) -> Tensor:
        """(n,) int64 class indices; in regression the values, shaped like the labels."""
        logits = self.logits(x)
        if self.classes:
            return logits.argmax(1)
        return logits.squeeze(1) if self.settings.get("flat") else logits

    def predict_proba(self, x: FeatureSet | Tensor) -> Tensor:
        """(n, k) float32 probabilities: softmax of logits / temperature."""
        self._need_classes("predict_proba")
        return (self.logits(x) / self.temperature).softmax(1)

    def score(self, test: FeatureSet, *, confidence: float = 0.95) -> Score:
        """The `Score` on images that took no part in fitting or choosing.

        Raises:
            InputError: If `test` has other classes or comes from another layer; in regression (use `r_squared`).
        """
        self._need_classes("score")
        self._check_same_task(test)
        return score(
            self.predict(test), test.labels, n_classes=len(self.classes), confidence=confidence, classes=self.classes
        )

    def r_squared(self, test: FeatureSet) -> float:
        """R² of a regression probe on `test`: 1 is perfect, 0 is the mean of the labels."""
        if self.classes:
            raise InputError("`r_squared` is for regression; this probe predicts classes. Use `score`.")
        return r_squared(self.predict(test).float(), test.labels.float())

    def calibrate(self, val: FeatureSet) -> "Probe":
        """The same probe with the temperature that makes its probabilities likeliest on `val`."""
        self._need_classes("calibrate")
        self._check_same_task(val)
        seen = torch.isin(val.labels, self.present)
        logits, place = self.logits(val)[seen][:, self.present], torch.searchsorted(self.present, val.labels[seen])
        return replace(self, temperature=fit_temperature(logits, place))

    def calibration_error(self, test: FeatureSet, *, bins: int = 15) -> float:
        """Expected calibration error of `predict_proba` on `test`, in [0, 1]."""
        return self.reliability(test, bins=bins).error

    def reliability(self, test: FeatureSet, *, bins: int = 10) -> Reliability:
        """Confidence against accuracy of `predict_proba` on `test`, bin by bin."""
        self._check_same_task(test)
        return reliability(self.predict_proba(test), test.labels, bins=bins)

    def confidently_wrong(self, test: FeatureSet) -> Tensor:
        """Row indices of `test` that are predicted wrong, the most confident mistake first."""
        self._check_same_task(test)
        return confidently_wrong(self.predict_proba(test), test.labels)

    def __repr__(self) -> str:
        details = [f"{k}={v!r}" for k, v in self.settings.items() if k != "flat"]
        if self.strength is not None:
            details.insert(0, f"strength={self.strength:.3g}")
        task = f"{len(self.classes)} classes" if self.classes else "regression"
        return (
            f"Probe({', '.join([self.head, *details])}: {self.n_train} images × {self.n_features} features of "
            f"{self.layer!r}, {task}; {self.chosen_on} {self.choice_score:.3f})"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def _batches(self, x: FeatureSet | Tensor, size: int = 4096) -> Iterator[Tensor]:
        if not isinstance(x, Tensor) and x.layer != self.layer:
            raise InputError(
                f"this probe was fitted on features of {self.layer!r}, got {x.layer!r}. Fit one probe a layer."
            )
        width = x.shape[-1] if isinstance(x, Tensor) else x.n_features
        if width != self.n_features:
            raise InputError(f"`x` must hold {self.n_features} features an image like train, got {width}.")
        return feature_batches(x, size)

    def _check_same_task(self, test: FeatureSet) -> None:
        if tuple(test.classes) != self.classes:
            odd = sorted(set(test.classes) ^ set(self.classes))
            reason = f"these are in only one of them: {odd[:5]}" if odd else "their order differs"
            raise InputError(f"these images must have the classes of train in the same order; {reason}.")
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


def fit_probe(
    train: FeatureSet,
    *,
    head: str | nn.Module = "ridge",
    val: FeatureSet | None = None,
    strengths: Sequence[float] | None = None,
    seed: int = 0,
    center: bool = True,
    normalize: bool = True,
    weights: Tensor | str | None = None,
    scale: str = "soft",
) -> Probe:
    """Fit a head on train features, and choose its strength without seeing test.

    Args:
        train: (n, d) features, n ≥ 2, at least two classes (or float labels for regression).
        head: ``"ridge"`` (least squares on ±1), ``"softmax"`` (multinomial logistic), ``"prototype"`` (nearest class
            mean), ``"knn"``, or an ``nn.Module`` from d features to k logits; a copy of the module is trained.
        val: Where strength, neighbours, epoch and temperature are chosen. Without it: ridge, prototype and knn by
            leave-one-out, softmax by 5-fold cross-validation, a module on a fifth of train, carved out.
        strengths: λ > 0 to choose from, of the mean loss plus λ/2·‖W‖²; None is a wide grid.
        seed: For folds, the carved part and the training of a module.
        center: Prototype and knn: subtract the train mean (SimpleShot).
        normalize: Prototype and knn: scale features to length 1 (SimpleShot).
        weights: Ridge and softmax: (n,) how much each image counts, or ``"balanced"``, by which every class counts
            alike, in fitting and in choosing.
        scale: Ridge, softmax and modules: how features are scaled first, by train alone; see `ridge_path`.

    Returns:
        A `Probe`.

    Raises:
        DataError: If features are not finite, or train has fewer than two images or classes.
        InputError: If `head` is unknown, or strengths, shapes or classes do not fit.

    Warns:
        FrozenkitWarning: If the best strength is at an edge of the grid, a class has no training image, or an
            optimiser did not converge.

    Example:
        >>> x = torch.cat([torch.randn(20, 3), torch.randn(20, 3) + 5])
        >>> labels, ids = torch.arange(40) // 20, tuple(map(str, range(40)))
        >>> train = FeatureSet(x, labels, ("cat", "dog"), ids, "avgpool", "")
        >>> probe = fit_probe(train)
        >>> probe.predict(torch.tensor([[5.0, 5.0, 5.0]]))
        tensor([1])
    """
    if isinstance(head, str) and head not in HEADS:
        raise UnknownNameError("head", head, HEADS, hint="Or pass an nn.Module.")
    trains_module = isinstance(head, nn.Module)
    # Ridge adds up chunks, so a set on disk may stay there; the others need the rows at hand.
    data = train if head == "ridge" or not hasattr(train, "load") else train.load()
    _check_features(data, tokens=trains_module)
    present = _check_labels(data, regression=trains_module or head == "ridge")
    if weights is not None and head not in ("ridge", "softmax"):
        raise InputError("`weights` are for the heads 'ridge' and 'softmax'; the others take every image alike.")
    if scale != "soft" and head in ("prototype", "knn"):
        raise InputError("`scale` is for ridge, softmax and modules; prototype and knn have `center` and `normalize`.")
    if val is not None:
        _check_val(data, val)
    grid = _check_strengths(strengths)
    fit_on = _as_present(data, present)
    choose_on = None if val is None else _as_present(val.load() if hasattr(val, "load") else val, present)
    if isinstance(head, nn.Module):
        found = fit_module(fit_on, choose_on, head, seed, scale)
    else:
        rows = (fit_on.features if isinstance(fit_on, FeatureSet) else fit_on, fit_on.labels)
        val_rows = None if choose_on is None else (choose_on.features, choose_on.labels)
        if head == "ridge":
            found = fit_ridge(rows, val_rows, grid, weights, scale)
        elif head == "softmax":
            found = fit_softmax(rows, val_rows, grid, weights, seed, scale)
        else:
            found = fit_nearest(rows, val_rows, head, {"center": center, "normalize": normalize})
    probe = Probe(
        head=head if isinstance(head, str) else type(head).__name__,
        classes=tuple(data.classes),
        layer=data.layer,
        n_features=data.n_features,
        n_train=len(data),
        present=present,
        **found,
    )
    return probe if val is None or not data.classes else probe.calibrate(val)


def _check_features(data: FeatureSet, *, tokens: bool) -> None:
    shape = tuple(data.features.shape) if isinstance(data, FeatureSet) else tuple(data.shape)
    if len(shape) != 2 and not tokens:
        raise InputError(
            f"`train` must be (n, d) for this head, got tokens {shape}. Average them, or use AttentionHead."
        )
    if len(data) < 2:
        raise DataError(f"`train` must hold at least two images, got {len(data)}.")
    start = 0
    for batch in feature_batches(data):
        bad = (~batch.isfinite()).flatten(1).any(1).nonzero().squeeze(1)
        if len(bad):
            row = start + int(bad[0])
            raise DataError(
                f"`train` must hold finite features, but row {row} ({data.ids[row]!r}) has NaN or infinity. "
                "Extract with precision='exact', or leave the image out."
            )
        start += len(batch)


def _check_labels(data: FeatureSet, *, regression: bool) -> Tensor:
    """Sorted indices of the classes that have a training image; empty for regression."""
    if not data.classes:
        if not regression:
            raise InputError("`head` must be 'ridge' or a module for float labels; this head predicts classes.")
        if not data.labels.isfinite().all():
            row = int((~data.labels.isfinite()).reshape(len(data), -1).any(1).nonzero()[0])
            raise DataError(f"`train` must hold finite labels, but row {row} ({data.ids[row]!r}) does not.")
        return torch.empty(0, dtype=torch.int64)
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


def _check_val(train: FeatureSet, val: FeatureSet) -> None:
    if tuple(val.classes) != tuple(train.classes) or val.layer != train.layer or val.n_features != train.n_features:
        raise InputError(
            "`val` must have the classes, layer and width of train, "
            f"got {val.n_classes} classes and {val.n_features} features of {val.layer!r}."
        )
    if val is train or (val.fingerprint == train.fingerprint != "" and val.ids == train.ids):
        raise InputError("`val` must hold other images than train. Use `split`, or leave it out for leave-one-out.")


def _check_strengths(strengths: Sequence[float] | None) -> list[float] | None:
    if strengths is None:
        return None
    grid = sorted(float(s) for s in np.atleast_1d(np.asarray(strengths, dtype=float)))
    if not grid or not np.isfinite(grid).all() or grid[0] <= 0:
        raise InputError(f"`strengths` must be finite numbers above 0, got {grid[:5]}. For hardly any, try 1e-6.")
    return grid


def _as_present(data: Any, present: Tensor) -> Any:
    """The rows whose class is in train, with labels counting only such classes; the same object if that is all."""
    if not data.classes or len(present) == len(data.classes):
        return data
    loaded = data.load() if hasattr(data, "load") else data
    kept = loaded.subset(torch.isin(loaded.labels, present))
    return kept.relabel(torch.searchsorted(present, kept.labels), [data.classes[i] for i in present.tolist()])
