"""Phrase lists ('hotwords') as users write them: a file with one phrase per line, or a list."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from asr.errors import ConfigError, printable

Hotwords = str | os.PathLike[str] | Iterable[str]
_MAX_BYTES = 10_000_000


class Phrase(NamedTuple):
    """A phrase to listen for; its weight scales its bonus."""

    text: str
    weight: float = 1.0


def phrases_of(given: Hotwords) -> list[Phrase]:
    """Return the phrases of a file or of a list; an empty list has none.

    Raises ConfigError with a message of one line.
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

    Raises ConfigError naming file and line.
    """
    try:
        with Path(path).open("rb") as f:
            content = f.read(_MAX_BYTES + 1)
    except OSError as e:
        raise ConfigError(f"{printable(path)}: cannot be read: {e.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{printable(path)}: more than {_MAX_BYTES} bytes are too many for a phrase list")
    phrases = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            phrase = _phrase(line.decode("utf-8"))
        except UnicodeDecodeError as e:
            hint = f"not UTF-8 (byte 0x{line[e.start]:02x}); save the file as UTF-8"
            raise ConfigError(f"{printable(path)}:{number}: {hint}") from None
        except ValueError as e:
            raise ConfigError(f"{printable(path)}:{number}: {e}") from None
        if phrase is not None:
            phrases.append(phrase)
    if not phrases:
        raise ConfigError(f"{printable(path)}: it holds no phrases; write one per line")
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
