"""Phrase lists ('hotwords') as users write them: a file with one phrase per line, or a list."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from asr.errors import ConfigError, DataError, printable
from asr.files import text_lines

Hotwords = str | os.PathLike[str] | Iterable[str]


class Phrase(NamedTuple):
    """A phrase to listen for; its weight scales its bonus."""

    text: str
    weight: float = 1.0


def phrases_of(given: Hotwords) -> list[Phrase]:
    """Return the phrases of a file or of a list; an empty list has none.

    Raises ConfigError or DataError with a message of one line.
    """
    if isinstance(given, str) and not os.path.exists(given):
        raise ConfigError(f"hotwords: {printable(given)[:100]}: no such file; pass phrases themselves as a list")
    if isinstance(given, str | os.PathLike):
        return read_phrases(Path(given))
    phrases = []
    for text in given:
        if not (isinstance(text, str) and text.strip()):
            raise ConfigError(f"hotwords: each must be a name or a phrase, not {text!r:.100}")
        phrases.append(Phrase(" ".join(text.split())))
    return phrases


def read_phrases(path: Path) -> list[Phrase]:
    """Read one phrase per line, optionally with a tab and a weight; empty lines and lines starting with # are skipped.

    Raises DataError naming file and line.
    """
    phrases = []
    for number, line in text_lines(path):
        try:
            phrase = _phrase(line)
        except ValueError as e:
            raise DataError(f"{printable(path)}:{number}: {e}") from None
        if phrase is not None:
            phrases.append(phrase)
    if not phrases:
        raise DataError(f"{printable(path)}: it holds no phrases; write one per line")
    return phrases


def _phrase(line: str) -> Phrase | None:
    if not line.strip() or line.startswith("#"):
        return None
    text, *rest = (part.strip() for part in line.split("\t"))
    if not text:
        raise ValueError("no phrase before the tab")
    if len(rest) > 1:
        raise ValueError("expected a phrase, perhaps a tab and a weight, and nothing more")
    if not rest or not rest[0]:
        return Phrase(" ".join(text.split()))
    try:
        weight = float(rest[0])
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"the weight must be a number above 0, not '{printable(rest[0])}'")
    return Phrase(" ".join(text.split()), weight)
