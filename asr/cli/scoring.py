"""Scoring options shared by several commands: what to compute, which files to compare, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from asr.cli.inputs import names
from asr.cli.normalize import NORMALIZER_HELP
from asr.cli.options import Breakdown, By, Collar, Confusions, Metric, TimedMetric, WordList
from asr.cli.terminal import say
from asr.errors import printable
from asr.tasks import TRANSCRIBE, TRANSLATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.data.cuts import Dropped
    from asr.files import Place
    from asr.scoring import ScoreOptions

_FILES = "text, JSON, JSONL, cuts, CSV, TSV, STM, CTM, TRN, SRT or VTT"


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Options that say what to compute, one per field."""

    metric: Metric = None
    by: By = None
    breakdown: Breakdown = ""
    confusions: Confusions = 0
    word_list: WordList = None

    def options(self, *, task: str = TRANSCRIBE, **more: Any) -> ScoreOptions:
        """Return the options that `asr.scoring` takes.

        task: the task of the texts, which decides the default metrics.  more: further fields of ScoreOptions.
        """
        from asr.scoring import ScoreOptions, metrics_of

        return ScoreOptions(
            metrics=metrics_of(task) if self.metric is None else names(self.metric),
            by=self.by,
            breakdown=names(self.breakdown),
            confusions=self.confusions,
            words=self.word_list,
            **more,
        )


@dataclass(frozen=True, kw_only=True)
class TimedMeasuring(Measuring):
    """The same for texts that may have word timestamps."""

    metric: TimedMetric = None
    collar: Collar = 5.0

    def options(self, **more: Any) -> ScoreOptions:
        return super().options(collar_s=self.collar, **more)


@dataclass(frozen=True, kw_only=True)
class Scoring(TimedMeasuring):
    """Arguments and options of commands that score files."""

    reference: Annotated[Path, typer.Argument(help=f"Reference texts: {_FILES}.")]
    hypothesis: Annotated[
        list[Path],
        typer.Argument(help="Hypotheses in the same formats, or folders of runs; several systems are compared."),
    ]
    normalizer: Annotated[str, typer.Option(help=f"{NORMALIZER_HELP}; for both sides.")] = "none"
    language: Annotated[str | None, typer.Option(help="For normalisers that need it, such as en.")] = None
    form: Annotated[
        Literal["ids", "lines"] | None,
        typer.Option(help="Form of plain text: ids (`id text`) or lines. [default: guessed]"),
    ] = None
    id_column: Annotated[
        str | None, typer.Option(help="Column of the ids in CSV, TSV or JSONL. [default: id, path, ...]")
    ] = None
    ref_column: Annotated[
        str | None,
        typer.Option(help="Column of the reference texts; in cuts, translations.CODE. [default: reference, text, ...]"),
    ] = None
    hyp_column: Annotated[
        str | None, typer.Option(help="Column of the hypotheses. [default: hypothesis, text, ...]")
    ] = None
    missing_as_empty: Annotated[
        bool, typer.Option("--missing-as-empty", help="Score missing hypotheses as empty texts, all deletions.")
    ] = False
    ignore_extra: Annotated[
        bool, typer.Option("--ignore-extra", help="Leave out, and count, hypotheses without a reference.")
    ] = False

    @property
    def references(self) -> Path:
        """The file of references; for the folder of a run, its hyp.jsonl."""
        return _file(self.reference)

    @property
    def hypotheses(self) -> list[Path]:
        """The files of hypotheses; for the folder of a run, its hyp.jsonl."""
        return [_file(path) for path in self.hypothesis]

    def options(self, **more: Any) -> ScoreOptions:
        from asr.scoring import Columns

        references = Columns.of_references(self.id_column, self.ref_column)
        return super().options(
            task=f"{TRANSLATE}:{references.code}" if references.code else TRANSCRIBE,
            normalizer=self.normalizer,
            language=self.language,
            form=self.form,
            columns=(
                references,
                Columns.of_hypotheses(self.id_column, self.hyp_column),
            ),
            missing_as_empty=self.missing_as_empty,
            ignore_extra=self.ignore_extra,
            **more,
        )


def _file(path: Path) -> Path:
    from asr.scoring.recognised import hypotheses_in

    return hypotheses_in(path) if path.is_dir() else path


def say_left_out(cuts: Place, left_out: Sequence[Dropped], listed: Path | None = None) -> None:
    """Name the first few cuts of a manifest that could not be scored.  listed: the file that lists all of them."""
    for dropped in left_out[:3]:
        say(f"{cuts}: cut {printable(dropped.id)} is left out: {dropped.reason}")
    if (more := len(left_out) - 3) > 0:
        say(f"{cuts}: so are {more:,} more{f', which {listed} names' if listed else ''}")
