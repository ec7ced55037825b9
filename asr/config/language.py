"""The options of language models and of the runs that train them, as frozen pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from .base import Config, Layers, Size
from .model import NormalizerName, TokenizerConfig
from .optimizer import OptimizerConfig


class LanguageModelConfig(Config):
    """A Transformer decoder without a speech encoder."""

    layers: Layers = Field(4, gt=0)
    dim: Size = 256
    heads: Size = 4
    feed_forward: Size = 1024
    dropout: float = Field(0.1, ge=0, lt=1)
    norm: Literal["pre", "post"] = "pre"

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> LanguageModelConfig:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim={self.dim} must be even and a multiple of heads={self.heads}")
        return self


class LanguageFolderConfig(Config):
    """What `config.yaml` of a language model's folder holds."""

    version: Literal[1] = 1
    kind: Literal["language_model"]
    model: LanguageModelConfig = LanguageModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    normalizer: NormalizerName = "none"


class LanguageDataConfig(Config):
    """Texts, whatever `asr score` reads; plain text a line each."""

    train: tuple[Path, ...] = Field(min_length=1)
    dev: tuple[Path, ...] = Field(min_length=1)
    batch_tokens: int = Field(4000, gt=0, description="in a batch, padding included")
    max_tokens: int = Field(448, gt=1, description="longer texts are cut up")


class LanguageTrainerConfig(Config):
    """How long, and how often dev is looked at."""

    max_steps: int = Field(gt=0)
    validate_every_steps: int = Field(500, gt=0, description="a state is kept then, too, to go on from")
    device: Literal["auto", "cpu", "cuda"] = "auto"


class LanguageExperimentConfig(Config):
    """One training run of a language model, for the tokens of a speech model."""

    out: Path = Field(description="folder of the run: states, and the model that is best on dev")
    seed: int = 0
    speech_model: Path = Field(description="folder or name of the model whose tokens and normaliser it takes")
    model: LanguageModelConfig = LanguageModelConfig()
    data: LanguageDataConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    trainer: LanguageTrainerConfig

    @model_validator(mode="after")
    def _optimizer_fits(self) -> LanguageExperimentConfig:
        if self.optimizer.parts:
            raise ValueError("optimizer.parts is for speech models; leave it out")
        if self.optimizer.schedule == "plateau":
            raise ValueError("optimizer.schedule=plateau is for speech models; take cosine or inverse_sqrt")
        return self
