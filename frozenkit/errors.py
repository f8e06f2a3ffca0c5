"""Everything that frozenkit raises on purpose, as one family.

::

    FrozenkitError
    ├── InputError            an argument does not fit (also a ValueError)
    │   └── UnknownNameError  a name is not known; the nearest one is suggested
    ├── DataError             an image, a label or a folder is not usable (also a ValueError)
    ├── NotAvailableError     weights, data or a package are not on this machine
    ├── FreezeError           a frozen backbone changed
    ├── ActivationError       a layer gave no usable activations
    └── CacheError            a stored file is not what it should be
        └── CacheMissError    nothing is stored under this fingerprint (also a KeyError)

    FrozenkitWarning          something is worth a look; the result still stands

Each message says what must hold, what came instead, and what to do next.
"""

from collections.abc import Iterable
from difflib import get_close_matches


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


class DataError(FrozenkitError, ValueError):
    """An image, a label or a folder is not usable; the message names the file or the row."""


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
