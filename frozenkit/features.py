"""The waist of frozenkit: `Features` are all that passes from images and networks to arrays and numbers."""

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from frozenkit._arrays import (
    as_tensor,
    check_finite,
    coded_labels,
    described,
    first_row,
    is_array,
    row_indices,
    texts,
    whole_number,
)
from frozenkit._projections import discriminant_directions, principal_directions, random_directions
from frozenkit.errors import DataError, InputError, require
from frozenkit.fingerprint import Origin

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@runtime_checkable
class Features(Protocol):
    """The features of n images at one layer, in memory or on disk: what everything below the waist works on.

    `FeatureSet` and `CachedFeatures` are such; so is any class of yours that has these members. Where a function takes
    `Features`, it also takes an (X, y) pair of arrays.
    """

    @property
    def labels(self) -> Tensor:
        """(n,) int64 class indices; bool (n, k) where an image may have several labels; float32 (n,) or (n, m) for
        regression; None for images without labels.
        """
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, or those of the labels; empty for regression."""
        ...

    @property
    def ids(self) -> tuple[str, ...]:
        """N unique names, one per image."""
        ...

    @property
    def layer(self) -> str:
        """Where the features come from."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d), or (n, t, d) for t tokens per image."""
        ...

    @property
    def n_features(self) -> int:
        """d, the width of one feature vector."""
        ...

    @property
    def n_classes(self) -> int:
        """k, the number of classes; 0 for regression."""
        ...

    def __len__(self) -> int: ...

    def batches(self, size: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in order, as (features, labels) chunks of `size`; labels are None where there are none.

        At least one, which is empty where there are no rows: it tells the width.
        """
        ...

    def rows(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Those rows, in that order, by indices in −n..n−1 or a mask of n booleans: (m, d) or (m, t, d).

        Raises:
            InputError: If an index is none of these.
        """
        ...

    def load(self) -> "FeatureSet":
        """Everything, in memory."""
        ...


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of one layer for n images, with their labels.

    What is passed in is brought into this form: arrays become tensors without a gradient, whole numbers and booleans
    among the features become float32, labels int64, bool or float32, classes and ids tuples of text. `from_arrays`
    makes a set of arrays alone.

    Attributes:
        features: (n, d) float tensor, or (n, t, d) with ``pooling="tokens"``.
        labels: (n,) int64 class indices in ``range(len(classes))``; bool (n, k) where an image may have any of k
            labels (multi-label); float32 (n,) or (n, m) for regression; None for images without labels, which can be
            predicted but not fitted on or scored.
        classes: Class names, or those of the k labels; empty for regression.
        ids: n stable, unique names, one per image.
        layer: Dotted layer name, or several joined by ``+``.
        fingerprint: Hex digest of what made these features (data, backbone, layer, pooling, size, precision, storage);
            empty where that cannot be told. May be given as a function, which is called when it is first asked for.
        origin: Backbone, image size, pooling, precision and images, as `extract` notes them; None where not known.

    Raises:
        DataError: If shapes, dtypes, labels or ids do not fit together.

    Example:
        >>> labels, ids = ["cat", "cat", "dog", "dog"], ["a", "b", "c", "d"]
        >>> fs = FeatureSet.from_arrays(torch.eye(4), labels, ids=ids, layer="avgpool")
        >>> fs
        FeatureSet(4 images × 4 features, 2 classes, layer='avgpool')
        >>> fs[2:].ids, fs[fs.labels == 0].ids, fs[[3, 0]].ids
        (('c', 'd'), ('a', 'b'), ('d', 'a'))
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    layer: str
    fingerprint: str
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if callable(self.fingerprint):
            self.__dict__["_make_fingerprint"] = functools.cache(self.__dict__.pop("fingerprint"))
        self._coerce()
        shape = tuple(self.features.shape)
        if len(shape) not in (2, 3):
            raise DataError(
                f"`features` must be (n, d) or (n, t, d), got shape {shape}. A single image is x[None], a single "
                "feature x[:, None]."
            )
        n = shape[0]
        if self.labels is not None and self.labels.ndim == 0:
            raise DataError("`labels` must have one row per image, got a single number.")
        if len(self.ids) != n or (self.labels is not None and len(self.labels) != n):
            labels = "no" if self.labels is None else len(self.labels)
            raise DataError(
                f"`features`, `labels` and `ids` must have one row per image, got {n}, {labels} and {len(self.ids)}."
            )
        for name, values in (("ids", self.ids), ("classes", self.classes)):
            if len(set(values)) != len(values):
                twice, times = Counter(values).most_common(1)[0]
                raise DataError(f"`{name}` must be unique, but {twice!r} occurs {times} times.")
        if self.labels is None:
            return
        if is_multilabel(self):
            if self.labels.shape[1] != len(self.classes) or not self.classes:
                raise DataError(
                    f"`classes` must name each of {self.labels.shape[1]} labels (boolean columns of `labels`), got "
                    f"{len(self.classes)} names."
                )
        elif self.classes:
            if self.labels.ndim != 1 or self.labels.is_floating_point():
                raise DataError(f"`labels` must be (n,) integers, got {self.labels.dtype} {tuple(self.labels.shape)}.")
            if n and (int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.classes)):
                raise DataError(
                    f"`labels` must lie in 0..{len(self.classes) - 1} for {len(self.classes)} classes, "
                    f"got {int(self.labels.min())}..{int(self.labels.max())}."
                )
        elif not self.labels.is_floating_point():
            raise DataError("`classes` must name the classes of integer labels; leave it empty only for regression.")

    def _coerce(self) -> None:
        """Brings every field into its form."""
        given = self.features
        x = as_tensor(given, "features")
        if isinstance(given, Tensor):  # the very tensor, where it is
            x = given.detach() if given.requires_grad else given
        whole = not x.is_floating_point()
        y = self.labels if self.labels is None or isinstance(self.labels, Tensor) else as_tensor(self.labels, "labels")
        if y is not None:
            several = y.dtype == torch.bool and y.ndim == 2
            y = y.detach().to(torch.float32 if y.is_floating_point() else torch.bool if several else torch.int64)
        fields = {
            "features": x.float() if whole or not isinstance(given, Tensor) else x,
            "labels": y,
            "classes": texts(self.classes, "classes"),
            "ids": texts(self.ids, "ids"),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_arrays(
        cls,
        features: Any,
        labels: Any = None,
        *,
        classes: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        layer: str = "features",
    ) -> "FeatureSet":
        """A set from arrays: NumPy, torch, pandas, or lists.

        Args:
            features: (n, d) or (n, t, d) numbers; kept as float32 on the CPU.
            labels: (n,) class names, or class indices 0, 1, … (booleans count as 0 and 1), or floating-point numbers
                for regression, (n,) or (n, m); None for images without labels. Several labels per image: a list or set
                of names for each image, or (n, k) booleans, or 0 and 1, a column for each label.
            classes: Class names. Default: the distinct names among the labels in sorted order; for class indices
                ``"0"``, ``"1"``, … up to the largest that occurs, so that predictions are the numbers you gave; for
                (n, k) labels the names of a table's columns, or ``"0"``, ``"1"``, …
                Give it where a set, such as a test set, may lack one of the classes.
            ids: n unique names. Default: a digest of the features, and the row.
            layer: A name for where the features come from; a probe fitted on one layer refuses another.

        Raises:
            InputError: If something is no array of numbers, or labels are neither names nor numbers.
            DataError: If lengths differ, a label is missing or unknown, or a number does not fit into float32.

        Warns:
            FrozenkitWarning: If each image has exactly one of several labels, and `classes` is not given.

        Example:
            >>> FeatureSet.from_arrays(np.eye(4), ["dog", "cat", "cat", "dog"])
            FeatureSet(4 images × 4 features, 2 classes, layer='features')
            >>> FeatureSet.from_arrays([[1.0, 2.0], [3.0, 4.0]], [0, 1]).classes
            ('0', '1')
            >>> FeatureSet.from_arrays(np.eye(3), [["cat", "dog"], [], ["cat"]])
            FeatureSet(3 images × 3 features, any of 2 labels, layer='features')
        """
        given = as_tensor(features, "features")
        if 0 in given.shape:
            raise DataError(f"`features` must hold at least one image and one number, got shape {tuple(given.shape)}.")
        x = given.float().contiguous()
        if given.dtype == torch.float64 and not (fits := x.isfinite() | ~given.isfinite()).all():
            raise DataError(
                f"`features` must fit into float32 (up to 3.4e38), but row {first_row(~fits)} does not. Scale them."
            )
        names = None if classes is None else texts(classes, "classes")
        y, names = (None, names or ()) if labels is None else coded_labels(labels, names)
        content = [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in (x, y) if part is not None]
        # Whole numbers of 8 bytes must not pass for a row of 8 booleans.
        about = {"multilabel": True} if y is not None and y.dtype == torch.bool else {}
        digest = _derive("arrays", content, shape=list(x.shape), classes=list(names), layer=layer, **about)
        if ids is None:  # the same row of another array is another image
            ids = [f"{content[0][:8]}/{i}" for i in range(len(x) if x.ndim else 0)]
        return cls(x, y, names, ids, layer, digest)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.ids)

    def __getattr__(self, name: str) -> Any:
        make = self.__dict__.get("_make_fingerprint")
        if name != "fingerprint" or make is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        fingerprint = self.__dict__.setdefault("fingerprint", make())
        self.__dict__.pop("_make_fingerprint", None)  # and with it whatever it needed
        return fingerprint

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "fingerprint": self.fingerprint}
        state.pop("_make_fingerprint", None)  # a function need not survive pickling
        return state

    def __getitem__(self, index: slice | Sequence[int] | Tensor | np.ndarray) -> "FeatureSet":
        """Those rows, by a slice, a mask or indices; see `subset`."""
        if isinstance(index, Integral):
            raise InputError(
                f"a set takes a slice, a mask or indices, got {index}. One image is [{index}:{index + 1}]."
            )
        return self.subset(range(len(self))[index] if isinstance(index, slice) else index)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d), or (n, t, d) for t tokens per image."""
        return tuple(self.features.shape)

    @property
    def n_features(self) -> int:
        """d, the width of one feature vector (of one token, where there are tokens)."""
        return self.features.shape[-1]

    @property
    def n_classes(self) -> int:
        """k, the number of classes, or of labels; 0 for regression."""
        return len(self.classes)

    @property
    def is_multilabel(self) -> bool:
        """Whether an image may have any number of the k labels: `labels` are (n, k) booleans."""
        return is_multilabel(self)

    def batches(self, size: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in order, as (features, labels) chunks of `size`, which share memory with the set; at least one."""
        for start in range(0, max(1, len(self)), size):
            rows = slice(start, start + size)
            yield self.features[rows], self.labels if self.labels is None else self.labels[rows]

    def rows(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Those rows, in that order, by indices or a mask: (m, d) or (m, t, d); raises like `subset`."""
        return self.features[row_indices(indices, len(self))]

    def load(self) -> "FeatureSet":
        """Itself: it is in memory."""
        return self

    def with_features(
        self, features: Tensor, *, layer: str | None = None, fingerprint: Any = "", origin: Origin | None = None
    ) -> "FeatureSet":
        """The same images with other features, (n, d) or (n, t, d); what made them is not known unless it is given."""
        return self._replaced(features=features, layer=layer or self.layer, fingerprint=fingerprint, origin=origin)

    def _replaced(self, **changes: Any) -> "FeatureSet":
        """`dataclasses.replace` that does not ask for the fingerprint."""
        names = ("features", "labels", "classes", "ids", "layer", "origin")
        given = {name: getattr(self, name) for name in names}
        return FeatureSet(**{**given, "fingerprint": self._lazy_fingerprint, **changes})

    @property
    def _lazy_fingerprint(self) -> str | Callable[[], str]:
        """The fingerprint, or the function that makes it where nobody asked yet."""
        return self.__dict__.get("fingerprint") or self.__dict__.get("_make_fingerprint", "")

    def subset(self, indices: Sequence[int] | Tensor | np.ndarray) -> "FeatureSet":
        """Those rows, in that order, by their indices or by a mask.

        Raises:
            InputError: If a mask has another length, or an index is no whole number in −n..n−1.
        """
        index = row_indices(indices, len(self))
        at = index.to(self.features.device)
        return self._replaced(
            features=self.features[at],
            labels=None if self.labels is None else self.labels[at.to(self.labels.device)],
            ids=tuple(self.ids[i] for i in index.tolist()),
            fingerprint=_deriving("subset", [self], rows=index),
        )

    def relabel(self, labels: Tensor | Sequence[int], classes: Sequence[str]) -> "FeatureSet":
        """The same features under other labels, as the attribute has them: a second task on one extraction.

        Example:
            >>> tagged = FeatureSet.from_arrays(np.eye(3), [["cat", "dog"], [], ["cat"]])
            >>> tagged.relabel(tagged.labels[:, 0], ["no cat", "cat"])  # one label by itself
            FeatureSet(3 images × 3 features, 2 classes, layer='features')
        """
        new = as_tensor(labels, "labels")
        about = {"multilabel": True} if new.dtype == torch.bool and new.ndim == 2 else {}
        fingerprint = _deriving("relabel", [self], labels=new, classes=list(classes), **about)
        # Whoever loads the images again does not get these labels.
        origin = None if self.origin is None else dataclasses.replace(self.origin, code="")
        return self._replaced(
            labels=new.to(self.features.device), classes=tuple(classes), fingerprint=fingerprint, origin=origin
        )

    def numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels as NumPy arrays, ready for scikit-learn; raises an `InputError` without labels."""
        as_features(self, "features", multilabel=True)
        return self.features.cpu().float().numpy(), self.labels.cpu().numpy()

    def to(self, device: str | torch.device) -> "FeatureSet":
        """The same set with its tensors on another device."""
        labels = None if self.labels is None else self.labels.to(device)
        return self._replaced(features=self.features.to(device), labels=labels)

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table: ids as index, the label's name (or value) if there is one, then a column per feature.

        Where an image may have several labels, each has a column of booleans, ``label cat`` for one.
        """
        pd = require("pandas", "course")

        if self.features.ndim == 3:
            raise InputError("`to_frame` needs (n, d) features, got tokens. Average them first, or index one token.")
        x = self.features.cpu().float().numpy()
        frame = pd.DataFrame(x, index=pd.Index(self.ids, name="id"), columns=[f"f{j}" for j in range(x.shape[1])])
        if is_multilabel(self):
            for j, name in enumerate(self.classes):
                frame.insert(j, f"label {name}", self.labels[:, j].cpu().numpy())
        elif self.labels is not None:
            y = self.labels.cpu().numpy()
            frame.insert(0, "label", [self.classes[i] for i in y] if self.classes else list(y))
        return frame

    def to_arrow(self) -> "pa.Table":
        """A pyarrow table: ``id``, ``label`` where there is one, and ``features`` as lists of fixed size.

        A label is its class's name (a dictionary array), the list of names that an image has, or the value; tokens are
        lists of lists. Layer and classes are in the metadata of the schema, as JSON under ``frozenkit``.
        """
        pa = require("pyarrow", "hf")

        def nested(tensor: Tensor) -> Any:
            array = pa.array(tensor.cpu().flatten().numpy())
            for size in reversed(tensor.shape[1:]):
                array = pa.FixedSizeListArray.from_arrays(array, size)
            return array

        columns = {"id": pa.array(self.ids, pa.string())}
        if is_multilabel(self):
            names = [[self.classes[j] for j in row.nonzero().flatten().tolist()] for row in self.labels.cpu()]
            columns["label"] = pa.array(names, pa.list_(pa.string()))
        elif self.labels is not None:
            indices = nested(self.labels)
            columns["label"] = pa.DictionaryArray.from_arrays(indices, self.classes) if self.classes else indices
        about = json.dumps({"layer": self.layer, "classes": self.classes})
        return pa.table({**columns, "features": nested(self.features.float())}, metadata={"frozenkit": about})

    def to_torch(self) -> torch.utils.data.TensorDataset:
        """A torch dataset of (feature, label) pairs; raises an `InputError` without labels."""
        as_features(self, "features", multilabel=True)
        return torch.utils.data.TensorDataset(self.features, self.labels)

    def __repr__(self) -> str:
        size = " × ".join(map(str, self.features.shape[1:]))
        task = f"{self.n_classes} classes" if self.classes else "regression"
        task = f"any of {self.n_classes} labels" if is_multilabel(self) else task
        task = "no labels" if self.labels is None else task
        return f"FeatureSet({len(self)} images × {size} features, {task}, layer={self.layer!r})"


def combine(sets: Mapping[str, Features], how: str = "concat") -> FeatureSet:
    """Several layers of the same images as one `FeatureSet`.

    Args:
        sets: Layer name to `Features`, all with the same ids in the same order and the same labels; they are loaded.
        how: ``"concat"`` puts them side by side, (n, Σd); ``"mean"`` averages them, and all widths must agree.

    Raises:
        InputError: If `sets` holds something else, if images, labels, widths or numbers of tokens differ, or `how` is
            unknown.

    Example:
        >>> a = FeatureSet.from_arrays(torch.zeros(2, 3), ["x", "y"], ids=["1", "2"], layer="early")
        >>> b = FeatureSet.from_arrays(torch.ones(2, 5), ["x", "y"], ids=["1", "2"], layer="late")
        >>> combine({"early": a, "late": b})
        FeatureSet(2 images × 8 features, 2 classes, layer='early+late')
    """
    if not isinstance(sets, Mapping) or not sets:
        raise InputError(f"`sets` must map at least one layer to its features, got {described(sets)}.")
    loaded = {name: load_set(member, f"sets[{name!r}]", labelled=False) for name, member in sets.items()}
    members = list(loaded.values())
    first = members[0]
    for name, member in loaded.items():
        if member.ids != first.ids:
            raise InputError(f"all layers must hold the same images in the same order; {name!r} differs in its ids.")
        if not same_labels(member, first):
            raise InputError(f"all layers must carry the same labels; {name!r} differs.")
        if member.features.shape[:-1] != first.features.shape[:-1]:
            raise InputError(
                f"all layers must hold one vector, or equally many tokens, per image; {name!r} has shape "
                f"{tuple(member.features.shape)} beside {tuple(first.features.shape)}. Average tokens first."
            )
    if how == "concat":
        features = torch.cat([m.features for m in members], dim=-1)
    elif how == "mean":
        widths = {name: m.n_features for name, m in loaded.items()}
        if len(set(widths.values())) > 1:
            raise InputError(f"`how='mean'` needs layers of one width, got {widths}. Use how='concat'.")
        features = torch.stack([m.features for m in members]).mean(0)
    else:
        raise InputError(f"`how` must be 'concat' or 'mean', got {how!r}. A learned mix is `LayerMix`.")
    layer = "+".join(m.layer for m in members)
    made = [m.origin.to_ingredients() if m.origin else None for m in members]  # digests of the network included
    origin = first.origin if all(each == made[0] for each in made) else None
    return first.with_features(features, layer=layer, fingerprint=_deriving("combine", members, how=how), origin=origin)


def reduce(
    train: Features, *others: Features, n_features: int, how: str = "pca", seed: int = 0
) -> tuple[FeatureSet, ...]:
    """Fewer features for train and others, by a projection fitted on train alone.

    Args:
        train: (n, d) `Features`; what the projection is fitted on. They are loaded, here and among the others.
        others: Further sets of the same layer and width, projected the same way.
        n_features: Width of the result; at most d, for ``"pca"`` at most n, for ``"lda"`` fewer than classes of train.
        how: ``"pca"``: principal axes of the centred train features, largest variance first; 0 where none is left that
            varies beyond rounding.
            ``"random"``: a seeded Gaussian projection scaled by 1/√n_features (Johnson and Lindenstrauss, 1984).
            ``"lda"``: the directions in which the classes of train lie furthest apart, measured in their common spread
            (Fisher, 1936), which is shrunk by Ledoit and Wolf's rule.
        seed: For ``"random"``.

    Returns:
        The reduced sets, in the order given.

    Raises:
        InputError: If something is no set of features, widths or layers differ, or an argument is out of range.
        DataError: If a row is not finite; the message names it.

    Example:
        >>> fs = FeatureSet.from_arrays([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]])
        >>> reduce(fs, n_features=1)[0].features.abs().squeeze().round(decimals=3)
        tensor([2.8280, 0.0000, 2.8280])
    """
    fit_on = load_set(train, "train", labelled=False)
    members = [fit_on, *(load_set(member, f"others[{i}]", labelled=False) for i, member in enumerate(others))]
    for i, member in enumerate(members):
        name = f"others[{i - 1}]" if i else "train"
        if member.n_features != fit_on.n_features:
            raise InputError(f"all sets must be {fit_on.n_features} wide like train, got {member.n_features}.")
        if member.layer != fit_on.layer:
            raise InputError(f"all sets must come from {fit_on.layer!r} like train, got {member.layer!r}.")
        feature_rows(member, name)
    if how not in ("pca", "random", "lda"):
        raise InputError(f"`how` must be 'pca', 'random' or 'lda', got {how!r}.")
    limit = min(fit_on.features.shape) if how == "pca" else fit_on.n_features
    if how == "lda":
        if fit_on.labels is None or not fit_on.classes:
            raise InputError(f"`how='lda'` needs classes to tell apart, got {fit_on!r}. Use how='pca'.")
        check_one_class(fit_on, "train")
        limit = min(limit, len(fit_on.labels.unique()) - 1)
    n_features, seed = whole_number("n_features", n_features), whole_number("seed", seed, least=0)
    if not n_features <= limit:
        raise InputError(f"`n_features` must lie in 1..{limit} here, got {n_features}.")
    x = fit_on.features.double()
    origin = x.mean(0) if how == "pca" else torch.zeros_like(x[0])
    if how == "pca":
        directions = principal_directions(x, n_features)
    elif how == "random":
        directions = random_directions(fit_on.n_features, n_features, seed=seed)
    else:
        directions = discriminant_directions(x, fit_on.labels, n_features)
    settings = {"how": how, "n_features": n_features, "seed": seed}
    return tuple(
        member.with_features(
            ((member.features.double() - origin) @ directions).float(),
            fingerprint=_deriving("reduce", [fit_on, member], **settings),
        )
        for member in members
    )


def _derive(operation: str, parents: Sequence[str], **settings: Any) -> str:
    """The fingerprint of a set made from others: a digest of the parents and of what was done to them."""
    text = json.dumps([operation, list(parents), settings], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _deriving(operation: str, parents: Sequence[FeatureSet], **settings: Any) -> Callable[[], str]:
    """`_derive`, once somebody asks; tensors count by their bytes. Holds on to no parent's features."""
    prints = [parent._lazy_fingerprint for parent in parents]

    @functools.cache
    def derive() -> str:
        known = [print_() if callable(print_) else print_ for print_ in prints]
        if not all(known):  # what the parents are cannot be told, so neither can this
            return ""
        plain = {
            key: hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
            if isinstance(value, Tensor)
            else value
            for key, value in settings.items()
        }
        return _derive(operation, known, **plain)

    return derive


