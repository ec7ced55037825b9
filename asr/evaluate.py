"""Decode a manifest and score it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.data.cuts import language_of, read_cuts, text_of
from asr.errors import DataError
from asr.files import make_folder, write_atomically
from asr.recognizer import OnDone, Recognizer
from asr.recognizer.cuts import cut_source
from asr.scoring import ScoreReport, score_texts
from asr.transcript import Failure


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
    batch_s: float | None = None,
    on_done: OnDone | None = None,
) -> Evaluation:
    """Decode the cuts of a manifest, write hyp.jsonl into `output`, and score them.

    normalizer: for both sides; default: the one that the model was trained with.  language: only the cuts in it.
    batch_s: as for Recognizer.transcribe_sources.
    Raises DataError, one line, for a manifest that cannot be used or a cut whose audio cannot be read.
    """
    cuts = {cut.id: cut for cut in read_cuts(manifest) if language is None or language_of(cut) == language}
    if not cuts:
        raise DataError(f"{manifest}: no cuts in language {language!r}")
    references = {id: text_of(cut) for id, cut in cuts.items()}
    scoring: dict[str, Any] = {
        "normalizer": normalizer or recognizer.config.normalizer,
        "languages": {id: language_of(cut) for id, cut in cuts.items()},
    }
    # A normaliser that is unknown, or cannot treat a reference, shows here and not after hours of decoding.
    score_texts(references, references, **scoring)
    make_folder(output)
    hypotheses: dict[str, str] = {}
    began = time.monotonic()
    for result in recognizer.transcribe_sources(
        [cut_source(cut, recognizer.rate) for cut in cuts.values()],
        batch_s=batch_s,
        on_done=on_done,
    ):
        if isinstance(result, Failure):
            raise DataError(f"{manifest}: cut {result.id!r} cannot be read: {result.reason}")
        hypotheses[result.id] = result.text
    wall_s = time.monotonic() - began
    path = output / "hyp.jsonl"
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as f:
        for id, text in hypotheses.items():
            row = {"id": id, "text": text, "reference": references[id], "language": language_of(cuts[id])}
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
    report = score_texts(references, hypotheses, **scoring)
    return Evaluation(report, sum(cut.duration for cut in cuts.values()), wall_s, path)
