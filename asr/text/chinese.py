"""`chinese`: one written form for Chinese words that can be written in several ways, with or without English.

- Script: traditional characters become simplified ones, by OpenCC's phrases (t2s); 著 becomes 着, as Taiwan does not
  distinguish them. Not the other way round: a simplified character may stand for several traditional ones.
- Width and case: NFKC and lower case, so ＡＢＣ１２３ becomes abc123.
- Numbers: digits become Chinese numerals as they are read; see `asr.text.numerals`.
- Punctuation of all scripts is removed; an apostrophe inside a word stays ("don't").
- Spaces: none between Chinese characters, one between words of other scripts, and between these and Chinese.

Fillers (嗯) and erhua stay, as they were said.
"""

from __future__ import annotations

from functools import lru_cache

import regex

from asr.text.basic import fold, plain_apostrophes, plain_digits, words_and_apostrophes
from asr.text.chain import Settled, Step
from asr.text.numerals import read_numbers
from asr.text.scripts import HAN_OR_KANA

_CHARACTERS = regex.compile(rf"{HAN_OR_KANA}(?:\s*{HAN_OR_KANA})*")
# Separate a fraction or circled number from the number before it, as 3½ is not 31/2.
_NUMBER_SIGN = regex.compile(r"(?<=\p{Nd})(?=\p{No})")


@lru_cache(maxsize=1)
def chinese(_language: str | None = None) -> Settled:
    """Return the normaliser; the language is ignored, as utterances of mixed corpora are labelled with either one."""
    from opencc import OpenCC  # reads its dictionaries, so imported only when needed

    simplify = OpenCC("t2s").convert
    return Settled(
        (
            Step("NFKC, lower case", _fold),
            Step("simplified characters", lambda text: simplify(text).replace("著", "着")),
            Step("numbers", read_numbers),
            Step("punctuation", words_and_apostrophes),
            Step("spaces", _spaces),
        )
    )


def _fold(text: str) -> str:
    text = text.encode("utf-8", errors="ignore").decode("utf-8")  # removes lone surrogates
    return plain_digits(fold(_NUMBER_SIGN.sub(" ", plain_apostrophes(text))))


def _spaces(text: str) -> str:
    return " ".join(_CHARACTERS.sub(lambda m: f" {''.join(m[0].split())} ", text).split())
