"""Writing transcripts as plain text, JSON, subtitles (SubRip and WebVTT) and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from asr.errors import ConfigError, printable
from asr.files import json_line, make_folder, naming, to_stem, write_whole
from asr.subtitles import SubtitleOptions, cues, segments_of
from asr.transcript import Failure, Segment, Transcript, Word

NEEDS_TIMES = frozenset({"srt", "vtt", "tsv"})


def as_txt(transcript: Transcript, options: SubtitleOptions) -> str:
    """Return the text and a line feed."""
    return transcript.text + "\n"


def as_json(transcript: Transcript, options: SubtitleOptions) -> str:
    """Return all fields as one line of JSON; times are rounded to milliseconds."""
    written = {name: _json(value) for name, value in _rounded(transcript).items() if name != "segments"}
    # Encoded one by one: json keeps a list of all pieces of its output, 80 MB for the words of ten hours.
    written["segments"] = f"[{', '.join(map(_json, transcript.segments))}]"
    written["alternatives"] = _json([{"text": text, "score": score} for text, score in transcript.alternatives])
    return "{" + ", ".join(f'"{field.name}": {written[field.name]}' for field in fields(transcript)) + "}\n"


def as_line(result: Transcript | Failure) -> str:
    """Return the fields of a result as one line of JSON, without the line feed."""
    return _json(vars(result)) if isinstance(result, Failure) else as_json(result, SubtitleOptions()).rstrip("\n")


def from_line(line: str | bytes) -> Transcript:
    """Parse a transcript that as_line wrote."""
    row = json.loads(line)
    segments = (
        Segment(**segment | {"words": tuple(Word(**w) for w in segment["words"]), "guards": tuple(segment["guards"])})
        for segment in row["segments"]
    )
    alternatives = ((each["text"], each["score"]) for each in row["alternatives"])
    return Transcript(**row | {"segments": tuple(segments), "alternatives": tuple(alternatives)})


def as_srt(transcript: Transcript, options: SubtitleOptions) -> str:
    """Return SubRip.  The format has no escapes, so "-->" and anything like a tag use look-alike characters."""
    blocks = []
    for number, cue in enumerate(cues(transcript, options), start=1):
        text = re.sub(r"<(/?[A-Za-z][^<>]*)>", r"‹\1›", "\n".join(cue.lines).replace("-->", "→"))
        blocks.append(f"{number}\n{clock(cue.start_ms, ',')} --> {clock(cue.end_ms, ',')}\n{text}\n\n")
    return "".join(blocks)


def as_vtt(transcript: Transcript, options: SubtitleOptions) -> str:
    """Return WebVTT (W3C)."""
    blocks = ["WEBVTT\n\n"]
    for cue in cues(transcript, options):
        text = "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{clock(cue.start_ms, '.')} --> {clock(cue.end_ms, '.')}\n{text}\n\n")
    return "".join(blocks)


def as_tsv(transcript: Transcript, options: SubtitleOptions) -> str:
    """Return a table of segments: start and end in milliseconds, and the text."""
    rows = [
        f"{round(segment.start_s * 1000)}\t{round(segment.end_s * 1000)}\t{' '.join(segment.text.split())}\n"
        for segment in segments_of(transcript)
        if segment.text.strip()
    ]
    return "start\tend\ttext\n" + "".join(rows)


def clock(ms: int, mark: str) -> str:
    """Format a time as hours (two digits or more), minutes, seconds and, after `mark`, milliseconds."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{ms:03}"


def _json(value: object) -> str:
    return json_line(value, default=_rounded).decode().removesuffix("\n")


def _rounded(part: Transcript | Segment | Word) -> dict[str, object]:
    """Return the fields, with times rounded to milliseconds."""
    return {name: round(value, 3) if name.endswith("_s") else value for name, value in vars(part).items()}


WRITERS: dict[str, Callable[[Transcript, SubtitleOptions], str]] = {
    "txt": as_txt,
    "json": as_json,
    "srt": as_srt,
    "vtt": as_vtt,
    "tsv": as_tsv,
}


def needs_times(formats: Iterable[str]) -> bool:
    """Return whether any of these formats needs timestamps."""
    return not NEEDS_TIMES.isdisjoint(formats)


class TranscriptWriter:
    """Writer of transcripts in several formats, to `folder`/NAME.FORMAT or, without a folder, to standard output.

    named: whether there are several recordings; each plain text on standard output then begins with the recording's
    id and a tab.  subtitles: layout of srt and vtt.  Raises ConfigError for an unknown format, and for several
    recordings on standard output in a format that does not separate them.  The folder is created here, so that every
    problem shows before the work begins.
    """

    def __init__(
        self,
        formats: Sequence[str],
        folder: Path | None = None,
        *,
        named: bool = False,
        subtitles: SubtitleOptions | None = None,
    ) -> None:
        for name in formats:
            if name not in WRITERS:
                raise ConfigError(f"unknown format {name!r}: known are {', '.join(WRITERS)}")
        if not formats:
            raise ConfigError(f"no format is given: known are {', '.join(WRITERS)}")
        if folder is not None:
            make_folder(folder)
        elif named and needs_times(formats):
            raise ConfigError(f"{', '.join(formats)}: with several recordings give --out, a folder for their files")
        self.formats, self.folder, self.named = formats, folder, named
        self.subtitles = subtitles or SubtitleOptions()

    def write(self, transcript: Transcript, name: str | None = None) -> None:
        """Write one transcript, each file atomically.  name: path below the folder; None: the stem of the id."""
        if self.folder is None:
            with naming("standard output"):
                self._print(transcript)
            return
        stem = to_stem(Path(transcript.id).stem) if name is None else name
        for kind in self.formats:
            path = self.folder / f"{stem}.{kind}"
            if not path.parent.is_dir():
                make_folder(path.parent)
            write_whole(path, WRITERS[kind](transcript, self.subtitles))

    def _print(self, transcript: Transcript) -> None:
        for name in self.formats:
            start = f"{printable(transcript.id)}\t" if self.named and name == "txt" else ""
            print(start + WRITERS[name](transcript, self.subtitles), end="", flush=True)
