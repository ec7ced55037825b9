"""When each word was said, from a path of its tokens through the frames, where no cross-attention follows time.

Shapes: B windows, T frames that hold speech, P start tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.align import Frames, ctc_words, forced_path, timed_words
from asr.model.masks import Memory
from asr.tokenizer import Tokenizer
from asr.transcript import Word
from asr.words import group


class Aligned(NamedTuple):
    """Frames [start, end) of each token of a text, and the tokens' log-probabilities there."""

    frames: Frames
    log_probs: Sequence[float]


# Memory, texts without start and end, and the start tokens -> the alignment of each, None where a text does not fit.
Aligner = Callable[[Memory, Sequence[Sequence[int]], Tensor], Sequence[Aligned | None]]


class FrameTimer:
    """Finds start, end and probability of the words of a text by an alignment of its tokens to frames.

    A text that does not fit into the frames, which only a poor model finds, is spread over them evenly.
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
        """Give the words of each window, in seconds from its start; arguments as for WordTimer."""
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
    return Aligned([(i * frames // tokens, (i + 1) * frames // tokens) for i in range(tokens)], [0.0] * tokens)


class CTCAligner:
    """The best CTC path that spells a text."""

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
