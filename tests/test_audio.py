"""Decoding audio files: good ones in every format, damaged ones and hostile ones."""

from __future__ import annotations

import http.server
import itertools
import os
import random
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audit import audited
from hostile import encoded, hostile_audio, noise, wav
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_ffmpeg

from asr.audio import MAX_BYTES, audio_length, open_audio
from asr.audio.child import Decoder, Patience
from asr.audio.files import request_for
from asr.errors import AudioError


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
def test_libsndfile_formats_are_decoded(
    tmp_path: Path, rate: int, name: str, subtype: str, tolerance: float | None
) -> None:
    if subtype == "OPUS" and rate == 44100:
        pytest.skip("Opus has no 44.1 kHz")
    samples = noise(0.5, rate)
    path = write(tmp_path / name, samples, rate, subtype=subtype)
    audio = open_audio(path)
    assert audio.sample_rate_hz == rate
    assert audio.samples_N.dtype == np.float32
    assert audio.samples_N.shape == samples.shape
    assert audio.samples_N.flags.writeable
    assert audio.duration_s == audio_length(path).duration_s == 0.5
    if tolerance is None:
        np.testing.assert_allclose(audio.samples_N, soundfile.read(path, dtype="float32")[0], rtol=0, atol=1e-6)
    else:
        np.testing.assert_allclose(audio.samples_N, samples, rtol=0, atol=tolerance)


def test_long_mp3_read_in_blocks_has_no_clicks(tmp_path: Path) -> None:
    """Against libsndfile, which reads it at once."""
    path = write(tmp_path / "x.mp3", noise(60, 24000), 24000)
    whole_N = soundfile.read(path, dtype="float32")[0]
    np.testing.assert_allclose(open_audio(path).samples_N, whole_N, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = noise(0.3, channels=channels)
    path = write(tmp_path / "x.wav", samples, subtype="FLOAT")
    np.testing.assert_allclose(open_audio(path).samples_N, samples.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(open_audio(path, channels=[1]).samples_N, samples[:, 1], atol=1e-6)
    some = open_audio(path, channels=[channels - 1, 0], offset_s=0.1)
    np.testing.assert_allclose(some.samples_N, samples[1600:, [channels - 1, 0]].mean(axis=1), atol=1e-6)
    with pytest.raises(AudioError, match=rf"x\.wav: it holds no channel 6: it has {channels}, counted from 0"):
        open_audio(path, channels=[0, 6])


@needs_ffmpeg
def test_ffmpeg_decodes_a_single_channel(tmp_path: Path) -> None:
    samples = noise(0.3, channels=2)
    path = with_ffmpeg(write(tmp_path / "x.wav", samples, subtype="FLOAT"), "x.mkv", "-c:a", "pcm_f32le")
    np.testing.assert_allclose(open_audio(path, channels=[1]).samples_N, samples[:, 1], atol=1e-6)


@needs_ffmpeg
@pytest.mark.parametrize("channels", [1, 2])
def test_ffmpeg_decodes_lossless_audio_exactly(tmp_path: Path, channels: int) -> None:
    samples = noise(0.5, 44100, channels)
    source = write(tmp_path / "x.wav", samples, 44100, subtype="PCM_16")
    path = with_ffmpeg(source, "x.mka", "-c:a", "flac")
    audio = open_audio(path)
    assert audio.sample_rate_hz == 44100
    np.testing.assert_allclose(audio.samples_N, samples.reshape(len(samples), -1).mean(axis=1), atol=1 / 32768)
    assert audio_length(path).duration_s == audio.duration_s == 0.5
    np.testing.assert_array_equal(
        open_audio(path, offset_s=0.1, duration_s=0.2).samples_N, audio.samples_N[4410 : 4410 + 8820]
    )
    with pytest.raises(AudioError, match=r"nothing at 0\.6 s: it lasts 0\.500 s"):
        open_audio(path, offset_s=0.6)
    with pytest.raises(AudioError, match="too long to read at once"):
        open_audio(path, max_bytes=1000)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["x.m4a", "x.mp4", "x.webm", "x.mkv", "x.aac", "x.wma", "x.avi"])
def test_ffmpeg_formats_are_decoded(tmp_path: Path, name: str) -> None:
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


@pytest.mark.parametrize("tag", [1, 3])
@pytest.mark.parametrize(("whole", "size"), [(0, 0), (36, 0), (2**32 - 1, 0), (2**32 - 1, 2**32 - 1)])
def test_wav_without_sizes_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: int, whole: int, size: int
) -> None:
    """As a pipe and a recorder that was cut off leave them; the recorder may have stopped within a sample."""
    monkeypatch.setenv("PATH", "")
    samples = noise(0.5)
    data = (samples * 32767).astype("<i2").tobytes() if tag == 1 else samples.tobytes()
    made = bytearray(wav(data, tag=tag, rate=16000, bits=16 if tag == 1 else 32, size=size))
    made[4:8] = whole.to_bytes(4, "little")
    for cut in (0, 1):
        path = tmp_path / f"{cut}.wav"
        path.write_bytes(made[: len(made) - cut])
        assert audio_length(path).samples == 8000 - cut
        np.testing.assert_allclose(open_audio(path).samples_N, samples[: 8000 - cut], rtol=0, atol=1 / 16384)
        np.testing.assert_allclose(open_audio(path, offset_s=0.4).samples_N, samples[6400 : 8000 - cut], atol=1 / 16384)


