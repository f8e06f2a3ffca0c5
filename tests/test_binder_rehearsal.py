"""Binder's steps in a clean environment under its 2 GB of memory: `pytest -m rehearsal -s` (minutes, and 7 GB of disk).

The CPU build of torch lies on PyTorch's own index; where that cannot be reached, the build from PyPI is rehearsed with,
which needs more memory, not less.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 2 * 1024**3
HEAVIEST = "05_limitations.ipynb"

pytestmark = pytest.mark.rehearsal


def limiting_cgroup() -> Path | None:
    """A memory cgroup of our own with the limit in place, where this machine lets us make one."""
    for root, name in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        folder = Path("/sys/fs/cgroup") / root / f"frozenkit-rehearsal-{os.getpid()}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            if (folder / name).exists():
                (folder / name).write_text(str(LIMIT))
                return folder
            folder.rmdir()
    return None


class Box:
    """Runs commands in the rehearsed environment and notes the most memory that all their processes held together."""

    def __init__(self, folder: Path) -> None:
        self.venv, self.home, self.sources = folder / "venv", folder / "home", folder / "sources"
        self.home.mkdir()
        for name in ("node", "npm"):  # whoever calls them fails: the bundle comes ready made
            shim = folder / "without-node" / name
            shim.parent.mkdir(exist_ok=True)
            shim.write_text("#!/bin/sh\nexit 97\n")
            shim.chmod(0o755)
        path = f"{self.venv / 'bin'}:{folder / 'without-node'}:{os.environ['PATH']}"
        self.env = {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", "PIP_PREFER_BINARY": "1"}
        self.env |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.cgroup = limiting_cgroup()
        self.peak = 0

    def run(self, *command: str, limited: bool = True) -> tuple[str, float]:
        """Output and seconds; a command that fails fails the test with what it printed."""
        inside = self.cgroup if limited else None
        join = (lambda: (inside / "cgroup.procs").write_text(str(os.getpid()))) if inside else None
        start = time.perf_counter()
        with subprocess.Popen(
            command, cwd=self.sources, env=self.env, stdout=-1, stderr=subprocess.STDOUT, text=True, preexec_fn=join
        ) as process:
            watch = threading.Thread(target=self.watch, args=(psutil.Process(process.pid),))
            watch.start()
            printed, _ = process.communicate()
        watch.join()
        assert process.returncode == 0, printed[-3000:]
        return printed, time.perf_counter() - start

    def watch(self, process: psutil.Process) -> None:
        while True:
            try:
                family = [process, *process.children(recursive=True)]
                self.peak = max(self.peak, sum(held(part) for part in family))
                if process.status() == psutil.STATUS_ZOMBIE:
                    return
            except psutil.NoSuchProcess:
                return
            time.sleep(0.05)


def held(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def size(*paths: Path) -> float:
    """MB on disk."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink()) / 1e6


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """The image as Binder would make it: third-party layer, sources, postBuild."""
    folder = tmp_path_factory.mktemp("binder")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    shutil.copytree(
        ROOT,
        folder / "sources",
        ignore=shutil.ignore_patterns(".git", "node_modules", ".*_cache", "__pycache__", "screenshots"),
    )
    made = Box(folder)
    lines = (made.sources / "binder" / "requirements.txt").read_text().splitlines()
    reachable = folder / "requirements.txt"
    reachable.write_text("\n".join(line for line in lines if not line.startswith("--extra-index-url")))
    made.run("pip", "install", "-q", "-r", str(reachable), limited=False)
    made.run("bash", "binder/postBuild")
    yield made
    if made.cgroup:
        made.cgroup.rmdir()
    shutil.rmtree(folder)  # 7 GB, which pytest would keep


def test_the_first_lesson_and_the_heaviest_fit_into_two_gigabytes(box):
    before = box.run("frozenkit", "cache", "list")[0]
    box.peak = 0
    for name in ("00_start_here.ipynb", HEAVIEST):
        command = ("jupyter", "nbconvert", "--to", "notebook", "--execute", "--stdout", f"notebooks/{name}")
        _, seconds = box.run("bash", "binder/start", *command)
        print(f"\n{name}: {seconds:.0f} s, peak so far {box.peak / 1e9:.2f} GB", end="")
        if name.startswith("00"):
            assert box.run("frozenkit", "cache", "list")[0] == before  # what it asks for was there: the cache is warm
    assert box.peak < LIMIT
    packages = next((box.venv / "lib").glob("python3*/site-packages"))
    cuda = size(*packages.glob("nvidia*"), *packages.glob("triton*"), *packages.glob("torch/lib/*cu*"))
    print(
        f"\nenvironment {size(box.venv) - cuda:.0f} MB, CUDA libraries {cuda:.0f} MB; "
        f"the limit was {'kept by a cgroup' if box.cgroup else 'watched, not kept: no cgroup may be made here'}"
    )


def test_notebooks_are_trusted_and_the_page_knows_that_it_is_temporary(box):
    code = (
        "import nbformat, sys; from nbformat.sign import NotebookNotary; notary = NotebookNotary(); "
        "print(*[notary.check_signature(nbformat.read(path, as_version=4)) for path in sys.argv[1:]])"
    )
    notebooks = [str(path) for path in sorted((box.sources / "notebooks").rglob("*.ipynb"))]
    assert set(box.run("python", "-c", code, *notebooks)[0].split()) == {"True"}
    config = box.venv / "etc" / "jupyter" / "labconfig" / "page_config.json"
    assert json.loads(config.read_text()) == {"frozenkitTemporary": "true"}


def test_the_package_alone_opens_the_course_in_an_empty_folder(box, tmp_path):
    command = ["frozenkit", "lab", "--no-browser"]
    with subprocess.Popen(command, cwd=tmp_path, env=box.env, stdout=-1, stderr=subprocess.DEVNULL, text=True) as lab:
        try:
            address = next(line.strip() for line in lab.stdout if line.strip().startswith("http"))
            with urllib.request.urlopen(address) as answer:
                assert '"name": "frozenkit"' in answer.read().decode()  # its panel comes with the page
        finally:
            lab.terminate()
    assert (tmp_path / "frozenkit-course" / "notebooks" / "00_start_here.ipynb").is_file()


def test_the_extension_came_without_node_and_goes_without_a_trace(box):
    assert "frozenkit v" in box.run("jupyter", "labextension", "list")[0]
    with pytest.raises(AssertionError):  # there was none to be called
        box.run("node", "--version")
    box.run("pip", "uninstall", "-q", "-y", "frozenkit")
    left = [path for path in box.venv.rglob("*") if "frozenkit" in str(path.relative_to(box.venv)) and path.is_file()]
    assert left == []
