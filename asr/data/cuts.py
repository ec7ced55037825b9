"""Manifests of lhotse cuts: reading them, keeping what can be used, and getting the waveform of a cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from lhotse import CutSet, Recording
from lhotse.cut import Cut, MixedCut, MixTrack, MonoCut, PaddingCut
from lhotse.serialization import deserialize_item
from torch import Tensor

from asr.audio import open_audio
from asr.errors import DataError, printable
from asr.resampling import resample


class Dropped(NamedTuple):
    """A cut that is left out, and why."""

    id: str
    reason: str


def read_cuts(path: Path) -> CutSet:
    """Read a manifest of cuts (.jsonl or .jsonl.gz) into memory.

    Raises DataError naming the file.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such manifest; prepare the corpus first (see the recipe's README)")
    try:
        found = CutSet.from_file(path)  # None for a file without a line
        cuts = CutSet.from_cuts([] if found is None else found)
    except Exception as e:  # lhotse raises whatever its parsers raise
        reason = printable(" ".join(str(e).split()))[:200]
        raise DataError(f"{path}: not a manifest of lhotse cuts: {reason}") from None
    if len(cuts) == 0:
        raise DataError(f"{path}: the manifest is empty")
    if (other := next((item for item in cuts if not isinstance(item, Cut)), None)) is not None:
        raise DataError(f"{path}: a manifest of {type(other).__name__}s, not of cuts")
    counts = Counter(cut.id for cut in cuts)
    if len(counts) < len(cuts):
        raise DataError(f"{path}: cut '{printable(counts.most_common(1)[0][0])}' is there twice; ids must differ")
    return cuts


def parse_cut(line: bytes) -> Cut:
    """Read one line of a manifest of cuts, or of recordings, each of which is a cut; DataError if it is neither."""
    try:
        item = deserialize_item(json.loads(line))
        cut = item.to_cut() if isinstance(item, Recording) else item
    except Exception as e:  # lhotse raises whatever its parsers raise
        reason = printable(" ".join(f"{type(e).__name__}: {e}".split()))[:200]
        raise DataError(f"neither cut nor recording of lhotse: {reason}") from None
    if not isinstance(cut, Cut):
        raise DataError(f"a {type(cut).__name__}, neither cut nor recording of lhotse")
    return cut


def text_of(cut: Cut) -> str:
    """What is said in a cut, its supervisions joined by spaces."""
    return " ".join(s.text for s in cut.supervisions if s.text)


def language_of(cut: Cut) -> str | None:
    """The language of a cut's first supervision."""
    language: str | None = cut.supervisions[0].language if cut.supervisions else None
    return language


def select(cuts: CutSet, problem: Callable[[Cut], str | None]) -> tuple[CutSet, list[Dropped]]:
    """Split off the cuts for which `problem` gives a reason."""
    kept, dropped = [], []
    for cut in cuts:
        reason = problem(cut)
        if reason is None:
            kept.append(cut)
        else:
            dropped.append(Dropped(cut.id, reason))
    return CutSet.from_cuts(kept), dropped


def pieces(cut: Cut) -> list[tuple[float, MonoCut]]:
    """The clips that a cut is joined from, each with its start in seconds; the silence between is left out."""
    tracks = cut.tracks if isinstance(cut, MixedCut) else [MixTrack(cut)]
    return [(track.offset, track.cut) for track in tracks if not isinstance(track.cut, PaddingCut)]


def load_audio(cut: Cut, sample_rate_hz: int) -> Tensor:
    """Decode a cut, speed perturbation and joined clips included: mono float32 (N,) at `sample_rate_hz`."""
    clips = pieces(cut)
    if len(clips) == 1:
        return _load_mono(clips[0][1], sample_rate_hz)
    audio_N = torch.zeros(round(cut.duration * sample_rate_hz))
    for offset_s, clip in clips:
        start = round(offset_s * sample_rate_hz)
        part_N = _load_mono(clip, sample_rate_hz)[: max(0, len(audio_N) - start)]
        audio_N[start : start + len(part_N)] += part_N
    return audio_N


def whole_file(cut: Cut) -> str | None:
    """The audio file that a cut is all of, just as it is; None for parts, joined clips and changed speed."""
    clips = pieces(cut)
    if isinstance(cut, MixedCut) or not clips or not _is_file(cut) or cut.recording.transforms:
        return None
    return str(cut.recording.sources[0].source) if _is_whole(cut) else None


def _is_file(cut: MonoCut) -> bool:
    return cut.recording is not None and cut.recording.sources[0].type == "file"


def _is_whole(cut: MonoCut) -> bool:
    return cut.start == 0 and abs(cut.duration - cut.recording.duration) < 1e-6


def _load_mono(cut: MonoCut, sample_rate_hz: int) -> Tensor:
    recording = cut.recording
    if not _is_file(cut):
        raise DataError(f"{printable(cut.id)}: the cut has no audio file")
    speed = 1.0
    for transform in recording.transforms or ():
        fields = transform if isinstance(transform, dict) else transform.to_dict()
        if fields["name"] != "Speed":
            raise DataError(f"{printable(cut.id)}: transform {printable(fields['name'])} is not supported")
        speed *= fields["kwargs"]["factor"]
    path = recording.sources[0].source
    span = {} if _is_whole(cut) else {"offset_s": cut.start * speed, "duration_s": cut.duration * speed}
    audio = open_audio(path, **span)
    return resample(torch.from_numpy(audio.samples_N), round(audio.sample_rate_hz * speed), sample_rate_hz)
