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
    feed_forward: Size = Field(1024, description="inner width of the feed-forward blocks")
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of elements zeroed in training; more for little text, which is soon memorised",
    )
    norm: Literal["pre", "post"] = Field("pre", description="where norms are: before each block, or after its residual")

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> LanguageModelConfig:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim={self.dim} must be even and a multiple of heads={self.heads}")
        return self


class LanguageFolderConfig(Config):
    """The contents of `config.yaml` in a language model's folder."""

    version: Literal[1] = Field(1, description="version of the file's format")
    kind: Literal["language_model"] = Field(description="distinguishes such a folder from a speech model's")
    model: LanguageModelConfig = Field(LanguageModelConfig(), description="the network")
    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="the speech model's vocabulary")
    normalizer: NormalizerName = Field("none", description="text normaliser of the training texts")


def _listed(files: Any) -> Any:
    return [files] if isinstance(files, str | Path) else files


Files = Annotated[
    tuple[Path, ...], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=Path | tuple[Path, ...])
]


class LanguageDataConfig(Config):
    """Texts in any format that `asr score` reads; in plain text, one per line."""

    train: Files = Field(description="file of training texts, or a list of files")
    dev: Files = Field(description="file of other texts, or a list of files, by which the best model is chosen")
    batch_tokens: int = Field(
        4000, gt=0, description="tokens in a batch, including padding; lower it if memory is short"
    )
    max_tokens: int = Field(448, gt=1, description="most tokens of a text; longer texts are split")


class LanguageTrainerConfig(Config):
    """Length, validations and device of the training."""

    max_steps: int = Field(gt=0, description="optimiser steps of the run")
    validate_every_steps: int = Field(
        500,
        gt=0,
        description="optimiser steps between validations, which measure the perplexity of dev and save a state to "
        "resume from",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device to train on; auto: a GPU if torch finds one, else the CPU"
    )


class LanguageExperimentConfig(Config):
    """One training run of a language model over the tokens of a speech model."""

    out: Path = Field(description="folder of the run: states, and the model that is best on dev")
    seed: int = Field(0, description="seed of every random draw: weights, order, dropout")
    speech_model: Path = Field(
        description="folder or name of the speech model in whose beam search it will be used; its tokens and "
        "normaliser are taken"
    )
    model: LanguageModelConfig = Field(LanguageModelConfig(), description="the network")
    data: LanguageDataConfig = Field(description="texts, and how they are batched")
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
