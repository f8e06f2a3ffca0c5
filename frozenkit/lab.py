"""JupyterLab on the course: a local server with a token, and the address to open it at."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from frozenkit.errors import FrozenkitError, InputError

_START = "00_start_here.ipynb"


def find_notebooks(folder: str | os.PathLike[str] | None = None) -> tuple[Path, str]:
    """The folder to serve, and the path of the first notebook inside it.

    Args:
        folder: The course, or its ``notebooks`` folder. None looks in the current folder, then in the source checkout
            that frozenkit was installed from.

    Raises:
        InputError: If the first notebook is in none of them.
    """
    places = [Path(folder).expanduser()] if folder is not None else [Path.cwd(), Path(__file__).parents[1]]
    for place in places:
        for root in (place, place / "notebooks"):
            if (root / _START).is_file():
                root = root.resolve()
                top = root.parent if root.name == "notebooks" else root
                return top, (root / _START).relative_to(top).as_posix()
    looked = " and ".join(str(place) for place in places)
    raise InputError(
        f"the course must hold notebooks/{_START}; not found in {looked}. "
        "Run this in a checkout of frozenkit, or say where it is with --dir."
    )


def open_course(folder: str | os.PathLike[str] | None = None) -> tuple[Path, bool]:
    """Where the course is, and whether it was copied there just now.

    Found as by `find_notebooks`; where there is none, the lessons that the package brings along are copied, into a new
    or empty folder. Nothing is ever overwritten.

    Args:
        folder: The course; None looks in the current folder and in the source checkout, and copies to
            ``frozenkit-course``.

    Raises:
        InputError: If the folder holds other things, cannot be written, or there is nothing to copy.
    """
    target = Path(folder if folder is not None else "frozenkit-course").expanduser()
    for place in (folder, target):
        try:
            return find_notebooks(place)[0], False
        except InputError as error:
            missing = error
    brought = Path(sysconfig.get_path("data")) / "share" / "frozenkit" / "notebooks"
    if not (brought / _START).is_file():
        raise missing
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there and holds no course. Choose another folder with --dir, or empty this one.")
    try:
        shutil.copytree(brought, target / "notebooks")
    except OSError as error:
        raise InputError(
            f"the lessons could not be copied to {target}: {error.strerror or error}. Try --dir."
        ) from error
    return target.resolve(), True


def has_display() -> bool:
    """Whether a browser can show up here: always on Windows and macOS, with an X or Wayland display on Linux."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def lab_command(root: Path, notebook: str, *, port: int, browser: bool) -> list[str]:
    """The command line that serves `root` on loopback and opens `notebook`."""
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{notebook}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.log_level=WARN",
    ]
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers run as root; the server stays on loopback, behind its token
    return command


def lab_environment() -> dict[str, str]:
    """The server's environment: a token that `ps` does not show, and threads that wait without burning a core."""
    environment = dict(os.environ)
    environment["JUPYTER_TOKEN"] = environment.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    return environment


def run_lab(
    folder: str | os.PathLike[str] | None = None,
    *,
    port: int = 8888,
    browser: bool = True,
    announce: Callable[[str], None] = print,
) -> int:
    """Serve the course until it is stopped.

    Args:
        folder: As in `find_notebooks`.
        port: Where to listen; if taken, Jupyter tries the next ones.
        browser: Whether to open one; without a display none is opened.
        announce: Called once with the address, token included, when the server is up.

    Returns:
        The server's exit status.

    Raises:
        InputError: If the course is not found.
        FrozenkitError: If the server does not start, or would run without a token.
    """
    root, notebook = find_notebooks(folder)
    command = lab_command(root, notebook, port=port, browser=browser and has_display())
    server = subprocess.Popen(command, env=lab_environment(), cwd=root)
    try:
        info = _wait_until_up(server)
        if not info.get("token"):
            raise FrozenkitError("the server must run with a token, and your Jupyter configuration switches it off.")
        announce(f"{info['url']}lab/tree/{notebook}?token={info['token']}")
        return _wait_until_stopped(server)
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()


def _wait_until_up(server: subprocess.Popen[bytes], seconds: float = 60) -> dict[str, str]:
    """What the server writes about itself once it listens."""
    from jupyter_core.paths import jupyter_runtime_dir

    record = Path(jupyter_runtime_dir()) / f"jpserver-{server.pid}.json"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise FrozenkitError(f"JupyterLab ended with status {server.returncode} before it was up; see above.")
        try:
            return json.loads(record.read_text())
        except (OSError, json.JSONDecodeError):  # not there yet, or half-written
            time.sleep(0.1)
    raise FrozenkitError(f"JupyterLab must be up within {seconds:.0f} s, and was not. Try `{_plain(sys.argv)}` again.")


def _wait_until_stopped(server: subprocess.Popen[bytes]) -> int:
    """Ctrl-C reaches the server as well, and it asks before it stops: so keep waiting for it."""
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            continue


def _plain(arguments: Sequence[str]) -> str:
    return " ".join([Path(arguments[0]).name, *arguments[1:]])
