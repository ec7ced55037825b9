"""The rules that every script shares, and the normaliser `basic` made of them."""

from __future__ import annotations

import re
import unicodedata

from asr.text.chain import Chain, Step

# Characters that people type for an apostrophe; NFKC would take the acute accent apart instead.
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼʻ´`＇", "'"))


def fold(text: str) -> str:
    """NFKC and lower case, without invisible format characters (byte-order mark, soft hyphen, joiners)."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    # Lower-casing can undo the normal form, so it is made once more.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())


def words(text: str, keep: str = "") -> str:
    """Letters, the marks on them, digits and `keep`; a single space for all the rest."""
    out = [" "]
    for c in text:
        kind = unicodedata.category(c)[0]
        if kind in "LN" or c in keep:
            out.append(c)
        elif kind != "M":
            out.append(" ")
        elif out[-1] != " " and out[-1] not in keep:  # a mark needs a letter to stand on
            out.append(c)
    return " ".join("".join(out).split())


def plain_apostrophes(text: str) -> str:
    """One character for all that people type as an apostrophe."""
    return text.translate(_APOSTROPHES)


def words_and_apostrophes(text: str) -> str:
    """Like `words`, but an apostrophe inside a word stays."""
    text = words(text, keep="'")
    return " ".join(re.sub(r"(?<![^\W_])'|'(?![^\W_])", " ", text).split())


def plain_digits(text: str) -> str:
    """ASCII digits for those of all scripts."""
    return "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in text)


BASIC = Chain((Step("NFKC, lower case", fold), Step("punctuation", words)))
