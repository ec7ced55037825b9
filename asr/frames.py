"""Word times from a path of the tokens through the frames, for models without cross-attention that follows time.

Shapes: B windows, T frames that hold speech, R of them, P start tokens, L tokens, U = L + 1 positions between them, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.align import Frames, ctc_words, forced_path, timed_words
from asr.model.decoder import MOST_LOGITS
from asr.model.masks import Memory
from asr.model.transducer import Transducer
from asr.tokenizer import Tokenizer
from asr.transcript import Word
from asr.words import group


class Aligned(NamedTuple):
    """Frames [start, end) of each token of a text, and the tokens' log-probabilities there."""

    frames: Frames
    log_probs: Sequence[float]


# From memory, texts without start and end, and start tokens to alignments, None for a text that does not fit.
Aligner = Callable[[Memory, Sequence[Sequence[int]], Tensor], Sequence[Aligned | None]]


class FrameTimer:
    """Finds start, end and probability of the words of a text from an alignment of its tokens to frames.

    A text that does not fit into the frames, which only a poor model produces, is spread over them evenly, and its
    words get probability 0.
    """

    def __init__(self, align: Aligner, tokenizer: Tokenizer, rate_hz: int, frame_s: float) -> None:
        self.align, self.tokenizer, self.rate_hz, self.frame_s = align, tokenizer, rate_hz, frame_s

    @torch.inference_mode()
    def words(
        self,
        memory: Memory,
        texts: Sequence[Sequence[int]],
        prefix_BP: Tensor,
        audio_BN: Tensor,
        audio_len_B: Tensor,
    ) -> list[list[Word]]:
        """Return the words of each window, in seconds from its start; arguments as for WordTimer."""
        found = []
        aligned = self.align(memory, texts, prefix_BP)
        rows = zip(texts, aligned, memory.len_B.tolist(), audio_BN.cpu(), audio_len_B.tolist(), strict=True)
        for text, path, frames, audio_N, length in rows:
            spans = group(self.tokenizer.pieces(text))
            runs, log_probs = path or _even(len(text), frames)
            at = ctc_words(spans, runs)
            found.append(timed_words(spans, at, log_probs, audio_N[:length], self.rate_hz, self.frame_s))
        return found


def _even(tokens: int, frames: int) -> Aligned:
    return Aligned([(i * frames // tokens, (i + 1) * frames // tokens) for i in range(tokens)], [-math.inf] * tokens)


class CTCAligner:
    """Aligns a text by its best CTC path."""

    def __init__(self, posteriors: Callable[[Memory], tuple[Tensor, Tensor]], blank_id: int) -> None:
        self.posteriors, self.blank_id = posteriors, blank_id

    def __call__(self, memory: Memory, texts: Sequence[Sequence[int]], prefix_BP: Tensor) -> list[Aligned | None]:
        log_prob_BTV, len_B = self.posteriors(memory)
        rows = zip(log_prob_BTV, len_B.tolist(), texts, strict=True)
        return [self._aligned(log_prob_TV[:frames], text) for log_prob_TV, frames, text in rows]

    def _aligned(self, log_prob_TV: Tensor, text: Sequence[int]) -> Aligned | None:
        runs = forced_path(log_prob_TV, text, self.blank_id)
        if runs is None:
            return None
        means = [log_prob_TV[a:b, token].mean() for (a, b), token in zip(runs, text, strict=True)]
        return Aligned(runs, torch.stack(means).tolist())


class TransducerAligner:
    """Aligns a text by a transducer's best path: the frame at which each token is produced."""

    def __init__(self, transducer: Transducer, blank_id: int) -> None:
        self.transducer, self.blank_id = transducer, blank_id

    def __call__(self, memory: Memory, texts: Sequence[Sequence[int]], prefix_BP: Tensor) -> list[Aligned | None]:
        rows = zip(memory.states_BTD, memory.len_B.tolist(), texts, prefix_BP, strict=True)
        return [self._aligned(states_TD[:frames], text, prefix_P) for states_TD, frames, text, prefix_P in rows]

    def _aligned(self, states_TD: Tensor, text: Sequence[int], prefix_P: Tensor) -> Aligned | None:
        if not text or not len(states_TD):
            return None
        text_L = prefix_P.new_tensor(text)
        tokens_1L = torch.cat([prefix_P, text_L])[None]
        rows = max(1, MOST_LOGITS // (len(text) + 1) // self.transducer.vocab_size)
        blanks, said = [], []
        for some_RD in states_TD.split(rows):  # only two columns of the logits are needed
            logits_1RUV = self.transducer(tokens_1L, len(prefix_P), some_RD[None])
            log_prob_RUV = logits_1RUV[0].double().log_softmax(-1)
            blanks.append(log_prob_RUV[..., self.blank_id])
            said.append(log_prob_RUV[:, :-1].gather(2, text_L[None, :, None].expand(len(some_RD), -1, 1))[..., 0])
        said_TL = torch.cat(said)
        at = best_alignment(torch.cat(blanks), said_TL)
        return Aligned([(t, t + 1) for t in at], said_TL[at, range(len(at))].tolist())


def best_alignment(blank_TU: Tensor, said_TL: Tensor) -> list[int]:
    """Return the frame of each token on the most probable path through a transducer's lattice.

    blank_TU: log-probabilities of advancing to the next frame.  said_TL: those of producing the next token.  A position
    is entered at one frame and left at the same or a later one, so the best way to it is a running maximum over frames.
    """
    way_T = _before(blank_TU[:, 0])
    entries = []
    for u in range(1, blank_TU.shape[1]):
        passed_T = _before(blank_TU[:, u])
        best_T, entry_T = (way_T + said_TL[:, u - 1] - passed_T).cummax(0)
        way_T = best_T + passed_T
        entries.append(entry_T.tolist())
    at, found = len(blank_TU) - 1, []
    for entry in reversed(entries):
        at = entry[at]
        found.append(at)
    return found[::-1]


def _before(x_T: Tensor) -> Tensor:
    """Return the sum of all elements before each one."""
    return x_T.cumsum(0) - x_T
