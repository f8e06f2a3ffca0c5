"""The shape of the package: imports point one way, names are public and sorted, and importing is light and quiet."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import frozenkit

PACKAGE = Path(frozenkit.__file__).parent

# What each room may import besides itself; "ground" is the files beside the folders. In reading order, so no circle.
GROUND = {
    "errors",
    "splits",
    "fingerprint",
    "_arrays",
    "_devices",
    "_files",
    "_loop",
    "_outputs",
    "_progress",
    "_projections",
}
FEATURES = GROUND | {"features"}
IMAGES_AND_NETWORKS = {"images", "networks", "extraction"}
MAY_IMPORT = dict.fromkeys((*GROUND, "features", "images", "networks"), GROUND)
MAY_IMPORT["extraction"] = FEATURES | {"images", "networks"}
MAY_IMPORT["heads"] = FEATURES
MAY_IMPORT["probes"] = FEATURES | {"heads"}
MAY_IMPORT["theory"] = FEATURES | {"heads", "probes"}
MAY_IMPORT["classifier"] = FEATURES | IMAGES_AND_NETWORKS | {"heads", "probes"}
MAY_IMPORT["comparison"] = MAY_IMPORT["classifier"] | {"classifier", "theory"}
MAY_IMPORT["plots"] = MAY_IMPORT["comparison"] | {"comparison"}
MAY_IMPORT["widgets"] = MAY_IMPORT["plots"] | {"plots"}
MAY_IMPORT["course"] = MAY_IMPORT["widgets"] | {"widgets"}
MAY_IMPORT["app"] = MAY_IMPORT["course"] | {"course"}


def imported(source: str) -> set[tuple[str, ...]]:
    """What a source imports from the package, anywhere in it: at the top, in functions, in `if TYPE_CHECKING`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "frozenkit":  # from frozenkit import x: a room, or a public name that lives in one
                names = [f"frozenkit.{frozenkit._HOMES.get(a.name, a.name)}" for a in node.names]
        else:
            continue
        found |= {tuple(name.split(".")[1:]) for name in names if name.startswith("frozenkit.")}
    return found - {("__version__",)}


def wrong_way(room: str, source: str) -> set[tuple[str, ...]]:
    """What a file of this room imports from a room that it must not know, or from another's private files or names."""
    return {
        path
        for path in imported(source)
        if path[0] != room and (path[0] not in MAY_IMPORT[room] or any(part.startswith("_") for part in path[1:]))
    }


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert wrong_way(room, path.read_text()) == set()


@pytest.mark.parametrize(
    "source",
    [
        "from frozenkit.probes.probe import fit_probe",
        "import frozenkit.probes.probe",
        "from frozenkit import fit_probe",
        "def late():\n    from frozenkit.probes.probe import fit_probe",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import frozenkit.probes.probe as p",
    ],
    ids=["from", "import", "public-name", "in-a-function", "type-checking"],
)
def test_an_import_from_below_is_noticed(source: str):
    assert {path[:2] for path in wrong_way("features", source)} == {("probes", "probe")}
    assert wrong_way("comparison", source) == set()


def test_what_this_test_would_notice():
    assert wrong_way("heads", "from frozenkit.networks.backbone import Backbone")
    assert wrong_way("probes", "from frozenkit.heads._design import Rows")
    assert wrong_way("probes", "from frozenkit.heads import _design, ridge") == {("heads", "_design")}
    assert wrong_way("probes", "from frozenkit.heads.ridge import _solve")
    assert wrong_way("images", "from frozenkit._files import written_aside") == set()


def reading_order(sources: dict[tuple[str, ...], str]) -> list[tuple[str, ...]]:
    """The files so that each comes after those which it imports."""
    found = {file: {path[:n] for path in imported(text) for n in range(1, 4)} for file, text in sources.items()}
    return list(TopologicalSorter({file: paths & sources.keys() for file, paths in found.items()}).static_order())


def test_no_files_import_each_other_in_a_circle():
    files = {path.relative_to(PACKAGE).with_suffix("").parts: path.read_text() for path in SOURCES}
    assert len(reading_order(files)) == len(SOURCES)
    one, other = "from frozenkit import errors", "def late():\n    from frozenkit.images.folder import image_folder"
    assert reading_order({("images", "folder"): one, ("errors",): ""}) == [("errors",), ("images", "folder")]
    with pytest.raises(CycleError):
        reading_order({("images", "folder"): one, ("errors",): other})


def test_at_first_glance_the_house_has_few_rooms():
    assert len({path.relative_to(PACKAGE).parts[0] for path in SOURCES}) <= 24


@pytest.mark.parametrize("room", sorted({path.parent for path in SOURCES} - {PACKAGE}), ids=lambda room: room.name)
def test_each_room_says_what_it_is_for(room: Path):
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text()))


def astray(tests: list[str]) -> list[str]:
    """Tests in a room's folder that are named after none of its files; those of ground and house lie above."""
    rooms = {
        room.name: {path.stem.removeprefix("_") for path in room.iterdir()}
        for room in PACKAGE.iterdir()
        if room.is_dir()
    }
    placed = [(test, *test.removesuffix(".py").split("/test_")) for test in tests]
    return [test for test, room, name in placed if name not in {room, *rooms.get(room, ())}]


def test_tests_lie_where_what_they_test_lies():
    folder = Path(__file__).parent
    tests = [path.relative_to(folder).as_posix() for path in folder.glob("*/test_*.py")]
    assert len(tests) > 40
    assert astray([test for test in tests if not test.startswith("browser/")]) == []
    assert astray(["heads/test_solvers.py", "nowhere/test_ridge.py", "heads/test_ridge.py"]) == [
        "heads/test_solvers.py",
        "nowhere/test_ridge.py",
    ]


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
HEAVY += ("transformers", "open_clip")


def loaded_by(statement: str) -> set[str]:
    """The heavy libraries in memory after a statement in a fresh Python."""
    code = f"{statement}; import sys; print(*({HEAVY!r} & sys.modules.keys()))".replace(repr(HEAVY), repr(set(HEAVY)))
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_is_light():
    assert loaded_by("import frozenkit") == set()


def test_the_waist_is_light():
    assert loaded_by("from frozenkit import FeatureSet, split, FrozenkitError") == set()


def test_the_usual_names_are_light():
    usual = "from frozenkit import FeatureCache, extract, fit_probe, load_backbone, load_dataset"
    assert loaded_by(usual) == set()


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
