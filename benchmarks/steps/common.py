"""Shared parts of the training steps that `benchmarks/train.py` and `benchmarks/gpu.py` time, and of train's workers.

A worker runs in the environment of its package, so this module needs only torch and numpy.  Shapes: B batch, T frames,
F mel bins, L tokens, S = L + 1.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

VOCABULARY = 1000
BLANK = 0
BOUNDARY = VOCABULARY - 1  # starts and ends a text
SIZE: dict[str, Any] = {"encoder_layers": 12, "decoder_layers": 6, "dim": 256, "feed_forward": 2048, "heads": 4}
DROPOUT = 0.1
SMOOTHING, CTC_SHARE = 0.1, 0.3
BINS = 80


class StepBatch(NamedTuple):
    """Features (B, T, F) and tokens (B, L), both padded with 0."""

    x_BTF: Tensor
    frames_B: Tensor
    tokens_BL: Tensor
    len_B: Tensor

    @property
    def inputs_BS(self) -> Tensor:
        """The decoder's input: the start token, then the text."""
        return torch.cat([torch.full_like(self.tokens_BL[:, :1], BOUNDARY), self.tokens_BL], 1)

    def targets_BS(self, padding: int) -> Tensor:
        """Return the decoder's targets: the text, the end token, then padding."""
        targets_BS = torch.cat([self.tokens_BL, torch.zeros_like(self.tokens_BL[:, :1])], 1)
        places_S = torch.arange(targets_BS.shape[1], device=targets_BS.device)
        targets_BS.scatter_(1, self.len_B[:, None], BOUNDARY)
        return targets_BS.masked_fill(places_S > self.len_B[:, None], padding)


def make_batch(count: int) -> StepBatch:
    """Make utterances of 6 to 10 s, longest first: noise as features, 24 to 40 random tokens."""
    random = np.random.default_rng(0)
    frames_B, len_B = (np.sort(random.integers(*span, count))[::-1] for span in ((600, 1001), (24, 41)))
    x_BTF = np.zeros((count, frames_B[0], BINS), np.float32)
    tokens_BL = np.zeros((count, len_B[0]), np.int64)
    for x_TF, frames, tokens_L, length in zip(x_BTF, frames_B, tokens_BL, len_B, strict=True):
        x_TF[:frames] = random.standard_normal((frames, BINS))
        tokens_L[:length] = random.integers(1, VOCABULARY - 1, length)
    return StepBatch(*map(torch.from_numpy, (x_BTF, frames_B.copy(), tokens_BL, len_B.copy())))


def read_batch(path: Path, rank: int, processes: int) -> StepBatch:
    """Read this process's share of the batch that the driver wrote: every P-th utterance, as they are sorted."""
    with np.load(path, allow_pickle=False) as arrays:
        batch = StepBatch(*(torch.from_numpy(arrays[name][rank::processes]) for name in StepBatch._fields))
    frames, tokens = int(batch.frames_B.max()), int(batch.len_B.max())
    return batch._replace(x_BTF=batch.x_BTF[:, :frames], tokens_BL=batch.tokens_BL[:, :tokens])


# ---- a step ---------------------------------------------------------------------------------------------------

LossOf = Callable[[StepBatch], Tensor]


def step_of(model: nn.Module, loss_of: LossOf, batch: StepBatch, *, bf16: bool) -> Callable[[], None]:
    """Return a function that takes a training step: forward, backward, clipping and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(batch.x_BTF.device.type, torch.bfloat16, enabled=bf16):
            loss = loss_of(batch)
        loss.item()  # a training reads loss and norm, for which it waits for a GPU
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a function and what it starts on the device take."""
    began = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def flop_of(step: Callable[[], None]) -> int:
    """Take a step and return its floating-point operations."""
    with FlopCounterMode(display=False, custom_mapping=_FUSED) as counter:
        step()
    return counter.get_total_flops()


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    return 2 * sdpa_flop_count(query, key, value)


# Fused attention counts like matrix products: torch counts the CPU's kernel as nothing, and scores twice in the others.
_FUSED = {
    getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}{end}"): formula
    for kernel in ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    for end, formula in (("", _attention), ("_backward", _attention_backward))
}


def matrix_rate(dtype: torch.dtype, device: torch.device, n: int) -> float:
    """Return the floating-point operations per second of n x n matrix products, the best of 20."""
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / min(seconds_of(lambda: a @ b, device) for _ in range(20))


# ---- a worker -------------------------------------------------------------------------------------------------

Build = Callable[[str, str], tuple[nn.Module, LossOf]]
CPU = torch.device("cpu")
PROFILE = -1  # asks for a profile instead of a number of steps


class _Loss(nn.Module):
    """A model whose output is its loss, as DistributedDataParallel wants it."""

    def __init__(self, model: nn.Module, loss_of: LossOf) -> None:
        super().__init__()
        self.model, self.loss_of = model, loss_of

    def forward(self, batch: StepBatch) -> Tensor:
        return self.loss_of(batch)


def serve(build: Build, package: str) -> None:
    """Build a model; for each number read from standard input, take so many steps and print their median seconds.

    build: from the variant and the precision, returns the model in training mode and a function from a batch to its
    loss; it imports its package, as some packages print when they are imported.  Command-line arguments: path of the
    batch, fp32 or bf16, number of threads, and the variant.  Started by torchrun, the processes share the batch and
    exchange gradients; the first one reads and prints.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed goes to standard error
    path, precision, threads, kind = sys.argv[1:]
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(int(threads) // processes)
    torch.manual_seed(rank)
    model, loss_of = build(kind, precision)
    lossy: nn.Module = _Loss(model, loss_of)
    if processes > 1:
        dist.init_process_group("gloo")
        lossy = DistributedDataParallel(lossy, broadcast_buffers=False)
    step = step_of(model, lossy, read_batch(Path(path), rank, processes), bf16=precision == "bf16")

    def answer(**values: Any) -> None:
        if rank == 0:
            print(json.dumps(values), file=answers, flush=True)

    flop = torch.tensor(flop_of(step))
    step()
    if processes > 1:
        dist.reduce(flop, 0)
    versions = {name: version(name) for name in (package, "torch")}
    answer(parameters=sum(p.numel() for p in model.parameters()), flop=int(flop), versions=versions)
    for count in _asked(rank, processes):
        if count == PROFILE:
            answer(operators=_operators(step))
        else:
            answer(seconds=statistics.median(seconds_of(step, CPU) for _ in range(count)))


def _operators(step: Callable[[], None]) -> list[tuple[str, float, int]]:
    """Take a step and return its operators, the longest first: name, milliseconds of its own, and calls."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    found = [(event.key, event.self_cpu_time_total / 1000, event.count) for event in profiled.key_averages()]
    return sorted(found, key=lambda operator: -operator[1])


def _asked(rank: int, processes: int) -> Iterator[int]:
    """Yield the numbers of standard input, which the first process reads for all, until it ends."""
    lines = iter(sys.stdin) if rank == 0 else None
    while True:
        asked = torch.tensor(int(next(lines, "0")) if lines else 0)
        if processes > 1:
            dist.broadcast(asked, 0)
        if not asked:
            return
        yield int(asked)
