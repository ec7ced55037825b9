"""What the files about a recording are called below --out: by the recording alone, whatever else was transcribed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from asr.errors import ConfigError, printable


def output_names(places: Mapping[str, str]) -> dict[str, str]:
    """The names of each recording's files, but for the format: its place without the ending, talk of talk.wav.

    Where recordings would meet, all of them keep their endings: talk.wav and talk.mp3.  places: of each path, below
    --out.  Raises ConfigError for recordings that meet all the same.
    """
    names = {path: os.path.splitext(place)[0] for path, place in places.items()}
    while met := _met(names):
        if all(names[path] == places[path] for path in met):
            first, second = map(printable, met[:2])
            hint = "give the folder above them, or transcribe them into folders of their own"
            raise ConfigError(f"{first} and {second} would both be written as {printable(names[met[0]])}: {hint}")
        names |= {path: places[path] for path in met}
    return names


def _met(names: Mapping[str, str]) -> Sequence[str]:
    """The first recordings that have a name in common, if there are any."""
    paths: dict[str, list[str]] = {}
    for path, name in names.items():
        paths.setdefault(name, []).append(path)
    return next((some for some in paths.values() if len(some) > 1), ())


def other_recording(folder: Path, name: str, path: str) -> str | None:
    """The recording that a JSON of this name is about, where that is surely another one than `path`."""
    told = _told(folder / f"{name}.json").get("id")
    if not isinstance(told, str):
        return None
    if os.path.basename(told) != os.path.basename(path):
        return told
    # It may have been given from another folder: only a file that is there is another one.
    both = os.path.exists(told) and os.path.exists(path)
    return told if both and not os.path.samefile(told, path) else None


def is_done(folder: Path, name: str, formats: Sequence[str]) -> bool:
    """Whether a recording's files are there in all formats, and no JSON says that it was stopped before its end."""
    there = all((folder / f"{name}.{kind}").is_file() for kind in formats)
    return there and ("json" not in formats or _told(folder / f"{name}.json").get("complete") is True)


def _told(path: Path) -> dict[str, object]:
    """What a JSON file of ours says; nothing if it is none."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
