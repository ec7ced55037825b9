"""Evaluation of a model: decoding a manifest and scoring the texts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lhotse.cut import Cut

from asr.config import AugmentConfig, validate
from asr.data.augment import NoiseMixer
from asr.data.cuts import Chosen, Dropped, ends_early, overrun, read_cuts, reason_about, without_language
from asr.data.tasks import for_task, text_language_of
from asr.errors import ConfigError, DataError, printable
from asr.files import Place, make_folder, write_whole
from asr.progress import OnDone
from asr.recognizer import Recognizer
from asr.recognizer.cuts import cut_source
from asr.scoring import ScoreOptions, ScoreReport, metrics_of, score_sources
from asr.scoring.formats import of_cut
from asr.scoring.recognised import EVALUATION, HYPOTHESES, Recognised, sources, write_recognised
from asr.scoring.rows import Row
from asr.tasks import TRANSCRIBE, chosen
from asr.transcript import Failure, Transcript


@dataclass(frozen=True)
class Evaluation:
    """Scores of a manifest, and the time that decoding took, including the reading of audio but not of the model.

    audio_s: seconds of decoded audio.  left_out: cuts that cannot be scored, because they lack the translation or the
    language, or are longer than their recording.  failed: cuts whose audio cannot be read or ends too early.
    """

    report: ScoreReport
    audio_s: float
    wall_s: float
    hypotheses: Path
    left_out: tuple[Dropped, ...] = ()
    failed: tuple[Dropped, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {
            **self.report.as_dict(),
            "audio_s": round(self.audio_s, 2),
            "wall_s": round(self.wall_s, 2),
            "times_real_time": round(self.audio_s / self.wall_s, 2),
            "left_out": {dropped.id: dropped.reason for dropped in self.left_out},
            "failed": {dropped.id: dropped.reason for dropped in self.failed},
        }


def evaluate(
    recognizer: Recognizer,
    manifest: Place,
    output: Path,
    *,
    normalizer: str | None = None,
    language: str | None = None,
    task: str | None = None,
    prompt: str | None = None,
    options: ScoreOptions | None = None,
    settings: Mapping[str, Any] | None = None,
    noise: NoiseMixer | None = None,
    batch_s: float | None = None,
    on_done: OnDone | None = None,
) -> Evaluation:
    """Decode the cuts of a manifest, write hyp.jsonl and evaluation.jsonl into `output`, and score them.

    normalizer: for both sides; default: the one that the model was trained with.  language: use only cuts in this
    language.  task, prompt, batch_s: as for Recognizer.transcribe_sources; a translation is scored against the
    translations in the cuts, and cuts without one are left out.  options: what to compute; default: the metrics of the
    task.  settings: further settings to record in evaluation.jsonl, for comparisons.  noise: mixed into each cut.
    Raises DataError, one line, for a manifest that cannot be used or of which no audio can be read, ConfigError for
    metrics that need word times.
    """
    task = chosen(task, recognizer.tokenizer.tasks)
    options = options or ScoreOptions(metrics=metrics_of(task))
    options = replace(options, normalizer=normalizer or recognizer.config.normalizer, language=None)
    if "tcwer" in options.metrics:
        raise ConfigError("tcwer needs the times of words: asr transcribe MANIFEST --words, then asr score")
    scored = scorable(manifest, task, language, options)
    make_folder(output)
    began = time.monotonic()
    results = recognizer.transcribe_sources(
        [cut_source(cut, recognizer.rate, noise) for cut in scored.cuts.values()],
        task=task,
        prompt=prompt,
        batch_s=batch_s,
        on_done=on_done,
    )
    recognised, failed, heard_s = _to_score(results, scored, task)
    wall_s = time.monotonic() - began
    if not recognised:
        raise DataError(f"{manifest}: no cut can be read; {printable(failed[0].id)}: {failed[0].reason}")
    write_recognised(output / HYPOTHESES, recognised)
    report = score_sources(*sources(recognised), options)
    found = Evaluation(report, heard_s, wall_s, output / HYPOTHESES, scored.left_out, tuple(failed))
    told = {"manifest": str(manifest), "only_language": language, "task": task, "prompt": prompt, **(settings or {})}
    told["decode"] = recognizer.options.model_dump(mode="json")
    # .jsonl, though it is one line: in a model folder, files that end with .json belong to the model.
    write_whole(output / EVALUATION, json.dumps({"settings": told, **found.as_dict()}) + "\n")
    return found


def _to_score(
    results: Iterable[Transcript | Failure], scored: Scorable, task: str
) -> tuple[list[Recognised], list[Dropped], float]:
    """Return the texts to score, the cuts whose audio cannot be read, and the seconds of audio of the texts."""
    recognised: list[Recognised] = []
    failed: list[Dropped] = []
    heard_s = 0.0
    for result in results:
        if (problem := _problem(result, scored.cuts[result.id])) is not None:
            failed.append(Dropped(result.id, problem))
        elif isinstance(result, Transcript):
            recognised.append(Recognised(scored.references[result.id], result.text, result.alternatives, task))
            heard_s += result.duration_s
    return recognised, failed, heard_s


def _problem(result: Transcript | Failure, cut: Cut) -> str | None:
    """Return why the result for a cut is not scored, None if it is."""
    if isinstance(result, Failure):
        return reason_about(cut, result.reason)
    return ends_early(cut, result.duration_s)


class Scorable(NamedTuple):
    """Cuts and the references that they are scored against, both by id, and the cuts that are left out."""

    cuts: Mapping[str, Cut]
    references: Mapping[str, Row]
    left_out: tuple[Dropped, ...]


def scorable(manifest: Place, task: str, language: str | None, options: ScoreOptions) -> Scorable:
    """Return the cuts of a manifest, or of one language in it, that can be scored for a task.

    Raises DataError for a manifest that cannot be used, and whatever scoring raises for the options and references, so
    that it fails now rather than after hours of decoding.
    """
    in_language = Chosen(None if language is None else [language])
    found = read_cuts(manifest)
    cuts = {cut.id: cut for cut in found if in_language(cut)}
    if not cuts:
        raise in_language.none(manifest, "give another --language, or none", "leave out --language")
    references: dict[str, Row] = {}
    lacking = [without_language(cut) for cut in found if cut.id not in cuts]
    left_out = [dropped for dropped in lacking if dropped is not None]
    for cut in cuts.values():
        try:
            if (problem := overrun(cut)) is not None:
                raise DataError(problem)
            references[cut.id] = reference_of(cut, task)
        except DataError as e:
            left_out.append(Dropped(cut.id, str(e)))
    if not references:
        id, reason = next(dropped for dropped in left_out if dropped.id in cuts)
        raise DataError(f"{manifest}: nothing to score for task {task}: cut {printable(id)}: {reason}")
    score_sources(*sources([Recognised(ref, ref.text) for ref in references.values()]), options)
    return Scorable({id: cuts[id] for id in references}, references, tuple(left_out))


def noisy(folder: Path, snr_db: float, sample_rate_hz: int) -> NoiseMixer:
    """Return a mixer of noise or music from a folder; a cut always gets the same stretch of the same file.

    Raises DataError if the folder has no audio, ConfigError if `snr_db` is not a valid ratio.
    """
    mixed = {"noise": folder, "noise_probability": 1.0, "noise_snr_db": (snr_db, snr_db)}
    return NoiseMixer(validate(AugmentConfig, mixed, "noise"), sample_rate_hz, 0)


def reference_of(cut: Cut, task: str = TRANSCRIBE) -> Row:
    """Return the row that `asr score` would read from the cut's line, with the language that the cut is decoded in.

    Raises DataError, without the cut's id, if the cut has no text for the task.
    """
    cut = for_task(cut, task)
    spoken = [supervision.to_dict() for supervision in cut.supervisions]
    row = {"id": cut.id, "duration": cut.duration, "supervisions": spoken, "custom": getattr(cut, "custom", None)}
    return of_cut(row)._replace(language=text_language_of(cut))
