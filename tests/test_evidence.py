"""Evidence from rereading a text, against the decoder's own attention weights and probabilities."""

from __future__ import annotations

import pytest
import torch
from models import noises, small_model

import asr.model.decoder
import asr.model.reading
from asr.data.batch import pad_audio
from asr.evidence import Evidence, evidence, heard_at
from asr.model.attention import explicit
from asr.model.masks import Memory

TEXTS = ([5, 6, 7, 8], [9], [], [10, 11, 5])
NOBODY = 3  # any token serves as the no-speech token


def read(texts: list[list[int]], rows: list[int]) -> list[Evidence]:
    parts = small_model(["en", "es"])
    audio_BN, len_B = pad_audio([noises(1.0, 0.5, 1.5, 0.7)[i] for i in rows])
    with torch.no_grad():
        memory = parts.model.encode(audio_BN, len_B)
    prefix_BP = torch.tensor([parts.tokenizer.prefix("en")] * len(rows))
    return evidence(parts.model.decoder, memory, prefix_BP, texts, no_speech_id=NOBODY)


@torch.no_grad()
def test_positions_and_probabilities_equal_the_decoders() -> None:
    parts = small_model(["en", "es"])
    for i, (text, found) in enumerate(zip(TEXTS, read(list(TEXTS), [0, 1, 2, 3]), strict=True)):
        audio_BN, len_B = pad_audio([noises(1.0, 0.5, 1.5, 0.7)[i]])
        memory = parts.model.encode(audio_BN, len_B)
        prefix = parts.tokenizer.prefix("en")
        logits_1LV, (weight_1HLT,) = parts.model.decoder(torch.tensor([[*prefix, *text]]), memory, explicit)
        log_prob_LV = logits_1LV[0].log_softmax(-1)
        assert found.frames == int(memory.len_B[0])
        assert found.no_speech == pytest.approx(float(log_prob_LV[0, NOBODY].exp()), abs=1e-5)
        expected = [float(log_prob_LV[len(prefix) - 1 + n, token]) for n, token in enumerate(text)]
        assert list(found.log_probs) == pytest.approx(expected, abs=1e-4)
        peaks_HL = weight_1HLT[0].argmax(-1)[:, len(prefix) - 1 :]
        assert list(found.positions) == [int(peaks_HL[:, n].median()) for n in range(len(text))]


def test_evidence_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    together = read(list(TEXTS), [0, 1, 2, 3])
    monkeypatch.setattr(asr.model.reading, "MOST_WEIGHTS", 1)  # one by one
    monkeypatch.setattr(asr.model.decoder, "MOST_LOGITS", 1)
    for text, i, a in zip(TEXTS, range(4), together, strict=True):
        (b,) = read([text], [i])
        assert (a.positions, a.frames) == (b.positions, b.frames)
        assert list(a.log_probs) == pytest.approx(list(b.log_probs), abs=1e-4)
    assert [e.positions for e in read(list(TEXTS), [0, 1, 2, 3])] == [e.positions for e in together]


def test_no_speech_is_none_without_a_no_speech_token() -> None:
    parts = small_model()
    with torch.no_grad():
        memory = parts.model.encode(*pad_audio(noises(1.0)))
    (found,) = evidence(parts.model.decoder, memory, torch.tensor([parts.tokenizer.prefix()]), [[5]])
    assert found.no_speech is None
    empty = Memory(*(x[:0] for x in memory))
    assert evidence(parts.model.decoder, empty, torch.zeros(0, 1, dtype=torch.long), []) == []


def test_token_position_is_the_median_over_heads_of_upper_layers() -> None:
    peaks = [torch.tensor(heads)[None, :, None] for heads in ([9, 9, 9], [7, 7, 1], [3, 4, 90])]
    assert heard_at(peaks).tolist() == [[4]]  # the lower median of 1, 3, 4, 7, 7, 90
