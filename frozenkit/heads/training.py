"""Gradient training of any head, on features that fit in memory or stay on disk."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from frozenkit._arrays import check_finite, described, real_number, whole_number
from frozenkit._devices import resolve_device
from frozenkit._loop import Run, adamw, cosine, judge, mean_loss, train_module
from frozenkit._outputs import Shown
from frozenkit.errors import DataError, InputError, require
from frozenkit.features import as_features, check_val

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class TrainLog(Shown):
    """What happened while a head was trained.

    Attributes:
        head: The trained copy, with the parameters of its best epoch, in eval mode, on the device the head came on.
        history: One dict per epoch: ``epoch`` (from 1), ``lr``, ``train_loss``, ``val_loss``, ``val_score``.
        best_epoch: The epoch whose parameters were kept: highest val score, then lowest val loss, then the earliest.
        best_score: Accuracy on val in that epoch; R² in regression. Having been chosen by, it flatters; test does not.
        stopped_early: Whether `patience` ended the training.
    """

    head: nn.Module
    history: tuple[dict[str, float], ...]
    best_epoch: int
    best_score: float
    stopped_early: bool

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table with one row per epoch."""
        pd = require("pandas", "course")

        return pd.DataFrame(self.history).set_index("epoch")

    def __repr__(self) -> str:
        end = ", stopped early" if self.stopped_early else ""
        return (
            f"TrainLog({type(self.head).__name__}, {len(self.history)} epochs{end}, "
            f"best epoch {self.best_epoch} with val score {self.best_score:.3f})"
        )


def train_head(
    head: nn.Module,
    train: Any,
    val: Any,
    *,
    epochs: int = 100,
    lr: float = 1e-2,
    weight_decay: float = 1e-4,
    batch_size: int = 256,
    patience: int | None = 20,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Callable[[dict[str, float]], object] | None = None,
) -> TrainLog:
    """Train a copy of a head with AdamW on a cosine schedule, and keep the epoch that is best on val.

    The loss is cross-entropy for integer labels and ½·squared error for float ones. The given head is left as it is; it
    and the same seed give the same trained head, and torch's global random state is as before afterwards. Features are
    taken as they are: standardise them where the head does not normalise.

    Args:
        head: Any ``nn.Module`` from (b, d), or (b, t, d), to (b, k).
        train: `Features`, read in batches in random order, or an (X, y) pair of arrays.
        val: Where the epoch is chosen; other images than train, the same width and classes.
        epochs: At most so many passes, ≥ 1.
        lr: Step size at the start, > 0; it falls to 0 along half a cosine.
        weight_decay: AdamW's, ≥ 0, on every parameter with two dimensions or more; biases and norms go free.
        batch_size: Rows per step, ≥ 1.
        patience: Epochs without a better one on val before stopping; None never stops early.
        seed: Of the order of rows, and of dropout. The head's first parameters are the caller's.
        device: Where to train; ``"auto"`` takes a GPU if there is one.
        progress: Called with the history row of each epoch as it ends.

    Returns:
        A `TrainLog`; its ``head`` is the trained copy.

    Raises:
        InputError: If `head` is no module, has nothing to train or not one output per class; if a setting is out of
            range, val does not fit train, or an image of val is one of train.
        DataError: If train or val is empty, a row of features in memory or of labels is not finite, or the loss is no
            longer finite.

    Example:
        >>> from frozenkit.features import FeatureSet
        >>> train, val = (FeatureSet.from_arrays([[-1.0], [1.0]] * n, ["left", "right"] * n) for n in (4, 2))
        >>> train_head(nn.Linear(1, 2), train, val, lr=0.3).best_score
        1.0

    References:
        I. Loshchilov, F. Hutter (2019), Decoupled weight decay regularization, ICLR, algorithm 2.
        I. Loshchilov, F. Hutter (2017), SGDR: stochastic gradient descent with warm restarts, ICLR, equation 5.
    """
    if not isinstance(head, nn.Module):
        raise InputError(f"`head` must be an nn.Module, such as LinearHead(d, k), got {described(head)}.")
    epochs, batch_size = whole_number("epochs", epochs), whole_number("batch_size", batch_size)
    patience = None if patience is None else whole_number("patience", patience)
    seed = whole_number("seed", seed, least=0)
    lr, weight_decay = real_number("lr", lr), real_number("weight_decay", weight_decay)
    _check_rates(lr, weight_decay)
    train = as_features(train, "train")
    val = as_features(val, "val", **({"classes": train.classes} if train.classes else {}), layer=train.layer)
    _check_sets(train, val)
    target = resolve_device(device)
    given_on = next((p.device for p in head.parameters()), torch.device("cpu"))
    if not any(p.requires_grad for p in head.parameters()):
        raise InputError("`head` must have parameters to train, got none with requires_grad.")
    check_outputs(head, train)
    trained = copy.deepcopy(head).to(target)
    order = torch.Generator().manual_seed(seed)

    def losses(epoch: int) -> Iterator[tuple[Tensor, int]]:
        trained.train()
        for x, y in _shuffle(train, batch_size, order, target):
            yield mean_loss(trained(x), y), len(y)

    def evaluate() -> tuple[float, float]:
        trained.eval()
        return judge((trained(x.float().to(target)) for x, _ in val.batches()), val.labels)

    def report() -> None:
        if progress is not None:
            progress(_without_seconds(run.history[-1]))

    run = Run(lr)
    with torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
        torch.manual_seed(seed)
        train_module(
            run,
            trained,
            adamw((p for p in trained.parameters() if p.requires_grad), lr, weight_decay),
            losses,
            lambda epoch, batch: cosine(lr, epoch - 1, epochs),
            evaluate,
            epochs=epochs,
            patience=patience,
            after_epoch=report,
        )
    trained.load_state_dict(run.best)
    history = tuple(map(_without_seconds, run.history))
    return TrainLog(trained.to(given_on).eval(), history, run.best_epoch, run.merit[0], len(history) < epochs)


