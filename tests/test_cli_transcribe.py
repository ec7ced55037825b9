"""`asr transcribe` beyond plain text: subtitles, word times, phrase lists, standard input, Ctrl-C."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from command import asr
from models import RATE, noises, small_model

from asr.checkpoint import save_model_folder
from asr.recognizer.batch import BatchDecoder
from asr.windows import QuietWindows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model_folder(folder, small_model(window_s=2.0))
    return folder


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """Audio whose text is the same on every processor; that of seed 1 is empty on some."""
    path = tmp_path / "call.wav"
    soundfile.write(path, noises(1.0, seed=2)[0].numpy(), RATE, subtype="FLOAT")
    return path


def test_all_formats_are_written_at_once(model: Path, call: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert asr("transcribe", call, "--model", model, "--format", "txt,json,srt,vtt,tsv", "--out", out).status == 0
    assert {path.name for path in out.iterdir()} == {f"call.{kind}" for kind in ("txt", "json", "srt", "vtt", "tsv")}
    told = json.loads((out / "call.json").read_text())
    text = (out / "call.txt").read_text().strip()
    assert told["text"] == text != ""
    words = [word for segment in told["segments"] for word in segment["words"]]
    assert "".join(word["text"] for word in words).split() == text.split()
    assert all(0 <= word["start_s"] <= word["end_s"] <= 1.0 for word in words)
    assert "-->" in (out / "call.srt").read_text()


def test_words_are_timed_only_on_request(model: Path, call: Path) -> None:
    plain = json.loads(asr("transcribe", call, "--model", model, "--format", "json").out)
    timed = json.loads(asr("transcribe", call, "--model", model, "--format", "json", "--words").out)
    assert not any(segment["words"] for segment in plain["segments"])
    assert all(segment["words"] for segment in timed["segments"])
    assert plain["text"] == timed["text"]


def test_hotwords_change_the_text(model: Path, call: Path, tmp_path: Path) -> None:
    phrases = tmp_path / "names.txt"
    phrases.write_text("hello\n")
    plain = asr("transcribe", call, "--model", model).out
    assert "hello" not in plain
    listened = asr("transcribe", call, "--model", model, "--hotwords", phrases, "--hotword-bonus", "500")
    assert listened.status == 0
    assert "hello" in listened.out


def test_standard_input_is_transcribed(model: Path, call: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = asr("transcribe", call, "--model", model).out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(call.read_bytes())))
    assert asr("transcribe", "-", "--model", model).out == expected


def test_partial_transcript_is_written_on_ctrl_c(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / "long.wav", tmp_path / "out"
    soundfile.write(path, noises(9.0)[0].numpy(), RATE, subtype="FLOAT")
    monkeypatch.setattr("asr.loading.load_detector", lambda rate: None)
    monkeypatch.setattr("asr.recognizer.pool.POOL_S", 1.0)
    assert asr("transcribe", path, "--model", model, "--format", "json", "--out", tmp_path).status == 0
    whole = json.loads((tmp_path / "long.json").read_text())
    windows = iter(range(100))
    decode = BatchDecoder.__call__

    def interrupted(self: BatchDecoder, *args: object, **options: object) -> object:
        if next(windows) == 2:
            raise KeyboardInterrupt
        return decode(self, *args, **options)

    monkeypatch.setattr(BatchDecoder, "__call__", interrupted)
    stopped = asr("transcribe", path, "--model", model, "--format", "json", "--out", out)
    assert stopped.status == 130
    told = json.loads((out / "long.json").read_text())
    assert told["complete"] is False
    assert 0 < told["duration_s"] < 9.0
    assert told["segments"]
    assert told["segments"][-1]["end_s"] <= told["duration_s"] + 1e-3
    times = [(segment["start_s"], segment["text"]) for segment in told["segments"]]
    of_whole = [(segment["start_s"], segment["text"]) for segment in whole["segments"]]
    assert times == [each for each in of_whole if each in times]
    assert len(times) < len(of_whole)


def test_long_recording_is_decoded_while_it_is_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asr.checkpoint import load_model_folder
    from asr.recognizer import Opened, Recognizer, Source

    recognizer = Recognizer(load_model_folder(model))
    monkeypatch.setattr("asr.recognizer.pool.POOL_S", 1.0)
    read: list[int] = []
    decoded: list[int] = []
    call = recognizer.decoder.__class__.__call__

    def counting(self: BatchDecoder, *args: object, **options: object) -> object:
        decoded.append(len(read))
        return call(self, *args, **options)

    def blocks() -> Iterator[object]:
        for i, block_N in enumerate(noises(*[1.0] * 30)):
            read.append(i)
            yield block_N

    monkeypatch.setattr(BatchDecoder, "__call__", counting)
    (result,) = recognizer.transcribe_sources([Source("a", lambda: Opened(blocks(), None))])
    assert isinstance(recognizer.cut, QuietWindows)
    assert result.duration_s == pytest.approx(30.0)
    assert decoded[0] < 10, "decoding must begin long before the recording has been read"


def test_batch_seconds_is_auto_or_a_positive_number(model: Path, call: Path) -> None:
    expected = asr("transcribe", call, "--model", model).out
    for size in ("auto", "0.5", "1e6"):
        assert asr("transcribe", call, "--model", model, "--batch-seconds", size).out == expected
    for size in ("0", "-3", "nan", "inf", "many", ""):
        done = asr("transcribe", call, "--model", model, "--batch-seconds", size)
        assert (done.status, done.out) == (2, "")
        (line,) = done.err
        assert line.startswith(f"asr: invalid value for '--batch-seconds': {size}: give auto, or seconds above 0")
