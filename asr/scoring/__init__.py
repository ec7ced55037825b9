"""Score recognised texts against references: counts, rates, significance and the worst utterances."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr.errors import ConfigError
from asr.files import count_lines
from asr.progress import OnDone
from asr.scoring.breakdown import Confusions, by_length, in_quarters
from asr.scoring.columns import Columns
from asr.scoring.compare import Comparison, check_alike
from asr.scoring.findings import Watcher
from asr.scoring.given import Texts, open_given
from asr.scoring.listed import Listed
from asr.scoring.nbest import NBest
from asr.scoring.normalising import normalised
from asr.scoring.pairs import Pair, open_pair, paired
from asr.scoring.rates import MEASURES, check_metrics, points, spelled
from asr.scoring.report import ScoreReport
from asr.scoring.rows import PathLike, Source
from asr.scoring.silence import Silence
from asr.scoring.tally import Tally
from asr.scoring.tcwer import COLLAR_S
from asr.scoring.translation import MORE_IS_BETTER, TRANSLATION, TranslationScore, translation_score
from asr.scoring.unspaced import Unspaced
from asr.tasks import into, language_code
from asr.text import Normalizer, open_normalizer

__all__ = [
    "METRICS",
    "MORE_IS_BETTER",
    "RATES",
    "Columns",
    "Comparison",
    "ScoreOptions",
    "ScoreReport",
    "compare",
    "metrics_of",
    "points",
    "score",
    "score_sources",
    "spelled",
    "texts_of",
]

RATES = ("wer", "cer")
METRICS = (*MEASURES, *TRANSLATION)
COLUMNS = (Columns.of_references(), Columns.of_hypotheses())


def metrics_of(task: str) -> tuple[str, ...]:
    """Return the default metrics of a task."""
    return RATES if into(task) is None else ("bleu", "chrf")


@dataclass(frozen=True)
class ScoreOptions:
    """What to compute and how to read files; each field has the meaning of the argument of `score` with that name."""

    metrics: Sequence[str] = RATES
    normalizer: str = "none"
    language: str | None = None
    form: Literal["ids", "lines"] | None = None
    columns: tuple[Columns, Columns] = COLUMNS
    missing_as_empty: bool = False
    ignore_extra: bool = False
    by: str | None = None
    worst: int = 5
    breakdown: Sequence[str] = ()
    confusions: int = 0
    words: PathLike | None = None
    collar_s: float = COLLAR_S

    def __post_init__(self) -> None:
        if not 0 <= self.collar_s < math.inf:
            raise ConfigError(f"a collar of {self.collar_s} s: give a finite number from 0")
        if self.language is not None:
            object.__setattr__(self, "language", language_code(self.language))  # the class is frozen


def score(
    reference: Texts,
    hypothesis: Texts,
    *,
    metrics: str | Sequence[str] = RATES,
    normalizer: str = "none",
    language: str | None = None,
    form: Literal["ids", "lines"] | None = None,
    columns: tuple[Columns, Columns] = COLUMNS,
    missing_as_empty: bool = False,
    ignore_extra: bool = False,
    by: str | None = None,
    worst: int = 5,
    breakdown: str | Sequence[str] = (),
    confusions: int = 0,
    words: PathLike | None = None,
    collar_s: float = COLLAR_S,
) -> ScoreReport:
    """Score recognised texts against references.

    reference, hypothesis: each a file, whose suffix tells its format (docs/scoring.md), a list of texts, matched by
    number, or a dict from id to text.  metrics: one or more of wer, cer, mer, wil, mixed, tcwer, bleu, chrf and ter.
    normalizer: applied to both sides: a name such as "basic" or "english", or a file of rules.  language: code or
    English name, for utterances whose reference has none; None: that of the hypothesis.  form: of plain text, "ids"
    (`id text`) or "lines" (one text a line); None: guess it.  columns: names of table columns and JSON keys, in the
    references and in the hypotheses.
    missing_as_empty: treat texts missing from the hypotheses as empty instead of raising an error.  ignore_extra: skip
    hypotheses without a reference instead of raising an error.  by: a field of the references (a column, a key, a
    cut's speaker); the bootstrap draws the utterances of each of its values as one block.  worst: how many of the worst
    utterances to keep.  breakdown: fields of the references; each of their groups gets scores of its own; "length" is
    the number of words.  confusions: how many of the most frequent errors of each kind to show.  words: a file with one
    word or phrase a line, to be scored separately.  collar_s: of tcWER, which scores STM and CTM by recording.
    BLEU, chrF, TER, and tcWER of STM and CTM, hold all texts in memory at once.
    Raises DataError and ConfigError, with one line of text, for input that cannot be read or matched and for unknown
    names.

    >>> score(["hello world"], ["hello word"]).rates["wer"].errors
    1
    """
    options = ScoreOptions(
        metrics=[metrics] if isinstance(metrics, str) else metrics,
        normalizer=normalizer,
        language=language,
        form=form,
        columns=columns,
        missing_as_empty=missing_as_empty,
        ignore_extra=ignore_extra,
        by=by,
        worst=worst,
        breakdown=[breakdown] if isinstance(breakdown, str) else breakdown,
        confusions=confusions,
        words=words,
        collar_s=collar_s,
    )
    recordings = "tcwer" in options.metrics
    sources = open_given(reference, hypothesis, form=form, columns=columns, recordings=recordings)
    return score_sources(*sources, options)


def compare(
    reference: PathLike, hypotheses: Sequence[PathLike], options: ScoreOptions, on_done: OnDone | None = None
) -> Comparison:
    """Score several hypothesis files against one reference and test every pair of them; keeps only counts in memory.

    The suffix tells a file's format; `.gz` may follow it:

    - `.jsonl`: one object a line, with an id, a text and optionally "language", or a lhotse cut (the texts of its
      supervisions, joined in order of time).
    - `.json`: the same; a single line beside plain text without ids is compared with the whole of that text.
    - `.csv`, `.tsv`: the first line names the columns; `asr.scoring.columns` has the usual names.
    - `.trn`, `.stm`, `.ctm`: the formats of NIST's sclite. Beside an STM, the words of a CTM are assigned to its
      segments by file, channel and time; beside anything else they make one text for each file.
    - `.srt`, `.vtt`, the `.tsv` of `asr transcribe`: cues or segments are joined, and so are the other file's texts.
    - Everything else is plain text: "ids" (`id text`) or "lines" (one text a line, matched by number). If `form` does
      not say which, the reference decides for both files: "ids" if the other file has ids of its own, or if the first
      words of its lines are all different and each contains a digit, an underscore or a slash.

    on_done: called with the number of utterances done and an estimate of their total.
    Raises DataError, with file and line, for input that cannot be read, and for ids that are missing (unless
    `missing_as_empty`), extra (unless `ignore_extra`) or duplicate; ConfigError for an unknown metric or normaliser.
    """
    places = "wer" in options.metrics and len(hypotheses) > 1
    lines = count_lines(Path(reference)) if on_done else 0
    reports = []
    for number, hypothesis in enumerate(hypotheses):
        refs, hyps = _open(reference, hypothesis, options)
        told = on_done and _after(on_done, number * lines, len(hypotheses) * lines)
        reports.append(score_sources(refs, hyps, options, places=places, on_done=told))
    check_alike(reference, reports)
    return Comparison(tuple(reports))


def texts_of(
    reference: PathLike, hypothesis: PathLike, options: ScoreOptions, wanted: Container[int]
) -> Iterator[Pair]:
    """Read the files once more and yield, in file order, the normalised pairs with the wanted utterance numbers."""
    refs, hyps = _open(reference, hypothesis, options)
    pairs = (pair for pair in _paired(refs, hyps, options) if pair.number in wanted)
    for portion in normalised(pairs, open_normalizer(options.normalizer), options.language):
        yield from portion


def score_sources(
    refs: Source,
    hyps: Source,
    options: ScoreOptions,
    *,
    places: bool = False,
    on_done: Callable[[float], None] | None = None,
) -> ScoreReport:
    """Score rows from any source.  places: keep the positions of errors, for comparisons."""
    metrics = check_metrics(options.metrics, METRICS)
    normalizer = open_normalizer(options.normalizer)
    tally = _tally(metrics, options, normalizer, places)
    translated = [name for name in metrics if name in TRANSLATION]
    held: list[Pair] = []
    done = 0
    unspaced = Unspaced()
    for portion in normalised(_paired(refs, hyps, options), normalizer, options.language):
        tally.add(portion)
        unspaced.look_at(portion)
        held += portion if translated else ()
        done += len(portion)
        if on_done:
            on_done(done)
    counts, translation = tally.counts(), _translation(translated, held)
    unspaced.warn(counts.keys(), translation)
    return ScoreReport(
        metrics=metrics,
        counts=counts,
        normalizer=normalizer.name,
        language=options.language,
        form=refs.form,
        name=hyps.name,
        utterances=done,
        translation=translation,
        groups=tally.groups(options.by) if options.by else None,
        places=tally.places() if places else None,
        worst_utterances=tally.worst,
        breakdowns=tuple(
            by_length(counts["word"]) if field == "length" else in_quarters(tally.groups(field))
            for field in options.breakdown
        ),
        confusions=tally.confusions,
        most_confusions=options.confusions,
        findings=tally.findings(counts, options.by),
        collar_s=options.collar_s,
        references=tally.references,
    )


def _open(reference: PathLike, hypothesis: PathLike, options: ScoreOptions) -> tuple[Source, Source]:
    recordings = "tcwer" in options.metrics
    return open_pair(reference, hypothesis, form=options.form, columns=options.columns, recordings=recordings)


def _paired(refs: Source, hyps: Source, options: ScoreOptions) -> Iterator[Pair]:
    guessed = refs.form == "ids" and options.form is None
    hint = f" ({refs.name} was read as `id text`; form 'lines' matches lines by number)" if guessed else ""
    timed = "tcwer" in options.metrics
    lacking = {"missing_as_empty": options.missing_as_empty, "ignore_extra": options.ignore_extra}
    return paired(refs, hyps, **lacking, language=options.language, timed=timed, hint=hint)


def _tally(metrics: Sequence[str], options: ScoreOptions, normalizer: Normalizer, places: bool) -> Tally:
    units = list(dict.fromkeys(MEASURES[name].unit for name in metrics if name in MEASURES))
    watchers: list[Watcher] = [Silence()]
    if "wer" in metrics:
        watchers.append(NBest())
    if options.words is not None:
        watchers.append(Listed(options.words, normalizer, options.language))
    if ("length" in options.breakdown or options.words is not None) and "word" not in units:
        units.append("word")
    fields = {*options.breakdown, *([options.by] if options.by else ())} - {"length"}
    confusions = Confusions() if options.confusions else None
    return Tally(
        units,
        worst=options.worst,
        fields=sorted(fields),
        places=places,
        confusions=confusions,
        watchers=watchers,
        collar_s=options.collar_s,
    )


def _translation(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, TranslationScore]:
    """Score translations in the order of the references, like all counts."""
    ordered = sorted(pairs, key=lambda pair: pair.number)
    texts = [pair.reference for pair in ordered], [pair.hypothesis for pair in ordered]
    languages = {pair.language for pair in ordered}
    return {name: translation_score(name, *texts, languages) for name in names}


def _after(on_done: OnDone, before: int, total: int) -> Callable[[float], None]:
    return lambda done: on_done(before + done, total)
