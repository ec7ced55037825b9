"""Text normalisers, built in or from a file of rules; the same normaliser is applied to both sides of a score.

The built-in ones also prepare training texts, and model folders record their names.
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
    """A normaliser: its name for results, its chain as a function of language, and whether it is surely idempotent."""

    name: str
    of_language: Callable[[str | None], Chain]
    idempotent: bool = True


def normalizer(name: str, language: str | None = None) -> Chain:
    """Return the normaliser of that name.

    All of them are idempotent: normalised text is returned unchanged.

    - ``none``: the text as it is.
    - ``basic``: Unicode NFKC, lower case, punctuation and symbols (apostrophes too) to a space, white space
      collapsed. Diacritics and digits stay.
    - ``english``: the English rules of Whisper (Radford et al. 2022, appendix C) from whisper-normalizer.
      They leave stray full stops and spaces behind, which a second pass of the same rules removes ("wait..."
      becomes "wait ." becomes "wait"), so they are repeated until nothing changes.
    - ``spoken``: the words as they are said. NFKC, lower case, punctuation to a space except apostrophes
      inside a word; hyphens separate words. Words in brackets of any kind are stage directions and are removed.
      Digits are spelled out in `language`: "3D" is "three d", "1st" "first", "1990s" "nineteen nineties", but one
      at a time after a word such as "dial" ("dial 500": "five zero zero"), after a single letter ("H.323"),
      after a leading zero, and from seven digits on. ``# * % & + = @ $ € £ №`` become words in en, es, fr,
      it and ru and are dropped in other languages; all other symbols (minus signs too) are always dropped. In
      Russian, ё becomes е, and Latin letters inside a Cyrillic word become the Cyrillic letters they look like.
    - ``chinese``: Chinese, alone or mixed with other languages, whatever `language` says; see
      `asr.text.chinese`.

    `language` is a code such as "en" or "en-US". Without it, `spoken` only accepts texts without digits.

    Raises ConfigError for an unknown name, or `english` with another language; the function returned by
    `spoken` raises DataError for digits that it has no language to spell in.
    """
    return _MAKERS[check_name(name)](language)


def check_name(name: str) -> str:
    """Return the name itself; raise ConfigError, suggesting the nearest name, if there is no such normaliser."""
    if name in NORMALIZERS:
        return name
    if name.endswith(RULE_FILES):
        raise ConfigError(f"{name!r}: a file of rules cannot be used here; give one of {', '.join(NORMALIZERS)}")
    near = difflib.get_close_matches(name, NORMALIZERS, n=1, cutoff=0.0)[0]
    raise ConfigError(f"unknown normalizer {name!r}; did you mean {near!r}? Known: {', '.join(NORMALIZERS)}")


def open_normalizer(name: str) -> Normalizer:
    """Return the normaliser of a name, or of a file of rules (`asr.text.rules`), whose name ends in .yaml or .yml.

    Raises ConfigError for an unknown name, and for a file that cannot be read or used.
    """
    if not name.endswith(RULE_FILES):
        make = _MAKERS[check_name(name)]
        return Normalizer(name, make)
    rules = read_rules(Path(name), normalizer, check_name)
    return Normalizer(rules.name, rules.of_language, idempotent=False)
