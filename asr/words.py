"""Grouping tokens into words, and words into segments.

Words are what stands between spaces.  Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Burmese,
Khmer) give one unit per token, which is a character or a few.  The script decides, not the language, since a Chinese
text may contain English words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from asr.transcript import Segment, Word

LONG_PAUSE_S = 0.8
LONGEST_SEGMENT_S = 15.0

# Kana, ideographs, their radicals, extensions and compatibility forms, which use no spaces at all.
_CJ = "\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_UNSPACED = re.compile(f"[{_CJ}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # and Thai, Lao, Burmese, Khmer
_CLOSING = r"[\"'”’»)\]」』]*$"
_SENTENCE_END = re.compile(r"[.!?…。！？｡।؟۔]+" + _CLOSING)
_CLAUSE_END = re.compile(r"[,;:،，、；：–—]" + _CLOSING)
_ABBREVIATION = re.compile(r"\W*(([^\W\d_]\.)+|(mr|mrs|ms|dr|prof|st|vs)\.)$", re.IGNORECASE)


class Span(NamedTuple):
    """A word's text with the white space before it, and the slice of its tokens without surrounding punctuation."""

    text: str
    said: slice


def group(pieces: Sequence[str]) -> list[Span]:
    """Group the texts that tokens add (see Tokenizer.pieces) into words, punctuation with its word.

    The joined texts of the words equal the joined pieces, except for white space at the end.
    """
    words: list[tuple[int, int]] = []
    for start, end in _characters(pieces):
        if words and not _parts("".join(pieces[words[-1][0] : start]), "".join(pieces[start:end])):
            words[-1] = (words[-1][0], end)
        else:
            words.append((start, end))
    spans = [_span(pieces, start, end) for start, end in _with_punctuation(pieces, words)]
    return [span for span in spans if span.text]


def is_sentence_end(word: str, following: str = "") -> bool:
    """Return whether a sentence ends with this word, given the next one."""
    word, following = word.strip(), following.strip()
    if not _SENTENCE_END.search(word):
        return False
    return not (word.endswith(".") and (following[:1].islower() or _ABBREVIATION.match(word)))


def is_full_stop(word: str) -> bool:
    """Return whether the word ends like a sentence and is no abbreviation, whatever follows."""
    return bool(_SENTENCE_END.search(word.strip())) and not _ABBREVIATION.match(word.strip())


def is_clause_end(word: str) -> bool:
    """Return whether the word ends in a comma or similar punctuation."""
    return bool(_CLAUSE_END.search(word.strip()))


def joined(words: Sequence[Word]) -> str:
    """Return the text of the words."""
    return "".join(word.text for word in words).strip()


def split(segment: Segment) -> list[Segment]:
    """Cut a segment that has words at sentence ends, at long pauses and where it gets too long.

    The parts keep its other fields; a segment without words stays whole.
    """
    words, start = segment.words, 0
    parts: list[tuple[Word, ...]] = []
    for i in range(1, len(words) + 1):
        if i == len(words) or is_sentence_end(words[i - 1].text, words[i].text) or _gap_s(words, i) >= LONG_PAUSE_S:
            parts += _short_enough(words[start:i])
            start = i
    if not parts:
        return [segment]
    return [replace(segment, text=joined(p), start_s=p[0].start_s, end_s=p[-1].end_s, words=p) for p in parts]


def _short_enough(words: tuple[Word, ...]) -> list[tuple[Word, ...]]:
    """Split at the best place near the middle until no part is too long; of equally good ones, nearest the middle."""
    if len(words) < 2 or words[-1].end_s - words[0].start_s <= LONGEST_SEGMENT_S:
        return [words]
    quarter = len(words) // 4
    places = range(max(1, quarter), max(2, len(words) - quarter))
    nearest = sorted(places, key=lambda i: abs(2 * i - len(words)))
    best = max(nearest, key=lambda i: _gap_s(words, i) + 0.5 * is_clause_end(words[i - 1].text))
    return _short_enough(words[:best]) + _short_enough(words[best:])


def _gap_s(words: Sequence[Word], i: int) -> float:
    """Return the silence before word i."""
    return words[i].start_s - words[i - 1].end_s


def _characters(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Return runs of tokens that each end in one that adds text; trailing tokens without text join the last run."""
    ends = [i + 1 for i, piece in enumerate(pieces) if piece]
    return list(zip([0, *ends[:-1]], [*ends[:-1], len(pieces)], strict=True)) if ends else []


def _parts(before: str, text: str) -> bool:
    """Return whether a new word begins with `text`, which follows `before`."""
    if not before.strip():
        return False  # white space belongs to the word after it
    if text[0].isspace() or before[-1].isspace():
        return True
    if unicodedata.category(text[0]) in ("Mn", "Mc", "Lm"):
        return False
    return _is_unspaced(text[0]) or _is_unspaced(before[-1])


def _with_punctuation(pieces: Sequence[str], words: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge words that are only punctuation into the word before, or the next one if they open it or come first."""
    merged: list[tuple[int, int]] = []
    opened: int | None = None
    for start, end in words:
        text = "".join(pieces[start:end])
        start, opened = start if opened is None else opened, None
        if not _is_punctuation(text.strip()):
            merged.append((start, end))
        elif end < len(pieces) and (not merged or _opens(text)):
            opened = start
        elif merged:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _is_unspaced(character: str) -> bool:
    """Return whether a character may touch other words: a letter of an unspaced script, or Chinese punctuation."""
    wide = unicodedata.east_asian_width(character) in "WF"
    return bool(_UNSPACED.match(character)) or (wide and _is_punctuation(character))


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(c).startswith("P") for c in text)


def _opens(text: str) -> bool:
    first = text.strip()[:1] or " "
    kind = unicodedata.category(first)
    return kind in ("Ps", "Pi") or first in "¿¡" or (text[0].isspace() and (kind == "Pd" or first in "\"'"))


def _span(pieces: Sequence[str], start: int, end: int) -> Span:
    text = "".join(pieces[start:end]).rstrip()
    said = [i for i in range(start, end) if not _is_punctuation(pieces[i].strip())]
    if not said:
        return Span(text, slice(start, end))
    first = said[0]
    while first > start and not pieces[first - 1]:  # tokens with the first bytes of its character
        first -= 1
    return Span(text, slice(first, said[-1] + 1))
