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
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
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


def read_batch(path: Path) -> StepBatch:
    """Read the batch that the driver wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return StepBatch(*(torch.from_numpy(arrays[name]) for name in StepBatch._fields))


Build = Callable[[str, str], tuple[nn.Module, Callable[[StepBatch], Tensor]]]


def serve(build: Build) -> None:
    """Build a model; for each number read from standard input, take so many steps and print their median seconds.

    build: returns the model in training mode and a function from a batch to its loss.  Command-line arguments: path of
    the batch, fp32 or bf16, number of threads, and the variant for `build`.
    """
    path, precision, threads, kind = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    model, loss_of = build(kind, precision)
    batch = read_batch(Path(path))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    with FlopCounterMode(display=False) as counter:
        first = step()
    step()
    count = sum(p.numel() for p in model.parameters())
    facts = {"parameters": count, "loss": first, "flop": counter.get_total_flops()}
    print(json.dumps(facts), file=ANSWERS, flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"seconds": statistics.median(seconds)}), file=ANSWERS, flush=True)
