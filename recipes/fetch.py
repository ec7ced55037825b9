"""Download files without root: Debian packages by apt, and release files over HTTP with resume and checksums."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from asr.errors import AsrError

CHUNK_BYTES = 1 << 16
TIMEOUT_S = 30.0  # of silence, not of the whole transfer
ATTEMPTS = 3
MAX_BYTES = 1 << 30  # larger than all files but big archives; an endless response must not fill the disk


def progress_bar(console: Console) -> Progress:
    """Return a progress bar that counts bytes."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
    )


# --- Debian -------------------------------------------------------------------------------------------


def apt_download(packages: Sequence[str], folder: Path, console: Console) -> list[Path]:
    """Download Debian packages into `folder` as any user; apt checks their signatures and hashes.

    If `apt-get update` was never run, the package lists are first downloaded into `folder`; nothing outside it is
    touched. A package that is already in `folder` is not downloaded again.

    Raises: AsrError with apt's own reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".part-*"):  # left by a killed run
        shutil.rmtree(stale, ignore_errors=True)
    missing = [name for name in packages if not _package_file(folder, name)]
    if missing:
        options: list[str] = []
        listing = _apt(["--print-uris", "download", *missing], folder)
        if listing.returncode != 0:
            options = _own_apt_state(folder, console)
            listing = _apt([*options, "--print-uris", "download", *missing], folder)
        _check_apt(listing, missing)
        # One line for each package: 'URI' file-name size hash.
        total = sum(int(size) for size in re.findall(r"^'[^']*' \S+ (\d+)", listing.stdout, re.MULTILINE))
        with progress_bar(console) as progress:
            task = progress.add_task("Debian packages", total=total)
            for name in missing:
                _apt_download_one(name, options, folder, progress, task)
        shutil.rmtree(folder / "apt", ignore_errors=True)
    found = [_package_file(folder, name) for name in packages]
    return [path for path in found if path]


def _apt_download_one(name: str, options: Sequence[str], folder: Path, progress: Progress, task: TaskID) -> None:
    """Download one package in a folder of its own, so that an apt that outlives a killed run does no harm."""
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    before = progress.tasks[0].completed
    process = subprocess.Popen(
        _apt_arguments([*options, "download", name]),
        cwd=part,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = ""
    try:
        while process.returncode is None:
            try:
                output, _ = process.communicate(timeout=0.1)
            except subprocess.TimeoutExpired:
                size = sum(path.stat().st_size for path in part.glob("*.deb"))
                progress.update(task, completed=before + size)
    finally:
        process.kill()
    _check_apt(subprocess.CompletedProcess(process.args, process.returncode, output, ""), [name])
    for package in part.glob(f"{name}_*.deb"):
        progress.update(task, completed=before + package.stat().st_size)
        _keep(package, folder / package.name)
    shutil.rmtree(part)
    if not _package_file(folder, name):
        raise AsrError(f"apt-get download {name}: produced no file in {folder}")


def _package_file(folder: Path, name: str) -> Path | None:
    return max(folder.glob(f"{name}_*.deb"), default=None)


def _own_apt_state(folder: Path, console: Console) -> list[str]:
    """Return options that keep apt's lists and caches in `folder`, after running `apt-get update` with them."""
    lists, cache = folder / "apt" / "lists", folder / "apt" / "cache"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::Lists={lists.resolve()}", "-o", f"Dir::Cache={cache.resolve()}"]
    with console.status("reading Debian's package lists"):
        update = _apt([*options, "update"], folder)
    _check_apt(update, ["update"])
    return options


def _apt_arguments(arguments: Sequence[str]) -> list[str]:
    limits = [
        "-o",
        f"Acquire::http::Timeout={TIMEOUT_S:.0f}",
        "-o",
        f"Acquire::https::Timeout={TIMEOUT_S:.0f}",
    ]
    return ["apt-get", "-q", *limits, "-o", f"Acquire::Retries={ATTEMPTS}", *arguments]


def _apt(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _apt_arguments(arguments),
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        text=True,
        capture_output=True,
    )


