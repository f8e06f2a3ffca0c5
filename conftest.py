"""The ground every test stands on: its own home folder, few threads, no display, and (on request) no network.

It lies at the top because doctests in ``frozenkit/`` and the notebooks stand on it as well as ``tests/``.
"""

import json
import os
import runpy
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

_GUARD = Path(__file__).parent / "tests" / "network_guard"
_HOME = pytest.StashKey[Path]()
_RUNS = pytest.StashKey[dict[str, dict[str, float]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--block-network``."""
    parser.addoption(
        "--block-network",
        action="store_true",
        help="Refuse every connection beyond loopback, in this process, in kernels and in Python subprocesses "
        "(the same as FROZENKIT_BLOCK_NETWORK=1).",
    )
    parser.addoption(
        "--record-budgets",
        action="store_true",
        help="Keep what each notebook took, in seconds and in MB at its peak, in notebooks/results/budgets.json.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the environment that this process, kernels and subprocesses share."""
    # Before anything imports torch: kernels and subprocesses inherit all of this.
    home = Path(os.environ.get("FROZENKIT_TEST_HOME") or tempfile.mkdtemp(prefix="frozenkit-tests-"))
    if "FROZENKIT_TEST_HOME" not in os.environ:  # a run inside a run, and an xdist worker, use what the outer one made
        config.stash[_HOME] = home
    home.mkdir(parents=True, exist_ok=True)
    (home / "matplotlibrc").write_text("backend: agg\n")
    os.environ.update(
        FROZENKIT_TEST_HOME=str(home),
        FROZENKIT_HOME=str(home / os.environ.get("PYTEST_XDIST_WORKER", "main")),  # never the user's cache
        IPYTHONDIR=str(home / "ipython"),  # a user's start-up files change what cells print
        MATPLOTLIBRC=str(home / "matplotlibrc"),  # kernels still choose the inline backend, which MPLBACKEND would undo
        OMP_WAIT_POLICY="passive",  # spinning threads slow each other down a hundredfold on a busy machine
        PYDEVD_DISABLE_FILE_VALIDATION="1",
    )
    os.environ.pop("MPLBACKEND", None)
    os.environ.setdefault("OMP_NUM_THREADS", "1" if getattr(config.option, "numprocesses", None) else "2")
    _keep_history()
    config.option.nbval_current_env = True  # the kernel is this Python, whatever kernelspec a notebook names
    if config.getoption("--block-network") or os.environ.get("FROZENKIT_BLOCK_NETWORK") == "1":
        os.environ["FROZENKIT_BLOCK_NETWORK"] = "1"
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_GUARD), os.environ.get("PYTHONPATH")]))
        runpy.run_path(str(_GUARD / "sitecustomize.py"))


def _keep_history() -> None:
    """Make nbval run cells as a person does: outside the history, IPython does not see a semicolon at a cell's end."""
    from nbval.kernel import RunningKernel

    def execute_cell_input(self: Any, cell_input: str, allow_stdin: bool | None = None) -> str:
        return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)

    RunningKernel.execute_cell_input = execute_cell_input


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home folder."""
    if _HOME in config.stash:
        shutil.rmtree(config.stash[_HOME], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Remember the first cell of a notebook that failed."""
    report = yield
    if report.failed and type(item).__name__ == "IPyNbCell" and not hasattr(item.parent, "first_failed"):
        item.parent.first_failed = item.name
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a notebook a cold cache, and skip the cells after a failed one: they would only repeat the news."""
    failed = getattr(item.parent, "first_failed", None)
    if failed is not None:
        pytest.skip(f"{failed} of this notebook failed before")
    if type(item).__name__ == "IPyNbCell" and not hasattr(item.parent, "began"):
        item.parent.began = time.monotonic()  # its kernel starts after this hook and inherits the folder
        item.parent.home = os.environ["FROZENKIT_HOME"]
        os.environ["FROZENKIT_HOME"] = tempfile.mkdtemp(dir=os.environ["FROZENKIT_TEST_HOME"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[Any]:
    """After a notebook's last cell, hold what it took against its budget."""
    notebook = item.parent
    last = getattr(nextitem, "parent", None) is not notebook and hasattr(notebook, "began")
    if last:
        taken = {"seconds": round(time.monotonic() - notebook.began, 1), "peak_mb": _peak_mb(notebook)}
    done = yield
    if not last:
        return done
    shutil.rmtree(os.environ["FROZENKIT_HOME"], ignore_errors=True)
    os.environ["FROZENKIT_HOME"] = notebook.home
    if hasattr(notebook, "first_failed"):
        return done
    item.config.stash.setdefault(_RUNS, {})[notebook.path.relative_to(item.config.rootpath).as_posix()] = taken
    budget = json.loads(notebook.path.read_text(encoding="utf-8"))["metadata"].get("frozenkit", {})
    for what, allowed in (("seconds", 60 * budget.get("minutes", 0)), ("peak_mb", budget.get("peak_mb", 0))):
        if allowed and taken[what] > allowed:
            pytest.fail(f"over its budget: {what} {taken[what]:,}, at most {allowed:,}", pytrace=False)
    return done


def _peak_mb(notebook: Any) -> int:
    """The most memory that the kernel ever held, in MB of 10⁶ bytes; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{notebook.kernel.km.provisioner.pid}/status").read_text()
    except OSError:
        return 0
    return round(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what the notebooks took, where that was asked for."""
    runs = session.config.stash.get(_RUNS, {})
    if not runs or not session.config.getoption("--record-budgets"):
        return
    from tests.benchmarks.recorded import about, write

    rows = [{"notebook": name} | taken for name, taken in sorted(runs.items())]
    write("budgets.json", about("pytest notebooks --record-budgets") | {"rows": rows})
