"""Time training steps here and in transformers, SpeechBrain and ESPnet2, with the same model size and batch.

Run `python benchmarks/train.py`.  The model has 12 encoder and 6 decoder layers of width 256 and feed-forward 2048,
convolutional subsampling by 4, 1,000 tokens and dropout 0.1; the batch has 16 utterances of 6 to 10 s with 80 features
a frame; a step is forward, backward, clipping and AdamW.  The packages differ in loss and convolution, so ours is built
both ways: like transformers (cross entropy, 1-D) and like the others (label smoothing and CTC, 2-D).  Each package is
installed from PyPI into its own environment, with our version of torch; all take turns in one run.  `espnet:2` is the
same step in two processes, which share batch and threads and exchange gradients (torch's DistributedDataParallel).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
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
from benchmarks.script import run_script

STEPS = Path(__file__).parent / "steps"
PEERS = {"transformers": "transformers", "speechbrain": "speechbrain", "espnet": "espnet"}


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
        """Ours, with equally many processes."""
        return Engine(self.setup.beside, self.processes)


class Setup(NamedTuple):
    """A package, the variant that its worker builds, its loss and convolution, and our setup to compare it with."""

    package: str
    kind: str
    losses: str
    beside: str


SETUPS = {
    "ours-ce": Setup("asr", "ce", "cross entropy; gated 1-D convolution", ""),
    "transformers": Setup("transformers", "-", "cross entropy; gated 1-D convolution", "ours-ce"),
    "ours-ctc": Setup("asr", "ctc", "label-smoothed + CTC; 2-D convolution", ""),
    "speechbrain": Setup("speechbrain", "-", "label-smoothed + CTC; 2-D convolution", "ours-ctc"),
    "espnet": Setup("espnet", "-", "label-smoothed + CTC; 2-D convolution", "ours-ctc"),
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
) -> None:
    """Time training steps side by side.

    Example: `python benchmarks/train.py --engines ours-ce,transformers --precisions bf16`
    """
    turns, console = [_engine(text, threads) for text in engines.split(",")], Console(width=130)
    pythons = {engine: _python(engine.setup.package, environments) for engine in turns}
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "batch.npz"
        arrays = _batch()
        np.savez(batch, allow_pickle=False, **arrays)
        for precision in precisions.split(","):
            with ExitStack() as stack:
                workers = {
                    engine: stack.enter_context(_worker(engine, pythons[engine], batch, precision, threads))
                    for engine in turns
                }
                times: dict[Engine, list[float]] = {engine: [] for engine in turns}
                for _ in track(range(rounds), precision, console=Console(stderr=True), transient=True):
                    for engine, worker in workers.items():
                        times[engine].append(worker.ask(str(steps))["seconds"])
                facts = {engine: worker.facts for engine, worker in workers.items()}
            console.print(_table(times, facts, arrays["frames_B"].sum() / 100, precision, threads))


def _engine(text: str, threads: int) -> Engine:
    name, _, count = text.partition(":")
    if name not in SETUPS:
        raise AsrError(f"unknown engine {name!r}: known are {', '.join(SETUPS)}")
    if count and not (count.isdecimal() and 1 <= int(count) <= threads):
        raise AsrError(f"{text}: the number of processes is from 1 to that of threads, {threads}")
    return Engine(name, int(count or 1))


def _batch() -> dict[str, np.ndarray]:
    """Make 16 utterances of 6 to 10 s, longest first: noise as features, 24 to 40 random tokens."""
    random = np.random.default_rng(0)
    frames_B, len_B = (np.sort(random.integers(*span, 16))[::-1] for span in ((600, 1001), (24, 41)))
    x_BTF = np.zeros((16, frames_B[0], 80), np.float32)
    tokens_BL = np.zeros((16, len_B[0]), np.int64)
    for x_TF, frames, tokens_L, length in zip(x_BTF, frames_B, tokens_BL, len_B, strict=True):
        x_TF[:frames] = random.standard_normal((frames, 80))
        tokens_L[:length] = random.integers(1, 999, length)
    return {"x_BTF": x_BTF, "frames_B": frames_B.copy(), "tokens_BL": tokens_BL, "len_B": len_B.copy()}


def _python(package: str, folder: Path) -> Path:
    """Return the interpreter with the package, creating its environment if necessary."""
    if package == "asr":
        return Path(sys.executable)
    python = folder.absolute() / package / "bin" / "python"
    if not (folder / package / "complete").exists():
        versions = [f"{name}=={torch.__version__.partition('+')[0]}" for name in ("torch", "torchaudio")]
        commands = [
            ["venv", "--quiet", "--clear", "--python", sys.executable, str(folder / package)],
            ["pip", "install", "--quiet", "--python", str(python), *versions, PEERS[package]],
        ]
        for command in commands:
            if subprocess.run([sys.executable, "-m", "uv", *command]).returncode:
                raise AsrError(f"{package}: its environment could not be created; is uv installed (pip install uv)?")
        (folder / package / "complete").touch()
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
    rate = _matrix_rate(torch.bfloat16 if precision == "bf16" else torch.float32, threads)
    table = Table(title=f"{precision}, {threads} threads", title_justify="left", title_style="")
    columns = ("", "seconds a step", "least", "most", "audio-s/s", "ours is faster", "M weights", "TFLOP", "of rate")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for engine, seconds in times.items():
        median = statistics.median(seconds)
        ratio = f"{median / statistics.median(times[engine.beside]):.2f} times" if engine.beside in times else ""
        table.add_row(
            f"{engine}: {engine.setup.losses}",
            *(f"{s:.2f}" for s in (median, min(seconds), max(seconds))),
            f"{audio_s / median:.0f}",
            ratio,
            f"{facts[engine]['parameters'] / 1e6:.1f}",
            f"{facts[engine]['flop'] / 1e12:.2f}",
            f"{facts[engine]['flop'] / median / rate:.0%}",
        )
    table.caption = (
        f"rate: {rate / 1e9:.0f} GFLOP/s, the best of 2048 x 2048 products with these threads and precision; medians"
    )
    return table


def _matrix_rate(dtype: torch.dtype, threads: int) -> float:
    """Return the floating-point operations per second of a large matrix product."""
    torch.set_num_threads(threads)
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(seconds)


if __name__ == "__main__":
    run_script(main)
