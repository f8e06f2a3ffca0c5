"""Choosing a strength: the edge of the grid, and too few images to choose by."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from frozenkit.errors import DataError, FrozenkitWarning, InputError
from frozenkit.probes import _choose
from frozenkit.probes._choose import warn_at_edge
from frozenkit.probes.probe import fit_probe
from tests.toy import blobs

TRAIN, VAL, TEST = blobs(200), blobs(100, seed=1), blobs(400, seed=2)


def test_the_edge_of_the_grid_warns_and_says_which_way():
    with pytest.warns(FrozenkitWarning, match="is the smallest of those tried.*Extend `strengths` to smaller"):
        warn_at_edge([1.0, 10.0, 100.0], [0.9, 0.8, 0.7], 0)
    with pytest.warns(FrozenkitWarning, match=r"is the largest of those tried.*such as 1e\+05"):
        warn_at_edge([1.0, 10.0, 100.0], [0.7, 0.8, 0.9], 2)
    with pytest.warns(FrozenkitWarning, match="largest"):
        fit_probe(blobs(60, d=200, noise=4), strengths=[1e-6, 1e-5, 3.0])


def test_images_that_decide_their_own_scale_are_said():
    rare = torch.zeros(200, 80)
    rare[torch.arange(80) * 2, torch.arange(80)] = 100.0
    wide = replace(TRAIN, features=torch.cat([TRAIN.features, rare], 1))
    with pytest.warns(FrozenkitWarning, match="80 of 200 images make up most of the scale of some feature"):
        fit_probe(wide, scale="standard")
    fit_probe(wide, scale="unit")
    fit_probe(TRAIN)


def test_warnings_point_at_the_line_that_fits(monkeypatch):
    rare = torch.zeros(200, 80)
    rare[torch.arange(80) * 2, torch.arange(80)] = 100.0
    wide = TRAIN.with_features(torch.cat([TRAIN.features, rare], 1))
    with pytest.warns(FrozenkitWarning, match="make up most of the scale") as scaled:
        fit_probe(wide, scale="standard")
    monkeypatch.setattr(_choose, "softmax_path", partial(_choose.softmax_path, max_iterations=1))
    with pytest.warns(FrozenkitWarning, match="did not converge") as stuck:
        fit_probe(TRAIN, head="softmax", val=VAL, strengths=[1e-5, 1e-3, 10.0])
    with pytest.warns(FrozenkitWarning, match="largest") as edge:
        fit_probe(blobs(60, d=200, noise=4), strengths=[1e-6, 1e-5, 3.0])
    for caught in (scaled, stuck, edge):
        assert {warning.filename for warning in caught} == {__file__}


def test_an_inner_or_tied_best_does_not_warn():
    warn_at_edge([1.0, 10.0, 100.0], [0.7, 0.9, 0.8], 1)
    warn_at_edge([1.0, 10.0, 100.0], [0.7, 0.9, 0.9], 2)
    warn_at_edge([1.0], [0.7], 0)
    fit_probe(TRAIN)


def test_a_module_needs_val_where_none_can_be_carved():
    with pytest.raises(InputError, match="`val` must be given: a fifth of 4 train images"):
        fit_probe(blobs(4), head=torch.nn.Linear(20, 4))


def test_softmax_with_one_image_a_class_needs_val_or_one_strength():
    few = blobs(4)
    with pytest.raises(DataError, match="Give `val`, or one strength"):
        fit_probe(blobs(2, classes=("ant", "bee")), head="softmax")
    assert np.isnan(fit_probe(blobs(2, classes=("ant", "bee")), head="softmax", strengths=[0.1]).choice_score)
    assert fit_probe(few, head="softmax", val=VAL, strengths=[0.1]).score(TEST).accuracy > 0.4


def test_one_image_a_class_leaves_the_temperature_alone():
    assert fit_probe(blobs(4), head="prototype").temperature == 1
