"""A phrase list ('hotwords') as a scorer: shallow fusion (Zhao et al. 2019) by an automaton over tokens.

Shapes: N hypotheses, L tokens, V vocabulary.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from asr.decode.automaton import OPEN, Automaton, Transitions
from asr.errors import ConfigError, printable

_MAX_BYTES = 10_000_000


class Phrase(NamedTuple):
    """A phrase to listen for; the weight scales its bonus."""

    text: str
    weight: float = 1.0


class Tokenizer(Protocol):
    """What a phrase list needs of a vocabulary."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


def read_phrases(path: Path) -> list[Phrase]:
    """Read a phrase a line, perhaps with a tab and a weight; empty lines and those that begin with # are skipped.

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
        raise ConfigError(f"{printable(path)}: no phrase in it; write one a line")
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
        raise ValueError(f"the weight is to be a number above 0, not '{printable(rest[0])}'")
    return Phrase(" ".join(text.split()), weight)


class PhraseScorer:
    """A bonus for every token that goes on along a phrase, taken back if the phrase is left before its end.

    A phrase counts from word start to word end, in the spellings of `spellings`.  Where matches overlap, the leftmost
    and then the longest is kept, so the sum over a finished text is the phrase's weight for each token of the phrases
    in it; the weight of the scorer is the bonus in nats.  Raises ConfigError for a phrase that the vocabulary cannot
    write.
    """

    def __init__(self, phrases: Iterable[Phrase], tokenizer: Tokenizer) -> None:
        joins_V, opens_V = word_edges(tokenizer)
        automaton = Automaton(joins_V, opens_V)
        for phrase in phrases:
            written = [
                ids for text in spellings(phrase.text) if _writes(tokenizer, ids := tokenizer.encode(text), text)
            ]
            if not written:
                raise ConfigError(f"phrase '{printable(phrase.text)}': the model's vocabulary cannot write it")
            for ids in written:
                automaton.add(ids, phrase.weight)
        self._table = automaton.transitions()

    def start(self, memory: Any) -> Tensor | None:
        return None

    def step(self, tokens_NL: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        table = self._on(tokens_NL.device)
        if state is None:  # the first tokens are start tokens: no phrase begins in them
            state, tokens_NL = tokens_NL.new_full((len(tokens_NL),), OPEN), tokens_NL[:, :0]
        for tokens_N in tokens_NL.unbind(1):
            state = table.follow(tokens_N, state)
        return table.gains(state), state

    def reorder(self, state: Tensor | None, index_N: Tensor) -> Tensor | None:
        return None if state is None else state[index_N]

    def _on(self, device: torch.device) -> Transitions:
        if self._table.key_E.device != device:
            self._table = self._table.to(device)
        return self._table


def spellings(text: str) -> list[str]:
    """How a phrase may be written: as given, in lower case, and with a capital at its beginning."""
    return list(dict.fromkeys([text, text.lower(), text[:1].upper() + text[1:]]))


def _writes(tokenizer: Tokenizer, ids: list[int], text: str) -> bool:
    return tokenizer.decode(ids).strip() == text


def word_edges(tokenizer: Tokenizer) -> tuple[list[bool], list[bool]]:
    """Which tokens go on with the word before them, and after which a new word may begin.

    Found from texts alone: each token is decoded behind a letter.  Special tokens, the end among them, part words.
    """
    tokens = range(tokenizer.vocab_size)
    letter = next((i for i in tokens if len(text := tokenizer.decode([i])) == 1 and _joins(text)), None)
    if letter is None:  # no token is a letter alone: then none can stand inside a word
        return [False] * len(tokens), [True] * len(tokens)
    pieces = [tokenizer.decode([letter, i])[1:] for i in tokens]
    return [bool(p) and _joins(p[0]) for p in pieces], [not (p and _joins(p[-1])) for p in pieces]


_NO_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def _joins(character: str) -> bool:
    """Whether a character forms words; scripts that part no words may begin and end a phrase anywhere."""
    if character == "\N{REPLACEMENT CHARACTER}":  # a part of a character's bytes; ASCII is never cut up
        return True
    wordy = character.isalnum() or unicodedata.category(character).startswith("M")
    return wordy and not unicodedata.name(character, "").startswith(_NO_SPACES)
