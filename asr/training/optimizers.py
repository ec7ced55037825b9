"""Torch's optimisers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from asr.config import OptimizerConfig


def build_optimizer(config: OptimizerConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """Build the optimiser that the configuration names; each group has its own lr and weight_decay."""
    lr, betas, momentum = config.lr, config.betas, config.momentum
    makers: dict[str, Callable[[], Optimizer]] = {
        "sgd": lambda: SGD(groups, lr, momentum, nesterov=config.nesterov),
        "adagrad": lambda: Adagrad(groups, lr),
        "rmsprop": lambda: RMSprop(groups, lr, momentum=momentum),
        "adam": lambda: Adam(groups, lr, betas, fused=True),
        "adamw": lambda: AdamW(groups, lr, betas, fused=True),
    }
    return makers[config.kind]()