def test_closed_wav_without_audio_holds_no_samples(tmp_path: Path) -> None:
    note = b"LIST" + struct.pack("<I", 4) + b"INFO"
    made = bytearray(wav(b"") + note)
    made[4:8] = struct.pack("<I", len(made) - 8)
    (tmp_path / "x.wav").write_bytes(made)
    with pytest.raises(AudioError, match="it holds no samples"):
        open_audio(tmp_path / "x.wav")


@needs_ffmpeg
def test_concatenated_ogg_streams_are_all_read(tmp_path: Path) -> None:
    parts = []
    for number, seconds in enumerate((0.5, 0.25)):
        source = write(tmp_path / "x.wav", noise(seconds))
        parts.append(with_ffmpeg(source, f"{number}.ogg", "-serial_offset", str(number)).read_bytes())
    (tmp_path / "x.ogg").write_bytes(b"".join(parts))
    assert open_audio(tmp_path / "x.ogg").duration_s == pytest.approx(0.75, abs=0.05)


ODD_NAMES = ["-i", "a:b", "http:x", "a b;c'\"$(d)", "new\nline", "%d", "*", "речь", os.fsdecode(b"\xff\xfe")]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_file_names_are_not_interpreted(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(wav(b"\1\2" * 800))
    assert open_audio(name).duration_s == 0.1
    if shutil.which("ffmpeg"):
        made = with_ffmpeg(Path(tmp_path / "good.wav"), "x.mka") if write(tmp_path / "good.wav", noise(0.1)) else None
        assert made is not None
        made.rename(name)
        assert open_audio(name).duration_s == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3"])
def test_consecutive_parts_add_up_to_the_whole_recording(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise(3, 22050), 22050)
    whole = open_audio(path).samples_N
    step = 0.77777
    parts = [open_audio(path, offset_s=i * step, duration_s=step) for i in range(4)]
    joined = np.concatenate([part.samples_N for part in parts])
    np.testing.assert_allclose(joined, whole, rtol=0, atol=1e-6 if name == "x.mp3" else 0)
    tail = open_audio(path, offset_s=2.5)
    assert len(tail.samples_N) == len(whole) - round(2.5 * 22050)
    assert len(open_audio(path, offset_s=1, duration_s=1e-9).samples_N) == 1


def test_a_silent_part_of_a_recording_is_not_an_error(tmp_path: Path) -> None:
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
def test_invalid_parts_are_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    path = write(tmp_path / "x.wav", noise(1))
    with pytest.raises(AudioError, match=message) as caught:
        open_audio(path, **options)
    assert str(caught.value).startswith(str(path))


# --- hostile files ------------------------------------------------------------------------------------


def test_hostile_audio_gives_one_line_errors_and_executes_nothing(tmp_path: Path) -> None:
    cases = hostile_audio(tmp_path)
    assert len(cases) >= 20
    setup = "from asr.audio import open_audio\ndef act(path): open_audio(path)"
    good = write(tmp_path / "before.wav", noise(1))
    report = audited(setup, [*(path for path, _ in cases), good], warm_up=[good])
    assert report.tracebacks == []
    assert report.forbidden == []
    assert report.left == []
    assert report.stderr == ""
    assert report.messages.pop() == "", "a good file must still be read after all the bad ones"
    for (path, pattern), message in zip(cases, report.messages, strict=True):
        assert re.search(pattern, message), f"{path.name}: {message or 'was accepted'}"
        assert path.name.partition("\n")[0] in message
        assert message.isprintable()


@needs_ffmpeg
@pytest.mark.parametrize("cut", ["x.m4a", "x.webm", "x.mka", "x.wv", "x.tta", "x.rm", "x.avi", "x.caf"])
def test_files_that_end_early_are_refused_with_ffmpeg(tmp_path: Path, cut: str) -> None:
    source = write(tmp_path / "x.wav", noise(10))
    path = with_ffmpeg(source, cut, *(["-movflags", "+faststart"] if cut == "x.m4a" else []))
    assert audio_length(path).duration_s == pytest.approx(10, abs=0.1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="truncated"):
        open_audio(path)


@needs_ffmpeg
def test_video_without_audio_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    source = ["-f", "lavfi", "-i", "color=s=16x16:d=0.2"]
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *source, "-c:v", "rawvideo", str(path)], check=True)
    with pytest.raises(AudioError, match=r"x\.mkv: it holds no audio"):
        open_audio(path)


