"""`asr cuts`: make a manifest of cuts from a table of audio files and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli.terminal import of_utterances, progress, say


def cuts(
    table: Annotated[Path, typer.Argument(help="CSV or TSV with a header line of column names.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest to write, .jsonl.gz or .jsonl.")],
    language: Annotated[
        str | None, typer.Option("--language", help="Language of rows without one, such as en. [default: none]")
    ] = None,
) -> None:
    """Make a manifest of cuts, to train on or to evaluate, from a table of audio files and what is said in them.

    Columns: path (relative paths start at the table's folder) and text; optionally id, language, speaker, and start
    and end of a part of the file, in seconds. Any audio or video format will do. A row whose audio cannot be read is
    reported on stderr and left out, and the exit status is 1.

    Example: `asr cuts clips.csv --language en --out data/mine/cuts_train.jsonl.gz`
    """
    from asr.data.tables import make_manifest

    with progress("reading", of_utterances) as on_done:
        made = make_manifest(table, out, language=language, on_problem=say, on_done=on_done)
    print(f"{out}: {made.cuts:,} cuts, {made.seconds / 3600:.2f} hours; rows left out: {len(made.problems):,}")
    if made.problems:
        raise typer.Exit(1)
