"""Transcription from Python of a path, an open file or samples in memory: the same text, or an error in one line."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from models import RATE, noises, small_model, texts

from asr.errors import AudioError
from asr.recognizer import Recognizer
from asr.resampling import resample
from asr.transcript import Failure

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it

(AUDIO_N,) = noises(1.5, seed=2)


@pytest.fixture(scope="module")
def greedy() -> Recognizer:
    return Recognizer(small_model())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "a.wav"
    sf.write(path, AUDIO_N.numpy(), RATE, subtype="FLOAT")
    return path


def test_samples_and_open_files_give_the_text_of_the_file(greedy: Recognizer, path: Path) -> None:
    expected = greedy.transcribe(path)
    assert expected.text
    memory, apart = io.BytesIO(path.read_bytes()), np.repeat(AUDIO_N.numpy(), 2)[::2]
    with path.open("rb") as file:
        by_file, by_memory = greedy.transcribe(file), greedy.transcribe(memory)
    kinds: list[Any] = [AUDIO_N, AUDIO_N.double().requires_grad_(), AUDIO_N.numpy(), apart, apart.astype(">f8")]
    arrays = [greedy.transcribe(samples, sample_rate=RATE) for samples in kinds]
    assert [each.text for each in (by_file, by_memory, *arrays)] == [expected.text] * 7
    assert {each.duration_s for each in (by_file, by_memory, *arrays)} == {expected.duration_s}
    assert [by_file.id, by_memory.id, arrays[0].id] == [str(path), "open file", "array"]
    results = greedy.transcribe_sources([greedy.source(AUDIO_N, sample_rate=RATE), greedy.source(path)])
    assert texts(list(results)) == [expected.text] * 2


@pytest.mark.parametrize("hertz", [16000, 44099])
def test_samples_of_another_rate_are_resampled(greedy: Recognizer, hertz: int) -> None:
    other_N = resample(AUDIO_N, RATE, hertz)
    expected = greedy.transcribe(resample(other_N, hertz, RATE), sample_rate=RATE)
    found = greedy.transcribe(other_N.numpy(), sample_rate=np.int64(hertz))
    assert found.text == expected.text
    assert found.duration_s == pytest.approx(1.5, abs=1e-3)


def test_source_copies_the_callers_samples(greedy: Recognizer) -> None:
    mine_N = AUDIO_N.clone()
    source = greedy.source(mine_N, sample_rate=RATE)
    mine_N.zero_()
    assert texts(list(greedy.transcribe_sources([source]))) == [greedy.transcribe(AUDIO_N, sample_rate=RATE).text]


SAMPLES_N = AUDIO_N.numpy()


@pytest.mark.parametrize(
    ("samples", "rate", "says"),
    [
        (SAMPLES_N, None, "array: give its sample_rate, in hertz, too"),
        (SAMPLES_N, 0, "array: sample_rate 0: give a whole number of hertz from 1000 to 1000000"),
        (SAMPLES_N, 8000.5, "array: sample_rate 8000.5: give a whole number"),
        (SAMPLES_N[None], RATE, "array: samples are those of one channel, (N,), not of shape (1, 12000)"),
        (np.ones(()), RATE, "not of shape ()"),
        ((SAMPLES_N * 100).astype(np.int16), RATE, "floats from -1 to 1, not int16; divide those of int16 by 32768"),
        (torch.ones(9, dtype=torch.int16), RATE, "floats from -1 to 1, not torch.int16"),
        (SAMPLES_N + 1j, RATE, "not complex"),
        (SAMPLES_N * 32768, RATE, "floats from -1 to 1, not up to "),
        (np.append(SAMPLES_N, np.nan), RATE, "array: it has samples that are not finite numbers (NaN or infinite)"),
        (SAMPLES_N[:0], RATE, "array: it holds no samples"),
        (np.zeros(800), RATE, "array: silent: every sample is zero"),
        ([0.1, 0.2], RATE, "audio is a path, a file open in binary mode or an array of samples, not list"),
        (None, None, "not NoneType"),
        (b"RIFF\0secret", None, "an array of samples, not bytes; io.BytesIO makes a file of them"),
        (io.StringIO("RIFF"), None, "open file: is open as text; open it in binary mode, 'rb'"),
        (io.BytesIO(b"RIFF"), None, "open file: "),
        (io.BytesIO(), None, "open file: is empty (0 bytes)"),
        (io.BytesIO(b"RIFF"), RATE, "open file: sample_rate is for arrays of samples; a file tells its own"),
        ("a.wav", RATE, "a.wav: sample_rate is for arrays of samples; a file tells its own"),
    ],
)
def test_invalid_audio_is_reported_in_one_line(greedy: Recognizer, samples: Any, rate: Any, says: str) -> None:
    with pytest.raises(AudioError, match=f"^(?!.*(secret|\n)).*{re.escape(says)}"):
        greedy.transcribe(samples, sample_rate=rate)


def test_closed_or_write_only_file_is_refused(greedy: Recognizer, path: Path, tmp_path: Path) -> None:
    with path.open("rb") as closed:
        pass
    with pytest.raises(AudioError, match=r"a\.wav: cannot be read: "):
        greedy.transcribe(closed)
    with (tmp_path / "new.wav").open("wb") as new, pytest.raises(AudioError, match=r"new\.wav: cannot be read: "):
        greedy.transcribe(new)


def test_folder_expands_to_the_audio_files_in_it(greedy: Recognizer, path: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    (calls / "more").mkdir(parents=True)
    for name in ("b.wav", "a.wav", "more/c.wav", ".hidden.wav"):
        (calls / name).write_bytes(path.read_bytes())
    (calls / "notes.txt").write_text("no audio")
    results = list(greedy.transcribe_sources(greedy.files([calls, path, path])))
    own = [f"{calls}/a.wav", f"{calls}/b.wav", f"{calls}/more/c.wav"]
    assert [result.id for result in results] == [*own, str(path), str(path)]
    assert len(set(texts(results))) == 1
    (tmp_path / "empty").mkdir()
    (failed,) = greedy.transcribe_sources(greedy.files([tmp_path / "empty"]))
    assert isinstance(failed, Failure)
    assert failed.reason == f"{tmp_path}/empty: there is no audio file in this folder"
