"""Streaming of recordings in blocks: the same samples as at once, little memory, and a clean end in every case."""

from __future__ import annotations

import gc
import io
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from audit import audited
from hostile import encoded, half, hostile_audio, noise, wav
from marks import needs_ffmpeg
from numpy.typing import NDArray

from asr.audio import AudioStream, child, open_audio, program, stream_audio
from asr.audio.files import request_for
from asr.errors import AudioError


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Noise, 20 s at 16 kHz: more than a pipe holds."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(20), 16000)
    return path


def with_ffmpeg(source: Path, name: str, *options: str) -> Path:
    target = source.with_name(name)
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", source, *options, target], check=True)
    return target


def read(stream: AudioStream) -> tuple[NDArray[np.float32], str]:
    """Return all samples and the message of the error at their end, or an empty string."""
    blocks = [np.zeros(0, np.float32)]
    try:
        blocks.extend(stream)
    except AudioError as error:
        return np.concatenate(blocks), str(error)
    return np.concatenate(blocks), ""


def pid_of(stream: AudioStream) -> int:
    assert stream._decoder is not None
    return stream._decoder.process.pid


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


# --- the same samples ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("x.wav", "PCM_16"),
        ("x.wav", "FLOAT"),
        ("x.flac", "PCM_16"),
        ("x.ogg", "VORBIS"),
        ("x.ogg", "OPUS"),
        ("x.mp3", "MPEG_LAYER_III"),
    ],
)
def test_joined_blocks_equal_the_whole_file(tmp_path: Path, name: str, subtype: str, channels: int) -> None:
    path = tmp_path / name
    soundfile.write(path, noise(11.3, 24000, channels), 24000, subtype=subtype)
    whole = open_audio(path)
    for block_s in (0.25, 3.0, 100.0):
        with stream_audio(path, block_s=block_s) as stream:
            assert stream.sample_rate_hz == 24000
            assert stream.duration_s == whole.duration_s
            blocks = list(stream)
        assert {len(block) for block in blocks[:-1]} <= {round(block_s * 24000)}
        assert 0 < len(blocks[-1]) <= round(block_s * 24000)
        np.testing.assert_array_equal(np.concatenate(blocks), whole.samples_N)
        assert all(block.dtype == np.float32 and block.flags.writeable for block in blocks)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.webm", "x.m4a"])
def test_joined_blocks_of_video_containers_equal_the_whole_file(tmp_path: Path, name: str) -> None:
    source = tmp_path / "x.wav"
    soundfile.write(source, noise(11.3), 16000)
    picture = [] if name == "x.m4a" else ["-f", "lavfi", "-i", "color=s=16x16:d=2", "-map", "0:a", "-map", "1:v"]
    path = with_ffmpeg(source, name, *picture)
    stream = stream_audio(path, block_s=1.0)
    assert stream.duration_s == pytest.approx(11.3, abs=0.1)
    samples_N, problem = read(stream)
    np.testing.assert_array_equal(samples_N, open_audio(path).samples_N)
    assert problem == ""


