"""Decision regions: what a head makes of a plane through the features."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frozenkit._arrays import whole_number
from frozenkit.errors import DataError, InputError
from frozenkit.features import Features, feature_rows, load_set, reduce
from frozenkit.probes.probe import fit_probe
from frozenkit.probes.reports import head_list
from frozenkit.probes.scores import Score


@dataclass(frozen=True, eq=False)
class Regions:
    """A head fitted in two dimensions, and what it says everywhere there.

    It is an image of a head's shape and not the head that one would use: most of what the features hold is not in any
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
    train: Features,
    test: Features,
    *,
    heads: Sequence[str | nn.Module] = ("ridge",),
    resolution: int = 160,
    seed: int = 0,
    normalize: bool = False,
) -> list[Regions]:
    """Fits each head on a plane of the features and asks it about every point of a grid.

    The plane is that of linear discriminant analysis (shrunk, fitted on train alone): the two directions in which the
    classes of train lie furthest apart.

    Args:
        train: (n, d) features of at least three classes. Loaded into memory, here and as test.
        test: Other images of the same layer and classes; only reported on.
        heads: Heads as in `fit_probe`, for two features.
        resolution: Points of the grid a side.
        seed: As in `fit_probe`.
        normalize: Prototype and knn: scale points to length 1. In two dimensions that leaves only the angle, so that
            every boundary becomes a ray through one point; hence not the default of `fit_probe`.

    Returns:
        One `Regions` a head, all on the same plane and grid.

    Raises:
        DataError: If train has fewer than three classes: two need no plane.
        InputError: If something is no set of features with classes, test does not fit train, or `resolution` is no
            whole number of at least 2.

    References:
        R. A. Fisher (1936), The use of multiple measurements in taxonomic problems, Annals of Eugenics 7.
    """
    resolution = whole_number("resolution", resolution, least=2)
    train = load_set(train, "train")
    test = load_set(test, "test", like=train)
    if not train.classes:
        raise InputError("`train` must have classes for a plane that tells them apart; it has numbers, a regression.")
    if (train.n_features, train.layer, train.classes) != (test.n_features, test.layer, test.classes):
        raise InputError(
            f"`test` must have the width, layer and classes of train, got {test!r} beside {train!r}. Extract both from "
            "the same layer."
        )
    if train.n_features < 2:
        raise InputError("`train` must hold at least two features for a plane, got one.")
    for name, features in (("train", train), ("test", test)):
        feature_rows(features, name)
    if len(train.labels.unique()) < 3:
        raise DataError("`train` must hold images of at least three classes for a plane of discriminants.")
    flat, held = reduce(train, test, n_features=2, how="lda")
    both = torch.cat([flat.features, held.features])
    low, high = both.amin(0), both.amax(0)
    edge = 0.05 * (high - low)
    x, y = (torch.linspace(float(a), float(b), resolution) for a, b in zip(low - edge, high + edge))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    found: list[Regions] = []
    for head in head_list(heads):
        by_distance = isinstance(head, str) and head in ("prototype", "knn")
        probe = fit_probe(flat, head=head, seed=seed, normalize=normalize if by_distance else None)
        found.append(
            Regions(
                head=probe.kind,
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
