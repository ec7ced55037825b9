"""Commands killed at seeded points and given again, until they go through."""

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
from benchmarks.reliability.checks import Figures, corrupt, leftovers

HOOK = Path(__file__).with_name("hook")
MOST_S = 600.0
CHAIN = 8  # kills of one run before it may go through
MARK = "RELIABILITY_CHAIN"


class Job(Protocol):
    """Something to kill.  `targets` name what is being written, each with texts that its paths contain below `out`."""

    name: str
    targets: dict[str, tuple[str, ...]]
    logs: tuple[str, ...]  # what is written line by line, and so may end in half a line while a kill is not mended

    def command(self, out: Path) -> list[str]:
        """The command, which writes below `out`."""
        ...

    def problems(self, out: Path, whole: Path) -> list[str]:
        """In what `out` is not as `whole`, which nothing interrupted."""
        ...


@dataclass(frozen=True)
class Moment:
    """When to kill: after so many seconds, or at a step of writing."""

    kind: str
    after_s: float = MOST_S
    at: int = 0
    under: tuple[str, ...] = ()


@dataclass
class Whole:
    """The uninterrupted run: its folder, how long the last such took, and its steps of writing for each target."""

    out: Path
    wall_s: float
    steps: dict[str, int]


class Started(NamedTuple):
    """A process, and the file of what it says on stderr: a pipe would stay open as long as a child that it left."""

    process: subprocess.Popen[bytes]
    told: IO[str]


def spawn(
    command: list[str],
    *,
    mark: str = "",
    hook: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Started:
    """Start a command of this tree on one thread; `mark` stands in its environment and in that of its children."""
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
    """Wait for a process, killing it after so many seconds; its status and what it said on stderr."""
    try:
        started.process.wait(after_s)
    except subprocess.TimeoutExpired:
        started.process.kill()
    with started.told as told:
        status = started.process.wait()
        told.seek(0)
        return status, told.read()


def uninterrupted(job: Job, out: Path) -> Whole:
    """Run a job to its end, noting its steps of writing."""
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
        raise RuntimeError(f"{job.name}: nobody interrupted it: {problems}")
    return Whole(out, wall_s, steps)


def _must_succeed(job: Job, status: int, told: str) -> None:
    if status != 0:
        raise RuntimeError(f"{job.name}: exit status {status}: {told[-2000:]}")


def _under(out: Path, texts: tuple[str, ...]) -> str:
    return os.pathsep.join(f"{out}{text}" for text in texts)


def drawn(job: Job, whole: Whole, draw: random.Random) -> Moment:
    """A seeded moment: half of them at any time, a quarter at a step of writing the first target, the rest others."""
    if draw.random() < 0.5:
        return Moment("at any time", after_s=draw.uniform(0.05, 1.0) * whole.wall_s)
    first, *others = job.targets
    target = first if not others or draw.random() < 0.5 else draw.choice(others)
    return Moment(f"writing {target}", at=draw.randint(1, whole.steps[target]), under=job.targets[target])


def kill_job(job: Job, kills: int, folder: Path, seed: int, on_kill: Callable[[], None]) -> Figures:
    """Kill a job so many times and let each chain of kills end in a run that goes through and is looked at."""
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
        moment = drawn(job, whole, draw)
        hook = {"KILL_AT": str(moment.at), "KILL_UNDER": _under(out, moment.under)} if moment.at else None
        began = time.monotonic()
        status, told = finish(spawn(job.command(out), mark=mark, hook=hook), moment.after_s)
        through = status == 0
        if through and not length:  # it was faster than the machine let it be before
            whole.wall_s = time.monotonic() - began
        if status == -signal.SIGKILL:
            length += 1
            figures.made += 1
            figures.counts[moment.kind] += 1
            figures.counts["temporaries after the kill"] += bool(leftovers(out))
            on_kill()
        elif not through:
            figures.problems.append(f"{out}: exit status {status} instead of the kill: {told[-300:]}")
        figures.problems += corrupt(out, but=job.logs)
    if not through:
        status, told = finish(spawn(job.command(out), mark=mark))
        if status != 0:
            figures.problems.append(f"{out}: the same command ends with exit status {status}: {told[-300:]}")
            return
    found = [*job.problems(out, whole.out), *_processes(mark)]
    figures.problems += found
    if not found:
        shutil.rmtree(out)


def _processes(mark: str) -> list[str]:
    """Processes of a chain that still run, after some patience with those that notice it in a while."""
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
    """A command line of `asr` in this Python."""
    return [sys.executable, "-m", "asr", *map(str, words)]
