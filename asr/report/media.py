"""What can be heard and seen of an utterance: a clip, its log-mel picture, and pictures made elsewhere.

A page is one file, so that it can be sent and kept: its media stand in it, and so only the worst utterances have some.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from asr.errors import AsrError, DataError, printable
from asr.report.utterances import Shown

MOST_BYTES = 48 << 20
_MOST_PICTURE_BYTES = 8 << 20
_MAGIC = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_SUFFIXES = (".png", ".jpg", ".jpeg")
_OF_STEP = re.compile(r"-step-\d+$")  # the attention maps that training draws: ID-step-0000100.png


class Content(NamedTuple):
    """A file for the page; kind: what it shows, type: of MIME."""

    kind: str
    type: str
    data: bytes


class Medium(NamedTuple):
    """A file of the utterance `number`, as a data URI: a type and letters of base64, nothing else."""

    number: int
    kind: str
    uri: str


Source = Callable[[str], Iterator[Content]]  # from an id; raises AsrError


def media_of(
    utterances: Sequence[Shown],
    sources: Sequence[Source],
    *,
    failed: Callable[[str], None],
    on_done: Callable[[float, float], None],
) -> Iterator[Medium]:
    """The files of utterances, as long as all of them are less than MOST_BYTES.

    failed: told, a line each, what cannot be read; the others go on.
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
    """Those with most errors, and at least one."""
    by_errors = sorted((u for u in utterances if u.errors), key=lambda u: -u.errors)
    return list(islice(by_errors, count))


def files_by_id(folder: Path, fit: Callable[[Path], int]) -> dict[str, Path]:
    """The files of a folder by what an id may call them: the path within it, or that without its suffix.

    fit: how well a file fits, 0 not at all; of files that differ in their suffix alone the best is taken.  Nothing
    outside the folder can be named so.  Raises DataError where there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{printable(folder)}: there is no such folder")
    found: dict[str, Path] = {}
    fitting = {path: fit(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    for path in sorted(filter(fitting.get, fitting), key=lambda path: fitting[path]):
        name = path.relative_to(folder)
        found |= dict.fromkeys((name.as_posix(), name.with_suffix("").as_posix()), path)
    return found


def of_id(files: Mapping[str, Path], id: str) -> Path | None:
    """The file of an utterance; for a slash in its id a dash may stand, as in the pictures of training."""
    return files.get(id) or files.get(id.replace("/", "-"))


def pictures_in(folder: Path) -> Source:
    """PNG and JPEG named by id; of those that training draws the last step."""
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
