"""N-gram models by interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998), written as ARPA files.

Written here because the usual library, KenLM, is C++ that pip can build only with a compiler and Boost installed; numpy
does the counting.  100 million tokens of text need some 10 GB of memory.

Shapes: P positions in the texts, E distinct n-grams of an order, k words of one, W words.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError
from asr.files import byte_writer

BEGIN, END, UNKNOWN = 0, 1, 2  # the first words of every model, see `write_arpa`
FALLBACK = (0.5, 1.0, 1.5)  # KenLM's, for when the counts of counts give no valid discounts
Ints = NDArray[np.int64]
Reals = NDArray[np.float64]


class Estimated(NamedTuple):
    """The n-grams of one order: words (E, k), probabilities, and the mass left to shorter contexts after each."""

    words_Ek: NDArray[np.int32]
    prob_E: Reals
    left_E: Reals


class _Counts(NamedTuple):
    """The n-grams of one order, sorted by their first words.

    shorter_E: the index of each one's first words in the order below; last_E: that of its last words.
    """

    words_Ek: NDArray[np.int32]
    count_E: Ints
    shorter_E: Ints
    last_E: Ints


def estimate(texts: Iterable[Sequence[int]], words: int, order: int) -> list[Estimated]:
    """Estimate n-grams up to `order` from texts of word numbers below `words`, of which UNKNOWN is one.

    Every word but BEGIN has a probability in every context, END included.  The discounts follow from how many n-grams
    were seen once to four times; if these counts give none, FALLBACK is used.  Raises DataError if there is no text.
    """
    counts = _counted(texts, words, order)
    found: list[Estimated] = []
    lower_E = np.full(words, 1 / (words - 1))
    for k, now in enumerate(counts, start=1):
        seen_E = now.count_E if k == order else _continued(now, counts[k])
        if k == 1:
            seen_E[BEGIN] = 0  # it is never predicted
        discount_E = np.array([0.0, *_discounts(seen_E)])[np.minimum(seen_E, 3)]
        contexts = len(found[-1].prob_E) if found else 1
        sum_X = np.bincount(now.shorter_E, seen_E, contexts)
        taken_X = np.bincount(now.shorter_E, discount_E, contexts)
        left_X = np.divide(taken_X, sum_X, out=np.ones(contexts), where=sum_X > 0)
        prob_E = (seen_E - discount_E) / sum_X[now.shorter_E] + left_X[now.shorter_E] * lower_E[now.last_E]
        if found:
            found[-1] = found[-1]._replace(left_E=left_X)
        else:
            prob_E[BEGIN] = 0.0
        lower_E = prob_E
        found.append(Estimated(now.words_Ek, prob_E, np.ones(len(prob_E))))
    return found


def _counted(texts: Iterable[Sequence[int]], words: int, order: int) -> list[_Counts]:
    """Count all n-grams; the 1-grams are all words.  BEGIN is put once before each text, and END after it."""
    ended = [[BEGIN, *text, END] for text in texts]
    if not ended:
        raise DataError("there is no text to make a language model of")
    word_P = np.fromiter(chain.from_iterable(ended), np.int64)
    left_P = np.concatenate([np.arange(len(text), 0, -1) for text in ended])  # words from here to the text's end
    every_W = np.arange(words)
    count_W = np.bincount(word_P, minlength=words)
    counts = [_Counts(every_W[:, None].astype(np.int32), count_W, np.zeros_like(every_W), every_W)]
    number_P = word_P  # the index of the n-gram of the order below that begins here
    for k in range(2, order + 1):
        at_P = np.flatnonzero(left_P >= k)
        key_P = number_P[at_P] * words + word_P[at_P + k - 1]
        _, first_E, number_of_P, count_E = np.unique(key_P, return_index=True, return_inverse=True, return_counts=True)
        place_E = at_P[first_E]
        words_Ek = word_P[place_E[:, None] + np.arange(k)].astype(np.int32)
        counts.append(_Counts(words_Ek, count_E, number_P[place_E], number_P[place_E + 1]))
        number_P = np.zeros(len(word_P), np.int64)
        number_P[at_P] = number_of_P
    return counts


def _continued(now: _Counts, longer: _Counts) -> Ints:
    """Return how many different words precede each n-gram; for n-grams that start with BEGIN, their own counts."""
    continued_E = np.bincount(longer.last_E, minlength=len(now.count_E))
    return np.where(now.words_Ek[:, 0] == BEGIN, now.count_E, continued_E)


def _discounts(seen_E: Ints) -> tuple[float, ...]:
    """Return the discounts of n-grams seen once, twice, and more often (Chen and Goodman, equation 26)."""
    n = [float((seen_E == count).sum()) for count in range(1, 5)]
    if min(n) == 0:
        return FALLBACK
    y = n[0] / (n[0] + 2 * n[1])
    found = tuple(k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3))
    return found if all(0 < d < k for k, d in enumerate(found, start=1)) else FALLBACK


def write_arpa(path: Path, orders: Sequence[Estimated], names: Sequence[str]) -> None:
    """Write an ARPA file atomically, compressed if its name ends in .gz.

    names: those of the words, beginning with <s>, </s> and <unk>.
    """
    with byte_writer(path) as stream, io.TextIOWrapper(stream, encoding="utf-8") as file:
        file.write("\\data\\\n")
        for k, order in enumerate(orders, start=1):
            file.write(f"ngram {k}={len(order.prob_E)}\n")
        for k, order in enumerate(orders, start=1):
            file.write(f"\n\\{k}-grams:\n")
            with np.errstate(divide="ignore"):
                log_prob_E = np.maximum(np.log10(order.prob_E), -99)  # <s>, which is never predicted
            back_off_E = np.log10(order.left_E)
            rows = zip(log_prob_E.tolist(), order.words_Ek.tolist(), back_off_E.tolist(), strict=True)
            for log_prob, words, back_off in rows:
                behind = f"\t{back_off:.7g}" if back_off else ""
                file.write(f"{log_prob:.7g}\t{' '.join(names[w] for w in words)}{behind}\n")
        file.write("\n\\end\\\n")
