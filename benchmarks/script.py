"""Running a benchmark from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import typer

from asr.errors import AsrError


def run_script(main: Callable[..., None]) -> None:
    """Run `main` with the command-line arguments; an AsrError is reported as a single line."""
    try:
        typer.run(main)
    except AsrError as e:
        raise SystemExit(f"{Path(sys.argv[0]).stem}: {e}") from None
