"""The history of a training run."""

from frozenkit import plots
from tests.plots.results import LOG


def test_the_history_marks_the_kept_epoch():
    ax = plots.plot_history(LOG)
    assert ax.lines[1].get_xdata()[0] == LOG.best_epoch
    assert ax.lines[1].get_ydata()[0] == LOG.best_score
