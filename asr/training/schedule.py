"""Learning-rate schedules as multipliers of the highest rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from asr.config import OptimizerConfig


def schedule(config: OptimizerConfig, total_steps: int | None) -> Callable[[int], float]:
    """The multiplier of `lr` at each step: linear warm-up, then the schedule that the configuration names.

    total_steps is needed by the cosine, which ends there.
    """
    warmup = config.warmup_steps

    def warm(step: int) -> float:
        return min(1.0, (step + 1) / warmup) if warmup else 1.0

    def inverse_sqrt(step: int) -> float:
        return warm(step) * math.sqrt(max(warmup, 1) / max(step + 1, warmup, 1))

    def cosine(step: int) -> float:
        assert total_steps is not None
        share = min(1.0, max(0.0, (step - warmup) / max(1, total_steps - warmup)))
        low = config.final_lr_share
        return warm(step) * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share)))

    return {"inverse_sqrt": inverse_sqrt, "cosine": cosine, "constant": warm}[config.schedule]
