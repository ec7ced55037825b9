"""Kinds of files by their names, and the audio files in a folder."""

from __future__ import annotations

import os
from typing import NamedTuple

from asr.errors import printable

# Not those of mimetypes, which takes .ass for audio and does not know .flac or .mkv.
_MEDIA = frozenset(
    {
        *(".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".awb", ".bwf", ".caf", ".dts", ".eac3"),
        *(".flac", ".gsm", ".m4a", ".m4b", ".mka", ".mp2", ".mp3", ".mpc", ".nist", ".oga", ".ogg", ".opus", ".ra"),
        *(".rf64", ".snd", ".sph", ".spx", ".tta", ".voc", ".w64", ".wav", ".wave", ".weba", ".wma", ".wv"),
        *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".mxf", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"),
    }
)


def is_media(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is audio or video according to its suffix."""
    return os.path.splitext(path)[1].lower() in _MEDIA


class AudioFolder(NamedTuple):
    """The audio files in a folder, sorted; messages about problems; and remarks about files that were left out."""

    files: list[str]
    problems: list[str]
    remarks: list[str]


def audio_in(folder: str) -> AudioFolder:
    """Find the files in a folder and its subfolders, except hidden ones, and name those left out as no audio."""
    found: list[str] = []
    other: list[str] = []
    problems: list[str] = []

    def on_error(error: OSError) -> None:
        problems.append(f"{printable(error.filename)}: {error.strerror}")

    for path, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                (found if is_media(name) else other).append(os.path.join(path, name))
    remarks = []
    if other:
        shown = ", ".join(printable(os.path.relpath(path, folder)) for path in sorted(other)[:3])
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        remarks.append(f"{printable(folder)}: left out, no audio by name: {shown}{more}")
    if not found and not problems:
        problems.append(f"{printable(folder)}: there is no audio file in this folder")
    return AudioFolder(sorted(found), problems, remarks)
