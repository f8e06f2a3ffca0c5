"""What people hand in, checked and brought into one form: numbers, labels, names."""

import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit.errors import DataError, FrozenkitWarning, InputError

_MOST_CLASSES = 100_000  # that are numbered and not named: beyond it, labels are more likely no class indices


def is_array(values: Any) -> bool:
    """Whether this is an array or list of something, and not a set of features."""
    return isinstance(values, Tensor | np.ndarray | list | tuple) or hasattr(values, "__array__")


def as_tensor(values: Any, name: str) -> Tensor:
    """Numbers of a tensor, NumPy array, pandas table or (nested) list, as a tensor on the CPU without gradient.

    Tensors keep their dtype; of other arrays floating-point numbers of 8 bytes or more become float64, others float32,
    and whole numbers int64.

    Raises:
        InputError: If these are no numbers, complex or sparse, or rows differ in length.
    """
    if isinstance(values, Tensor):
        if values.is_complex() or values.layout != torch.strided:
            raise InputError(f"`{name}` must be real and dense, got a {values.dtype} tensor in layout {values.layout}.")
        return values.detach().cpu()
    if not is_array(values) and not isinstance(values, range):
        raise InputError(f"`{name}` must be an array of numbers, got {described(values)}.")
    if isinstance(values, list | tuple) and values and all(isinstance(v, Tensor) for v in values):
        values = [v.detach().cpu().numpy() for v in values]
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O" and not any(isinstance(v, str) for v in array.flat):
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"`{name}` must be an array of numbers with rows of one length, got {described(values)}: {error}"
        ) from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"`{name}` must be an array of numbers, got {described(values)} of {array.dtype}.")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        array = array.astype(np.float64)  # as int64 these would come out negative
    wide = {"f": np.float64 if array.itemsize >= 8 else np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}
    return torch.from_numpy(np.array(array, dtype=wide[array.dtype.kind], order="C"))


def row_indices(indices: Any, n: int) -> Tensor:
    """(m,) int64 in 0..n−1, of indices (negative ones count from the end) or of a mask of n booleans.

    Raises:
        InputError: If a mask has another length, or an index is no whole number in −n..n−1.
    """
    index = as_tensor(indices, "indices")
    if index.dtype == torch.bool:
        if index.shape != (n,):
            raise InputError(f"`indices` as a mask must have one entry per image, {n}, got {tuple(index.shape)}.")
        return index.nonzero().squeeze(1)
    if index.ndim != 1 or bool(((index >= n) | (index < -n) | (index != index.floor())).any()):
        raise InputError(f"`indices` must be whole numbers in {-n}..{n - 1}, got {described(indices)}.")
    return torch.where(index < 0, index + n, index).long()


def check_finite(values: Tensor, name: str, ids: Sequence[str] | None = None, start: int = 0) -> None:
    """Raise a `DataError` that names the first row with NaN or infinity; `start` is the row that `values` begin at."""
    finite = values.isfinite()
    if finite.all():
        return
    row = start + first_row(~finite)
    which = "" if ids is None else f" ({ids[row]!r})"
    raise DataError(
        f"`{name}` must be finite, but row {row}{which} has NaN or infinity. Extract with precision='exact', or leave "
        "the image out."
    )


def described(value: Any) -> str:
    """What came, in a few words: its type, and its shape if it has one."""
    shape = getattr(value, "shape", None)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Tensor | np.ndarray) or (shape is not None and hasattr(value, "__array__")):
        return f"{type(value).__name__} of shape {tuple(shape)}"  # type: ignore[arg-type]
    if isinstance(value, list | tuple | dict):
        return f"{type(value).__name__} of length {len(value)}"
    return "None" if value is None else f"{type(value).__name__} {value!r:.60}"


def first_row(bad: Tensor) -> int:
    """The first row of a mask (n, …) that holds True."""
    return int(bad.reshape(len(bad), -1).any(1).nonzero()[0])


def constant_columns(y: Tensor) -> dict[int, bool]:
    """Columns of (n, k) zeros and ones that hold one value alone, and which."""
    low, high = y.amin(0), y.amax(0)
    return {j: bool(low[j]) for j in (low == high).nonzero().flatten().tolist()}


