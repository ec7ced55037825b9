"""Films with several audio tracks: listing them, and choosing one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from marks import needs_ffmpeg
from numpy.typing import NDArray

from asr.audio import Track, audio_tracks, stream_audio
from asr.errors import AudioError

RATE = 8000


def tone(hz: float) -> NDArray[np.float64]:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A film of one second with two audio tracks: 500 Hz, and 1000 Hz tagged as English."""
    inputs: list[str | Path] = []
    for hz in (500, 1000):
        soundfile.write(tmp_path / f"{hz}.wav", tone(hz), RATE)
        inputs += ["-i", tmp_path / f"{hz}.wav"]
    tags = ["-metadata:s:a:1", "language=eng", "-metadata:s:a:1", "title=with comments"]
    path = tmp_path / "film.mkv"
    command = ["ffmpeg", "-nostdin", "-v", "error", *inputs, "-map", "0", "-map", "1", *tags, "-c:a", "pcm_s16le", path]
    subprocess.run(command, check=True)
    return path


@needs_ffmpeg
def test_tracks_of_a_container_are_listed(film: Path) -> None:
    found = audio_tracks(film)
    assert found.tracks == (Track(0, None, None), Track(1, "eng", "with comments"))
    assert not found.plain
    assert found.duration_s == pytest.approx(1.0, abs=0.05)


@needs_ffmpeg
@pytest.mark.parametrize(("track", "hz"), [(0, 500), (1, 1000)])
def test_the_chosen_track_is_streamed(film: Path, track: int, hz: float) -> None:
    with stream_audio(film, track=track) as stream:
        samples_N = np.concatenate(list(stream))
    assert len(samples_N) == RATE
    assert np.allclose(samples_N, tone(hz), atol=1e-4)


@needs_ffmpeg
def test_a_missing_track_is_an_error_that_names_it(film: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"film\.mkv: it holds no audio track 2$"):
        stream_audio(film, track=2)
    with pytest.raises(AudioError, match=r"500\.wav: it holds no audio track 1$"):
        stream_audio(tmp_path / "500.wav", track=1)


def test_a_plain_file_has_one_track(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.flac", tone(500), RATE)
    found = audio_tracks(tmp_path / "x.flac")
    assert found.tracks == (Track(0, None, None),)
    assert found.plain
    assert found.duration_s == 1.0


def test_tracks_of_missing_and_non_audio_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        audio_tracks(tmp_path / "x.mkv")
    (tmp_path / "x.mkv").write_text("plain text")
    with pytest.raises(AudioError, match=r"x\.mkv: (not audio that can be decoded|libsndfile cannot read it)"):
        audio_tracks(tmp_path / "x.mkv")


def test_error_without_ffprobe_suggests_installing_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.mkv").write_text("whatever")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match="install ffmpeg"):
        audio_tracks(tmp_path / "x.mkv")
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    with pytest.raises(AudioError, match=r"x\.mkv: libsndfile cannot read it \(.*\); install ffprobe, too"):
        audio_tracks(tmp_path / "x.mkv")
