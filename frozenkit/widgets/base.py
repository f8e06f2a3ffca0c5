"""What all labs share: one script and style, a summary that a notebook can keep, and errors shown where the hand is."""

import html
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from frozenkit._outputs import table
from frozenkit.errors import FrozenkitError, InputError

_HERE = Path(__file__).parent


def assets(name: str, *parts: str) -> tuple[str, str]:
    """Script and style of a lab (its ``_esm`` and ``_css``), each one text: the theme, what all share, and its own.

    One script a widget is what notebooks, VS Code and Colab all load without a server or a build.
    """
    script, style = (
        "\n".join((_HERE / file).read_text(encoding="utf-8") for file in files)
        for files in (
            ("base.js", *(f"{part}.js" for part in parts), f"{name}.js"),
            ("../theme/theme.css", "base.css", f"{name}.css"),
        )
    )
    return script, style


class InputTraitError(InputError, traitlets.TraitError):
    """An input does not fit; as a `TraitError` it leaves the old value in place."""


Progress = Callable[[int, int], None]


class Stopped(Exception):
    """Somebody pressed stop, or asked for something else meanwhile."""


def offset_progress(before: int, of: int, progress: Progress) -> Progress:
    """Progress of one part of a job, told as progress of the whole."""
    return lambda done, _: progress(before + done, of)


class Lab(anywidget.AnyWidget):
    """Base of the labs: input traits come from the browser or from code, `answer` goes back as one consistent whole.

    A lab implements `_compute`, which returns the answer to the present inputs, and `_summary`, what it shows in a
    few words. `error` is what went wrong, for people; the widget shows it, and the last good answer stays.

    What takes longer than a moment runs beside the kernel, by `_run_in_background`: `work` then says what is done so
    far, the widget shows it with a button to stop, and `wait` waits for it.
    """

    answer = traitlets.Dict().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    work = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        super().__init__(**traits)
        self.on_msg(self._on_message)

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("stop"):
            self.stop()

    def stop(self) -> None:
        """End what runs beside the kernel, at its next step; what was shown before stays."""
        self._stopped.set()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until nothing runs beside the kernel any more.

        Raises:
            TimeoutError: If that takes longer than `timeout` seconds.
        """
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"{self.work.get('what', 'the work')} is not done after {timeout} s.")

    def _run_in_background(self, what: str, job: Callable[[Progress], None]) -> None:
        """Run a job beside the kernel; a newer one ends it.

        `progress(done, of)` shows how far it is, and ends the job where it has been stopped.
        """
        self._stopped.set()
        stopped = self._stopped = threading.Event()
        before, shown = self._thread, 0.0

        def progress(done: int, of: int) -> None:
            nonlocal shown
            if stopped.is_set() or not threading.main_thread().is_alive():
                raise Stopped
            if done in (0, of) or time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                self.work = {"what": what, "done": int(done), "of": int(of)}

        def run() -> None:
            if before is not None:
                before.join()  # one at a time: two would only slow each other down
            try:
                progress(0, 0)
                job(progress)
                self.error = ""
            except Stopped:
                pass
            except Exception as error:
                self.error = str(error) if isinstance(error, FrozenkitError) else f"{type(error).__name__}: {error}"
            finally:
                if self._stopped is stopped:
                    self.work = {}

        self.work = {"what": what, "done": 0, "of": 0}
        self._thread = threading.Thread(target=run)  # Python's end waits for its next step: torch would abort otherwise
        self._thread.start()

    def _compute(self) -> dict[str, Any]:
        raise NotImplementedError

    def _summary(self) -> Mapping[str, Any]:
        raise NotImplementedError

    def _update_answer(self, _change: Any = None) -> None:
        """Answer anew; what goes wrong is shown in the widget and raised for code."""
        try:
            self.answer = self._compute()
        except Exception as error:
            self.error = str(error) if isinstance(error, FrozenkitError) else f"{type(error).__name__}: {error}"
            raise
        self.error = ""

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take inputs from the browser. A failure there has no caller to raise to: the widget shows it instead."""
        try:
            super().set_state(sync_data)
        except (FrozenkitError, traitlets.TraitError) as error:
            self.error = str(error)
            self.send_state([name for name in sync_data if name in self.keys])  # the browser takes back what it sent
        # anything else is ours to mend: `_update_answer` has shown it, and Jupyter logs the trace

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self._summary().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        """The state as a table: what shows where no widget can run, and what a notebook's test compares."""
        rows = table([{"": str(name), "value": value} for name, value in self._summary().items()])
        title = html.escape(type(self).__name__)
        return f"<p><b>{title}</b> (run the notebook to make it live)</p>\n{rows._repr_html_()}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return data | {"text/plain": repr(self), "text/html": self._repr_html_()}, metadata
