"""Recipes that work in several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from asr.errors import AsrError
from recipes.clips import Clip
from recipes.listening import heard, listen
from recipes.processes import each


def killed(task: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_killed_process_is_reported() -> None:
    with pytest.raises(AsrError, match=r"a process was killed.*fewer --jobs"):
        list(each(killed, [1, 2, 3], jobs=2))


def test_two_processes_read_the_same_clips_as_one(tmp_path: Path) -> None:
    clips = []
    for i in range(5):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, [0.1 * i + 0.1] * 80, 8000)
        clips.append(Clip("en", str(i), str(i), "train", "speaker", "Text.", path))
    clips[3].path.write_bytes(b"RIFF")
    kept, dropped = listen(clips, Console(quiet=True), jobs=2)
    assert kept == [heard(clips[i]) for i in (0, 1, 2, 4)]
    assert {clip.n_samples for clip in kept} == {80}
    ((name, reason),) = [(drop.name, drop.reason) for drop in dropped]
    assert name == "3"
    assert str(tmp_path) not in reason
