"""The command line: ``frozenkit lab · doctor · probe · cache``."""

import json
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from frozenkit.errors import DataError, FrozenkitError, FrozenkitWarning, InputError

app = typer.Typer(
    help="Frozen feature transfer: keep a pretrained network fixed, fit a light head, know how good the result is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback when something fails.")]


@app.command()
def lab(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen; the next ones if it is taken.")] = 8888,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser where there is one.")] = True,
    folder: Annotated[str | None, typer.Option("--dir", help="The course; default: here, or the checkout.")] = None,
    debug: Debug = False,
) -> None:
    """Open JupyterLab on the course, on this machine only and behind a token."""
    from frozenkit.lab import run_lab

    raise typer.Exit(run_lab(folder, port=port, browser=browser, announce=_announce))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has, and what to do about what it lacks. Ends with 1 if something is left to do."""
    from rich.table import Table
    from rich.text import Text

    from frozenkit.doctor import doctor as look

    diagnosis = look()
    if as_json:
        print(json.dumps(diagnosis.to_dict(), indent=2, ensure_ascii=False))
    else:
        table = Table(box=None, pad_edge=False)
        table.add_column("Check", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("Found", overflow="fold")
        colours = {"OK": "green", "note": "yellow", "to do": "bold red"}
        for check in diagnosis.checks:
            found = Text(check.found)  # Text, not markup: paths and messages may hold square brackets
            if check.advice:
                found.append(f"\n→ {check.advice}", style="bold")
            table.add_row(Text(check.name), Text(check.status, style=colours[check.status]), found)
        _console().print(table)
    raise typer.Exit(0 if diagnosis.ok else 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after ``frozenkit``; None takes them from the process.

    Returns:
        0 done, 1 failed, 2 wrong use; 130 when interrupted. Errors are one line on stderr; ``--debug`` adds the trace.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.simplefilter("always", FrozenkitWarning)
        try:
            return app(words, standalone_mode=False, prog_name="frozenkit") or 0
        except KeyboardInterrupt:
            return _fail("interrupted", 130)
        except Exception as error:
            if "--debug" in words:
                traceback.print_exc()
            if isinstance(error, (InputError, DataError)):
                return _fail(str(error), 2)
            if isinstance(error, FrozenkitError):
                return _fail(str(error), 1)
            if isinstance(error, typer.Abort):
                return _fail("interrupted", 130)
            usage = getattr(error, "format_message", None)  # an error in the words themselves, from the parser
            if usage is not None and not usage():  # no command at all: the help is printed already
                return 2
            if usage is not None:
                return _fail(f"{usage()} See `frozenkit --help`.", getattr(error, "exit_code", 2))
            return _fail(f"{type(error).__name__}: {error} (more with --debug)", 1)


def _fail(message: str, status: int) -> int:
    print(f"error: {_one_line(message)}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    name = "warning" if issubclass(category, FrozenkitWarning) else category.__name__
    print(f"{name}: {_one_line(str(message))}", file=sys.stderr)


def _announce(url: str) -> None:
    print(f"\n    The course is open at\n\n    {url}\n\n    Stop it with Ctrl-C.\n", flush=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)
