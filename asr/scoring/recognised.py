"""hyp.jsonl: for each utterance one line with the recognised text and the reference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.errors import DataError
from asr.files import filled_lines, json_writer
from asr.scoring.rows import Row, Source
from asr.tasks import TRANSCRIBE

HYPOTHESES = "hyp.jsonl"
EVALUATION = "evaluation.jsonl"  # how the hypotheses were decoded, and their scores
WRITES_ONE = "asr evaluate MANIFEST --model MODEL --out FOLDER writes one"


@dataclass(frozen=True)
class Recognised:
    """A reference, the recognised text, and the n-best texts with their scores if there are several.

    task: what the model was asked to do, transcribe or translate.
    """

    reference: Row
    text: str
    alternatives: Sequence[tuple[str, float]] = ()
    task: str = TRANSCRIBE

    @property
    def row(self) -> dict[str, Any]:
        """The values of its line in hyp.jsonl."""
        ref = self.reference
        row: dict[str, Any] = {"id": ref.id, "text": self.text, "reference": ref.text, "language": ref.language}
        if self.task != TRANSCRIBE:
            row["task"] = self.task
        if len(self.alternatives) > 1:
            row["alternatives"] = [{"text": text, "score": score} for text, score in self.alternatives]
        return row


def hypotheses_in(folder: Path) -> Path:
    """Return the path of the hyp.jsonl in a run's folder; raise DataError if there is none."""
    places = folder / HYPOTHESES, folder / "model" / HYPOTHESES
    if found := next((place for place in places if place.is_file()), None):
        return found
    raise DataError(f"{folder}: has no {HYPOTHESES}; {WRITES_ONE}")


def write_recognised(path: Path, recognised: Iterable[Recognised]) -> None:
    """Write hyp.jsonl atomically."""
    with json_writer(path) as write:
        for each in recognised:
            write(each.row)


def read_recognised(path: Path) -> list[Recognised]:
    """Read a file written by `write_recognised`, without the n-best texts."""
    rows = [json.loads(line) for _, line in filled_lines(path)]
    return [
        Recognised(Row(row["id"], row["reference"], row["language"]), row["text"], task=row.get("task", TRANSCRIBE))
        for row in rows
    ]


def sources(recognised: Sequence[Recognised]) -> tuple[Source, Source]:
    """Return references and hypotheses as sources for `score_sources`."""
    refs = Source("the references", None, lambda: (each.reference for each in recognised))
    hyps = Source("the hypotheses", None, lambda: (Row(e.reference.id, e.text, None, e.row) for e in recognised))
    return refs, hyps
