"""Word times: dynamic time warping over cross-attention, and forced alignment with CTC.

Shapes: B windows, T frames that hold speech, P start tokens, L tokens, R = L + 1 rows (the tokens and the end), H
heads, K head width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
import torchaudio.functional as TA
from torch import Tensor

from asr.lengths import within
from asr.losses import ctc_fits
from asr.model.attention import NO_DROPOUT, fused
from asr.model.layers import Dropout
from asr.model.masks import Memory
from asr.model.reading import Reading, readings
from asr.model.speech import SpeechModel
from asr.pauses import find_pauses, keep_to_pauses
from asr.tokenizer import Tokenizer
from asr.transcript import Word
from asr.words import Span, group

FILTER = 7  # frames, as in Whisper
LONG_S = 1.0  # longer words are trimmed
TAIL = 0.15  # share of its attention that a long word loses at either end

Frames = list[tuple[int, int]]


class WordTimer:
    """Finds start, end and probability of the words of a text that is already known.

    The decoder reads the text once more, all tokens at the same time, so it does not matter how the text was found.
    Models with a CTC head are aligned by CTC if the text fits into the frames, since its errors were smaller than those
    of attention.  spoken: whether the texts are what is said, which CTC spells, rather than translations.  heads:
    (layer, head) pairs whose cross-attention follows the speech; if empty, all heads of the upper half of the layers.
    """

    def __init__(
        self,
        model: SpeechModel,
        tokenizer: Tokenizer,
        frame_s: float,
        heads: Iterable[tuple[int, int]] = (),
        *,
        spoken: bool = True,
    ) -> None:
        self.model, self.tokenizer, self.frame_s = model, tokenizer, frame_s
        self.ctc = model.ctc if spoken else None
        counts = model.decoder.heads
        chosen = list(heads) or [(i, h) for i in range(len(counts) // 2, len(counts)) for h in range(counts[i])]
        self.heads: dict[int, list[int]] = {}
        for layer, head in chosen:
            self.heads.setdefault(layer, []).append(head)

    @torch.inference_mode()
    def words(
        self, memory: Memory, texts: Sequence[Sequence[int]], prefix_BP: Tensor, audio_BN: Tensor, audio_len_B: Tensor
    ) -> list[list[Word]]:
        """Return the words of each window, in seconds from its start.

        memory: that of the waveforms audio_BN, at the front end's rate.  texts: tokens without start and end.
        prefix_BP: the start tokens with which they were found.
        """
        found: list[list[Word]] = []
        rate = self.model.front_end.sample_rate_hz
        for reading in readings(self.model.decoder, memory, prefix_BP, texts):
            waves = zip(audio_BN[reading.part].cpu(), audio_len_B[reading.part].tolist(), strict=True)
            for (spans, frames, scores), (audio_N, length) in zip(self._align(reading), waves, strict=True):
                found.append(timed_words(spans, frames, scores, audio_N[:length], rate, self.frame_s))
        return found

    def _align(self, reading: Reading) -> Iterator[tuple[list[Span], Frames, list[float]]]:
        """Yield the words, their frames and the log-probabilities of all tokens of each text."""
        decoder, memory, texts = self.model.decoder, reading.memory, reading.texts
        len_B = torch.tensor([len(text) for text in texts], device=reading.tokens_BL.device)
        spoken = memory._replace(len_B=memory.len_B.clamp(min=1))
        attention = HeadAttention(self.heads, spoken.len_B, reading.prefix_BP.shape[1], len_B)
        x_BLD, _ = decoder.read(reading.fed_BL, memory, attention)
        log_prob_BL = decoder.log_probs(x_BLD[:, reading.predicting], reading.tokens_BL)
        starts = monotonic_path(attention.contrast_BRT, len_B + 1, spoken.len_B).tolist()
        by_ctc = self._align_ctc(spoken, texts)
        for b, text in enumerate(texts):
            spans = group(self.tokenizer.pieces(text))
            if (runs := by_ctc[b]) is not None:
                frames = ctc_words(spans, runs)
            else:
                frames = attention_words(spans, starts[b], attention.weight_BRT[b], round(LONG_S / self.frame_s))
            yield spans, frames, log_prob_BL[b].tolist()

    def _align_ctc(self, memory: Memory, texts: Sequence[Sequence[int]]) -> list[Frames | None]:
        if self.ctc is None:
            return [None] * len(texts)
        log_prob_BTV, frames = self.ctc(memory), memory.len_B.tolist()
        blank = self.tokenizer.blank_id
        return [forced_path(x[:t], text, blank) for x, t, text in zip(log_prob_BTV, frames, texts, strict=True)]


def timed_words(
    spans: Sequence[Span], frames: Frames, log_probs: Sequence[float], audio_N: Tensor, rate_hz: int, frame_s: float
) -> list[Word]:
    """Turn frames [start, end) of words into times that respect pauses in the recording; log_probs: of all tokens."""
    duration_s = len(audio_N) / rate_hz
    times = [(a * frame_s, min(b * frame_s, duration_s)) for a, b in frames]
    times = keep_to_pauses(times, find_pauses(audio_N, rate_hz), duration_s)
    words = []
    for i, (span, (start_s, end_s)) in enumerate(zip(spans, times, strict=True)):
        said = log_probs[span.said]
        text = span.text if i else span.text.lstrip()
        words.append(Word(text, round(start_s, 3), round(end_s, 3), math.exp(sum(said) / len(said))))
    return words


class HeadAttention:
    """An `attend` (see asr.model.attention) that sums up, over chosen heads, what each row of a text attends to.

    The layers must call it in order.  weight_BRT: the mean weights over the frames that hold speech.  contrast_BRT:
    each head's weights normalised to mean 0 and variance 1 over all tokens, so that frames to which every token attends
    do not count; then the mean over heads, median filtered over time.  This is the method of OpenAI's Whisper
    (whisper/timing.py), except that Whisper filters before taking the mean, which costs more by the number of heads
    without smaller errors.
    """

    def __init__(self, heads: dict[int, list[int]], frames_B: Tensor, prefix: int, len_B: Tensor) -> None:
        self.heads, self.frames_B, self.prefix, self.len_B = heads, frames_B, prefix, len_B
        self._layer, self._T = -1, int(frames_B.max())
        self._weight_BRT = self._contrast_BRT = torch.zeros(())

    def __call__(
        self, q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, dropout: Dropout = NO_DROPOUT
    ) -> tuple[Tensor, Tensor | None]:
        self._layer += 1
        if chosen := self.heads.get(self._layer):
            score_BHLT = q_BHLK[:, chosen].float() @ k_BHTK[:, chosen, : self._T].float().transpose(-1, -2)
            score_BHLT = score_BHLT * q_BHLK.shape[-1] ** -0.5
            if weight_BHLT is not None:  # other scores than products; -inf is padding, which is masked below
                more_BHLT = weight_BHLT.expand(-1, q_BHLK.shape[1], -1, -1)[:, chosen, :, : self._T].float()
                score_BHLT = score_BHLT + more_BHLT.masked_fill(more_BHLT.isinf(), 0.0)
            self._add(score_BHLT)
        return fused(q_BHLK, k_BHTK, v_BHTK, weight_BHLT, dropout)

    @property
    def weight_BRT(self) -> Tensor:
        return self._weight_BRT / sum(map(len, self.heads.values()))

    @property
    def contrast_BRT(self) -> Tensor:
        return median_filter(self._contrast_BRT / sum(map(len, self.heads.values())), self.frames_B)

    def _add(self, score_BHLT: Tensor) -> None:
        padding_B11T = ~within(self.frames_B, self._T)[:, None, None]
        weight_BHLT = score_BHLT.masked_fill(padding_B11T, -math.inf).softmax(-1)
        fed_B = self.prefix + self.len_B
        fed_B1L1 = within(fed_B, score_BHLT.shape[2])[:, None, :, None]
        mean_BH1T = (weight_BHLT * fed_B1L1).sum(2, keepdim=True) / fed_B[:, None, None, None]
        off_BHLT = weight_BHLT - mean_BH1T
        variance_BH1T = (off_BHLT * fed_B1L1).square().sum(2, keepdim=True) / fed_B[:, None, None, None]
        contrast_BHLT = off_BHLT * variance_BH1T.clamp(min=1e-18).rsqrt()
        # While reading token l the decoder attends to where it finds token l + 1.
        self._weight_BRT = self._weight_BRT + weight_BHLT[:, :, self.prefix - 1 :].sum(1)
        self._contrast_BRT = self._contrast_BRT + contrast_BHLT[:, :, self.prefix - 1 :].sum(1)


def median_filter(x_BRT: Tensor, frames_B: Tensor) -> Tensor:
    """Take the median of FILTER frames around each; the sequence is mirrored at both ends."""
    T, half = x_BRT.shape[-1], FILTER // 2
    around_S = torch.arange(-half, T + half, device=x_BRT.device).abs()
    last_B1 = frames_B[:, None] - 1
    index_BS = torch.where(around_S > last_B1, 2 * last_B1 - around_S, around_S).clamp(0, T - 1)
    return x_BRT.gather(2, index_BS[:, None].expand(-1, x_BRT.shape[1], -1)).unfold(2, FILTER, 1).median(-1)[0]


def monotonic_path(gain_BRT: Tensor, rows_B: Tensor, frames_B: Tensor) -> Tensor:
    """Dynamic time warping (Sakoe & Chiba 1978): return the frame at which each row begins, (B, R).

    The path has the highest sum of gains from the first row and frame to the last, in steps of a row, a frame or both.
    A row is entered at one frame and left at the same or a later one, so the best way through row r is a running
    minimum: D[r, t] = C[t] + min over e <= t of (A[e] - C[e - 1]), where C is the cumulative cost of the row and A[e]
    is the cost of the best way to enter it at frame e.  Rows beyond `rows_B` are 0.
    """
    B, R, T = gain_BRT.shape
    cost_BRT = -gain_BRT.double()
    entry_BRT = torch.empty(B, R, T, dtype=torch.long, device=gain_BRT.device)
    straight_BRT = torch.empty(B, R, T, dtype=torch.bool, device=gain_BRT.device)
    best_BT = cost_BRT.new_full((B, T + 1), math.inf)  # of the row before, shifted by one frame
    best_BT[:, 0] = 0.0
    for r in range(R):
        sum_BT = cost_BRT[:, r].cumsum(1)
        straight_BRT[:, r] = best_BT[:, 1:] < best_BT[:, :-1]  # the row before is left at this frame
        reach_BT = torch.minimum(best_BT[:, 1:], best_BT[:, :-1]) - (sum_BT - cost_BRT[:, r])
        way_BT, entry_BRT[:, r] = reach_BT.cummin(1)
        best_BT = torch.cat([best_BT.new_full((B, 1), math.inf), way_BT + sum_BT], 1)
    start_BR = torch.zeros(B, R, dtype=torch.long, device=gain_BRT.device)
    at_B1 = frames_B[:, None] - 1
    for r in range(R - 1, -1, -1):
        start_B1 = entry_BRT[:, r].gather(1, at_B1)
        is_row_B1 = rows_B[:, None] > r
        start_BR[:, r : r + 1] = start_B1 * is_row_B1
        before_B1 = (start_B1 - 1 + straight_BRT[:, r].gather(1, start_B1).long()).clamp(min=0)
        at_B1 = torch.where(is_row_B1, before_B1, at_B1)
    return start_BR


def attention_words(spans: Sequence[Span], starts: Sequence[int], weight_RT: Tensor, long: int) -> Frames:
    """Return frames [start, end) of words whose tokens begin at `starts`; the last of these is the end of the text.

    Punctuation is left out, as it attends to the pause after the word.  If a word takes more than `long` frames, most
    of them are not speech; it keeps those that hold the middle 70 % of its attention.
    """
    frames = []
    for span in spans:
        start, end = starts[span.said.start], starts[span.said.stop]
        if end - start > long:
            share_T = weight_RT[span.said, start:end].sum(0).cumsum(0)
            inside = ((share_T > TAIL * share_T[-1]) & (share_T < (1 - TAIL) * share_T[-1])).nonzero()[:, 0].tolist()
            start, end = (start + inside[0], start + inside[-1] + 1) if inside else (start, end)
        frames.append((start, end))
    return frames


def forced_path(log_prob_TV: Tensor, text: Sequence[int], blank: int) -> Frames | None:
    """Return frames [start, end) of each token on the best CTC path for the text; None if it does not fit."""
    if not text or blank in text or not ctc_fits(len(log_prob_TV), list(text)):
        return None
    target_1L = torch.tensor([list(text)], dtype=torch.int32, device=log_prob_TV.device)
    labels_1T, scores_1T = TA.forced_align(log_prob_TV[None].contiguous(), target_1L, blank=blank)
    return [(run.start, run.end) for run in TA.merge_tokens(labels_1T[0], scores_1T[0], blank=blank)]


def ctc_words(spans: Sequence[Span], runs: Frames) -> Frames:
    """Return frames [start, end) of words; CTC marks a token for a frame or two, so words share the blanks between."""
    frames = [(runs[span.said.start][0], runs[span.said.stop - 1][1]) for span in spans]
    middle = [(end + start) // 2 for (_, end), (start, _) in zip(frames, frames[1:], strict=False)]
    first, last = frames[:1], frames[-1:]
    return list(zip([a for a, _ in first] + middle, middle + [b for _, b in last], strict=True))
