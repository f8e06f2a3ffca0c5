"""What a head decides and attends to: mistakes ringed, weights as light."""

import numpy as np
import pytest
import torch
from PIL import Image

from frozenkit import plots
from frozenkit.errors import InputError
from tests.plots.results import REGIONS


def test_regions_ring_exactly_the_mistakes():
    ax = plots.plot_regions(REGIONS)
    ringed = ax.lines[-1].get_xdata()
    mistakes = REGIONS.score.n - REGIONS.score.n_correct
    assert abs(len(ringed) - mistakes) <= 3  # the grid is coarse: a point near a border may fall beside it
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["ant", "bee", "cat"]


def test_attention_is_brightest_where_the_weight_is():
    weights = torch.zeros(2, 9)
    weights[0, 4] = 1.0  # the middle of three by three
    weights[1] = 1 / 9
    axes = plots.plot_attention(Image.new("RGB", (30, 30)), weights)
    assert [ax.get_title(loc="left") for ax in axes] == ["image", "query 1", "query 2"]
    veil = np.asarray(axes[1].images[1].get_array())[..., 3]
    assert veil[1, 1] == 0
    assert veil[0, 0] == pytest.approx(0.85)
    assert np.asarray(axes[2].images[1].get_array())[..., 3].max() == 0
    with pytest.raises(InputError, match="t a square number"):
        plots.plot_attention(Image.new("RGB", (30, 30)), torch.ones(1, 8))
