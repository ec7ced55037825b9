"""Beam search against exhaustive enumeration, and CTC prefix scores against the sum over all paths."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from asr.compaction import closed_up, compacted
from asr.decode.scorers import CTCPrefixScorer, ForbidScorer
from asr.decode.search import SearchOptions, Weighted, best, search

START, EOS = 0, 1


class Table:
    """A scorer whose log-probabilities depend on the utterance, the position and the last token."""

    def __init__(self, vocab: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.log_prob = (2 * torch.randn(3, 8, vocab, vocab, generator=generator)).log_softmax(-1)

    def start(self, memory: Tensor) -> tuple[Tensor, int]:
        return memory, 0

    def step(self, tokens_NL: Tensor, state: tuple[Tensor, int]) -> tuple[Tensor, tuple[Tensor, int]]:
        utterance_N, position = state
        position += tokens_NL.shape[1]
        return self.log_prob[utterance_N, position - 1, tokens_NL[:, -1]], (utterance_N, position)

    def reorder(self, state: tuple[Tensor, int], index_N: Tensor) -> tuple[Tensor, int]:
        return state[0][index_N], state[1]


def best_by_enumeration(table: Table, utterance: int, longest: int, penalty: float) -> tuple[float, tuple[int, ...]]:
    vocab = table.log_prob.shape[-1]
    found = []
    for n in range(longest):
        for text in itertools.product([v for v in range(vocab) if v not in (START, EOS)], repeat=n):
            path = [START, *text, EOS]
            total = sum(float(table.log_prob[utterance, i, a, b]) for i, (a, b) in enumerate(itertools.pairwise(path)))
            found.append((total / (n + 1) ** penalty, text))
    return max(found)


def test_compaction_keeps_remaining_rows_in_place() -> None:
    for keep_B in itertools.product([False, True], repeat=5):
        places = closed_up(keep_B)
        assert sorted(places) == [b for b in range(5) if keep_B[b]]
        assert all(at == place for at, place in enumerate(places) if at in places)
        rows_B2 = torch.arange(10).view(5, 2)
        expected = rows_B2[places].clone()
        left = compacted(rows_B2, torch.tensor(places, dtype=torch.long))
        assert torch.equal(left, expected)
        assert left.untyped_storage().data_ptr() == rows_B2.untyped_storage().data_ptr(), (
            "compaction must reuse the memory"
        )


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_scores_add_up_and_none_exceeds_the_exhaustive_optimum(seed: int, penalty: float) -> None:
    table = Table(5, seed)
    table.log_prob[..., START] = -math.inf
    options = SearchOptions(beam_size=4, length_penalty=penalty, n_best=4)
    found = search([Weighted("t", table, 1.0)], torch.arange(3), torch.full((3, 1), START), EOS, [4] * 3, options)
    for b in range(3):
        score, _ = best_by_enumeration(table, b, 4, penalty)
        assert found[b][0].score <= score + 1e-5
        for h in found[b]:
            path = [START, *h.tokens, *([] if h.truncated else [EOS])]
            total = sum(float(table.log_prob[b, i, x, y]) for i, (x, y) in enumerate(itertools.pairwise(path)))
            assert h.parts["t"] == pytest.approx(total, abs=1e-4)
            assert h.score == pytest.approx(total / (len(path) - 1) ** penalty, abs=1e-4)
        assert [h.score for h in found[b]] == sorted((h.score for h in found[b]), reverse=True)


@pytest.mark.parametrize(("bonus", "penalty"), [(0.0, 0.0), (1.5, 0.0), (1.5, 0.7)])
def test_length_penalty_divides_the_score_including_the_length_bonus(bonus: float, penalty: float) -> None:
    table = Table(5, 2)
    table.log_prob[..., START] = -math.inf
    scorers = [Weighted("t", table, 1.0)]
    plain = SearchOptions(beam_size=125, length_penalty=0.0, n_best=125)
    (every,) = search(scorers, torch.zeros(1, dtype=torch.long), torch.full((1, 1), START), EOS, [4], plain)
    expected = {h.tokens: (h.score + bonus * len(h.tokens)) / (len(h.tokens) + 1) ** penalty for h in every}
    ranked = SearchOptions(beam_size=125, length_bonus=bonus, length_penalty=penalty, n_best=125)
    (found,) = search(scorers, torch.zeros(1, dtype=torch.long), torch.full((1, 1), START), EOS, [4], ranked)
    assert {h.tokens: h.score for h in found} == pytest.approx(expected)
    assert found[0].tokens == max(expected, key=expected.__getitem__)


def test_beam_size_1_is_greedy_search() -> None:
    table = Table(6, 7)
    found = search(
        [Weighted("t", table, 1.0)], torch.arange(3), torch.full((3, 1), START), EOS, [6] * 3, SearchOptions()
    )
    for b in range(3):
        last, tokens = START, []
        for i in range(6):
            last = int(table.log_prob[b, i, last].argmax())
            if last == EOS:
                break
            tokens.append(last)
        assert found[b][0].tokens == tuple(tokens)
        assert found[b][0].truncated == (last != EOS)


def test_batched_search_equals_single_utterance_search() -> None:
    table = Table(6, 11)
    options = SearchOptions(beam_size=3)
    scorers = [Weighted("t", table, 1.0)]
    together = search(scorers, torch.arange(3), torch.full((3, 1), START), EOS, [3, 6, 5], options)
    for b, cap in enumerate([3, 6, 5]):
        alone = search(scorers, torch.tensor([b]), torch.full((1, 1), START), EOS, [cap], options)
        assert [h.tokens for h in alone[0]] == [h.tokens for h in together[b]]


def test_forbidden_tokens_are_never_produced() -> None:
    table = Table(6, 3)
    forbid = ForbidScorer(6, always=[3], first=[4], prefix_length=1)
    scorers = [Weighted("t", table, 1.0), Weighted("allowed", forbid, 1.0)]
    for beam in (1, 4):
        found = search(
            scorers, torch.arange(3), torch.full((3, 1), START), EOS, [6] * 3, SearchOptions(beam, n_best=beam)
        )
        for h in itertools.chain(*found):
            assert 3 not in h.tokens
            assert h.tokens[:1] != (4,)


def test_all_texts_are_returned_if_fewer_than_the_beam_size() -> None:
    forbid = ForbidScorer(5, always=[START, EOS, 2], first=[], prefix_length=1)
    scorers, options = [Weighted("t", Table(5, 4), 1.0), Weighted("allowed", forbid, 1.0)], SearchOptions(5, n_best=5)
    for cap, count in ((1, 2), (2, 4), (3, 5)):
        for found in search(scorers, torch.arange(3), torch.full((3, 1), START), EOS, [cap] * 3, options):
            assert len({h.tokens for h in found}) == len(found) == count
            assert all(set(h.tokens) <= {3, 4} and math.isfinite(h.score) for h in found)


def _by_paths(prefix: list[int], log_prob_TV: Tensor, *, whole: bool) -> float:
    """Return the log-probability of all frame paths whose text equals (`whole`) or begins with `prefix`."""
    frames, vocab = log_prob_TV.shape
    total = 0.0
    for path in itertools.product(range(vocab), repeat=frames):
        text = [k for k, _ in itertools.groupby(path) if k != 0]
        if (text == prefix) if whole else (text[: len(prefix)] == prefix):
            total += math.exp(sum(float(log_prob_TV[t, k]) for t, k in enumerate(path)))
    return math.log(total) if total else -math.inf


def test_ctc_prefix_scores_equal_the_sum_over_paths() -> None:
    blank, eos, start = 0, 4, 5
    log_prob_BTV = torch.full((2, 5, 6), -math.inf)
    log_prob_BTV[:, :, :4] = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(5)).log_softmax(-1)
    lengths = torch.tensor([5, 3])
    scorer = CTCPrefixScorer(lambda memory: memory, blank, eos)
    state = scorer.start((log_prob_BTV, lengths))
    total_N, prefix = torch.zeros(2), []
    token = start
    for following in (1, 1, 2, None):
        gain_NV, state = scorer.step(torch.tensor([[token], [token]]), state)
        for b in range(2):
            real_TV = log_prob_BTV[b, : int(lengths[b]), :4]
            for candidate in (1, 2, 3):
                expected = _by_paths([*prefix, candidate], real_TV, whole=False)
                got = float(total_N[b] + gain_NV[b, candidate])
                assert got == pytest.approx(expected, abs=1e-3) or (expected == -math.inf and got < -500)
            whole = _by_paths(prefix, real_TV, whole=True)
            got = float(total_N[b] + gain_NV[b, eos])
            assert got == pytest.approx(whole, abs=1e-3) or (whole == -math.inf and got < -500)
        if following is None:
            break
        total_N = total_N + gain_NV[:, following]
        prefix.append(following)
        token = following


@pytest.mark.parametrize("columns", [3, 64, 65, 700])
@pytest.mark.parametrize("k", [1, 3])
def test_best_columns_match_topk(columns: int, k: int) -> None:
    x_NV = torch.randn(5, columns, generator=torch.Generator().manual_seed(columns))
    x_NV[3] = -math.inf
    value, at = best(x_NV, k)
    assert torch.equal(value, x_NV.topk(k).values)
    assert torch.equal(x_NV.gather(1, at), value)
    assert all(len(set(row)) == k for row in at.tolist())
