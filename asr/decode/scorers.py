"""Scorers used beside the decoder: CTC prefix scores and forbidden tokens.

Shapes: B utterances, N hypotheses, T frames, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr.compaction import compacted
from asr.lengths import within


class CTCState(NamedTuple):
    """Forward variables of every prefix, as log-probabilities in float64.

    log_prob_BTV, prob_BTV: CTC posteriors.  utterance_N: their row for each hypothesis.  nonblank_NT, blank_NT: for t
    in 0..T, the probability that the first t frames spell the prefix and end in its last token or in blank.  prefix_N:
    the prefix score.  last_N: the prefix's last token, -1 for none.  begun: whether the start tokens have been fed.
    """

    log_prob_BTV: Tensor
    prob_BTV: Tensor
    utterance_N: Tensor
    nonblank_NT: Tensor
    blank_NT: Tensor
    prefix_N: Tensor
    last_N: Tensor
    begun: bool = False


class CTCPrefixScorer:
    """The probability that CTC's text begins with the prefix (Watanabe et al. 2017), for joint decoding.

    `posteriors` gives log-probabilities (B, T, V) and lengths (B,) from the encoder's memory.  The tokens of the first
    step are start tokens, which CTC does not have.  The recursions over frames are linear, so they are written as
    cumulative sums, and the scores of all next tokens are one matrix product per utterance; float64 keeps them
    accurate.
    """

    _FLOOR = -1e3

    def __init__(self, posteriors: Callable[[Any], tuple[Tensor, Tensor]], blank_id: int, eos_id: int) -> None:
        self.posteriors = posteriors
        self.blank_id, self.eos_id = blank_id, eos_id

    def start(self, memory: Any) -> CTCState:
        log_prob_BTV, len_B = self.posteriors(memory)
        B, T, _ = log_prob_BTV.shape
        log_prob_BTV = log_prob_BTV.clamp(min=self._FLOOR).double()
        # After its end an utterance continues with blanks of probability 1, so the last column covers all of it.
        padding_BT1 = ~within(len_B, T)[..., None]
        log_prob_BTV.masked_fill_(padding_BT1, self._FLOOR)
        log_prob_BTV[..., self.blank_id].masked_fill_(padding_BT1[..., 0], 0.0)
        blank_BT = _prepend(log_prob_BTV[..., self.blank_id].cumsum(1), 0.0)
        return CTCState(
            log_prob_BTV,
            log_prob_BTV.exp(),
            torch.arange(B, device=len_B.device),
            torch.full_like(blank_BT, -math.inf),
            blank_BT,
            torch.zeros_like(blank_BT[:, 0]),
            torch.full((B,), -1, device=len_B.device),
        )

    def step(self, tokens_NL: Tensor, state: CTCState) -> tuple[Tensor, CTCState]:
        for tokens_N in tokens_NL.unbind(1) if state.begun else ():
            state = self._extend(tokens_N, state)
        B, K = len(state.prob_BTV), len(tokens_NL) // len(state.prob_BTV)
        phi_NT = torch.logaddexp(state.nonblank_NT, state.blank_NT)[:, :-1]
        top_N1 = phi_NT.amax(1, keepdim=True).clamp(min=-1e300)
        reach_BKV = (phi_NT - top_N1).exp().view(B, K, -1) @ state.prob_BTV
        score_NV = reach_BKV.flatten(0, 1).log() + top_N1
        # A repeated token needs a blank before it.
        has_last_N = state.last_N >= 0
        last_N = state.last_N.clamp(min=0)
        again_N = torch.logsumexp(state.blank_NT[:, :-1] + self._emission(last_N, state), dim=1)
        again_N = torch.where(has_last_N, again_N, score_NV.gather(1, last_N[:, None])[:, 0])
        score_NV.scatter_(1, last_N[:, None], again_N[:, None])
        score_NV[:, self.eos_id] = torch.logaddexp(state.nonblank_NT[:, -1], state.blank_NT[:, -1])
        score_NV[:, self.blank_id] = -math.inf
        gain_NV = score_NV - state.prefix_N[:, None]
        return gain_NV.nan_to_num(nan=-math.inf, neginf=-math.inf).float(), state._replace(begun=True)

    def reorder(self, state: CTCState, index_N: Tensor) -> CTCState:
        rows, row_of_N = state.utterance_N[index_N].unique_consecutive(return_inverse=True)
        return CTCState(
            compacted(state.log_prob_BTV, rows),
            compacted(state.prob_BTV, rows),
            row_of_N,
            state.nonblank_NT[index_N],
            state.blank_NT[index_N],
            state.prefix_N[index_N],
            state.last_N[index_N],
            state.begun,
        )

    def _emission(self, tokens_N: Tensor, state: CTCState) -> Tensor:
        """Return the log-probability (N, T) of one token of each hypothesis at each frame."""
        return state.log_prob_BTV[state.utterance_N, :, tokens_N]

    def _extend(self, tokens_N: Tensor, state: CTCState) -> CTCState:
        token_NT = self._emission(tokens_N, state)
        blank_NT = state.log_prob_BTV[state.utterance_N, :, self.blank_id]
        either_NT = torch.logaddexp(state.nonblank_NT, state.blank_NT)
        enter_NT = torch.where((tokens_N == state.last_N)[:, None], state.blank_NT, either_NT)[:, :-1]
        prefix_N = torch.logsumexp(enter_NT + token_NT, dim=1)
        new_nonblank_NT = _prepend(_decay(enter_NT, token_NT), -math.inf)
        new_blank_NT = _prepend(_decay(new_nonblank_NT[:, :-1], blank_NT), -math.inf)
        return state._replace(nonblank_NT=new_nonblank_NT, blank_NT=new_blank_NT, prefix_N=prefix_N, last_N=tokens_N)


def _decay(enter_NT: Tensor, stay_NT: Tensor) -> Tensor:
    """Solve a_t = log(exp(a_{t-1}) + exp(enter_t)) + stay_t, a_0 = -inf, for all t at once."""
    path_NT = stay_NT.cumsum(1)
    return path_NT + torch.logcumsumexp(enter_NT - _prepend(path_NT, 0.0)[:, :-1], dim=1)


def _prepend(x_NT: Tensor, value: float) -> Tensor:
    return torch.cat([torch.full_like(x_NT[:, :1], value), x_NT], dim=1)


class ForbidScorer:
    """Forbids tokens: those in `always` everywhere, those in `first` as the first token of the text."""

    def __init__(self, vocab_size: int, always: Sequence[int], first: Sequence[int], prefix_length: int) -> None:
        # Row 0: log-weights of every token but the first; row 1: of the first.
        self.weight_2V = torch.zeros(2, vocab_size)
        self.weight_2V[:, list(always)] = -math.inf
        self.weight_2V[1, list(first)] = -math.inf
        self.prefix_length = prefix_length

    def start(self, memory: Any) -> int:
        return 0

    def step(self, tokens_NL: Tensor, state: int) -> tuple[Tensor, int]:
        state += tokens_NL.shape[1]
        self.weight_2V = self.weight_2V.to(tokens_NL.device)  # copies only once
        first = int(state == self.prefix_length)
        return self.weight_2V[first : first + 1], state

    def reorder(self, state: int, index_N: Tensor) -> int:
        return state
