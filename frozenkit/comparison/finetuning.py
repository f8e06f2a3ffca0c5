"""Fine-tuning: what a frozen probe is compared with, trained on the same images and chosen on the same val."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from frozenkit._arrays import as_tensor, check_classes, real_number
from frozenkit._devices import full_float32
from frozenkit._loop import Run, copy_state, train_module
from frozenkit._outputs import Shown, frame_html
from frozenkit._progress import progress_bar
from frozenkit.comparison._checkpoint import Checkpoint
from frozenkit.comparison._tuning import Tuning, TuningSettings
from frozenkit.errors import DataError, DivergedError, InputError, UnknownNameError, require
from frozenkit.extraction.cache import FeatureCache
from frozenkit.extraction.extract import extract
from frozenkit.extraction.key import fingerprint_of
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Fingerprint, digest_module
from frozenkit.heads.modules import LinearHead, in_batches
from frozenkit.heads.ridge import LinearMap
from frozenkit.images.dataset import ImageDataset, check_images
from frozenkit.networks.backbone import Backbone, check_backbone
from frozenkit.networks.layers import pooled_shape
from frozenkit.probes.probe import Probe, fit_probe
from frozenkit.probes.scores import Score, score

if TYPE_CHECKING:
    import pandas as pd

# All are run, and the best on val counts: a rate that was not chosen understates the gap.
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
STARTS = ("probe", "zero", "random")
LEAST_LOSS = 0.05  # nats; a head that is surer of the images it was fitted on leaves no gradient to learn by


@dataclass(frozen=True, eq=False)
class FineTuned(Shown):
    """A fine-tuned network, and how it came about.

    Attributes:
        backbone: The tuned backbone, a `Backbone` like any other: its features can be extracted and compared.
        head: The head on its `layer`, in eval mode.
        layer: The layer that the head reads.
        classes: k names.
        history: One dict per epoch: ``epoch`` (0 is the start), ``lr``, ``train_loss``, ``val_loss``, ``val_score``,
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
        check_classes("dataset", dataset.classes, self.classes)
        return score(self.predict(dataset), dataset.labels, n_classes=len(self.classes), classes=self.classes)

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table with one row per epoch."""
        pd = require("pandas", "course")

        return pd.DataFrame(self.history).set_index("epoch")

    def __repr__(self) -> str:
        return (
            f"FineTuned({self.backbone.name}: {len(self.history) - 1} epochs at {self.lr:g}"
            f"{f' ({self.note})' if self.note else ''} in {self.seconds:.0f} s, "
            f"best epoch {self.best_epoch} with val score {self.val_score:.3f})"
        )

    def _table_html(self) -> str:
        return frame_html(self.to_frame, float_format="{:.3g}".format)


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
        batch_size: Images per step.
        batch_norm: ``"eval"`` keeps the statistics of pretraining, ``"train"`` renews them (from scratch: needed).
        augment: ``"none"``, ``"flip"`` (left to right, half of the images), or ``"crop"`` (flip, and a shift of up to
            an eighth of the side, reflected at the border).
        precision: As in `extract`: ``"exact"`` is float32, ``"fast"`` bfloat16 autocast where the hardware multiplies
            it natively, else as ``"exact"``; ``"auto"`` is the quicker, in training on a CPU ``"exact"``.
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
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise InputError(f"`lr` must be positive numbers, got {rates}. Try {LEARNING_RATES}.")
    settings = TuningSettings(unfreeze, epochs, batch_size, batch_norm, augment, precision, patience, seed)
    check_backbone(backbone)
    _check_sets(train, val)
    layer = backbone.check_layer(layer or backbone.default_layer)
    head = _make_head(backbone, train, val, start, layer, seed, cache)
    target = Backbone(
        copy.deepcopy(backbone.module),
        backbone.preprocess,
        name=f"{backbone.name} (fine-tuned)",
        image_size=backbone.image_size,
        default_layer=layer,
        n_prefix_tokens=backbone.n_prefix_tokens,
        device=device,
    )
    tuning = Tuning(target, head, train, val, settings)
    key: dict[str, Any] = {}
    if checkpoint is not None:
        key = {
            "frozen": dict(fingerprint_of(backbone, train, layer, precision="exact").ingredients),
            "val": val.digest,
            "start": start if isinstance(start, str) else digest_module(head),
            "rates": rates,
            "settings": asdict(settings),
        }
    saved = Checkpoint(checkpoint, Fingerprint(key).digest)
    search = _Search.load(saved)
    with (
        progress_bar(progress, settings.epochs * len(rates) * len(train), f"fine-tuning {backbone.name}") as advance,
        nullcontext() if tuning.is_fast else full_float32(),
    ):
        val_loss, val_score = tuning.evaluate()
        begin = {"epoch": 0, "lr": 0.0, "train_loss": math.nan, "val_loss": val_loss, "val_score": val_score}
        best = search.finish(tuning, rates, saved, advance)
    tuning.module.load_state_dict(best.best)
    saved.remove()
    tuning.module.eval().requires_grad_(False)
    return FineTuned(
        backbone=target,
        head=tuning.head.cpu(),
        layer=layer,
        classes=tuple(train.classes),
        history=(begin | {"seconds": 0.0}, *(row | {"lr": best.lr} for row in best.history)),
        lr=best.lr,
        trials=search.trials,
        best_epoch=best.best_epoch,
        val_score=best.merit[0],
    )


@dataclass
class _Search:
    """How far the choice of the learning rate has come.

    Attributes:
        trials: Finished rate to its best val score.
        best: The best of the finished runs.
        now: The run under way, between two epochs.
    """

    trials: dict[float, float]
    best: Run | None
    now: Run | None

    @classmethod
    def load(cls, saved: Checkpoint) -> "_Search":
        """What was saved last, or the beginning."""
        content = saved.load() or {"trials": {}, "best": None, "now": None}
        best, now = (content[name] and Run(**content[name]) for name in ("best", "now"))
        return cls(content["trials"], best, now)

    def save(self, saved: Checkpoint) -> None:
        """As plain containers, which need no pickle."""
        saved.write({"trials": self.trials, "best": self.best and vars(self.best), "now": self.now and vars(self.now)})

    def finish(self, tuning: Tuning, rates: Sequence[float], saved: Checkpoint, advance: Callable[[int], None]) -> Run:
        """Train at every rate that is left, each from the same start; the best run of all."""
        origin, settings = copy_state(tuning.module), tuning.settings
        advance(len(tuning.train) * settings.epochs * len(self.trials))
        for rate in rates:
            if rate in self.trials:
                continue
            self.now = run = self.now or Run(rate, weights=origin)
            advance(len(tuning.train) * len(run.history))
            with suppress(DivergedError):  # the best of its epochs before still counts
                train_module(
                    run,
                    tuning.module,
                    tuning.optimiser(rate),
                    partial(tuning.losses, advance=advance),
                    partial(tuning.rate, rate),
                    tuning.evaluate,
                    epochs=settings.epochs,
                    patience=settings.patience,
                    after_epoch=partial(self.save, saved),
                )
            self.trials[rate], self.now = run.merit[0] if run.best_epoch else math.nan, None
            run.weights = run.optimiser = {}
            if run.best_epoch and (self.best is None or run.merit > self.best.merit):
                self.best = run
            self.save(saved)
        if self.best is None:
            raise DataError(f"the loss must stay finite, but did not at any learning rate of {rates}. Try 1e-5.")
        return self.best


def _make_head(
    backbone: Backbone,
    train: ImageDataset,
    val: ImageDataset,
    start: str | Probe,
    layer: str,
    seed: int,
    cache: FeatureCache | None,
) -> LinearHead:
    if not isinstance(start, Probe) and (not isinstance(start, str) or start not in STARTS):
        raise UnknownNameError("start", start, STARTS, hint="Or give a fitted linear probe.")
    if start in ("zero", "random"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = LinearHead(pooled_shape(backbone.trace(), layer, "mean")[0], len(train.classes))
        if start == "zero":
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        return head

    def features_of(images: ImageDataset) -> FeatureSet:
        return extract(backbone, images, layer=layer, precision="exact", cache=cache, progress=False)

    features = features_of(train)
    probe = start if isinstance(start, Probe) else fit_probe(features, val=features_of(val), seed=seed)
    linear = probe.head
    if not isinstance(linear, LinearMap) or probe.layer != layer or probe.classes != tuple(train.classes):
        raise InputError(
            f"`start` must be a ridge or softmax probe of {layer!r} with the classes of train, got {probe!r}."
        )
    if len(probe.present) < len(probe.classes):
        known = f"{len(probe.present)} out of {len(probe.classes)}"
        raise InputError(f"`start` must know every class, got one of {known}. Use start='zero'.")
    # Divided by its temperature the probe is calibrated: cross-entropy then has nothing to mend but the features.
    temperature = probe.temperature * softening(linear(features.features) / probe.temperature, features.labels)
    return LinearHead.from_map(linear.weights / temperature, linear.intercept / temperature, unit=linear.unit)


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


def _check_sets(train: ImageDataset, val: ImageDataset) -> None:
    for name, images in (("train", train), ("val", val)):
        check_images(name, images)
    if len(train) < 2 or not len(val):
        raise DataError(f"`train` and `val` must hold images, at least two and one, got {len(train)} and {len(val)}.")
    check_classes("val", val.classes, train.classes)
    if train.name == val.name and set(train.ids) & set(val.ids) and train.digest == val.digest:
        raise InputError(
            "`val` must hold other images than train, got the same: an epoch chosen on train is the most overfitted. "
            "Part them with split."
        )
