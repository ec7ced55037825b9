"""Files written whole or not at all, and archives unpacked without trusting them."""

from .archive import extract_archive
from .writing import drop_torn_line, make_folder, naming, sweep, write_atomically

__all__ = ["drop_torn_line", "extract_archive", "make_folder", "naming", "sweep", "write_atomically"]
