"""`frozenkit lab`: the course opens, on this machine only, behind a token."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import venv
import zipfile
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from frozenkit import __version__
from frozenkit.app import lab as lab_module
from frozenkit.app.cli import main
from frozenkit.app.lab import find_notebooks, has_display, lab_options, open_course
from frozenkit.errors import InputError

ROOT = Path(__file__).parents[2]


COMMAND = [
    sys.executable,
    "-c",
    # Who runs in a shell's background is born deaf to SIGINT.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from frozenkit.app.cli import main; raise SystemExit(main())",
    "lab",
    "--no-browser",
    "--port",
]


def records_of(folder):
    return sorted(folder.glob("jpserver-*.json"))


@contextmanager
def started(records, port, folder=ROOT):
    """The command in a process of its own; what it started is ended by its process id."""
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(records), "JUPYTER_CONFIG_DIR": str(records)}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ours = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests ignore it, and so would the command
    try:
        command = subprocess.Popen([*COMMAND, str(port)], cwd=folder, env=environment, **pipes)
    finally:
        signal.signal(signal.SIGHUP, ours)
    with command:
        try:
            yield command
        finally:
            if command.poll() is None:
                command.send_signal(signal.SIGTERM)
            try:
                command.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                command.kill()
            for record in records_of(records):  # of a server that was left behind
                with suppress(ProcessLookupError):
                    os.kill(json.loads(record.read_text())["pid"], signal.SIGTERM)


@contextmanager
def lab(records, port):
    """The address that the command prints; it takes its server along when it is stopped."""
    with started(records, port) as command:
        yield next(line.strip() for line in command.stdout if line.strip().startswith("http"))
    assert records_of(records) == []  # a server that ends takes its record away


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def address(tmp_path):
    with lab(tmp_path, free_port()) as found:
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


CONFIGURATIONS = {
    "jupyter_server_config.py": "c.NotebookApp.ip = '0.0.0.0'\nc.NotebookApp.allow_origin = '*'",
    "jupyter_lab_config.py": "c.LabApp.ip = '0.0.0.0'\nc.LabApp.allow_origin_pat = '.*'",
    "jupyter_config.py": "c.KernelManager.ip = '0.0.0.0'",
    "jupyter_server_config.json": '{"ServerApp": {"ip": "0.0.0.0", "allow_origin": "*"}}',
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_lab_stays_on_this_machine_whatever_a_configuration_says(tmp_path, name):
    (tmp_path / name).write_text(CONFIGURATIONS[name])
    with lab(tmp_path, free_port()) as found:
        (record,) = records_of(tmp_path)
        told = json.loads(record.read_text())
        assert told["hostname"] == "127.0.0.1"
        parts = urllib.parse.urlsplit(found)
        allowed = {"Authorization": f"token {told['token']}", "Content-Type": "application/json"}
        kernels = f"http://127.0.0.1:{parts.port}/api/kernels"
        urllib.request.urlopen(urllib.request.Request(kernels, b"{}", allowed, method="POST")).close()
        (kernel,) = tmp_path.glob("kernel-*.json")
        assert json.loads(kernel.read_text())["ip"] == "127.0.0.1"
        asked = urllib.request.Request(f"http://127.0.0.1:{parts.port}/api", headers={"Origin": "http://evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked)
        with refused.value:
            assert refused.value.headers["Access-Control-Allow-Origin"] is None
            assert b"version" not in refused.value.read()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        # What our options say stands first; a server that got around them would be seen.
        ("", r"on this machine only.*listen on '0\.0\.0\.0'.*jupyter --paths"),
        ("c.IdentityProvider.token = ''", "must run with a token, and your Jupyter configuration switches it off"),
    ],
)
def test_a_server_that_is_open_to_others_is_never_started(tmp_path, config, said):
    (tmp_path / "jupyter_server_config.py").write_text(config)
    code = (
        "import frozenkit.app.lab as lab; ours = lab.lab_options\n"
        "open_up = lambda *a, **k: [word.replace('127.0.0.1', '0.0.0.0') for word in ours(*a, **k)]\n"
        f"lab.lab_options = {'ours' if config else 'open_up'}\n"
        "from frozenkit.app.cli import main\n"
        f"raise SystemExit(main(['lab', '--no-browser', '--port', '{free_port()}']))"
    )
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert re.search(said, done.stderr)
    assert "http" not in done.stdout
    assert records_of(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_server_ends_with_the_command(tmp_path, number):
    """An editor's stop button sends SIGINT to the command alone, where there is no terminal to ask."""
    with started(tmp_path, free_port()) as command:
        address = next(line.strip() for line in command.stdout if "http" in line)
        with urllib.request.urlopen(address.replace("/lab/tree/notebooks/00_start_here.ipynb", "/api/status")):
            pass  # it answers: its record is written
        (record,) = records_of(tmp_path)
        assert json.loads(record.read_text())["pid"] == command.pid  # no second process to leave behind
        command.send_signal(number)
        assert command.wait(30) == 128 + number
        assert records_of(tmp_path) == []


