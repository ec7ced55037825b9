"""CTC models with a language model or a phrase list: beam search over prefix scores instead of over frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import RATE, noises, small_model

from asr.checkpoint import save_model_folder
from asr.data.batch import pad_audio
from asr.decode.search import Hypothesis
from asr.lm.train import train_ngrams
from asr.recognizer import Recognizer

CTC = {"kind": "none"}
AUDIO, LENGTHS = pad_audio(noises(0.3, 0.5, 0.8))


@pytest.fixture
def phrases(tmp_path: Path) -> Path:
    path = tmp_path / "phrases.txt"
    path.write_text("hello\n")
    return path


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    save_model_folder(folder / "model", small_model(decoder=CTC))
    (folder / "texts.txt").write_text("hello world\nhello\nworld\n")
    train_ngrams([folder / "texts.txt"], folder / "model", 3, folder / "lm.arpa", "token")
    return folder / "lm.arpa"


def decoded(rows: slice = slice(None), **options: Any) -> list[list[Hypothesis]]:
    recognizer = Recognizer(small_model(decoder=CTC, **options))
    audio_BN, len_B = AUDIO[rows], LENGTHS[rows]
    return recognizer.decode(audio_BN[:, : int(len_B.max())], len_B)


def test_search_over_prefixes_equals_search_over_frames(phrases: Path) -> None:
    wide: dict[str, Any] = {"beam_size": 800, "n_best": 3, "length_bonus": 0.2}  # so wide that neither prunes
    (framed,), (fused,) = decoded(slice(1), **wide), decoded(slice(1), phrases=phrases, phrase_bonus=0.0, **wide)
    assert [h.tokens for h in fused] == [h.tokens for h in framed]
    torch.testing.assert_close([h.score for h in fused], [h.score for h in framed], rtol=0.0, atol=1e-3)


def test_phrases_and_language_models_change_the_text(phrases: Path, lm: Path) -> None:
    for given in ({"phrases": phrases, "phrase_bonus": 100.0}, {"lm": lm, "lm_weight": 5.0}):
        plain, fused = decoded(beam_size=8), decoded(beam_size=8, **given)
        assert all(one[0].tokens != other[0].tokens for one, other in zip(plain, fused, strict=True))
        name = "phrases" if "phrases" in given else "lm"
        weight = given.get("phrase_bonus", 5.0)
        for best, *_ in fused:
            torch.testing.assert_close(best.score, best.parts["ctc"] + weight * best.parts[name], rtol=1e-4, atol=1e-3)


def test_a_fused_text_does_not_depend_on_its_batch(phrases: Path, lm: Path) -> None:
    given: dict[str, Any] = {"phrases": phrases, "lm": lm, "beam_size": 4}
    together = decoded(**given)
    for row in range(len(AUDIO)):
        (alone,) = decoded(slice(row, row + 1), **given)
        assert alone[0].tokens == together[row][0].tokens


def test_hotwords_of_a_call_reach_ctc() -> None:
    recognizer = Recognizer(small_model(decoder=CTC, beam_size=4))
    (audio_N,) = noises(0.8)
    plain = recognizer.transcribe(audio_N, sample_rate=RATE).text
    biased = recognizer.transcribe(audio_N, sample_rate=RATE, hotwords=["hello"], hotword_bonus=100.0).text
    assert "hello" in biased.split()
    assert recognizer.transcribe(audio_N, sample_rate=RATE, hotwords=[]).text == plain
