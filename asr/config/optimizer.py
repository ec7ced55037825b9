"""The options of the optimiser."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Config

Factor = Annotated[float, Field(ge=0, le=1000)]
_BETAS = 0.9, 0.98
_Beta = Annotated[float, Field(ge=0, lt=1)]


class PlateauConfig(Config):
    """When and by how much the learning rate falls with schedule=plateau."""

    metric: Literal["chosen", "loss"] = Field(
        "chosen", description="what of dev has to get better: chosen, what trainer.choose_by names, or the loss"
    )
    patience: int = Field(2, ge=0, description="validations in a row that may pass without a new best")
    factor: float = Field(
        0.5, gt=0, lt=1, description="the learning rate is multiplied by this each time that patience runs out"
    )


class OptimizerConfig(Config):
    """The optimiser and its learning-rate schedule."""

    kind: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = Field(
        "adamw", description="the optimiser, torch's of that name"
    )
    lr: float = Field(1e-3, gt=0, description="highest learning rate, which the warm-up rises to")
    parts: dict[str, Factor] = Field(
        {},
        description="factors on lr by part of the model, such as {encoder: 0.1, encoder.layers.0: 0}; 0 freezes, and "
        "the longest name counts",
    )
    betas: tuple[_Beta, _Beta] = Field(
        _BETAS, description="of adam and adamw: decay of the running means of the gradient and of its square"
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd and rmsprop; 0: none")
    nesterov: bool = Field(False, description="with kind=sgd: look ahead along the momentum (Nesterov)")
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="decay of weight matrices, not of biases and norms; adamw takes it from the weights, the others "
        "add it to the gradient",
    )
    schedule: Literal["constant", "inverse_sqrt", "cosine", "plateau"] = Field(
        "inverse_sqrt",
        description="learning rate after the warm-up: constant; inverse_sqrt, as 1 / sqrt(step), which with lr = (dim "
        "x warmup_steps) ** -0.5 is Noam's; cosine, to the last step; plateau, lower when dev gets no better",
    )
    warmup_steps: int = Field(
        1000,
        ge=0,
        description="optimiser steps in which the learning rate rises from 0 to lr; 0: none; more where the loss is "
        "not finite or jumps early on",
    )
    final_lr_share: float = Field(
        0.0, ge=0, le=1, description="with schedule=cosine and plateau: lowest learning rate, as a share of lr"
    )
    plateau: PlateauConfig = Field(PlateauConfig(), description="when the learning rate falls with schedule=plateau")
    clip_norm: float = Field(
        1.0, gt=0, description="norm of the gradient over all weights above which it is scaled down to this"
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
