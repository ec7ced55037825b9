"""Measure the arithmetic throughput of training steps on a GPU.

Run `python benchmarks/gpu.py`; `benchmarks/transcribe.py --device cuda` measures transcription.  Steps are those of
`benchmarks/train.py` with width 512 and 8 heads: utterances of 6 to 10 s, label smoothing and CTC, bfloat16, fused
AdamW.  A step ends when the device has finished it, and waits for it twice before, as training does: for the loss and
the norm.  CUDA graphs are not used, as the shapes in a step depend on the data: asr/model/rows.py leaves padding out.
`--device cpu --audio 32 --steps 1` only shows that the script runs.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from benchmarks.script import new_table, run_script

sys.path.insert(0, str(Path(__file__).parent / "steps"))
from common import SIZE, LossOf, StepBatch, flop_of, make_batch, matrix_rate, seconds_of, step_of
from step_asr import build

from asr.machine import find_device, processor
from asr.model.decoder import DecoderLayer
from asr.model.encoder import EncoderLayer
from asr.recognizer.budget import out_of_memory

UTTERANCE_S = 8  # on average


def main(
    audio: Annotated[str, typer.Option(help="Comma-separated batch sizes, in seconds.")] = "256,512,1024,2048",
    dim: Annotated[int, typer.Option(min=8)] = SIZE["dim"] * 2,
    heads: Annotated[int, typer.Option(min=1)] = SIZE["heads"] * 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time; the median is shown.")] = 20,
    peak: Annotated[float, typer.Option(help="The maker's TFLOP/s for dense bfloat16.")] = 989.0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the layers; `asr train` has no such option.")
    ] = False,
    device: Annotated[str, typer.Option(help="cuda, cuda:1 or cpu.")] = "cuda",
) -> None:
    """Time training steps on a GPU.

    Example: `python benchmarks/gpu.py --audio 512,1024 --compile`
    """
    where = find_device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    sizes = [float(s) for s in audio.split(",")]
    size = {**SIZE, "dim": dim, "heads": heads}
    Console(width=120).print(_table(where, sizes, size, steps, peak, compiled))


def _table(
    device: torch.device, sizes: Sequence[float], size: dict[str, int], steps: int, peak: float, compiled: bool
) -> Table:
    torch.manual_seed(0)
    model, loss_of = build("ctc", by_products=device.type == "cpu", size=size)
    model.to(device)
    if compiled:
        for module in model.modules():
            if isinstance(module, EncoderLayer | DecoderLayer):
                module.compile(dynamic=True)
    rate = matrix_rate(torch.bfloat16, device, 8192 if device.type == "cuda" else 1024)
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    how = ", compiled layers, which `asr train` has no option for" if compiled else ""
    title = f"{processor(device)}, {weights:.1f} M weights, bf16, torch {torch.__version__}{how}"
    columns = ("utterances", "seconds a step", "audio-s/s", "TFLOP", "TFLOP/s", "of products", "of peak", "GB")
    table = new_table(title, "audio s", *columns)
    for audio_s in track(sizes, description="training", console=Console(stderr=True), transient=True):
        batch = make_batch(max(1, round(audio_s / UTTERANCE_S)))
        audio_done_s = float(batch.frames_B.sum()) / 100
        batch_cells = f"{audio_done_s:.0f}", f"{len(batch.len_B)}"
        taken = _measured(model, loss_of, batch, device, steps)
        if taken is None:
            table.add_row(*batch_cells, "out of memory")
            continue
        seconds, flop, memory_gb = taken
        done = flop / seconds
        table.add_row(
            *(*batch_cells, f"{seconds:.4f}", f"{audio_done_s / seconds:.0f}"),
            *(f"{flop / 1e12:.2f}", f"{done / 1e12:.1f}", f"{done / rate:.0%}", f"{done / peak / 1e12:.0%}"),
            f"{memory_gb:.1f}",
        )
    table.caption = f"products: {rate / 1e12:.1f} TFLOP/s, the fastest of large matrices; peak: {peak:g} TFLOP/s"
    return table


def _measured(
    model: nn.Module, loss_of: LossOf, batch: StepBatch, device: torch.device, steps: int
) -> tuple[float, int, float] | None:
    """Return the median seconds of a step, its floating-point operations and GB; None if memory runs out."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()  # what the last batch left would not fit this one
        torch.cuda.reset_peak_memory_stats()
    try:
        step = step_of(model, loss_of, StepBatch(*(x.to(device) for x in batch)), bf16=True)
        step()
        flop = flop_of(step)
        seconds = statistics.median(seconds_of(step, device) for _ in range(steps))
    except RuntimeError as e:
        if not out_of_memory(e):
            raise
        model.zero_grad()
        return None
    return seconds, flop, torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0


if __name__ == "__main__":
    run_script(main)
