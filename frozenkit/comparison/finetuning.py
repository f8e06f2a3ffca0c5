"""Fine-tuning: what a frozen probe is compared with, trained on the same images and chosen on the same val."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit._arrays import as_tensor, described, real_number, whole_number
from frozenkit._progress import progress_bar
from frozenkit.comparison._checkpoint import Checkpoint
from frozenkit.comparison._loop import AUGMENTATIONS, Tuning
from frozenkit.errors import DataError, InputError, UnknownNameError
from frozenkit.extraction.cache import FeatureCache
from frozenkit.extraction.extract import extract, fingerprint_of
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Fingerprint, digest_module
from frozenkit.heads.modules import LinearHead, in_batches
from frozenkit.heads.ridge import LinearMap
from frozenkit.images.dataset import ImageDataset
from frozenkit.networks.backbone import Backbone
from frozenkit.networks.layers import pooled_shape
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.probes.scores import Score, score

# All are run, and the best on val counts: a rate that was not chosen understates the gap.
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
STARTS = ("probe", "zero", "random")
LEAST_LOSS = 0.05  # nats; a head that is surer of the images it was fitted on leaves no gradient to learn by


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A fine-tuned network, and how it came about.

    Attributes:
        backbone: The tuned backbone, a `Backbone` like any other: its features can be extracted and compared.
        head: The head on its `layer`, in eval mode.
        layer: The layer that the head reads.
        classes: k names.
        history: One dict an epoch: ``epoch`` (0 is the start), ``lr``, ``train_loss``, ``val_loss``, ``val_score``,
            ``seconds``; of the chosen learning rate.
        lr: The learning rate chosen; with one trial, the one that was given.
        trials: Learning rate to its best val score; NaN where the loss was no longer finite.
        best_epoch: The epoch whose weights these are, by val score, then val loss; at least 1.
        val_score: Accuracy on val in that epoch. Having been chosen by, it flatters; test does not.
    """

    backbone: Backbone
    head: nn.Module
    layer: str
    classes: tuple[str, ...]
    history: tuple[dict[str, float], ...]
    lr: float
    trials: dict[float, float]
    best_epoch: int
    val_score: float

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the epochs at the chosen learning rate."""
        return sum(row["seconds"] for row in self.history)

    @property
    def note(self) -> str:
        """What to know about the rate: that it was not chosen, or lies at the edge of those tried; else empty."""
        if len(self.trials) == 1:
            return "the only rate tried, so not chosen"
        if self.lr == max(self.trials):
            return f"the highest rate tried: extend `lr` upwards, such as {3 * self.lr:.1g}"
        if self.lr == min(self.trials):
            return f"the lowest rate tried: extend `lr` downwards, such as {self.lr / 3:.1g}"
        return ""

    def logits(self, dataset: ImageDataset) -> Tensor:
        """(n, k) float32, on the CPU."""
        features = extract(self.backbone, dataset, layer=self.layer, precision="exact", progress=False)
        return in_batches(self.head, iter(features.features.split(4096)), len(dataset))

    def predict(self, dataset: ImageDataset) -> Tensor:
        """(n,) int64 class indices."""
        return self.logits(dataset).argmax(1)

    def predict_proba(self, dataset: ImageDataset) -> Tensor:
        """(n, k) float32 probabilities."""
        return self.logits(dataset).softmax(1)

    def score(self, dataset: ImageDataset) -> Score:
        """The `Score` on images that took no part in training or choosing.

        Raises:
            InputError: If `dataset` has other classes.
        """
        if tuple(dataset.classes) != self.classes:
            raise InputError("`dataset` must have the classes of train in the same order.")
        return score(self.predict(dataset), dataset.labels, n_classes=len(self.classes), classes=self.classes)

    def to_frame(self) -> Any:
        """A pandas table with one row an epoch."""
        import pandas as pd

        return pd.DataFrame(self.history).set_index("epoch")

    def __repr__(self) -> str:
        return (
            f"FineTuned({self.backbone.name}: {len(self.history) - 1} epochs at {self.lr:g}"
            f"{f' ({self.note})' if self.note else ''} in {self.seconds:.0f} s, "
            f"best epoch {self.best_epoch} with val score {self.val_score:.3f})"
        )

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(float_format="{:.3g}".format, border=0)
        return f"<p>{escape(repr(self))}</p>{table}"


def finetune(
    backbone: Backbone,
    train: ImageDataset,
    val: ImageDataset,
    *,
    start: str | Probe = "probe",
    unfreeze: str | int = "all",
    epochs: int = 5,
    lr: float | Sequence[float] = LEARNING_RATES,
    batch_size: int = 32,
    batch_norm: str = "eval",
    augment: str = "none",
    precision: str = "auto",
    patience: int | None = None,
    layer: str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
    cache: FeatureCache | None = None,
    progress: bool | Callable[[int, int], None] | None = None,
) -> FineTuned:
    """Train a copy of the backbone together with a linear head; the given backbone is left untouched.

    AdamW with a short linear warm-up and a cosine to zero; the epoch with the best val score is kept. To measure a
    gap, give train and val the very images that the frozen probe was fitted and chosen on.

    Args:
        backbone: From `load_backbone`.
        train: n images.
        val: Other images with the same classes: they choose the learning rate and the epoch.
        start: The head's first weights. ``"probe"``: those of a ridge probe fitted on the frozen features of train and
            chosen on val, so that the backbone is not torn about by a head that knows nothing (LP-FT); ``"zero"``;
            ``"random"``; or a linear `Probe` of that layer. A probe's logits are divided by its temperature, and by
            more where its mean loss on train would lie below 0.05: certain of everything, it would leave no gradient.
            What it predicts stays the same.
        unfreeze: ``"all"``, or m for the last m of `Backbone.stages`; 0 trains the head alone.
        epochs: Passes over train, at least 1.
        lr: Several learning rates: each is run to its end, and the best on val is kept; if it is the highest or lowest
            of them, the result's `note` says which way to extend. Or one rate, which is several times as quick: it is
            not chosen then, and understates the gap unless it was chosen before.
        batch_size: Images a step.
        batch_norm: ``"eval"`` keeps the statistics of pretraining, ``"train"`` renews them (from scratch: needed).
        augment: ``"none"``, ``"flip"`` (left to right, half of the images), or ``"crop"`` (flip, and a shift of up to
            an eighth of the side, reflected at the border).
        precision: ``"exact"`` is float32, ``"fast"`` bfloat16 autocast; ``"auto"`` is fast on a GPU that multiplies
            bfloat16, and exact on a CPU, where autocast is slower.
        patience: Epochs without a better one on val before stopping; None never stops early.
        layer: What the head reads, averaged over positions; default the backbone's. For a fair comparison name the
            layer that the probe reads: what comes after it is left out.
        seed: Of the order of images, augmentation and a random head.
        device: Where to train.
        checkpoint: A file that is written after every epoch and removed at the end. Where it exists, training goes on
            from it, to the same weights as without the interruption.
        cache: For the frozen features that ``start="probe"`` needs.
        progress: As in `extract`, counted in images over all epochs and rates.

    Returns:
        A `FineTuned`.

    Raises:
        InputError: If a setting is out of range, val does not fit train, or there is a checkpoint and the backbone's
            preprocessing is random.
        DataError: If the loss is no longer finite at any learning rate.
        CacheError: If `checkpoint` is of other images, another backbone or other settings, or cannot be read.

    References:
        A. Kumar et al. (2022), Fine-tuning can distort pretrained features and underperform out-of-distribution, ICLR.
    """
    given = lr if isinstance(lr, str | bytes) or hasattr(lr, "__len__") else [real_number("lr", lr)]
    rates = [float(rate) for rate in as_tensor(given, "lr").flatten()]
    seed = whole_number("seed", seed, least=0)
    _check_settings(rates, epochs, batch_size, batch_norm, augment, precision, patience)
    if not isinstance(backbone, Backbone):
        raise InputError(f"`backbone` must be a Backbone, got {described(backbone)}. See load_backbone.")
    _check_sets(train, val)
    layer = backbone.check_layer(layer or backbone.default_layer)
    head = _first_head(backbone, train, val, start, layer, seed, cache)
    target = Backbone(
        copy.deepcopy(backbone.module),
        backbone.preprocess,
        name=f"{backbone.name} (fine-tuned)",
        image_size=backbone.image_size,
        default_layer=layer,
        n_prefix_tokens=backbone.n_prefix_tokens,
        device=device,
    )
    run = Tuning(target, head, train, val, unfreeze, epochs, batch_size, batch_norm, augment, precision, seed)
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        settings = {
            "frozen": dict(fingerprint_of(backbone, train, layer, precision="exact").ingredients),
            "val": val.digest,
            "start": start if isinstance(start, str) else digest_module(head),
            "rates": rates,
            "settings": [layer, unfreeze, epochs, batch_size, batch_norm, augment, precision, seed],
        }
    saved = Checkpoint(checkpoint, Fingerprint(settings).digest)
    total = epochs * len(rates) * len(train)
    with progress_bar(progress, total, f"fine-tuning {backbone.name}") as advance:
        best, trials = _train(run, rates, epochs, patience, saved, advance)
    run.load(best["kept"])
    saved.remove()
    history = tuple(best["history"])
    best_epoch = int(best["best_epoch"])
    target.module.eval().requires_grad_(False)
    return FineTuned(
        backbone=target,
        head=run.head.cpu().eval().requires_grad_(False),
        layer=layer,
        classes=tuple(train.classes),
        history=history,
        lr=best["lr"],
        trials=trials,
        best_epoch=best_epoch,
        val_score=history[best_epoch]["val_score"],
    )


def _train(
    run: Tuning,
    rates: list[float],
    epochs: int,
    patience: int | None,
    saved: Checkpoint,
    advance: Callable[[int], None],
) -> tuple[dict[str, Any], dict[float, float]]:
    """All epochs at every rate; (the winner's weights and history, rate → its best val score)."""
    # `best` is the winner so far; `now` is what training goes on from in the middle of a rate.
    progress: dict[str, Any] = saved.load() or {"trials": {}, "best": None, "now": None}
    trials: dict[float, float] = progress["trials"]
    origin = run.state()
    begin = {"epoch": 0, "lr": 0.0, "train_loss": math.nan, **run.evaluate(), "seconds": 0.0}
    advance(run.n * epochs * len(trials))
    for rate in rates:
        if rate in trials:
            continue
        run.restart(rate)
        if progress["now"] is None:
            run.load(origin)
            mine: dict[str, Any] = {"lr": rate, "history": [begin], "best_epoch": 0, "kept": origin}
        else:
            mine = progress["now"]["mine"]
            run.load(progress["now"]["weights"])
            run.load_optimiser(progress["now"]["optimiser"])
            advance(run.n * (len(mine["history"]) - 1))
        for epoch in range(len(mine["history"]), epochs + 1):
            row = run.epoch(epoch, advance)
            if _merit(row) == _DIVERGED:
                break
            mine["history"].append(row)
            if mine["best_epoch"] == 0 or _merit(row) > _merit(mine["history"][mine["best_epoch"]]):
                mine |= {"best_epoch": epoch, "kept": run.state()}
            progress["now"] = {"mine": mine, "weights": run.state(), "optimiser": run.optimiser_state()}
            saved.write(progress)
            if patience is not None and epoch - mine["best_epoch"] >= patience:
                break
        trials[rate] = mine["history"][mine["best_epoch"]]["val_score"] if mine["best_epoch"] else math.nan
        if mine["best_epoch"] and (progress["best"] is None or _final(mine) > _final(progress["best"])):
            progress["best"] = mine
        progress["now"] = None
        saved.write(progress)
    if progress["best"] is None:
        raise DataError(f"the loss must stay finite, but did not at any learning rate of {rates}. Try 1e-5.")
    return progress["best"], trials


_DIVERGED = (-math.inf, -math.inf)


def _final(run: dict[str, Any]) -> tuple[float, float]:
    return _merit(run["history"][run["best_epoch"]])


def _merit(row: dict[str, float]) -> tuple[float, float]:
    """Val score, then val loss; what is not finite is below everything."""
    if not math.isfinite(row["train_loss"]) or not math.isfinite(row["val_loss"]):
        return _DIVERGED
    return row["val_score"], -row["val_loss"]


def _first_head(
    backbone: Backbone,
    train: ImageDataset,
    val: ImageDataset,
    start: str | Probe,
    layer: str,
    seed: int,
    cache: FeatureCache | None,
) -> LinearHead:
    shape = pooled_shape(backbone.trace(), layer, "mean")
    if not isinstance(start, Probe) and (not isinstance(start, str) or start not in STARTS):
        raise UnknownNameError("start", start, STARTS, hint="Or give a fitted linear probe.")

    def features_of(images: ImageDataset) -> FeatureSet:
        return extract(backbone, images, layer=layer, precision="exact", cache=cache, progress=False)

    fitted_on = features_of(train) if start == "probe" or isinstance(start, Probe) else None
    if start == "probe" and fitted_on is not None:
        start = fit_probe(fitted_on, val=features_of(val), seed=seed)
    if isinstance(start, Probe):
        found = start.head
        if not isinstance(found, LinearMap) or start.layer != layer or start.classes != tuple(train.classes):
            raise InputError(
                f"`start` must be a ridge or softmax probe of {layer!r} with the classes of train, got {start!r}."
            )
        if len(start.present) < len(start.classes):
            raise InputError("`start` must know every class; some had no training image. Use start='zero'.")
        # Divided by its temperature the probe is calibrated: cross-entropy then has nothing to mend but the features.
        assert fitted_on is not None
        temperature = start.temperature * softening(found(fitted_on.features) / start.temperature, fitted_on.labels)
        return LinearHead.from_map(found.weights / temperature, found.intercept / temperature)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = LinearHead(shape[0], len(train.classes))
    if start == "zero":
        nn.init.zeros_(head.linear.weight)
        nn.init.zeros_(head.linear.bias)
    return head


def softening(logits: Tensor, labels: Tensor, least: float = LEAST_LOSS) -> float:
    """The smallest factor ≥ 1 to divide logits by, so that their mean cross-entropy is at least `least`.

    Args:
        logits: (n, k), k ≥ 2.
        labels: (n,) class indices.
        least: Nats, below log k: what a factor without end leads to.

    Example:
        >>> sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
        >>> round(50 / softening(sure, torch.tensor([0, 1])), 2)  # log(1/(exp(0.05) − 1))
        2.97
    """

    def loss(log_factor: float) -> float:
        return float(nn.functional.cross_entropy(logits.double() / math.exp(log_factor), labels))

    if loss(0.0) >= least:
        return 1.0
    low, high = 0.0, 1.0
    while loss(high) < least:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) < least else (low, middle)
    return math.exp(high)


