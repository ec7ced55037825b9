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

from asr.decode.fusion import Added, Fusion
from asr.decode.prefixes import History, Names, Step, keep_best, merge
from asr.decode.search import EMPTY, Hypothesis, SearchOptions

State = tuple[Tensor, ...]
ALONE = Fusion()


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
    """An ended hypothesis: its score, its log-probability, the parts of other scorers, and where it left the beam."""

    ranked: float
    log_prob: float
    parts: list[float]
    steps: int
    place: int


@dataclass
class _Beam:
    """Hypotheses: their log-probabilities, their current frames, and how many tokens each has at that frame.

    added: what other scorers add to the log-probabilities.
    """

    score_BK: Tensor
    frame_BK: Tensor
    symbols_BK: Tensor
    names: Names
    token_NJ: Tensor
    state: State
    added: Added
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
    fusion: Fusion = ALONE,
) -> list[list[Hypothesis]]:
    """Alignment-length synchronous search (Saon et al. 2020): find the most probable texts, best first.

    A step is a blank, which advances to the next frame, or a token, so after equally many steps all hypotheses of one
    text are at the same frame.  They are merged: apart from pruning, a text's score is the sum over all its alignments.
    A hypothesis ends with the blank of its last frame; an utterance is done when no open hypothesis can become better
    than those found (see `_hope`).  The score is the log-probability plus the length bonus for each token and what the
    scorers of `fusion` add: for a token when it is added, nothing for a blank, and for the end of the text when the
    hypothesis ends.  So equal texts have equal additions, and only their probabilities are summed.
    """
    device, B = frames_BTJ.device, len(len_B)
    most_B1 = torch.tensor(limits.tokens_B, device=device)[:, None]
    beam = _open(model, prefix_BP, options.beam_size, len_B, fusion)
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
        extra = beam.added.extra(beam.frame_BK + 1 >= len_B[:, None])
        step = keep_best(torch.logaddexp(stay_BK, into_BK), longer_BKV, beam.names, options.length_bonus, extra)
        final_BKS = _follow(beam, step)
        _end(beam, (beam.frame_BK >= len_B[:, None]) & beam.score_BK.isfinite(), final_BKS, options.length_bonus)
        _close(beam, _hope(beam, len_B, most_B1, limits.symbols, options.length_bonus), options.n_best)
        _predict(model, beam, step)
    return [_hypotheses(beam, b, limits.tokens_B[b], options.n_best) for b in range(B)]


def _open(model: Joined, prefix_BP: Tensor, K: int, len_B: Tensor, fusion: Fusion) -> _Beam:
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
        added=fusion.open(prefix_BP, K),
        ended=[[] for _ in range(B)],
    )
    beam.score_BK[:, 0] = 0.0  # all hypotheses start alike, so only the first may branch
    _end(beam, (len_B[:, None] == 0) & beam.score_BK.isfinite(), beam.added.ended_BKS, 0.0)  # no frames, no text
    return beam


def _look(model: Joined, beam: _Beam, frames_BTJ: Tensor, len_B: Tensor) -> Tensor:
    """Return log-probabilities (B, K, V) of what comes next."""
    at_BK = torch.minimum(beam.frame_BK, len_B[:, None] - 1).clamp(min=0)
    frame_BKJ = frames_BTJ.gather(1, at_BK[..., None].expand(-1, -1, frames_BTJ.shape[2]))
    return model.look(frame_BKJ.flatten(0, 1), beam.token_NJ).unflatten(0, at_BK.shape).double()


