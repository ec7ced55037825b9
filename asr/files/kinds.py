"""Kinds of files by their names, and the audio files in a folder."""

from __future__ import annotations

import mimetypes
import os
from typing import NamedTuple

from asr.errors import printable

# Only Python's built-in table, so that results do not depend on the machine.
_TYPES = mimetypes.MimeTypes(filenames=())


def audio_by_name(name: str) -> bool | None:
    """Return whether a file is audio or video according to its name; None if the name does not tell."""
    kind, packing = _TYPES.guess_type(name)
    if packing is not None:
        return False
    return None if kind is None else kind.startswith(("audio/", "video/"))


class AudioFolder(NamedTuple):
    """The audio files in a folder, sorted; messages about problems; and remarks about files that were left out."""

    files: list[str]
    problems: list[str]
    remarks: list[str]


def audio_in(folder: str) -> AudioFolder:
    """Find the files in a folder and its subfolders, except hidden ones and those whose names exclude audio."""
    found: list[str] = []
    other: list[str] = []
    problems: list[str] = []

    def on_error(error: OSError) -> None:
        problems.append(f"{printable(error.filename)}: {error.strerror}")

    for path, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                (other if audio_by_name(name) is False else found).append(os.path.join(path, name))
    remarks = []
    if other:
        shown = ", ".join(printable(os.path.relpath(path, folder)) for path in sorted(other)[:3])
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        remarks.append(f"{printable(folder)}: left out, no audio by name: {shown}{more}")
    if not found and not problems:
        problems.append(f"{printable(folder)}: there is no audio file in this folder")
    return AudioFolder(sorted(found), problems, remarks)
