"""Results that take too long for a lesson: measured by a script, kept in ``notebooks/results/`` with what made them."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "notebooks" / "results"


def about(command: str, **settings: Any) -> dict[str, Any]:
    """Machine, versions, date, command and settings of a recorded result."""
    import torch

    names = ("torch", "torchvision", "timm", "scikit-learn", "numpy")
    return {
        "script": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in names},
        "settings": settings,
    }


def read(name: str) -> dict[str, Any] | None:
    """A recorded result, or None."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write(name: str, content: dict[str, Any]) -> None:
    """As a whole or not at all: a script that is stopped loses only its last row."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    part = RESULTS / f"{name}.part"
    part.write_text(json.dumps(_rounded(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(RESULTS / name)


def _rounded(value: Any) -> Any:
    """Five digits: more than any of these results means."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
