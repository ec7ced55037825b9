"""Files written whole or not at all, and archives read without trusting them."""

from .archive import extract_archive
from .kinds import audio_by_name
from .lines import count_lines, filled_lines, numbered_lines
from .tar import Tar, TarMember
from .writing import drop_torn_line, make_folder, naming, sweep, write_atomically

__all__ = [
    "Tar",
    "TarMember",
    "audio_by_name",
    "count_lines",
    "drop_torn_line",
    "extract_archive",
    "filled_lines",
    "make_folder",
    "naming",
    "numbered_lines",
    "sweep",
    "write_atomically",
]
