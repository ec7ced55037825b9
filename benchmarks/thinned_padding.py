"""What thinned padding changes: Whisper tiny.en with all of a window's silence against a few frames of it.

Run `python benchmarks/thinned_padding.py data/prompts-en/cuts_dev.jsonl.gz`.  For each way to thin: frames that the
encoder sees, the relative error of the speech frames after each encoder layer, the divergence of the next token's
distribution from that with full padding (along the text that full padding gives), and the word error rate of greedy
search.  docs/thinned-padding.md explains the method.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from asr.checkpoint import ModelFolder, load_model_folder
from asr.data.batch import pad_audio
from asr.data.cuts import load_audio, read_cuts, text_of
from asr.errors import AsrError
from asr.metrics import error_rate
from asr.model.masks import KeepSilence
from asr.pretrained import import_model
from asr.recognizer import Recognizer
from asr.text import normalizer


class Evenly(KeepSilence):
    """One frame in `thin`, the first or the middle of its cell, as far as the window's end."""

    def __init__(self, keep: int, thin: int, *, middle: bool) -> None:
        super().__init__(keep, thin)
        self.middle = middle

    def _plan(self, speech: int, window: int) -> tuple[Tensor, Tensor]:
        dense = min(speech + self.keep, window)
        start = torch.arange(dense, window, self.thin)
        cells = (window - start).clamp(max=self.thin)
        at = start + (cells // 2 if self.middle else 0)
        return torch.cat([torch.arange(dense), at]), torch.cat([torch.ones(dense, dtype=torch.long), cells])


WAYS: dict[str, Callable[[], KeepSilence]] = {
    "all": lambda: KeepSilence(25, 1),
    "1 in 8, first of each cell": lambda: Evenly(25, 8, middle=False),
    "1 in 8, middle": lambda: Evenly(25, 8, middle=True),
    "1 in 32, first of each cell": lambda: Evenly(25, 32, middle=False),
    "1 in 32, middle": lambda: Evenly(25, 32, middle=True),
    "growing, up to 16": lambda: KeepSilence(25, 16),
    "growing, up to 64": lambda: KeepSilence(25, 64),
    "growing, up to 256": lambda: KeepSilence(25, 256),
    "growing, up to 64, 0.16 s kept": lambda: KeepSilence(8, 64),
    "growing, up to 64, 1 s kept": lambda: KeepSilence(50, 64),
}


class Pass(NamedTuple):
    """A clip under one way: speech frames (T, D) after each layer, next-token log-probabilities (L, V), frames."""

    layers: list[Tensor]
    log_prob_LV: Tensor
    frames: int


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of English recordings.")],
    clips: Annotated[int, typer.Option(help="So many of them, spread evenly.", min=1)] = 100,
) -> None:
    """Compare ways to thin the padding.

    Example: `python benchmarks/thinned_padding.py data/prompts-en/cuts_dev.jsonl.gz --clips 50`
    """
    rows = sorted((c for path in cuts for c in read_cuts(path) if c.duration < 29), key=lambda c: c.duration)
    rows = rows[:: max(1, len(rows) // clips)]
    audio, texts = [load_audio(cut, 16_000) for cut in rows], [text_of(cut) for cut in rows]
    with tempfile.TemporaryDirectory() as folder:
        import_model("whisper-tiny.en", Path(folder) / "model")
        parts = load_model_folder(Path(folder) / "model")
    table = Table(title=f"Whisper tiny.en, {len(rows)} clips, float32", title_justify="left", title_style="")
    layers = range(1, len(parts.model.encoder.layers) + 1)
    for column in ("kept of the silence", "frames", *(f"layer {i}" for i in layers), "divergence", "WER"):
        table.add_column(column, justify="left" if column.startswith("kept") else "right")
    exact: list[Pass] = []
    prefixed: list[list[int]] = []
    for name, make in track(WAYS.items(), description="thinning", transient=True):
        parts.model.encoder.padding = make()
        found = _texts(parts, audio)
        prefixed = prefixed or [parts.tokenizer.prefix() + list(tokens) for tokens in found]
        passes = [_pass(parts, a, tokens) for a, tokens in zip(audio, prefixed, strict=True)]
        exact = exact or passes
        table.add_row(name, *_row(passes, exact), f"{_wer(parts, found, texts):.2f}")
    Console(width=120).print(table)


def _texts(parts: ModelFolder, audio: list[Tensor]) -> list[tuple[int, ...]]:
    recognizer = Recognizer(parts)
    found: list[tuple[int, ...]] = []
    for i in range(0, len(audio), 16):  # sorted by length
        found += [hypotheses[0].tokens for hypotheses in recognizer.decode(*pad_audio(audio[i : i + 16]))]
    return found


@torch.inference_mode()
def _pass(parts: ModelFolder, audio_N: Tensor, tokens: list[int]) -> Pass:
    states: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: states.append(out[0])) for layer in parts.model.encoder.layers
    ]
    memory = parts.model.encode(audio_N[None], torch.tensor([len(audio_N)]))
    for hook in hooks:
        hook.remove()
    logits_1LV, _ = parts.model.decoder(torch.tensor([tokens]), memory)
    speech = int(memory.len_B[0])
    start = len(parts.tokenizer.prefix()) - 1
    log_prob_LV = logits_1LV[0, start:].log_softmax(-1)
    return Pass([state[:speech] for state in states], log_prob_LV, memory.states_BTD.shape[1])


def _row(passes: list[Pass], exact: list[Pass]) -> list[str]:
    pairs = list(zip(passes, exact, strict=True))
    errors = torch.tensor(
        [[float((a - b).norm() / b.norm()) for a, b in zip(x.layers, y.layers, strict=True)] for x, y in pairs]
    ).mean(0)
    gaps = [(y.log_prob_LV.exp() * (y.log_prob_LV - x.log_prob_LV)).sum(-1).mean() for x, y in pairs]
    frames = sum(x.frames for x in passes) / len(passes)
    return [f"{frames:.0f}", *(f"{error:.3f}" for error in errors.tolist()), f"{torch.stack(gaps).mean():.4f}"]


def _wer(parts: ModelFolder, found: list[tuple[int, ...]], texts: list[str]) -> float:
    normal = normalizer("english")
    pairs = [(normal(a), normal(parts.tokenizer.decode(list(b)))) for a, b in zip(texts, found, strict=True)]
    return 100 * error_rate([a for a, _ in pairs], [b for _, b in pairs]).rate


if __name__ == "__main__":
    try:
        typer.run(main)
    except AsrError as e:
        raise SystemExit(f"thinned_padding: {e}") from None
