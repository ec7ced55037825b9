"""Measure time and memory of the encoder as recordings grow, with attention to all frames and to a window.

Run `python benchmarks/band.py`.  Each measurement has its own process: the encoder of conf/ablation/en.yaml (sinusoidal
positions by default, seeded random weights) encodes noise in one piece, on one thread, in float32.  Seconds are
processor time without feature extraction, the minimum over rounds; MB are the peak memory above what the process held
before encoding (Linux only).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track

from asr.config import ExperimentConfig, read_config
from asr.model.build import build_model
from benchmarks.script import new_table, run_script

CONF = Path(__file__).parents[1] / "conf" / "ablation" / "en.yaml"
LENGTHS_S = [10, 60, 300, 600]


def main(
    lengths_s: Annotated[list[int] | None, typer.Argument(help="Seconds of audio; default: 10, 60, 300, 600.")] = None,
    left: Annotated[int, typer.Option(help="Frames to the left that each frame attends to; a frame is 40 ms.")] = 32,
    right: Annotated[int, typer.Option(help="Frames to the right that it attends to.")] = 32,
    position: Annotated[str, typer.Option(help="As in model.encoder.position.")] = "sinusoidal",
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    window: Annotated[str | None, typer.Option(help="Window that the child process measures.", hidden=True)] = None,
) -> None:
    """Measure the encoder on recordings of several lengths.

    Example: `python benchmarks/band.py 10 60 --left 64 --right 64`
    """
    lengths_s = lengths_s or LENGTHS_S
    if window is not None:
        print(json.dumps(measured(lengths_s[0], position, window, rounds)))
        return
    columns = ("audio s", "frames", "full s", "full MB", "window s", "window MB", "times sooner")
    table = new_table(f"position={position}, window {left} + {right} frames", *columns)
    for length_s in track(lengths_s, console=Console(stderr=True), transient=True):
        full, near = (
            asked(length_s, position, limit, rounds) for limit in ("null", f"{{left: {left}, right: {right}}}")
        )
        cells = [f"{taken[key]:.{digits}f}" for taken in (full, near) for key, digits in (("seconds", 2), ("mb", 0))]
        table.add_row(f"{length_s}", f"{full['frames']:,}", *cells, f"{full['seconds'] / near['seconds']:.1f}")
    Console().print(table)


def asked(length_s: int, position: str, window: str, rounds: int) -> dict[str, Any]:
    """Run `measured` in a child process and return its result."""
    options = ["--position", position, "--window", window, "--rounds", str(rounds)]
    command = [sys.executable, __file__, str(length_s), *options]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout))


@torch.inference_mode()
def measured(length_s: int, position: str, window: str, rounds: int) -> dict[str, Any]:
    """Measure the encoder in this process: seconds, MB and number of frames."""
    torch.set_num_threads(1)
    chosen = [f"model.encoder.position={position}", f"model.encoder.window={window}"]
    config = read_config(ExperimentConfig, CONF, chosen)
    torch.manual_seed(0)
    model = build_model(config.features, config.model, 50).eval()
    rate = model.front_end.sample_rate_hz
    features = model.front_end(torch.randn(1, length_s * rate), torch.tensor([length_s * rate]))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, seconds = held_mb("VmRSS"), []
    for _ in range(rounds):
        began = time.process_time()
        memory = model.encoder(features)
        seconds.append(time.process_time() - began)
    return {"seconds": min(seconds), "mb": held_mb("VmHWM") - before, "frames": int(memory.len_B[0])}


def held_mb(kind: str) -> float:
    """Return this process's memory in MB: the current one for VmRSS, the peak for VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


if __name__ == "__main__":
    run_script(main)
