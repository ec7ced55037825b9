"""Audio that is good, audio that is not, and the process between them."""

from __future__ import annotations

import http.server
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from audit import audited
from hostile import hostile_audio, noise, wav

import asr.audio
from asr import _decoder
from asr.audio import audio_duration, open_audio
from asr.errors import AudioError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@pytest.fixture(autouse=True)
def _fresh_decoder() -> Iterator[None]:
    yield
    asr.audio._close()


def write(path: Path, samples: np.ndarray, rate: int = 16000, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def with_ffmpeg(source: Path, name: str, *options: str) -> Path:
    target = source.with_name(name)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(source), *options, str(target)]
    subprocess.run(command, check=True)
    return target


# --- reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("x.wav", "PCM_U8", 1 / 128),
        ("x.wav", "PCM_16", 1 / 32768),
        ("x.wav", "PCM_24", 2**-23),
        ("x.wav", "FLOAT", 0),
        ("x.wav", "DOUBLE", 0),
        ("x.flac", "PCM_16", 1 / 32768),
        ("x.aiff", "PCM_16", 1 / 32768),
        ("x.au", "PCM_16", 1 / 32768),
        ("x.w64", "PCM_16", 1 / 32768),
        ("x.nist", "PCM_16", 1 / 32768),
        ("x.wav", "ULAW", 0.02),
        ("x.ogg", "VORBIS", None),
        ("x.ogg", "OPUS", None),
        ("x.mp3", "MPEG_LAYER_III", None),
    ],
)
def test_formats_of_libsndfile(tmp_path: Path, rate: int, name: str, subtype: str, tolerance: float | None) -> None:
    if subtype == "OPUS" and rate == 44100:
        pytest.skip("Opus has no 44.1 kHz")
    samples = noise(0.5, rate)
    path = write(tmp_path / name, samples, rate, subtype=subtype)
    audio = open_audio(path)
    assert audio.sample_rate_hz == rate
    assert audio.samples_N.dtype == np.float32
    assert audio.samples_N.shape == samples.shape
    assert audio.samples_N.flags.writeable
    assert audio.duration_s == audio_duration(path) == 0.5
    if tolerance is None:
        np.testing.assert_array_equal(audio.samples_N, soundfile.read(path, dtype="float32")[0])
    else:
        np.testing.assert_allclose(audio.samples_N, samples, rtol=0, atol=tolerance)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = noise(0.3, channels=channels)
    path = write(tmp_path / "x.wav", samples, subtype="FLOAT")
    np.testing.assert_allclose(open_audio(path).samples_N, samples.mean(axis=1), atol=1e-6)


@needs_ffmpeg
@pytest.mark.parametrize("channels", [1, 2])
def test_ffmpeg_gives_the_same_samples_where_nothing_is_lost(tmp_path: Path, channels: int) -> None:
    samples = noise(0.5, 44100, channels)
    source = write(tmp_path / "x.wav", samples, 44100, subtype="PCM_16")
    path = with_ffmpeg(source, "x.mka", "-c:a", "flac")
    audio = open_audio(path)
    assert audio.sample_rate_hz == 44100
    np.testing.assert_allclose(audio.samples_N, samples.reshape(len(samples), -1).mean(axis=1), atol=1 / 32768)
    assert audio_duration(path) == audio.duration_s == 0.5
    np.testing.assert_array_equal(
        open_audio(path, offset_s=0.1, duration_s=0.2).samples_N, audio.samples_N[4410 : 4410 + 8820]
    )
    with pytest.raises(AudioError, match=r"nothing at 0\.6 s: it lasts 0\.500 s"):
        open_audio(path, offset_s=0.6)
    with pytest.raises(AudioError, match="too long to read at once"):
        open_audio(path, max_bytes=1000)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["x.m4a", "x.mp4", "x.webm", "x.mkv", "x.aac", "x.wma", "x.avi"])
def test_formats_of_ffmpeg(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "x.wav", noise(1))
    audio = open_audio(with_ffmpeg(source, name))
    assert abs(audio.duration_s - 1) < 0.15, "codecs pad with up to two frames"
    assert 0.05 < np.abs(audio.samples_N).mean() < 0.5


@needs_ffmpeg
def test_streams_of_unknown_length_are_read_to_their_end(tmp_path: Path) -> None:
    source = write(tmp_path / "x.wav", noise(1))
    for name in ("wav", "flac", "aiff", "caf", "w64"):
        done = subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", "-i", str(source), "-f", name, "pipe:1"],
            capture_output=True,
            check=True,
        )
        (tmp_path / f"stream.{name}").write_bytes(done.stdout)
        assert open_audio(tmp_path / f"stream.{name}").duration_s == 1, name


@needs_ffmpeg
def test_ogg_streams_in_a_row_are_all_read(tmp_path: Path) -> None:
    parts = []
    for number, seconds in enumerate((0.5, 0.25)):
        source = write(tmp_path / "x.wav", noise(seconds))
        parts.append(with_ffmpeg(source, f"{number}.ogg", "-serial_offset", str(number)).read_bytes())
    (tmp_path / "x.ogg").write_bytes(b"".join(parts))
    assert open_audio(tmp_path / "x.ogg").duration_s == pytest.approx(0.75, abs=0.01)


