"""Run the command line in this process."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from asr.cli import main


@dataclass(frozen=True)
class Outcome:
    """The result of a command: exit status, standard output, and the lines of standard error."""

    status: int
    out: str
    err: list[str]


def asr(*words: object) -> Outcome:
    """Run `asr` with these arguments."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    argv = ["asr", *map(str, words)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    assert isinstance(status, int)
    shown, told = (stream.buffer.getvalue().decode() for stream in (out, err))
    return Outcome(status, shown, told.splitlines())
