"""Transcripts to files: plain text and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from asr.errors import ConfigError
from asr.files import write_atomically
from asr.recognizer import Failure, Transcript


def as_txt(transcript: Transcript) -> str:
    """The text and a line end."""
    return transcript.text + "\n"


def as_json(transcript: Transcript) -> str:
    """All fields as one line of JSON."""
    fields = asdict(transcript)
    fields["alternatives"] = [{"text": text, "score": score} for text, score in transcript.alternatives]
    return json.dumps(fields, ensure_ascii=False) + "\n"


WRITERS: dict[str, Callable[[Transcript], str]] = {"txt": as_txt, "json": as_json}


def write_transcripts(
    results: Sequence[Transcript | Failure], formats: Sequence[str], folder: Path | None, out: TextIO
) -> None:
    """Write every transcript in every format: to `folder`/NAME.FORMAT, or to `out` where no folder is given.

    Failures are passed over.  Inputs of the same name get a number, so that no text is lost.
    """
    for name in formats:
        if name not in WRITERS:
            raise ConfigError(f"--format {name}: known are {', '.join(WRITERS)}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = {}
    for result in results:
        if isinstance(result, Failure):
            continue
        stem = Path(result.id).stem
        taken[stem] = taken.get(stem, 0) + 1
        number = f"-{taken[stem]}" if taken[stem] > 1 else ""
        for name in formats:
            text = WRITERS[name](result)
            if folder is None:
                several = name == "txt" and len(results) > 1
                out.write(f"{result.id}\t{text}" if several else text)
                continue
            with write_atomically(folder / f"{stem}{number}.{name}") as temporary:
                temporary.write_text(text, encoding="utf-8")
