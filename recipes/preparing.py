"""Shared parts of the recipes' prepare.py: exclusive runs, no repeated work, reproducible manifests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asr.errors import AsrError
from asr.files import json_writer, make_folder, write_whole

if TYPE_CHECKING:
    from lhotse import MonoCut

STAMP = "prepared.json"
SPLITS = ("train", "dev", "test")
Report = dict[str, Any]
_TORN = ".part-"


@contextmanager
def errors_on_one_line() -> Iterator[None]:
    """Report errors that the user can fix as a single line, with exit status 1."""
    try:
        yield
    except (AsrError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """Yield the path of a folder to make, which replaces `place` at the end, or vanishes if the body fails."""
    # What cannot be removed, on a disk that gets read-only, would hide the body's error; the next run sweeps it.
    with tempfile.TemporaryDirectory(prefix=_TORN, dir=place.parent, ignore_cleanup_errors=True) as part:
        into = Path(part, "files")
        yield into
        shutil.rmtree(place, ignore_errors=True)
        into.rename(place)


def sweep_torn(folder: Path) -> None:
    """Remove unfinished folders of a killed run."""
    for torn in folder.glob(f"{_TORN}*"):
        shutil.rmtree(torn)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Exclude other runs from the folder; the system releases the lock however a run ends."""
    with (out / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AsrError(f"{out}: another run is preparing it: wait for that or choose another --out") from None
        yield


def split_of(key: str) -> str:
    """Return the split for a key (a prompt, a level) that must stay in one split: 10 % test, 10 % dev, 80 % train."""
    digit = int(hashlib.sha1(key.encode()).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "dev"}.get(digit, "train")


def parse_languages(text: str, known: Iterable[str]) -> list[str]:
    """Return the chosen languages in the corpus's order, so that the order on the command line has no effect."""
    languages = list(known)
    chosen = {part.strip() for part in text.split(",") if part.strip()}
    if not chosen or chosen - set(languages):
        raise AsrError(f"--languages {text!r}: choose from {','.join(languages)}")
    return [language for language in languages if language in chosen]


def manifest_path(out: Path, name: str) -> Path:
    """Return the path of the manifest of a split, or of a part of one."""
    return out / f"cuts_{name}.jsonl.gz"


def manifests(out: Path) -> list[Path]:
    """Return the manifests that exist."""
    return sorted(out.glob("cuts_*.jsonl.gz"))


def name_of(manifest: Path) -> str:
    """Return the split, or part of one, to which a manifest belongs."""
    return manifest.name.removeprefix("cuts_").removesuffix(".jsonl.gz")


def write_cuts(cuts: Iterable[MonoCut], path: Path) -> None:
    """Write lhotse cuts reproducibly, byte for byte (lhotse's own writer includes the time)."""
    with json_writer(path) as write:
        for cut in cuts:
            write(cut.to_dict())


def state_of(paths: Iterable[Path]) -> str:
    """Return a digest of the names, sizes and modification times of files, which is fast to compute."""
    lines = []
    for path in paths:
        try:
            status = path.stat()
            lines.append(f"{path} {status.st_size} {status.st_mtime_ns}")
        except OSError as error:
            lines.append(f"{path} {error.strerror}")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def once(
    out: Path,
    code: Sequence[Path],
    options: Mapping[str, Any],
    state: Callable[[Mapping[str, Any]], str],
    make: Callable[[Path, Mapping[str, Any]], Report],
) -> Report:
    """Return the report of `make(out, settings)`, or of an earlier run if nothing that it depends on has changed.

    code: folders of the recipe.  options: those that the manifests depend on.  state: digest of a source in the stamp.
    Raises: AsrError if another run is preparing the folder.
    """
    make_folder(out)
    out = out.resolve()
    settings = {"recipe": digest_of_code(*code), "out": str(out), **options}
    with alone(out):
        if report := finished(out, settings, state):
            return report
        (out / STAMP).unlink(missing_ok=True)
        sweep_torn(out)
        sweep_torn(out / "unpacked")
        return make(out, settings)


def write_stamp(
    out: Path, settings: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], states: Sequence[str], report: Report
) -> None:
    """Record what was done, so that the next run can see that nothing needs to be done."""
    stamp = {
        "settings": settings,
        "manifests": _digests(out),
        "sources": [{**source, "state": state} for source, state in zip(sources, states, strict=True)],
        "report": report,
    }
    write_whole(out / STAMP, json.dumps(stamp, ensure_ascii=False, indent=1) + "\n")


def finished(out: Path, settings: Mapping[str, Any], state: Callable[[Mapping[str, Any]], str]) -> Report | None:
    """Return the report of a run with these settings if its manifests and sources are unchanged since; else None."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stamp = json.loads((out / STAMP).read_text(encoding="utf-8"))
        same = stamp["settings"] == settings and stamp["manifests"] == _digests(out)
        if same and all(source["state"] == state(source) for source in stamp["sources"]):
            report: Report = stamp["report"]
            return report
    return None


def digest_of_code(*folders: Path) -> str:
    """Return a digest of a recipe's code and of the shared code, so that changed rules lead to new manifests."""
    digest = hashlib.sha256()
    for path in (path for folder in (*folders, Path(__file__).parent) for path in sorted(folder.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in manifests(out)}
