"""Names of the output files of recordings below --out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from asr.errors import ConfigError, printable
from asr.files import to_stem


def output_names(places: Mapping[str, str]) -> dict[str, str]:
    """Return the output name of each recording, without the format: its place without suffix, `talk` for talk.wav.

    Recordings whose names would collide all keep their suffixes: talk.wav and talk.mp3.  places: maps each path to its
    place below --out.  Names that are too long are shortened.  Raises ConfigError for recordings that collide even so.
    """
    names = {path: _shortened(os.path.splitext(place)[0]) for path, place in places.items()}
    whole = {path: _shortened(place) for path, place in places.items()}
    while met := _met(names):
        if all(names[path] == whole[path] for path in met):
            first, second = map(printable, met[:2])
            hint = "give the folder above them, or transcribe them into folders of their own"
            raise ConfigError(f"{first} and {second} would both be written as {printable(names[met[0]])}: {hint}")
        names |= {path: whole[path] for path in met}
    return names


def _shortened(place: str) -> str:
    folder, name = os.path.split(place)
    return os.path.join(folder, to_stem(name))


def _met(names: Mapping[str, str]) -> Sequence[str]:
    """Return the first group of recordings that share a name; empty if there is none."""
    paths: dict[str, list[str]] = {}
    for path, name in names.items():
        paths.setdefault(name, []).append(path)
    return next((some for some in paths.values() if len(some) > 1), ())


def other_recording(folder: Path, name: str, path: str) -> str | None:
    """Return the recording that the JSON file of this name describes if it is certainly not `path`, else None."""
    told = _told(folder / f"{name}.json").get("id")
    if not isinstance(told, str):
        return None
    if os.path.basename(told) != os.path.basename(path):
        return told
    # The same file may have been given by another path, so only two existing files can be told apart.
    both = os.path.exists(told) and os.path.exists(path)
    return told if both and not os.path.samefile(told, path) else None


def is_done(folder: Path, name: str, formats: Sequence[str]) -> bool:
    """Return whether the files exist in all formats; the JSON, if it is one of them, must be marked as complete."""
    there = all((folder / f"{name}.{kind}").is_file() for kind in formats)
    return there and ("json" not in formats or _told(folder / f"{name}.json").get("complete") is True)


def _told(path: Path) -> dict[str, object]:
    """Return the object in one of our JSON files; {} if the file is missing or holds none."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
