"""What the decoder tells of a text when it reads it once more: where each token is heard, how probable it is.

Shapes: B windows, P start tokens, L tokens, H heads, T frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.model.attention import explicit
from asr.model.decoder import Decoder
from asr.model.masks import Memory

MOST_LOGITS = 1 << 24  # 64 MB are formed at a time


class Evidence(NamedTuple):
    """What speaks for and against a text.

    positions: the frame where each token is heard, see `heard_at`.  frames: how many hold the recording; positions
    beyond are silence that fills the window.  log_probs: of the tokens.  no_speech: the probability that nobody
    speaks, where the model gives one.
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
    start: int = 0,
    no_speech_id: int | None = None,
) -> list[Evidence]:
    """Read texts, tokens without start and end, against the memory of their windows.

    start: where the start token stands in the prefix, after which Whisper predicts the token `no_speech_id` if nobody
    speaks (Radford et al. 2022).
    """
    found: list[Evidence] = []
    P, longest = prefix_BP.shape[1], max(map(len, texts), default=0)
    rows = max(1, MOST_LOGITS // ((P + longest) * decoder.embedding.num_embeddings))
    for at in range(0, len(texts), rows):
        part = slice(at, at + rows)
        chosen = Memory(*(x[part] for x in memory))
        tokens_BL = torch.zeros(len(texts[part]), longest, dtype=torch.long, device=prefix_BP.device)
        for row_L, text in zip(tokens_BL, texts[part], strict=True):
            row_L[: len(text)] = torch.tensor(text, dtype=torch.long)
        logits_BLV, peaks = decoder(torch.cat([prefix_BP[part], tokens_BL], 1), chosen, _peaks)
        log_norm_BL = logits_BLV.float().logsumexp(-1)
        predicted = slice(P - 1, P - 1 + longest)
        chosen_BL = logits_BLV[:, predicted].gather(2, tokens_BL[..., None])[..., 0].float()
        log_prob_BL = chosen_BL - log_norm_BL[:, predicted]
        position_BL = heard_at(peaks)[:, predicted]
        silence: list[float | None] = [None] * len(tokens_BL)
        if no_speech_id is not None:
            silence = (logits_BLV[:, start, no_speech_id].float() - log_norm_BL[:, start]).exp().tolist()
        columns = (position_BL.tolist(), chosen.len_B.tolist(), log_prob_BL.tolist(), silence)
        for text, positions, frames, log_probs, nobody in zip(texts[part], *columns, strict=True):
            found.append(Evidence(positions[: len(text)], frames, log_probs[: len(text)], nobody))
    return found


def heard_at(peaks: Sequence[Tensor]) -> Tensor:
    """The frame where each token is heard, (B, L): the middle one of those where the heads look most.

    peaks: these frames (B, H, L) in each layer; the row of a token is the one that predicts it.  Only the upper half
    of the layers counts, for heads below look at other things than the token's sound.  The median holds as long as
    half of the heads follow the speech.
    """
    return torch.cat(list(peaks[len(peaks) // 2 :]), dim=1).median(1).values


def _peaks(q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """An `attend` that keeps of the weights only where they are largest."""
    y_BHLK, attention_BHLT = explicit(q_BHLK, k_BHTK, v_BHTK, weight_BHLT)
    assert attention_BHLT is not None
    return y_BHLK, attention_BHLT.argmax(-1)
