"""Full and read-only disks: a command must end at that write with one line and leave existing files intact.

The disk is a small tmpfs; where mounting is not allowed, the size of files is limited instead (RLIMIT_FSIZE) and
folders are closed by their permissions, which do not bind root.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from benchmarks.reliability.checks import Figures, corrupt, leftovers, tracebacks
from benchmarks.reliability.jobs import Training, make_config, preparing, transcribing
from benchmarks.reliability.kills import Job, finish, spawn, uninterrupted

AMPLE_KIB = 64 << 10


class Disk(Protocol):
    """A folder that can be made too small or read-only, and then usable again."""

    how: str
    closes: bool  # whether `close` binds this user
    folder: Path

    def open(self, kib: int) -> None:
        """Make it writable, with room for `kib` more KiB."""

    def close(self) -> None:
        """Make it read-only."""

    def limit(self) -> None:
        """Apply the limit of `open` to this process; called in the child before the command runs."""

    def remove(self) -> None:
        """Remove it and everything in it."""


class Mounted:
    """A mounted tmpfs."""

    how = "tmpfs, mounted with a size; read-only by remounting"
    closes = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        _mount("-t", "tmpfs", "-o", f"size={AMPLE_KIB}k", "none", str(folder))

    def open(self, kib: int) -> None:
        used = sum(path.stat().st_blocks for path in self.folder.rglob("*")) // 2
        _mount("-o", f"remount,rw,size={used + kib}k", str(self.folder))

    def close(self) -> None:
        _mount("-o", "remount,ro", str(self.folder))

    def limit(self) -> None:
        pass

    def remove(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)
        self.folder.rmdir()


class Limited:
    """An ordinary folder: `open` limits the size of each file, `close` takes permissions away."""

    how = "RLIMIT_FSIZE in place of a full disk; read-only by permissions, unless root"
    closes = os.geteuid() != 0

    def __init__(self, folder: Path) -> None:
        self.folder, self.kib = folder, AMPLE_KIB
        folder.mkdir(parents=True)

    def open(self, kib: int) -> None:
        self._permit(0o755)
        self.kib = kib

    def close(self) -> None:
        self._permit(0o555)

    def _permit(self, mode: int) -> None:
        for path in [self.folder, *self.folder.rglob("*")]:
            if path.is_dir():
                path.chmod(mode)

    def limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.kib << 10, self.kib << 10))

    def remove(self) -> None:
        self._permit(0o755)
        shutil.rmtree(self.folder)


def choose(scratch: Path) -> type[Mounted] | type[Limited]:
    """Return the kind of disk that this machine allows."""
    try:
        Mounted(scratch / "try").remove()
    except (subprocess.CalledProcessError, FileNotFoundError):
        (scratch / "try").rmdir()
        return Limited
    return Mounted


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


# ---- the trials -----------------------------------------------------------------------------------------------------


def fill_disks(scratch: Path, times: int, seed: int, on_done: Callable[[], None]) -> Figures:
    """Run commands on disks that get full, are then read-only, and then have room again."""
    make = choose(scratch)
    figures, began = Figures(f"full disk, then read-only, then room ({make.how})", 3 * times), time.monotonic()
    draw = random.Random(f"{seed} disk")
    made: list[tuple[Job, int]] = [
        # The KiB that a command writes, about: the disk gets full before that.  No data workers, as they would pass
        # batches in shared memory, which RLIMIT_FSIZE limits as well.
        (Training(make_config(scratch / "corpus"), workers=0), 700),
        (preparing(scratch / "source"), 60),
        (transcribing(scratch / "transcribing"), 160),
    ]
    for number, (job, kib) in enumerate(made):
        disk = make(scratch / f"disk-{number}")
        try:
            whole = uninterrupted(job, scratch / f"whole-{number}")
            for _ in range(times):
                _trial(job, disk, whole.out, draw.randint(4, kib), figures)
                on_done()
        finally:
            disk.remove()
    figures.wall_s = time.monotonic() - began
    return figures


def _trial(job: Job, disk: Disk, whole: Path, kib: int, figures: Figures) -> None:
    """Check for one error line on a full and on a read-only disk, and for an intact result once there is room."""
    out = disk.folder / "out"
    for state in ("full", "read-only") if disk.closes else ("full",):
        disk.open(kib) if state == "full" else disk.close()
        status, told = _run(job, disk, out)
        if state == "full" and status == 0:  # everything fitted
            break
        figures.counts[state] += 1
        figures.problems += [f"{state}, {kib} KiB: {problem}" for problem in one_line(job, status, told, disk.folder)]
        figures.problems += [*corrupt(out, but=job.logs), *(leftovers(out) if state == "full" else [])]
    disk.open(AMPLE_KIB)
    status, told = _run(job, disk, out)
    if status != 0:
        figures.problems.append(f"{job.name}: with room again, exit status {status}: {told[-300:]}")
    else:
        figures.problems += job.problems(out, whole)
    figures.made += 1
    shutil.rmtree(out)


def _run(job: Job, disk: Disk, out: Path) -> tuple[int, str]:
    return finish(spawn(job.command(out), before=disk.limit))


def one_line(job: Job, status: int, told: str, folder: Path) -> list[str]:
    """Return what is wrong with how a command ended that could not write.

    It must exit with status 1 or 2 and print one line that names a file, without a traceback.
    """
    problems = tracebacks(told)
    if status not in (1, 2):
        problems.append(f"{job.name}: exit status {status}")
    lines = [line for line in told.splitlines() if line.startswith(("asr: ", "error: "))]
    if len(lines) != 1 or os.fspath(folder) not in lines[0]:
        problems.append(f"{job.name}: not one line that names the file: {told[-400:]!r}")
    return problems
