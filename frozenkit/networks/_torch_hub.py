"""Networks from torch.hub: a repository's own code, from GitHub or a local folder, run only where that is allowed."""

import warnings
from pathlib import Path

import torch
from torch import nn

from frozenkit.errors import DataError, InputError, NotAvailableError


def load_entry(name: str, weights: str | None, *, trust: bool) -> nn.Module:
    """What an entry of a repository's ``hubconf.py`` gives.

    Args:
        name: ``<owner>/<repository>[:<ref>]/<entry>``; or ``<folder>/<entry>`` with an absolute path, ``./…``, ``~/…``.
        weights: ``"default"`` for the pretrained ones, None for random ones, else handed to the entry as `weights`.
        trust: Whether the repository's code may run.

    Raises:
        InputError: If the name is none, or the code may not run.
        NotAvailableError: If a folder holds no ``hubconf.py``.
        DataError: If the code fails, or gives no module. What a download raises goes through as it is.
    """
    where, _, entry = name.rpartition("/")
    is_local = name.startswith(("/", "./", "../", "~"))
    if not where or not entry or (not is_local and where.count("/") != 1):
        raise InputError(
            "`name` of a torch.hub backbone must be 'hub:<owner>/<repository>/<entry>' or 'hub:/path/to/<entry>', got "
            f"'hub:{name}'."
        )
    if trust is not True:
        raise InputError(
            f"'hub:{name}' runs the Python code of {where} on this machine, with your rights. Read its hubconf.py; if "
            "you trust it, say load_backbone(…, trust=True). Names that run no such code: 'timm/…', 'hf:…', "
            "'open_clip:…'."
        )
    if is_local and not (Path(where).expanduser() / "hubconf.py").is_file():
        raise NotAvailableError(f"`name` must lead to a folder that holds hubconf.py, got {where}.")
    source: dict[str, object] = (
        {"source": "local"} if is_local else {"source": "github", "trust_repo": True, "verbose": False}
    )
    repository = str(Path(where).expanduser()) if is_local else where
    module = _first_that_fits(repository, entry, weights, source)
    if not isinstance(module, nn.Module):
        raise DataError(f"the entry {entry!r} of {where} must give a torch module, got {type(module).__name__}.")
    return module


def _first_that_fits(repository: str, entry: str, weights: str | None, source: dict[str, object]) -> object:
    """Calls the entry, whose argument for the weights has had two names: `pretrained` and `weights`."""
    if weights not in (None, "default"):
        ways: list[dict[str, object]] = [{"weights": weights}]
    else:
        ways = [{"pretrained": weights is not None}, {"weights": "DEFAULT" if weights else None}]
        ways += [{}] if weights else []  # without either, its weights are whatever it gives
    for way in ways:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # theirs: of old argument names, of packages that would be quicker
                return torch.hub.load(repository, entry, **source, **way)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error) or not any(f"'{key}'" in str(error) for key in way):
                raise DataError(f"the entry {entry!r} of {repository} failed: TypeError: {error}.") from error
        except OSError:
            raise  # of the network, or of the weights' file
        except Exception as error:  # other people's code raises what it likes
            if "no internet connection" in str(error):  # torch.hub's own
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise DataError(f"the entry {entry!r} of {repository} failed: {reason}.") from error
    raise InputError(
        f"`weights` must be 'default' for the entry {entry!r} of {repository}, which takes no other, got {weights!r}."
    )
