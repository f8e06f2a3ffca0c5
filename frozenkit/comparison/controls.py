"""Controls: what the same head scores without pretraining, without a network, and on shuffled labels."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from frozenkit._arrays import check_classes
from frozenkit.errors import DataError, FrozenkitWarning, InputError, NotAvailableError
from frozenkit.extraction.cache import FeatureCache
from frozenkit.extraction.extract import extract
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import stable_repr
from frozenkit.images.dataset import ImageDataset, check_images
from frozenkit.networks.backbone import Backbone, check_backbone, load_backbone
from frozenkit.networks.layers import pooled_shape
from frozenkit.networks.zoo import list_backbones
from frozenkit.probes.probe import fit_probe
from frozenkit.probes.scores import Score, score
from frozenkit.probes.selectivity import selectivity

LARGEST_SIDE = 96  # pixels; a ridge on wider raw images would need more memory than it tells


def control_scores(
    train_images: ImageDataset,
    test_images: ImageDataset,
    backbone: Backbone,
    *,
    layer: str | None = None,
    seed: int = 0,
    cache: FeatureCache | None = None,
    progress: bool | Callable[[int, int], None] | None = None,
    features: tuple[FeatureSet, FeatureSet] | None = None,
) -> dict[str, Score]:
    """Four scores that a probe must beat before it says anything about the backbone.

    Same images, same head (ridge), same strengths, each chosen by leave-one-out:

    * ``"majority"``: always the commonest class of train.
    * ``"shuffled labels"``: the backbone's features under permuted train labels, the median of several permutations.
      Well above chance, something leaks.
    * ``"raw pixels"``: the images themselves, flattened at their native size. What needs no network.
    * ``"random weights"``: the same layer of the same architecture, pooled alike, seeded and never trained. What the
      architecture alone brings.

    Args:
        train_images: What is fitted on.
        test_images: What is reported on.
        backbone: Whose claim is controlled.
        layer: Default: the backbone's.
        seed: Of the permutation and of the random weights.
        cache: As in `extract`.
        progress: As in `extract`.
        features: (train, test) features of that layer, where they are at hand already; extracted otherwise, pooled by
            ``"mean"``. Random weights are pooled as their `origin` says; where they have none, by ``"mean"``.

    Returns:
        Name to `Score` on the test images, in the order above.

    Raises:
        InputError: If train or test have no classes, or others than each other, or `features` are of other images or
            another layer, image size or pooling.

    References:
        J. Hewitt, P. Liang (2019), Designing and interpreting probes with control tasks, EMNLP.
    """
    check_backbone(backbone)
    check_images("train_images", train_images)
    check_images("test_images", test_images)
    check_classes("test_images", test_images.classes, train_images.classes)
    layer = layer or backbone.default_layer
    both, pooling = (train_images, test_images), "mean"

    def features_of(source: Backbone) -> list[FeatureSet]:
        options: Any = {"pooling": pooling, "cache": cache, "progress": progress}
        return [extract(source, images, layer=layer, **options) for images in both]

    if features is None:
        train, test = features_of(backbone)
    else:
        train, test = features
        for name, given, images in (("train", train, train_images), ("test", test, test_images)):
            if given.ids != images.ids or given.layer != layer:
                raise InputError(f"`features` must be those of {layer!r} for the {name} images, in the same order.")
        pooling = _pooling_of(backbone, layer, train, test)
    majority = torch.bincount(train.labels, minlength=train.n_classes).argmax()
    return {
        "majority": score(majority.expand(len(test)), test.labels, n_classes=test.n_classes, classes=test.classes),
        "shuffled labels": selectivity(train, test, seed=seed).control,
        "raw pixels": _score_ridge(*raw_pixels(train_images, test_images)),
        "random weights": _score_ridge(*features_of(randomized(backbone, seed=seed))),
    }


def _pooling_of(backbone: Backbone, layer: str, train: FeatureSet, test: FeatureSet) -> str:
    """How both were pooled; checked, so that the control does not differ in more than its weights."""
    made = {(o.pooling, o.image_size) for o in (train.origin, test.origin) if o}
    pooling, image_size = next(iter(made), ("mean", backbone.image_size))
    if len(made) > 1 or image_size != backbone.image_size:
        raise InputError(
            f"`features` must be pooled alike, from images of {backbone.image_size} pixels, got "
            f"{' and '.join(f'{way!r} at {size}' for way, size in sorted(made))}. Extract them again."
        )
    expected = pooled_shape(backbone.trace(), layer, pooling)
    for given in (train, test):
        if tuple(given.features.shape[1:]) != expected:
            raise InputError(
                f"`features` must be what `extract` gives at {layer!r} with pooling={pooling!r}, "
                f"{' × '.join(map(str, expected))} wide, got {given!r}. Leave them out, or extract them again."
            )
    return pooling


def randomized(backbone: Backbone, *, seed: int = 0) -> Backbone:
    """The same architecture and preprocessing with seeded random weights.

    A backbone that `load_backbone` knows is built anew; your own module, whatever it is called, is copied, and every
    part of it that can is reset.

    Raises:
        InputError: If a part of your own module holds parameters that it cannot reset.
    """
    check_backbone(backbone)
    module = _built_anew(backbone, seed) or _reset(backbone.module, seed)
    return Backbone(
        module,
        backbone.preprocess,
        name=f"{backbone.name} (random weights)",
        image_size=backbone.image_size,
        default_layer=backbone.default_layer,
        n_prefix_tokens=backbone.n_prefix_tokens,
        device=backbone.device,
    )


def _built_anew(backbone: Backbone, seed: int) -> nn.Module | None:
    """The known network of that name with random weights; None if this one only bears the name."""
    name = backbone.name.partition(" (")[0]  # resnet50 (IMAGENET1K_V1)
    if name not in list_backbones() and not name.startswith(("timm/", "hf:", "open_clip:")):
        return None
    try:
        module = load_backbone(name, weights=None, image_size=backbone.image_size, seed=seed).module
    except (InputError, DataError, NotAvailableError):
        return None
    return module if stable_repr(module) == stable_repr(backbone.module) else None


def _reset(module: nn.Module, seed: int) -> nn.Module:
    module = copy.deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, part in module.named_modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
            elif next(part.parameters(recurse=False), None) is not None:
                raise InputError(
                    f"`backbone` must be one whose parts can be reset; {name!r} has parameters and no "
                    "`reset_parameters`. Give that method, which draws new ones."
                )
    return module


def raw_pixels(*sets: ImageDataset) -> tuple[FeatureSet, ...]:
    """Each image flattened to one row, values in [0, 1]: the features of no network.

    Images keep their size where all share one of at most 96 pixels per side; otherwise all are resized to the smallest
    width and height among them, at most 96. Grey images give one channel.

    Args:
        sets: Sets of images, to be treated alike.

    Returns:
        One `FeatureSet` for each, with layer ``"pixels"``.
    """
    for i, images in enumerate(sets):
        check_images(f"sets[{i}]", images, any_labels=True)
    sizes = {images[i][0].size for images in sets for i in range(len(images))}
    target = tuple(min(LARGEST_SIDE, *(size[axis] for size in sizes)) for axis in (0, 1))
    resize = sizes != {target}
    rows = [_load_pixels(images, target if resize else None) for images in sets]
    grey = all((x[..., :1] == x).all() for x in rows)
    return tuple(
        FeatureSet.from_arrays(
            (x[..., :1] if grey else x).flatten(1) / 255,
            images.labels,
            classes=images.classes or None,
            ids=images.ids,
            layer="pixels",
        )
        for x, images in zip(rows, sets)
    )


def _load_pixels(images: ImageDataset, size: Any) -> Tensor:
    """(n, h, w, 3) uint8."""
    loaded = (images[i][0].convert("RGB") for i in range(len(images)))
    if size is not None:
        loaded = (image.resize(size, Image.Resampling.BOX, reducing_gap=3.0) for image in loaded)
    return torch.from_numpy(np.stack([np.asarray(image) for image in loaded]))


def _score_ridge(train: FeatureSet, test: FeatureSet) -> Score:
    # On noise the best strength is an accident, and so is its place in the grid.
    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        return fit_probe(train).score(test)
