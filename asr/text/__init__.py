"""Text normalisers, named or in a file of rules: the same function treats both sides of a score.

Those that have a name prepare training texts too, and stand in model folders.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from asr.errors import ConfigError
from asr.text.basic import BASIC
from asr.text.chain import Chain, Settled, Step
from asr.text.chinese import chinese
from asr.text.english import english
from asr.text.rules import RULE_FILES, read_rules
from asr.text.spoken import spoken

__all__ = ["NORMALIZERS", "Chain", "Normalizer", "Settled", "Step", "check_name", "normalizer", "open_normalizer"]

_MAKERS: dict[str, Callable[[str | None], Chain]] = {
    "none": lambda _: Chain(),
    "basic": lambda _: BASIC,
    "english": english,
    "spoken": spoken,
    "chinese": chinese,
}
NORMALIZERS: tuple[str, ...] = tuple(_MAKERS)


class Normalizer(NamedTuple):
    """What results say of a normaliser, what it is in a language, and whether it is known to settle at once."""

    name: str
    of_language: Callable[[str | None], Chain]
    idempotent: bool = True


def normalizer(name: str, language: str | None = None) -> Chain:
    """Return the normaliser of that name.

    Every one of them is idempotent: normalised text comes back unchanged.

    - ``none``: the text as it is.
    - ``basic``: Unicode NFKC, lower case, punctuation and symbols (apostrophes too) to a space, white space
      collapsed. Diacritics and digits stay.
    - ``english``: the English rules of Whisper (Radford et al. 2022, appendix C) from whisper-normalizer.
      They leave stray full stops and spaces behind, which a second pass of the same rules removes ("wait..."
      becomes "wait ." becomes "wait"), so they are repeated until nothing changes.
    - ``spoken``: the words as they are said. NFKC, lower case, punctuation to a space except apostrophes
      inside a word; hyphens part words. Words in brackets of any kind are stage directions and go. Digits
      are spelled out in `language`: "3D" is "three d", "1st" "first", "1990s" "nineteen nineties", but one
      at a time after a word such as "dial" ("dial 500": "five zero zero"), after a single letter ("H.323"),
      after a leading zero, and from seven digits on. ``# * % & + = @ $ € £ №`` become words in en, es, fr,
      it and ru; elsewhere they are dropped, as are all other symbols (a minus sign too) everywhere. In
      Russian ё becomes е, and a Latin letter inside a Cyrillic word the Cyrillic one that looks the same.
    - ``chinese``: Chinese, alone or mixed with other languages, whatever `language` says; see
      `asr.text.chinese`.

    `language` is a code such as "en" or "en-US". `spoken` without it takes text that has no digits.

    Raises ConfigError for an unknown name, or `english` with another language; the function returned by
    `spoken` raises DataError for digits that it has no language to spell in.
    """
    return _MAKERS[check_name(name)](language)


def check_name(name: str) -> str:
    """The name itself; ConfigError, with the nearest name, if no normaliser has it."""
    if name in NORMALIZERS:
        return name
    if name.endswith(RULE_FILES):
        raise ConfigError(f"{name!r}: a file of rules cannot stand here; give one of {', '.join(NORMALIZERS)}")
    near = difflib.get_close_matches(name, NORMALIZERS, n=1, cutoff=0.0)[0]
    raise ConfigError(f"unknown normalizer {name!r}; did you mean {near!r}? Known: {', '.join(NORMALIZERS)}")


def open_normalizer(name: str) -> Normalizer:
    """The normaliser of a name, or of a file of rules (`asr.text.rules`), whose name ends in .yaml or .yml.

    Raises ConfigError for an unknown name, and for a file that cannot be read or used.
    """
    if not name.endswith(RULE_FILES):
        make = _MAKERS[check_name(name)]
        return Normalizer(name, make)
    rules = read_rules(Path(name), normalizer, check_name)
    return Normalizer(rules.name, rules.of_language, idempotent=False)
