"""Transcripts to files: plain text and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from asr.errors import ConfigError, printable
from asr.files import make_folder, write_atomically
from asr.transcript import Transcript


def as_txt(transcript: Transcript) -> str:
    """The text and a line end."""
    return transcript.text + "\n"


def as_json(transcript: Transcript) -> str:
    """All fields as one line of JSON."""
    fields = asdict(transcript)
    fields["alternatives"] = [{"text": text, "score": score} for text, score in transcript.alternatives]
    line = json.dumps(fields, ensure_ascii=False)
    # What is no text in a file's name stands as a lone surrogate, for which JSON's escape looks like Python's.
    return line.encode("utf-8", "backslashreplace").decode() + "\n"


WRITERS: dict[str, Callable[[Transcript], str]] = {"txt": as_txt, "json": as_json}


class TranscriptWriter:
    """Writes each transcript in every format: to `folder`/NAME.FORMAT, or to standard output without a folder.

    named: plain text on standard output begins with the recording's id and a tab.  Recordings of the same name get a
    number, so that no text is lost.  Raises ConfigError for an unknown format; the folder is made at once, so that
    neither shows only when the work is done.
    """

    def __init__(self, formats: Sequence[str], folder: Path | None = None, *, named: bool = False) -> None:
        for name in formats:
            if name not in WRITERS:
                raise ConfigError(f"unknown format {name!r}: known are {', '.join(WRITERS)}")
        if not formats:
            raise ConfigError(f"no format is given: known are {', '.join(WRITERS)}")
        if folder is not None:
            make_folder(folder)
        self.formats, self.folder, self.named = formats, folder, named
        self._taken: set[str] = set()

    def write(self, transcript: Transcript) -> None:
        """Write one transcript; a file appears whole or not at all."""
        if self.folder is None:
            for name in self.formats:
                start = f"{printable(transcript.id)}\t" if self.named and name == "txt" else ""
                print(start + WRITERS[name](transcript), end="", flush=True)
            return
        stem = self._free_name(Path(transcript.id).stem)
        for name in self.formats:
            with write_atomically(self.folder / f"{stem}.{name}") as temporary:
                temporary.write_text(WRITERS[name](transcript), encoding="utf-8")

    def _free_name(self, stem: str) -> str:
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        return name
