"""The shape of the package: imports point one way, names are public and sorted, and importing is light and quiet."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import frozenkit

PACKAGE = Path(frozenkit.__file__).parent

# Reading order; a module imports only from modules above it.
FLOORS = [
    "errors arrays devices outputs intervals progress",
    "splits features fingerprint",
    "images folders shifts datasets data",
    "layers zoo backbones files storage locks cache activations decoding extraction",
    "prototypes heads rows scores ridge softmax training solvers nearest calibration fits probes",
    "studies shuffling regions widths estimators",
    "divergence geometry bounds gibbs gaps",
    "controls tuning checkpoints finetuning races zeroshot advice",
    "plots widgets course",
    "doctor lab report page cli",
]
ORDER = [module for floor in FLOORS for module in floor.split()]

ARRAYS_ONLY = set(ORDER[ORDER.index("prototypes") : ORDER.index("controls")])
IMAGES = set(ORDER[ORDER.index("images") : ORDER.index("prototypes")])


def module_of(path: Path) -> str:
    """widgets/head_lab.py and widgets/__init__.py both belong to widgets."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(source: str) -> set[str]:
    """Modules of the package that a source imports, anywhere in it: at the top, in functions, in `if TYPE_CHECKING`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
            if node.module == "frozenkit":  # from frozenkit import x: a module, or a public name that lives in one
                names = [f"frozenkit.{frozenkit._HOMES.get(a.name, a.name)}" for a in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("frozenkit.")}
    return found - {"__version__"}


def wrong_way(module: str, source: str) -> set[str]:
    """What this module imports from below itself, or does not know."""
    above = ORDER[: ORDER.index(module)]
    return imported_modules(source) - set(above) - {module}


SOURCES = sorted(  # what `npm ci` fetched is not ours
    path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py" and "node_modules" not in path.parts
)


def test_every_module_has_its_place():
    assert {module_of(path) for path in SOURCES} <= set(ORDER)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    assert wrong_way(module_of(path), path.read_text()) == set()


@pytest.mark.parametrize("path", [p for p in SOURCES if module_of(p) in ARRAYS_ONLY], ids=lambda p: p.name)
def test_below_the_waist_nothing_knows_images(path: Path):
    assert imported_modules(path.read_text()) & IMAGES == set()


@pytest.mark.parametrize(
    "source",
    [
        "from frozenkit.probes import fit_probe",
        "import frozenkit.probes",
        "from frozenkit import fit_probe",
        "from frozenkit import probes",
        "def late():\n    from frozenkit.probes import fit_probe",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import frozenkit.probes as p",
    ],
    ids=["from", "import", "public-name", "module", "in-a-function", "type-checking"],
)
def test_an_import_from_below_is_noticed(source: str):
    assert wrong_way("features", source) == {"probes"}
    assert wrong_way("controls", source) == set()


def test_no_module_is_called_helpers():
    assert not {path.stem for path in SOURCES} & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_public_names_are_sorted():
    assert frozenkit.__all__ == sorted(frozenkit.__all__)


@pytest.mark.parametrize("name", frozenkit.__all__)
def test_every_public_name_is_importable(name: str):
    value = getattr(frozenkit, name)
    home = import_module(f"frozenkit.{frozenkit._HOMES[name]}")
    assert getattr(home, name) is value


def test_public_names_are_listed():
    assert set(frozenkit.__all__) <= set(dir(frozenkit))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fit_prob'"):
        frozenkit.fit_prob  # noqa: B018


HEAVY = ("h5py", "timm", "torchvision", "matplotlib", "sklearn", "scipy", "ipywidgets", "anywidget", "pandas", "rich")


def loaded_by(statement: str) -> set[str]:
    """The heavy libraries in memory after a statement in a fresh Python."""
    code = f"{statement}; import sys; print(*({HEAVY!r} & sys.modules.keys()))".replace(repr(HEAVY), repr(set(HEAVY)))
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_is_light():
    assert loaded_by("import frozenkit") == set()


def test_the_waist_is_light():
    assert loaded_by("from frozenkit import FeatureSet, split, FrozenkitError") == set()


def test_a_heavy_import_is_noticed():
    assert loaded_by("import frozenkit, pandas") >= {"pandas"}


QUIET = """
import os, random, threading, warnings
import numpy, torch
def state():
    return (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist(), torch.get_num_threads(),
            torch.is_grad_enabled(), torch.get_default_dtype(), dict(os.environ), os.getcwd(), list(warnings.filters))
before = state()
from importlib import import_module
import frozenkit
{statement}
print([i for i, (a, b) in enumerate(zip(before, state())) if a != b])
"""


def changed_by(statement: str) -> str:
    code = QUIET.format(statement=statement)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_leaves_random_state_threads_and_environment_alone():
    assert changed_by("[getattr(frozenkit, name) for name in ('FeatureSet', 'split', 'score')]") == "[]"


@pytest.mark.parametrize(
    ("statement", "index"), [("torch.manual_seed(7)", 2), ("numpy.random.seed(7)", 1), ("os.environ['A'] = 'b'", 6)]
)
def test_a_change_at_import_is_noticed(statement: str, index: int):
    assert changed_by(statement) == f"[{index}]"