def test_silent_file_can_be_streamed(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(wav(bytes(8000)))
    with pytest.raises(AudioError, match="silent"):
        open_audio(path)
    samples_N, problem = read(stream_audio(path))
    assert problem == ""
    np.testing.assert_array_equal(samples_N, np.zeros(4000, np.float32))


def test_blocks_are_decoded_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(wav(b"\1\2" * 8000, size=100 << 20))
        file.truncate(44 + (100 << 20))  # sparse: it takes no disk space
    with stream_audio(path, block_s=1.0) as stream:
        assert len(next(stream)) == 8000
        files = Path(f"/proc/{pid_of(stream)}/fd")
        (fd,) = [entry.name for entry in files.iterdir() if os.path.realpath(entry) == str(path)]
        time.sleep(0.3)  # time to decode much of it
        position = int((files.parent / "fdinfo" / fd).read_text().split()[1])
    assert 0 < position < 1 << 20


# --- truncated and hostile files ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "W64", "OGG", "MP3", "NIST", "OPUS"])
def test_truncated_file_yields_its_samples_before_the_error(tmp_path: Path, kind: str) -> None:
    path, good = tmp_path / f"cut.{kind}", tmp_path / f"good.{kind}"
    options = {"format": "OGG", "subtype": "OPUS"} if kind == "OPUS" else {"format": kind}
    good.write_bytes(encoded(noise(20), **options))
    path.write_bytes(half(good.read_bytes()))
    stream = stream_audio(path, block_s=1.0)
    samples_N, problem = read(stream)
    assert re.fullmatch(rf"{re.escape(str(path))}: (truncated|damaged): .*", problem)
    assert 5 < len(samples_N) / 16000 < 11
    whole_N = open_audio(good).samples_N[: len(samples_N)]
    if kind in ("OGG", "MP3"):  # the last frame overlaps with the missing one
        samples_N, whole_N = samples_N[:-4608], whole_N[:-4608]
    np.testing.assert_allclose(samples_N, whole_N, rtol=0, atol=1e-6)
    assert next(stream, None) is None, "the error must be raised only once"


@needs_ffmpeg
def test_truncated_video_yields_its_samples_before_the_error(clip: Path) -> None:
    path = with_ffmpeg(clip, "x.mkv")
    path.write_bytes(half(path.read_bytes()))
    samples_N, problem = read(stream_audio(path, block_s=1.0))
    assert problem == f"{path}: truncated: ffmpeg finds it cut short"
    assert 5 < len(samples_N) / 16000 < 11


def test_hostile_audio_gives_one_line_errors_and_executes_nothing(tmp_path: Path) -> None:
    accepted = {"zero.wav", "cancelled.wav", "good.wav"}
    different = {"endless.flac": "truncated|damaged"}
    cases = [
        (path, different.get(path.name, text)) for path, text in hostile_audio(tmp_path) if "huge" not in path.name
    ]
    setup = "from asr.audio import stream_audio\ndef act(path):\n for block in stream_audio(path): pass"
    good = tmp_path / "good.wav"
    report = audited(setup, [*(path for path, _ in cases), good], warm_up=[good])
    assert (report.tracebacks, report.forbidden, report.left, report.stderr) == ([], [], [], "")
    for (path, pattern), message in zip([*cases, (good, "")], report.messages, strict=True):
        if path.name in accepted:
            assert message == "", path.name
        else:
            assert re.search(pattern, message), f"{path.name}: {message or 'was accepted'}"
            assert path.name.partition("\n")[0] in message
        assert message.isprintable()


def test_zero_block_length_is_refused(clip: Path) -> None:
    with pytest.raises(AudioError, match=r"clip\.wav: block_s must be"):
        stream_audio(clip, block_s=0.0)


# --- the time limit -----------------------------------------------------------------------------------


def test_a_stalled_decoder_is_killed(clip: Path) -> None:
    stream = stream_audio(clip, block_s=8.0, timeout_s=0.2)
    pid = pid_of(stream)
    os.kill(pid, signal.SIGSTOP)
    _, problem = read(stream)
    assert problem == f"{clip}: took longer than 0.2 s to decode a block"
    assert not Path(f"/proc/{pid}").exists(), "the process must be killed and waited for"
    assert read(stream_audio(clip))[1] == ""


@pytest.mark.parametrize(("is_stream", "left_s"), [(True, 900.0), (False, 300.0)])
def test_time_limit_excludes_time_spent_by_the_consumer(
    is_stream: bool, left_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder sets no alarm while it sends samples; after a block of a stream its time limit starts anew."""
    seen = []
    monkeypatch.setattr(program, "_write", lambda *_: seen.append(signal.getitimer(signal.ITIMER_REAL)[0]))
    try:
        sink = program.Sink(0, request_for("unread", timeout_s=900.0, max_bytes=0, stream=is_stream))
        sink.start_clock(300.0)
        sink._tell(program.SAMPLES, b"")
        assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(left_s + 5, abs=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert seen == [0.0]
    assert sink.deadline - time.monotonic() == pytest.approx(left_s, abs=60)


# --- processes ----------------------------------------------------------------------------------------


def test_streams_and_whole_files_can_be_read_concurrently(tmp_path: Path) -> None:
    wholes = [noise(8 + number) for number in range(3)]
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for path, whole_N in zip(paths, wholes, strict=True):
        soundfile.write(path, whole_N, 16000, subtype="FLOAT")
    streams = [stream_audio(path, block_s=1.0) for path in paths]
    assert len({pid_of(stream) for stream in streams}) == 3
    read_s: list[list[NDArray[np.float32]]] = [[], [], []]
    for blocks in itertools.zip_longest(*streams):
        for number, block in enumerate(blocks):
            if block is not None:
                read_s[number].append(block)
        np.testing.assert_array_equal(open_audio(paths[0]).samples_N, wholes[0])
    for blocks_read, whole_N in zip(read_s, wholes, strict=True):
        np.testing.assert_array_equal(np.concatenate(blocks_read), whole_N)


def test_one_decoder_process_serves_consecutive_streams(clip: Path) -> None:
    open_audio(clip)
    assert child._shared is not None
    pid = child._shared.process.pid
    for _ in range(3):
        stream = stream_audio(clip)
        assert pid_of(stream) == pid
        read(stream)
    open_audio(clip)
    assert child._shared.process.pid == pid


@pytest.mark.parametrize("end", ["close", "drop", "interrupt"])
def test_an_abandoned_stream_leaves_no_process(clip: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = stream_audio(clip, block_s=1.0)
    pid = pid_of(stream)
    next(stream)
    if end == "close":
        stream.close()
        assert next(stream, None) is None
    elif end == "interrupt":
        with monkeypatch.context() as patch:
            patch.setattr(child.Decoder, "message", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                list(stream)
    del stream
    gc.collect()
    assert not Path(f"/proc/{pid}").exists()
    np.testing.assert_allclose(read(stream_audio(clip))[0], noise(20), atol=1e-4)


def _in_a_fork(clip: Path, stream: AudioStream) -> None:
    open_audio(clip)
    stream.close()


def test_closing_a_stream_in_a_fork_does_not_affect_the_parent(clip: Path) -> None:
    stream = stream_audio(clip, block_s=1.0)
    next(stream)
    process = multiprocessing.get_context("fork").Process(target=_in_a_fork, args=(clip, stream))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    samples_N, problem = read(stream)
    assert problem == ""
    assert len(samples_N) == 19 * 16000


# --- standard input -----------------------------------------------------------------------------------


def pipe_in(monkeypatch: pytest.MonkeyPatch, folder: Path, data: bytes, *, terminal: bool = False) -> Path:
    """Make `data` the standard input, and return the folder for temporary files."""
    temporary = folder / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: terminal))
    return temporary


@pytest.mark.parametrize("name", ["clip.wav", pytest.param("clip.mp4", marks=needs_ffmpeg)])
def test_standard_input_can_be_streamed(clip: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip if name == "clip.wav" else with_ffmpeg(clip, name)
    temporary = pipe_in(monkeypatch, clip.parent, path.read_bytes())
    stream = stream_audio("-", block_s=1.0)
    assert list(temporary.iterdir()) == []
    samples_N, problem = read(stream)
    assert problem == ""
    np.testing.assert_array_equal(samples_N, open_audio(path).samples_N)


@pytest.mark.parametrize(
    ("data", "terminal", "message"),
    [
        (b"", False, "standard input: is empty (0 bytes)"),
        (b"", True, "standard input: nothing is piped in"),
        (b"no audio" * 99, False, "standard input: not audio that can be decoded"),
    ],
)
def test_standard_input_without_audio_is_refused(
    tmp_path: Path, data: bytes, terminal: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = pipe_in(monkeypatch, tmp_path, data, terminal=terminal)
    with pytest.raises(AudioError, match=re.escape(message)):
        stream_audio("-")
    assert list(temporary.iterdir()) == []


def test_error_if_standard_input_cannot_be_copied_suggests_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe_in(monkeypatch, tmp_path, b"")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(AudioError, match=r"standard input: cannot be copied to a temporary file .*; set TMPDIR"):
        stream_audio("-")
