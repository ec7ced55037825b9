"""How fast recordings become text: seconds of audio per second, variants side by side in one run.

Run `make bench`, or `python benchmarks/transcribe.py data/prompts-en/cuts_test.jsonl.gz`.  Machines are noisy, so the
variants take turns and the medians are what to look at; reading the audio counts, loading the model does not.
"""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asr.checkpoint import load_model_folder
from asr.errors import AsrError
from asr.evaluate import evaluate
from asr.pretrained import import_whisper
from asr.recognizer import Recognizer


class Variant(NamedTuple):
    """One way to decode: silence thinned by `thin`, so many beams, so many seconds of audio at once."""

    name: str
    thin: int
    beam: int
    batch_s: float


VARIANTS = [
    Variant("one by one, all silence", 1, 1, 0.0),
    Variant("one by one", 8, 1, 0.0),
    Variant("batches, all silence", 1, 1, 60.0),
    Variant("batches", 8, 1, 60.0),
    Variant("batches, beam 5", 8, 5, 60.0),
]


def main(
    cuts: Annotated[Path, typer.Argument(help="Manifest of recordings.")],
    runs: Annotated[int, typer.Option(help="How often each variant runs.", min=1)] = 5,
) -> None:
    """Time Whisper tiny.en on a manifest.

    Example: `python benchmarks/transcribe.py data/prompts-en/cuts_test.jsonl.gz --runs 3`
    """
    warnings.filterwarnings("ignore", message=".*length cap.*")
    with tempfile.TemporaryDirectory() as folder:
        decode = _decoder(cuts, Path(folder))
        for variant in VARIANTS:
            decode(variant)  # a first run warms up
        speeds: dict[str, list[float]] = {variant.name: [] for variant in VARIANTS}
        for _ in track(range(runs), description="timing", transient=True):
            for variant in VARIANTS:
                speeds[variant.name].append(decode(variant))
    table = Table(
        title=f"Whisper tiny.en, {torch.get_num_threads()} threads, float32, {runs} runs taking turns",
        title_justify="left",
        title_style="",
    )
    for column in ("", "times real time (median)", "least", "most", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    base = statistics.median(speeds[VARIANTS[0].name])
    for name, found in speeds.items():
        median = statistics.median(found)
        table.add_row(name, f"{median:.1f}", f"{min(found):.1f}", f"{max(found):.1f}", f"{median / base:.2f}")
    Console().print(table)


def _decoder(cuts: Path, folder: Path) -> Callable[[Variant], float]:
    """Give a function that decodes the cuts once and gives the speed."""
    parts = {}
    for thin in {variant.thin for variant in VARIANTS}:
        import_whisper("tiny.en", folder / str(thin), thin=thin)
        parts[thin] = load_model_folder(folder / str(thin))

    def decode(variant: Variant) -> float:
        model = parts[variant.thin]
        options = model.config.decode.model_copy(update={"beam_size": variant.beam})
        found = evaluate(Recognizer(model, options), cuts, folder, normalizer="english", batch_s=variant.batch_s)
        return found.audio_s / found.wall_s

    return decode


if __name__ == "__main__":
    try:
        typer.run(main)
    except AsrError as e:
        raise SystemExit(f"transcribe: {e}") from None
