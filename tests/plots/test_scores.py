"""Scores and confusions: where they are, with their intervals and counts."""

import numpy as np
import pytest
import torch

from frozenkit import plots
from frozenkit.errors import InputError
from frozenkit.probes.scores import score
from tests.plots.results import SCORE


def test_scores_stand_where_they_are_with_their_intervals():
    ax = plots.plot_scores({"probe": SCORE})
    bars = ax.containers[0]
    np.testing.assert_allclose(bars.lines[0].get_xdata(), [SCORE.accuracy])
    np.testing.assert_allclose(bars.lines[2][0].get_segments()[0][:, 0], [SCORE.low, SCORE.high])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["probe"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [f"commonest class alone {SCORE.chance:.3f}"]


def test_the_confusion_writes_its_counts():
    written = [int(t.get_text()) for t in plots.plot_confusion(SCORE).texts]
    assert written == SCORE.confusion[SCORE.confusion > 0].tolist()


def test_a_confusion_of_many_classes_is_left_unwritten():
    y = torch.arange(50)
    assert len(plots.plot_confusion(score(y, y, n_classes=50)).texts) == 0


def test_nothing_to_draw_is_said():
    with pytest.raises(InputError, match="at least one score"):
        plots.plot_scores({})
