"""`asr score`: score texts against reference texts."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.scoring import Scoring
from asr.cli.terminal import of_utterances, progress

if TYPE_CHECKING:
    from asr.evaluate import Evaluation
    from asr.runs import RunComparison
    from asr.scoring import Comparison, ScoreReport


def score(
    scoring: Scoring,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst utterances to show, aligned.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score recognised texts against references; texts are matched by id, or line by line.

    Several files of hypotheses are also compared with each other, with tests of significance.

    Example: `asr score ref.txt hyp.txt --metric wer,cer --normalizer english`
    """
    from asr.scoring import compare

    with progress("scoring", of_utterances) as on_done:
        comparison = compare(scoring.references, scoring.hypotheses, scoring.options(worst=worst), on_done)
    result = comparison.reports[0] if len(scoring.hypothesis) == 1 else comparison
    if as_json:
        print(json.dumps(result.as_dict(), ensure_ascii=False))
        return
    print_report(result, worst)


def print_report(result: ScoreReport | Comparison | RunComparison, worst: int) -> None:
    """Print the table and the worst utterances."""
    print(result.table())
    if shown := result.worst(worst):
        print(shown)


def print_evaluation(result: Evaluation, worst: int) -> None:
    """Print the scores of a manifest and, on stderr, how long decoding took."""
    print_report(result.report, worst)
    if result.failed:
        print(f"cuts that cannot be read, missing from these rates: {len(result.failed):,}")
    speed = f"{result.audio_s / result.wall_s:.1f} times real time"
    print(
        f"{result.audio_s:.1f} s of audio in {result.wall_s:.1f} s, {speed}; texts in {result.hypotheses}",
        file=sys.stderr,
    )
