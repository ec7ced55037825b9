"""A single rule, a pattern and its replacement, with limits on time and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import regex

from asr.errors import ConfigError, DataError, printable

SECONDS = 1.0  # of processor time, for one rule on one text

_LONGEST_PATTERN, _LONGEST_REPLACEMENT = 5_000, 1_000
# regex expands {n} repetitions: a pattern of a few dozen characters could fill the memory.
_MOST_REPEATS = 100_000
_MOST_GROWTH, _FREE_CHARACTERS = 10, 10_000
_REPEATS = regex.compile(r"\{(\d{1,9})\d*,?\d*\}")


@dataclass(frozen=True)
class Replacement:
    """One rule as a function of a text; where: file and line of the rule, for messages.

    Calling it raises DataError for a text on which the pattern takes too long, or that grows too much.
    """

    where: str
    pattern: regex.Pattern
    replacement: str

    def __call__(self, text: str) -> str:
        try:
            found = self.pattern.sub(self.replacement, text, timeout=SECONDS)
        except TimeoutError:
            raise self._refused(f"takes more than {SECONDS:g} s on", text) from None
        if len(found) > _FREE_CHARACTERS + _MOST_GROWTH * len(text):
            raise self._refused(f"makes {len(found):,} characters of", text)
        return found

    def _refused(self, why: str, text: str) -> DataError:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        return DataError(
            printable(f"{self.where}: the pattern {self.pattern.pattern!r} {why} {shown!r}; make it simpler")
        )


def replacement(where: str, pattern: str, by: str) -> Replacement:
    """Compile a rule; raise ConfigError for a pattern or replacement that is too large or that regex rejects."""
    repeats = math.prod(max(1, int(count)) for count in _REPEATS.findall(pattern))
    if len(pattern) > _LONGEST_PATTERN or repeats > _MOST_REPEATS:
        raise ConfigError(f"the pattern is too large: {pattern[:60]!r}")
    if len(by) > _LONGEST_REPLACEMENT:
        raise ConfigError(f"the replacement is too large: {by[:60]!r}")
    if not pattern:
        raise ConfigError("the pattern is empty")
    try:
        compiled = regex.compile(pattern)
        # regex checks a replacement only when it matches: the empty alternative always does.
        regex.compile(f"(?:{pattern}\n)|").sub(by, "")
    except (regex.error, IndexError) as e:
        raise ConfigError(f"{pattern!r} -> {by!r}: {e}") from None
    except (RecursionError, OverflowError, MemoryError):
        raise ConfigError(f"the pattern is too large: {pattern[:60]!r}") from None
    return Replacement(where, compiled, by)
