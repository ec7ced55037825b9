"""Decode recordings for what only that can tell: rate, length, and whether the file is audio at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from asr.errors import AudioError, printable
from recipes.clips import AnyClip, Dropped
from recipes.processes import each


class Heard(NamedTuple):
    """Properties of a decoded file; sha256: over its rate and samples."""

    sample_rate_hz: int
    n_samples: int
    sha256: str


def heard(clip: AnyClip) -> AnyClip:
    """Return the clip with the properties of its decoded file.

    Raises: asr.errors.AudioError, naming the file, if it is not audio.
    """
    return replace(clip, **_hear(clip.path)._asdict())


def listen(clips: Sequence[AnyClip], console: Console, jobs: int = 1) -> tuple[list[AnyClip], list[Dropped]]:
    """Do the same for many clips, decoding each file once; clips whose files cannot be read are left out."""
    paths = list(dict.fromkeys(clip.path for clip in clips))
    results = each(_attempt, paths, jobs, at_once=16)
    progress = track(
        results,
        "reading the recordings",
        total=len(paths),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    found = dict(zip(paths, progress, strict=True))
    kept, dropped = [], []
    for clip in clips:
        result = found[clip.path]
        if isinstance(result, Heard):
            kept.append(replace(clip, **result._asdict()))
        else:
            dropped.append(Dropped(clip.language, clip.label, clip.split, result))
    return kept, dropped


def _hear(path: Path) -> Heard:
    from asr.audio import open_audio  # imports numpy and the decoder, which an unchanged corpus does not need

    audio = open_audio(path)
    digest = hashlib.sha256(f"{audio.sample_rate_hz}:".encode())
    digest.update(audio.samples_N.tobytes())
    return Heard(audio.sample_rate_hz, len(audio.samples_N), digest.hexdigest())


def _attempt(path: Path) -> Heard | str:
    """Return the properties of a file, or the reason why it cannot be read."""
    try:
        return _hear(path)
    except AudioError as error:
        return str(error).removeprefix(f"{printable(path)}: ")
