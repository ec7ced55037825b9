"""What a file holds, by the end of its name, and the audio files in a folder."""

from __future__ import annotations

import mimetypes
import os
from typing import NamedTuple

from asr.errors import printable

# Python's own table alone, so that every machine sees the same files.
_TYPES = mimetypes.MimeTypes(filenames=())


def audio_by_name(name: str) -> bool | None:
    """Whether a file is audio or video; None if its name does not tell."""
    kind, packing = _TYPES.guess_type(name)
    if packing is not None:
        return False
    return None if kind is None else kind.startswith(("audio/", "video/"))


class AudioFolder(NamedTuple):
    """The audio files in a folder, sorted, and in words what is wrong with it and what was left out."""

    files: list[str]
    problems: list[str]
    remarks: list[str]


def audio_in(folder: str) -> AudioFolder:
    """The files of a folder and of those within; hidden ones and those that by name are no audio are left out."""
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
