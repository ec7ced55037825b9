"""Long recordings cut into windows, windows put into batches: nothing is lost, nothing is too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import RATE, noises, small_model, sources, texts
from torch import Tensor

from asr.config import WhisperFeaturesConfig
from asr.data.batch import batches_by_length
from asr.decode.search import Hypothesis
from asr.recognizer import Recognizer
from asr.recognizer.batch import BatchDecoder
from asr.recognizer.decoded import Decoded
from asr.text.scripts import one_after_another
from asr.tokenizer import CharacterTokenizer
from asr.transcript import Transcript, Word
from asr.windows import QuietWindows
from asr.words import group

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it


def test_text_of_a_long_recording_joins_those_of_its_windows() -> None:
    recognizer = Recognizer(small_model(window_s=1.0, beam_size=2, n_best=2))
    (audio_N,) = noises(3.7)
    windows = [window.samples_N for window in QuietWindows(RATE, 1.0)([audio_N])]
    assert len(windows) >= 4
    parts = texts(list(recognizer.transcribe_sources(sources(windows))))
    (whole,) = recognizer.transcribe_sources(sources([audio_N]))
    assert isinstance(whole, Transcript)
    assert whole.text == " ".join(part for part in parts if part)
    assert whole.duration_s == pytest.approx(3.7)
    assert whole.alternatives == ()


@pytest.mark.parametrize("said", ["你好,再见", "我用app打卡", "สวัสดีครับ", "hello world", "《你好》 再见。"])
def test_the_text_is_the_same_with_and_without_words_and_its_words_joined(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = CharacterTokenizer.train([said])
    tokens = tokenizer.encode(said)
    spans = group(tokenizer.pieces(tokens))
    timed = tuple(Word(span.text, 2.0 * i, 2.0 * i + 1, 0.5) for i, span in enumerate(spans))  # pauses split them all

    def decode(self: BatchDecoder, audio_BN: Tensor, len_B: Tensor, *_: Any, words: bool, **__: Any) -> list[Decoded]:
        return [Decoded([Hypothesis(tuple(tokens), 0.0, {})], None, words=timed if words else ()) for _ in len_B]

    monkeypatch.setattr(BatchDecoder, "__call__", decode)
    recognizer = Recognizer(small_model(window_s=1.0)._replace(tokenizer=tokenizer))
    for count, audio in (1, noises(0.9)), (3, noises(2.6)):
        (plain,) = recognizer.transcribe_sources(sources(audio))
        (found,) = recognizer.transcribe_sources(sources(audio), words=True)
        assert isinstance(found, Transcript)
        assert len(found.segments) == count * len(spans)
        assert texts([found]) == texts([plain]) == [one_after_another([said] * count)]
        assert "".join(word.text for segment in found.segments for word in segment.words) == found.text


def test_recording_has_the_language_of_its_first_window() -> None:
    recognizer = Recognizer(small_model(["en", "es"], window_s=0.3, cut_s=0.3))
    long_N, short_N = noises(3.7, 0.2)
    windows = [window.samples_N for window in QuietWindows(RATE, 0.3)([long_N])]
    alone = [part.language for part in recognizer.transcribe_sources(sources(windows)) if isinstance(part, Transcript)]
    assert set(alone) == {"en", "es"}
    given, _ = recognizer.transcribe_sources(sources([long_N, short_N]), language=alone[0])
    found, other = recognizer.transcribe_sources(sources([long_N, short_N]))
    assert found == given
    (short,) = recognizer.transcribe_sources(sources([short_N]))
    assert isinstance(other, Transcript)
    assert isinstance(short, Transcript)
    assert (other.text, other.language) == (short.text, short.language)


def lengths_encoded(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that collects the number of samples of every window encoded from now on."""
    seen: list[int] = []
    encode: Callable[[Tensor, Tensor], object] = recognizer.model.encode
    monkeypatch.setattr(
        recognizer.model, "encode", lambda audio_BN, len_B: seen.extend(len_B.tolist()) or encode(audio_BN, len_B)
    )
    return seen


def test_audio_that_fits_a_window_is_not_cut_and_longer_audio_is(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = Recognizer(small_model(window_s=2.0, cut_s=0.5))
    seen = lengths_encoded(recognizer, monkeypatch)
    texts(list(recognizer.transcribe_sources(sources(noises(1.9)))))
    assert seen == [1.9 * RATE]
    seen.clear()
    texts(list(recognizer.transcribe_sources(sources(noises(2.1)))))
    assert sum(seen) == pytest.approx(2.1 * RATE)
    assert max(seen) <= 0.5 * RATE


def test_windows_are_no_longer_than_that_of_the_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    features = WhisperFeaturesConfig(sample_rate_hz=RATE, n_mels=20, window_s=2.0)
    encoder = {"padding": "keep", "subsampling": {"factor": 2}}
    recognizer = Recognizer(small_model(features=features, encoder=encoder, window_s=30.0))
    seen = lengths_encoded(recognizer, monkeypatch)
    texts(list(recognizer.transcribe_sources(sources(noises(5.0)))))
    assert sum(seen) == 5 * RATE
    assert max(seen) <= 2 * RATE


@given(lengths=st.lists(st.integers(0, 500), max_size=40), most=st.integers(1, 2000))
def test_batches_hold_every_index_once_within_the_budget(lengths: list[int], most: int) -> None:
    batches = list(batches_by_length(lengths, most))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= most
