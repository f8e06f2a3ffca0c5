"""The ground every test stands on: its own home folder, few threads, no display, and (on request) no network.

It lies at the top because doctests in ``frozenkit/`` and the notebooks stand on it as well as ``tests/``.
"""

import os
import runpy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_GUARD = Path(__file__).parent / "tests" / "network_guard"
_HOME = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--block-network``."""
    parser.addoption(
        "--block-network",
        action="store_true",
        help="Refuse every connection beyond loopback, in this process, in kernels and in Python subprocesses "
        "(the same as FROZENKIT_BLOCK_NETWORK=1).",
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
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Remember the first cell of a notebook that failed."""
    report = yield
    if report.failed and type(item).__name__ == "IPyNbCell" and not hasattr(item.parent, "first_failed"):
        item.parent.first_failed = item.name
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the cells after a failed one: they would only repeat the news."""
    failed = getattr(item.parent, "first_failed", None)
    if failed is not None:
        pytest.skip(f"{failed} of this notebook failed before")
