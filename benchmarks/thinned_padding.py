"""What thinned padding changes: Whisper tiny.en with all of a window's silence against a few frames of it.

Run `python benchmarks/thinned_padding.py data/prompts-en/cuts_dev.jsonl.gz`.  Each way to thin is held against full
padding: the relative error of the speech frames after each encoder layer and after the last norm, that of the first
token's logits (their mean subtracted), the divergence of the next token's distribution along the text that full
padding gives, how many texts keep every token, and the word error rate of greedy search.  docs/thinned-padding.md
explains the method.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from speech import english_wer
from torch import Tensor

from asr.checkpoint import ModelFolder, load_model_folder
from asr.data.batch import pad_audio
from asr.data.cuts import load_audio, read_cuts, text_of
from asr.errors import AsrError
from asr.features import Features
from asr.model.masks import KeepSilence, Memory, Subsampling
from asr.model.position import Places
from asr.pretrained import import_model
from asr.recognizer import Recognizer

LAYERS = ("layer 1", "2", "3", "4", "norm")


class Cells(KeepSilence):
    """Silence behind the first `keep` frames in cells of any sizes; the middle or the first frame stands for each."""

    def __init__(self, keep: int, sizes: Callable[[int], Iterator[int]], *, middle: bool = True) -> None:
        super().__init__(keep, 1)
        self.sizes, self.middle = sizes, middle

    def _plan(self, speech: int, window: int) -> tuple[Tensor, Tensor]:
        dense = min(speech + self.keep, window)
        cells = torch.tensor([1] * dense + list(self.sizes(window - dense)))
        return cells.cumsum(0) - cells + (cells // 2 if self.middle else 0), cells


def nothing(rest: int) -> Iterator[int]:
    """All of it dropped."""
    return iter(())


def evenly(size: int) -> Callable[[int], Iterator[int]]:
    """Cells of one size; the last may be smaller."""
    return lambda rest: iter([size] * (rest // size) + [rest % size] * (rest % size > 0))


def growing(rest: int) -> Iterator[int]:
    """Cells that grow by half as far as 64 frames, up to the window's end."""
    size = 1.0
    while rest:
        size = min(1.5 * size, 64)
        yield min(round(size), rest)
        rest -= min(round(size), rest)


class OwnPlace(KeepSilence):
    """A kept frame has the position of its own place, as if it stood for itself alone."""

    def forward(self, subsampling: Subsampling, features: Features) -> tuple[Memory, Places]:
        memory, places = super().forward(subsampling, features)
        return memory, places._replace(width_BT=torch.ones_like(places.width_BT))


WAYS: dict[str, Callable[[], KeepSilence]] = {
    "all (the reference)": lambda: KeepSilence(25, 1),
    "none": lambda: Cells(0, nothing),
    "0.5 s, 1 in 8, first of each cell": lambda: Cells(25, evenly(8), middle=False),
    "0.5 s, 1 in 8, middle": lambda: Cells(25, evenly(8)),
    "0.5 s, growing from the speech, to 64": lambda: Cells(25, growing),
    "0.5 s, growing from both ends, to 24 (ours)": lambda: KeepSilence(25, 24),
    "the same, positions of their own": lambda: OwnPlace(25, 24),
    "the same, to 64": lambda: KeepSilence(25, 64),
    "the same, to 64, positions of their own": lambda: OwnPlace(25, 64),
    "the same, to 8": lambda: KeepSilence(25, 8),
    "the same, to 24, behind 0.16 s": lambda: KeepSilence(8, 24),
    "the same, to 24, behind 1 s": lambda: KeepSilence(50, 24),
}