ODD_NAMES = ["-i", "a:b", "http:x", "a b;c'\"$(d)", "new\nline", "%d", "*", "речь", os.fsdecode(b"\xff\xfe")]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_no_name_is_special(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(wav(b"\1\2" * 800))
    assert open_audio(name).duration_s == 0.1
    if shutil.which("ffmpeg"):
        made = with_ffmpeg(Path(tmp_path / "good.wav"), "x.mka") if write(tmp_path / "good.wav", noise(0.1)) else None
        assert made is not None
        made.rename(name)
        assert open_audio(name).duration_s == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3"])
def test_parts_tile_the_recording(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise(3, 22050), 22050)
    whole = open_audio(path).samples_N
    step = 0.77777
    parts = [open_audio(path, offset_s=i * step, duration_s=step) for i in range(4)]
    joined = np.concatenate([part.samples_N for part in parts])
    np.testing.assert_array_equal(joined, whole)
    tail = open_audio(path, offset_s=2.5)
    assert len(tail.samples_N) == len(whole) - round(2.5 * 22050)
    assert len(open_audio(path, offset_s=1, duration_s=1e-9).samples_N) == 1


def test_a_silent_part_of_a_good_recording_is_no_error(tmp_path: Path) -> None:
    samples = noise(1)
    samples[:8000] = 0
    path = write(tmp_path / "x.wav", samples)
    assert not open_audio(path, duration_s=0.5).samples_N.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset_s": 5.0}, "there is nothing at 5 s: it lasts 1.000 s"),
        ({"offset_s": -1.0}, "offset_s must be"),
        ({"offset_s": float("nan")}, "offset_s must be"),
        ({"duration_s": 0.0}, "duration_s must be"),
        ({"max_bytes": 1000}, "too long to read at once"),
    ],
)
def test_parts_that_cannot_be(tmp_path: Path, options: dict[str, float], message: str) -> None:
    path = write(tmp_path / "x.wav", noise(1))
    with pytest.raises(AudioError, match=message) as caught:
        open_audio(path, **options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(str(path))


# --- hostile files ------------------------------------------------------------------------------------


def test_hostile_audio_is_one_line_each_and_runs_nothing(tmp_path: Path) -> None:
    cases = hostile_audio(tmp_path)
    assert len(cases) >= 20
    setup = "from asr.audio import open_audio\ndef act(path): open_audio(path)"
    good = write(tmp_path / "before.wav", noise(1))
    report = audited(setup, [*(path for path, _ in cases), good], warm_up=[good])
    assert report.tracebacks == []
    assert report.forbidden == []
    assert report.left == []
    assert report.stderr == ""
    assert report.messages.pop() == "", "a good file is read after all the bad ones"
    for (path, pattern), message in zip(cases, report.messages, strict=True):
        assert re.search(pattern, message), f"{path.name}: {message or 'was accepted'}"
        assert path.name.partition("\n")[0] in message
        assert message.isprintable()


@needs_ffmpeg
@pytest.mark.parametrize("cut", ["x.m4a", "x.webm", "x.mka"])
def test_files_cut_short_that_ffmpeg_reads(tmp_path: Path, cut: str) -> None:
    source = write(tmp_path / "x.wav", noise(3))
    path = with_ffmpeg(source, cut, *(["-movflags", "+faststart"] if cut == "x.m4a" else []))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="truncated"):
        open_audio(path)


@needs_ffmpeg
def test_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    source = ["-f", "lavfi", "-i", "color=s=16x16:d=0.2"]
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *source, "-c:v", "rawvideo", str(path)], check=True)
    with pytest.raises(AudioError, match=r"x\.mkv: it holds no audio"):
        open_audio(path)


@needs_ffmpeg
def test_playlists_open_no_other_file_and_no_address(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", noise(1))
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x.ts"
        hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
        mpd = "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{}</BaseURL></MPD>"
        lists = {"a.m3u8": hls, "b.wav": hls, "c.ffconcat": "ffconcat version 1.0\nfile '{}'\n", "d.mpd": mpd}
        for name, text in lists.items():
            for target in (address, good.name, str(good), f"file:{good}", f"concat:{good}|{good}"):
                (tmp_path / name).write_text(text.format(target))
                with pytest.raises(AudioError, match="not audio that can be decoded"):
                    open_audio(tmp_path / name)
        server.shutdown()
    assert asked == []


def test_without_ffmpeg_the_line_says_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"x\.m4a: libsndfile cannot read it \(.*\); install ffmpeg"):
        open_audio(tmp_path / "x.m4a")


def test_a_file_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.wav"
        path.write_bytes(wav(b"\1\2" * 800))
        os.chmod(name, 0o755)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(AudioError, match="permission denied"):
                open_audio(path)
        finally:
            os.seteuid(user)


# --- the process --------------------------------------------------------------------------------------


