"""Decode a manifest and score it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.data.cuts import language_of, load_audio, read_cuts, text_of
from asr.errors import DataError
from asr.files import write_atomically
from asr.recognizer import Failure, Recognizer
from asr.score import ScoreReport, score_texts


@dataclass(frozen=True)
class Evaluation:
    """Scores of a manifest, with the time that decoding took (reading of audio included, model loading not)."""

    report: ScoreReport
    audio_s: float
    wall_s: float
    hypotheses: Path

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            **self.report.as_dict(),
            "audio_s": round(self.audio_s, 2),
            "wall_s": round(self.wall_s, 2),
            "times_real_time": round(self.audio_s / self.wall_s, 2),
        }


def evaluate(
    recognizer: Recognizer,
    manifest: Path,
    output: Path,
    *,
    normalizer: str | None = None,
    language: str | None = None,
    batch_s: float = 240.0,
    on_done: Callable[[float], None] | None = None,
) -> Evaluation:
    """Decode the cuts of a manifest, write hyp.jsonl into `output`, and score them.

    normalizer: for both sides; default: the one that the model was trained with.
    """
    cuts = {cut.id: cut for cut in read_cuts(manifest) if language is None or language_of(cut) == language}
    if not cuts:
        raise DataError(f"{manifest}: no cuts in language {language}")
    rate = recognizer.model.front_end.sample_rate_hz
    began = time.monotonic()
    results = recognizer.transcribe_waveforms(
        ((id, lambda cut=cut: load_audio(cut, rate)) for id, cut in cuts.items()),  # type: ignore[misc]
        language=lambda id: language_of(cuts[id]),
        batch_s=batch_s,
        on_done=on_done,
    )
    wall_s = time.monotonic() - began
    failures = [r for r in results if isinstance(r, Failure)]
    if failures:
        raise DataError(f"{len(failures)} of {len(results)} cuts cannot be read, the first: {failures[0].reason}")
    hypotheses = {r.id: r.text for r in results if not isinstance(r, Failure)}
    references = {id: text_of(cut) for id, cut in cuts.items()}
    report = score_texts(
        references,
        hypotheses,
        normalizer=normalizer or recognizer.config.normalizer,
        languages={id: language_of(cut) for id, cut in cuts.items()},
    )
    output.mkdir(parents=True, exist_ok=True)
    path = output / "hyp.jsonl"
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as f:
        for id, text in hypotheses.items():
            row = {"id": id, "text": text, "reference": references[id], "language": language_of(cuts[id])}
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
    return Evaluation(report, sum(cut.duration for cut in cuts.values()), wall_s, path)
