"""Decode a manifest and score it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lhotse.cut import Cut

from asr.config import AugmentConfig, validate
from asr.data.augment import NoiseMixer
from asr.data.cuts import SLACK_S, Chosen, Dropped, overrun, read_cuts, without_language
from asr.data.tasks import for_task, text_language_of
from asr.errors import ConfigError, DataError, printable
from asr.files import Place, make_folder, write_atomically
from asr.recognizer import OnDone, Recognizer
from asr.recognizer.cuts import cut_source
from asr.scoring import ScoreOptions, ScoreReport, metrics_of, score_sources
from asr.scoring.formats import of_cut
from asr.scoring.recognised import EVALUATION, HYPOTHESES, Recognised, sources, write_recognised
from asr.scoring.rows import Row
from asr.tasks import TRANSCRIBE, chosen
from asr.transcript import Failure, Transcript


@dataclass(frozen=True)
class Evaluation:
    """Scores of a manifest, with the time that decoding took (reading of audio included, model loading not).

    audio_s: what was heard.  failed: what is not scored either, for its audio cannot be read, or ends too early.
    left_out: what cannot be scored, for it lacks the translation or the language, or is longer than its
    recording.
    """

    report: ScoreReport
    audio_s: float
    wall_s: float
    hypotheses: Path
    left_out: tuple[Dropped, ...] = ()
    failed: tuple[Dropped, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
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
    options: ScoreOptions | None = None,
    settings: Mapping[str, Any] | None = None,
    noise: NoiseMixer | None = None,
    batch_s: float | None = None,
    on_done: OnDone | None = None,
) -> Evaluation:
    """Decode the cuts of a manifest, write hyp.jsonl and evaluation.jsonl into `output`, and score them.

    normalizer: for both sides; default: the one that the model was trained with.  language: only the cuts in it.  task:
    as for Recognizer.transcribe_sources; a translation is scored against those that the cuts carry, and cuts that lack
    it are left out.  options: what to
    compute; default: what measures the task.  settings: what else is to stand in evaluation.jsonl, for
    comparisons.  noise: is mixed into each cut.  batch_s: as for Recognizer.transcribe_sources.
    Raises DataError, one line, for a manifest that cannot be used, or of which no audio can be read.
    """
    task = chosen(task, recognizer.tokenizer.tasks)
    options = options or ScoreOptions(metrics=metrics_of(task))
    options = replace(options, normalizer=normalizer or recognizer.config.normalizer, language=None)
    if "tcwer" in options.metrics:
        raise ConfigError("tcwer needs the times of words: asr transcribe MANIFEST --words, then asr score")
    cuts, references, left_out = scorable(manifest, task, language, options)
    make_folder(output)
    recognised: list[Recognised] = []
    failed: list[Dropped] = []
    heard_s = 0.0
    began = time.monotonic()
    for result in recognizer.transcribe_sources(
        [cut_source(cut, recognizer.rate, noise) for cut in cuts.values()],
        task=task,
        batch_s=batch_s,
        on_done=on_done,
    ):
        if (problem := _problem(result, cuts[result.id])) is not None:
            failed.append(Dropped(result.id, problem))
        elif isinstance(result, Transcript):
            recognised.append(Recognised(references[result.id], result.text, result.alternatives, task))
            heard_s += result.duration_s
    if not recognised:
        raise DataError(f"{manifest}: no cut can be read; {printable(failed[0].id)}: {failed[0].reason}")
    wall_s = time.monotonic() - began
    write_recognised(output / HYPOTHESES, recognised)
    report = score_sources(*sources(recognised), options)
    found = Evaluation(report, heard_s, wall_s, output / HYPOTHESES, left_out, tuple(failed))
    told = {
        "manifest": str(manifest),
        "only_language": language,
        "task": task,
        **(settings or {}),
        "decode": recognizer.options.model_dump(mode="json"),
    }
    # .jsonl, though of one line: what ends with .json belongs to the model, if this is its folder.
    with write_atomically(output / EVALUATION) as temporary:
        temporary.write_text(json.dumps({"settings": told, **found.as_dict()}) + "\n", encoding="utf-8")
    return found


def _problem(result: Transcript | Failure, cut: Cut) -> str | None:
    """Why what was made of a cut is not scored; None if it is."""
    if isinstance(result, Failure):
        return result.reason.removeprefix(f"cut {printable(cut.id)}: ")
    if result.duration_s < cut.duration - SLACK_S:
        return f"its audio ends after {result.duration_s:.2f} of {cut.duration:.2f} s"
    return None


class Scorable(NamedTuple):
    """Cuts by id, what each of them is scored against, and what is left out, and why."""

    cuts: Mapping[str, Cut]
    references: Mapping[str, Row]
    left_out: tuple[Dropped, ...]


def scorable(manifest: Place, task: str, language: str | None, options: ScoreOptions) -> Scorable:
    """What of a manifest, or of one language in it, can be scored for a task.

    Raises DataError for a manifest that cannot be used, and what scoring raises of the options and the references: now,
    and not after hours of decoding.
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
    """What mixes noise or music from a folder into each cut: for a cut the same stretch of the same file each time.

    Raises DataError if there is none, ConfigError for a ratio that is none.
    """
    mixed = {"noise": folder, "noise_probability": 1.0, "noise_snr_db": (snr_db, snr_db)}
    return NoiseMixer(validate(AugmentConfig, mixed, "noise"), sample_rate_hz, 0)


def reference_of(cut: Cut, task: str = TRANSCRIBE) -> Row:
    """The same row that `asr score` reads from the cut's line, but of two languages the one that it is decoded in.

    task: what is to be made of the speech.  Raises DataError, without its id, if the cut has no such text.
    """
    cut = for_task(cut, task)
    spoken = [supervision.to_dict() for supervision in cut.supervisions]
    row = {"id": cut.id, "duration": cut.duration, "supervisions": spoken, "custom": getattr(cut, "custom", None)}
    return of_cut(row)._replace(language=text_language_of(cut))