def feature_rows(features: Any, name: str = "features") -> Tensor:
    """(n, d) float64 rows on the CPU, of an array, an (X, y) pair of arrays, or of `Features`, which are loaded.

    Raises:
        InputError: If they are tokens, or no features at all.
        DataError: If a row is not finite; the message names it.
    """
    if is_pair(features) and getattr(features[0], "ndim", 0) == 2:  # not two rows
        features = features[0]
    if is_array(features):
        x, ids = as_tensor(features, name), None
    else:
        loaded = load_set(features, name, labelled=False)
        x, ids = loaded.features, loaded.ids
    if x.ndim != 2:
        raise InputError(f"`{name}` must be (n, d), got shape {tuple(x.shape)}. Average tokens first.")
    check_finite(x, name, ids)
    return x.detach().cpu().double()


def is_pair(data: Any) -> bool:
    """Whether this is an (X, y) pair of arrays."""
    return isinstance(data, tuple) and len(data) == 2 and all(map(is_array, data))


def is_multilabel(data: Features) -> bool:
    """Whether an image may have any number of the labels: they are (n, k) booleans."""
    return data.labels is not None and data.labels.dtype == torch.bool


def check_one_class(data: Features, name: str) -> None:
    """Raise an `InputError` where an image may have several labels."""
    if is_multilabel(data):
        raise InputError(
            f"`{name}` must have one class per image here, got any of {data.n_classes} labels. Take one label by "
            f"itself, as in {name}.relabel({name}.labels[:, 0], ['without', 'with']); "
            "`fit_probe` with head='logistic' takes all."
        )


