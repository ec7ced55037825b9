"""The options of language models and of the runs that train them, as frozen pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .base import Config, Layers, Size
from .model import NormalizerName, TokenizerConfig
from .optimizer import OptimizerConfig


class LanguageModelConfig(Config):
    """A Transformer decoder without a speech encoder."""

    layers: Layers = Field(4, gt=0, description="number of layers")
    dim: Size = Field(256, description="width of the vectors (d_model): even, a multiple of heads")
    heads: Size = Field(4, description="heads of self-attention")
    feed_forward: Size = Field(1024, description="inner width of the feed-forward parts")
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of elements zeroed in training; more for little text, which is soon known by heart",
    )
    norm: Literal["pre", "post"] = Field(
        "pre", description="where norms stand: before each part, or behind its residual"
    )

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> LanguageModelConfig:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim={self.dim} must be even and a multiple of heads={self.heads}")
        return self


class LanguageFolderConfig(Config):
    """What `config.yaml` of a language model's folder holds."""

    version: Literal[1] = Field(1, description="of what such a file holds")
    kind: Literal["language_model"] = Field(description="what tells such a folder from a speech model's")
    model: LanguageModelConfig = Field(LanguageModelConfig(), description="the network")
    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="the speech model's vocabulary")
    normalizer: NormalizerName = Field("none", description="the text normaliser that training texts went through")


def _listed(files: Any) -> Any:
    return [files] if isinstance(files, str | Path) else files


Files = Annotated[
    tuple[Path, ...], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=Path | tuple[Path, ...])
]


class LanguageDataConfig(Config):
    """Texts, whatever `asr score` reads; plain text a line each."""

    train: Files = Field(description="file of the texts that are trained on, or a list of files")
    dev: Files = Field(description="file of other texts, or a list of files: the best model is chosen by them")
    batch_tokens: int = Field(
        4000, gt=0, description="tokens in a batch, padding included; lower it where memory is short"
    )
    max_tokens: int = Field(448, gt=1, description="most tokens of a text; longer ones are cut up")


class LanguageTrainerConfig(Config):
    """How long, and how often dev is looked at."""

    max_steps: int = Field(gt=0, description="optimiser steps of the run")
    validate_every_steps: int = Field(
        500,
        gt=0,
        description="optimiser steps between validations, which measure the perplexity of dev and save a state to go "
        "on from",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what computes; auto: a GPU where torch finds one, else the CPU"
    )


class LanguageExperimentConfig(Config):
    """One training run of a language model, for the tokens of a speech model."""

    out: Path = Field(description="folder of the run: states, and the model that is best on dev")
    seed: int = Field(0, description="seed of every random draw: weights, order, dropout")
    speech_model: Path = Field(
        description="folder or name of the speech model in whose beam it will stand, whose tokens and normaliser it "
        "takes"
    )
    model: LanguageModelConfig = Field(LanguageModelConfig(), description="the network")
    data: LanguageDataConfig = Field(description="texts, and how they are put into batches")
    optimizer: OptimizerConfig = Field(
        OptimizerConfig(), description="optimiser and learning rate, without parts and schedule=plateau"
    )
    trainer: LanguageTrainerConfig = Field(description="length, validations, device")

    @model_validator(mode="after")
    def _optimizer_fits(self) -> LanguageExperimentConfig:
        if self.optimizer.parts:
            raise ValueError("optimizer.parts is for speech models; leave it out")
        if self.optimizer.schedule == "plateau":
            raise ValueError("optimizer.schedule=plateau is for speech models; take cosine or inverse_sqrt")
        return self
