"""Score recognised texts against what was said: files or mappings in; counts, tables and the worst cases out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from asr.errors import DataError
from asr.metrics import Unit
from asr.scoring.compare import Comparison
from asr.scoring.formats import Columns
from asr.scoring.pairs import Pair, open_pair, paired
from asr.scoring.rates import MEASURES, check_metrics
from asr.scoring.report import Groups, ScoreReport
from asr.scoring.rows import PathLike, Row, Source, count_lines
from asr.scoring.tally import Tally, normalised
from asr.scoring.translation import TRANSLATION, translation_score

__all__ = ["METRICS", "Columns", "Comparison", "ScoreReport", "compare", "score", "score_texts"]

METRICS = (*MEASURES, *TRANSLATION)
OnDone = Callable[[float, float], None]


@dataclass(frozen=True)
class _Plan:
    """What is asked for; see `score`."""

    metrics: Sequence[str]
    normalizer: str
    language: str | None
    by: str | None = None
    worst: int = 5
    missing_as_empty: bool = False
    places: bool = False


def score(
    reference: PathLike,
    hypothesis: PathLike,
    *,
    metrics: Sequence[str] = ("wer", "cer"),
    normalizer: str = "none",
    language: str | None = None,
    form: Literal["ids", "lines"] | None = None,
    columns: tuple[Columns, Columns] | None = None,
    missing_as_empty: bool = False,
    by: str | None = None,
    worst: int = 5,
    on_done: OnDone | None = None,
) -> ScoreReport:
    """Score one file against another; both go by, and of an utterance only its counts are kept.

    The suffix tells what a file is, before an optional `.gz`:

    - `.jsonl`: an object a line, with "id", "text" and perhaps "language", or a lhotse cut (the texts of its
      supervisions in order of time, joined).
    - `.csv`, `.tsv`: the first line names the columns; `columns` (references, hypotheses) says which to take.
    - `.trn`, `.stm`, `.ctm`: the formats of NIST's sclite. Beside an STM, the words of a CTM go to its segments by
      file, channel and the middle of the word; beside anything else they are one text for each file.
    - `.srt`, `.vtt`: the cues joined; the other file's texts are joined too.
    - All else is plain text: `form` says "ids" (`id text`) or "lines" (a text a line, matched by number). Without
      it, the reference decides for both files: "ids" if the other file has ids of its own, or if the first words
      of its lines are all different and each holds a digit, an underscore or a slash.

    The language of an utterance is that of the reference, else of the hypothesis, else `language`. BLEU, chrF and
    TER need all texts in memory at once. by: a field of the references (a column, a key, a cut's speaker) whose
    utterances the bootstrap keeps together.  worst: how many of the worst utterances to keep.  on_done: told the
    utterances done, and about how many there are.

    Raises DataError, with file and line, for what cannot be read, and for ids that are missing (unless
    `missing_as_empty`), extra or there twice; ConfigError for an unknown metric or normaliser.
    """
    comparison = compare(
        reference,
        [hypothesis],
        metrics=metrics,
        normalizer=normalizer,
        language=language,
        form=form,
        columns=columns,
        missing_as_empty=missing_as_empty,
        by=by,
        worst=worst,
        on_done=on_done,
    )
    return comparison.reports[0]


def compare(
    reference: PathLike,
    hypotheses: Sequence[PathLike],
    *,
    metrics: Sequence[str] = ("wer", "cer"),
    normalizer: str = "none",
    language: str | None = None,
    form: Literal["ids", "lines"] | None = None,
    columns: tuple[Columns, Columns] | None = None,
    missing_as_empty: bool = False,
    by: str | None = None,
    worst: int = 5,
    on_done: OnDone | None = None,
) -> Comparison:
    """Score several files against one, and every two of them against each other; options as for `score`."""
    plan = _Plan(
        metrics, normalizer, language, by, worst, missing_as_empty, places="wer" in metrics and len(hypotheses) > 1
    )
    lines = count_lines(reference) if on_done else 0
    reports = []
    for number, hypothesis in enumerate(hypotheses):
        sources = open_pair(reference, hypothesis, form=form, columns=columns)
        told = on_done and _after(on_done, number * lines, len(hypotheses) * lines)
        reports.append(_score(*sources, plan, hint=_hint(sources[0], form), on_done=told))
    if len({report.utterances for report in reports}) > 1:
        raise DataError(f"{reference}: was not read in the same way beside every other file; compare files of one kind")
    return Comparison(tuple(reports))


def score_texts(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    *,
    metrics: Sequence[str] = ("wer", "cer"),
    normalizer: str = "none",
    language: str | None = None,
    languages: Mapping[str, str | None] | None = None,
    worst: int = 5,
) -> ScoreReport:
    """Normalise both sides in the same way and compare texts of the same id.

    `languages` gives the language of single utterances, `language` that of all others.
    Raises DataError for ids that only one side has, or an utterance that cannot be normalised, by its id.
    """
    known = languages or {}
    refs = Source("the references", None, lambda: (Row(id, text, known.get(id)) for id, text in references.items()))
    hyps = Source("the hypotheses", None, lambda: (Row(id, text) for id, text in hypotheses.items()))
    return _score(refs, hyps, _Plan(metrics, normalizer, language, worst=worst))


def _score(
    refs: Source, hyps: Source, plan: _Plan, hint: str = "", on_done: Callable[[float], None] | None = None
) -> ScoreReport:
    metrics = check_metrics(plan.metrics, METRICS)
    units: list[Unit] = list(dict.fromkeys(MEASURES[name].unit for name in metrics if name in MEASURES))
    tally = Tally(units, worst=plan.worst, by=plan.by, places=plan.places)
    asked = [name for name in metrics if name in TRANSLATION]
    held: list[Pair] = []
    done = 0
    pairs = paired(refs, hyps, missing_as_empty=plan.missing_as_empty, hint=hint)
    for portion in normalised(pairs, plan.normalizer, plan.language):
        tally.add(portion)
        held += portion if asked else ()
        done += len(portion)
        if on_done:
            on_done(done)
    texts = [pair.reference for pair in held], [pair.hypothesis for pair in held]
    return ScoreReport(
        metrics,
        tally.counts(),
        plan.normalizer,
        plan.language,
        refs.form,
        hyps.name,
        done,
        {name: translation_score(name, *texts) for name in asked},
        Groups(plan.by, *tally.groups()) if plan.by else None,
        tally.places() if plan.places else None,
        tally.worst,
    )


def _hint(refs: Source, form: str | None) -> str:
    guessed = refs.form == "ids" and form is None
    return f" ({refs.name} was read as `id text`; form 'lines' matches lines by number)" if guessed else ""


def _after(on_done: OnDone, before: int, total: int) -> Callable[[float], None]:
    return lambda done: on_done(before + done, total)
