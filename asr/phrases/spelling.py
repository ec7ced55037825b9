"""How a vocabulary writes phrases: their spellings as tokens, and where its tokens begin and end words."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable
from typing import Protocol

from asr.errors import ConfigError, printable
from asr.phrases.automaton import Automaton, WordEdges
from asr.phrases.lists import Phrase

_SHOWN = 5  # phrases that a message names


class Tokenizer(Protocol):
    """What a phrase list needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


class Speller:
    """Writes phrases as tokens of a vocabulary, in all the variants of `spellings`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.edges = WordEdges(*word_edges(tokenizer))
        self._written: dict[str, list[list[int]]] = {}

    def written(self, phrase: str) -> list[list[int]]:
        """Return the tokens of each spelling that the vocabulary can write, cached because training asks repeatedly."""
        if phrase not in self._written:
            encoded = ((text, self.tokenizer.encode(text)) for text in spellings(phrase))
            self._written[phrase] = [ids for text, ids in encoded if self.tokenizer.decode(ids).strip() == text]
        return self._written[phrase]

    def automaton(self, phrases: Iterable[Phrase]) -> Automaton:
        """Build the automaton of a phrase list, without the phrases that the vocabulary cannot write.

        A warning names these.  Raises ConfigError if there are no others.
        """
        automaton, added, unwritten = Automaton(self.edges), 0, []
        for phrase in phrases:
            written = self.written(phrase.text)
            for ids in written:
                automaton.add(ids, phrase.weight)
            added += bool(written)
            if not written:
                unwritten.append(f"'{printable(phrase.text)}'")
        if unwritten:
            more = f" and {len(unwritten) - _SHOWN:,} more" if len(unwritten) > _SHOWN else ""
            told = f"phrases: the model's vocabulary cannot write {', '.join(unwritten[:_SHOWN])}{more}"
            if not added:
                raise ConfigError(f"{told}: none is left")
            warnings.warn(f"{told}: left out", stacklevel=2)
        return automaton


def spellings(text: str) -> list[str]:
    """Return how a phrase may be written: as given, in lower case, and with its first letter capitalised."""
    return list(dict.fromkeys([text, text.lower(), text[:1].upper() + text[1:]]))


def word_edges(tokenizer: Tokenizer) -> tuple[list[bool], list[bool]]:
    """Return which tokens continue the word before them, and after which tokens a new word may begin.

    Works on texts alone: each token is decoded after a letter.  Special tokens, the end token included, separate words.
    """
    tokens = range(tokenizer.vocab_size)
    letter = next((i for i in tokens if len(text := tokenizer.decode([i])) == 1 and _joins(text)), None)
    if letter is None:  # without a token that is a single letter, no token can continue a word
        return [False] * len(tokens), [True] * len(tokens)
    pieces = [tokenizer.decode([letter, i])[1:] for i in tokens]
    return [bool(p) and _joins(p[0]) for p in pieces], [not (p and _joins(p[-1])) for p in pieces]


_NO_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def _joins(character: str) -> bool:
    """Return whether a character forms words; in scripts without spaces a phrase may begin and end anywhere."""
    if character == "\N{REPLACEMENT CHARACTER}":  # some of a character's bytes, so it is not ASCII
        return True
    wordy = character.isalnum() or unicodedata.category(character).startswith("M")
    return wordy and not unicodedata.name(character, "").startswith(_NO_SPACES)
