"""Errors that the user can fix: each message is one line that says what is wrong, where, and what to do."""

from __future__ import annotations


def printable(name: object) -> str:
    """Return a name as one printable line, with control characters and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


class AsrError(Exception):
    """Base class of errors in the input; the command line prints the message without a traceback."""


class ConfigError(AsrError):
    """A configuration has an unknown key, a value of the wrong type, or parts that do not fit together."""


class AudioError(AsrError):
    """A file cannot be decoded as audio."""


class ArchiveError(AsrError):
    """An archive is broken, or one of its members would be written outside the target folder."""


class CheckpointError(AsrError):
    """A model folder or a training state is missing, truncated, or not what it claims to be."""


class DataError(AsrError):
    """A manifest, a reference file or an utterance cannot be used."""
