"""Files written whole or not at all, and archives read without trusting them."""

from .archive import extract_archive
from .lines import numbered_lines
from .tar import Tar, TarMember
from .writing import drop_torn_line, make_folder, naming, sweep, write_atomically

__all__ = [
    "Tar",
    "TarMember",
    "drop_torn_line",
    "extract_archive",
    "make_folder",
    "naming",
    "numbered_lines",
    "sweep",
    "write_atomically",
]
