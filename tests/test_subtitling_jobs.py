"""`asr subtitles` with several recordings at a time: the same files, and a process that dies."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import Outcome, asr
from subtitled import SPEECH, LoudIsSpeech, srt, talk

from asr import vad
from asr.data.cuts import read_cuts


class KilledAt8000Hz(LoudIsSpeech):
    """Kills its process, as the kernel does for want of memory, if the recording has 8000 Hz."""

    def __init__(self, rate: int) -> None:
        if rate == 8000:
            Path("out/audio/.writing-half").mkdir(parents=True)
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__(rate)


class StopsTheCommand(LoudIsSpeech):
    """Ends the command, as `kill` does, while all of its processes are at work."""

    def __init__(self, rate: int) -> None:
        if rate == 8000:
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)


def run(jobs: int, status: int) -> Outcome:
    """Make cuts of the films in the working folder."""
    done = asr("subtitles", "films", "--spoken", "cs", "--out", "out", "--jobs", jobs)
    assert done.status == status, done
    return done


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vad, "load_detector", LoudIsSpeech)
    (tmp_path / "films").mkdir()
    return tmp_path / "films"


def add(films: Path, name: str, rate: int = 16000) -> None:
    talk(films, name, rate=rate)
    (films / name).with_suffix(".en.srt").write_text(srt(SPEECH, offset_s=2))


def test_the_number_of_jobs_changes_no_byte(films: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        add(films, name)
    (films / "b.wav").write_bytes(b"RIFF nothing")
    if shutil.which("ffmpeg"):  # a film, whose audio is extracted
        command = ("ffmpeg", "-nostdin", "-v", "error", "-i", films / "c.wav", "-c:a", "pcm_s16le", films / "c.mkv")
        subprocess.run(command, check=True)
        (films / "c.wav").unlink()
    two = run(2, status=1)
    made = files(Path("out"))
    shutil.rmtree("out")
    one = run(1, status=1)
    assert files(Path("out")) == made
    assert two == one
    assert len(one.err) == 1
    assert one.err[0].startswith("asr: films/b.wav: ")
    assert [cut.recording.id for cut in read_cuts(Path("out/cuts.jsonl.gz"))] == ["a"] * 24 + ["c"] * 24


def test_dead_process_is_reported_and_only_its_recording_is_done_again(
    films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(films, "a.wav", rate=8000)
    add(films, "b.wav")
    monkeypatch.setattr(vad, "load_detector", KilledAt8000Hz)
    assert run(2, status=1).err == [
        "asr: films/a.wav: the process at work on it ended (signal 9); the same command tries it again; "
        "with fewer --jobs there is more memory for it"
    ]
    assert {cut.recording.id for cut in read_cuts(Path("out/cuts.jsonl.gz"))} == {"b"}
    assert not list(Path("out").rglob(".writing-*"))
    kept = Path("out/speech/b.npz").stat().st_ino
    monkeypatch.setattr(vad, "load_detector", LoudIsSpeech)
    run(1, status=0)
    assert Path("out/speech/b.npz").stat().st_ino == kept
    assert [cut.recording.id for cut in read_cuts(Path("out/cuts.jsonl.gz"))] == ["a"] * 24 + ["b"] * 24


def test_sigterm_ends_the_command_and_its_processes(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(films, "a.wav", rate=8000)
    add(films, "b.wav")
    monkeypatch.setattr(vad, "load_detector", StopsTheCommand)
    assert run(2, status=130).err == ["asr: the same command goes on where this one left off", "asr: stopped"]
    assert not multiprocessing.active_children()
    assert not files(Path("out"))