class Pass(NamedTuple):
    """A clip under one way: speech frames (T, D) after each layer and the norm, logits (L, V), frames in all."""

    states: list[Tensor]
    logits_LV: Tensor
    frames: int


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of English recordings.")],
    clips: Annotated[int, typer.Option(help="So many of them, spread evenly over their lengths.", min=1)] = 100,
) -> None:
    """Compare ways to thin the padding.

    Example: `python benchmarks/thinned_padding.py data/prompts-en/cuts_dev.jsonl.gz --clips 50`
    """
    rows = sorted((c for path in cuts for c in read_cuts(path) if c.duration < 29), key=lambda c: c.duration)
    rows = [rows[i * len(rows) // clips] for i in range(clips)] if len(rows) > clips else rows
    audio, texts = [load_audio(cut, 16_000) for cut in rows], [text_of(cut) for cut in rows]
    with tempfile.TemporaryDirectory() as folder:
        import_model("whisper-tiny.en", Path(folder) / "model")
        parts = load_model_folder(Path(folder) / "model")
    table = Table(title=f"Whisper tiny.en, {len(rows)} clips, float32", title_justify="left", title_style="")
    for column in ("kept of the silence", "frames", *LAYERS, "logits", "divergence", "same", "WER"):
        table.add_column(column, justify="left" if column.startswith("kept") else "right", no_wrap=True)
    exact: list[Pass] = []
    prefixed: list[list[int]] = []
    for name, make in track(WAYS.items(), description="thinning", transient=True):
        parts.model.encoder.padding = make()
        found = _texts(parts, audio)
        prefixed = prefixed or [parts.tokenizer.prefix() + list(tokens) for tokens in found]
        passes = [_pass(parts, a, tokens) for a, tokens in zip(audio, prefixed, strict=True)]
        exact = exact or passes
        table.add_row(name, *_row(passes, exact), f"{_wer(parts, found, texts):.2f}")
    Console(width=140).print(table)


def _texts(parts: ModelFolder, audio: list[Tensor]) -> list[tuple[int, ...]]:
    recognizer = Recognizer(parts)
    found: list[tuple[int, ...]] = []
    for i in range(0, len(audio), 16):  # sorted by length
        found += [hypotheses[0].tokens for hypotheses in recognizer.decode(*pad_audio(audio[i : i + 16]))]
    return found


@torch.inference_mode()
def _pass(parts: ModelFolder, audio_N: Tensor, tokens: list[int]) -> Pass:
    states: list[Tensor] = []
    stages = [*parts.model.encoder.layers, parts.model.encoder.norm]
    hooks = [stage.register_forward_hook(lambda _, __, out: states.append(out[0])) for stage in stages]
    memory = parts.model.encode(audio_N[None], torch.tensor([len(audio_N)]))
    for hook in hooks:
        hook.remove()
    logits_1LV, _ = parts.model.decoder(torch.tensor([tokens]), memory)
    speech, start = int(memory.len_B[0]), len(parts.tokenizer.prefix()) - 1
    return Pass([state[:speech].clone() for state in states], logits_1LV[0, start:], memory.states_BTD.shape[1])


def _row(passes: list[Pass], exact: list[Pass]) -> list[str]:
    pairs = list(zip(passes, exact, strict=True))
    layers = torch.tensor([[_apart(a, b) for a, b in zip(x.states, y.states, strict=True)] for x, y in pairs]).mean(0)
    logits = sum(_apart(*(p.logits_LV[0] - p.logits_LV[0].mean() for p in pair)) for pair in pairs) / len(pairs)
    logs = [(x.logits_LV.log_softmax(-1), y.logits_LV.log_softmax(-1)) for x, y in pairs]
    gaps = sum(float((y.exp() * (y - x)).sum(-1).mean()) for x, y in logs) / len(pairs)
    same = sum(bool((x.argmax(-1) == y.argmax(-1)).all()) for x, y in logs)
    frames = sum(x.frames for x in passes) / len(passes)
    return [f"{frames:.0f}", *(f"{error:.3f}" for error in layers.tolist()), f"{logits:.3f}", f"{gaps:.3f}", str(same)]


def _apart(a: Tensor, b: Tensor) -> float:
    """How far a is from b, relative to b."""
    return float((a - b).norm() / b.norm())


def _wer(parts: ModelFolder, found: list[tuple[int, ...]], texts: list[str]) -> float:
    return english_wer(texts, [parts.tokenizer.decode(list(tokens)) for tokens in found])


if __name__ == "__main__":
    try:
        typer.run(main)
    except AsrError as e:
        raise SystemExit(f"thinned_padding: {e}") from None
