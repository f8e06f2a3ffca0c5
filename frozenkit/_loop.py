"""The training loop: epochs of optimiser steps, the best epoch kept, to be stopped and carried on between epochs."""

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit._arrays import r_squared
from frozenkit.errors import DivergedError

Losses = Iterable[tuple[Tensor, int]]  # per batch its mean loss and its rows; the next is computed after the step


@dataclass
class Run:
    """A training under way: what it has shown so far, and all that it needs to go on.

    Attributes:
        lr: The highest learning rate of its schedule.
        history: One row per finished epoch: ``epoch`` (from 1), ``lr`` (of its first step), ``train_loss``,
            ``val_loss``, ``val_score``, ``seconds``.
        best_epoch: By val score, then val loss, then the earliest; 0 before the first epoch.
        best: The weights of that epoch, on the CPU.
        weights: What to go on from. After an epoch these are the module's own tensors, to be written to a file at once.
        optimiser: Its state, likewise; empty before the first epoch.
    """

    lr: float
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)

    @property
    def merit(self) -> tuple[float, float]:
        """Val score and −val loss of the best epoch, to compare with; the lowest before the first."""
        return _merit(self.history[self.best_epoch - 1]) if self.best_epoch else (-math.inf, -math.inf)

    def is_over(self, epochs: int, patience: int | None) -> bool:
        """Whether all epochs are done, or so many passed without a better one on val."""
        done = len(self.history)
        return done >= epochs or (patience is not None and done - self.best_epoch >= patience)


def train_module(
    run: Run,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: Callable[[int], Losses],
    rate: Callable[[int, int], float],
    evaluate: Callable[[], tuple[float, float]],
    *,
    epochs: int,
    patience: int | None,
    after_epoch: Callable[[], object] = lambda: None,
) -> None:
    """Carry a run on to its end; between epochs, `run` holds all that a later call needs to do the same.

    Args:
        run: Is updated. Where it holds weights and a state of the optimiser, training begins with these.
        module: Whose weights are trained. It is left with those of the last epoch; the best are in `run`.
        optimiser: Of the module's parameters.
        losses: Epoch (from 1) → the losses of its batches, in train mode.
        rate: Epoch and batch (from 0) → learning rate.
        evaluate: (mean loss, score) on val, in eval mode.
        epochs: At most so many, ≥ 1.
        patience: Epochs without a better one on val before stopping; None never stops early.
        after_epoch: Called when `run` has been updated; what it raises ends the training.

    Raises:
        DivergedError: If a loss is not finite; history and best in `run` are as after the epoch before.
    """
    if run.weights:
        module.load_state_dict(run.weights)
    if run.optimiser:
        optimiser.load_state_dict(run.optimiser)
    while not run.is_over(epochs, patience):
        epoch, start = len(run.history) + 1, time.perf_counter()
        train_loss = run_epoch(optimiser, losses(epoch), partial(rate, epoch))
        val_loss, val_score = evaluate()
        if not math.isfinite(train_loss) or not math.isfinite(val_loss):
            raise DivergedError(
                f"the loss must stay finite, but epoch {epoch} gave {train_loss} on train and {val_loss} on val. Look "
                "for NaN in the features, standardise them, or lower `lr`."
            )
        row = {
            "epoch": epoch,
            "lr": rate(epoch, 0),
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_score": val_score,
        }
        run.history.append(row | {"seconds": time.perf_counter() - start})
        if _merit(row) > run.merit:
            run.best_epoch, run.best = epoch, copy_state(module)
        run.weights, run.optimiser = module.state_dict(), optimiser.state_dict()
        after_epoch()


def run_epoch(optimiser: torch.optim.Optimizer, losses: Losses, rate: Callable[[int], float] | None = None) -> float:
    """One step per batch; the mean loss over all rows, as it was trained.

    Args:
        optimiser: Of what the losses depend on.
        losses: See `Losses`.
        rate: Batch (from 0) → learning rate; None keeps the optimiser's own.
    """
    values, counts = [], []
    for batch, (loss, count) in enumerate(losses):
        if rate is not None:
            for group in optimiser.param_groups:
                group["lr"] = rate(batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        values.append(loss.detach())  # read at the end: a GPU need not wait for each
        counts.append(count)
    return sum(value * count for value, count in zip(torch.stack(values).tolist(), counts)) / sum(counts)


def adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays what has two dimensions or more; biases and norms go free."""
    groups: dict[float, list[nn.Parameter]] = {weight_decay: [], 0.0: []}
    for parameter in parameters:
        groups[weight_decay if parameter.ndim >= 2 else 0.0].append(parameter)
    return torch.optim.AdamW([{"params": part, "weight_decay": decay} for decay, part in groups.items()], lr=lr)


def cosine(lr: float, step: int, steps: int, warm_up: int = 0) -> float:
    """The rate of one of all steps: up a line while it warms up, then down half a cosine towards 0.

    Example:
        >>> [cosine(1.0, step, 6, warm_up=2) for step in range(6)][:3]
        [0.5, 1.0, 1.0]
    """
    if step < warm_up:
        return lr * (step + 1) / warm_up
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def mean_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of (b, k) logits for integer labels, ½·mean squared error for float ones."""
    if labels.is_floating_point():
        return nn.functional.mse_loss(outputs.reshape(labels.shape), labels) / 2
    return nn.functional.cross_entropy(outputs, labels)


def judge(outputs: Iterable[Tensor], labels: Tensor) -> tuple[float, float]:
    """(mean loss, accuracy, or R² for float labels) of what is computed batch by batch, without gradients."""
    with torch.no_grad():
        output = torch.cat([part.float().cpu() for part in outputs])
    labels = labels.cpu()
    if labels.is_floating_point():
        score = r_squared(output, labels)
    else:
        score = float((output.argmax(1) == labels).double().mean())
    return float(mean_loss(output, labels)), score


def copy_state(module: nn.Module) -> dict[str, Any]:
    """All weights and buffers, on the CPU; training goes on without changing them."""
    state = module.state_dict()
    return {name: copy.deepcopy(v.cpu() if isinstance(v, Tensor) else v) for name, v in state.items()}


def _merit(row: dict[str, float]) -> tuple[float, float]:
    return row["val_score"], -row["val_loss"]
