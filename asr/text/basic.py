"""Rules common to all scripts, and the normaliser `basic` made of them."""

from __future__ import annotations

import re
import unicodedata

from asr.text.chain import Chain, Step

# Characters typed as apostrophes; NFKC would decompose the acute accent instead.
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼʻ´`＇", "'"))


def fold(text: str) -> str:
    """Apply NFKC and lower case, and remove invisible format characters (byte-order mark, soft hyphen, joiners)."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    # Lower-casing can undo the normal form, so it is applied again.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())


def words(text: str, keep: str = "") -> str:
    """Keep letters with their marks, digits and the characters of `keep`; turn everything else into single spaces."""
    out = [" "]
    for c in text:
        kind = unicodedata.category(c)[0]
        if kind in "LN" or c in keep:
            out.append(c)
        elif kind != "M":
            out.append(" ")
        elif out[-1] != " " and out[-1] not in keep:  # a mark needs a letter before it
            out.append(c)
    return " ".join("".join(out).split())


def plain_apostrophes(text: str) -> str:
    """Replace every character that is typed as an apostrophe by '."""
    return text.translate(_APOSTROPHES)


def words_and_apostrophes(text: str) -> str:
    """Like `words`, but keep apostrophes inside a word."""
    text = words(text, keep="'")
    return " ".join(re.sub(r"(?<![^\W_])'|'(?![^\W_])", " ", text).split())


def plain_digits(text: str) -> str:
    """Replace the digits of all scripts by ASCII digits."""
    return "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in text)


BASIC = Chain((Step("NFKC, lower case", fold), Step("punctuation", words)))
