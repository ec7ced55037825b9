"""What the recipes' prepare.py share: one run at a time, nothing done twice, manifests of the same bytes."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.errors import AsrError
from asr.files import write_atomically

if TYPE_CHECKING:
    from lhotse import MonoCut

STAMP = "prepared.json"
SPLITS = ("train", "dev", "test")
Report = dict[str, Any]
_TORN = ".part-"


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """A folder, not made yet, that at the end takes the place of `place`; nothing of it stays if the body fails."""
    with tempfile.TemporaryDirectory(prefix=_TORN, dir=place.parent) as part:
        into = Path(part, "files")
        yield into
        shutil.rmtree(place, ignore_errors=True)
        into.rename(place)


def sweep_torn(folder: Path) -> None:
    """Remove what a run that was killed had begun to make in a folder."""
    for torn in folder.glob(f"{_TORN}*"):
        shutil.rmtree(torn)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the system lets go of the lock however a run ends."""
    with (out / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AsrError(f"{out}: another run is preparing it: wait for that or choose another --out") from None
        yield


def split_of(key: str) -> str:
    """The split of a prompt, a level or whatever must not stand in two: a tenth test, a tenth dev, the rest train."""
    digit = int(hashlib.sha1(key.encode()).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "dev"}.get(digit, "train")


def parse_languages(text: str, known: Iterable[str]) -> list[str]:
    """The chosen languages in the corpus's own order, so that the order of asking changes nothing."""
    languages = list(known)
    chosen = {part.strip() for part in text.split(",") if part.strip()}
    if not chosen or chosen - set(languages):
        raise AsrError(f"--languages {text!r}: choose from {','.join(languages)}")
    return [language for language in languages if language in chosen]


def manifest_path(out: Path, name: str) -> Path:
    """Where the cuts of a split, or a part of one, stand."""
    return out / f"cuts_{name}.jsonl.gz"


def manifests(out: Path) -> list[Path]:
    """Those that are there."""
    return sorted(out.glob("cuts_*.jsonl.gz"))


def name_of(manifest: Path) -> str:
    """The split, or the part of one, that a manifest is of."""
    return manifest.name.removeprefix("cuts_").removesuffix(".jsonl.gz")


def write_cuts(cuts: Iterable[MonoCut], path: Path) -> None:
    """Write lhotse cuts, the same bytes for the same cuts (lhotse's own writer adds the time of writing)."""
    with (
        write_atomically(path) as part,
        part.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as stream,
    ):
        for cut in cuts:
            stream.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")


def state_of(paths: Iterable[Path]) -> str:
    """A digest of the names, sizes and times of files: cheap to compare."""
    lines = []
    for path in paths:
        try:
            status = path.stat()
            lines.append(f"{path} {status.st_size} {status.st_mtime_ns}")
        except OSError as error:
            lines.append(f"{path} {error.strerror}")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def write_stamp(
    out: Path, settings: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], states: Sequence[str], report: Report
) -> None:
    """Write down what was done: with it the next run sees that there is nothing to do."""
    stamp = {
        "settings": settings,
        "manifests": _digests(out),
        "sources": [{**source, "state": state} for source, state in zip(sources, states, strict=True)],
        "report": report,
    }
    with write_atomically(out / STAMP) as path:
        path.write_text(json.dumps(stamp, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def finished(out: Path, settings: Mapping[str, Any], state: Callable[[Mapping[str, Any]], str]) -> Report | None:
    """The report of a run with these settings whose manifests and sources are still as it left them."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stamp = json.loads((out / STAMP).read_text(encoding="utf-8"))
        same = stamp["settings"] == settings and stamp["manifests"] == _digests(out)
        if same and all(source["state"] == state(source) for source in stamp["sources"]):
            report: Report = stamp["report"]
            return report
    return None


def digest_of_code(*folders: Path) -> str:
    """A digest of a recipe's code and of what recipes share: a changed rule makes new manifests."""
    digest = hashlib.sha256()
    for path in (path for folder in (*folders, Path(__file__).parent) for path in sorted(folder.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in manifests(out)}