def as_features(
    data: Any, name: str, labels: Any = None, *, labelled: bool = True, multilabel: bool = False, **about: Any
) -> Features:
    """The one door to everything below the waist: `data` as `Features`, with labels where they are needed.

    Args:
        data: `Features`, which come back as they are; an (X, y) pair of arrays; or an array X with `labels`.
        name: What messages call it.
        labels: Of an array.
        labelled: Whether labels are needed.
        multilabel: Whether an image may have several; where labels are not needed, it may.
        about: ``classes`` and ``layer`` of arrays, as in `FeatureSet.from_arrays`.

    Raises:
        InputError: If it is anything else, lacks labels, or has several per image; the message says how to get there.
    """
    if labels is None and is_pair(data):
        data, labels = data
    if is_array(data) and labels is not None:
        made = FeatureSet.from_arrays(data, labels, **about)
        if labelled and not multilabel:
            check_one_class(made, name)
        return made
    if labels is not None:
        raise InputError(
            f"`labels` must be left out where `{name}` carries its own. For others use {name}.relabel(labels, classes)."
        )
    if not isinstance(data, Features):
        if isinstance(data, Mapping):
            first = next(iter(data), "layer")
            hint = f"Take one layer out of it, as in features[{first!r}]."
        elif hasattr(data, "digest"):
            hint = "Extract its features first: extract(backbone, dataset)."
        elif is_array(data):
            hint = "Give labels with it, (X, y), or make a set with FeatureSet.from_arrays(X, y)."
        else:
            hint = "Make one of arrays with FeatureSet.from_arrays(features, labels)."
        raise InputError(
            f"`{name}` must be a FeatureSet, or features left on disk, or an (X, y) pair of arrays, "
            f"got {described(data)}. {hint}"
        )
    if labelled and data.labels is None:
        raise InputError(f"`{name}` must have labels, got {data!r}. Give them with FeatureSet.from_arrays or relabel.")
    if labelled and not multilabel:
        check_one_class(data, name)
    return data


