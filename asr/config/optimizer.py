"""The options of the optimiser."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Config

Factor = Annotated[float, Field(ge=0, le=1000)]
_BETAS = 0.9, 0.98
_Beta = Annotated[float, Field(ge=0, lt=1)]


class PlateauConfig(Config):
    """When and by how much the learning rate is lowered with schedule=plateau."""

    metric: Literal["chosen", "loss"] = Field(
        "chosen", description="what has to improve on dev: chosen, the measure of trainer.choose_by, or loss"
    )
    patience: int = Field(2, ge=0, description="number of validations in a row that may pass without a new best")
    factor: float = Field(
        0.5, gt=0, lt=1, description="factor by which the learning rate is multiplied each time that patience runs out"
    )


class OptimizerConfig(Config):
    """The optimiser and its learning-rate schedule."""

    kind: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = Field(
        "adamw", description="torch's optimiser of that name"
    )
    lr: float = Field(1e-3, gt=0, description="highest learning rate, which the warm-up ends at")
    parts: dict[str, Factor] = Field(
        {},
        description="factors on lr by part of the model, such as {encoder: 0.1, encoder.layers.0: 0}; 0 freezes; the "
        "longest matching name counts",
    )
    betas: tuple[_Beta, _Beta] = Field(
        _BETAS, description="with adam and adamw: decay rates of the running means of the gradient and of its square"
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="with sgd and rmsprop: momentum; 0: none")
    nesterov: bool = Field(False, description="with kind=sgd: Nesterov momentum")
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="decay of weight matrices, not of biases and norms; adamw applies it to the weights, the others "
        "add it to the gradient",
    )
    schedule: Literal["constant", "inverse_sqrt", "cosine", "plateau"] = Field(
        "inverse_sqrt",
        description="learning rate after the warm-up: constant; inverse_sqrt, as 1 / sqrt(step), which with lr = (dim "
        "x warmup_steps) ** -0.5 is Noam's; cosine, until the last step; plateau, lowered when dev stops improving",
    )
    warmup_steps: int = Field(
        1000,
        ge=0,
        description="optimiser steps over which the learning rate rises from 0 to lr; 0: none; more if the loss is "
        "not finite or jumps early on",
    )
    final_lr_share: float = Field(
        0.0, ge=0, le=1, description="with schedule=cosine and plateau: lowest learning rate, as a share of lr"
    )
    plateau: PlateauConfig = Field(PlateauConfig(), description="when the learning rate falls with schedule=plateau")
    clip_norm: float = Field(
        1.0, gt=0, description="largest norm of the gradient over all weights; a larger gradient is scaled down to it"
    )

    @model_validator(mode="after")
    def _options_of_the_kind(self) -> OptimizerConfig:
        if self.betas != _BETAS and self.kind not in ("adam", "adamw"):
            raise ValueError(f"betas are for kind=adam and kind=adamw: {self.kind} has none")
        if self.momentum and self.kind not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is for kind=sgd and kind=rmsprop: with {self.kind} give betas")
        if self.nesterov and not (self.kind == "sgd" and self.momentum):
            raise ValueError("nesterov=true needs kind=sgd and a momentum above 0")
        if self.plateau != PlateauConfig() and self.schedule != "plateau":
            raise ValueError(f"plateau is for schedule=plateau, not {self.schedule}")
        return self
