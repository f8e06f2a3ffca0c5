"""Training as a plot: what happened epoch by epoch, and which epoch was kept."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from frozenkit.comparison.finetuning import FineTuned
from frozenkit.heads.training import TrainLog
from frozenkit.plots.style import GREY, ORANGE, SKY, VERMILION, legend_below, new_axes, styled


@styled
def plot_history(log: TrainLog | FineTuned, *, ax: Axes | None = None) -> Axes:
    """Val score and train loss by epoch; the diamond is the epoch that was kept."""
    ax = new_axes(ax, (9, 4.8))
    epochs = [row["epoch"] for row in log.history]
    scores = [row["val_score"] for row in log.history]
    kept = epochs.index(log.best_epoch)
    every = max(1, len(epochs) // 20)
    ax.plot(epochs, scores, "o-", color=SKY, ms=6, markevery=every, label="val score (chooses)")
    mark: Any = {"marker": "D", "color": VERMILION, "ms": 12, "ls": "none"}
    ax.plot(epochs[kept], scores[kept], label=f"kept: epoch {log.best_epoch}, {scores[kept]:.3f}", **mark)
    ax.set(xlabel="epoch", ylabel="val score", ylim=(0, 1.02))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    losses = np.array([row["train_loss"] for row in log.history])
    other = ax.twinx()
    other.plot(epochs, losses, "--", color=ORANGE, label="train loss")
    other.set(ylabel="train loss", ylim=(0, None))
    other.grid(visible=False)
    other.spines["right"].set_visible(True)
    other.spines["right"].set_edgecolor(GREY)
    ax.plot([], [], "--", color=ORANGE, label="train loss (right)")
    legend_below(ax)
    return ax
