"""Learning-rate schedules as multipliers of the highest learning rate."""

from __future__ import annotations

import math

from asr.config import OptimizerConfig, PlateauConfig


class Schedule:
    """The multiplier of `lr` at each step: a linear warm-up to 1, constant after that.

    Its attributes are plain values, which torch's LambdaLR saves in the training state.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return warm * self.after(step)

    def after(self, step: int) -> float:
        """Return the factor by which the warm-up's multiplier is multiplied."""
        return 1.0

    def validated(self, loss: float, chosen: float) -> None:
        """Take a validation into account: the dev loss, and the measure that chooses the best; lower is better."""


class InverseSquareRoot(Schedule):
    """1 at the end of the warm-up, then proportional to 1 / sqrt(step).

    With lr = (dim x warmup) ** -0.5 this is the "Noam" schedule of Vaswani et al. 2017:
    dim ** -0.5 x min(step ** -0.5, step x warmup ** -1.5).
    """

    def after(self, step: int) -> float:
        return math.sqrt(max(self.warmup, 1) / max(step + 1, self.warmup, 1))


class Cosine(Schedule):
    """Half a cosine from 1 after the warm-up to `low` at `total_steps` (Loshchilov and Hutter 2017).

    `total_steps` is not part of the training state: a run that is resumed for longer follows the curve of its new
    length.
    """

    __slots__ = ("total_steps",)  # a slot is not in __dict__, so torch does not save it

    def __init__(self, warmup: int, total_steps: int, low: float) -> None:
        super().__init__(warmup)
        self.total_steps, self.low = total_steps, low

    def after(self, step: int) -> float:
        share = min(1.0, max(0.0, (step - self.warmup) / max(1, self.total_steps - self.warmup)))
        return self.low + (1 - self.low) * 0.5 * (1 + math.cos(math.pi * share))


class Plateau(Schedule):
    """Multiplied by `factor`, down to `low`, whenever more than `patience` validations in a row bring no new best.

    A step's rate is set when the previous step ends, so a validation takes effect one step later.
    """

    def __init__(self, warmup: int, config: PlateauConfig, low: float) -> None:
        super().__init__(warmup)
        self.metric, self.patience, self.factor, self.low = config.metric, config.patience, config.factor, low
        self.share, self.best, self.waited = 1.0, math.inf, 0

    def after(self, step: int) -> float:
        return self.share

    def validated(self, loss: float, chosen: float) -> None:
        found = {"loss": loss, "chosen": chosen}[self.metric]
        if found < self.best:
            self.best, self.waited = found, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.share, self.waited = max(self.low, self.share * self.factor), 0


def build_schedule(config: OptimizerConfig, total_steps: int | None) -> Schedule:
    """Build the schedule that the configuration names; a cosine needs total_steps."""
    warmup, low = config.warmup_steps, config.final_lr_share
    if config.schedule == "cosine":
        assert total_steps is not None
        return Cosine(warmup, total_steps, low)
    if config.schedule == "plateau":
        return Plateau(warmup, config.plateau, low)
    return {"constant": Schedule, "inverse_sqrt": InverseSquareRoot}[config.schedule](warmup)
