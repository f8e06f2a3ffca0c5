"""What all labs share: one script and style, a summary that a notebook can keep, and errors shown where the hand is."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from frozenkit.errors import FrozenkitError, InputError
from frozenkit.outputs import table

_HERE = Path(__file__).parent


def assets(name: str) -> tuple[str, str]:
    """Script and style of a lab (its ``_esm`` and ``_css``): the shared part, then its own, as one text each.

    One script a widget is what notebooks, VS Code and Colab all load without a server or a build.
    """
    script, style = (
        "\n".join((_HERE / f"{stem}{suffix}").read_text(encoding="utf-8") for stem in ("base", name))
        for suffix in (".js", ".css")
    )
    return script, style


class InputTraitError(InputError, traitlets.TraitError):
    """An input does not fit; as a `TraitError` it leaves the old value in place."""


class Lab(anywidget.AnyWidget):
    """Base of the labs: input traits come from the browser or from code, `answer` goes back as one consistent whole.

    A lab implements `_compute`, which returns the answer to the present inputs, and `_summary`, what it shows in a
    few words. `error` is what went wrong, for people; the widget shows it, and the last good answer stays.
    """

    answer = traitlets.Dict().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def _compute(self) -> dict[str, Any]:
        raise NotImplementedError

    def _summary(self) -> Mapping[str, Any]:
        raise NotImplementedError

    def _refresh(self, _change: Any = None) -> None:
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
        # anything else is ours to mend: `_refresh` has shown it, and Jupyter logs the trace

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
