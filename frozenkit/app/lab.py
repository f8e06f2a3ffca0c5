"""JupyterLab on the course: a local server with a token, and the address to open it at."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from frozenkit.course.files import write_whole
from frozenkit.course.syllabus import course_table
from frozenkit.errors import FrozenkitError, InputError, require

_START = "00_start_here.ipynb"


def find_notebooks(folder: str | os.PathLike[str] | None = None) -> tuple[Path, str]:
    """The folder to serve, and the path of the first notebook inside it.

    Args:
        folder: The course, or its ``notebooks`` folder. None looks in the current folder, then in the source checkout
            that frozenkit was installed from.

    Raises:
        InputError: If the first notebook is in none of them.
    """
    places = [Path(folder).expanduser()] if folder is not None else [Path.cwd(), Path(__file__).parents[2]]
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
    """Where the course is, and whether anything was copied there just now.

    Found as by `find_notebooks`; where there is none, the lessons that the package brings along are copied, into a new
    or empty folder. A copy that lacks files (somebody pulled the plug) is completed. Nothing is ever overwritten.

    Args:
        folder: The course; None looks in the current folder and in the source checkout, and copies to
            ``frozenkit-course``.

    Raises:
        InputError: If the folder holds other things, cannot be written, or there is nothing to copy.
    """
    target = Path(folder if folder is not None else "frozenkit-course").expanduser()
    brought = _brought()
    for place in (folder, target):
        try:
            found = find_notebooks(place)[0]
        except InputError as error:
            missing = error
        else:
            return found, _complete(found, brought)
    if not (brought / _START).is_file():
        raise missing
    if target.exists() and (not target.is_dir() or any(not _is_ours(path, brought) for path in target.iterdir())):
        raise InputError(f"{target} is there and holds no course. Choose another folder with --dir, or empty this one.")
    try:
        _copy(brought, target)
    except OSError as error:
        with suppress(InputError):  # somebody else, who started at the same time, has put them there
            find_notebooks(target)
            _complete(target.resolve(), brought)
            return target.resolve(), True
        raise InputError(
            f"the lessons could not be copied to {target}: {error.strerror or error}. Try --dir."
        ) from error
    return target.resolve(), True


def _brought() -> Path:
    """Where an installed package keeps the lessons; a checkout has none there."""
    return Path(sysconfig.get_path("data")) / "share" / "frozenkit" / "notebooks"


_copyfile = shutil.copyfile  # not copy2: what a read-only installation holds is the learner's to change
_COPYING = ".frozenkit-copying-"


def _copy(brought: Path, target: Path) -> None:
    """All lessons at once: copied aside, then renamed, so that a course is there as a whole or not at all."""
    target.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=_COPYING, dir=target))
    try:
        shutil.copytree(brought, aside / "notebooks", copy_function=_copyfile)
        if not (target / "notebooks").exists():
            (aside / "notebooks").rename(target / "notebooks")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _fill(target, brought)
    for left in target.glob(f"{_COPYING}*"):  # by a start that was killed
        shutil.rmtree(left, ignore_errors=True)


def _is_ours(path: Path, brought: Path) -> bool:
    """Whether a copy that was cut short left this: its own folder, or lessons and nothing that somebody added."""
    if path.name.startswith(_COPYING):
        return True
    return path.name == "notebooks" and all(
        (brought / inside.relative_to(path)).exists() for inside in path.rglob("*") if not inside.is_dir()
    )


def _complete(root: Path, brought: Path) -> bool:
    """Put what is missing into a copy of the course that this package brought, and say whether anything was."""
    notebooks = root / "notebooks"
    if not (notebooks / _START).is_file() or not (brought / _START).is_file() or (root / "pyproject.toml").exists():
        return False
    if is_another_edition(root):  # its files would not go with these
        return False
    try:
        return _fill(root, brought)
    except OSError as error:
        raise InputError(f"{root} lacks a part of the course, which could not be put there: {error}.") from error


def is_another_edition(root: Path) -> bool:
    """Whether the course there is not the one that this package brings; a checkout is its own."""
    listed, brought = root / "notebooks" / "course.json", _brought() / "course.json"
    copied = listed.is_file() and brought.is_file() and not (root / "pyproject.toml").exists()
    return copied and listed.read_bytes() != brought.read_bytes()


def _fill(root: Path, brought: Path) -> bool:
    notebooks = root / "notebooks"
    missing = [
        (path, target)
        for path in sorted(brought.rglob("*"))
        if path.is_file() and not os.path.lexists(target := notebooks / path.relative_to(brought))
    ]
    for path, target in missing:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, path.read_bytes())
    if not os.path.lexists(root / "README.md"):  # every lesson says that the map is there
        write_whole(root / "README.md", _MAP.format(lessons=course_table(brought)).encode())
    return bool(missing)


_MAP = """# Frozen feature transfer: the course

