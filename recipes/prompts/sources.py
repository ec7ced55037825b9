"""Find the recordings: installed files, a folder, Debian's packages or the upstream release."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from asr.errors import AsrError, DataError
from recipes.archives import unpacked
from recipes.fetch import apt_download, http_download
from recipes.preparing import state_of
from recipes.prompts import corpus
from recipes.prompts.corpus import VOICES

VERSION = "1.6.1"
MIRROR = "https://downloads.asterisk.org/pub/telephony/sounds/releases"
SYSTEM = Path("/")
MAX_UNPACKED_BYTES = 256 << 20  # a language unpacks to about 22 MB


@dataclass(frozen=True)
class Found:
    """The files of one language: voice folder, transcript, and the user's archives that contained them, if any."""

    language: str
    folder: Path
    transcript: Path
    archives: tuple[Path, ...] = ()


def locate(language: str, out: Path, source: Path | None, mirror: str | None, console: Console) -> Found:
    """Find the files of a language, fetching and unpacking them below `out` if necessary.

    If `source` is given, only that is used, otherwise `mirror`; without either, these are tried in turn: installed
    files, the contents of `out`, Debian's packages by apt, and the upstream release.

    Raises: AsrError that says what was tried and what to pass.
    """
    if source is not None:
        return _from_source(language, out, source)
    debian, upstream = out / "unpacked" / f"{language}-debian", out / "unpacked" / f"{language}-upstream"
    places = [upstream] if mirror else [SYSTEM, debian, upstream]
    for place in places:
        if found := _look(language, place):
            return found
    cache = out / "downloads"
    problems = []
    if not mirror:
        try:
            return _from_debian(language, cache, debian, console)
        except AsrError as error:
            problems.append(str(error))
    try:
        name = f"asterisk-core-sounds-{language}-wav-{VERSION}.tar.gz"
        archive = http_download(f"{mirror or MIRROR}/{name}", cache / name, console)
        return _unpacked(language, [archive], upstream)
    except AsrError as error:
        problems.append(str(error))
    raise AsrError(
        f"cannot get the {language!r} prompts ({'; '.join(problems)}): pass --source DIR with the .deb "
        f"files, the release tarballs or their contents, or --mirror URL of a copy of {MIRROR}"
    )


def state(found: Found) -> str:
    """Return a digest of the names, sizes and times of all files that are read for a language."""
    recordings = sorted(corpus.audio_files(found.folder).values())
    return state_of([*recordings, found.transcript, *found.archives])


def _look(language: str, root: Path) -> Found | None:
    """Look for the layouts of the Debian packages, a voice folder, an Asterisk server and the release tarball."""
    speaker = VOICES[language].speaker
    names = [f"core-sounds-{language}.txt", f"core-sounds-{language}.txt.gz"]
    documents = root / "usr/share/doc" / f"asterisk-core-sounds-{language}"
    for folder in (root / "usr/share/asterisk/sounds" / speaker, root / speaker, root / language, root):
        if not folder.is_dir():
            continue
        # A transcript beside the WAVs tells their language; the bare root counts only if it contains one.
        beside = [folder] if folder == root else [folder, documents, root]
        for transcript in (place / name for place in beside for name in names):
            if transcript.is_file() and any(folder.rglob("*.wav")):
                return Found(language, folder, transcript)
    return None


def _from_source(language: str, out: Path, source: Path) -> Found:
    if not source.is_dir():
        raise AsrError(f"--source {source}: no such folder")
    if found := _look(language, source.resolve()):
        return found
    stem = f"asterisk-core-sounds-{language}"
    # Recordings and transcripts are separate packages; a release tarball has both.
    archives = _newest(source, f"{stem}-wav_*.deb", f"{stem}_*.deb") or _newest(source, f"{stem}-wav-*.tar.gz")
    if not archives:
        raise AsrError(
            f"--source {source}: holds neither {VOICES[language].speaker}/ with core-sounds-{language}.txt, "
            f"nor {stem}-wav_*.deb and {stem}_*.deb, nor {stem}-wav-{VERSION}.tar.gz"
        )
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in archives)).hexdigest()
    found = _unpacked(language, archives, out / "unpacked" / f"{language}-{digest[:12]}")
    return Found(language, found.folder, found.transcript, tuple(path.resolve() for path in archives))


def _newest(folder: Path, *patterns: str) -> list[Path]:
    """Return the last file by name for each pattern; [] unless every pattern matches."""
    files = [max(folder.glob(pattern), default=None) for pattern in patterns]
    return [path for path in files if path] if None not in files else []


def _from_debian(language: str, cache: Path, place: Path, console: Console) -> Found:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise AsrError("no apt here")
    stem = f"asterisk-core-sounds-{language}"
    return _unpacked(language, apt_download([f"{stem}-wav", stem], cache, console), place)


def _unpacked(language: str, archives: Sequence[Path], place: Path) -> Found:
    found = _look(language, unpacked(archives, place, keep=_wanted, max_bytes=MAX_UNPACKED_BYTES))
    if found is None:
        names = ", ".join(path.name for path in archives)
        raise DataError(
            f"{names}: no {language!r} prompts inside (looked in {place}): remove that folder and these files"
        )
    return found


def _wanted(name: str) -> bool:
    """Keep recordings, transcripts and the licence, but no program, manual or index."""
    last = name.rpartition("/")[2]
    return last.endswith(".wav") or last.startswith(("core-sounds-", "copyright", "LICENSE", "CREDITS"))
