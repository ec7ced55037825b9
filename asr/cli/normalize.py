"""`asr normalize`: show what a normaliser does to texts, step by step if asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.errors import AsrError, DataError, printable

if TYPE_CHECKING:
    from asr.text import Chain

NORMALIZER_HELP = "none, basic, english, spoken, chinese, or a file of rules (.yaml)"


def normalize(
    normalizer: Annotated[str, typer.Argument(help=f"{NORMALIZER_HELP}.")],
    file: Annotated[Path, typer.Argument(help="One text per line, UTF-8; - is standard input.")] = Path("-"),
    language: Annotated[str | None, typer.Option(help="For normalisers that need it, such as en.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show what each step changed.")] = False,
) -> None:
    """Print normalised texts, line by line, as `asr score --normalizer` compares them.

    Example: `echo "Chapter 12: 5% more" | asr normalize spoken --language en --trace`
    """
    from asr.text import open_normalizer

    chain = open_normalizer(normalizer).of_language(language)
    for number, text in _lines(file):
        try:
            shown = _traced(chain, text) if trace else chain(text)
        except AsrError as e:
            raise DataError(f"{_name(file)}:{number}: {e}") from None
        print(shown)


def _traced(chain: Chain, text: str) -> str:
    """Return the text and, below it, the result of each step that changed it."""
    changes = list(chain.trace(text))
    width = max((len(step) for step, _ in changes), default=0)
    rows = [f"  {step:{width}}  {printable(after)}" for step, after in changes]
    return "\n".join([printable(text), *(rows or ["  unchanged"])])


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    from asr.scoring.rows import lines

    if file != Path("-"):
        yield from lines(file)
        return
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError(f"{_name(file)}:{number}: not UTF-8") from None


def _name(file: Path) -> str:
    return "standard input" if file == Path("-") else printable(file)
