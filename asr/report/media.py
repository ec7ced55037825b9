"""Media of an utterance: an audio clip, its log-mel picture, and pictures made elsewhere.

The page is one file, so that it can be sent and archived: its media are embedded, hence only the worst utterances
have any.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from asr.errors import AsrError, DataError, printable
from asr.progress import OnDone
from asr.report.utterances import Shown

MOST_BYTES = 48 << 20
_MOST_PICTURE_BYTES = 8 << 20
_MAGIC = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_SUFFIXES = (".png", ".jpg", ".jpeg")
_OF_STEP = re.compile(r"-step-\d+$")  # the attention maps that training draws: ID-step-0000100.png


class Content(NamedTuple):
    """The data of a file to embed; kind: what it shows, type: its MIME type."""

    kind: str
    type: str
    data: bytes


class Medium(NamedTuple):
    """A file of the utterance `number`, as a data URI that consists of a MIME type and base64 only."""

    number: int
    kind: str
    uri: str


Source = Callable[[str], Iterator[Content]]  # from an id to its media; raises AsrError


def media_of(
    utterances: Sequence[Shown],
    sources: Sequence[Source],
    *,
    failed: Callable[[str], None],
    on_done: OnDone,
) -> Iterator[Medium]:
    """Yield the media of utterances until their data URIs would exceed MOST_BYTES in total.

    failed: called with a one-line message for each file that cannot be read; the rest is still yielded.
    """
    used = 0
    for done, utterance in enumerate(utterances, start=1):
        for source in sources:
            try:
                for kind, type, data in source(utterance.id):
                    used += len(uri := f"data:{type};base64,{base64.b64encode(data).decode()}")
                    if used > MOST_BYTES:
                        failed(f"audio and pictures fill {MOST_BYTES >> 20} MiB after {done - 1} utterances: no more")
                        return
                    yield Medium(utterance.number, kind, uri)
            except AsrError as e:
                failed(str(e))
            except OSError as e:
                failed(f"{printable(e.filename or utterance.id)}: {e.strerror}")
        on_done(done, len(utterances))


def worst(utterances: Sequence[Shown], count: int) -> list[Shown]:
    """Return up to `count` utterances with most errors, leaving out those without errors."""
    by_errors = sorted((u for u in utterances if u.errors), key=lambda u: -u.errors)
    return list(islice(by_errors, count))


def files_by_id(folder: Path, fits: Callable[[Path], bool]) -> dict[str, Path]:
    """Index the files of a folder by the ids that may name them: the relative path, with and without its suffix.

    fits: whether a file is of the wanted kind.  Files outside the folder cannot be addressed.  Raises DataError if the
    folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{printable(folder)}: there is no such folder")
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if fits(path) and path.is_file()):
        name = path.relative_to(folder)
        found |= dict.fromkeys((name.as_posix(), name.with_suffix("").as_posix()), path)
    return found


def of_id(files: Mapping[str, Path], id: str) -> Path | None:
    """Return the file of an utterance; slashes of the id may be dashes in its name, as in pictures from training."""
    return files.get(id) or files.get(id.replace("/", "-"))


def pictures_in(folder: Path) -> Source:
    """Return a source of the PNG and JPEG files named by id; of pictures from training the last step is used."""
    files = {
        _OF_STEP.sub("", name): path
        for name, path in files_by_id(folder, lambda path: path.suffix.lower() in _SUFFIXES).items()
        if not name.endswith(path.suffix)
    }

    def picture(id: str) -> Iterator[Content]:
        if (path := of_id(files, id)) is not None:
            yield Content("picture", *_picture(path))

    return picture


def _picture(path: Path) -> tuple[str, bytes]:
    size = path.stat().st_size
    if size > _MOST_PICTURE_BYTES:
        raise DataError(f"{printable(path)}: a picture of {size} bytes, more than {_MOST_PICTURE_BYTES}")
    data = path.read_bytes()
    for type, magic in _MAGIC.items():
        if data.startswith(magic):
            return type, data
    raise DataError(f"{printable(path)}: neither PNG nor JPEG")
