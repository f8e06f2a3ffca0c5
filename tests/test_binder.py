"""What Binder builds from: the same packages as the project's, in a layer that a commit does not rebuild."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"


def requirements(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def depends_on_the_sources(lines: list[str]) -> bool:
    """Whether repo2docker would install only after copying the repository: any path or nested file among the lines."""
    return any(re.match(r"(-e|-r|-c|--requirement|--constraint|--editable|\.|/|file:)", line) for line in lines)


def test_requirements_are_the_dependencies_of_project_and_course():
    lines = requirements((BINDER / "requirements.txt").read_text())
    packages = [line for line in lines if not line.startswith("--")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(packages) == sorted(project["dependencies"] + project["optional-dependencies"]["course"])


def test_torch_is_the_cpu_build():
    lines = requirements((BINDER / "requirements.txt").read_text())
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in lines


def test_requirements_are_third_party_only():
    assert not depends_on_the_sources(requirements((BINDER / "requirements.txt").read_text()))


@pytest.mark.parametrize("line", [".", "-e .", "-r more.txt", "-c limits.txt", "./wheel", "--editable ."])
def test_a_line_that_would_reinstall_torch_on_every_commit_is_noticed(line: str):
    assert depends_on_the_sources(["torch", line])


def test_python_is_one_that_the_project_allows():
    minor = int(re.fullmatch(r"python-3\.(\d+)", (BINDER / "runtime.txt").read_text().strip())[1])
    assert minor >= 11


@pytest.mark.parametrize("script", ["postBuild", "start"])
def test_scripts_are_executable_and_parse(script: str):
    assert os.access(BINDER / script, os.X_OK)
    subprocess.run(["bash", "-n", BINDER / script], check=True)


def test_start_sets_threads_and_hands_over():
    show = 'echo "$OMP_WAIT_POLICY $OMP_NUM_THREADS $1"'
    done = subprocess.run(
        [BINDER / "start", "bash", "-c", show, "bash", "two words"], check=True, capture_output=True, text=True
    )
    policy, threads, argument = done.stdout.strip().split(maxsplit=2)
    assert policy == "passive"
    assert 1 <= int(threads) <= (os.cpu_count() or 1)
    assert argument == "two words"


@pytest.fixture(scope="module")
def dockerfile():
    """What repo2docker would build; it prints that without docker."""
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", ROOT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_image_takes_its_python_from_runtime_txt(dockerfile):
    version = (BINDER / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"Building conda environment for python={version}" in dockerfile


def test_a_commit_does_not_reinstall_the_third_party_layer(dockerfile):
    steps = [
        "binder/requirements.txt ${REPO_DIR}/binder/requirements.txt",
        'pip install --no-cache-dir -r "binder/requirements.txt"',
        "src/ ${REPO_DIR}/",
        "./binder/postBuild",
        "binder/start",
    ]
    places = [dockerfile.index(step) for step in steps]
    assert places == sorted(places)
    assert dockerfile.count("pip install") == 1  # the package itself comes by postBuild, without its dependencies
    assert "--no-deps ." in (BINDER / "postBuild").read_text()


def test_nothing_of_cuda_is_asked_for(dockerfile):
    asked = dockerfile + (BINDER / "requirements.txt").read_text() + (BINDER / "postBuild").read_text()
    for name in ("nvidia", "cuda", "cudnn", "triton"):
        assert name not in asked.lower().replace("the cuda build", "")