def decoder_pid() -> int:
    assert asr.audio._decoder is not None
    return asr.audio._decoder.process.pid


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended counts as gone even before anybody waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip.wav", noise(1))


def test_one_process_serves_many_files(clip: Path) -> None:
    open_audio(clip)
    pid = decoder_pid()
    for _ in range(20):
        open_audio(clip)
    assert decoder_pid() == pid


def test_the_decoder_is_restricted(clip: Path) -> None:
    open_audio(clip)
    assert resource.prlimit(decoder_pid(), resource.RLIMIT_AS)[0] <= _decoder.MEMORY_LIMIT_BYTES
    assert resource.prlimit(decoder_pid(), resource.RLIMIT_FSIZE)[0] == 0
    assert os.getsid(decoder_pid()) == decoder_pid(), "Ctrl-C in the terminal does not reach it"


def test_a_decoder_that_hangs_is_killed_and_replaced(clip: Path) -> None:
    open_audio(clip)
    pid = decoder_pid()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(AudioError, match=r"clip\.wav: took longer than 0\.2 s"):
        open_audio(clip, timeout_s=0.2)
    assert not Path(f"/proc/{pid}").exists(), "killed and waited for"
    assert open_audio(clip).duration_s == 1


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL])
def test_a_decoder_that_crashes_on_a_file_is_named_and_replaced(clip: Path, how: signal.Signals) -> None:
    open_audio(clip)
    pid = decoder_pid()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(open_audio, clip)
        assert eventually(asr.audio._lock.locked)
        time.sleep(0.05)
        os.kill(pid, how)
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(AudioError, match=rf"clip\.wav: the decoder crashed on it \({how.name}\)"):
            answer.result(20)
    assert open_audio(clip).duration_s == 1


def test_a_decoder_that_died_between_two_files_is_replaced_silently(clip: Path) -> None:
    open_audio(clip)
    os.kill(decoder_pid(), signal.SIGKILL)
    assert eventually(lambda: not is_alive(decoder_pid()))
    assert open_audio(clip).duration_s == 1


def test_an_interrupted_answer_does_not_spoil_the_next(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_audio(clip)

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(asr.audio._Decoder, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_audio(clip)
    np.testing.assert_allclose(open_audio(clip).samples_N, noise(1), atol=1e-4)


def test_an_ffmpeg_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(AudioError, match="ffmpeg took longer"):
        open_audio(tmp_path / "x.m4a", timeout_s=0.3)
    children = Path(f"/proc/{decoder_pid()}/task/{decoder_pid()}/children").read_text().split()
    assert children == [], "ffmpeg is gone and waited for"


def test_threads_share_the_decoder(tmp_path: Path) -> None:
    samples = [noise(0.2 + 0.01 * i) * (i + 1) / 20 for i in range(16)]
    paths = [write(tmp_path / f"{i}.wav", x, subtype="FLOAT") for i, x in enumerate(samples)]
    with ThreadPoolExecutor(8) as pool:
        for x, audio in zip(samples * 4, pool.map(open_audio, paths * 4), strict=True):
            np.testing.assert_array_equal(audio.samples_N, x)


class Clips(torch.utils.data.Dataset[tuple[int, int, float]]):
    """Reads a file for each item, and tells from which processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[int, int, float]:
        return os.getpid(), (open_audio(self.path), decoder_pid())[1], open_audio(self.path).duration_s


def test_forked_data_loader_workers_have_decoders_of_their_own(clip: Path) -> None:
    open_audio(clip)
    mine = decoder_pid()
    loader = torch.utils.data.DataLoader(
        Clips(clip), num_workers=2, multiprocessing_context="fork", collate_fn=lambda items: items[0]
    )
    seen = list(loader)
    assert [duration for _, _, duration in seen] == [1.0] * 12
    assert len({worker for worker, _, _ in seen}) == 2
    decoders = {decoder for _, decoder, _ in seen}
    assert len(decoders) == 2
    assert mine not in decoders
    assert decoder_pid() == mine
    assert open_audio(clip).duration_s == 1
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in decoders)), "no zombies either"


def test_a_fork_while_another_thread_decodes(clip: Path) -> None:
    """The forked process finds the lock free, though a thread of its parent holds it."""
    open_audio(clip)
    os.kill(decoder_pid(), signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(open_audio, clip)
        assert eventually(asr.audio._lock.locked)
        process = multiprocessing.get_context("fork").Process(target=open_audio, args=(clip,))
        process.start()
        process.join(30)
        os.kill(decoder_pid(), signal.SIGCONT)
        assert process.exitcode == 0
        assert answer.result(20).duration_s == 1


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_the_decoder_ends_with_its_parent(clip: Path, end: str) -> None:
    code = (
        "import os, sys; from asr import audio; audio.open_audio(sys.argv[1]);"
        f"print(audio._decoder.process.pid, flush=True); {end}"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(clip)], capture_output=True, text=True, cwd=root, timeout=60, check=False
    )
    assert done.stderr == ""
    assert eventually(lambda: not is_alive(int(done.stdout)))
