"""Everything that frozenkit raises on purpose, as one family. (A lab's `InputTraitError`, which is an `InputError` and
a `TraitError`, lives with the labs, since the base install has no traitlets.)

::

    FrozenkitError
    ├── InputError            an argument does not fit (also a ValueError)
    │   └── UnknownNameError  a name is not known; the nearest one is suggested
    ├── DataError             an image, a label or a folder is not usable (also a ValueError)
    │   └── DivergedError     a training's loss is no longer finite
    ├── NotAvailableError     weights, data or a package are not on this machine
    ├── FreezeError           a frozen backbone changed
    ├── ActivationError       a layer gave no usable activations
    └── CacheError            a stored file is not what it should be
        └── CacheMissError    nothing is stored under this fingerprint (also a KeyError)

    FrozenkitWarning          something is worth a look; the result still stands

Each message says what must hold, what came instead, and what to do next.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any


class FrozenkitError(Exception):
    """Base class: ``except FrozenkitError`` catches all that frozenkit raises on purpose."""


class InputError(FrozenkitError, ValueError):
    """An argument does not fit."""


class UnknownNameError(InputError):
    """A name is not known; the message suggests the nearest known one.

    Example:
        >>> print(UnknownNameError("dataset", "emoji-gogle", ["emoji-google", "digits"], hint="See list_datasets()."))
        `dataset` must be a known name, got 'emoji-gogle'. Did you mean 'emoji-google'? See list_datasets().
    """

    def __init__(self, what: str, got: object, known: Iterable[str], hint: str = "") -> None:
        names = list(known)
        nearest = get_close_matches(str(got), names, n=1, cutoff=0.5)
        offer = f"Did you mean {nearest[0]!r}?" if nearest else f"Choose from {', '.join(map(repr, names[:12]))}."
        super().__init__(f"`{what}` must be a known name, got {got!r}. {offer} {hint}".strip())


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a folder of images, as text.

    Attributes:
        where: The file or folder.
        what: What is wrong with it.
        remedy: What to do about it.
        can_skip: Whether ``image_folder(…, skip_bad=True)`` leaves it out and goes on.
    """

    where: str
    what: str
    remedy: str
    can_skip: bool

    def __str__(self) -> str:
        return f"{self.where} {self.what}. {self.remedy}."


class DataError(FrozenkitError, ValueError):
    """An image, a label or a folder is not usable; the message names the file or the row.

    Attributes:
        problems: All that is wrong with a folder, where `image_folder` raised it; else empty.
    """

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class DivergedError(DataError):
    """A training's loss is no longer finite."""


class NotAvailableError(FrozenkitError):
    """Weights, data or an optional package are not on this machine."""


class FreezeError(FrozenkitError):
    """A frozen backbone changed: the message names the first parameter or buffer."""


class ActivationError(FrozenkitError):
    """A layer gave no usable activations: it ran twice, not at all, or was not finite."""


class CacheError(FrozenkitError):
    """A stored file is not what it should be."""


class CacheMissError(CacheError, KeyError):
    """Nothing is stored under this fingerprint."""

    __str__ = Exception.__str__  # KeyError would show the repr of the message


class FrozenkitWarning(UserWarning):
    """Something is worth a look; the result still stands."""


def require(module: str, extra: str) -> Any:
    """A module of an optional package; whoever lacks the package reads which command brings it.

    Args:
        module: Its dotted name, such as ``"pandas"``.
        extra: The extra of frozenkit that the package comes with.

    Raises:
        NotAvailableError: If the package is not installed.

    Example:
        >>> require("no_such_package", "course")
        Traceback (most recent call last):
            ...
        frozenkit.errors.NotAvailableError: this needs the package no_such_package, which is not installed. It comes
        with the extra 'course': pip install "frozenkit[course]"
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise  # the package is there, and lacks something of its own
        raise NotAvailableError(
            f"this needs the package {package}, which is not installed. It comes with the extra {extra!r}: "
            f'pip install "frozenkit[{extra}]"'
        ) from error
