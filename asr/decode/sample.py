"""Texts drawn at random: one for each utterance where the best one has gone wrong, or several in place of a beam.

Shapes: B utterances, N utterances that are not done yet, P start tokens, L tokens, V vocabulary,
S scorers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asr.decode.search import Hypothesis, SearchOptions, Weighted


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
    seeds_B: Sequence[int],
    top_p: float = 1.0,
) -> list[Hypothesis]:
    """Draw token after token from the weighted sum of the scorers, divided by the temperature.

    Arguments are those of `search`; beam and n-best play no part, and scores are comparable, for the temperature is
    not in them.  top_p: the share of the probability that the most probable tokens must have together to be drawn
    from, the nucleus (Holtzman et al. 2020).  seeds_B: what each utterance's draws depend on, and nothing else,
    whatever stands beside it.
    """
    longest = max(max_tokens_B, default=0)
    draw_BL = torch.stack([_uniforms(seed, longest) for seed in seeds_B]).to(prefix_BP.device)
    log_probs, states = _step(scorers, prefix_BP, [w.scorer.start(memory) for w in scorers])
    rows = list(range(len(prefix_BP)))
    tokens: list[list[int]] = [[] for _ in rows]
    parts_BS = torch.zeros(len(rows), len(scorers), device=prefix_BP.device)
    ended = [False] * len(rows)
    for length in range(longest):
        token_N = _pick(_total(scorers, log_probs) / temperature, draw_BL[rows, length], top_p)
        parts_BS[rows] += torch.stack([_chosen(x_NV, token_N) for x_NV in log_probs], dim=1)
        going_on = []
        for n, (row, token) in enumerate(zip(rows, token_N.tolist(), strict=True)):
            if token == eos_id:
                ended[row] = True
                continue
            tokens[row].append(token)
            if length + 1 < max_tokens_B[row]:
                going_on.append(n)
        if not going_on:
            break
        keep_N = torch.tensor(going_on, device=token_N.device)
        rows = [rows[n] for n in going_on]
        states = [w.scorer.reorder(state, keep_N) for w, state in zip(scorers, states, strict=True)]
        log_probs, states = _step(scorers, token_N[keep_N, None], states)
    return [_hypothesis(t, p, e, scorers, options) for t, p, e in zip(tokens, parts_BS.tolist(), ended, strict=True)]


def draw_n_best(
    scorers: Sequence[Weighted],
    memory: Any,
    prefix_BP: Tensor,
    eos_id: int,
    max_tokens_B: Sequence[int],
    options: SearchOptions,
    *,
    temperature: float,
    top_p: float,
    seeds_KB: Sequence[Sequence[int]],
) -> list[list[Hypothesis]]:
    """Draw a text for each of K rows of seeds; the different ones of each utterance, best first.

    The other arguments are those of `sample`.
    """
    parts = scorers, memory, prefix_BP, eos_id, max_tokens_B, options
    drawn = [sample(*parts, temperature=temperature, top_p=top_p, seeds_B=seeds_B) for seeds_B in seeds_KB]
    different = [{(h.tokens, h.truncated): h for h in texts}.values() for texts in zip(*drawn, strict=True)]
    return [sorted(texts, key=lambda h: -h.score) for texts in different]


def _uniforms(seed: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _step(scorers: Sequence[Weighted], tokens_NL: Tensor, states: list[Any]) -> tuple[list[Tensor], list[Any]]:
    results = [w.scorer.step(tokens_NL, state) for w, state in zip(scorers, states, strict=True)]
    return [log_prob_NV for log_prob_NV, _ in results], [state for _, state in results]


def _total(scorers: Sequence[Weighted], log_probs: Sequence[Tensor]) -> Tensor:
    total_NV = torch.zeros(())
    for weighted, log_prob_NV in zip(scorers, log_probs, strict=True):
        total_NV = total_NV + weighted.weight * log_prob_NV
    return total_NV


def _chosen(log_prob_NV: Tensor, token_N: Tensor) -> Tensor:
    return log_prob_NV.expand(len(token_N), -1).gather(1, token_N[:, None])[:, 0]


def _pick(logits_NV: Tensor, draw_N: Tensor, top_p: float) -> Tensor:
    """The tokens at which the cumulated probabilities pass the draws; one draw a token, whatever the vocabulary."""
    prob_NV = logits_NV.double().softmax(-1)
    reach_NV = (prob_NV if top_p == 1.0 else _nucleus(prob_NV, top_p)).cumsum(-1)
    # Rounding can leave the last sum below 1, and a draw at 0 must not pick a forbidden token.
    mark_N1 = (draw_N[:, None] * reach_NV[:, -1:]).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.searchsorted(reach_NV, mark_N1)[:, 0]


def _nucleus(prob_NV: Tensor, top_p: float) -> Tensor:
    """The probabilities of the fewest tokens that have `top_p` together; the others' are 0."""
    sorted_NV, at_NV = prob_NV.sort(stable=True, dim=-1, descending=True)
    before_NV = sorted_NV.cumsum(-1) - sorted_NV
    return torch.zeros_like(prob_NV).scatter(-1, at_NV, sorted_NV.where(before_NV < top_p, 0.0))


def _hypothesis(
    tokens: list[int], parts: list[float], ended: bool, scorers: Sequence[Weighted], options: SearchOptions
) -> Hypothesis:
    total = sum(w.weight * part for w, part in zip(scorers, parts, strict=True)) + options.length_bonus * len(tokens)
    score = total / max(1, len(tokens) + ended) ** options.length_penalty
    return Hypothesis(tuple(tokens), score, {w.name: p for w, p in zip(scorers, parts, strict=True)}, not ended)
