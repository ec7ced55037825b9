"""Detection of the encoding of a subtitle file from its byte order mark, its bytes, and its language.

Statistics over all existing encodings may take a page of French with few accented letters for Estonian; among the two
or three encodings that were used for a language they are seldom wrong.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import langcodes
from charset_normalizer import from_bytes

from asr.errors import DataError, printable
from asr.subtitling.plausibility import oddities

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# For each script, the encodings used before UTF-8.  Where a page of ISO 8859 comes first, the bytes 0x80 to 0x9F tell
# it from the Windows page: they are control characters in the one, letters or quotation marks in the other.  Pages of
# DOS are last, as any bytes can be read with them.
_PAGES: dict[tuple[str, ...], str] = {
    ("iso8859_15", "cp1252", "cp850"): "af ca da de en es et eu fi fo fr ga gl id is it ms nb nl nn no pt sq sv sw tl",
    ("iso8859_2", "cp1250", "cp852"): "bs cs hr hu pl ro sk sl",
    ("iso8859_3",): "eo mt",
    ("iso8859_13", "cp1257"): "lt lv",
    ("cp1251", "koi8_r", "iso8859_5", "cp866"): "be bg kk mk ru sr tg",
    ("cp1251", "koi8_u", "cp866"): "uk",
    ("iso8859_7", "cp1253"): "el",
    ("iso8859_9", "cp1254"): "az ku tr",
    ("iso8859_8", "cp1255"): "he yi",
    ("iso8859_6", "cp1256"): "ar fa ur",
    ("cp1258",): "vi",
    ("cp874",): "th",
    ("gb18030", "big5hkscs"): "zh yue nan",
    ("cp932", "euc_jp", "iso2022_jp"): "ja",
    ("cp949",): "ko",
}
# The byte of Ά in Windows-1253 is an apostrophe in ISO 8859-7, which drops a letter within a phrase ("θα ’ρθω"), so no
# letter follows it at the start of one.
_CAPITAL_IN_1253 = re.compile(rb"(?<![\xb8-\xfe])(?<![\xb8-\xfe]\s)\xa2[\xb8-\xfe]")
_OF_LANGUAGE = {code: pages for pages, codes in _PAGES.items() for code in codes.split()}
_ZEROS = 10  # one byte of so many is zero in UTF-16 at least, by the digits of the times
_MOSTLY = 5  # with this many times more valid UTF-8 characters than invalid ones, a file is damaged UTF-8


def encoding_of(data: bytes, path: Path, language: str) -> str:
    """Return the encoding of a file's content without a byte order mark.

    language: code of its language.  Raises DataError, naming the file, if the encoding cannot be found, or if the file
    is UTF-8 with a few invalid bytes.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as e:
        wrong = e.start
    else:
        return "utf-8"
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    if sum(not letter.isascii() for letter in text) - bad >= _MOSTLY * bad:
        line = data.count(b"\n", 0, wrong) + 1
        problem = "a byte that is not UTF-8, as the rest is; mend it, or give the encoding (--encoding)"
        raise DataError(printable(f"{path}:{line}: {problem}"))
    if not (found := _best(data, language)):
        raise DataError(printable(f"{path}: not UTF-8, and its encoding cannot be told; give it (--encoding)"))
    return found


def pages_of(language: str) -> tuple[str, ...]:
    """Return the encodings used for a language before UTF-8; none for a language whose are not known."""
    return _OF_LANGUAGE.get(langcodes.Language.get(language).language or "", ())


def marked_encoding(data: bytes) -> str | None:
    """Return the encoding that a byte order mark, or the zero bytes of UTF-16, indicate; None without any."""
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    return marked or _unmarked_utf16(data)


def _unmarked_utf16(data: bytes) -> str | None:
    """Return the encoding of UTF-16 without a byte order mark, in which digits and line breaks have a zero byte."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    if _ZEROS * max(even, odd) < len(data) or _MOSTLY * min(even, odd) > max(even, odd):
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _best(data: bytes, language: str) -> str | None:
    """Return the page with the fewest oddities: of several, that of ISO 8859, or the likeliest by statistics."""
    readable = [page for page in pages_of(language) if _reads(data, page)]
    if "cp1253" in readable and _CAPITAL_IN_1253.search(data):
        return "cp1253"
    odd = {page: oddities(data.decode(page), language) for page in readable}
    readable = [page for page in readable if odd[page] == min(odd.values())]
    if len(readable) < 2 or readable[0].startswith("iso8859"):
        return next(iter(readable), None)
    best = from_bytes(data, cp_isolation=readable, threshold=1.0).best()
    return best.encoding if best else readable[0]


def _reads(data: bytes, page: str) -> bool:
    try:
        text = data.decode(page)
    except UnicodeError:
        return False
    return not any("\x80" <= letter <= "\x9f" for letter in text)
