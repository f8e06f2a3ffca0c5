"""A real JupyterLab on loopback and a real Chromium that can reach nothing else."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera that shows a moving test image, for pages that may use one
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
SETTINGS = {  # JupyterLab asks its makers for news and updates unless told not to
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}


def find_chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


def missing(what):
    """A laptop may skip the browser; CI may not."""
    text = f"{what} is missing. Install it with `apt install chromium` and `pip install 'frozenkit[test]'`."
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@dataclass
class Traffic:
    """What a page said and where it went."""

    hosts: set = field(default_factory=set)
    errors: list = field(default_factory=list)

    def watch(self, page):
        page.on("request", lambda request: self.note(request.url))
        page.on("websocket", lambda socket: self.note(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))

    def note(self, url):
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about"):
            self.hosts.add(parts.hostname)


@dataclass
class Notebook:
    """An open notebook in the browser."""

    page: object
    traffic: Traffic

    def ready(self):
        """Wait until the cells are there and the kernel waits for them."""
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )

    def run_all(self, timeout=120):
        """Run All by the menu, as a person would; returns when the last cell has its number."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        prompts = self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt")
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            texts = prompts.all_text_contents()
            if texts and all(text.strip("[]: ").isdigit() for text in texts):
                return
            time.sleep(0.3)
        raise AssertionError(f"cells still run after {timeout} s: {texts}")

    def ask(self, code):
        """What the kernel prints when it runs this code."""
        return self.page.evaluate(
            """async (code) => {
                const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const future = kernel.requestExecute({ code, store_history: false });
                let printed = "";
                future.onIOPub = ({ header, content }) => {
                    if (header.msg_type === "stream") printed += content.text;
                    if (header.msg_type === "error") printed += `${content.ename}: ${content.evalue}`;
                };
                await future.done;
                return printed.trim();
            }""",
            code,
        )

    def until(self, code, expected, seconds=60):
        """Wait until the kernel prints this."""
        for _ in range(int(seconds * 4)):
            if (said := self.ask(code)) == expected:
                return
            self.page.wait_for_timeout(250)
        raise AssertionError(f"{code} prints {said!r}, not {expected!r}, after {seconds} s")

    def axe(self, selector):
        """What axe finds wrong inside these nodes, in both themes: rule and the first of each node."""
        from axe_playwright_python.sync_playwright import Axe

        found = []
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            self.theme(theme)
            for violation in Axe().run(self.page, context=selector).response["violations"]:
                found.append((theme, violation["id"], [node["html"][:120] for node in violation["nodes"]]))
        return found

    def theme(self, name):
        """Switch JupyterLab's theme and wait until it shows."""
        self.page.evaluate("(theme) => jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
        self.page.wait_for_function("(name) => document.body.dataset.jpThemeName === name", arg=name)
        self.page.wait_for_timeout(500)


@pytest.fixture(scope="session")
def screenshots():
    """Where images of the widgets go, to be looked at."""
    folder = Path(__file__).parent / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def chromium():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the Python package playwright")
    path = find_chromium()
    if path is None:
        missing("Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory):
    """A JupyterLab server with its own settings; yields (address, token, folder)."""
    home = tmp_path_factory.mktemp("jupyter")
    folder = home / "notebooks"
    folder.mkdir()
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
        *("--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"),
        "--JupyterNotebookApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    env = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    address = f"http://127.0.0.1:{port}"
    with (
        (home / "server.log").open("w") as log,
        subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True) as server,
    ):
        try:
            wait_until_up(f"{address}/api/status?token={token}", server, home / "server.log")
            yield address, token, folder
        finally:
            stop(server)


def wait_until_up(url, server, log, timeout=60):
    end = time.monotonic() + timeout
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def stop(server):
    """End the server we started, and the kernels in its own session, if they outlive it."""
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="session")
def open_page(chromium, jupyter):
    """``with open_page(path, app=…) as notebook``: a notebook of the server's folder, in a browser of its own.

    `storage` is what the browser has kept before: name → text.
    """
    address, token, _ = jupyter
    headers = {"Authorization": f"token {token}"}

    @contextmanager
    def opened(path, width=1400, height=1000, app="lab", camera=False, storage=None):
        others = sessions()
        context = chromium.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        for name, text in (storage or {}).items():
            context.add_init_script(
                f"localStorage.getItem({name!r}) ?? localStorage.setItem({name!r}, {json.dumps(text)})"
            )
        if camera:
            context.grant_permissions(["camera"], origin=address)
        try:
            page = context.new_page()
            page.set_default_timeout(60_000)
            traffic = Traffic()
            traffic.watch(page)
            place = f"lab/workspaces/{secrets.token_hex(4)}/tree" if app == "lab" else "notebooks"
            page.goto(f"{address}/{place}/{path}?token={token}")
            notebook = Notebook(page, traffic)
            notebook.ready()
            yield notebook
        finally:
            context.close()
            for found in sessions() - others:
                end(found)

    def sessions():
        with urllib.request.urlopen(urllib.request.Request(f"{address}/api/sessions", headers=headers)) as answer:
            return {found["id"] for found in json.load(answer)}

    def end(found):
        """Closing a page leaves its kernels at work: end them, so that a run holds few at a time."""
        request = urllib.request.Request(f"{address}/api/sessions/{found}", headers=headers, method="DELETE")
        urllib.request.urlopen(request).close()

    return opened


@pytest.fixture(scope="session")
def open_notebook(jupyter, open_page):
    """``with open_notebook(name, sources, width=…) as notebook``: code cells, or a copy of a file, in JupyterLab."""
    _, _, folder = jupyter

    @contextmanager
    def opened(name, sources, **options):
        if isinstance(sources, Path):
            notebook = nbformat.read(sources, as_version=4)
        else:
            cells = [nbformat.v4.new_code_cell(source) for source in sources]
            kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(notebook, folder / f"{name}.ipynb")
        with open_page(f"{name}.ipynb", **options) as page:
            yield page

    return opened
