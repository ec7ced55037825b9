"""Atomic writing of files, reading of files on disks and behind URLs, and safe reading of untrusted archives."""

from .archive import extract_archive
from .kinds import audio_in, is_media
from .lines import byte_writer, count_lines, filled_lines, json_line, json_writer, numbered_lines, text_lines
from .places import MANIFESTS, Place, files_in, is_folder, open_place, open_within, to_place
from .tar import Tar, TarMember
from .writing import drop_torn_line, make_folder, naming, sweep, to_stem, write_atomically, write_whole

__all__ = [
    "MANIFESTS",
    "Place",
    "Tar",
    "TarMember",
    "audio_in",
    "byte_writer",
    "count_lines",
    "drop_torn_line",
    "extract_archive",
    "files_in",
    "filled_lines",
    "is_folder",
    "is_media",
    "json_line",
    "json_writer",
    "make_folder",
    "naming",
    "numbered_lines",
    "open_place",
    "open_within",
    "sweep",
    "text_lines",
    "to_place",
    "to_stem",
    "write_atomically",
    "write_whole",
]
