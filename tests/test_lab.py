"""`frozenkit lab`: the course opens, on this machine only, behind a token."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import venv
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from frozenkit.errors import InputError
from frozenkit.lab import find_notebooks, has_display, lab_command

ROOT = Path(__file__).parents[1]


@contextmanager
def lab(records, port):
    """The address that the command prints; the server is stopped by its process id."""
    command = [
        sys.executable,
        "-c",
        "from frozenkit.cli import main; main()",
        "lab",
        "--no-browser",
        "--port",
        str(port),
    ]
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(records), "JUPYTER_CONFIG_DIR": str(records)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            yield next(line.strip() for line in server.stdout if line.strip().startswith("http"))
        finally:
            server.send_signal(signal.SIGTERM)
            for record in records.glob("jpserver-*.json"):
                pid = int(record.stem.removeprefix("jpserver-"))
                os.kill(pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture
def address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with lab(tmp_path, port) as found:
        yield found


def test_a_taken_port_is_left_to_its_owner_and_the_address_says_which_one_serves(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as owner:
        taken = owner.getsockname()[1]
        with lab(tmp_path, taken) as found:
            parts = urllib.parse.urlsplit(found)
            assert parts.port != taken
            token = urllib.parse.parse_qs(parts.query)["token"][0]
            with urllib.request.urlopen(f"http://127.0.0.1:{parts.port}/api/status?token={token}") as answer:
                assert answer.status == 200


def test_lab_serves_the_first_lesson_on_loopback_behind_a_token(address):
    parts = urllib.parse.urlsplit(address)
    assert parts.hostname == "127.0.0.1"
    assert parts.path == "/lab/tree/notebooks/00_start_here.ipynb"
    token = urllib.parse.parse_qs(parts.query)["token"][0]
    assert len(token) >= 32
    contents = f"http://127.0.0.1:{parts.port}/api/contents/notebooks/00_start_here.ipynb?content=0"
    with urllib.request.urlopen(f"{contents}&token={token}") as answer:
        assert b'"name": "00_start_here.ipynb"' in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(contents)


def test_find_notebooks_from_the_checkout_its_folder_or_elsewhere(tmp_path, monkeypatch):
    expected = (ROOT, "notebooks/00_start_here.ipynb")
    assert find_notebooks(ROOT) == find_notebooks(ROOT / "notebooks") == expected
    monkeypatch.chdir(tmp_path)
    assert find_notebooks() == expected  # an editable install knows its checkout
    with pytest.raises(InputError, match="not found in .*say where it is with --dir"):
        find_notebooks(tmp_path)


def test_no_display_opens_no_browser(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_display()
    command = lab_command(ROOT, "notebooks/00_start_here.ipynb", port=9000, browser=False)
    assert "--no-browser" in command
    assert "--ServerApp.ip=127.0.0.1" in command


# --- without a checkout: the lessons that the wheel brings along ---


@pytest.fixture(scope="module")
def from_wheel(tmp_path_factory):
    """A Python that has frozenkit from its wheel alone, and everything else from here."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], cwd=ROOT)
    (sources,) = folder.glob("frozenkit-*.tar.gz")
    with tarfile.open(sources) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sources.name.removesuffix(".tar.gz")  # a release is built from what it ships
    run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(unpacked)])
    (wheel,) = folder.glob("frozenkit-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    Path(site.stdout.strip(), "rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run([python, "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed", str(wheel)])
    return python


def opened(python, folder, *arguments):
    code = "import sys, frozenkit.lab as l; print(l.__file__); print(*l.open_course(*sys.argv[1:]), sep='\\n')"
    done = subprocess.run([python, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_the_wheel_brings_the_course_along(from_wheel, tmp_path):
    code, (file, place, copied) = opened(from_wheel, tmp_path)
    assert code == 0
    assert str(from_wheel.parents[1]) in file
    assert (Path(place), copied) == (tmp_path / "frozenkit-course", "True")
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts:
            copy = Path(place, path.relative_to(ROOT))
            assert copy.read_bytes() == path.read_bytes()


def test_the_wheel_brings_data_and_extension_along_and_no_sources_of_it(from_wheel):
    prefix = from_wheel.parents[1]
    bundle = ROOT / "frozenkit" / "labextension" / "bundle"
    installed = prefix / "share" / "jupyter" / "labextensions" / "frozenkit"
    for path in bundle.rglob("*"):
        if path.is_file():
            assert (installed / path.relative_to(bundle)).read_bytes() == path.read_bytes()
    assert (installed / "install.json").is_file()
    (wheel,) = prefix.parent.glob("frozenkit-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "frozenkit/data/emoji-google.webp" in names
    assert [name for name in names if name.startswith("frozenkit/labextension") or "node_modules" in name] == []


def test_a_course_that_is_there_is_opened_and_never_overwritten(from_wheel, tmp_path):
    opened(from_wheel, tmp_path)
    mine = tmp_path / "frozenkit-course" / "notebooks" / "00_start_here.ipynb"
    mine.write_text("mine")
    code, (_, place, copied) = opened(from_wheel, tmp_path)
    assert (code, Path(place), copied) == (0, tmp_path / "frozenkit-course", "False")
    assert mine.read_text() == "mine"


def test_a_folder_with_other_things_is_left_alone(from_wheel, tmp_path):
    (tmp_path / "frozenkit-course").mkdir()
    (tmp_path / "frozenkit-course" / "letter.txt").write_text("dear")
    code, lines = opened(from_wheel, tmp_path)
    assert code == 1
    assert "is there and holds no course. Choose another folder with --dir" in lines[-1]
    assert opened(from_wheel, tmp_path, "elsewhere")[0] == 0
    (tmp_path / "file").write_text("")
    assert "holds no course" in opened(from_wheel, tmp_path, "file")[1][-1]
    assert "could not be copied" in opened(from_wheel, tmp_path, "/proc/nowhere")[1][-1]
