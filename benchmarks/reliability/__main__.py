"""Make faults under load and check what they leave behind: kills, full and read-only disks, broken audio.

    make reliability
    python -m benchmarks.reliability --quick

All inputs are made from seeded noise; nothing is downloaded.  docs/reliability.md lists what is promised.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.reliability.checks import Figures
from benchmarks.reliability.disk import fill_disks
from benchmarks.reliability.jobs import jobs
from benchmarks.reliability.kills import kill_job
from benchmarks.reliability.mutated import transcribe_broken
from benchmarks.script import run_script

QUICK = {"kills": 8, "files": 100, "disks": 1}


def main(
    kills: Annotated[int, typer.Option(help="Number of kills.", min=0)] = 200,
    files: Annotated[int, typer.Option(help="Broken audio files.", min=0)] = 1000,
    disks: Annotated[int, typer.Option(help="Full and read-only disks for each of four commands.", min=0)] = 8,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 1,
    at_once: Annotated[int, typer.Option(help="Commands to kill in parallel.", min=1)] = 2,
    quick: Annotated[bool, typer.Option("--quick", help=f"A few minutes only: {QUICK}.")] = False,
    out: Annotated[Path, typer.Option(help="Write the figures to OUT.json and OUT.md.")] = Path("exp/reliability"),
) -> None:
    """Make faults, check what they leave behind and print a table; exit status 1 if a promise is broken.

    Example: `python -m benchmarks.reliability --kills 20 --files 200`
    """
    if quick:
        kills, files, disks = QUICK["kills"], QUICK["files"], QUICK["disks"]
    console, began = Console(stderr=True), time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="reliability-"))
    found = [
        *_kills(scratch / "kills", kills, seed, at_once, console),
        *(_disks(scratch / "disks", disks, seed, console) if disks else []),
        *([transcribe_broken(scratch / "audio", files, seed, console)] if files else []),
    ]
    Console().print(_table(found))
    for figures in found:
        for problem in figures.problems[:20]:
            console.print(f"{figures.name}: {problem}", style="red", markup=False, soft_wrap=True)
    _write(out, found, seed, time.monotonic() - began)
    if not all(figures.kept for figures in found):
        console.print(f"the evidence is kept in {scratch}")
        raise typer.Exit(1)
    shutil.rmtree(scratch)


def _kills(folder: Path, kills: int, seed: int, at_once: int, console: Console) -> list[Figures]:
    if not kills:
        return []
    with _bar(console) as progress, ThreadPoolExecutor(at_once) as pool:
        bar = progress.add_task("killing", total=kills)
        todo = list(jobs(folder))

        def on_kill() -> None:
            progress.advance(bar)
            if progress.disable and progress.tasks[0].completed % 20 == 0:
                console.print(f"{progress.tasks[0].completed} of {kills} kills")

        shares = [round(share * kills) for _, share in todo]
        shares[0] += kills - sum(shares)
        waiting = [
            pool.submit(kill_job, job, share, folder / str(i), seed, on_kill)
            for i, ((job, _), share) in enumerate(zip(todo, shares, strict=True))
        ]
        return [one.result() for one in waiting]


def _disks(folder: Path, times: int, seed: int, console: Console) -> list[Figures]:
    folder.mkdir()
    with _bar(console) as progress:
        bar = progress.add_task("filling disks", total=8 * times)
        return fill_disks(folder, times, seed, lambda: progress.advance(bar))


def _bar(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal)


# ---- the report -----------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return the machine and the versions that the figures were measured with."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = {name: version(name) for name in ("torch", "lightning", "safetensors", "soundfile", "lhotse")}
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "memory_gib": round(memory),
        "python": platform.python_version(),
        "ffmpeg": shutil.which("ffmpeg") is not None,
        **packages,
    }


def _rows(found: list[Figures]) -> list[list[str]]:
    return [
        [
            figures.name,
            f"{figures.made} of {figures.planned}",
            str(len(figures.problems)),
            "; ".join(f"{name}: {count}" for name, count in figures.counts.items()),
            f"{figures.wall_s:.0f}",
        ]
        for figures in found
    ]


HEAD = ["fault", "made", "not as promised", "of them", "seconds"]


def _table(found: list[Figures]) -> Table:
    table = Table(*HEAD)
    for figures, row in zip(found, _rows(found), strict=True):
        table.add_row(*row, style=None if figures.kept else "red")
    return table


def _write(out: Path, found: list[Figures], seed: int, wall_s: float) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "seed": seed,
        "wall_s": round(wall_s, 1),
        "machine": machine(),
        "faults": [vars(figures) | {"counts": dict(figures.counts), "kept": figures.kept} for figures in found],
    }
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    lines = [HEAD, ["---"] * len(HEAD), *_rows(found)]
    text = "".join(f"| {' | '.join(row)} |\n" for row in lines)
    out.with_suffix(".md").write_text(f"seed {seed}, {wall_s:.0f} s, {machine()}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