def _without_seconds(row: dict[str, float]) -> dict[str, float]:
    """A row of the loop without its seconds: the same seed gives the same history."""
    return {name: value for name, value in row.items() if name != "seconds"}


def _shuffle(data: Any, size: int, order: torch.Generator, target: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass in random order, in batches of almost equal size: batch norm cannot take one row alone."""
    rows = torch.randperm(len(data), generator=order)
    for part in rows.tensor_split(max(1, math.ceil(len(rows) / size))):
        yield data.rows(part).float().to(target), data.labels[part].to(target)


def _check_rates(lr: float, weight_decay: float) -> None:
    if not 0 < lr < math.inf:
        raise InputError(f"`lr` must be a positive number, got {lr!r}. Try 1e-2.")
    if not 0 <= weight_decay < math.inf:
        raise InputError(f"`weight_decay` must be 0 or more, got {weight_decay!r}.")


def _check_sets(train: Any, val: Any) -> None:
    for name, data in {"train": train, "val": val}.items():
        if len(data) == 0:
            raise DataError(f"`{name}` must hold at least one image, got none.")
        for start, (x, _) in enumerate(data.batches()):
            check_finite(x, name, data.ids, 4096 * start)
        if data.labels.is_floating_point():
            check_finite(data.labels, f"{name}.labels", data.ids)
    check_val(train, val)


def check_outputs(head: nn.Module, data: Any) -> None:
    """Raise an `InputError` unless the head takes the features and gives one output per class, or per number.

    A copy of the head is tried on a row or two, so the head itself stays as it was.
    """
    rows = list(range(min(2, len(data))))
    x = data.rows(rows)
    target = next((p.device for p in head.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            output = copy.deepcopy(head).eval()(x.float().to(target))
    except Exception as error:  # whatever a module of the caller's own may raise
        raise InputError(
            f"`head` must take features of shape {tuple(x.shape)}, but {type(head).__name__} says: {error}"
        ) from error
    wanted = (len(x), data.n_classes) if data.classes else tuple(data.labels[rows].shape)
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    fits = shape == wanted if data.classes else shape is not None and output.numel() == data.labels[rows].numel()
    if not fits:
        what = f"one output per class, {wanted[1]}" if data.classes else f"outputs shaped {wanted}"
        raise InputError(
            f"`head` must give {what}, but {type(head).__name__} turns {tuple(x.shape)} into "
            f"{shape or described(output)}."
        )
