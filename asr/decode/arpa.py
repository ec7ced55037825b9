"""A reader of untrusted back-off language models in the ARPA format, as SRILM, KenLM and others write it.

Shapes: E n-grams of an order, k words of one.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.errors import ConfigError, DataError, printable
from asr.files import filled_lines

MOST_ORDERS = 16
MOST_NGRAMS = 20_000_000  # of an order; some 60 bytes of memory each
_MOST_WORD_BYTES = 1_000
_HINT = "see asr lm ngram --help for how such a file is made"


class Order(NamedTuple):
    """The n-grams of one order, in the order of the file.

    words_Ek: indices into Arpa.words.  log_prob_E, back_off_E: natural logarithms.  line_E: line numbers in the file.
    """

    words_Ek: NDArray[np.int32]
    log_prob_E: NDArray[np.float32]
    back_off_E: NDArray[np.float32]
    line_E: NDArray[np.int32]


class Arpa(NamedTuple):
    """The contents of a file: the words kept, the n-grams of these, and the number of all words, kept or not."""

    words: list[str]
    orders: list[Order]
    size: int


def read_arpa(path: Path, keep: Callable[[str], bool] = lambda word: True) -> Arpa:
    """Read an ARPA file, unpacked if its name ends in .gz, leaving out n-grams with words for which `keep` is false.

    N-grams that are not listed do not exist; missing back-off weights are 1.  Memory grows with what the file holds,
    not with what its header claims.  Raises ConfigError naming the file, and the line if that is broken.
    """
    try:
        return _Reading(path, keep).arpa()
    except DataError as e:  # raised while reading lines
        raise ConfigError(str(e)) from None


class _Reading:
    """One pass over a file."""

    def __init__(self, path: Path, keep: Callable[[str], bool]) -> None:
        self.path, self.keep = path, keep
        self.lines: Iterator[tuple[int, bytes]] = filled_lines(path)
        self.number = 0
        self.ids: dict[bytes, int] = {}  # -1: a word that is left out
        self.words: list[str] = []

    def arpa(self) -> Arpa:
        while self._next() != b"\\data\\":  # SRILM allows any text before it
            pass
        counts: list[int] = []
        while (line := self._next()).startswith(b"ngram "):
            counts.append(self._count(line, len(counts) + 1))
        if not counts:
            raise self._error("there is no 'ngram 1=...' after \\data\\")
        orders = []
        for k, count in enumerate(counts, start=1):
            if line != b"\\%d-grams:" % k:
                raise self._error(f"expected \\{k}-grams:, not '{_shown(line)}'")
            order, line = self._order(k, count)
            orders.append(order)
        if line != b"\\end\\":
            raise self._error(f"expected \\end\\, not '{_shown(line)}'")
        return Arpa(self.words, orders, len(self.ids))

    def _next(self) -> bytes:
        for number, line in self.lines:
            self.number = number
            return line.strip()
        if self.number == 0:
            raise ConfigError(f"{printable(self.path)}: the file is empty; {_HINT}")
        raise self._error("the file ends here: it is not an ARPA language model, or was cut off; " + _HINT)

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"{printable(self.path)}:{self.number}: {problem}")

    def _count(self, line: bytes, k: int) -> int:
        order, _, count = line[len(b"ngram ") :].partition(b"=")
        if order.strip() != b"%d" % k or not count.strip().isdigit() or len(count) > 20:
            raise self._error(f"expected 'ngram {k}=' and a number, not '{_shown(line)}'")
        if k > MOST_ORDERS:
            raise self._error(f"more than {MOST_ORDERS} orders are too many")
        if int(count) > MOST_NGRAMS:
            raise self._error(f"more than {MOST_NGRAMS:,} n-grams of an order are too many; prune the model")
        return int(count)

    def _order(self, k: int, count: int) -> tuple[Order, bytes]:
        """Read a section; return its n-grams and the line after it."""
        words, log_probs, back_offs, numbers = array("i"), array("f"), array("f"), array("i")
        seen = 0
        while not (line := self._next()).startswith(b"\\"):
            seen += 1
            if seen > count:
                raise self._error(f"more {k}-grams than the {count} that the header gives")
            fields = line.split()
            if len(fields) not in (k + 1, k + 2):
                raise self._error(f"expected a probability, {k} words and perhaps a back-off, not '{_shown(line)}'")
            log_prob = self._number(fields[0], most=0.0)
            back_off = self._number(fields[k + 1]) if len(fields) == k + 2 else 0.0
            ids = [self._known(word, new=k == 1) for word in fields[1 : k + 1]]
            if min(ids) < 0:
                continue
            words.extend(ids)
            log_probs.append(log_prob)
            back_offs.append(back_off)
            numbers.append(self.number)
        if seen < count:
            raise self._error(f"the section ends after {seen} {k}-grams, but the header gives {count}")
        order = Order(
            np.array(words, np.int32).reshape(-1, k),
            np.array(log_probs, np.float32),
            np.array(back_offs, np.float32),
            np.array(numbers, np.int32),
        )
        return order, line

    def _number(self, text: bytes, most: float = math.inf) -> float:
        """Convert a logarithm to base 10 into a natural one; only probabilities may be minus infinity."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value) or value > most or value == math.inf or (value == -math.inf and most > 0):
            what = "a logarithm of a probability (0 or less)" if most == 0 else "a logarithm of a back-off"
            raise self._error(f"'{_shown(text)}' is not {what}")
        return value * math.log(10)

    def _known(self, word: bytes, *, new: bool) -> int:
        if not new:
            if word not in self.ids:
                raise self._error(f"'{_shown(word)}' is not among the 1-grams")
            return self.ids[word]
        if word in self.ids:
            raise self._error(f"'{_shown(word)}' is listed twice")
        try:
            text = word.decode("utf-8")
        except UnicodeDecodeError as e:
            raise self._error(f"not UTF-8 (byte 0x{word[e.start]:02x}); save the file as UTF-8") from None
        if len(word) > _MOST_WORD_BYTES:
            raise self._error(f"a word of {len(word)} bytes is too long")
        self.ids[word] = len(self.words) if self.keep(text) else -1
        if self.ids[word] >= 0:
            self.words.append(text)
        return self.ids[word]


def _shown(line: bytes) -> str:
    text = printable(line.decode("utf-8", "replace"))
    return text if len(text) <= 60 else f"{text[:60]} ..."
