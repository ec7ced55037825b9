"""Parse the game's dialogue scripts: Lua files of calls dialogId("ID", "FONT", "English text") and dialogStr("text").

They are only read as text, never run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from asr.errors import DataError

MAX_BYTES = 1 << 20  # the largest script has 20 kB
_STRING = r'"((?:[^"\\]|\\.)*)"'
_CALL = re.compile(
    rf"dialogId\(\s*{_STRING}\s*,\s*{_STRING}\s*,\s*{_STRING}\s*\)|dialogStr\(\s*{_STRING}\s*\)", re.DOTALL
)
_BEGINNING = re.compile(r"^[ \t]*(dialog(?:Id|Str)\()", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*--.*$", re.MULTILINE)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Line(NamedTuple):
    """A character's line: the font tells who speaks; text is in the language of the file, None if it is missing."""

    font: str
    english: str
    text: str | None


def read_dialogs(path: Path) -> tuple[dict[str, Line], list[str]]:
    """Return the lines of a level in one language by id, the first of each id, and a list of faults.

    A fault names file and line of a call with unexpected arguments, which is skipped.  Raises: DataError for a file
    that is not a script.
    """
    try:
        content = path.read_bytes()
        if len(content) > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB: not a script of dialogues")
        script = _COMMENT.sub("", content.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a script in UTF-8 ({error})") from error
    lines: dict[str, Line] = {}
    faults, last = [], None
    for beginning in _BEGINNING.finditer(script):
        call = _CALL.match(script, beginning.start(1))
        if call is None:
            faults.append(f"{path}:{script.count(chr(10), 0, beginning.start(1)) + 1}: a call with wrong arguments")
            last = None
            continue
        name, font, english, text = (None if part is None else _plain(part) for part in call.groups())
        if name is not None:
            last = name if name not in lines else None
            if last is not None:
                lines[last] = Line(font or "", english or "", None)
        elif last is not None:
            lines[last] = lines[last]._replace(text=text)
    return lines, faults


def _plain(string: str) -> str:
    return " ".join(_ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], string).split())
