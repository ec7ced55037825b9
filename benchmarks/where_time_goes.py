"""Profile transcription, and compare it with the least time that the machine would need.

Run `python benchmarks/where_time_goes.py data/prompts-en/cuts_dev.jsonl.gz`.  It uses one thread, so that the parts add
up.  The first table shows processor time by part; the second shows the multiplications of encoder and decoder and the
bytes that search reads, and what they would take at the rates at which this machine multiplies and reads alone.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

import asr.recognizer.batch
import asr.recognizer.parallel
from asr.checkpoint import load_model_folder
from asr.config import DecoderConfig
from asr.data.cuts import load_audio, read_cuts
from asr.model.precision import fastest
from asr.model.rows import Rows
from asr.pretrained import import_model
from asr.recognizer import Recognizer
from asr.vad import load_detector
from benchmarks.script import new_table, run_script
from benchmarks.speech import join, sources

RATE = 16_000


class Profile:
    """Processor seconds of functions, excluding other timed functions that they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def watch(self, owner: Any, name: str, part: str, note: Callable[..., None] | None = None) -> None:
        """Time `owner.name` under `part`; `note` is called with its arguments."""
        function = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            if note is not None:
                note(*args)
            began = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*args, **options)
            finally:
                took = time.process_time() - began
                self.seconds[part] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        setattr(owner, name, timed)


class Work:
    """Work done: encoder frames, their keys, query-key pairs, decoded tokens, steps, bytes of keys and values."""

    def __init__(self) -> None:
        self.frames = self.attended = self.pairs = self.tokens = self.steps = self.key_bytes = 0.0

    def encoded(self, x_ND: Tensor, rows: Rows, weight_B11T: Tensor, *_: Any) -> None:
        B, T = rows.shape
        keys = weight_B11T.shape[-1]  # includes the cells of remembered silence
        self.frames += len(x_ND)
        self.attended += B * keys
        self.pairs += B * T * keys

    def stepped(self, tokens_NL: Tensor, state: Any) -> None:
        self.tokens += tokens_NL.numel()
        self.steps += 1
        self.key_bytes += sum(x.numel() * x.element_size() for pair in state.memory for x in pair)


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of English recordings.")],
    joined: Annotated[int, typer.Option(help="Clips to join into one recording, 0.5 s apart.", min=1)] = 1,
    beam: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Profile Whisper tiny.en in the fastest precision.

    Example: `python benchmarks/where_time_goes.py data/prompts-en/cuts_dev.jsonl.gz --joined 50`
    """
    torch.set_num_threads(1)
    asr.recognizer.parallel.WORKERS = 1
    clips = [load_audio(cut, RATE) for path in cuts for cut in read_cuts(path)]
    audio = {str(i): join(clips[i : i + joined], RATE) for i in range(0, len(clips), joined)}
    with tempfile.TemporaryDirectory() as folder:
        import_model("whisper-tiny.en", Path(folder) / "model")
        parts = load_model_folder(Path(folder) / "model")
    options = parts.config.decode.model_copy(update={"beam_size": beam})
    recognizer = Recognizer(parts, options, fastest(torch.device("cpu")), load_detector(RATE))
    list(recognizer.transcribe_sources(sources(audio, RATE)))
    profile, work, model = Profile(), Work(), parts.model
    profile.watch(model.front_end, "forward", "log-mel")
    profile.watch(model.encoder.subsampling, "forward", "convolutions")
    profile.watch(model.encoder.layers[0], "forward", "encoder layers", work.encoded)
    for layer in model.encoder.layers[1:]:
        profile.watch(layer, "forward", "encoder layers")
    profile.watch(model.decoder, "start", "keys and values of the encoder")
    profile.watch(model.decoder, "step", "decoder steps", work.stepped)
    profile.watch(asr.recognizer.batch, "search", "search but for the decoder")
    began = time.process_time()
    list(recognizer.transcribe_sources(sources(audio, RATE)))
    whole = time.process_time() - began
    profile.seconds["the rest: windows, speech detector, guards"] = whole - sum(profile.seconds.values())
    seconds = sum(map(len, audio.values())) / RATE
    title = f"{seconds:.0f} s of audio, beam {beam}: {whole:.2f} s of one thread, {seconds / whole:.0f} times real time"
    Console(width=110).print(_table(title, profile.seconds, whole), _floor(recognizer, work))


def _table(title: str, seconds: dict[str, float], whole: float) -> Table:
    table = new_table(title, "part", "seconds", "share")
    for part, s in sorted(seconds.items(), key=lambda row: -row[1]):
        table.add_row(part, f"{s:.2f}", f"{100 * s / whole:.0f} %")
    return table


def _floor(recognizer: Recognizer, work: Work) -> Table:
    """Return the table of the least time for products and memory reads, at the rates this machine reaches for each."""
    encoder, decoder = recognizer.config.model.encoder, recognizer.config.model.decoder
    assert isinstance(decoder, DecoderConfig)  # as Whisper's is
    dim, vocabulary = encoder.dim, recognizer.tokenizer.vocab_size
    exact = 2 * work.frames * encoder.layers * dim**2 + 4 * work.pairs * encoder.layers * dim
    rounded = 2 * work.frames * encoder.layers * (3 * dim**2 + 2 * dim * encoder.feed_forward)
    rounded += 4 * (work.attended - work.frames) * encoder.layers * dim**2
    rounded += 4 * work.attended * decoder.layers * dim**2
    weights = decoder.layers * (6 * dim**2 + 2 * dim * decoder.feed_forward) + vocabulary * dim
    read = work.steps * weights + work.key_bytes
    bf16, int8, gigabytes = _rates(dim)
    title = "what the products and the bytes would take alone"
    table = new_table(title, "floor", "work", "rate measured here", "seconds")
    for name, operations, rate in (
        ("encoder: attention and its output maps, bfloat16", exact, bf16),
        ("encoder: other maps, keys and values, 8 bits", rounded, int8),
        ("decoder, 8 bits", 2 * work.tokens * weights, int8),
    ):
        table.add_row(name, f"{operations / 1e9:.0f} G", f"{rate:.0f} G/s", f"{operations / rate / 1e9:.2f}")
    table.add_row(
        "bytes of search: weights, keys, values",
        f"{read / 1e9:.1f} GB",
        f"{gigabytes:.1f} GB/s",
        f"{read / gigabytes / 1e9:.2f}",
    )
    return table


def _rates(dim: int) -> tuple[float, float, float]:
    """Return operations in bfloat16 and in 8 bits, and bytes read from memory, in billions per second."""
    x_MK, weight_NK = torch.randn(1600, dim).bfloat16(), torch.randn(4 * dim, dim).bfloat16()
    bf16 = 2 * x_MK.numel() * 4 * dim / _fastest(lambda: F.linear(x_MK, weight_NK))
    a_MK = torch.randint(-127, 127, (1600, dim), dtype=torch.int8)
    b_KN = torch.randint(-127, 127, (4 * dim, dim), dtype=torch.int8).t()
    int8 = 2 * a_MK.numel() * 4 * dim / _fastest(lambda: torch._int_mm(a_MK, b_KN))
    long_N = torch.ones(1 << 26)
    return bf16 / 1e9, int8 / 1e9, 4 * long_N.numel() / _fastest(lambda: long_N.sum()) / 1e9


def _fastest(function: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times)


if __name__ == "__main__":
    run_script(main)
