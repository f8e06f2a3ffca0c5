"""Progress bars: in a terminal, in a notebook, or a function of the caller's own."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


@contextmanager
def progress_bar(
    progress: bool | Callable[[int, int], None] | None, total: int, name: str
) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes how many more images are done."""
    if callable(progress):
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        yield report
        return
    if progress is False:
        yield lambda count: None
        return
    shell = sys.modules.get("IPython")
    in_notebook = "ipykernel" in sys.modules and shell is not None and shell.get_ipython() is not None
    if in_notebook and find_spec("ipywidgets"):
        with _bar_in_notebook(total, name) as bar:
            yield lambda count: bar.update(count) and None
        return
    from tqdm import tqdm

    watched = bool(progress) or sys.stderr.isatty()
    with tqdm(total=total, desc=name, unit=" images", disable=not watched, leave=bool(progress)) as bar:
        yield lambda count: bar.update(count) and None


@contextmanager
def _bar_in_notebook(total: int, name: str) -> Iterator[Any]:
    """A bar that goes when its work is done: what a notebook kept of it would say 0 % for ever, and to everyone."""
    from IPython.display import display
    from tqdm.notebook import tqdm

    bar = tqdm(total=total, desc=name, unit=" images", display=False, leave=False)
    shown = display(bar.container, display_id=True)
    try:
        yield bar
    finally:
        bar.close()
        shown.update({}, raw=True)
