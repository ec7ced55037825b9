"""Batched beam search for transducers; greedy search is a beam of 1.

Shapes: B utterances, K beam, N = B x K hypotheses, T frames, P start tokens, J width of the joiner, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from asr.decode.prefixes import History, Names, Step, keep_best, merge
from asr.decode.search import Hypothesis, SearchOptions

State = tuple[Tensor, ...]


class Joined(Protocol):
    """The part of a transducer that the search uses; the first dimension of a state's tensors is N."""

    def start(self, prefix_NP: Tensor) -> tuple[Tensor, State]:
        """Return the projected tokens so far, (N, J), and the state, after the start tokens."""
        ...

    def step(self, tokens_N: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the projected tokens so far and the state after one more token each."""
        ...

    def look(self, frame_NJ: Tensor, token_NJ: Tensor) -> Tensor:
        """Return log-probabilities (N, V) of blank and tokens at a frame."""
        ...


class Limits(NamedTuple):
    """Tokens that are never produced, and the most tokens at a frame and in each text."""

    never: Sequence[int]
    symbols: int
    tokens_B: Sequence[int]


class _Ended(NamedTuple):
    """An ended hypothesis: its scores with and without the bonus, its number of steps, and its place in the beam."""

    ranked: float
    score: float
    steps: int
    place: int


@dataclass
class _Beam:
    """Hypotheses: their scores without the bonus, their current frames, and how many tokens each has at that frame."""

    score_BK: Tensor
    frame_BK: Tensor
    symbols_BK: Tensor
    names: Names
    token_NJ: Tensor
    state: State
    history: History = field(default_factory=History)
    ended: list[list[_Ended]] = field(default_factory=list)


@torch.inference_mode()
def transducer_search(
    model: Joined,
    frames_BTJ: Tensor,
    len_B: Tensor,
    prefix_BP: Tensor,
    blank_id: int,
    limits: Limits,
    options: SearchOptions,
) -> list[list[Hypothesis]]:
    """Alignment-length synchronous search (Saon et al. 2020): find the most probable texts, best first.

    A step is a blank, which advances to the next frame, or a token, so after equally many steps all hypotheses of one
    text are at the same frame.  They are merged: apart from pruning, a text's score is the sum over all its alignments.
    A hypothesis ends with the blank of its last frame; an utterance is done when no open hypothesis is more probable
    than those found.  The score is the log-probability plus the length bonus for each token.
    """
    device, B = frames_BTJ.device, len(len_B)
    most_B1 = torch.tensor(limits.tokens_B, device=device)[:, None]
    beam = _open(model, prefix_BP, options.beam_size, len_B)
    while bool(beam.score_BK.isfinite().any()):
        log_prob_BKV = _look(model, beam, frames_BTJ, len_B)
        log_prob_BKV[..., list(limits.never)] = -math.inf
        stay_BK = beam.score_BK + log_prob_BKV[..., blank_id]
        longer_BKV = beam.score_BK[..., None] + log_prob_BKV
        longer_BKV[..., blank_id] = -math.inf
        full_BK = (beam.symbols_BK >= limits.symbols) | (beam.names.count_BK >= most_B1)
        into_BK, longer_BKV = merge(
            longer_BKV.masked_fill(full_BK[..., None], -math.inf), beam.names, beam.score_BK.isfinite()
        )
        step = keep_best(torch.logaddexp(stay_BK, into_BK), longer_BKV, beam.names, options.length_bonus)
        _follow(model, beam, step, len_B, most_B1, options)
    return [_hypotheses(beam, b, limits.tokens_B[b], options) for b in range(B)]


def _open(model: Joined, prefix_BP: Tensor, K: int, len_B: Tensor) -> _Beam:
    B, device = len(prefix_BP), prefix_BP.device
    token_BJ, state = model.start(prefix_BP)
    zero_BK = torch.zeros(B, K, dtype=torch.long, device=device)
    beam = _Beam(
        score_BK=torch.full((B, K), -math.inf, dtype=torch.double, device=device),
        frame_BK=zero_BK,
        symbols_BK=zero_BK,
        names=Names.empty(B, K, device),
        token_NJ=token_BJ.repeat_interleave(K, 0),
        state=tuple(x.repeat_interleave(K, 0) for x in state),
        ended=[[] if length else [_Ended(0.0, 0.0, 0, 0)] for length in len_B.tolist()],
    )
    beam.score_BK[len_B > 0, 0] = 0.0  # all hypotheses start alike, so only the first may branch
    return beam


def _look(model: Joined, beam: _Beam, frames_BTJ: Tensor, len_B: Tensor) -> Tensor:
    """Return log-probabilities (B, K, V) of what comes next."""
    at_BK = torch.minimum(beam.frame_BK, len_B[:, None] - 1).clamp(min=0)
    frame_BKJ = frames_BTJ.gather(1, at_BK[..., None].expand(-1, -1, frames_BTJ.shape[2]))
    return model.look(frame_BKJ.flatten(0, 1), beam.token_NJ).unflatten(0, at_BK.shape).double()


def _follow(model: Joined, beam: _Beam, step: Step, len_B: Tensor, most_B1: Tensor, options: SearchOptions) -> None:
    """Apply a step: hypotheses that end leave the beam, and utterances that are done are closed."""
    B, K = step.from_BK.shape
    stays_BK = step.stays_BK
    frame_BK, symbols_BK = (x.gather(1, step.from_BK) for x in (beam.frame_BK, beam.symbols_BK))
    beam.frame_BK = frame_BK + stays_BK
    # Of merged hypotheses, the count of the one that took the blank is kept.
    beam.symbols_BK = torch.where(stays_BK, 0, symbols_BK + 1)
    beam.names = beam.names.follow(step)
    beam.history.steps.append(step)
    beam.score_BK = step.score_BK
    over_BK = beam.score_BK.isfinite() & (beam.frame_BK >= len_B[:, None])
    bonus, count_BK = options.length_bonus, beam.names.count_BK
    for b, k in over_BK.nonzero().tolist():
        score = float(beam.score_BK[b, k])
        beam.ended[b].append(_Ended(score + bonus * int(count_BK[b, k]), score, len(beam.history.steps), k))
    beam.score_BK = beam.score_BK.masked_fill(over_BK, -math.inf)
    # The best score that is still possible: a bonus counts for all tokens that there is room for, a negative one
    # only for those already there.
    hope_BK = beam.score_BK + bonus * (most_B1 if bonus > 0 else count_BK)
    for b, most in enumerate(hope_BK.logsumexp(1).tolist()):
        best = sorted((each.ranked for each in beam.ended[b]), reverse=True)[: options.n_best]
        if len(best) == options.n_best and most < best[-1]:
            beam.score_BK[b] = -math.inf
    from_N = (step.from_BK + torch.arange(B, device=len_B.device)[:, None] * K).flatten()
    beam.token_NJ, beam.state = beam.token_NJ[from_N], tuple(x[from_N] for x in beam.state)
    moved_M = (~stays_BK & beam.score_BK.isfinite()).flatten().nonzero()[:, 0]
    if len(moved_M):
        gained_M = step.gained_BK.flatten()[moved_M]
        beam.token_NJ[moved_M], after = model.step(gained_M, tuple(x[moved_M] for x in beam.state))
        for x, new in zip(beam.state, after, strict=True):
            x[moved_M] = new


def _hypotheses(beam: _Beam, b: int, most: int, options: SearchOptions) -> list[Hypothesis]:
    texts = beam.history.texts(b, [(each.steps, each.place) for each in beam.ended[b]])
    found = [
        Hypothesis(text, each.ranked, {"transducer": each.score}, 0 < most <= len(text))
        for each, text in zip(beam.ended[b], texts, strict=True)
    ]
    return sorted(found, key=lambda h: -h.score)[: options.n_best]