Type `frozenkit lab` in this folder, or in the one above it, to open it. Which cell teaches what is in
[coverage.md](notebooks/coverage.md); exercises are in [notebooks/exercises](notebooks/exercises).

{lessons}"""


_NAMES = ("ServerApp", "LabApp", "NotebookApp")


def has_display() -> bool:
    """Whether a browser can show up here: always on Windows and macOS, with an X or Wayland display on Linux."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def lab_command(root: Path, notebook: str, *, port: int, browser: bool) -> list[str]:
    """The command line that serves `root` on loopback and opens `notebook`."""
    here = {"ip": "127.0.0.1", "allow_origin": "", "allow_origin_pat": "(?!)"}  # the pattern that nothing matches
    command = [
        sys.executable,
        "-P",  # a file of the learner's, such as random.py, is no part of the server
        "-c",
        "from frozenkit.app.lab import serve; serve()",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{notebook}",
        # What a configuration says in another application's name would come before what is said in the new one's.
        *(f"--{name}.{trait}={value}" for name in _NAMES for trait, value in here.items()),
        "--ServerKernelManager.ip=127.0.0.1",  # kernels listen as well
        f"--ServerApp.port={port}",
        "--ServerApp.log_level=WARN",
        "--LabApp.log_level=WARN",
        "--LabApp.news_url=None",  # the course needs no network, and asks for none
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
        FrozenkitError: If the server does not start, or would run without a token or beyond this machine.
    """
    root, notebook = find_notebooks(folder)
    command = lab_command(root, notebook, port=port, browser=browser and has_display())
    with _until_told_to_stop():
        server = subprocess.Popen(command, env=lab_environment(), cwd=root)
        try:
            info = _wait_until_up(server)
            if not info.get("token"):
                raise FrozenkitError(
                    "the server must run with a token, and your Jupyter configuration switches it off."
                )
            if info.get("hostname") not in _LOOPBACK:
                raise FrozenkitError(
                    f"the server must listen on this machine only, and your Jupyter configuration makes it listen on "
                    f"{info.get('hostname')!r}. Take `ip` out of the files that `jupyter --paths` names under config."
                )
            announce(f"{info['url']}lab/tree/{notebook}?token={info['token']}")
            return _wait_until_stopped(server)
        finally:
            _stop(server)


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve() -> None:
    """JupyterLab's own start, in the server's process, without news on options that nobody here has set."""
    import logging

    main = require("jupyterlab.labapp", "course").main

    logging.getLogger("LabApp").addFilter(lambda record: "has moved from" not in record.getMessage())
    main()


@contextmanager
def _until_told_to_stop() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is inside as an exception does, so that it takes its server along."""
    if threading.current_thread() is not threading.main_thread():  # only that one may listen to signals
        yield
        return

    def leave(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        raise SystemExit(128 + number)

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    asked = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]  # nohup stays nohup
    before = {number: signal.signal(number, leave) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(server: "subprocess.Popen[bytes]", seconds: float = 15) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(seconds)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_up(server: subprocess.Popen[bytes], seconds: float = 60) -> dict[str, Any]:
    """What the server writes about itself once it listens."""
    jupyter_runtime_dir = require("jupyter_core.paths", "course").jupyter_runtime_dir

    record = Path(jupyter_runtime_dir()) / f"jpserver-{server.pid}.json"
    # A server that died had this number and left its record. Ours needs a second before it writes one.
    record.unlink(missing_ok=True)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise FrozenkitError(f"JupyterLab ended with status {server.returncode} before it was up; see above.")
        try:
            info = json.loads(record.read_text())
            with socket.create_connection((info["hostname"], info["port"]), timeout=1):  # it writes, then listens
                return info
        except (OSError, json.JSONDecodeError):  # not there yet, or half-written, or not yet listening
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
