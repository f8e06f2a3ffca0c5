"""Live probing: widgets that answer while the hand is still on the slider.

Each lab is one Python file (traits in, an answer out), one script and one style sheet. They load on first use, so that
code without widgets never pays for them.
"""

from importlib import import_module
from typing import Any

from frozenkit.errors import require

_HOMES = {
    "CacheLab": "cachelab",
    "HeadLab": "headlab",
    "Lab": "base",
    "LayerLab": "layerlab",
    "Option": "quiz",
    "Question": "quiz",
    "Quiz": "quiz",
    "ShiftLab": "shiftlab",
    "TeachLab": "teachlab",
}

__all__ = ["CacheLab", "HeadLab", "Lab", "LayerLab", "Option", "Question", "Quiz", "ShiftLab", "TeachLab"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'frozenkit.widgets' has no attribute {name!r}")
    require("anywidget", "course")
    return getattr(import_module(f"frozenkit.widgets.{_HOMES[name]}"), name)
