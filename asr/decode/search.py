"""Batched beam search over weighted scorers; greedy search is a beam of 1.

Shapes: B utterances, K beam, N = B x K hypotheses, L tokens, V vocabulary, S scorers, C candidates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from asr.compaction import closed_up, hypotheses


class Scorer(Protocol):
    """Scores the next token of many hypotheses at once, given the encoder's output."""

    def start(self, memory: Any) -> Any:
        """Return the state before the first token, one hypothesis per utterance."""
        ...

    def step(self, tokens_NL: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Append L tokens to each hypothesis; return log-probabilities (N, V) of the next one, and the new state.

        If they are the same for all hypotheses they may be (1, V).  The old state is not used again.  Language models
        and phrase lists take -1 for no token, as the texts of a transducer's beam do not all grow at once.
        """
        ...

    def reorder(self, state: Any, index_N: Tensor) -> Any:
        """Return the state of the hypotheses `index_N`; those of one utterance are adjacent, equally many of each.

        The old state is not used again.
        """
        ...


class Rise(NamedTuple):
    """A bound on what is still to be gained: so much for each token to come, and once more; 0 for log-probabilities."""

    each: float = 0.0
    once: float = 0.0


class Weighted(NamedTuple):
    """A scorer, its weight in the sum, and the name under which its part of the score is reported.

    rise: the most by which that part can still rise until the text has ended, before it is weighted.
    """

    name: str
    scorer: Scorer
    weight: float
    rise: Rise = Rise()


@dataclass(frozen=True)
class Hypothesis:
    """A finished text.

    tokens: without start and end tokens.  score: what hypotheses are ranked by, with length bonus and penalty applied.
    parts: unweighted log-probability by scorer.  truncated: whether the length cap came before the end token.
    """

    tokens: tuple[int, ...]
    score: float
    parts: dict[str, float]
    truncated: bool = False


EMPTY = Hypothesis((), -math.inf, {}, truncated=True)  # where the scorers allow no text


@dataclass(frozen=True)
class SearchOptions:
    """Beam width and how the length enters the score.

    score = (sum + length_bonus x n) / m ** length_penalty, with n tokens, and m = n plus 1 for an end token.  Jean et
    al. 2015 divide by the length, Wu et al. 2016 by ((5 + m) / 6) ** length_penalty; He et al. 2016 add a bonus for
    each word.  Murray & Chiang 2018 compare them.
    """

    beam_size: int = 1
    length_bonus: float = 0.0
    length_penalty: float = 1.0
    n_best: int = 1


@dataclass
class _Beam:
    """The open hypotheses of unfinished utterances, K adjacent rows for each."""

    utterances: list[int]
    score_BK: Tensor
    parts_NS: Tensor
    tokens_NL: Tensor
    states: list[Any]
    finished: list[list[Hypothesis]] = field(default_factory=list)


@torch.inference_mode()
def search(
    scorers: Sequence[Weighted],
    memory: Any,
    prefix_BP: Tensor,
    eos_id: int,
    max_tokens_B: Sequence[int],
    options: SearchOptions,
) -> list[list[Hypothesis]]:
    """Find the best hypotheses of every utterance, best first.

    prefix_BP: start tokens, fed before anything is scored.  An utterance is done when as many hypotheses have ended as
    the beam is wide (an end token counts if it is among the K best continuations), or at its cap `max_tokens_B`.  If
    none has ended by then, the open hypotheses are returned, marked truncated.
    """
    K, B = options.beam_size, len(prefix_BP)
    beam, log_probs = _open(scorers, memory, prefix_BP, K)
    beam.finished = [[] for _ in range(B)]
    for length in range(1, max(max_tokens_B, default=0) + 1):
        parent_N, token_N = _advance(beam, scorers, log_probs, eos_id, options)
        capped = [length >= max_tokens_B[u] for u in beam.utterances]
        keep_B = [not cap and len(beam.finished[u]) < K for u, cap in zip(beam.utterances, capped, strict=True)]
        _close(beam, capped, scorers, options)
        if not any(keep_B):
            break
        if K > 1 or not all(keep_B):
            places = closed_up(keep_B)
            rows = hypotheses(places, K, token_N.device)
            parent_N, token_N = parent_N[rows], token_N[rows]
            beam.utterances = [beam.utterances[place] for place in places]
            beam.score_BK = beam.score_BK.view(-1)[rows].view(-1, K)
            beam.parts_NS, beam.tokens_NL = beam.parts_NS[rows], beam.tokens_NL[rows]
            beam.states = reorder(scorers, beam.states, parent_N)
        log_probs, beam.states = step(scorers, token_N[:, None], beam.states)
    return [sorted(f, key=lambda h: -h.score)[: options.n_best] or [EMPTY] for f in beam.finished]


def _open(scorers: Sequence[Weighted], memory: Any, prefix_BP: Tensor, K: int) -> tuple[_Beam, list[Tensor]]:
    B = len(prefix_BP)
    device = prefix_BP.device
    log_probs, states = start(scorers, memory, prefix_BP, K)
    beam = _Beam(
        utterances=list(range(B)),
        score_BK=torch.full((B, K), -math.inf, device=device),
        parts_NS=torch.zeros(B * K, len(scorers), device=device),
        tokens_NL=torch.empty(B * K, 0, dtype=torch.long, device=device),
        states=states,
    )
    beam.score_BK[:, 0] = 0.0  # all beams start alike, so only the first may branch
    return beam, log_probs


def start(scorers: Sequence[Weighted], memory: Any, prefix_BP: Tensor, K: int) -> tuple[list[Tensor], list[Any]]:
    """Feed the start tokens to K equal hypotheses of each utterance; return what `step` returns."""
    B = len(prefix_BP)
    log_probs, states = step(scorers, prefix_BP, [w.scorer.start(memory) for w in scorers])
    if K > 1:
        expand_N = torch.arange(B, device=prefix_BP.device).repeat_interleave(K)
        states = reorder(scorers, states, expand_N)
        log_probs = [x if len(x) == 1 < B else x[expand_N] for x in log_probs]
    return log_probs, states


def step(scorers: Sequence[Weighted], tokens_NL: Tensor, states: Sequence[Any]) -> tuple[list[Tensor], list[Any]]:
    """Feed tokens to every scorer; return their log-probabilities and states."""
    results = [w.scorer.step(tokens_NL, state) for w, state in zip(scorers, states, strict=True)]
    return [log_prob_NV for log_prob_NV, _ in results], [state for _, state in results]


def reorder(scorers: Sequence[Weighted], states: Sequence[Any], index_N: Tensor) -> list[Any]:
    """Return every scorer's state of the hypotheses `index_N`."""
    return [w.scorer.reorder(state, index_N) for w, state in zip(scorers, states, strict=True)]


def weighted_sum(scorers: Sequence[Weighted], log_probs: Sequence[Tensor]) -> Tensor:
    """Return the sum (N, V) of the scorers' log-probabilities, each times its weight."""
    parts = [x_NV if w.weight == 1.0 else x_NV * w.weight for w, x_NV in zip(scorers, log_probs, strict=True)]
    return functools.reduce(torch.add, parts)


_BLOCK = 64  # columns


def best(x_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of each row and their columns, largest first: topk, but faster.

    They lie within the k blocks of columns that have the largest maxima, so only these need sorting.
    """
    N, V = x_NV.shape
    blocks = V // _BLOCK
    if k >= blocks:
        return x_NV.topk(k)
    whole_NXW = x_NV[:, : blocks * _BLOCK].unflatten(1, (blocks, _BLOCK))
    chosen_Nk = whole_NXW.amax(2).topk(k).indices
    column_NC = (chosen_Nk[..., None] * _BLOCK + torch.arange(_BLOCK, device=x_NV.device)).flatten(1)
    rest_C = torch.arange(blocks * _BLOCK, V, device=x_NV.device)
    column_NC = torch.cat([column_NC, rest_C.expand(N, -1)], dim=1)
    value_Nk, at_Nk = x_NV.gather(1, column_NC).topk(k)
    return value_Nk, column_NC.gather(1, at_Nk)


def _advance(
    beam: _Beam,
    scorers: Sequence[Weighted],
    log_probs: Sequence[Tensor],
    eos_id: int,
    options: SearchOptions,
) -> tuple[Tensor, Tensor]:
    """Extend hypotheses by a token and move ended ones to `finished`; return parent rows and tokens of the rest."""
    B, K = beam.score_BK.shape
    step_NV = weighted_sum(scorers, log_probs)
    # A hypothesis that ends makes room for the next best; greedy search needs no spare candidates.
    candidates = 1 if K == 1 else min(2 * K, K * step_NV.shape[1])
    value_NC, token_NC = best(step_NV, min(candidates, step_NV.shape[1]))
    total_BC, flat_BC = (beam.score_BK.view(-1, 1) + value_NC).view(B, -1).topk(candidates)
    token_BC = token_NC.view(B, -1).gather(1, flat_BC)
    parent_BC = flat_BC // token_NC.shape[1] + torch.arange(B, device=flat_BC.device)[:, None] * K
    ends_BC = token_BC == eos_id

    for b, c in (ends_BC[:, :K] & total_BC[:, :K].isfinite()).nonzero().tolist():
        parent = int(parent_BC[b, c])
        parts_S = beam.parts_NS[parent] + torch.stack([x_NV[parent % len(x_NV), eos_id] for x_NV in log_probs])
        tokens = tuple(beam.tokens_NL[parent].tolist())
        found = hypothesis(tokens, float(total_BC[b, c]), parts_S, scorers, options, truncated=False)
        beam.finished[beam.utterances[b]].append(found)

    open_BK = ends_BC.to(torch.uint8).argsort(dim=1, stable=True)[:, :K]  # the best open ones, in order
    parent_N, token_N = parent_BC.gather(1, open_BK).view(-1), token_BC.gather(1, open_BK).view(-1)
    score_BK = total_BC.gather(1, open_BK)
    beam.score_BK = score_BK.masked_fill(ends_BC.gather(1, open_BK), -math.inf)
    gained = [x_NV[parent_N if len(x_NV) > 1 else 0, token_N] for x_NV in log_probs]
    beam.parts_NS = beam.parts_NS[parent_N] + torch.stack(gained, dim=1)
    beam.tokens_NL = torch.cat([beam.tokens_NL[parent_N], token_N[:, None]], dim=1)
    return parent_N, token_N


def _close(beam: _Beam, capped: list[bool], scorers: Sequence[Weighted], options: SearchOptions) -> None:
    """At the cap, finish the open hypotheses of an utterance for which none has ended."""
    K = options.beam_size
    for b, utterance in enumerate(beam.utterances):
        if not capped[b] or beam.finished[utterance]:
            continue
        for row in range(b * K, (b + 1) * K):
            total, tokens = float(beam.score_BK.view(-1)[row]), tuple(beam.tokens_NL[row].tolist())
            if math.isfinite(total):  # otherwise the place is vacant
                found = hypothesis(tokens, total, beam.parts_NS[row], scorers, options, truncated=True)
                beam.finished[utterance].append(found)


def hypothesis(
    tokens: tuple[int, ...],
    total: float,
    parts_S: Tensor,
    scorers: Sequence[Weighted],
    options: SearchOptions,
    *,
    truncated: bool,
) -> Hypothesis:
    """Return a finished text with its score (see SearchOptions); total: the weighted sum of its parts."""
    length = max(1, len(tokens) + (not truncated))
    score = (total + options.length_bonus * len(tokens)) / length**options.length_penalty
    parts = dict(zip((w.name for w in scorers), parts_S.tolist(), strict=True))
    return Hypothesis(tokens, score, parts, truncated)
