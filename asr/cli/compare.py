"""`asr compare`: compare runs on the same references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.score import print_report
from asr.cli.scoring import TimedMeasuring
from asr.cli.terminal import of_utterances, progress


def compare(
    measuring: TimedMeasuring,
    runs: Annotated[
        list[Path],
        typer.Argument(help="hyp.jsonl, or folders of asr train, asr evaluate or a transcribed corpus."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(help="Reference texts, if the runs have none, and for tcwer: cuts, or what asr score reads."),
    ] = None,
    normalizer: Annotated[
        str | None, typer.Option(help="Normaliser for both sides. [default: the one that all runs were scored with]")
    ] = None,
    language: Annotated[str | None, typer.Option(help="For normalisers that need it, such as en.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst utterances to show, aligned.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare runs on the same references: scores, significance of their differences, and the settings that differ.

    A training run counts with its best checkpoint's hypotheses of the dev set.  Translations are compared by BLEU and
    chrF.

    Example: `asr compare exp/baseline exp/larger`
    """
    from asr.runs import compare_runs, find_run, task_of

    found = [find_run(path) for path in runs]
    options = measuring.options(task=task_of(found), language=language, worst=worst)
    with progress("scoring", of_utterances) as on_done:
        result = compare_runs(found, options, normalizer=normalizer, reference=reference, on_done=on_done)
    if as_json:
        print(json.dumps(result.as_dict(), ensure_ascii=False))
        return
    print_report(result, worst)
