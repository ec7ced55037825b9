"""The interface of all tokenizers, and helpers to read and write their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from asr.errors import AsrError


class Tokenizer(Protocol):
    """What training and search need to know of a vocabulary of V tokens."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def blank_id(self) -> int:
        """The blank of CTC, which is never part of a text."""

    @property
    def eos_id(self) -> int: ...

    @property
    def no_speech_id(self) -> int | None:
        """The token that the decoder predicts after the start token if nobody speaks; None if there is none."""

    @property
    def previous_id(self) -> int | None:
        """The token that introduces, before the start token, the text said earlier; None if there is none."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that have a token; empty if the vocabulary has no language tokens."""

    @property
    def suppressed_ids(self) -> tuple[int, ...]:
        """Tokens that search must never produce."""

    @property
    def suppressed_first_ids(self) -> tuple[int, ...]:
        """Tokens that search must not produce right after the prefix."""

    @property
    def names(self) -> list[str]:
        """The name of each token, by id; tokens with the same name in two vocabularies are the same token."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the model was trained for, as named in `asr.tasks`; the first is the default."""

    def prefix(self, language: str | None = None, task: str | None = None) -> list[int]:
        """Return the tokens that start the decoder.  language: of the speech.

        Raises AsrError for a language or task that the vocabulary lacks.
        """

    def encode(self, text: str) -> list[int]:
        """Return the ids of the text alone: no start, no end, and never a special token, whatever the text spells."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids; special tokens and ids outside the vocabulary are skipped."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds, one string per id: joined and stripped they are the decoded text.

        White space precedes its word.  A character of several tokens is added by the last of them; the tokens before it
        and special tokens add "".
        """

    def spelled(self, id: int) -> bytes:
        """Return a token in UTF-8, with the white space before it; a byte-level token may be part of a character."""

    def save(self, folder: Path) -> None:
        """Write the tokenizer's file into an existing model folder."""


class OwnFile(BaseModel):
    """A JSON file written by this project, with exactly these keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def language_id(language: str | None, known: dict[str, int]) -> int:
    if language in known:
        return known[language]
    problem = "no language is given" if language is None else f"unknown language {language!r}"
    raise AsrError(f"{problem}: this model knows {', '.join(known)}")
