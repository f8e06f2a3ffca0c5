"""JupyterLab on the course: a local server with a token, and the address to open it at."""

import logging
import os
import secrets
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

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
        write_whole(target, path.read_bytes())
    if not os.path.lexists(root / "README.md"):  # every lesson says that the map is there
        write_whole(root / "README.md", _MAP.format(lessons=course_table(brought)).encode())
    return bool(missing)


_MAP = """# Frozen feature transfer: the course

Type `frozenkit lab` in this folder, or in the one above it, to open it. Which cell teaches what is in
[coverage.md](notebooks/coverage.md); exercises are in [notebooks/exercises](notebooks/exercises).

{lessons}"""


_NAMES = ("ServerApp", "LabApp", "NotebookApp")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def has_display() -> bool:
    """Whether a browser can show up here: always on macOS, with an X or Wayland display on Linux."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def lab_options(root: Path, notebook: str, *, port: int, browser: bool) -> list[str]:
    """JupyterLab's options that serve `root` on loopback and open `notebook`."""
    here = {"ip": "127.0.0.1", "allow_origin": "", "allow_origin_pat": "(?!)"}  # the pattern that nothing matches
    options = [
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
        options.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")  # containers run as root; the server stays on loopback, behind its token
    return options


def run_lab(
    folder: str | os.PathLike[str] | None = None,
    *,
    port: int = 8888,
    browser: bool = True,
    announce: Callable[[str], None] = print,
) -> int:
    """Serve the course until it is stopped: this process becomes JupyterLab.

    Args:
        folder: As in `find_notebooks`.
        port: Where to listen; if taken, Jupyter tries the next ones.
        browser: Whether to open one; without a display none is opened.
        announce: Called once with the address, token included, when the server listens.

    Returns:
        0, or 128 and the number of the signal that stopped it.

    Raises:
        InputError: If the course is not found.
        FrozenkitError: If the server would run without a token or beyond this machine.
    """
    app = require("jupyterlab.labapp", "course").LabApp
    root, notebook = find_notebooks(folder)
    if not os.environ.get("JUPYTER_TOKEN"):  # Jupyter makes none where it has a password, and `ps` would show an option
        os.environ["JUPYTER_TOKEN"] = secrets.token_hex(24)
    # It has news on options that nobody here has set.
    logging.getLogger("LabApp").addFilter(lambda record: "has moved from" not in record.getMessage())
    server = app.initialize_server(lab_options(root, notebook, port=port, browser=browser and has_display()))
    if not (token := server.identity_provider.token):
        raise FrozenkitError("the server must run with a token, and your Jupyter configuration switches it off.")
    if server.ip not in _LOOPBACK:
        raise FrozenkitError(
            f"the server must listen on this machine only, and your Jupyter configuration makes it listen on "
            f"{server.ip!r}. Take `ip` out of the files that `jupyter --paths` names under config."
        )
    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        server.stop(from_signal=True)

    # On a terminal Jupyter asks whether SIGINT was meant; elsewhere, an editor's stop button say, nobody could answer.
    asks = sys.stdin is not None and sys.stdin.isatty()
    for number in (signal.SIGTERM, signal.SIGHUP, *(() if asks else (signal.SIGINT,))):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, stop)
    # First in the loop, Jupyter begins to listen; what comes after it is said when the address answers.
    server.io_loop.add_callback(announce, f"{server.connection_url}lab/tree/{notebook}?token={token}")
    server.start()
    return 128 + stopped[0] if stopped else 0
