"""A race as a plot: the seconds of an epoch in each lane, on a scale that shows both ends."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from frozenkit.comparison.race import LANES, Race
from frozenkit.plots.style import BLUE, GREY, ORANGE, SKY, legend_below, new_axes, styled


@styled
def plot_race(race: Race, *, ax: Axes | None = None) -> Axes:
    """Seconds until so many epochs are done, lane by lane; the cached lane starts with its extraction."""
    ax = new_axes(ax, (9, 5.2))
    last = max(4, 2 * (race.break_even() or 2))
    epochs = np.arange(0, min(last, 60) + 1)
    for name, color, mark in zip(LANES, (ORANGE, SKY, BLUE), ("s", "o", "D")):
        seconds = [race.seconds_after(int(e))[name] for e in epochs]
        ax.plot(epochs, seconds, color=color, marker=mark, markevery=max(1, len(epochs) // 8), label=name)
    crossing = race.break_even()
    if crossing is not None:
        ax.axvline(crossing, color=GREY, ls=":", lw=2)
        note = f"from epoch {crossing} on,\nahead of frozen without a cache"
        ax.text(crossing + 0.02 * epochs[-1], 0.96 * ax.get_ylim()[1], note, va="top", ha="left")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epochs", ylabel="seconds", xlim=(0, epochs[-1]), ylim=(0, None))
    ax.set_title(
        f"A cached epoch: {race.ratio('frozen'):.0f} times shorter than frozen, {race.ratio():.0f} than fine-tuned"
    )
    legend_below(ax)
    return ax
