"""How far long work has come: a bar in terminal and notebook, or a function of the caller's own."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    progress: bool | Callable[[int, int], None] | None, total: int, name: str
) -> Iterator[Callable[[int], None]]:
    """Yields a function to be told how many more images are done."""
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
    from tqdm.auto import tqdm

    shell = sys.modules.get("IPython")
    in_notebook = "ipykernel" in sys.modules and shell is not None and shell.get_ipython() is not None
    watched = bool(progress) or in_notebook or sys.stderr.isatty()
    leave = bool(progress) or in_notebook
    with tqdm(total=total, desc=name, unit=" images", disable=not watched, leave=leave) as bar:
        yield lambda count: bar.update(count) and None
