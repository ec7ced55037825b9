"""Full and read-only disks: a command must end at that write with one line and leave existing files intact.

A disk gets read-only before a command starts, or at one of its writes, for which the command stops itself.  The disk is
a small tmpfs; where mounting is not allowed, the size of files is limited instead (RLIMIT_FSIZE) and folders are closed
by their permissions, which do not bind root.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from benchmarks.reliability.checks import Figures, Kept, corrupt, leftovers, tracebacks
from benchmarks.reliability.jobs import Training, make_config, preparing, transcribing, transcribing_corpus
from benchmarks.reliability.kills import Job, Moment, Whole, at_write, finish, hook_for, spawn, stopped, uninterrupted

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

    how = "tmpfs, mounted with a size; read-only by a second mount over it, which open files do not hinder"
    closes = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.covered = folder, False
        folder.mkdir(parents=True)
        _mount("-t", "tmpfs", "-o", f"size={AMPLE_KIB}k", "none", str(folder))

    def open(self, kib: int) -> None:
        self._uncover()
        used = sum(path.stat().st_blocks for path in self.folder.rglob("*")) // 2
        _mount("-o", f"remount,rw,size={used + kib}k", str(self.folder))

    def close(self) -> None:
        _mount("--bind", str(self.folder), str(self.folder))
        self.covered = True
        _mount("-o", "remount,ro,bind", str(self.folder))

    def _uncover(self) -> None:
        if self.covered:
            subprocess.run(["umount", str(self.folder)], check=True)
            self.covered = False

    def limit(self) -> None:
        pass

    def remove(self) -> None:
        self._uncover()
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


def fill_disks(scratch: Path, times: int, seed: int, on_done: Callable[[], None]) -> list[Figures]:
    """Run commands on disks that get full, are then read-only and have room again, or get read-only while they run."""
    make, draw = choose(scratch), random.Random(f"{seed} disk")
    jobs = disk_jobs(scratch)
    full = Figures(f"full disk, then read-only, then room ({make.how})", len(jobs) * times)
    closing = Figures("disk read-only while a command runs, then room", len(jobs) * times if make.closes else 0)
    for number, (job, kib) in enumerate(jobs):
        disk = make(scratch / f"disk-{number}")
        try:
            whole = uninterrupted(job, scratch / f"whole-{number}")
            for _ in range(times):
                with full.timed():
                    _trial(job, disk, whole.out, draw.randint(4, kib), full)
                on_done()
                with closing.timed():
                    while disk.closes and not _closed_at(job, disk, whole, at_write(job, whole, draw), closing):
                        pass
                on_done()
        finally:
            disk.remove()
    return [full, closing]


def disk_jobs(scratch: Path) -> list[tuple[Job, int]]:
    """Return the commands, each with the KiB that it writes, about: a disk gets full before that."""
    return [
        # No data workers, as they would pass batches in shared memory, which RLIMIT_FSIZE limits as well.
        (Training(make_config(scratch / "corpus"), workers=0), 700),
        (preparing(scratch / "source"), 60),
        (transcribing(scratch / "transcribing"), 160),
        (transcribing_corpus(scratch / "manifest", count=60), 40),
    ]


def _trial(job: Job, disk: Disk, whole: Path, kib: int, figures: Figures) -> None:
    """Check for one error line on a full and on a read-only disk, and for an intact result once there is room."""
    out = disk.folder / "out"
    for state in ("full", "read-only") if disk.closes else ("full",):
        before = job.kept(out)
        disk.open(kib) if state == "full" else disk.close()
        status, told = finish(spawn(job.command(out), before=disk.limit))
        if state == "full" and status == 0:  # everything fitted
            break
        figures.counts[state] += 1
        figures.problems += [f"{state}, {kib} KiB: {problem}" for problem in one_line(job, status, told, disk.folder)]
        _look(job, out, before, figures)
        figures.problems += leftovers(out, but=job.logs) if state == "full" else []
    _go_on(job, disk, out, whole, figures)


def _closed_at(job: Job, disk: Disk, whole: Whole, moment: Moment, figures: Figures) -> bool:
    """Make the disk read-only at a write of a command, and check as `_trial` does; return False if it ended before."""
    out = disk.folder / "out"
    disk.open(AMPLE_KIB)
    started = spawn(job.command(out), hook=hook_for(moment, out, signal.SIGSTOP))
    if not stopped(started.process.pid):
        finish(started)
        shutil.rmtree(out)
        return False
    before = job.kept(out)
    disk.close()
    started.process.send_signal(signal.SIGCONT)
    status, told = finish(started)
    figures.counts[moment.kind] += 1
    if status == 0:  # it only had its temporary folder to remove
        problems = [problem for problem in job.problems(out, whole.out) if not problem.startswith("left behind")]
    else:
        problems = one_line(job, status, told, disk.folder)
    figures.problems += [f"{moment.kind}, write {moment.at}: {problem}" for problem in problems]
    _look(job, out, before, figures)
    _go_on(job, disk, out, whole.out, figures)
    return True


def _look(job: Job, out: Path, before: Kept, figures: Figures) -> None:
    """Check what a command that could not write has left."""
    figures.counts[f"after a first {job.unit}"] += bool(before or job.kept(out))
    figures.problems += [*corrupt(out, but=job.logs), *job.lost(out, before)]


def _go_on(job: Job, disk: Disk, out: Path, whole: Path, figures: Figures) -> None:
    """Check that the command goes on once there is room."""
    before = job.kept(out)
    disk.open(AMPLE_KIB)
    status, told = finish(spawn(job.command(out), before=disk.limit))
    if status != 0:
        figures.problems.append(f"{job.name}: with room again, exit status {status}: {told[-300:]}")
    else:
        figures.problems += [*job.problems(out, whole), *job.lost(out, before)]
    figures.made += 1
    shutil.rmtree(out)


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