def test_a_dead_servers_record_is_not_believed(tmp_path):
    """Containers give numbers again: here the dead one had the very number of the server that starts."""
    with started(tmp_path, free_port()) as command:
        record = tmp_path / f"jpserver-{command.pid}.json"
        record.write_text('{"token": "old", "url": "http://elsewhere/", "hostname": "127.0.0.1", "pid": 0}')
        address = next(line.strip() for line in command.stdout if "http" in line)
        assert urllib.parse.urlsplit(address).hostname == "127.0.0.1"
        assert "elsewhere" not in address
        deadline = time.monotonic() + 30
        while "elsewhere" in record.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert json.loads(record.read_text())["pid"] == command.pid


def test_the_address_is_the_first_thing_that_is_shown(tmp_path):
    with started(tmp_path, free_port()) as command:
        next(line for line in command.stdout if "http" in line)
        command.send_signal(signal.SIGTERM)
        _, said = command.communicate(timeout=30)
    assert not [line for line in said.splitlines() if re.search(r"\[[IW] .*LabApp\]", line)]


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
    options = lab_options(ROOT, "notebooks/00_start_here.ipynb", port=9000, browser=False)
    assert "--no-browser" in options
    assert "--ServerApp.ip=127.0.0.1" in options


# --- copying the course ---


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """A package that brings a small course along, and a folder to copy it to."""
    folder = tmp_path / "share" / "notebooks"
    for name in ("00_start_here.ipynb", "course.json", "exercises/00_start_here.ipynb", "results/gaps.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "notebooks" / name, folder / name)
    listed = json.loads((folder / "course.json").read_text(encoding="utf-8"))
    listed["lessons"] = listed["lessons"][:1]
    (folder / "course.json").write_text(json.dumps(listed))
    monkeypatch.setattr(lab_module, "_brought", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("killed", [False, True])
def test_a_copy_cut_short_after_any_file_is_made_good_at_the_next_start(brought, tmp_path, monkeypatch, count, killed):
    target, done = tmp_path / "mine", []
    whole = tree(brought)

    def copy(source, to, **more):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(source)
        return shutil.copyfile(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(lab_module, "_copyfile", copy)
        if killed:
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # nobody is left to clear up
        if count < len(whole):
            with pytest.raises(KeyboardInterrupt):
                open_course(target)
            assert not (target / "notebooks").exists()
        else:
            open_course(target)
    place, copied = open_course(target)
    assert (place, copied) == (target, count < len(whole))
    found = tree(target)
    assert found.pop("README.md").startswith(b"# Frozen feature transfer")
    assert {name.removeprefix("notebooks/"): text for name, text in found.items()} == whole
    assert open_course(target) == (target, False)


def test_two_that_copy_at_once_leave_one_course(brought, tmp_path, monkeypatch):
    """The one that comes second finds its folder gone, or the place taken."""
    target, whole = tmp_path / "mine", tree(brought)

    def copy(source, to, **more):
        monkeypatch.setattr(lab_module, "_copyfile", shutil.copyfile)
        open_course(target)
        return shutil.copyfile(source, to)

    monkeypatch.setattr(lab_module, "_copyfile", copy)
    assert open_course(target) == (target, True)
    found = tree(target / "notebooks")
    assert found == whole


def test_what_an_older_copy_lacks_is_put_there_and_nothing_else_is_touched(brought, tmp_path):
    names = sorted(tree(brought))
    for count in range(1, len(names)):
        for first in range(len(names)):
            target = tmp_path / f"{count}-{first}"
            for name in (names[first:] + names[:first])[:count]:  # a copy that stopped half-way, in any order
                (target / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
                (target / "notebooks" / name).write_bytes(
                    b"mine" if name != "course.json" else (brought / name).read_bytes()
                )
            before = tree(target)
            assert open_course(target) == (target, True)
            after = tree(target)
            assert {name: after[name] for name in before} == before
            assert after.keys() == {"README.md", *(f"notebooks/{name}" for name in names)}


def test_another_edition_and_a_checkout_are_left_as_they_are(brought, tmp_path):
    for folder, mark in (("other", "notebooks/course.json"), ("checkout", "pyproject.toml")):
        (tmp_path / folder / "notebooks").mkdir(parents=True)
        (tmp_path / folder / "notebooks" / "00_start_here.ipynb").write_text("mine")
        (tmp_path / folder / mark).write_text("{}")
        before = tree(tmp_path / folder)
        assert open_course(tmp_path / folder) == (tmp_path / folder, False)
        assert tree(tmp_path / folder) == before
        assert lab_module.is_another_edition(tmp_path / folder) == (folder == "other")


@pytest.mark.parametrize("changed", [True, False])
def test_another_edition_is_said(brought, tmp_path, monkeypatch, capsys, changed):
    """Seen to fail: an old course that lacked a lesson was served without a word."""
    open_course(tmp_path / "mine")
    listed = tmp_path / "mine" / "notebooks" / "course.json"
    listed.write_text(listed.read_text() + " " * changed)
    monkeypatch.setattr(lab_module, "run_lab", lambda *_, **__: 0)
    assert main(["lab", "--dir", str(tmp_path / "mine")]) == 0
    said = f"is of another edition than frozenkit {__version__}; nothing was added. To copy today's: frozenkit"
    assert (said in " ".join(capsys.readouterr().out.split())) is changed


def test_the_copy_has_no_dead_links(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_module, "_brought", lambda: ROOT / "notebooks")
    open_course(tmp_path / "mine")
    pages = [path for path in (tmp_path / "mine").rglob("*") if path.suffix in (".md", ".ipynb")]
    links = re.compile(r"\]\(((?!http|#|mailto:)[^)\s]+)\)")
    dead = []
    for path in pages:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            text = "".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
        dead += [(path.name, to) for to in links.findall(text) if not (path.parent / to.split("#")[0]).exists()]
    assert dead == []
    assert len(pages) > 20


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
    code = "import sys, frozenkit.app.lab as l; print(l.__file__); print(*l.open_course(*sys.argv[1:]), sep='\\n')"
    installed = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # and no other tree
    command = [python, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=installed, capture_output=True, text=True)
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


def test_the_wheel_brings_data_templates_and_extension_along_and_no_sources_of_it(from_wheel):
    prefix = from_wheel.parents[1]
    bundle = ROOT / "labextension" / "bundle"
    installed = prefix / "share" / "jupyter" / "labextensions" / "frozenkit"
    built = [path for path in bundle.rglob("*") if path.is_file()]
    assert len(built) > 5
    for path in built:
        assert (installed / path.relative_to(bundle)).read_bytes() == path.read_bytes()
    assert (installed / "install.json").is_file()
    (wheel,) = prefix.parent.glob("frozenkit-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "frozenkit/images/bundled/emoji-google.webp" in names
    looks = [
        path.relative_to(ROOT) for kind in ("css", "html", "js") for path in (ROOT / "frozenkit").rglob(f"*.{kind}")
    ]
    assert len(looks) > 20
    assert [path for path in looks if path.as_posix() not in names] == []
    assert [name for name in names if name.startswith("labextension") or "node_modules" in name] == []


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
