"""Measure the time to the first training batch, and memory, as a corpus grows.

For each size, a manifest without audio is written to a temporary folder (10 million cuts: 0.9 GB).  A child process
then does what `asr train` does before and between steps, except for reading audio and running the model: it trains the
vocabulary on the texts, builds the model and makes batches.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import track

from benchmarks.script import new_table, run_script

SIZES = (100_000, 1_000_000, 10_000_000)
BATCHES = 1000
RATE = 16_000
SOUNDS = ["ba", "cen", "di", "for", "gu", "hal", "is", "ken", "lo", "mar", "ne", "ost", "pri", "ru", "sta", "ti", "vo"]
CUT = (
    '{{"id":"cut-{i:08d}","start":0,"duration":{s},"channel":0,"supervisions":[{{"id":"cut-{i:08d}","recording_id":"r-{i:08d}",'
    '"start":0,"duration":{s},"channel":0,"text":"{text}","language":"en","speaker":"s{speaker:05d}"}}],'
    '"recording":{{"id":"r-{i:08d}","sources":[{{"type":"file","channels":[0],"source":"audio/{folder:03d}/{i:08d}.flac"}}],'
    '"sampling_rate":16000,"num_samples":{n},"duration":{s},"channel_ids":[0]}},"type":"MonoCut"}}\n'
)
CONFIG = """
out: {folder}/run
normalizer: basic
data: {{train: {folder}/cuts.jsonl.gz, dev: {folder}/dev.jsonl.gz, stream: {stream}, max_duration_s: 20}}
tokenizer: {{kind: unigram, vocab_size: 1000}}
augment: {{speeds: [0.9, 1.0, 1.1], join: 0.2}}
trainer: {{max_steps: 100000, device: cpu}}
"""


class Taken(NamedTuple):
    """Measurements for one size; processor seconds include imports, and memory is the process's peak."""

    vocabulary_s: float
    first_s: float
    batches_s: float
    processor_s: float
    utterances: int
    peak_mb: float


def main(
    sizes: Annotated[list[int] | None, typer.Argument(help="Numbers of cuts; default: 10^5, 10^6, 10^7.")] = None,
    stream: Annotated[bool, typer.Option(help="Stream cuts, or read all into memory.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Folder that the child process reads.", hidden=True)] = None,
) -> None:
    """Measure the start of training on manifests of several sizes.

    Example: `python benchmarks/sampler.py 100000`
    """
    if folder is not None:
        print(json.dumps(measured(folder)))
        return
    columns = ("cuts", "vocabulary", "first batch", f"next {BATCHES}", "processor", "cuts in them", "peak MB")
    table = new_table(f"seconds, cuts {'streamed' if stream else 'in memory'}", *columns)
    for size in sizes or SIZES:
        with tempfile.TemporaryDirectory() as made:
            write(Path(made), size, stream)
            command = [sys.executable, __file__, "--folder", made]
            taken = Taken(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout))
        table.add_row(f"{size:,}", *(f"{s:.1f}" for s in taken[:4]), f"{taken.utterances:,}", f"{taken.peak_mb:.0f}")
    Console().print(table)


def write(folder: Path, size: int, stream: bool) -> None:
    """Write a manifest of `size` cuts of 1 to 20 s with 2.5 words a second, one of four, and the experiment file."""
    draw = random.Random(0)
    words = ["".join(draw.choices(SOUNDS, k=draw.choice((1, 2, 2, 3)))) for _ in range(20_000)]
    texts = [[" ".join(draw.choices(words, k=round(2.5 * s))) for _ in range(500)] for s in range(1, 21)]
    for name, count in (("dev", 4), ("cuts", size)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", compresslevel=1, encoding="utf-8") as file:
            for i in track(range(count), description=f"writing {size:,} cuts", transient=True, disable=count < 5):
                n = int(RATE * (1 + 19 * draw.random() ** 2))
                text = draw.choice(texts[n // RATE - 1])
                file.write(CUT.format(i=i, s=n / RATE, n=n, text=text, speaker=i % 9973, folder=i // 1000 % 1000))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, stream=str(stream).lower()), encoding="utf-8")


def measured(folder: Path) -> Taken:
    """Do what training does with its cuts, and return what it took in this process."""
    from asr.config import ExperimentConfig, read_config
    from asr.training.start import data_of, starting_point

    config = read_config(ExperimentConfig, folder / "config.yaml", [])
    began = time.monotonic()
    parts = starting_point(config)
    known = time.monotonic()
    batches = iter(data_of(config, parts).stream)
    next(batches)
    first = time.monotonic()
    utterances = sum(len(batch.cuts) for batch in itertools.islice(batches, BATCHES))
    ended = time.monotonic()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Taken(known - began, first - known, ended - first, time.process_time(), utterances, peak_mb)


if __name__ == "__main__":
    run_script(main)
