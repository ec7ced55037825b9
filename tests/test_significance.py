"""Bootstrap and MAPSSWE against plain loops, closed forms and values worked out by hand."""

from __future__ import annotations

import math
import random
import statistics

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.metrics import error_counts, word_errors
from asr.scoring.rates import MEASURES, in_blocks
from asr.scoring.significance import interval, matched_pairs, paired_bootstrap, resample
from asr.scoring.tally import Places

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12).map(" ".join)
wer = MEASURES["wer"].of


def noisy(words: list[str], share: float, draw: random.Random) -> str:
    return " ".join(w if draw.random() >= share else draw.choice(["x", "y z", ""]) for w in words)


def corpus(utterances: int, *shares: float) -> tuple[list[str], list[list[str]]]:
    draw = random.Random(3)
    refs = [[draw.choice("abcdefgh") for _ in range(draw.randint(1, 15))] for _ in range(utterances)]
    return [" ".join(ref) for ref in refs], [[noisy(ref, share, draw) for ref in refs] for share in shares]


def places(refs: list[str], hyps: list[str]) -> Places:
    found = [
        (number, 2 * e.at + (e.kind != "insert"))
        for number, (ref, hyp) in enumerate(zip(refs, hyps, strict=True))
        for e in word_errors(ref, hyp)
    ]
    table = np.array(found, dtype=np.int64).reshape(-1, 2)
    return Places(table[:, 0], table[:, 1])