def _check_apt(result: subprocess.CompletedProcess[str], packages: Sequence[str]) -> None:
    if result.returncode != 0:
        lines = (result.stdout + "\n" + result.stderr).splitlines()
        errors = [line[2:].strip() for line in lines if line.startswith("E:")]
        reason = errors[0] if errors else f"exit status {result.returncode}"
        raise AsrError(f"apt-get {' '.join(packages)}: {reason}")


# --- HTTP ---------------------------------------------------------------------------------------------


def http_download(
    url: str, path: Path, console: Console, *, max_bytes: int = MAX_BYTES, timeout_s: float = TIMEOUT_S
) -> Path:
    """Download `url` to `path` and check it against `url`.sha1 if the server has that file.

    An interrupted download is continued from `path`.part; `path` itself appears only when it is complete, and is not
    downloaded again if it exists.

    Raises: AsrError that names the URL and the reason.
    """
    if path.exists():
        return path
    if not url.startswith(("http://", "https://")):
        raise AsrError(f"{url}: not an http or https address")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    expected = _sha1_of(url, timeout_s)
    with progress_bar(console) as progress:
        task = progress.add_task(path.name, total=None)
        for restart in (False, True):
            _transfer(url, part, progress, task, max_bytes, timeout_s)
            if expected is None or _sha1(part) == expected:
                _keep(part, path)
                return path
            part.unlink()  # the partial file may have been of another version: download once more from the start
            if restart:
                break
    raise AsrError(f"{url}: its SHA-1 is not the one in {url}.sha1: try another --mirror")


def _sha1_of(url: str, timeout_s: float) -> str | None:
    """Return the digest in `url`.sha1 ("digest  file"), or None if the server has no such file."""
    try:
        with urllib.request.urlopen(f"{url}.sha1", timeout=timeout_s) as reply:
            match = re.match(rb"\s*([0-9a-fA-F]{40})\b", reply.read(1024))
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):
            return None
        _fail(f"{url}.sha1", error)
    except (OSError, http.client.HTTPException) as error:
        _fail(f"{url}.sha1", error)
    return match[1].decode().lower() if match else None


def _sha1(path: Path) -> str:
    digest = hashlib.sha1()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _transfer(url: str, part: Path, progress: Progress, task: TaskID, max_bytes: int, timeout_s: float) -> None:
    """Complete the file `part` from where it ends, in a limited number of attempts."""
    for attempt in range(ATTEMPTS):
        try:
            return _request(url, part, progress, task, max_bytes, timeout_s)
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.exists():  # it was already complete, or is of another file
                part.unlink()
            elif error.code < 500 or attempt == ATTEMPTS - 1:
                _fail(url, error)
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1:
                _fail(url, error)
        time.sleep(0.5 * 2**attempt)
    raise AsrError(f"{url}: the server refuses every part of the file: try another --mirror")


def _request(url: str, part: Path, progress: Progress, task: TaskID, max_bytes: int, timeout_s: float) -> None:
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=timeout_s) as reply:
        if reply.status != 206 or not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0  # the server sends the whole file
        total = None if reply.length is None else start + int(reply.length)
        if (total or 0) > max_bytes:
            raise AsrError(f"{url}: {total} bytes are more than any file of this recipe: check --mirror")
        progress.update(task, total=total, completed=start)
        with part.open("ab" if start else "wb") as stream:
            while chunk := reply.read(CHUNK_BYTES):
                stream.write(chunk)
                progress.update(task, advance=len(chunk))
                if stream.tell() > max_bytes:
                    raise AsrError(f"{url}: more than {max_bytes} bytes: check --mirror")
    if total is not None and part.stat().st_size < total:
        raise http.client.IncompleteRead(b"", total - part.stat().st_size)


def _fail(url: str, error: Exception) -> NoReturn:
    reason = getattr(error, "reason", None) or error
    raise AsrError(f"{url}: {reason}") from error


def _keep(part: Path, path: Path) -> None:
    """Rename a complete file after its bytes are on the disk."""
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, path)
