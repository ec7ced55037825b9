"""What benchmarks share at the command line: options, tables, errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import typer
from rich.table import Table

from asr.errors import AsrError


def run_script(main: Callable[..., None]) -> None:
    """Run `main` with the command-line arguments; an AsrError is reported as a single line."""
    try:
        typer.run(main)
    except AsrError as e:
        raise SystemExit(f"{Path(sys.argv[0]).stem}: {e}") from None


def known_engines(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return the names.  Raises AsrError if one is not known."""
    found = list(names)
    for name in found:
        if name not in known:
            raise AsrError(f"unknown engine {name!r}: known are {', '.join(known)}")
    return found


def new_table(title: str, *columns: str) -> Table:
    """Return a table without rows, whose first column is aligned to the left and the others to the right."""
    table = Table(title=title, title_justify="left", title_style="")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table
