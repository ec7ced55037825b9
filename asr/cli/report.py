"""`asr report`: write the scores as an HTML page."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.scoring import Scoring
from asr.cli.terminal import of_utterances, progress, say

MOST_CONFUSIONS = 10


def report(
    scoring: Scoring,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html.")],
    audio: Annotated[
        Path | None,
        typer.Option("--audio", help="Audio to play: a folder of files named by id, or a manifest of cuts."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Pictures to show: a folder of PNG or JPEG files named by id.")
    ] = None,
    media: Annotated[
        int, typer.Option("--media", min=0, help="How many of the worst utterances get audio and pictures.")
    ] = 50,
    most: Annotated[
        int,
        typer.Option(
            "--utterances", min=1, max=100_000, help="At most how many utterances the page shows; of more, the worst."
        ),
    ] = 20_000,
) -> None:
    """Write the scores as one HTML page: rates, differences, charts, and every utterance aligned.

    The page opens from disk in any browser and loads nothing. The scoring options are those of `asr score`. If the
    references are cuts, give them to --audio as well: they name their audio.

    Example: `asr report cuts.jsonl.gz small.jsonl large.jsonl --normalizer english --audio cuts.jsonl.gz --out report`
    """
    from asr.report import write_report

    failures: list[str] = []

    def failed(line: str) -> None:
        failures.append(line)
        say(line)

    options = scoring.options(worst=0)
    path = write_report(
        scoring.references,
        scoring.hypotheses,
        replace(options, confusions=options.confusions or MOST_CONFUSIONS),
        out,
        audio=audio,
        images=images,
        media=media,
        utterances=most,
        failed=failed,
        bar=partial(progress, status=of_utterances),
    )
    print(path)
    if failures:
        raise typer.Exit(1)
