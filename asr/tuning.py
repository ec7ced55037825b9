"""Tuning of search options on a manifest: each cut is encoded once and decoded with every setting.

Shapes: B windows, N samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lhotse.cut import Cut
from torch import Tensor

from asr.config import DecodeConfig
from asr.data.batch import pad_audio
from asr.data.cuts import Dropped, ends_early, language_of, reason_about
from asr.errors import AsrError, ConfigError, DataError, printable
from asr.evaluate import scorable
from asr.files import Place
from asr.progress import OnDone
from asr.recognizer import Recognizer
from asr.recognizer.batch import BatchDecoder
from asr.recognizer.budget import Budget
from asr.recognizer.cuts import waveform
from asr.recognizer.parallel import Workers
from asr.recognizer.searchers import options_with
from asr.scoring import MORE_IS_BETTER, ScoreOptions, ScoreReport, metrics_of, score_sources
from asr.scoring.recognised import Recognised, sources
from asr.tasks import chosen, into

TUNED = ("lm_weight", "ctc_weight", "length_bonus", "length_penalty", "phrase_bonus", "beam_size")
MOST_SETTINGS = 1000


@dataclass(frozen=True)
class Tried:
    """A setting of the search and its scores."""

    setting: Mapping[str, float]
    report: ScoreReport

    def as_dict(self) -> dict[str, Any]:
        """Return the setting and its scores as plain values."""
        return {"setting": dict(self.setting), **self.report.as_dict()}


@dataclass(frozen=True)
class Tuning:
    """All settings with their scores, in the order of the grid.

    left_out: cuts that cannot be scored (`scorable`), or whose audio cannot be read or ends too early.
    """

    tried: tuple[Tried, ...]
    left_out: tuple[Dropped, ...] = ()


def parse_grid(words: Sequence[str]) -> dict[str, list[float]]:
    """Parse options such as 'lm_weight=0,0.3'.  Raises ConfigError for one that has another form."""
    grid: dict[str, list[float]] = {}
    for word in words:
        name, _, values = word.partition("=")
        if name not in TUNED or name in grid:
            raise ConfigError(f"--grid {printable(word)}: give NAME=VALUES, NAME one of {', '.join(TUNED)}, each once")
        try:
            grid[name] = [float(value) for value in values.split(",")]
        except ValueError:
            raise ConfigError(f"--grid {printable(word)}: give numbers separated by commas after the =") from None
    return grid


def tune(
    recognizer: Recognizer,
    manifest: Place,
    grid: Mapping[str, Sequence[float]],
    *,
    normalizer: str | None = None,
    language: str | None = None,
    task: str | None = None,
    batch_s: float | None = None,
    on_done: OnDone | None = None,
) -> Tuning:
    """Decode the cuts of a manifest with every combination of the grid's values, and score each combination.

    The other arguments are those of `asr.evaluate.evaluate`.
    Raises ConfigError for a setting that does not fit the model or the options, DataError for a manifest that cannot
    be used, that has a cut longer than a window, or of which no audio can be read.
    """
    task = chosen(task, recognizer.tokenizer.tasks)
    if (count := math.prod(map(len, grid.values()))) > MOST_SETTINGS:
        raise ConfigError(f"--grid: {count:,} settings are too many; {MOST_SETTINGS:,} is the most")
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    _check(settings, task)
    decoder = recognizer.decoder_for(task)
    decoders = [decoder.varied(_options(decoder.options, setting)) for setting in settings]
    options = ScoreOptions(metrics=metrics_of(task), normalizer=normalizer or recognizer.config.normalizer)
    scored = scorable(manifest, task, language, options)
    references, cuts = list(scored.references.values()), list(scored.cuts.values())
    _fit_a_window(manifest, cuts, recognizer.window_s)
    heard: dict[int, Sequence[str]] = {}  # by cut, its text with each setting
    failed: list[Dropped] = []
    workers, done_s = Workers(recognizer.device), 0.0
    budget = Budget(max(decoder.footprint for decoder in decoders), recognizer.device, batch_s, workers.count)
    with workers:
        decode = partial(_decode, recognizer, decoders, cuts, task)

        def fitting(batch: Sequence[int]) -> list[Sequence[str] | Dropped]:
            return budget.fitting(batch, lambda i: cuts[i].duration, decode)

        for batch, found in workers.map(fitting, budget.batches([cut.duration for cut in cuts])):
            for i, of_cut in zip(batch, found, strict=True):
                if isinstance(of_cut, Dropped):
                    failed.append(of_cut)
                else:
                    heard[i] = of_cut
            done_s += sum(cuts[i].duration for i in batch)
            if on_done is not None:
                on_done(done_s, sum(cut.duration for cut in cuts))
    if not heard:
        raise DataError(f"{manifest}: no cut can be read; {printable(failed[0].id)}: {failed[0].reason}")
    tried = []
    for s, setting in enumerate(settings):
        recognised = [Recognised(references[i], texts[s], task=task) for i, texts in sorted(heard.items())]
        tried.append(Tried(setting, score_sources(*sources(recognised), options)))
    return Tuning(tuple(tried), (*scored.left_out, *failed))


def _fit_a_window(manifest: Place, cuts: Sequence[Cut], window_s: float) -> None:
    for cut in cuts:
        if cut.duration > window_s:
            what = f"cut {cut.id!r} takes {cut.duration:.1f} s, more than a window of {window_s:g} s"
            raise DataError(printable(f"{manifest}: {what}; tune on shorter ones"))


def best_of(tried: Sequence[Tried], metric: str) -> Tried:
    """Return the setting that is best by a metric, the first of equal ones."""
    sign = -1 if metric in MORE_IS_BETTER else 1
    return min(tried, key=lambda t: sign * t.report.values[metric])


def _check(settings: Sequence[Mapping[str, float]], task: str) -> None:
    if "ctc_weight" in settings[0] and into(task) is not None:
        raise ConfigError(f"--grid ctc_weight=...: CTC, which spells what is said, has no part in {task}")


def _options(options: DecodeConfig, setting: Mapping[str, float]) -> DecodeConfig:
    return options_with(options, setting, "--grid")


def _decode(
    recognizer: Recognizer, decoders: Sequence[BatchDecoder], cuts: Sequence[Cut], task: str, batch: Sequence[int]
) -> list[Sequence[str] | Dropped]:
    """Return the texts of each cut of a batch, one from each decoder, or why the cut cannot be decoded."""
    loaded = [_loaded(cuts[i], recognizer.rate) for i in batch]
    heard = {i: audio_N for i, audio_N in zip(batch, loaded, strict=True) if isinstance(audio_N, Tensor)}
    if not heard:
        return [each for each in loaded if isinstance(each, Dropped)]
    audio_BN, len_B = pad_audio(list(heard.values()))
    audio_BN, len_B = audio_BN.to(recognizer.device), len_B.to(recognizer.device)
    known = recognizer.tokenizer.languages
    languages = [language_of(cuts[i]) if known else None for i in heard]
    memory, guards = recognizer.decoder.encode(audio_BN, len_B), recognizer.options.guards.enabled
    found = [decoder(audio_BN, len_B, languages, task=task, guards=guards, memory=memory) for decoder in decoders]
    texts = [[decoder.text(f.hypotheses[0]) for f in each] for decoder, each in zip(decoders, found, strict=True)]
    of_cut = zip(*texts, strict=True)
    return [each if isinstance(each, Dropped) else next(of_cut) for each in loaded]


def _loaded(cut: Cut, rate: int) -> Tensor | Dropped:
    """Return the samples of a cut, (N,), or why it is not scored: the checks of `evaluate`."""
    try:
        audio_N = waveform(cut, rate)
    except AsrError as e:
        return Dropped(cut.id, reason_about(cut, e))
    problem = ends_early(cut, len(audio_N) / rate)
    return audio_N if problem is None else Dropped(cut.id, problem)