def texts(values: Any, name: str) -> tuple[str, ...]:
    """A sequence of names as a tuple of text."""
    if isinstance(values, str | bytes) or values is None:
        raise InputError(f"`{name}` must be a sequence of names, got {described(values)}.")
    return tuple(map(str, values))


def coded_labels(labels: Any, classes: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels and class names as a `FeatureSet` has them, from what `FeatureSet.from_arrays` accepts.

    Returns:
        (n,) int64 with the names of the classes; float32 (n,) or (n, m) with none; or bool (n, k) with the names of the
        labels, any of which an image may have.
    """
    if not is_array(labels):
        raise InputError(f"`labels` must be an array of names or numbers, or None, got {described(labels)}.")
    rows = list(labels) if isinstance(labels, list | tuple) or getattr(labels, "dtype", None) == np.object_ else []
    if any(isinstance(row, _NAMES) and (not row or any(isinstance(v, str) for v in row)) for row in rows):
        return _looked_up_sets(rows, classes)
    columns = None
    if getattr(labels, "ndim", 0) == 2 and hasattr(labels, "columns"):
        labels, columns = _table(labels, classes)
    lengths = {len(row) for row in rows if isinstance(row, list | tuple | np.ndarray) and np.ndim(row)}
    if len(lengths) > 1:
        raise InputError(
            f"`labels` must be rows of one length, got {min(lengths)} to {max(lengths)} entries. Several labels per "
            "image are lists of names, such as [['cat', 'dog'], [], ['cat']], or (n, k) columns of 0 and 1."
        )
    if isinstance(labels, list | tuple) and any(isinstance(v, str) for v in labels):
        labels = np.array(labels, dtype=object)  # or NumPy would make names of numbers and of NaN
    if not isinstance(labels, Tensor) and (array := np.asarray(labels)).dtype.kind not in "fiub":
        if array.ndim == 2 and array.shape[1] > 1:
            raise InputError(
                f"`labels` must be (n,) class names or indices, got shape {array.shape} of {array.dtype}. Several "
                "labels per image are lists of names, or one column of 0 and 1 for each label."
            )
        values = array.ravel().tolist()
        named = [isinstance(v, str) for v in values]
        if any(named):
            return _looked_up(values, named, classes)
        odd = [i for i, v in enumerate(values) if not isinstance(v, int | float)]
        if odd:
            raise DataError(f"`labels` must be names or numbers, but row {odd[0]} has {values[odd[0]]!r}.")
        labels = values
    y = as_tensor(labels, "labels")
    if y.is_floating_point() and not isinstance(labels, Tensor) and np.asarray(labels).dtype == np.uint64:
        raise DataError("`labels` must be class indices from 0 on, got whole numbers above 2⁶³. Give names instead.")
    if y.is_floating_point():
        if not y.isfinite().all():
            raise DataError(f"`labels` must be finite, but row {first_row(~y.isfinite())} has NaN or infinity.")
        if classes is None:
            return y.float(), ()
        if (y != y.round()).any():
            raise DataError(
                f"`labels` must be names or indices of `classes`, but row {first_row(y != y.round())} has a fraction. "
                "For regression leave `classes` out."
            )
    if y.ndim == 2 and (y.shape[1] > 1 or len(classes or ()) == 1 or (y.dtype == torch.bool and not classes)):
        return _matrix(y, classes, columns)
    default = ("False", "True") if y.dtype == torch.bool else None
    y = y.long()
    y = y.squeeze(1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise InputError(f"`labels` must be (n,) class names or indices, got shape {tuple(y.shape)}.")
    low, high = (int(y.min()), int(y.max())) if len(y) else (0, -1)
    if (classes is None and high >= _MOST_CLASSES) or low < 0:
        raise DataError(
            f"`labels` must be class indices from 0 on, got {low}..{high}. Give names instead, such as "
            "[str(label) for label in labels]."
        )
    return y, classes or default or tuple(map(str, range(high + 1)))


_NAMES = (list, tuple, set, frozenset)  # of the labels of one image


def _matrix(
    y: Tensor, classes: tuple[str, ...] | None, columns: tuple[str, ...] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """(n, k) bool of zeros and ones, with a name for each column."""
    odd = ((y != 0) & (y != 1)).nonzero()
    if len(odd):
        row, column = odd[0].tolist()
        raise DataError(
            f"`labels` of shape {tuple(y.shape)} must be 0 and 1, one column for each label that an image may have, "
            f"but row {row} has {y[row, column].item()}. One class per image is (n,) class indices; numbers to predict "
            "are floating-point."
        )
    k = y.shape[1]
    if k == 1 and classes is None:
        raise InputError(
            f"`labels` of shape {tuple(y.shape)} may mean one of two classes or a single label. For classes give "
            "labels[:, 0]; for a label name it, as in classes=['cat']."
        )
    names = classes or columns or tuple(map(str, range(k)))
    if len(names) != k:
        raise DataError(f"`classes` must name each of the {k} columns of `labels`, got {len(names)} names.")
    if classes is None and len(y) > 1 and bool((y.sum(1) == 1).all()):
        warnings.warn(
            f"each of {len(y)} images has exactly one of {k} labels. If that is always so, give one class per image, "
            "such as labels.argmax(1); as it is, each label is predicted by itself.",
            FrozenkitWarning,
            stacklevel=4,
        )
    return y.bool(), names


def _looked_up_sets(rows: list[Any], classes: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Lists of names, one for each image, as a matrix."""
    for i, row in enumerate(rows):
        odd = [v for v in row if not isinstance(v, str)] if isinstance(row, _NAMES) else [row]
        if odd:
            raise DataError(
                f"`labels` must be a list of names for each image, but row {i} has {odd[0]!r}. An image without labels "
                "is [], one with a single label ['cat']."
            )
    names = classes or tuple(sorted({v for row in rows for v in row}))
    if not names:
        raise DataError("`labels` must name at least one label, but no image has any. Give `classes`.")
    place = {name: j for j, name in enumerate(names)}
    y = torch.zeros(len(rows), len(names), dtype=torch.bool)
    for i, row in enumerate(rows):
        for value in row:
            if value not in place:
                raise DataError(f"`labels` must be among `classes`, but row {i} has {value!r}. They are {names[:10]}.")
            y[i, place[value]] = True
    return _matrix(y, names if classes or len(names) == 1 else None, names)


def _table(table: Any, classes: tuple[str, ...] | None) -> tuple[Any, tuple[str, ...] | None]:
    """The values of a table of several columns, in the order of `classes`, and what the columns are called."""
    columns = list(table.columns)
    if len(columns) < 2 and len(classes or ()) != 1:
        return table, None
    named = not all(isinstance(c, Integral) for c in columns)
    names = tuple(map(str, columns))
    if named and len(set(names)) < len(names):
        raise DataError(f"`labels` must have columns of distinct names, got {', '.join(names[:10])}.")
    if named and classes is not None and names != classes:
        if set(names) != set(classes):
            raise InputError(
                f"`labels` must have a column for each of `classes`, {', '.join(classes[:10])}; "
                f"got {', '.join(names[:10])}."
            )
        columns = [columns[names.index(name)] for name in classes]
    parts = [np.asarray(table[c]) for c in columns] if named else list(np.asarray(table).T)
    # Where a table may lack values, whole numbers and booleans come as objects.
    parts = [p.astype(np.int64) if p.dtype == object and all(isinstance(v, Integral) for v in p) else p for p in parts]
    return np.stack(parts, axis=1), names if named else None


def rarest_label(y: Tensor) -> Tensor:
    """(n,) of (n, k) booleans: which of its labels is the rarest, k for an image without any.

    Strata by it spread every label about evenly, the rare ones first of all (a simple form of Sechidis, Tsoumakas and
    Vlahavas, 2011, On the stratification of multi-label data).
    """
    k = y.shape[1]
    order = y.sum(0).argsort(stable=True)
    first = torch.where(y[:, order], torch.arange(k), k).amin(1)  # the place in that order
    return torch.cat([order, torch.tensor([k])])[first]


def check_classes(name: str, classes: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise an `InputError` unless the classes of the argument `name` are those wanted, in their order.

    Example:
        >>> check_classes("val", ["dog", "cat"], ("cat", "dog"))
        Traceback (most recent call last):
        frozenkit.errors.InputError: `val` must have the classes cat, dog in this order, got dog, cat. Load both alike.
    """
    got, expected = ([*map(str, names)] for names in (classes, wanted))
    if got != expected:
        shown = (", ".join(names[:12] or ["none"]) + ", …" * (len(names) > 12) for names in (expected, got))
        raise InputError("`{}` must have the classes {} in this order, got {}. Load both alike.".format(name, *shown))


def whole_number(name: str, value: object, least: int = 1) -> int:
    """The argument `name` as an int: any whole number of at least `least`, also NumPy's, but no bool.

    Raises:
        InputError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def real_number(name: str, value: object) -> float:
    """The argument `name` as a float: any real number, also NumPy's or a tensor of a single one, but no bool.

    Raises:
        InputError: If it is something else.
    """
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"`{name}` must be a number, got {described(value)}.")
    return float(value)


def _looked_up(values: list[Any], named: list[bool], classes: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Names as indices of the classes."""
    if not all(named):
        row = named.index(False)
        raise DataError(f"`labels` must be names throughout, but row {row} has {values[row]!r}.")
    names = classes or tuple(sorted(set(values)))
    place = {name: i for i, name in enumerate(names)}
    for row, value in enumerate(values):
        if value not in place:
            raise DataError(f"`labels` must be among `classes`, but row {row} has {value!r}. They are {names[:10]}.")
    return torch.tensor([place[value] for value in values], dtype=torch.int64), names


def r_squared(predictions: Tensor, labels: Tensor) -> float:
    """Coefficient of determination, 1 − residual / total sum of squares, over all outputs together.

    Args:
        predictions: (n,) or (n, m) numbers.
        labels: As many numbers, n ≥ 1.

    Returns:
        At most 1; 0 for always naming the mean, below 0 for less than that. For constant labels, which leave nothing to
        explain, 1 if the predictions are the labels and 0 if not, as in scikit-learn.

    Example:
        >>> r_squared(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
        0.5
    """
    residual = (predictions.reshape(labels.shape) - labels).double().square().sum()
    total = (labels.double() - labels.double().mean(0)).square().sum()
    return float(share_explained(residual, total, labels.double().square().sum()))


def share_explained(residual: Tensor, total: Tensor, size: Tensor) -> Tensor:
    """1 − residual / total of sums of squares, elementwise; where total is 0, 1 if residual is 0 too, else 0.

    `size` is the sum of squares around 0: what rounding leaves of a difference is 0 beside it.
    """
    nothing = 1e-20 * size
    constant = (residual <= nothing).to(residual.dtype)
    return torch.where(total > nothing, 1 - residual / total.clamp_min(1e-300), constant)


def row_weights(sample_weight: Tensor | str | None, targets: Tensor) -> Tensor:
    """(n,) float64 of mean 1: how much each row counts."""
    n = len(targets)
    if sample_weight is None:
        return torch.ones(n, dtype=torch.float64)
    if isinstance(sample_weight, str):
        if sample_weight != "balanced" or targets.is_floating_point() or targets.ndim != 1:
            raise InputError(
                f"`sample_weight` must be 'balanced' (with class labels), or one number per row, got {sample_weight!r}."
            )
        w = 1 / targets.long().bincount().double()[targets.long()]
    else:
        w = as_tensor(sample_weight, "sample_weight").double()
    wanted = f"`sample_weight` must be {n} finite numbers above 0, one per row, got"
    if w.shape != (n,):
        raise InputError(f"{wanted} shape {tuple(w.shape)}.")
    if len(bad := (~(w.isfinite() & (w > 0))).nonzero()):
        raise InputError(f"{wanted} {float(w[bad[0]]):g} in row {int(bad[0])}. Leave out rows that must not count.")
    return w / w.mean()
