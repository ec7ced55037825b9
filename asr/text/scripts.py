"""Scripts that are written without spaces between words."""

from __future__ import annotations

from collections.abc import Iterable

import regex

# A letter or digit of such a script, with the marks on it. Python's re has no script properties.
HAN_OR_KANA = r"(?=[\p{L}\p{N}])[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}]\p{M}*"
SOUTH_EAST_ASIAN = r"(?=[\p{L}\p{N}])[\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}]\p{M}*"
_UNSPACED = f"{HAN_OR_KANA}|{SOUTH_EAST_ASIAN}"
_EAST_ASIAN_SIGN = r"[\p{P}&&[\u3000-\u303F\uFF00-\uFFEF]]"
_UNSPACED_END = regex.compile(rf"(?V1)(?:{HAN_OR_KANA}|{_EAST_ASIAN_SIGN})\Z")
_UNSPACED_BEGIN = regex.compile(rf"(?V1)(?:{HAN_OR_KANA}|{_EAST_ASIAN_SIGN})")
_TOKEN = regex.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED}).)+", regex.DOTALL)


def mixed_tokens(text: str) -> list[str]:
    """Split a text into single letters of scripts without spaces, and whole words of all other scripts.

    "我用 app 打卡" becomes 我, 用, app, 打, 卡: the units of the mixed error rates of SEAME (Lyu et al., Interspeech
    2010) and ASCEND (Lovenia et al., LREC 2022) for Mandarin with English. Kana and bopomofo are treated like Han, and
    so are Thai, Lao, Khmer and Burmese, whose marks stay with their letters; Korean puts spaces between words, so
    Hangul forms words.
    """
    if text.isascii():
        return text.split()
    return [token for word in text.split() for token in _TOKEN.findall(word)]


def one_after_another(texts: Iterable[str]) -> str:
    """Join texts, with what `seam` puts between them."""
    whole = ""
    for text in filter(None, map(str.strip, texts)):
        whole += seam(whole, text) + text
    return whole


def seam(before: str, after: str) -> str:
    """Return what joins two texts: a space, unless there is no text before or both sides are Chinese or Japanese.

    Thai, Lao, Khmer and Burmese have no spaces between words, but do have them between sentences.
    """
    seamless = _UNSPACED_END.search(before, max(0, len(before) - 4)) and _UNSPACED_BEGIN.match(after)
    return "" if seamless or not before else " "
