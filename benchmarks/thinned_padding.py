"""Measure how thinning a window's silence changes the output of Whisper tiny.en, compared with remembering it.

Run `python benchmarks/thinned_padding.py data/prompts-en/cuts_dev.jsonl.gz`.  Each variant is compared with full
padding: the relative error of the speech frames after each encoder layer and after the last norm, that of the first
token's logits (with their mean subtracted), the divergence of the next token's distribution along the text decoded with
full padding, the number of texts that keep every token, and the word error rate of greedy search.
docs/thinned-padding.md explains the method.
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
from torch import Tensor, nn

from asr.checkpoint import ModelFolder
from asr.data.batch import pad_audio
from asr.data.cuts import load_audio, read_cuts, text_of
from asr.features import Features
from asr.model.encoder import Encoder
from asr.model.padding import KeepSilence, Padded
from asr.model.position import SinusoidalPosition
from asr.model.subsampling import Subsampling
from asr.pretrained import import_model, with_padding
from asr.recognizer import Recognizer
from benchmarks.script import new_table, run_script
from benchmarks.speech import english_wer

LAYERS = ("layer 1", "2", "3", "4", "norm")


class Thinned(nn.Module):
    """Padding that groups the silence after the first `keep` frames into cells, each given by its middle frame.

    own: weight of the frame's own position in its positional encoding; the other part is the mean over its cell.
    """

    def __init__(self, encoder: Encoder, keep: int, sizes: Callable[[int], list[int]], own: float = 1.0) -> None:
        super().__init__()
        assert isinstance(encoder.position, SinusoidalPosition)  # as Whisper's is
        self.table_TD = encoder.position.table_TD
        self.keep, self.sizes, self.own = keep, sizes, own

    def forward(self, subsampling: Subsampling, features: Features) -> Padded:
        x_BTD, _, _, len_B, _ = KeepSilence()(subsampling, features)
        window = x_BTD.shape[1]
        dense = min(int(len_B) + self.keep, window)  # the batch holds one clip
        size_T = torch.tensor([1] * dense + self.sizes(window - dense))
        start_T = size_T.cumsum(0) - size_T
        at_T = start_T + size_T // 2
        total_TD = torch.cat([self.table_TD.new_zeros(1, x_BTD.shape[2]), self.table_TD.double().cumsum(0)])
        mean_TD = (total_TD[start_T + size_T] - total_TD[start_T]) / size_T[:, None]
        place_TD = self.own * self.table_TD[at_T] + (1 - self.own) * mean_TD
        # The encoder adds positions as if these frames were consecutive.
        x_BTD = x_BTD[:, at_T] + (place_TD - self.table_TD[: len(at_T)]).to(x_BTD.dtype)
        return Padded(x_BTD, len_B.new_tensor([len(at_T)]), size_T.float().log()[None], len_B)


def evenly(rest: int) -> list[int]:
    """Return the sizes of cells of 8 frames; the last may be smaller."""
    return [8] * (rest // 8) + [rest % 8] * (rest % 8 > 0)


def growing(rest: int) -> list[int]:
    """Return the sizes of cells that grow by half from the speech to the window's end, up to 24 frames."""
    sizes, grown = [], 1.0
    while rest:
        grown = min(1.5 * grown, 24)
        sizes.append(min(round(grown), rest))
        rest -= sizes[-1]
    return sizes


def both_ends(rest: int) -> list[int]:
    """Return the sizes of cells that grow in the same way from both ends."""
    left: list[int] = []
    right = [1] * min(2, rest)
    rest, grown = rest - len(right), 1.0
    while rest:
        grown = min(1.5 * grown, 24)
        for side in (left, right):
            side.append(min(round(grown), rest))
            rest -= side[-1]
    return [size for size in left + right[::-1] if size]


def remembering(exact: ModelFolder, keep_s: float = 0.5) -> ModelFolder:
    """Return the model with remembered silence, of which only the first `keep_s` seconds are computed."""
    encoder = exact.config.model.encoder.model_copy(update={"keep_s": keep_s})
    model = exact.config.model.model_copy(update={"encoder": encoder})
    return with_padding(exact._replace(config=exact.config.model_copy(update={"model": model})), "recall")


