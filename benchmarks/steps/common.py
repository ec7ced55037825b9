"""Shared parts of the workers of `benchmarks/train.py`, which take training steps on request.

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
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

# Packages print, some on import: standard output is reserved for the answers to the driver.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

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


def read_batch(path: Path, rank: int, processes: int) -> StepBatch:
    """Read this process's share of the batch that the driver wrote: every P-th utterance, as they are sorted."""
    with np.load(path, allow_pickle=False) as arrays:
        batch = StepBatch(*(torch.from_numpy(arrays[name][rank::processes]) for name in StepBatch._fields))
    frames, tokens = int(batch.frames_B.max()), int(batch.len_B.max())
    return batch._replace(x_BTF=batch.x_BTF[:, :frames], tokens_BL=batch.tokens_BL[:, :tokens])


Build = Callable[[str, str], tuple[nn.Module, Callable[[StepBatch], Tensor]]]


class _Loss(nn.Module):
    """A model whose output is its loss, as DistributedDataParallel wants it."""

    def __init__(self, model: nn.Module, loss_of: Callable[[StepBatch], Tensor]) -> None:
        super().__init__()
        self.model, self.loss_of = model, loss_of

    def forward(self, batch: StepBatch) -> Tensor:
        return self.loss_of(batch)


def serve(build: Build) -> None:
    """Build a model; for each number read from standard input, take so many steps and print their median seconds.

    build: returns the model in training mode and a function from a batch to its loss.  Command-line arguments: path of
    the batch, fp32 or bf16, number of threads, and the variant for `build`.  Started by torchrun, the processes share
    the batch and exchange gradients; the first one reads and prints.
    """
    path, precision, threads, kind = sys.argv[1:]
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(int(threads) // processes)
    torch.manual_seed(rank)
    model, loss_of = build(kind, precision)
    batch = read_batch(Path(path), rank, processes)
    lossy: nn.Module = _Loss(model, loss_of)
    if processes > 1:
        dist.init_process_group("gloo")
        lossy = DistributedDataParallel(lossy, broadcast_buffers=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            loss = lossy(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    with FlopCounterMode(display=False) as counter:
        first = step()
    step()
    parameters = sum(p.numel() for p in model.parameters())
    flop = torch.tensor(counter.get_total_flops())
    if processes > 1:
        dist.reduce(flop, 0)
    facts = {"parameters": parameters, "loss": first, "flop": int(flop)}
    if rank == 0:
        print(json.dumps(facts), file=ANSWERS, flush=True)
    for count in _asked(rank, processes):
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        if rank == 0:
            print(json.dumps({"seconds": statistics.median(seconds)}), file=ANSWERS, flush=True)


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
