"""Measure the arithmetic throughput of training steps and the speed of transcription on a GPU.

Run `python benchmarks/gpu.py data/prompts-en/cuts_*.jsonl.gz`.  Training steps are those of `benchmarks/train.py` with
width 512 and 8 heads: utterances of 6 to 10 s, label smoothing and CTC, bfloat16, fused AdamW.  `--device cpu` with a
small `--audio` only shows that the script runs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.script import run_script
from benchmarks.speech import english_wer, sources, texts_of

sys.path.insert(0, str(Path(__file__).parent / "steps"))
from common import ANSWERS, BINS, SIZE, VOCABULARY, StepBatch
from step_asr import build

from asr.data.cuts import load_audio, read_cuts, text_of
from asr.errors import AsrError
from asr.loading import load_model
from asr.model.decoder import DecoderLayer
from asr.model.encoder import EncoderLayer
from asr.recognizer import Recognizer

RATE = 16_000


def main(
    cuts: Annotated[list[Path] | None, typer.Argument(help="Manifests of English recordings to transcribe.")] = None,
    audio: Annotated[str, typer.Option(help="Comma-separated batch sizes, in seconds.")] = "256,512,1024,2048",
    dim: Annotated[int, typer.Option(min=8)] = 512,
    heads: Annotated[int, typer.Option(min=1)] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time; the median is shown.")] = 20,
    peak: Annotated[float, typer.Option(help="The maker's TFLOP/s for dense bfloat16.")] = 989.0,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the layers.")] = False,
    device: Annotated[str, typer.Option()] = "cuda",
) -> None:
    """Time training steps and Whisper tiny.en on a GPU.

    Example: `python benchmarks/gpu.py --audio 512,1024 --compile`
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise AsrError("torch finds no GPU here; --device cpu --audio 32 --steps 1 shows that the script runs")
    where = torch.device(device)
    console = Console(file=ANSWERS, width=120)  # importing `common` redirects standard output
    sizes = [float(s) for s in audio.split(",")]
    console.print(_training(where, sizes, {**SIZE, "dim": dim, "heads": heads}, steps, peak, compiled))
    if cuts:
        console.print(_transcribing(device, cuts))


def _training(
    device: torch.device, sizes: Sequence[float], size: dict[str, int], steps: int, peak: float, compiled: bool
) -> Table:
    torch.manual_seed(0)
    model, loss_of = build("ctc", "fp32" if device.type == "cuda" else "bf16", size)
    model.to(device)
    if compiled:
        for module in model.modules():
            if isinstance(module, EncoderLayer | DecoderLayer):
                module.compile(dynamic=True)
    rate = _matrix_rate(device)
    weights = sum(p.numel() for p in model.parameters()) / 1e6
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    table = Table(title=f"{name}, {weights:.1f} M weights, bf16, torch {torch.__version__}", title_justify="left")
    columns = (
        "audio s",
        "utterances",
        "seconds a step",
        "audio-s/s",
        "TFLOP",
        "TFLOP/s",
        "of products",
        "of peak",
        "GB",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for audio_s in track(sizes, description="training", console=Console(stderr=True), transient=True):
        batch = _batch(audio_s, device)
        seconds, flop = _steps(model, loss_of, batch, steps)
        memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
        done = flop / seconds
        audio_done_s = float(batch.frames_B.sum()) / 100
        table.add_row(
            *(f"{audio_done_s:.0f}", f"{len(batch.len_B)}", f"{seconds:.4f}", f"{audio_done_s / seconds:.0f}"),
            *(f"{flop / 1e12:.2f}", f"{done / 1e12:.1f}", f"{done / rate:.0%}", f"{done / peak / 1e12:.0%}"),
            f"{memory:.1f}",
        )
    table.caption = f"products: {rate / 1e12:.1f} TFLOP/s, the fastest of large matrices; peak: {peak:g} TFLOP/s"
    return table


def _batch(audio_s: float, device: torch.device) -> StepBatch:
    """Make a batch of about `audio_s` seconds: noise, in utterances of 6 to 10 s and 24 to 40 tokens, longest first."""
    random = torch.Generator().manual_seed(0)
    count = max(1, round(audio_s / 8))
    frames_B, len_B = (
        torch.randint(*span, (count,), generator=random).sort(descending=True).values
        for span in ((600, 1001), (24, 41))
    )
    x_BTF = torch.randn(count, int(frames_B[0]), BINS, generator=random)
    tokens_BL = torch.randint(1, VOCABULARY - 1, (count, int(len_B[0])), generator=random)
    x_BTF *= (torch.arange(x_BTF.shape[1]) < frames_B[:, None])[..., None]
    tokens_BL *= torch.arange(tokens_BL.shape[1]) < len_B[:, None]
    return StepBatch(*(x.to(device) for x in (x_BTF, frames_B, tokens_BL, len_B)))


def _steps(model: nn.Module, loss_of: Callable[[StepBatch], Tensor], batch: StepBatch, steps: int) -> tuple[float, int]:
    """Return the median time of a step in seconds, and its number of floating-point operations."""
    device = batch.x_BTF.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    return statistics.median(_seconds(step, device) for _ in range(steps)), counter.get_total_flops()


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _matrix_rate(device: torch.device) -> float:
    """Return the floating-point operations per second of a large matrix product in bfloat16."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / min(_seconds(lambda: a @ b, device) for _ in range(20))


def _transcribing(device: str, manifests: Sequence[Path]) -> Table:
    recordings = [cut for path in manifests for cut in read_cuts(path)]
    audio = {cut.id: load_audio(cut, RATE) for cut in recordings}
    audio_s = sum(map(len, audio.values())) / RATE
    table = Table(title=f"Whisper tiny.en, {len(audio)} recordings, {audio_s:.0f} s", title_justify="left")
    for column in ("beam", "seconds", "times real time", "WER"):
        table.add_column(column, justify="right")
    for beam in (1, 5):
        seconds, texts = _texts(load_model("whisper-tiny.en", device=device, beam_size=beam), audio, device)
        wer = english_wer([text_of(cut) for cut in recordings], [texts[cut.id] for cut in recordings])
        table.add_row(str(beam), f"{seconds:.2f}", f"{audio_s / seconds:.0f}", f"{wer:.2f}")
    return table


def _texts(recognizer: Recognizer, audio: dict[str, Tensor], device: str) -> tuple[float, dict[str, str]]:
    """Return the seconds for all recordings, the minimum of three runs after a warm-up, and the texts by id."""
    texts: dict[str, str] = {}

    def run() -> None:
        texts.update(texts_of(recognizer.transcribe_sources(sources(audio, RATE))))

    run()
    return min(_seconds(run, torch.device(device)) for _ in range(3)), texts


if __name__ == "__main__":
    run_script(main)
