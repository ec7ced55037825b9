"""Audio of an utterance for the page: a clip as FLAC, and a picture of its log-mel features.

Whatever the source file's format, the page gets samples that `asr.audio` decoded and that are encoded anew.
Shapes: N samples.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from asr.audio import open_audio
from asr.data.cuts import load_audio
from asr.data.sources import parse_cut
from asr.errors import DataError, printable
from asr.features import LogMel
from asr.files import filled_lines, is_media
from asr.pictures import as_png, draw_features
from asr.report.media import Content, Source, files_by_id, of_id
from asr.resampling import resample

RATE_HZ = 16000
LONGEST_S = 60.0
_N_MELS, _WINDOW_MS, _HOP_MS = 80, 25.0, 10.0

Load = Callable[[str], Tensor]  # from an id to its samples (N,) at RATE_HZ, at most LONGEST_S of them


def clips_from(source: Path, ids: Collection[str]) -> Source:
    """Return a source of clips and their pictures, from a folder of audio files named by id or a manifest of cuts."""
    load = _from_folder(source) if source.is_dir() else _from_manifest(source, ids)
    log_mel = LogMel(RATE_HZ, _N_MELS, _WINDOW_MS, _HOP_MS)

    def clip(id: str) -> Iterator[Content]:
        audio_N = load(id)
        yield Content("audio", "audio/flac", _flac(audio_N))
        with torch.inference_mode():
            x_TF = log_mel(audio_N[None], torch.tensor([len(audio_N)])).x_BTF[0]
        yield Content("log-mel", "image/png", as_png(draw_features(x_TF, len(audio_N) / RATE_HZ)))

    return clip


def _from_folder(folder: Path) -> Load:
    files = files_by_id(folder, is_media)

    def load(id: str) -> Tensor:
        if (path := of_id(files, id)) is None:
            raise DataError(f"{printable(folder)}: there is no audio of {printable(id)}")
        audio = open_audio(path, duration_s=LONGEST_S)
        return resample(torch.from_numpy(audio.samples_N), audio.sample_rate_hz, RATE_HZ)

    return load


def _from_manifest(path: Path, ids: Collection[str]) -> Load:
    """Keep only the lines of the wanted cuts in memory."""
    lines: dict[str, bytes] = {}
    for number, line in filled_lines(path):
        try:
            id = json.loads(line)["id"]
            wanted = id in ids
        except (ValueError, TypeError, KeyError, RecursionError):
            raise DataError(f"{printable(path)}:{number}: neither cut nor recording of lhotse") from None
        if wanted:
            lines[id] = line

    def load(id: str) -> Tensor:
        if id not in lines:
            raise DataError(f"{printable(path)}: there is no cut {printable(id)}")
        cut = parse_cut(lines[id])
        return load_audio(cut.truncate(duration=LONGEST_S) if cut.duration > LONGEST_S else cut, RATE_HZ)

    return load


def _flac(audio_N: Tensor) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio_N.clamp(-1, 1).numpy(), RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()
