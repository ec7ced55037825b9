"""Search with CTC alone against enumeration of all alignments of small vocabularies."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from asr.decode.ctc import best_paths, prefix_search
from asr.decode.search import SearchOptions

BLANK = 1


def posteriors(B: int, T: int, V: int, seed: int, sharpness: float = 2.0) -> Tensor:
    return (sharpness * torch.randn(B, T, V, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def spelt(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token != BLANK)


def by_enumeration(log_prob_TV: Tensor) -> list[tuple[float, tuple[int, ...]]]:
    """Return the log-probability of every text, summed over its paths, best first."""
    T, V = log_prob_TV.shape
    sums: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(V), repeat=T):
        p = math.exp(sum(float(log_prob_TV[t, token]) for t, token in enumerate(path)))
        sums[spelt(path)] = sums.get(spelt(path), 0.0) + p
    return sorted(((math.log(p), text) for text, p in sums.items()), reverse=True)


@pytest.mark.parametrize("seed", range(6))
def test_wide_beam_equals_exhaustive_search(seed: int) -> None:
    log_prob_BTV, len_B = posteriors(2, 5, 3, seed), torch.tensor([5, 4])
    found = prefix_search(log_prob_BTV, len_B, BLANK, SearchOptions(beam_size=100, n_best=8))
    for b, length in enumerate(len_B.tolist()):
        expected = by_enumeration(log_prob_BTV[b, :length])[:8]
        assert [h.tokens for h in found[b]] == [text for _, text in expected]
        assert [h.score for h in found[b]] == pytest.approx([score for score, _ in expected])
        assert [h.parts["ctc"] for h in found[b]] == [h.score for h in found[b]]


@pytest.mark.parametrize("beam", [1, 2, 4])
def test_narrow_beam_gives_unique_texts_and_never_overrates_them(beam: int) -> None:
    log_prob_BTV = posteriors(8, 6, 3, 3)
    found = prefix_search(log_prob_BTV, torch.full((8,), 6), BLANK, SearchOptions(beam_size=beam, n_best=beam))
    for log_prob_TV, hypotheses in zip(log_prob_BTV, found, strict=True):
        exact = {text: score for score, text in by_enumeration(log_prob_TV)}
        assert 1 <= len({h.tokens for h in hypotheses}) == len(hypotheses)
        assert all(h.score <= exact[h.tokens] + 1e-9 for h in hypotheses)


def test_prefix_search_equals_best_path_for_confident_frames() -> None:
    log_prob_BTV, len_B = posteriors(5, 12, 6, 1, sharpness=60.0), torch.tensor([12, 3, 7, 1, 12])
    paths = best_paths(log_prob_BTV, len_B, BLANK)
    for beam in (1, 4):
        found = prefix_search(log_prob_BTV, len_B, BLANK, SearchOptions(beam_size=beam))
        assert [h[0].tokens for h in found] == [path.tokens for path in paths]


def test_best_path_takes_the_best_token_of_each_frame() -> None:
    log_prob_BTV, len_B = posteriors(6, 9, 4, 2), torch.tensor([9, 1, 5, 9, 0, 2])
    for b, path in enumerate(best_paths(log_prob_BTV, len_B, BLANK)):
        log_prob_TV = log_prob_BTV[b, : int(len_B[b])]
        best = tuple(log_prob_TV.argmax(-1).tolist())
        assert path.tokens == spelt(best)
        assert path.log_prob == pytest.approx(sum(float(log_prob_TV[t, k]) for t, k in enumerate(best)))
        runs = [list(run) for k, run in itertools.groupby(range(len(best)), key=lambda t: best[t]) if k != BLANK]
        expected = [max(float(log_prob_TV[t, best[t]]) for t in run) for run in runs]
        assert path.log_probs == pytest.approx(expected)


def test_batching_and_padding_do_not_change_results() -> None:
    log_prob_BTV, lengths = posteriors(4, 20, 7, 5), [20, 0, 11, 3]
    options = SearchOptions(beam_size=3, n_best=3)
    together = prefix_search(log_prob_BTV, torch.tensor(lengths), BLANK, options)
    for b, length in enumerate(lengths):
        (alone,) = prefix_search(log_prob_BTV[b : b + 1, :length], torch.tensor([length]), BLANK, options)
        assert [h.tokens for h in alone] == [h.tokens for h in together[b]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[b]])
    assert together[1][0].tokens == ()


def test_length_bonus_is_added_for_every_token() -> None:
    log_prob_BTV = posteriors(3, 6, 3, 8)
    plain = prefix_search(log_prob_BTV, torch.full((3,), 6), BLANK, SearchOptions(beam_size=20, n_best=20))
    options = SearchOptions(beam_size=20, n_best=1, length_bonus=1.5)
    for before, (best,) in zip(plain, prefix_search(log_prob_BTV, torch.full((3,), 6), BLANK, options), strict=True):
        expected = max(before, key=lambda h: h.score + 1.5 * len(h.tokens))
        assert best.tokens == expected.tokens
        assert best.score == pytest.approx(expected.score + 1.5 * len(best.tokens))


def test_length_bonus_counts_in_pruning() -> None:
    log_prob_BTV, len_B = posteriors(20, 7, 4, 10), torch.full((20,), 7)
    wide, narrow = (
        prefix_search(log_prob_BTV, len_B, BLANK, SearchOptions(beam_size=beam, length_bonus=2.0)) for beam in (2000, 5)
    )
    found = [a.tokens == b.tokens for (a,), (b,) in zip(wide, narrow, strict=True)]
    assert sum(found) >= 17  # only 4 if pruning ignores the bonus
