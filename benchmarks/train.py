"""Time training steps here and in transformers, SpeechBrain and ESPnet2, with the same model size and batch.

Run `python benchmarks/train.py`.  The model has 12 encoder and 6 decoder layers of width 256 and feed-forward 2048,
convolutional subsampling by 4, 1,000 tokens and dropout 0.1; the batch has 16 utterances of 6 to 10 s with 80 features
a frame; a step is forward, backward, clipping and AdamW.  The packages differ in loss and convolution, so ours is built
both ways: like transformers (cross entropy, 1-D) and like the others (label smoothing and CTC, 2-D).  Each package is
installed from PyPI into its own environment, in the version that docs/performance.md names and with our version of
torch; all take turns in one run.  `espnet:2` is the same step in two processes, which share batch and threads and
exchange gradients (torch's DistributedDataParallel).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asr.errors import AsrError
from asr.machine import cores
from benchmarks.script import known_engines, new_table, run_script

sys.path.insert(0, str(Path(__file__).parent / "steps"))
from common import CPU, PROFILE, make_batch, matrix_rate

STEPS = Path(__file__).parent / "steps"
PEERS = {"transformers": "5.23.0", "speechbrain": "1.1.2", "espnet": "202511"}
LOSSES = {"ce": "cross entropy; gated 1-D convolution", "ctc": "label-smoothed + CTC; 2-D convolution"}
UTTERANCES = 16
OPERATORS = 20  # in a profile


class Engine(NamedTuple):
    """One that takes turns: a name of SETUPS, and the number of its processes."""

    name: str
    processes: int

    def __str__(self) -> str:
        return self.name if self.processes == 1 else f"{self.name}:{self.processes}"

    @property
    def setup(self) -> Setup:
        return SETUPS[self.name]

    @property
    def beside(self) -> Engine:
        """Ours of the same variant, with equally many processes."""
        return Engine(f"ours-{self.setup.kind}", self.processes)


class Setup(NamedTuple):
    """A package, and the variant of the model: a key of LOSSES."""

    package: str
    kind: str


SETUPS = {
    "ours-ce": Setup("asr", "ce"),
    "transformers": Setup("transformers", "ce"),
    "ours-ctc": Setup("asr", "ctc"),
    "speechbrain": Setup("speechbrain", "ctc"),
    "espnet": Setup("espnet", "ctc"),
}


def main(
    engines: Annotated[
        str, typer.Option(help=f"Comma-separated, from: {', '.join(SETUPS)}; NAME:2 is with two processes.")
    ] = ",".join(SETUPS),
    precisions: Annotated[str, typer.Option(help="Comma-separated, from: fp32, bf16.")] = "fp32,bf16",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps in a turn, of which the median counts.")] = 3,
    threads: Annotated[int, typer.Option(min=1)] = cores(),
    environments: Annotated[Path, typer.Option(help="Folder for the packages' environments.")] = Path(".venv-peers"),
    profile: Annotated[bool, typer.Option("--profile", help="Print the longest operators of a step, too.")] = False,
) -> None:
    """Time training steps side by side.

    Example: `python benchmarks/train.py --engines ours-ce,transformers --precisions bf16`
    """
    turns, console = [_engine(text, threads) for text in engines.split(",")], Console(width=130)
    pythons = {engine: _python(engine.setup.package, environments) for engine in turns}
    with tempfile.TemporaryDirectory() as folder:
        path, batch = Path(folder) / "batch.npz", make_batch(UTTERANCES)
        np.savez(path, allow_pickle=False, **{name: x.numpy() for name, x in batch._asdict().items()})
        audio_s = int(batch.frames_B.sum()) / 100
        for precision in precisions.split(","):
            with ExitStack() as stack:
                workers = {
                    engine: stack.enter_context(_worker(engine, pythons[engine], path, precision, threads))
                    for engine in turns
                }
                times: dict[Engine, list[float]] = {engine: [] for engine in turns}
                for _ in track(range(rounds), precision, console=Console(stderr=True), transient=True):
                    for engine, worker in workers.items():
                        times[engine].append(worker.ask(str(steps))["seconds"])
                facts = {engine: worker.facts for engine, worker in workers.items()}
                longest = {engine: worker.ask(str(PROFILE)) for engine, worker in workers.items() if profile}
            console.print(_table(times, facts, audio_s, precision, threads))
            for engine, answer in longest.items():
                console.print(_operators(f"{engine}, {precision}", answer["operators"]))


def _engine(text: str, threads: int) -> Engine:
    name, _, count = text.partition(":")
    known_engines([name], SETUPS)
    if count and not (count.isdecimal() and 1 <= int(count) <= threads):
        raise AsrError(f"{text}: the number of processes is from 1 to that of threads, {threads}")
    return Engine(name, int(count or 1))


def _python(package: str, folder: Path) -> Path:
    """Return the interpreter with the package, creating its environment if necessary."""
    if package == "asr":
        return Path(sys.executable)
    python = folder.absolute() / package / "bin" / "python"
    torch_version = torch.__version__.partition("+")[0]
    wanted = [f"torch=={torch_version}", f"torchaudio=={torch_version}", f"{package}=={PEERS[package]}"]
    complete = folder / package / "complete"
    if not complete.exists() or complete.read_text().split() != wanted:
        commands = [
            ["venv", "--quiet", "--clear", "--python", sys.executable, str(folder / package)],
            ["pip", "install", "--quiet", "--python", str(python), *wanted],
        ]
        for command in commands:
            if subprocess.run([sys.executable, "-m", "uv", *command]).returncode:
                raise AsrError(f"{package}: its environment could not be created; is uv installed (pip install uv)?")
        complete.write_text("\n".join(wanted))
    return python


class _Worker:
    def __init__(self, engine: Engine, process: subprocess.Popen[str], log: IO[str]) -> None:
        self.engine, self.process, self.log = engine, process, log
        self.facts = self._answer()

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise AsrError(f"{self.engine}: its process ended: {self.log.read().strip()[-2000:]}")
        return dict(json.loads(line))


@contextmanager
def _worker(engine: Engine, python: Path, batch: Path, precision: str, threads: int) -> Iterator[_Worker]:
    setup = engine.setup
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={engine.processes}"]
    script = [str(STEPS / f"step_{setup.package}.py"), str(batch), precision, str(threads), setup.kind]
    command = [str(python), *(launch if engine.processes > 1 else []), *script]
    with tempfile.TemporaryFile("w+") as log:  # a file, because an unread pipe would fill up
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield _Worker(engine, process, log)
        finally:
            process.terminate()  # torchrun ends its processes then
            process.wait()


def _table(
    times: dict[Engine, list[float]], facts: dict[Engine, dict[str, Any]], audio_s: float, precision: str, threads: int
) -> Table:
    torch.set_num_threads(threads)
    rate = matrix_rate(torch.bfloat16 if precision == "bf16" else torch.float32, CPU, 2048)
    columns = ("", "seconds a step", "least", "most", "audio-s/s", "ours is faster", "M weights", "TFLOP", "of rate")
    table = new_table(f"{precision}, {threads} threads", *columns)
    for engine, seconds in times.items():
        median = statistics.median(seconds)
        ratio = (
            f"{median / statistics.median(times[engine.beside]):.2f} times"
            if engine.beside in times and engine != engine.beside
            else ""
        )
        table.add_row(
            f"{engine}: {LOSSES[engine.setup.kind]}",
            *(f"{s:.2f}" for s in (median, min(seconds), max(seconds))),
            f"{audio_s / median:.0f}",
            ratio,
            f"{facts[engine]['parameters'] / 1e6:.1f}",
            f"{facts[engine]['flop'] / 1e12:.2f}",
            f"{facts[engine]['flop'] / median / rate:.0%}",
        )
    versions = {name: known for engine in times for name, known in facts[engine]["versions"].items()}
    table.caption = (
        f"rate: {rate / 1e9:.0f} GFLOP/s, the best of 2048 x 2048 products with these threads and precision; medians; "
        + ", ".join(f"{name} {known}" for name, known in versions.items())
    )
    return table


def _operators(title: str, found: list[tuple[str, float, int]]) -> Table:
    table = new_table(title, "", "ms of its own", "share", "calls")
    whole = sum(ms for _, ms, _ in found)
    for name, ms, calls in found[:OPERATORS]:
        table.add_row(name, f"{ms:.1f}", f"{ms / whole:.0%}", str(calls))
    table.caption = "time of an operator without those that it calls, on the thread that calls it"
    return table


if __name__ == "__main__":
    run_script(main)
