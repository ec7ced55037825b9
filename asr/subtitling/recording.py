"""The audio file that cuts refer to: the recording itself if it allows random access, else extracted FLAC."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import soundfile
import torch

from asr.audio import Tracks, audio_tracks, stream_audio
from asr.errors import AudioError, printable
from asr.files import make_folder, write_atomically
from asr.resampling import resample_blocks
from asr.subtitling.matching import same_language, standard


def choose_track(path: Path, found: Tracks, wanted: str | None) -> int:
    """Return the index of an audio track.  wanted: an index or a language; None means the first track.

    Raises AudioError, which lists the tracks, if there is no such track.
    """
    if wanted is None:
        return 0
    if wanted.isdecimal() and int(wanted) < len(found.tracks):
        return int(wanted)
    if not wanted.isdecimal():
        language = standard(wanted)
        for track in found.tracks:
            if track.language and _is(track.language, language):
                return track.index
    shown = ", ".join(f"{track.index} ({track.language or 'language unknown'})" for track in found.tracks)
    raise AudioError(f"{printable(path)}: no audio track {printable(wanted)}; there are: {printable(shown)}")


def _is(tag: str, language: str) -> bool:
    try:
        return same_language(tag, language)
    except ValueError:  # containers may have any word as a language
        return False


def audio_of(
    path: Path, name: str, wanted: str | None, folder: Path, rate: int, on_block: Callable[[float], None]
) -> Path:
    """Return a file with the chosen audio track that libsndfile reads: `path` itself, or FLAC extracted to `folder`.

    The FLAC file is mono, 16 bits, at `rate` hertz.  It is written atomically and gets the modification time of its
    source, so that later runs can tell whether it is up to date.  on_block: called with the length of each extracted
    block in seconds.  Raises AudioError as `open_audio` does, also if the track cannot be decoded to its end.
    """
    found = audio_tracks(path)
    track = choose_track(path, found, wanted)
    if found.plain:
        return path
    target = folder / f"{name}.track{track}.{rate}hz.flac"
    made_from = path.stat().st_mtime_ns
    if not (target.is_file() and target.stat().st_mtime_ns == made_from):
        make_folder(target.parent)
        with write_atomically(target) as part:
            _extract(path, track, part, rate, on_block)
            os.utime(part, ns=(made_from, made_from))
    return target


def _extract(path: Path, track: int, target: Path, rate: int, on_block: Callable[[float], None]) -> None:
    with (
        stream_audio(path, track=track) as stream,
        soundfile.SoundFile(target, mode="w", samplerate=rate, channels=1, format="FLAC", subtype="PCM_16") as file,
    ):
        blocks = (torch.from_numpy(block_N) for block_N in stream)
        for block_N in resample_blocks(blocks, stream.sample_rate_hz, rate):
            file.write(block_N.clamp(-1 + math.ldexp(1, -15), 1 - math.ldexp(1, -15)).numpy())
            on_block(len(block_N) / rate)
