"""What HeadLab may show besides its path: how sure a head is, its boundary in a plane, its learning curve."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from frozenkit.errors import DataError
from frozenkit.features import FeatureSet
from frozenkit.heads.modules import MLPHead
from frozenkit.probes.intervals import wilson_interval
from frozenkit.probes.probe import Probe
from frozenkit.probes.regions import decision_regions
from frozenkit.widgets.base import Progress

_GRID = 70  # cells of the plane a side
_MARKS = 300  # test images drawn in it


def head_of(name: str, d: int, k: int) -> str | nn.Module:
    """What `fit_probe` takes for a head of this name; the same first weights every time."""
    if name != "mlp":
        return name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLPHead(d, k)


def reliability_of(probe: Probe, test: FeatureSet, temperature: float) -> dict[str, Any]:
    """Confidence against accuracy on test, at a temperature: bins with an image, and the calibration error."""
    found = replace(probe, temperature=temperature).reliability(test)
    frame = found.to_frame()
    return {"error": found.error, "n": found.n, "bins": frame.to_dict(orient="list")}


def boundary_of(train: FeatureSet, test: FeatureSet | None, head: str) -> dict[str, Any]:
    """The head, fitted anew on the plane in which the classes of train lie furthest apart.

    Raises:
        DataError: If there are only two classes, which need no plane.
    """
    held = test if test is not None else train
    if len(train.labels.unique()) < 3:
        raise DataError("two classes lie on a line: a plane needs a third.")
    (found,) = decision_regions(train, held, heads=(head_of(head, 2, train.n_classes),), resolution=_GRID)
    x, y = (float(found.x[0]), float(found.x[-1])), (float(found.y[0]), float(found.y[-1]))
    rows = torch.randperm(len(found.test), generator=torch.Generator().manual_seed(0))[:_MARKS].sort().values
    return {
        "cells": found.predictions.flatten().tolist(),
        "side": _GRID,
        "points": [[round((float(a) - x[0]) / (x[1] - x[0]), 4), round((float(b) - y[0]) / (y[1] - y[0]), 4)]
                   for a, b in found.test[rows]],
        "labels": found.test_labels[rows].tolist(),
        "classes": list(train.classes),
        "accuracy": found.score.accuracy,
        "on": "test" if test is not None else "train",
    }  # fmt: skip


def curve_of(
    choices: list[int | None],
    fit: Callable[[int | None], tuple[Probe, FeatureSet, str]],
    test: FeatureSet | None,
    progress: Progress,
    show: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """Accuracy at every number of labels, shown point by point as it is computed."""
    points: list[dict[str, Any]] = []
    for i, shots in enumerate(choices):
        progress(i, len(choices))
        probe, train, _ = fit(shots)
        n = len(train) if test is None else len(test)
        value = float(probe.choice_score or 0.0) if test is None else probe.score(test).accuracy
        low, high = wilson_interval(round(value * n), n)
        points.append({"shots": shots, "n": len(train), "value": value, "low": float(low), "high": float(high)})
        show(list(points))
    return points
