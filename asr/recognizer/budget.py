"""How much is decoded at once, so that a device's memory holds it."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from asr.checkpoint import ModelFolder
from asr.config import DecodeConfig, MaskPredictConfig, TransformerDecoderConfig
from asr.errors import AsrError
from asr.model.padding import cells

Item = TypeVar("Item")
Result = TypeVar("Result")

FASTEST_S = {"cpu": 240.0}  # more at once is hardly faster there, see docs/long-recordings.md
SHARE = 0.5  # of the free memory that is counted on: the sizes below are no more than estimates
TOKENS_PER_S = 4.0  # of speech
REAL = 4  # bytes of a float32
M_ARENA_MAX = -8  # glibc's malloc.h

# oneDNN, and torch for each thread besides, keep what was prepared for each size of product, and search has hundreds of
# sizes: half a gigabyte after the 551 English prompts.  With so few it is as fast.  Both are read at the first product.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "32")


class Footprint(NamedTuple):
    """Bytes that decoding holds for every second of audio, and for every window besides."""

    second: float
    window: float


def footprint(parts: ModelFolder, options: DecodeConfig) -> Footprint:
    """What decoding with a model takes, by its sizes.

    For each frame: its state, twice, and its keys and values in each layer of the decoder, those of one layer twice
    while they are made.  For each hypothesis: keys and values of its tokens, with room for as many again, and twice
    when hypotheses are dropped; and the probabilities of the vocabulary in four forms.  Silence that fills a window
    is frames, too.  CTC alone holds the probabilities of the vocabulary for each frame, in four forms, and beside an
    attention decoder in three of twice the precision; a transducer holds less.
    """
    beam_size = options.n_best if options.temperature > 0 else options.beam_size
    config, model, tokenizer = parts
    encoder, decoder = config.model.encoder, config.model.decoder
    frame_s = model.front_end.hop_s * encoder.subsampling.factor
    if isinstance(decoder, TransformerDecoderConfig):
        bytes_each = model.decoder.embedding.weight.element_size()
        key_value = 2 * decoder.layers * encoder.dim * bytes_each
        frame = (1 + 1 / decoder.layers) * key_value + 2 * encoder.dim * bytes_each
        if isinstance(decoder, MaskPredictConfig):  # each length has its own
            frame *= beam_size
        if options.ctc_weight > 0:
            frame += 6 * REAL * tokenizer.vocab_size
    else:
        key_value, frame = 0, 2 * encoder.dim * REAL + 4 * REAL * tokenizer.vocab_size
    silence = 0.0
    if encoder.padding != "mask":
        window = round(getattr(config.features, "window_s", 0.0) / frame_s)
        silence = window if encoder.padding == "keep" else encoder.keep_s / frame_s + len(cells(window))
    samples = 3 * REAL * model.front_end.sample_rate_hz
    return Footprint(
        second=frame / frame_s + samples + 4 * key_value * beam_size * TOKENS_PER_S,
        window=frame * silence + 4 * REAL * tokenizer.vocab_size * beam_size,
    )


_TOO_LITTLE = "out of memory", "allocate memory", "not enough memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED"


class Budget:
    """How many windows are decoded at once; it shrinks where that has turned out to be too many.

    seconds: of padded audio, where each window counts for `extra_s` more.
    """

    def __init__(self, size: Footprint, device: torch.device, batch_s: float | None = None, batches: int = 1) -> None:
        """`batch_s` seconds; None: as many as are fastest, so many batches together in half of the free memory."""
        self.device, self.extra_s = device, size.window / size.second
        if batch_s is None:
            batch_s = min(FASTEST_S.get(device.type, math.inf), SHARE * free_bytes(device) / size.second / batches)
        self.seconds = batch_s

    def batches(self, lengths_s: Sequence[float]) -> Iterator[Sequence[int]]:
        """Group indices by length, the group of the lowest one first, so that what came first is done first.

        One window always goes.  Looks at `seconds` before each batch.
        """
        order = sorted(range(len(lengths_s)), key=lambda i: -lengths_s[i])
        while order:
            batch = min(self._groups(order, lengths_s), key=min)
            yield batch
            taken = set(batch)
            order = [i for i in order if i not in taken]

    def _groups(self, order: Sequence[int], lengths_s: Sequence[float]) -> Iterator[Sequence[int]]:
        while order:
            count = max(1, int(self.seconds / (lengths_s[order[0]] + self.extra_s)))
            yield order[:count]
            order = order[count:]

    def fitting(
        self, items: Sequence[Item], length_s: Callable[[Item], float], work: Callable[[Sequence[Item]], list[Result]]
    ) -> list[Result]:
        """Results of windows that are worked on together; where memory is too small for that, half of them by half.

        Raises AsrError where it is too small for one.
        """
        try:
            return work(items)
        except (RuntimeError, MemoryError) as e:
            if not out_of_memory(e):
                raise
        # Only here, behind the error, has its traceback let go of what had been computed.
        lengths_s = [length_s(item) for item in items]
        if len(items) == 1:
            hint = "take a smaller --beam-size, a smaller model or --dtype bfloat16"
            raise AsrError(f"{self.device}: too little memory for one window of {lengths_s[0]:.1f} s; {hint}")
        self.shrink(lengths_s)
        half = len(items) // 2
        return [x for part in (items[:half], items[half:]) for x in self.fitting(part, length_s, work)]

    def shrink(self, lengths_s: Sequence[float]) -> None:
        """These windows at once were too many: from now on, half of that at most."""
        self.seconds = min(self.seconds, len(lengths_s) * (max(lengths_s) + self.extra_s) / 2)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device had too little memory; torch raises RuntimeError for it on most."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _TOO_LITTLE)


def release() -> None:
    """Give memory that batches have left behind back to the system.

    glibc keeps what is freed in pieces of less than 32 MB, and batches of other lengths fit between them badly: after
    the 551 English prompts nearly 400 MB more were held than in use.  After every batch it would save 50 to 100 MB
    more, and cost 4 to 7 % of the speed, to be given the same pages again.
    """
    if trim := _libc("malloc_trim"):
        trim(0)


def share_heap() -> None:
    """Let threads that start from now on share one heap.

    With a heap each, glibc cannot give what one thread has freed to another: 50 to 70 MB more, and no faster.
    """
    if set_option := _libc("mallopt"):
        set_option(M_ARENA_MAX, 1)


@functools.cache
def _libc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def free_bytes(device: torch.device) -> float:
    """The memory of a device that is free, as far as it can be known."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    return min(_machine_has(), _container_leaves())


def _machine_has() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: half of what is built in
        known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 if known else math.inf


def _container_leaves(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """What the limit of a control group (version 2) leaves; its files in memory would give way."""
    try:
        most, used, kinds = ((folder / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        if most.strip() == "max":
            return math.inf
        files = next(float(line.split()[1]) for line in kinds.splitlines() if line.startswith("inactive_file "))
        return max(0.0, float(most) - float(used) + files)
    except (OSError, StopIteration):
        return math.inf