def thinned(exact: ModelFolder, keep: int, sizes: Callable[[int], list[int]], own: float = 1.0) -> ModelFolder:
    """Return the model with thinned silence."""
    changed = with_padding(exact, "keep")
    changed.model.encoder.padding = Thinned(changed.model.encoder, keep, sizes, own)
    return changed


WAYS: dict[str, Callable[[ModelFolder], ModelFolder]] = {
    "all of it (the reference)": lambda exact: exact,
    "none": lambda exact: with_padding(exact, "mask"),
    "0.5 s, then 1 in 8": lambda exact: thinned(exact, 25, evenly),
    "0.5 s, then cells growing from the speech, to 24": lambda exact: thinned(exact, 25, growing),
    "0.5 s, then cells growing from both ends, to 24": lambda exact: thinned(exact, 25, both_ends),
    "the same, their places in part the mean's": lambda exact: thinned(exact, 25, both_ends, 0.6),
    "0.5 s, the rest remembered (ours)": remembering,
    "0.2 s, the rest remembered": lambda exact: remembering(exact, 0.2),
    "1 s, the rest remembered": lambda exact: remembering(exact, 1.0),
}


class Pass(NamedTuple):
    """The result for a clip: speech frames (T, D) after each layer and the norm, logits (L, V), frames computed."""

    states: list[Tensor]
    logits_LV: Tensor
    frames: int


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of English recordings.")],
    clips: Annotated[int, typer.Option(help="Number of clips, spread evenly over lengths.", min=1)] = 100,
) -> None:
    """Compare ways to thin the padding.

    Example: `python benchmarks/thinned_padding.py data/prompts-en/cuts_dev.jsonl.gz --clips 50`
    """
    rows = sorted((c for path in cuts for c in read_cuts(path) if c.duration < 29), key=lambda c: c.duration)
    rows = [rows[i * len(rows) // clips] for i in range(clips)] if len(rows) > clips else rows
    audio, texts = [load_audio(cut, 16_000) for cut in rows], [text_of(cut) for cut in rows]
    with tempfile.TemporaryDirectory() as folder:
        whole = import_model("whisper-tiny.en", Path(folder) / "model", exact=True)
    columns = ("of the silence", "computed", *LAYERS, "logits", "divergence", "same", "WER")
    table = new_table(f"Whisper tiny.en, {len(rows)} clips, float32", *columns)
    exact: list[Pass] = []
    prefixed: list[list[int]] = []
    for name, make in track(WAYS.items(), description="thinning", transient=True):
        parts = make(whole)
        found = _texts(parts, audio)
        prefixed = prefixed or [parts.tokenizer.prefix() + list(tokens) for tokens in found]
        passes = [_pass(parts, a, tokens) for a, tokens in zip(audio, prefixed, strict=True)]
        exact = exact or passes
        table.add_row(name, *_row(passes, exact), f"{_wer(parts, found, texts):.2f}")
    Console(width=160).print(table)


def _texts(parts: ModelFolder, audio: list[Tensor]) -> list[tuple[int, ...]]:
    recognizer = Recognizer(parts)
    return [recognizer.decode(*pad_audio([audio_N]))[0][0].tokens for audio_N in audio]


@torch.inference_mode()
def _pass(parts: ModelFolder, audio_N: Tensor, tokens: list[int]) -> Pass:
    states: list[Tensor] = []
    stages = [*parts.model.encoder.layers, parts.model.encoder.norm]
    hooks = [stage.register_forward_hook(lambda _, __, out: states.append(out)) for stage in stages]
    memory = parts.model.encode(audio_N[None], torch.tensor([len(audio_N)]))
    for hook in hooks:
        hook.remove()
    logits_1LV, _ = parts.model.decoder(torch.tensor([tokens]), memory)
    speech, start = int(memory.len_B[0]), len(parts.tokenizer.prefix()) - 1
    return Pass([state[:speech].clone() for state in states], logits_1LV[0, start:], len(states[0]))


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
    """Return the distance of a from b, relative to b."""
    return float((a - b).norm() / b.norm())


def _wer(parts: ModelFolder, found: list[tuple[int, ...]], texts: list[str]) -> float:
    return english_wer(texts, [parts.tokenizer.decode(list(tokens)) for tokens in found])


if __name__ == "__main__":
    run_script(main)
