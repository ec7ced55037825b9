"""Errors that a person can mend: each message is one line that says what is wrong, where, and what to do."""

from __future__ import annotations


def printable(name: object) -> str:
    """The text of a name on one line: control characters and undecodable bytes become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


class AsrError(Exception):
    """Something in the input is wrong; the command line prints the message alone, without a traceback."""


class ConfigError(AsrError):
    """A configuration has an unknown key, a value of the wrong type, or parts that do not fit together."""


class AudioError(AsrError):
    """A file is not audio that can be decoded."""


class ArchiveError(AsrError):
    """An archive is broken, or tries to write where it must not."""


class CheckpointError(AsrError):
    """A model folder or a training state is missing, torn or not what it says it is."""


class DataError(AsrError):
    """A manifest, a reference file or an utterance cannot be used."""