@needs_ffmpeg
def test_playlists_open_no_other_file_or_url(tmp_path: Path) -> None:
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


def test_error_without_ffmpeg_suggests_installing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"x\.m4a: libsndfile cannot read it \(.*\); install ffmpeg"):
        open_audio(tmp_path / "x.m4a")


def test_unreadable_file_is_reported_as_permission_denied() -> None:
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


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32), kind=st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF", "W64", "CAF", "NIST", "VOC"])
)
def test_damaged_audio_gives_an_error_or_finite_samples(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str
) -> None:
    """Randomly changed bytes never crash the decoder, hang it, or give samples that are not finite."""
    generator = random.Random(seed)
    data = bytearray(encoded(noise(0.2), format=kind))
    for _ in range(generator.randint(1, 6)):
        data[generator.randrange(generator.choice([40, 200, len(data)]))] = generator.randrange(256)
    path = tmp_path_factory.mktemp("damaged") / "x"
    path.write_bytes(data[: generator.choice([len(data), generator.randrange(1, len(data))])])
    message, samples_N = "", np.zeros(1, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # ffmpeg is slow
        try:
            samples_N = open_audio(path).samples_N
        except AudioError as error:
            message = str(error)
    assert not re.search(r"crashed|took longer|failed on it|no sense", message), message
    assert message.isprintable()
    assert len(samples_N) > 0
    assert np.isfinite(samples_N).all()


def test_time_limit_excludes_time_while_the_process_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(8000, 0.1, np.float32), 8000)
    now = itertools.count(0.0, 3600.0)
    monkeypatch.setattr("asr.audio.child.time.monotonic", lambda: next(now))
    assert len(open_audio(path, timeout_s=5.0).samples_N) == 8000


def test_reader_may_be_stopped_for_longer_than_the_time_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(60))
    decoder = Decoder.started()
    decoder.send(request_for(path, 0.5, MAX_BYTES))  # more samples than a pipe holds
    time.sleep(6.0)  # the decoder's own alarm comes 5 s after the limit
    data, answer = decoder.receive(MAX_BYTES, Patience(30.0))
    assert (len(data), answer) == (4 * 60 * 16000, {"rate": 16000, "frames": 60 * 16000})
    decoder.stop()
