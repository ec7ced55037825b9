"""Measure speed and memory of error counting: `asr score` compared with jiwer, kaldialign and sclite.

Each row is measured in a process of its own, which reads the same two files of synthetic texts and counts the errors.
Engines that are not installed are marked as such (`pip install kaldialign`; Debian: `apt-get install sctk`).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from benchmarks.script import new_table, run_script

# What a user of jiwer would write for these files.
_JIWER = """
import sys, jiwer
def texts(path):
    with open(path, encoding="utf-8") as f:
        return [line.split(" ", 1)[1].rstrip("\\n") for line in f]
out = jiwer.process_{unit}(texts(sys.argv[1]), texts(sys.argv[2]))
print(out.substitutions, out.deletions, out.insertions)
"""
_KALDIALIGN = """
import sys, kaldialign
def texts(path):
    with open(path, encoding="utf-8") as f:
        return [line.split(" ", 1)[1].rstrip("\\n") for line in f]
total = dict.fromkeys(("sub", "del", "ins"), 0)
for ref, hyp in zip(texts(sys.argv[1]), texts(sys.argv[2])):
    found = kaldialign.edit_distance({ref}, {hyp})
    for kind in total:
        total[kind] += found[kind]
print(*total.values())
"""
_OURS = """
import sys, asr
report = asr.score(sys.argv[1], sys.argv[2], metrics=["{metric}"], form="ids")
report.table()
rate = report.rates["{metric}"]
print(rate.substitutions, rate.deletions, rate.insertions)
"""


class Run(NamedTuple):
    """Time and memory of a process, and the substitutions, deletions and insertions that it printed."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    counts: str


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of texts.")] = 100_000,
    words: Annotated[int, typer.Option(min=1, help="Words in a reference.")] = 20,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each engine; the fastest is shown.")] = 3,
    only_ours: Annotated[bool, typer.Option("--only-ours", help="Measure only `asr score`.")] = False,
) -> None:
    """Measure all engines on texts with about 10 % errors.

    Example: `python benchmarks/score.py --pairs 100000`
    """
    title = f"{pairs:,} pairs of {words} words, the fastest of {runs} runs"
    table = new_table(title, "engine", "unit", "wall s", "processor s", "peak MB", "sub del ins")
    with tempfile.TemporaryDirectory() as folder:
        files = make_texts(Path(folder), pairs, words)
        for unit, metric in (("words", "wer"), ("characters", "cer")):
            for name, command in engines(unit, metric, *files).items():
                if only_ours and name != "ours":
                    continue
                if command is None:
                    table.add_row(name, unit, "not installed")
                    continue
                best = min((measured(command, Path(folder)) for _ in range(runs)), key=lambda run: run.cpu_s)
                table.add_row(name, unit, f"{best.wall_s:.2f}", f"{best.cpu_s:.2f}", f"{best.peak_mb:.0f}", best.counts)
    Console(width=100).print(table)


def make_texts(folder: Path, pairs: int, words: int) -> tuple[Path, Path]:
    """Write lines `id text` of references and hypotheses, from 20,000 words of 2 to 9 letters, skewed in frequency."""
    draw = random.Random(1)
    known = ["".join(draw.choices("etaoinshrdlucmfwypvbgkqjxz", k=draw.randint(2, 9))) for _ in range(20_000)]
    refs, hyps = folder / "ref.txt", folder / "hyp.txt"
    with refs.open("w", encoding="utf-8") as ref_file, hyps.open("w", encoding="utf-8") as hyp_file:
        for number in range(pairs):
            ref = [known[int(20_000 * draw.random() ** 3)] for _ in range(words)]
            ref_file.write(f"utt_{number:07} {' '.join(ref)}\n")
            hyp_file.write(f"utt_{number:07} {' '.join(noisy(draw, ref, known))}\n")
    return refs, hyps


def noisy(draw: random.Random, ref: list[str], known: list[str]) -> list[str]:
    """Replace about 6 % of the words, delete 2 % and repeat 2 %."""
    hyp: list[str] = []
    for word in ref:
        lot = draw.random()
        hyp += [draw.choice(known)] if lot < 0.06 else [] if lot < 0.08 else [word, word] if lot < 0.1 else [word]
    return hyp


def engines(unit: str, metric: str, ref: Path, hyp: Path) -> dict[str, list[str] | None]:
    """Return the command of each engine; None if it is not installed."""
    python, files = [sys.executable, "-c"], [str(ref), str(hyp)]
    sides = {side: f"{side}.split()" if unit == "words" else f"list({side})" for side in ("ref", "hyp")}
    found: dict[str, list[str] | None] = {
        "ours": [*python, _OURS.format(metric=metric), *files],
        "jiwer": [*python, _JIWER.format(unit=unit), *files],
        "kaldialign": [*python, _KALDIALIGN.format(**sides), *files] if find_spec("kaldialign") else None,
    }
    if unit == "words":  # sclite leaves spaces out of character counts
        program = next((words for words in (["sclite"], ["sctk", "sclite"]) if shutil.which(words[0])), None)
        trn = [str(_as_trn(path)) for path in (ref, hyp)] if program else []
        options = ["-i", "spu_id", "-o", "rsum", "-O", str(ref.parent), "-n", "sclite"]
        found["sclite"] = program and [*program, "-r", trn[0], "trn", "-h", trn[1], "trn", *options]
    return found


def _as_trn(path: Path) -> Path:
    written = path.with_suffix(".trn")
    with path.open(encoding="utf-8") as read, written.open("w", encoding="utf-8") as f:
        for line in read:
            id, text = line.rstrip("\n").split(" ", 1)
            f.write(f"{text} ({id.replace('_', '-')})\n")
    return written


def measured(command: list[str], folder: Path) -> Run:
    """Run a command and measure it.  Raises RuntimeError with its output if it fails."""
    with (folder / "out").open("w+b") as out:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        out.seek(0)
        printed = out.read().decode("utf-8", "replace").strip()
    if status:
        raise RuntimeError(printed[-500:])
    counts = printed.splitlines()[-1]
    if (summary := folder / "sclite.raw").exists() and "-r" in command:
        total = re.search(r"\| Sum .*", summary.read_text())
        counts = " ".join(re.findall(r"\d+", total[0])[3:6]) if total else "?"
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, counts)


if __name__ == "__main__":
    run_script(main)
