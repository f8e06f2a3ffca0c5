"""Frozen features as a step of scikit-learn's pipelines and searches."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from frozenkit._arrays import described
from frozenkit.classifier.predictions import _ImageSource
from frozenkit.errors import InputError
from frozenkit.extraction.cache import FeatureCache, check_cache
from frozenkit.extraction.extract import extract
from frozenkit.extraction.key import as_images
from frozenkit.fingerprint import module_state
from frozenkit.images.dataset import ArraySource, FileSource, ImageDataset, Images, Source
from frozenkit.networks.backbone import Backbone, check_backbone, load_backbone
from frozenkit.networks.layers import POOLINGS, pooled_shape

_MOST_BYTES = 256 << 20  # of features that are kept for each backbone


class FrozenFeatures(TransformerMixin, BaseEstimator):
    """Images to features of a frozen backbone: a transformer that learns nothing.

    Searches fit and transform the same images again and again, fold by fold. So the backbone is loaded once per
    process, clones share it, and the features of the latest images (up to 256 MB) are kept in memory: in a grid search
    each image is computed once for each layer, pooling and backbone, whatever else is varied.

    X is a list of PIL images or of paths, an array of images (n, h, w) or (n, h, w, 3) of uint8, one column of paths of
    a table, an `ImageDataset` (whose labels are y: ``images.labels.numpy()``), or a list of (image, label) pairs, as
    which scikit-learn hands on parts of a dataset.

    Args:
        backbone: A name for `load_backbone`, or a `Backbone`.
        layer: As in `extract`; None is the backbone's default.
        pooling: As in `extract`, but not ``"tokens"``.
        image_size: Pixels; None is the backbone's own. Only with a name.
        precision: As in `extract`.
        batch_size: As in `extract`.
        cache: A `FeatureCache` that keeps the features of each set of images on disk as well.

    Attributes:
        layer_: The layer that features come from.
        n_features_out_: d, their number per image.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> images = [Image.new("RGB", (32, 32), name) for name in ("red", "blue", "darkred", "darkblue")]
        >>> model = make_pipeline(FrozenFeatures(image_size=64), StandardScaler(), LogisticRegression())
        >>> model.fit(images[:2], ["red", "blue"]).predict(images[2:])
        array(['red', 'blue'], dtype='<U4')
    """

    def __init__(
        self,
        backbone: str | Backbone = "efficientnet-lite0",
        *,
        layer: str | None = None,
        pooling: str = "mean",
        image_size: int | None = None,
        precision: str = "auto",
        batch_size: int | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.pooling = pooling
        self.image_size = image_size
        self.precision = precision
        self.batch_size = batch_size
        self.cache = cache

    def fit(self, X: Any, y: Any = None) -> "FrozenFeatures":
        """Loads the backbone and looks at what is asked for; learns nothing from X.

        Raises:
            InputError: If X holds no images, or an argument does not fit.
        """
        _as_dataset(X)
        check_cache(self.cache)
        backbone = self._loaded()
        if self.layer is not None and not isinstance(self.layer, str):
            raise InputError(f"`layer` must name one layer, got {described(self.layer)}. List them: backbone.layers.")
        (layer,) = backbone.check_layers(self.layer)
        if self.pooling not in POOLINGS or self.pooling == "tokens":
            vectors = ", ".join(pooling for pooling in POOLINGS if pooling != "tokens")
            raise InputError(f"`pooling` must be one of {vectors}, which give one vector, got {self.pooling!r}.")
        self.n_features_out_ = pooled_shape(backbone.trace(), layer, self.pooling)[-1]
        self.layer_ = layer
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(n, d) float32 features of the images in X.

        Raises:
            InputError: If X holds no images.
            DataError: If one of them cannot be read; names the file.
        """
        check_is_fitted(self)
        dataset, backbone = _as_dataset(X), self._loaded()
        options: dict[str, Any] = {"layer": self.layer_, "pooling": self.pooling, "precision": self.precision}
        how = tuple(options.values())
        options |= {"batch_size": self.batch_size, "cache": self.cache}
        if self.cache is not None or not isinstance(dataset, ImageDataset):
            return extract(backbone, dataset, **options).features.numpy()
        digests = [dataset.source.digest(int(row)) for row in dataset._rows]
        known = _kept(backbone).setdefault(how, {})
        rows = {digest: known[digest] for digest in digests if digest in known}
        missing = {digest: row for row, digest in enumerate(digests) if digest not in rows}
        if missing:
            new = extract(backbone, dataset.subset(list(missing.values())), **options).features
            rows |= zip(missing, new, strict=True)
            _keep(backbone, known, dict(zip(missing, new, strict=True)))
        return torch.stack([rows[digest] for digest in digests]).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """(d,) names: the layer, and a number."""
        check_is_fitted(self)
        return np.array([f"{self.layer_}.{j}" for j in range(self.n_features_out_)], dtype=object)

    def __sklearn_clone__(self) -> "FrozenFeatures":
        """An unfitted one with the same arguments; the frozen backbone is shared, not copied."""
        return type(self)(**self.get_params(deep=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags

    def _loaded(self) -> Backbone:
        if isinstance(self.backbone, str):
            return _load(self.backbone, self.image_size)
        check_backbone(self.backbone)
        if self.image_size not in (None, self.backbone.image_size):
            raise InputError(
                f"`image_size` must be left out beside a Backbone, which has its own, {self.backbone.image_size}; got "
                f"{self.image_size}. Give it to load_backbone."
            )
        return self.backbone


@functools.lru_cache(maxsize=4)
def _load(name: str, image_size: int | None) -> Backbone:
    return load_backbone(name, image_size=image_size)


# Backbone → (its state, {(layer, pooling, precision): {digest of an image: its features}}).
_memory: WeakKeyDictionary[Backbone, tuple[Any, dict[tuple[str, ...], dict[bytes, Tensor]]]] = WeakKeyDictionary()


def _kept(backbone: Backbone) -> dict[tuple[str, ...], dict[bytes, Tensor]]:
    """The features that are kept of a backbone as it is now."""
    state = (module_state(backbone.module), backbone.preprocess, backbone.device)
    if backbone not in _memory or _memory[backbone][0] != state:
        _memory[backbone] = (state, {})
    return _memory[backbone][1]


def _keep(backbone: Backbone, known: dict[bytes, Tensor], new: dict[bytes, Tensor]) -> None:
    """Adds to what is kept, in place of everything where that would become too much."""
    kept = _kept(backbone)
    size = sum(len(rows) * next(iter(rows.values())).nbytes for rows in (*kept.values(), new) if rows)
    if size > _MOST_BYTES:
        for rows in kept.values():
            rows.clear()
        new = new if sum(row.nbytes for row in new.values()) <= _MOST_BYTES else {}
    known |= {digest: row.clone() for digest, row in new.items()}


def _as_dataset(X: Any) -> Images:
    """X as images: by their numbers where they have no names."""
    if hasattr(X, "iloc") or (isinstance(X, np.ndarray) and X.dtype.kind in "OUS"):  # a table's column, or names
        values = np.asarray(X)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        X = values.tolist() if values.ndim == 1 else values
    if isinstance(X, list | tuple):
        paired = all(isinstance(each, tuple | list) and len(each) == 2 for each in X)
        return _numbered(_source([each[0] for each in X] if paired else X), len(X))
    if isinstance(X, np.ndarray | Tensor):
        pixels = np.asarray(X)
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
            raise InputError(
                f"X must hold images as (n, h, w) or (n, h, w, 3) of uint8, got {described(X)} of {pixels.dtype}."
            )
        return _numbered(ArraySource(pixels), len(pixels))
    if isinstance(X, str | Path):
        raise InputError(f"X must hold one entry per image, got {X!r}. A folder is image_folder(path, labelled=False).")
    return as_images(X)


def _source(images: Sequence[Any]) -> Source:
    if all(isinstance(image, str | Path) for image in images):
        return FileSource([Path(path) for path in images])
    if all(isinstance(image, np.ndarray) and image.dtype == np.uint8 and _is_image(image) for image in images):
        return _ImageSource([Image.fromarray(image) for image in images])
    if all(isinstance(image, Image.Image) for image in images):
        return _ImageSource(images)
    kinds = ", ".join(sorted({type(image).__name__ for image in images}))
    raise InputError(f"X must hold PIL images, paths, or uint8 arrays (h, w) or (h, w, 3) throughout, got {kinds}.")


def _is_image(array: np.ndarray) -> bool:
    return 0 not in array.shape and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))


def _numbered(source: Source, n: int) -> ImageDataset:
    if n == 0:
        raise InputError("X must hold at least one image, got none.")
    return ImageDataset(source, None, (), [str(i) for i in range(n)], name="images")
