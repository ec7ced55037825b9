"""Evidence from the decoder, which reads a text once more: where each token is heard, and how probable it is.

Shapes: B windows, P start tokens, L tokens, H heads, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.model.attention import NO_DROPOUT, explicit
from asr.model.decoder import Decoder
from asr.model.layers import Dropout
from asr.model.masks import Memory
from asr.model.reading import readings


class Evidence(NamedTuple):
    """The evidence for and against a text.

    positions: the frame where each token is heard, see `heard_at`.  frames: how many hold the recording; positions
    beyond these are in the silence that fills up the window.  log_probs: those of the tokens.  no_speech: the
    probability that nobody speaks, if the model predicts it.
    """

    positions: Sequence[int]
    frames: int
    log_probs: Sequence[float]
    no_speech: float | None = None


@torch.inference_mode()
def evidence(
    decoder: Decoder,
    memory: Memory,
    prefix_BP: Tensor,
    texts: Sequence[Sequence[int]],
    *,
    no_speech_id: int | None = None,
) -> list[Evidence]:
    """Read texts, tokens without start and end, against the memory of their windows.

    no_speech_id: the token that Whisper predicts after the start token, the first of the prefix, if nobody speaks
    (Radford et al. 2022).
    """
    found: list[Evidence] = []
    for reading in readings(decoder, memory, prefix_BP, texts):
        x_BLD, peaks = decoder.read(reading.fed_BL, reading.memory, _peaks)
        predicting = reading.predicting
        log_prob_BL = decoder.log_probs(x_BLD[:, predicting], reading.tokens_BL)
        position_BL = heard_at(peaks)[:, predicting]
        silence: list[float | None] = [None] * len(reading.texts)
        if no_speech_id is not None:
            nobody_B1 = torch.full((len(reading.texts), 1), no_speech_id, device=x_BLD.device)
            silence = decoder.log_probs(x_BLD[:, :1], nobody_B1)[:, 0].exp().tolist()
        columns = (position_BL.tolist(), reading.memory.len_B.tolist(), log_prob_BL.tolist(), silence)
        for text, positions, frames, log_probs, nobody in zip(reading.texts, *columns, strict=True):
            found.append(Evidence(positions[: len(text)], frames, log_probs[: len(text)], nobody))
    return found


def heard_at(peaks: Sequence[Tensor]) -> Tensor:
    """Return the frame where each token is heard, (B, L): the median of the frames to which the heads attend most.

    peaks: these frames (B, H, L) of each layer; a token's row is the one that predicts it.  Only the upper half of the
    layers counts, since lower heads attend to other things than the token's sound.  The median is right as long as half
    of the heads follow the speech.
    """
    return torch.cat(list(peaks[len(peaks) // 2 :]), dim=1).median(1).values


def _peaks(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, dropout: Dropout = NO_DROPOUT
) -> tuple[Tensor, Tensor | None]:
    """An `attend` that returns where the attention weights are largest in place of the weights."""
    y_BHLK, attention_BHLT = explicit(q_BHLK, k_BHTK, v_BHTK, weight_BHLT, dropout)
    assert attention_BHLT is not None
    return y_BHLK, attention_BHLT.argmax(-1)
