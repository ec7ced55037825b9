"""Small files of models, such as settings and vocabularies, read without trusting them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from asr.errors import CheckpointError

MOST_BYTES = 64 << 20

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_small(path: Path) -> bytes:
    """Read a file; raise CheckpointError if it is missing, unreadable or larger than MOST_BYTES."""
    if not path.is_file():  # a named pipe would block forever
        raise CheckpointError(f"{path}: there is no such file")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{path}: is far too large for such a file")
        return path.read_bytes()
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror}") from e


def read_json(kind: type[ModelT], path: Path) -> ModelT:
    """Read a JSON file; raise CheckpointError, naming the key, if it is missing or malformed."""
    try:
        return kind.model_validate_json(read_small(path))
    except ValidationError as e:
        raise CheckpointError(f"{path}: {first_problem(e)}") from e


def first_problem(error: ValidationError) -> str:
    """Return where in a file its first error is, and what it is."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return one_line(f"{where}: {first['msg']}" if where else first["msg"])


def one_line(message: str) -> str:
    """Make a library's message about a file fit for a terminal: one line, printable, at most 200 characters."""
    return "".join(c if c.isprintable() else " " for c in message)[:200]
