"""Hotwords of a single call, in place of those of the model's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from models import RATE, noises, small_model

from asr.errors import ConfigError
from asr.recognizer import Recognizer

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it
(AUDIO_N,) = noises(1.0)


def text(recognizer: Recognizer, **options: Any) -> str:
    return recognizer.transcribe(AUDIO_N, sample_rate=RATE, **options).text


def listening(path: Path, phrase: str) -> Recognizer:
    path.write_text(f"{phrase}\n")
    return Recognizer(small_model(phrases=path, phrase_bonus=500.0))


def test_hotwords_of_a_call_replace_those_of_the_model(tmp_path: Path) -> None:
    hello, red = listening(tmp_path / "hello.txt", "hello"), listening(tmp_path / "red.txt", "red")
    plain, own = text(Recognizer(small_model())), text(hello)
    assert len({own, text(red), plain}) == 3
    for given in (["red"], ("red ",), tmp_path / "red.txt", str(tmp_path / "red.txt")):
        assert text(hello, hotwords=given) == text(red)
    assert text(hello, hotwords=[]) == plain
    assert text(Recognizer(small_model()), hotwords=["red"], hotword_bonus=500) == text(red)
    assert text(red, hotword_bonus=0) == plain
    assert text(hello) == own, "the model's own phrases must not change"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("Asterisk, PBX", "^hotwords: Asterisk, PBX: no such file; pass phrases themselves as a list$"),
        (["hello", ""], "^hotwords: each must be a name or a phrase, not ''$"),
        ([3], "^hotwords: each must be a name or a phrase, not 3$"),
    ],
)
def test_invalid_hotwords_are_refused(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        text(Recognizer(small_model()), hotwords=given)


@pytest.mark.parametrize(("bonus", "hotwords"), [(-1.0, ["red"]), (float("nan"), ["red"]), (1.0, None), (1.0, [])])
def test_invalid_hotword_bonus_is_refused(bonus: float, hotwords: list[str] | None) -> None:
    with pytest.raises(ConfigError, match=r"^hotword_bonus .*: give a number from 0 on, and hotwords with it$"):
        text(Recognizer(small_model()), hotwords=hotwords, hotword_bonus=bonus)


def test_hotwords_for_a_masked_decoder_are_refused() -> None:
    with pytest.raises(ConfigError, match="hotwords are for decoders of kind attention or none or transducer; this"):
        text(Recognizer(small_model(decoder={"kind": "mask_ctc", "layers": 1, "heads": 2})), hotwords=["hello"])


def test_hotwords_of_a_call_reach_a_transducer() -> None:
    recognizer = Recognizer(small_model(decoder={"kind": "transducer", "dim": 8, "joiner": 8}, beam_size=4))
    plain = text(recognizer)
    assert "hello" in text(recognizer, hotwords=["hello"], hotword_bonus=100.0).split()
    assert "hello" not in plain.split()
    assert text(recognizer, hotwords=["hello"], hotword_bonus=0.0) == text(recognizer, hotwords=[]) == plain
