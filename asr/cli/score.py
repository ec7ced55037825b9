"""`asr score`: files of texts against what was said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Protocol

import typer

from asr.cli.inputs import names
from asr.cli.options import Breakdown, By, Confusions, Metric, Words
from asr.cli.terminal import of_utterances, progress

_FILES = "text, JSONL, cuts, CSV, TSV, STM, CTM, TRN, SRT or VTT"


def score(
    reference: Annotated[Path, typer.Argument(help=f"What was said: {_FILES}.")],
    hypothesis: Annotated[list[Path], typer.Argument(help="What was recognised; several systems are compared.")],
    metric: Metric = "wer,cer",
    normalizer: Annotated[str, typer.Option(help="none, basic, english or spoken; for both sides.")] = "none",
    language: Annotated[str | None, typer.Option(help="For normalisers that need it.")] = None,
    form: Annotated[
        Literal["ids", "lines"] | None,
        typer.Option(help="How text is read: ids or lines. [default: seen from the text]"),
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Of CSV, TSV or JSONL. [default: id, path, ...]")] = None,
    ref_column: Annotated[str | None, typer.Option(help="Of the references. [default: reference, text, ...]")] = None,
    hyp_column: Annotated[str | None, typer.Option(help="Of the others. [default: hypothesis, text, ...]")] = None,
    missing_as_empty: Annotated[
        bool, typer.Option("--missing-as-empty", help="Score what was not recognised as empty texts.")
    ] = False,
    by: By = None,
    breakdown: Breakdown = "",
    confusions: Confusions = 0,
    words: Words = None,
    collar: Annotated[
        float, typer.Option(min=0, help="Of tcwer: seconds before and after a word's middle in which it may match.")
    ] = 5.0,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst utterances to show, aligned.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score recognised texts against what was said; texts are matched by id, or line by line.

    Several files of hypotheses are compared with each other: are they different, or is it chance?

    Example: `asr score ref.txt hyp.txt --metric wer,cer --normalizer english`
    """
    from asr import scoring

    options = scoring.ScoreOptions(
        metrics=names(metric),
        normalizer=normalizer,
        language=language,
        form=form,
        columns=(
            scoring.Columns.of_references(id_column, ref_column),
            scoring.Columns.of_hypotheses(id_column, hyp_column),
        ),
        missing_as_empty=missing_as_empty,
        by=by,
        worst=worst,
        breakdown=names(breakdown),
        confusions=confusions,
        words=words,
        collar_s=collar,
    )
    with progress("scoring", of_utterances) as on_done:
        comparison = scoring.compare(reference, hypothesis, options, on_done)
    result = comparison.reports[0] if len(hypothesis) == 1 else comparison
    if as_json:
        print(json.dumps(result.as_dict(), ensure_ascii=False))
        return
    print_report(result, worst)


class Printable(Protocol):
    """What the commands print: a report, or several beside each other."""

    def table(self) -> str: ...

    def worst(self, count: int) -> str: ...


def print_report(result: Printable, worst: int) -> None:
    """Print the table, and the worst utterances."""
    print(result.table())
    if shown := result.worst(worst):
        print(shown)