def _check_settings(
    rates: list[float],
    epochs: int,
    batch_size: int,
    batch_norm: str,
    augment: str,
    precision: str,
    patience: int | None,
) -> None:
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise InputError(f"`lr` must be positive numbers, got {rates}. Try {LEARNING_RATES}.")
    least_one = {"epochs": epochs, "batch_size": batch_size, "patience": 1 if patience is None else patience}
    for name, value in least_one.items():
        whole_number(name, value)
    for name, got, known in (
        ("batch_norm", batch_norm, ("eval", "train")),
        ("augment", augment, AUGMENTATIONS),
        ("precision", precision, ("auto", "exact", "fast")),
    ):
        if got not in known:
            raise UnknownNameError(name, got, known)


def _check_sets(train: ImageDataset, val: ImageDataset) -> None:
    for name, images in (("train", train), ("val", val)):
        if not hasattr(images, "digest") or not hasattr(images, "classes"):
            raise InputError(f"`{name}` must be an ImageDataset, got {described(images)}. See image_folder.")
    if len(train) < 2 or not len(val):
        raise DataError(f"`train` and `val` must hold images, at least two and one, got {len(train)} and {len(val)}.")
    if tuple(train.classes) != tuple(val.classes):
        raise InputError("`val` must have the classes of train in the same order.")
    if train.name == val.name and set(train.ids) & set(val.ids) and train.digest == val.digest:
        raise InputError("`val` must hold other images than train: an epoch chosen on train is the most overfitted.")