def load_set(
    data: Any, name: str, *, labelled: bool = True, multilabel: bool = False, like: Features | None = None
) -> FeatureSet:
    """What `as_features` gives, in memory and on the CPU; raises like it. Arrays get classes and layer of `like`."""
    about = {} if like is None else {"classes": like.classes or None, "layer": like.layer}
    loaded = as_features(data, name, labelled=labelled, multilabel=multilabel, **about).load()
    return loaded if loaded.features.device.type == "cpu" else loaded.to("cpu")


def check_val(train: Features, val: Features) -> None:
    """Raise an `InputError` unless val fits train and holds other images.

    An image is in both if the same id has the same features. The id alone would not do: two folders, or two arrays, may
    use the same names for different images.
    """
    if tuple(val.classes) != tuple(train.classes) or val.layer != train.layer or val.n_features != train.n_features:
        raise InputError(
            "`val` must have the classes, layer and width of train, "
            f"got {val.n_classes} classes and {val.n_features} features of {val.layer!r}."
        )
    if val.labels.shape[1:] != train.labels.shape[1:]:
        raise InputError(
            f"`val` must have labels shaped like those of train, got {tuple(val.labels.shape)} beside "
            f"{tuple(train.labels.shape)}."
        )
    place = {name: i for i, name in enumerate(train.ids)}
    pairs = [(place[name], i) for i, name in enumerate(val.ids) if name in place]
    for start in range(0, len(pairs), 4096):
        ours, theirs = zip(*pairs[start : start + 4096])
        a, b = train.rows(ours).cpu().float(), val.rows(theirs).cpu().float()
        same = (a == b).flatten(1).all(1) if a.shape == b.shape else torch.zeros(len(a), dtype=torch.bool)
        if same.any():
            name = val.ids[theirs[int(same.nonzero()[0])]]
            raise InputError(
                f"`val` must hold other images than train, but {name!r} is in both. Divide them with `split`, or leave "
                "val out."
            )


def same_labels(a: Features, b: Features) -> bool:
    """Whether both carry the same labels and classes, or both none."""
    if a.labels is None or b.labels is None:
        return a.labels is b.labels
    return a.classes == b.classes and torch.equal(a.labels.cpu(), b.labels.cpu())
