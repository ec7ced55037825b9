"""Messages for the terminal beside the results: one line for each mistake, and a progress bar."""

from __future__ import annotations

import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from typer.main import get_command

from asr.errors import AsrError, printable
from asr.progress import OnDone

STOPPED = 130  # the exit status that shells report for a program ended by Ctrl-C
# The base class of all usage errors, of which typer exports only a subclass.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def say(message: str) -> None:
    """Write one line to stderr."""
    print(f"asr: {message}", file=sys.stderr, flush=True)


@contextmanager
def resumable() -> Iterator[None]:
    """Say, if Ctrl-C stops the command, that it can go on."""
    try:
        yield
    except KeyboardInterrupt:
        say("the same command goes on where this one left off")
        raise


def run(app: typer.Typer) -> int:
    """Run a command and return its exit status: 2, after one line on stderr, for a mistake in the input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal cannot encode are escaped
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            status = int(_bare_flags(get_command(app))(prog_name="asr", standalone_mode=False) or 0)
        except _UsageError as e:
            return _usage(e)
        except AsrError as e:
            say(printable(e))
            return 2
        except OSError as e:
            if e.errno is None:
                raise
            say(f"{printable(e.filename)}: {e.strerror}" if e.filename else str(e.strerror))
            return 2
        except (KeyboardInterrupt, typer.Abort):
            status = STOPPED
    if status == STOPPED:
        say("stopped")
    return status


def _bare_flags(command: Any) -> Any:
    """Remove the types that the help shows after flags, which look as if a value had to follow; return the command."""
    for option in command.get_params(typer.Context(command)):
        if getattr(option, "is_flag", False):
            option.metavar = ""
    for part in getattr(command, "commands", {}).values():
        _bare_flags(part)
    return command


def _usage(error: Exception) -> int:
    """Print one line about a wrong use of a command, or its help if it was given no arguments."""
    message = error.format_message()  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, end="", file=sys.stderr)
        return 2
    message = " ".join(message.replace("Value error, ", "").split()).rstrip(".")
    context = getattr(error, "ctx", None)
    say(f"{message[:1].lower()}{message[1:]} (see '{context.command_path if context else 'asr'} --help')")
    return 2


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(" ".join(str(message).split()))


def _of_audio(done_s: float, total_s: float, spent_s: float) -> str:
    return f"{done_s:.0f}/{total_s:.0f} s, {done_s / spent_s:.1f} times real time"


def of_utterances(done: float, total: float, spent_s: float) -> str:
    """Format the status of a progress bar that counts utterances."""
    return f"{done:,.0f}/{total:,.0f} utterances, {done / spent_s:,.0f} a second"


@contextmanager
def progress(what: str, status: Callable[[float, float, float], str] = _of_audio) -> Iterator[OnDone]:
    """Show a progress bar with speed and time left if stderr is a terminal.

    Gives a function to be called with the amount done and the total.  status: formats the amount done, the total and
    the seconds spent; by default, the amounts are seconds of audio.
    """
    console = Console(stderr=True, soft_wrap=True)
    began = time.monotonic()
    bar = Progress(
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(16),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        # On the same terminal, output is printed above the bar; into a file it goes unchanged.
        redirect_stdout=sys.stdout.isatty(),
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None)

        def on_done(done: float, total: float) -> None:
            spent_s = max(1e-9, time.monotonic() - began)
            left = ""
            if done > 0:  # otherwise the speed is unknown
                left = f", {timedelta(seconds=round(max(0.0, total - done) * spent_s / done))} left"
            bar.update(task, completed=done, total=total, description=status(done, total, spent_s) + left)

        yield on_done
