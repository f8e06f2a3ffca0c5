"""A race: seconds by epochs, the extraction before the first cached one, and where it pays off."""

import numpy as np

from frozenkit import plots
from tests.plots.results import RACE


def test_lanes_begin_with_what_they_wait_for_and_the_break_even_is_marked():
    ax = plots.plot_race(RACE)
    fine_tuned, frozen, cached, crossing = ax.lines
    np.testing.assert_allclose([line.get_ydata()[0] for line in (fine_tuned, frozen, cached)], [0, 0, 19])
    np.testing.assert_allclose([line.get_ydata()[2] for line in (fine_tuned, frozen, cached)], [24, 12, 20])
    np.testing.assert_allclose(crossing.get_xdata(), 4)  # 24 s against 21 s; one epoch before, 18 against 20.5
    assert "12 times shorter than frozen, 24 than fine-tuned" in ax.get_title(loc="left")
