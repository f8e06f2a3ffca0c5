"""A race as a plot: the seconds of an epoch in each lane, on a scale that shows both ends."""

import numpy as np
from matplotlib.axes import Axes

from frozenkit.plots.style import BLUE, GREY, ORANGE, SKY, legend_below, new_axes, styled
from frozenkit.races import LANES, PUBLISHED_RACE, Race


@styled
def plot_race(race: Race, *, ax: Axes | None = None) -> Axes:
    """Seconds until so many epochs are done, lane by lane; the cached lane starts with its extraction."""
    ax = new_axes(ax, (9, 5.2))
    last = max(4, 2 * (race.break_even() or 2), 2 * (race.break_even("frozen") or 2))
    epochs = np.arange(0, min(last, 60) + 1)
    for name, color, mark in zip(LANES, (ORANGE, SKY, BLUE), ("s", "o", "D")):
        seconds = [race.seconds_after(int(e))[name] for e in epochs]
        ax.plot(epochs, seconds, color=color, marker=mark, markevery=max(1, len(epochs) // 8), label=name)
    crossing = race.break_even()
    if crossing is not None:
        ax.axvline(crossing, color=GREY, ls=":", lw=2)
        note = f"from epoch {crossing} on,\nextracting once is quicker"
        ax.text(crossing + 0.02 * epochs[-1], 0.96 * ax.get_ylim()[1], note, va="top", ha="left")
    ax.set(xlabel="epochs", ylabel="seconds", xlim=(0, epochs[-1]), ylim=(0, None))
    published = PUBLISHED_RACE["fine-tuned"] / PUBLISHED_RACE[LANES[2]]
    ax.set_title(f"An epoch is {race.ratio():.0f} times shorter (published: {published:.0f})")
    legend_below(ax)
    return ax
