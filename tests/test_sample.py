"""Sampling: correct probabilities, draws that do not depend on the batch, and no forbidden tokens."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from test_search import EOS, START, Table

from asr.decode.sample import ranked, sample
from asr.decode.scorers import ForbidScorer
from asr.decode.search import Hypothesis, SearchOptions, Weighted, search


def draw(
    scorers: list[Weighted], utterances: list[int], caps: list[int], seeds: list[int], temperature: float = 1.0
) -> list[Hypothesis]:
    prefix_BP = torch.full((len(utterances), 1), START)
    memory, options = torch.tensor(utterances), SearchOptions()
    seeds_BK = [[seed] for seed in seeds]
    found = sample(scorers, memory, prefix_BP, EOS, caps, options, temperature=temperature, seeds_BK=seeds_BK)
    return [text for (text,) in found]


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_tokens_are_sampled_by_their_probability(temperature: float) -> None:
    table, count = Table(5, 1), 4000
    found = draw([Weighted("t", table, 1.0)], [0] * count, [1] * count, list(range(count)), temperature)
    first = Counter(h.tokens[0] if h.tokens else EOS for h in found)
    expected_V = (table.log_prob[0, 0, START] / temperature).softmax(-1)
    for token, probability in enumerate(expected_V.tolist()):
        spread = math.sqrt(count * probability * (1 - probability))
        assert abs(first[token] - count * probability) < 5 * spread + 1


def test_samples_do_not_depend_on_other_utterances_in_the_batch() -> None:
    scorers = [Weighted("t", Table(6, 2), 1.0)]
    caps, seeds = [7, 2, 5], [11, 12, 13]
    together = draw(scorers, [0, 1, 2], caps, seeds)
    turned = draw(scorers, [2, 0, 1], [5, 7, 2], [13, 11, 12])
    assert [together[i].tokens for i in (2, 0, 1)] == [h.tokens for h in turned]
    for b in range(3):
        (alone,) = draw(scorers, [b], [caps[b]], [seeds[b]])
        assert alone.tokens == together[b].tokens
        assert alone.score == pytest.approx(together[b].score)
    other = draw(scorers, [0] * 20, [7] * 20, list(range(20)))
    assert len({h.tokens for h in other}) > 3


def test_samples_drawn_together_equal_those_drawn_one_by_one() -> None:
    table = Table(6, 2)
    scorers = [
        Weighted("t", table, 0.7),
        Weighted("allowed", ForbidScorer(6, always=[3], first=[4], prefix_length=1), 1),
    ]
    caps, seeds_BK = [7, 2, 5], [[10 * b + k for k in range(4)] for b in range(3)]
    prefix_BP = torch.full((3, 1), START)
    together = sample(
        scorers, torch.arange(3), prefix_BP, EOS, caps, SearchOptions(), temperature=1.5, seeds_BK=seeds_BK
    )
    assert len({len(h.tokens) for texts in together for h in texts}) > 3
    for b, texts in enumerate(together):
        alone = draw(scorers, [b] * 4, [caps[b]] * 4, seeds_BK[b], 1.5)
        assert [(h.tokens, h.truncated) for h in alone] == [(h.tokens, h.truncated) for h in texts]
        for one, other in zip(alone, texts, strict=True):
            assert one.parts == pytest.approx(other.parts)
            assert one.score == pytest.approx(other.score)
    best_first = ranked([*together[0], *together[0]])
    assert {h.tokens for h in best_first} == {h.tokens for h in together[0]}
    assert [h.score for h in best_first] == sorted({h.score for h in together[0]}, reverse=True)


def test_scores_of_samples_ignore_the_temperature() -> None:
    table = Table(6, 3)
    forbid = ForbidScorer(6, always=[3], first=[4], prefix_length=1)
    scorers = [Weighted("t", table, 0.7), Weighted("allowed", forbid, 1.0)]
    found = draw(scorers, [0, 1, 2] * 30, [1, 3, 7] * 30, list(range(90)), 2.0)
    assert {h.truncated for h in found} == {True, False}
    for b, h in enumerate(found):
        assert 3 not in h.tokens
        assert h.tokens[:1] != (4,)
        path = [START, *h.tokens, *([] if h.truncated else [EOS])]
        assert len(h.tokens) == [1, 3, 7][b % 3] if h.truncated else len(h.tokens) < [1, 3, 7][b % 3]
        total = sum(float(table.log_prob[b % 3, i, x, y]) for i, (x, y) in enumerate(zip(path, path[1:], strict=False)))
        assert h.parts["t"] == pytest.approx(total, abs=1e-4)
        assert h.score == pytest.approx(0.7 * total / (len(path) - 1), abs=1e-4)


def test_temperature_near_zero_equals_greedy_search() -> None:
    scorers = [Weighted("t", Table(6, 4), 1.0)]
    greedy = search(scorers, torch.arange(3), torch.full((3, 1), START), EOS, [6] * 3, SearchOptions())
    found = draw(scorers, [0, 1, 2], [6] * 3, [1, 2, 3], 1e-4)
    assert [h.tokens for h in found] == [h.tokens for h, *_ in greedy]


@pytest.mark.parametrize("top_p", [0.3, 0.6, 0.95])
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p: float) -> None:
    table, count = Table(6, 5), 3000
    found = sample(
        [Weighted("t", table, 1.0)],
        torch.zeros(count, dtype=torch.long),
        torch.full((count, 1), START),
        EOS,
        [1] * count,
        SearchOptions(),
        temperature=0.8,
        seeds_BK=[[seed] for seed in range(count)],
        top_p=top_p,
    )
    first = Counter(h.tokens[0] if h.tokens else EOS for (h,) in found)
    probability = dict(enumerate((table.log_prob[0, 0, START] / 0.8).softmax(-1).tolist()))
    nucleus: dict[int, float] = {}
    while sum(nucleus.values()) < top_p:
        token = max(probability, key=probability.__getitem__)
        nucleus[token] = probability.pop(token)
    assert set(first) == set(nucleus)
    for token, share in nucleus.items():
        expected = share / sum(nucleus.values())
        assert abs(first[token] - count * expected) < 5 * math.sqrt(count * expected) + 1
