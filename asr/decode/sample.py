"""Texts drawn at random: one per utterance where the best text has gone wrong, or several in place of a beam.

A token is drawn at a temperature, from all or from the nucleus of the most probable ones (Holtzman et al. 2020).

Shapes: B utterances, K draws of each, R = B x K texts, N those of unfinished utterances, P start tokens, L tokens, V
vocabulary, S scorers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from asr.compaction import closed_up, hypotheses
from asr.decode.search import Hypothesis, SearchOptions, Weighted, hypothesis, reorder, start, step, weighted_sum


@torch.inference_mode()
def sample(
    scorers: Sequence[Weighted],
    memory: Any,
    prefix_BP: Tensor,
    eos_id: int,
    max_tokens_B: Sequence[int],
    options: SearchOptions,
    *,
    temperature: float,
    seeds_BK: Sequence[Sequence[int]],
    top_p: float = 1.0,
) -> list[list[Hypothesis]]:
    """Draw K texts of each utterance, token by token, from the weighted sum of the scorers divided by the temperature.

    Arguments are those of `search`; beam and n-best are ignored.  The temperature does not enter the scores, so they
    compare with those of `search`.  seeds_BK: one seed per text; its draws depend on nothing else in the batch.  top_p:
    draw only from the nucleus, the fewest most probable tokens that together have this share of the probability.
    """
    K, longest, device = len(seeds_BK[0]), max(max_tokens_B, default=0), prefix_BP.device
    uniform_RL = _uniforms(seeds_BK, longest).to(device)
    tokens_RL = torch.full(uniform_RL.shape, eos_id, device=device)
    parts_RLS = torch.zeros(*uniform_RL.shape, len(scorers), device=device)
    utterances = list(range(len(prefix_BP)))
    row_N = torch.arange(len(uniform_RL), device=device)
    open_N = torch.ones_like(row_N, dtype=torch.bool)
    log_probs, states = start(scorers, memory, prefix_BP, K)
    for length in range(longest):
        token_N = _pick(weighted_sum(scorers, log_probs) / temperature, uniform_RL[row_N, length], top_p)
        token_N = torch.where(open_N, token_N, eos_id)
        tokens_RL[row_N, length] = token_N
        parts_RLS[row_N, length] = torch.stack([_chosen(x_NV, token_N) for x_NV in log_probs], dim=1)
        open_N &= token_N != eos_id
        goes_on = open_N.view(-1, K).any(1).tolist()
        keep = [goes and length + 1 < max_tokens_B[u] for goes, u in zip(goes_on, utterances, strict=True)]
        if not any(keep):
            break
        if not all(keep):
            places = closed_up(keep)
            kept_N = hypotheses(places, K, device)
            utterances = [utterances[place] for place in places]
            row_N, open_N, token_N = row_N[kept_N], open_N[kept_N], token_N[kept_N]
            states = reorder(scorers, states, kept_N)
        log_probs, states = step(scorers, token_N[:, None], states)
    rows = zip(tokens_RL.tolist(), parts_RLS, strict=True)
    return [
        [_text(tokens[:cap], parts_LS, eos_id, scorers, options) for tokens, parts_LS in itertools.islice(rows, K)]
        for cap in max_tokens_B
    ]


def ranked(drawn: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Return the distinct hypotheses among some draws, best first."""
    return sorted({(h.tokens, h.truncated): h for h in drawn}.values(), key=lambda h: -h.score)


def _uniforms(seeds_BK: Sequence[Sequence[int]], count: int) -> Tensor:
    """Draw `count` numbers from [0, 1) for each text: (R, L)."""
    generators = [torch.Generator().manual_seed(seed) for seeds in seeds_BK for seed in seeds]
    return torch.stack([torch.rand(count, generator=own, dtype=torch.float64) for own in generators])


def _chosen(log_prob_NV: Tensor, token_N: Tensor) -> Tensor:
    return log_prob_NV.expand(len(token_N), -1).gather(1, token_N[:, None])[:, 0]


def _pick(logits_NV: Tensor, draw_N: Tensor, top_p: float) -> Tensor:
    """Return the tokens at which the cumulative probabilities pass the draws: one random number per token drawn."""
    prob_NV = logits_NV.double().softmax(-1)
    reach_NV = (prob_NV if top_p == 1.0 else _nucleus(prob_NV, top_p)).cumsum(-1)
    # Rounding can leave the last sum below 1, and a draw at 0 must not pick a forbidden token.
    mark_N1 = (draw_N[:, None] * reach_NV[:, -1:]).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.searchsorted(reach_NV, mark_N1)[:, 0]


def _nucleus(prob_NV: Tensor, top_p: float) -> Tensor:
    """Keep the probabilities of the fewest tokens that reach `top_p` together; set the others to 0."""
    sorted_NV, at_NV = prob_NV.sort(stable=True, dim=-1, descending=True)
    before_NV = sorted_NV.cumsum(-1) - sorted_NV
    return torch.zeros_like(prob_NV).scatter(-1, at_NV, sorted_NV.where(before_NV < top_p, 0.0))


def _text(
    tokens: list[int], parts_LS: Tensor, eos_id: int, scorers: Sequence[Weighted], options: SearchOptions
) -> Hypothesis:
    """Return the text that ends with the first end token; without one it is truncated."""
    ended = eos_id in tokens
    text = tuple(tokens[: tokens.index(eos_id)] if ended else tokens)
    parts_S = parts_LS[: len(text) + ended].sum(0)
    total = sum(w.weight * part for w, part in zip(scorers, parts_S.tolist(), strict=True))
    return hypothesis(text, total, parts_S, scorers, options, truncated=not ended)
