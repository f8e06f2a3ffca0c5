"""Decision regions: what a head makes of a plane through the features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from frozenkit.errors import DataError, InputError
from frozenkit.features import FeatureSet
from frozenkit.probes import fit_probe
from frozenkit.scores import Score


@dataclass(frozen=True, eq=False)
class Regions:
    """A head fitted in two dimensions, and what it says everywhere there.

    It is a picture of a head's shape and not the head that one would use: most of what the features hold is not in any
    plane.

    Attributes:
        head: Its name.
        classes: k names.
        train: (n, 2) projected train images, and `train_labels` (n,).
        test: (m, 2) projected test images, and `test_labels` (m,).
        x: (r,) grid along the first direction.
        y: (r,) grid along the second.
        predictions: (r, r) class at each point of the grid, row by y.
        score: On the projected test images.
    """

    head: str
    classes: tuple[str, ...]
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    x: Tensor
    y: Tensor
    predictions: Tensor
    score: Score

    def __repr__(self) -> str:
        return f"Regions({self.head} in two dimensions: {self.score!r})"


def decision_regions(
    train: FeatureSet,
    test: FeatureSet,
    *,
    heads: Sequence[str | nn.Module] = ("ridge",),
    resolution: int = 160,
    seed: int = 0,
) -> list[Regions]:
    """Fits each head on a plane of the features and asks it about every point of a grid.

    The plane is that of linear discriminant analysis (shrunk, fitted on train alone): the two directions in which the
    classes of train lie furthest apart.

    Args:
        train: (n, d) features of at least three classes.
        test: Other images; only reported on.
        heads: Heads as in `fit_probe`, for two features.
        resolution: Points of the grid a side.
        seed: As in `fit_probe`.

    Returns:
        One `Regions` a head, all on the same plane and grid.

    Raises:
        DataError: If train has fewer than three classes: two need no plane.
        InputError: If `resolution` is below 2.

    References:
        R. A. Fisher (1936), The use of multiple measurements in taxonomic problems, Annals of Eugenics 7.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if resolution < 2:
        raise InputError(f"`resolution` must be at least 2, got {resolution}.")
    if len(train.labels.unique()) < 3:
        raise DataError("`train` must hold images of at least three classes for a plane of discriminants.")
    plane = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=2)
    plane.fit(train.features.double().numpy(), train.labels.numpy())

    def projected(features: FeatureSet) -> FeatureSet:
        at = torch.from_numpy(plane.transform(features.features.double().numpy())).float()
        return FeatureSet(at, features.labels, features.classes, features.ids, features.layer, "")

    flat, held = projected(train), projected(test)
    both = torch.cat([flat.features, held.features])
    low, high = both.amin(0), both.amax(0)
    edge = 0.05 * (high - low)
    x, y = (torch.linspace(float(a), float(b), resolution) for a, b in zip(low - edge, high + edge))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    found: list[Regions] = []
    for head in heads:
        probe: Any = fit_probe(flat, head=head, seed=seed)
        found.append(
            Regions(
                head=probe.head,
                classes=train.classes,
                train=flat.features,
                train_labels=flat.labels,
                test=held.features,
                test_labels=held.labels,
                x=x,
                y=y,
                predictions=probe.predict(grid).reshape(resolution, resolution),
                score=probe.score(held),
            )
        )
    return found