@settings(max_examples=200)
@given(pairs=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_measures_match_jiwer(pairs: list[tuple[str, str]]) -> None:
    refs, hyps = [r for r, _ in pairs], [h for _, h in pairs]
    totals = error_counts(refs, hyps).sum(0)
    out = jiwer.process_words(refs, hyps)
    for name, expected in (("wer", out.wer), ("mer", out.mer), ("wil", out.wil)):
        assert float(MEASURES[name].of(totals)) == pytest.approx(expected)


def test_resampling_draws_rows_with_replacement() -> None:
    """The sums have the means and covariances of N independent draws of rows."""
    rows = np.array([[1, 5], [0, 7], [4, 9], [4, 9], [2, 3], [0, 7], [0, 7]])
    sums = resample(rows, 40_000)
    assert sums.mean(0) == pytest.approx(rows.sum(0), rel=0.01)
    assert np.cov(sums.T) == pytest.approx(len(rows) * np.cov(rows.T, bias=True), rel=0.05, abs=0.3)
    assert (resample(rows, 50) == resample(rows, 50)).all()


def test_resampling_interval_matches_a_plain_loop() -> None:
    refs, (hyps,) = corpus(60, 0.3)
    rows = error_counts(refs, hyps)
    draw = random.Random(5)
    looped = sorted(float(wer(sum(draw.choices(rows, k=len(rows))))) for _ in range(4000))
    low, high, _ = interval(rows, wer)
    assert low == pytest.approx(looped[100], abs=0.01)
    assert high == pytest.approx(looped[-100], abs=0.01)


def test_rows_too_large_to_pack_are_drawn_alike() -> None:
    rows = np.array([[1, 2], [3, 4], [1, 2]])
    large = np.array([1, 2**61 // 3])
    assert (resample(rows * large, 20)[:, 0] == resample(rows, 20)[:, 0]).all()


def test_interval_of_a_proportion_is_the_binomial_interval() -> None:
    """For one-word utterances the error rate is a binomial proportion: 1.96 standard deviations either way."""
    rows = np.array([[1, 0, 0, 0]] * 900 + [[0, 1, 0, 0]] * 100)
    low, high, _ = interval(rows, wer)
    half = 1.96 * math.sqrt(0.1 * 0.9 / 1000)
    assert (low, high) == (pytest.approx(0.1 - half, abs=0.002), pytest.approx(0.1 + half, abs=0.002))


def test_speakers_are_resampled_as_whole_blocks() -> None:
    rows = np.array([[9, 1, 0, 0], [5, 5, 0, 0], [9, 1, 0, 0], [5, 5, 0, 0]])
    speakers = np.array([0, 1, 0, 1])
    assert in_blocks(rows, speakers).tolist() == [[18, 2, 0, 0], [10, 10, 0, 0]]
    assert interval(in_blocks(rows, speakers), wer)[:2] == (0.1, 0.5)  # either of the two speakers may be drawn twice
    low, high, _ = interval(np.tile(rows, (4, 1)), wer)
    assert 0.1 < low < high < 0.5


def test_paired_bootstrap_finds_a_difference_despite_overlapping_intervals() -> None:
    refs, (first,) = corpus(400, 0.2)
    second = [hyp if number % 10 else ref for number, (ref, hyp) in enumerate(zip(refs, first, strict=True))]
    rows = error_counts(refs, first), error_counts(refs, second)
    assert interval(rows[0], wer)[0] < interval(rows[1], wer)[1]
    better = paired_bootstrap(*rows, wer)
    assert better.value < 0 > better.interval.high
    assert better.p < 0.01
    assert paired_bootstrap(rows[1], rows[0], wer).value == pytest.approx(-better.value)
    assert paired_bootstrap(rows[0], rows[0], wer) == (0.0, (0.0, 0.0, 10_000), 1.0)


def test_few_blocks_limit_how_small_p_can_be() -> None:
    right, wrong = np.array([[10, 0, 0, 0]]), np.array([[5, 5, 0, 0]])
    for count, least in ((1, 1.0), (2, 0.5), (5, 2 / 32)):
        found = paired_bootstrap(np.repeat(wrong, count, 0), np.repeat(right, count, 0), wer)
        assert (found.value, found.p) == (-0.5, least)
    alike = np.repeat(right, 9, 0)  # blocks without a difference are no evidence
    assert paired_bootstrap(np.vstack([alike, wrong]), np.vstack([alike, right]), wer).p == 1.0


def test_paired_bootstrap_rejects_true_nulls_at_the_nominal_rate() -> None:
    """Of pairs of systems that differ only by chance, about one in twenty seems different."""
    refs, hyps = corpus(150, *[0.2] * 60)
    rows = [error_counts(refs, hyp) for hyp in hyps]
    found = [paired_bootstrap(a, b, wer, 1000).p for a, b in zip(rows[::2], rows[1::2], strict=True)]
    assert sum(p < 0.05 for p in found) <= 5
    assert 0.3 < statistics.mean(found) < 0.7


def segments_by_hand(ref: str, first: str, second: str) -> list[int]:
    """Return the difference in errors of each segment, walking along the reference word by word."""
    found, differences, good = [0, 0], [], 0
    marks = [[(e.at, e.kind == "insert") for e in word_errors(ref, hyp)] for hyp in (first, second)]
    for at in range(len(ref.split()) + 1):
        for inserted in (True, False):
            wrong = [m.count((at, inserted)) for m in marks]
            if any(wrong):
                if good >= 2 and any(found):
                    differences.append(found[0] - found[1])
                    found = [0, 0]
                found, good = [a + b for a, b in zip(found, wrong, strict=True)], 0
            elif not inserted:
                good += 1
    return [*differences, found[0] - found[1]] if any(found) else differences


@settings(max_examples=200)
@given(texts=st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5))
def test_matched_pairs_agrees_with_a_plain_loop(texts: list[tuple[str, str, str]]) -> None:
    refs, first, second = (list(column) for column in zip(*texts, strict=True))
    expected = [d for three in texts for d in segments_by_hand(*three)]
    found = matched_pairs(places(refs, first), places(refs, second))
    assert found.segments == len(expected)
    if expected:
        assert found.mean == pytest.approx(statistics.mean(expected))
    if len(expected) > 1 and len(set(expected)) > 1:
        z = statistics.mean(expected) / (statistics.stdev(expected) / math.sqrt(len(expected)))
        assert found.z == pytest.approx(z)
        assert found.p == pytest.approx(2 * statistics.NormalDist().cdf(-abs(z)))


def test_matched_pairs_on_an_example_worked_out_by_hand() -> None:
    """Differences 1, 1, 0, 1, -1: mean 0.4, standard deviation sqrt(0.8), z = 0.4 / sqrt(0.16) = 1."""
    ref = "a b c d e f g h i j"
    first = ["a x c d x f g h i j", ref, "x b c d e f g h i j", "a b c d e f g h i j k"]
    second = [ref, "x b c d e f g h i j", "y b c d e f g h i j", ref]
    found = matched_pairs(places([ref] * 4, first), places([ref] * 4, second))
    assert (found.segments, found.mean, found.z) == (5, pytest.approx(0.4), pytest.approx(1.0))
    assert found.p == pytest.approx(0.3173, abs=1e-4)


def test_matched_pairs_without_variance_between_segments() -> None:
    same = places(["a b"], ["a x"])
    none = places(["a b"], ["a b"])
    assert matched_pairs(same, same) == (1, 0.0, None, 1.0)
    assert matched_pairs(none, none) == (0, 0.0, None, 1.0)
    assert matched_pairs(same, none) == (1, 1.0, None, 1.0)  # one segment is no evidence
    always = matched_pairs(places(["a b"] * 6, ["a x"] * 6), places(["a b"] * 6, ["a b"] * 6))
    assert always == (6, 1.0, None, 2 / 64)  # the sign test, six of six
