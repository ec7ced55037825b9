"""Kill commands at seeded moments and start them again, until they complete."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from benchmarks.reliability import ROOT
from benchmarks.reliability.checks import Figures, Kept, corrupt, leftovers

HOOK = Path(__file__).with_name("hook")
MOST_S = 600.0
CHAIN = 8  # kills of one run before it may complete
MARK = "RELIABILITY_CHAIN"


class Job(Protocol):
    """A command to kill.  `targets` are kinds of its output, each with the starts of its paths below `out`."""

    name: str
    unit: str  # what a fault may not take away
    targets: dict[str, tuple[str, ...]]
    logs: tuple[str, ...]  # files written line by line: after a kill, they may end in half a line until the next run

    def command(self, out: Path) -> list[str]:
        """Return the command line that writes below `out`."""
        ...

    def problems(self, out: Path, whole: Path) -> list[str]:
        """Return how `out` differs from `whole`, the output of an uninterrupted run."""
        ...

    def kept(self, out: Path) -> Kept:
        """Return the work that the next start need not do again."""
        ...

    def lost(self, out: Path, before: Kept) -> list[str]:
        """Return what of `before`, the work kept at the last start, has been lost or done again."""
        ...


@dataclass(frozen=True)
class Moment:
    """When to kill: after `after_s` seconds or, if `at` is not 0, at that write to paths that `under` gives."""

    kind: str
    after_s: float = MOST_S
    at: int = 0
    under: tuple[str, ...] = ()


@dataclass
class Whole:
    """An uninterrupted run: its folder, the seconds that the latest one took, and its writes to each target."""

    out: Path
    wall_s: float
    steps: dict[str, int]


class Started(NamedTuple):
    """A process and the file of its stderr; a pipe would stay open as long as a child process left behind."""

    process: subprocess.Popen[bytes]
    told: IO[str]


def spawn(
    command: list[str],
    *,
    mark: str = "",
    hook: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Started:
    """Start a command in this repository on one thread; its environment, which children inherit, has `mark`."""
    told = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (finish closes it)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: mark}
    if hook is not None:
        env |= {**hook, "PYTHONPATH": f"{HOOK}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        command,
        env=env,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=told,
        start_new_session=True,
        preexec_fn=before,
    )
    return Started(process, told)


def finish(started: Started, after_s: float = MOST_S) -> tuple[int, str]:
    """Wait for a process, killing it after `after_s` seconds, and return its exit status and stderr."""
    try:
        started.process.wait(after_s)
    except subprocess.TimeoutExpired:
        started.process.kill()
    with started.told as told:
        status = started.process.wait()
        told.seek(0)
        return status, told.read()


def stopped(pid: int) -> bool:
    """Wait until a child process has stopped itself; return False if it ends first or does neither in time."""
    until, either = time.monotonic() + MOST_S, os.WSTOPPED | os.WEXITED
    while time.monotonic() < until:
        if (change := os.waitid(os.P_PID, pid, either | os.WNOHANG | os.WNOWAIT)) is not None:
            return change.si_code == os.CLD_STOPPED
        time.sleep(0.01)
    return False


def uninterrupted(job: Job, out: Path) -> Whole:
    """Run a job to its end, counting its writes."""
    log, began = out.with_name(f"{out.name}-steps"), time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    _must_succeed(
        job, *finish(spawn(job.command(out), hook={"KILL_AT": "0", "KILL_UNDER": str(out), "KILL_LOG": str(log)}))
    )
    wall_s, lines = time.monotonic() - began, log.read_text(encoding="utf-8").splitlines()
    steps = {
        target: sum(any(f"{out}{text}" in line for text in under) for line in lines)
        for target, under in job.targets.items()
    }
    if problems := job.problems(out, out):
        raise RuntimeError(f"{job.name}: wrong even without interruption: {problems}")
    return Whole(out, wall_s, steps)


def _must_succeed(job: Job, status: int, told: str) -> None:
    if status != 0:
        raise RuntimeError(f"{job.name}: exit status {status}: {told[-2000:]}")


def hook_for(moment: Moment, out: Path, with_: signal.Signals = signal.SIGKILL) -> dict[str, str] | None:
    """Return the variables that make a command send itself a signal at the write of a moment, None if it has none."""
    under = os.pathsep.join(f"{out}{text}" for text in moment.under)
    return {"KILL_AT": str(moment.at), "KILL_UNDER": under, "KILL_WITH": str(int(with_))} if moment.at else None


def drawn(job: Job, whole: Whole, draw: random.Random) -> Moment:
    """Draw a moment: half of them at any time, a quarter at a write to the first target, the rest to others."""
    if draw.random() < 0.5:
        return Moment("at any time", after_s=draw.uniform(0.05, 1.0) * whole.wall_s)
    return at_write(job, whole, draw)


def at_write(job: Job, whole: Whole, draw: random.Random) -> Moment:
    """Draw a write: half of them to the first target, the rest to others."""
    first, *others = job.targets
    target = first if not others or draw.random() < 0.5 else draw.choice(others)
    return Moment(f"writing {target}", at=draw.randint(1, whole.steps[target]), under=job.targets[target])


def kill_job(job: Job, kills: int, folder: Path, seed: int, on_kill: Callable[[], None]) -> Figures:
    """Kill a job `kills` times, in chains that each end in a run that completes and is checked."""
    figures, draw = Figures(f"SIGKILL: {job.name}", kills), random.Random(f"{seed} {job.name}")
    began = time.monotonic()
    whole = uninterrupted(job, folder / "whole")
    while figures.made < kills:
        number = figures.counts["runs that went through"]
        _chain(job, whole, folder / f"chain-{number}", figures, draw, on_kill)
        figures.counts["runs that went through"] += 1
    figures.wall_s = time.monotonic() - began
    return figures


def _chain(
    job: Job, whole: Whole, out: Path, figures: Figures, draw: random.Random, on_kill: Callable[[], None]
) -> None:
    mark, length, through = f"{os.getpid()} {out}", 0, False
    while length < CHAIN and figures.made < figures.planned and not through:
        moment, before = drawn(job, whole, draw), job.kept(out)
        began = time.monotonic()
        status, told = finish(spawn(job.command(out), mark=mark, hook=hook_for(moment, out)), moment.after_s)
        through = status == 0
        if through and not length:  # it ended before the kill: the machine is faster now
            whole.wall_s = time.monotonic() - began
        if status == -signal.SIGKILL:
            length += 1
            figures.made += 1
            figures.counts[moment.kind] += 1
            figures.counts[f"after a first {job.unit}"] += bool(before or job.kept(out))
            figures.counts["temporaries after the kill"] += bool(leftovers(out, but=job.logs))
            on_kill()
        elif not through:
            figures.problems.append(f"{out}: exit status {status} instead of the kill: {told[-300:]}")
        figures.problems += [*corrupt(out, but=job.logs), *job.lost(out, before)]
    if not through:
        before = job.kept(out)
        status, told = finish(spawn(job.command(out), mark=mark))
        if status != 0:
            figures.problems.append(f"{out}: run again, the command ends with exit status {status}: {told[-300:]}")
            return
        figures.problems += job.lost(out, before)
    found = [*job.problems(out, whole.out), *_processes(mark)]
    figures.problems += found
    if not found:
        shutil.rmtree(out)


def _processes(mark: str) -> list[str]:
    """Kill and report the processes of a chain that still run after a grace period."""
    until = time.monotonic() + 20
    while (left := [pid for pid in _pids() if _has(pid, mark)]) and time.monotonic() < until:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return [f"process {pid} was left behind" for pid in left]


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _has(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def asr(*words: object) -> list[str]:
    """Return a command line that runs `asr` with this Python."""
    return [sys.executable, "-m", "asr", *map(str, words)]
