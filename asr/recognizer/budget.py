"""Limits on how much is decoded at once, so that it fits into the memory of the device."""

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

FASTEST_S = {"cpu": 240.0}  # larger batches are hardly faster, see docs/long-recordings.md
SHARE = 0.5  # of the free memory that is used, as the sizes below are only estimates
TOKENS_PER_S = 4.0  # of speech
REAL = 4  # bytes of a float32
M_ARENA_MAX = -8  # glibc's malloc.h

# oneDNN, and torch in each thread, cache prepared kernels for each size of matrix product, and search has hundreds of
# sizes: half a gigabyte after the 551 English prompts.  Caches this small are as fast.  Both variables are read at the
# first product.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "32")


class Footprint(NamedTuple):
    """Bytes that decoding needs for every second of audio and, in addition, for every window."""

    second: float
    window: float


def footprint(parts: ModelFolder, options: DecodeConfig) -> Footprint:
    """Estimate the memory of decoding from the sizes of the model.

    For each frame: two copies of its state, and its keys and values in each layer of the decoder, with a second copy
    for one layer while they are computed.  For each hypothesis: the keys and values of its tokens, with room for as
    many more, copied once when hypotheses are dropped; and four copies of the probabilities of the vocabulary.  The
    silence that fills a window consists of frames, too.  A CTC model holds the probabilities of the vocabulary for each
    frame in four copies; CTC beside an attention decoder holds three in double precision; a transducer holds less.
    """
    beam_size = options.n_best if options.temperature > 0 else options.beam_size
    config, model, tokenizer = parts
    encoder, decoder = config.model.encoder, config.model.decoder
    frame_s = model.front_end.hop_s * encoder.subsampling.factor
    if isinstance(decoder, TransformerDecoderConfig):
        bytes_each = model.decoder.embedding.weight.element_size()
        key_value = 2 * decoder.layers * encoder.dim * bytes_each
        frame = (1 + 1 / decoder.layers) * key_value + 2 * encoder.dim * bytes_each
        if isinstance(decoder, MaskPredictConfig):  # each length has a copy
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
    """The size of a batch in seconds of padded audio; it shrinks when a batch turns out to be too large.

    seconds: that size, to which each window counts `extra_s` more than its length.
    """

    def __init__(self, size: Footprint, device: torch.device, batch_s: float | None = None, batches: int = 1) -> None:
        """Use `batch_s`; None: the fastest size with which `batches` batches fit into half of the free memory."""
        self.device, self.extra_s = device, size.window / size.second
        if batch_s is None:
            batch_s = min(FASTEST_S.get(device.type, math.inf), SHARE * free_bytes(device) / size.second / batches)
        self.seconds = batch_s

    def batches(self, lengths_s: Sequence[float]) -> Iterator[Sequence[int]]:
        """Group indices by length; the group with the lowest index comes first, so that early windows are done early.

        A batch has at least one window.  `seconds` is read again before each batch.
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
        """Return the results of `work` for all items, halving the batch as often as memory is too small.

        Raises AsrError if memory is too small for a single item.
        """
        try:
            return work(items)
        except (RuntimeError, MemoryError) as e:
            if not out_of_memory(e):
                raise
        # Only outside the except clause has the traceback released the tensors of the failed attempt.
        lengths_s = [length_s(item) for item in items]
        if len(items) == 1:
            hint = "take a smaller beam (--beam-size), a smaller model or bfloat16 (--dtype)"
            raise AsrError(f"{self.device}: too little memory for one window of {lengths_s[0]:.1f} s; {hint}")
        self.shrink(lengths_s)
        half = len(items) // 2
        return [x for part in (items[:half], items[half:]) for x in self.fitting(part, length_s, work)]

    def shrink(self, lengths_s: Sequence[float]) -> None:
        """Limit future batches to half the size of this one, which did not fit."""
        self.seconds = min(self.seconds, len(lengths_s) * (max(lengths_s) + self.extra_s) / 2)


def out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out; for most devices, torch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _TOO_LITTLE)


def release() -> None:
    """Return memory freed after batches to the system.

    glibc keeps freed pieces below 32 MB, into which batches of other lengths fit badly: after the 551 English prompts
    nearly 400 MB more were held than in use.  Doing this after every batch would save another 50 to 100 MB, but cost
    4 to 7 % of the speed, as the same pages are requested again.
    """
    if trim := _libc("malloc_trim"):
        trim(0)


def share_heap() -> None:
    """Let threads that start from now on share one heap.

    With a heap per thread, glibc cannot reuse in one thread what another has freed, which takes 50 to 70 MB more and is
    no faster.
    """
    if set_option := _libc("mallopt"):
        set_option(M_ARENA_MAX, 1)


@functools.cache
def _libc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def free_bytes(device: torch.device) -> float:
    """Return the free memory of a device, infinite if it is unknown."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    return min(_machine_has(), _container_leaves())


def _machine_has() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux: half of the physical memory
        known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 if known else math.inf


def _container_leaves(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """Return what the memory limit of a control group (version 2) leaves; inactive page cache counts as free."""
    try:
        most, used, kinds = ((folder / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        if most.strip() == "max":
            return math.inf
        files = next(float(line.split()[1]) for line in kinds.splitlines() if line.startswith("inactive_file "))
        return max(0.0, float(most) - float(used) + files)
    except (OSError, StopIteration):
        return math.inf