def _follow(beam: _Beam, step: Step) -> Tensor:
    """Apply a step; return the other scorers' parts (B, K, S) as they are for texts that end with it."""
    final_BKS = beam.added.ended_BKS.gather(1, step.from_BK[..., None].expand_as(beam.added.parts_BKS))
    frame_BK, symbols_BK = (x.gather(1, step.from_BK) for x in (beam.frame_BK, beam.symbols_BK))
    beam.frame_BK = frame_BK + step.stays_BK
    # Of merged hypotheses, the count of the one that took the blank is kept.
    beam.symbols_BK = torch.where(step.stays_BK, 0, symbols_BK + 1)
    beam.names, beam.added = beam.names.follow(step), beam.added.follow(step)
    beam.history.steps.append(step)
    beam.score_BK = step.score_BK
    return final_BKS


def _end(beam: _Beam, over_BK: Tensor, final_BKS: Tensor, bonus: float) -> None:
    """Let hypotheses leave the beam, with the parts that other scorers give to finished texts."""
    for b, k in over_BK.nonzero().tolist():
        log_prob, parts = float(beam.score_BK[b, k]), final_BKS[b, k].tolist()
        ranked = log_prob + bonus * int(beam.names.count_BK[b, k]) + beam.added.fusion.total(parts)
        beam.ended[b].append(_Ended(ranked, log_prob, parts, len(beam.history.steps), k))
    beam.score_BK = beam.score_BK.masked_fill(over_BK, -math.inf)


def _hope(beam: _Beam, len_B: Tensor, most_B1: Tensor, symbols: int, bonus: float) -> Tensor:
    """Return a bound (B,) on the scores of all texts that the open hypotheses can become.

    A text t that continues open hypotheses h scores log sum_h P(t, h) + A(t), where A(t) is all that is not
    log-probability.  A(t) <= A(h) + R(h) for each of them, R being the most that can still be added, so that the score
    is at most log sum_h P(h) exp(A(h) + R(h)), for P(t, h) <= P(h).  R is more than 0 if the bonus is positive, or a
    phrase has one: then each token counts for which there is room in the text and at the frames that are left, and what
    a broken match may give back.  Log-probabilities of language models only fall.
    """
    count_BK, rise = beam.names.count_BK, beam.added.fusion.rise
    room_BK = symbols - beam.symbols_BK + symbols * (len_B[:, None] - beam.frame_BK - 1)
    left_BK = torch.minimum(room_BK, most_B1 - count_BK).clamp(min=0)
    added_BK = bonus * count_BK + beam.added.total_BK
    return (beam.score_BK + added_BK + rise.once + max(0.0, bonus + rise.each) * left_BK).logsumexp(1)


def _close(beam: _Beam, hope_B: Tensor, n_best: int) -> None:
    """Drop the open hypotheses of utterances for which no better text can be found."""
    for b, most in enumerate(hope_B.tolist()):
        best = sorted((each.ranked for each in beam.ended[b]), reverse=True)[:n_best]
        if len(best) == n_best and most < best[-1]:
            beam.score_BK[b] = -math.inf


def _predict(model: Joined, beam: _Beam, step: Step) -> None:
    """Let the prediction network read the tokens that open hypotheses gained."""
    from_N = step.from_N
    beam.token_NJ, beam.state = beam.token_NJ[from_N], tuple(x[from_N] for x in beam.state)
    moved_M = (~step.stays_BK & beam.score_BK.isfinite()).flatten().nonzero()[:, 0]
    if len(moved_M):
        gained_M = step.gained_BK.flatten()[moved_M]
        beam.token_NJ[moved_M], after = model.step(gained_M, tuple(x[moved_M] for x in beam.state))
        for x, new in zip(beam.state, after, strict=True):
            x[moved_M] = new


def _hypotheses(beam: _Beam, b: int, most: int, n_best: int) -> list[Hypothesis]:
    texts = beam.history.texts(b, [(each.steps, each.place) for each in beam.ended[b]])
    found = [
        Hypothesis(
            text,
            each.ranked,
            {"transducer": each.log_prob, **beam.added.fusion.named(each.parts)},
            0 < most <= len(text),
        )
        for each, text in zip(beam.ended[b], texts, strict=True)
    ]
    return sorted(found, key=lambda h: -h.score)[:n_best] or [EMPTY]
