"""Check that padding and batching never change a result, on real clips with a trained model in float32.

Each clip is recognised alone, in shuffled batches of 2, 8 and 32, and with 0.1, 1 and 30 s of additional padding.  The
table shows the largest difference in the encoder output and how many clips keep the same tokens; the exit status is 1
if any tokens differ.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from asr.checkpoint import load_model_folder
from asr.data.batch import pad_audio
from asr.data.cuts import load_audio, read_cuts
from asr.recognizer import Recognizer
from benchmarks.script import new_table, run_script

Result = tuple[Tensor, tuple[int, ...]]


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of recordings.")],
    model: Annotated[Path, typer.Option(help="Model folder.")],
    clips: Annotated[int, typer.Option(help="Number of clips, chosen at random.", min=1)] = 200,
) -> None:
    """Compare clips recognised alone, in batches and with more padding.

    Example: `python benchmarks/padding.py data/prompts-en/cuts_*.jsonl.gz --model exp/prompts-en/model`
    """
    recognizer = Recognizer(load_model_folder(model))
    rate = recognizer.model.front_end.sample_rate_hz
    fitting = [cut for path in cuts for cut in read_cuts(path) if cut.duration <= recognizer.options.window_s]
    chosen = random.Random(0).sample(sorted(fitting, key=lambda cut: cut.id), min(clips, len(fitting)))
    audio = [load_audio(cut, rate) for cut in chosen]
    alone = list(_results(recognizer, audio, 1, 0.0, "alone"))
    title = f"{len(audio)} clips, each against itself alone"
    table = new_table(title, "", "encoder differs at most by", "same tokens")
    worst = len(audio)
    for size, padding_s in ((2, 0.0), (8, 0.0), (32, 0.0), (1, 0.1), (1, 1.0), (1, 30.0), (8, 30.0)):
        name = f"batches of {size}" + (f", {padding_s:g} s of padding" if padding_s else "")
        found = list(_results(recognizer, audio, size, padding_s, name))
        apart = max(float((a - b).abs().max()) for (a, _), (b, _) in zip(alone, found, strict=True))
        same = sum(a == b for (_, a), (_, b) in zip(alone, found, strict=True))
        table.add_row(name, f"{apart:.1e}", f"{same} of {len(audio)}")
        worst = min(worst, same)
    Console().print(table)
    raise typer.Exit(worst < len(audio))


@torch.inference_mode()
def _results(recognizer: Recognizer, audio: list[Tensor], size: int, padding_s: float, name: str) -> Iterator[Result]:
    """Return each clip's encoder output (T, D) without padding and its best tokens, in the order of `audio`."""
    order = list(range(len(audio)))
    random.Random(size).shuffle(order)
    found: dict[int, Result] = {}
    for start in track(range(0, len(order), size), description=name, transient=True):
        rows = order[start : start + size]
        audio_BN, len_B = pad_audio([audio[row] for row in rows])
        audio_BN = F.pad(audio_BN, (0, round(padding_s * recognizer.model.front_end.sample_rate_hz)))
        memory = recognizer.model.encode(audio_BN, len_B)
        hypotheses = recognizer.decode(audio_BN, len_B)
        for i, row in enumerate(rows):
            found[row] = memory.states_BTD[i, : memory.len_B[i]], hypotheses[i][0].tokens
    return (found[row] for row in range(len(audio)))


if __name__ == "__main__":
    run_script(main)
