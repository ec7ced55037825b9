"""Write lhotse's Shar: shards of cuts with their audio, for corpora that outgrow one disk or machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.progress import track

from recipes.preparing import whole_folder
from recipes.processes import each

if TYPE_CHECKING:
    from lhotse import MonoCut


def shards_path(out: Path, name: str) -> Path:
    """Return the folder for the shards of a split, or of a part of one."""
    return out / f"shar_{name}"


def write_shards(cuts: Sequence[MonoCut], folder: Path, size: int, jobs: int, console: Console) -> None:
    """Write cuts in their order with their audio as FLAC; the folder appears whole or not at all.

    size: cuts in a shard.  Raises: asr.errors.AudioError.
    """
    with whole_folder(folder) as into:
        into.mkdir()
        starts = range(0, len(cuts), size)
        shards = [_Shard(number, cuts[start : start + size], into) for number, start in enumerate(starts)]
        written = each(_write, shards, jobs)
        for _ in track(
            written,
            f"writing {folder.name}",
            total=len(shards),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            pass


class _Shard(NamedTuple):
    number: int
    cuts: Sequence[MonoCut]
    folder: Path


def _write(shard: _Shard) -> None:
    """Write one shard like lhotse's SharWriter, but with our own reading of audio."""
    from lhotse.shar.utils import to_shar_placeholder
    from lhotse.shar.writers import AudioTarWriter
    from lhotse.shar.writers.cut import JsonlShardWriter
    from lhotse.utils import fastcopy

    from asr.data.cuts import load_audio

    place = {"shard_size": len(shard.cuts), "shard_offset": shard.number}
    with (
        JsonlShardWriter(str(shard.folder / "cuts.%06d.jsonl.gz"), **place) as lines,
        AudioTarWriter(str(shard.folder / "recording.%06d.tar"), format="flac", **place) as tar,
    ):
        for cut in shard.cuts:
            audio_N, recording = load_audio(cut, cut.sampling_rate), to_shar_placeholder(cut.recording, cut)
            tar.write(cut.id, audio_N[None].numpy(), cut.sampling_rate, manifest=recording)
            lines.write(fastcopy(cut, start=0.0, recording=recording))
