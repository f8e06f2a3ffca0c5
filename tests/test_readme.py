"""The two commands that the README promises are the ones that are tried."""

import json
import os
import re
import runpy
import shlex
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import frozenkit

ROOT = Path(__file__).parents[1]
START = 'pip install -e ".[course]" && frozenkit lab'
TEST = 'pip install -e ".[test]" && pytest'


def readme_commands(text: str) -> list[str]:
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def executed_commands(script: str) -> list[str]:
    """Lines of a shell script that run, whatever happens before them: not indented, no comment."""
    return [line for line in script.splitlines() if line and not line.startswith(("#", " ", "\t"))]


def test_readme_opens_with_the_two_commands():
    assert readme_commands((ROOT / "README.md").read_text())[:2] == [START, TEST]


def test_ci_ends_with_the_readme_test_command():
    assert executed_commands((ROOT / ".ci" / "run").read_text())[-1] == TEST


@pytest.mark.parametrize(
    "broken",
    ["# " + TEST, "echo done\n  " + TEST + "\nfi", TEST + " -x", TEST + " || true", TEST + "\nexit 0"],
    ids=["comment", "indented", "other-arguments", "swallowed", "not-last"],
)
def test_a_script_that_does_not_end_with_it_is_noticed(broken: str):
    assert (executed_commands(broken) or [""])[-1] != TEST


def test_ci_stops_at_the_first_failure():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in executed_commands(script)[0]
    assert "|| true" not in script
    assert "continue-on-error" not in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


@pytest.mark.parametrize("script", ["run", "floors", "faults", "rehearsal"])
def test_workflow_runs_the_same_scripts(script: str):
    assert f"- run: .ci/{script}\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert os.access(ROOT / ".ci" / script, os.X_OK)
    assert "set -euo pipefail" in executed_commands((ROOT / ".ci" / script).read_text())[0]


def test_the_tests_of_ci_reach_no_network():
    lines = executed_commands((ROOT / ".ci" / "run").read_text())
    assert lines[-2].startswith("export FROZENKIT_BLOCK_NETWORK=1 ")
    assert 'pip install -q -e ".[test,data]"' in lines[-4]  # so that no loader is skipped


def floors(project: dict[str, Any]) -> list[str]:
    return runpy.run_path(str(ROOT / ".ci" / "floors.py"))["floors"](project)


def test_floors_are_the_lower_bounds_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = floors(project)
    assert {"torch==2.6", "pandas==2.2.2"} <= set(lines)
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines)


@pytest.mark.parametrize("line", ["torch", "torch<3", "torch>=2.4,<3"])
def test_a_requirement_without_one_lower_bound_is_noticed(line: str):
    with pytest.raises(SystemExit, match=line):
        floors({"name": "frozenkit", "dependencies": [line], "optional-dependencies": {"dev": ["frozenkit[test]"]}})


def test_the_extension_has_the_version_of_the_package():
    for folder in (ROOT / "labextension", ROOT / "labextension" / "bundle"):
        assert json.loads((folder / "package.json").read_text())["version"] == frozenkit.__version__


def test_start_command_exists():
    words = shlex.split(START.split("&&")[1])
    (script,) = entry_points(group="console_scripts", name=words[0])
    assert script.value == "frozenkit.app.cli:main"
    from frozenkit.app.cli import app

    assert words[1] in {command.callback.__name__ for command in app.registered_commands}


def test_test_command_names_an_extra_that_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("pytest") for line in project["optional-dependencies"]["test"])
