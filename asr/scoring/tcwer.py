"""Time-constrained word errors: words only match if they were said at nearly the same time.

tcWER of von Neumann, Boeddeker, Delcroix and Haeb-Umbach, "MeetEval: A Toolkit for Computation of Word Error Rates for
Meeting Transcription Systems", CHiME 2023, for a single stream of words.  As in MeetEval, the words of a stretch divide
its time in proportion to their characters; a hypothesis word may match reference words whose time overlaps the interval
from a collar before its middle to a collar after it; all errors have weight 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

COLLAR_S = 5.0

Span = tuple[float, float]
Spans = npt.NDArray[np.float64]  # [words, 2]: start and end in seconds


class Stretch(NamedTuple):
    """Words said between start and end: a single word, or a whole segment."""

    text: str
    start_s: float
    end_s: float


def constrained_counts(
    refs: Sequence[str], ref_R2: Spans, hyps: Sequence[str], hyp_H2: Spans, collar_s: float
) -> tuple[int, int, int, int]:
    """Return hits, substitutions, deletions, insertions; of the alignments with fewest errors, one with most hits."""
    middle_H = hyp_H2.mean(1)
    return _count(refs, ref_R2, hyps, np.stack([middle_H - collar_s, middle_H + collar_s], axis=1))


def _count(refs: Sequence[str], ref_R2: Spans, hyps: Sequence[str], reach_H2: Spans) -> tuple[int, int, int, int]:
    """Fill the alignment table by reference word, restricted to the hypothesis words that can matter in each row.

    An error costs more than all hits together gain, so errors and hits can both be read off the cheapest alignment's
    cost.
    """
    error = min(len(refs), len(hyps)) + 1
    numbers = {word: number for number, word in enumerate({*refs, *hyps})}
    hyp_H = np.array([numbers[word] for word in hyps], dtype=np.int64)
    first_R, last_R = _windows(ref_R2, reach_H2)
    cost: npt.NDArray[np.int64] = np.zeros(1, dtype=np.int64)  # [j]: of the reference so far and at + j words
    at = 0
    for word, (start_s, end_s), first, last in zip(refs, ref_R2, first_R.tolist(), last_R.tolist(), strict=True):
        cost, at = _inserted(cost, at, first, last, error), first
        new = cost + error  # the word is deleted
        meets = (reach_H2[first:last, 0] < end_s) & (reach_H2[first:last, 1] > start_s)
        step = np.where(hyp_H[first:last] == numbers[word], -1, error)
        np.minimum(new[1:], cost[:-1] + np.where(meets, step, 2 * error), out=new[1:])
        spent = error * np.arange(len(new))
        cost = np.minimum.accumulate(new - spent) + spent
    total = int(_inserted(cost, at, len(hyps), len(hyps), error)[0])
    errors = -(-total // error)
    hits = errors * error - total
    substitutions = len(refs) + len(hyps) - 2 * hits - errors
    return hits, substitutions, len(refs) - hits - substitutions, len(hyps) - hits - substitutions


def _windows(ref_R2: Spans, reach_H2: Spans) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return, for each reference word, the range of hypothesis words that its row of the table must cover."""
    ends_H = np.maximum.accumulate(reach_H2[:, 1])
    starts_H = np.minimum.accumulate(reach_H2[::-1, 0])[::-1]
    first_R = np.searchsorted(ends_H, np.minimum.accumulate(ref_R2[::-1, 0])[::-1], side="right")
    last_R = np.searchsorted(starts_H, np.maximum.accumulate(ref_R2[:, 1]), side="left")
    return first_R, np.maximum(first_R, last_R)


def _inserted(cost: npt.NDArray[np.int64], at: int, first: int, last: int, error: int) -> npt.NDArray[np.int64]:
    """Return the costs from `first` to `last`; beyond the computed ones, words can only be inserted."""
    more = last - (at + len(cost)) + 1
    if more > 0:
        cost = np.concatenate([cost, cost[-1] + error * np.arange(1, more + 1)])
    return cost[first - at : last - at + 1]


def times_of(words: Sequence[str], stretches: Sequence[Stretch]) -> Spans:
    """Return the times of the words of a normalised text.

    Words that the normaliser left or only respelled keep their times; words that replace others divide the time of
    those that they replace.
    """
    tokens = [token for stretch in stretches for token in stretch.text.split()]
    spans = [span for stretch in stretches for span in _shared(stretch.text.split(), stretch.start_s, stretch.end_s)]
    if tokens != list(words):
        spans = _carried(words, tokens, spans)
    return np.array(spans, dtype=np.float64).reshape(-1, 2)


def _carried(words: Sequence[str], tokens: Sequence[str], spans: Sequence[Span]) -> list[Span]:
    if not tokens:
        return [(0.0, 0.0)] * len(words)
    edits: Any = Levenshtein.editops([_bare(token) for token in tokens], [_bare(word) for word in words])
    found: list[Span] = []
    start = 0
    for block in edits.as_matching_blocks():  # the last block is empty and marks the end
        found += _between(words[len(found) : block.b], spans, start, block.a)
        start = block.a + block.size
        found += spans[block.a : start]
    return found


def _between(words: Sequence[str], spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    """Return times for words that replace the words of spans[start:end]."""
    if len(words) == end - start:
        return spans[start:end]
    begin_s = spans[start][0] if start < len(spans) else spans[-1][1]
    return _shared(words, begin_s, max(begin_s, spans[end - 1][1]) if end > start else begin_s)


def _bare(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())


def _shared(words: Sequence[str], start_s: float, end_s: float) -> list[Span]:
    """Divide the time of a stretch among its words in proportion to their characters."""
    ends = list(accumulate(map(len, words), initial=0))
    each_s = (end_s - start_s) / max(1, ends[-1])
    return [(start_s + each_s * a, start_s + each_s * b) for a, b in pairwise(ends)]
