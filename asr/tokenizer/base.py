"""What every tokenizer offers, and how their files are read and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from asr.errors import AsrError, CheckpointError
from asr.files import write_atomically

FileT = TypeVar("FileT", bound=BaseModel)


class Tokenizer(Protocol):
    """What training and search need to know about a vocabulary of V tokens."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def blank_id(self) -> int:
        """The blank of CTC; never part of a text."""

    @property
    def eos_id(self) -> int: ...

    @property
    def no_speech_id(self) -> int | None:
        """The token that the decoder predicts after the start token if nobody speaks, where there is one."""

    @property
    def previous_id(self) -> int | None:
        """The token that announces, ahead of the start token, a text that was said before, where there is one."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that have a token; empty when the model has no language tokens."""

    @property
    def suppressed_ids(self) -> tuple[int, ...]:
        """Tokens that search must never produce."""

    @property
    def suppressed_first_ids(self) -> tuple[int, ...]:
        """Tokens that search must not produce right after the prefix."""

    @property
    def names(self) -> list[str]:
        """What each token is called, by id; what two vocabularies call alike is the same."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model was trained for, as `asr.tasks` names it; the first is what it does if it is not told."""

    def prefix(self, language: str | None = None, task: str | None = None) -> list[int]:
        """What the decoder is fed first; language: of the speech.

        Raises AsrError for a language or task that the vocabulary lacks.
        """

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: no start, no end, and never a special token, whatever the text spells."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; special tokens and ids outside the vocabulary are skipped."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds, one per id: joined and stripped they are the text of the ids.

        White space stands before a word.  A character that takes several tokens belongs to the last of them; these
        and what is no text add "".
        """

    def spelled(self, id: int) -> bytes:
        """What a token is in UTF-8, white space before it; of byte-level vocabularies perhaps a part of a character."""

    def save(self, folder: Path) -> None:
        """Write the tokenizer's file into an existing model folder."""


class OwnFile(BaseModel):
    """A JSON file that this project writes: exactly these keys, exactly these types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def language_id(language: str | None, known: dict[str, int]) -> int:
    if language in known:
        return known[language]
    problem = "no language is given" if language is None else f"unknown language {language!r}"
    raise AsrError(f"{problem}: this model knows {', '.join(known)}")


def parse(kind: type[FileT], path: Path) -> FileT:
    try:
        return kind.model_validate_json(read(path))
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return one_line(f"{where}: {first['msg']}" if where else first["msg"])


def one_line(message: str) -> str:
    """What a file made somebody's library say, fit for a terminal."""
    return "".join(c if c.isprintable() else " " for c in message)[:200]


def read(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def write(path: Path, content: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)
