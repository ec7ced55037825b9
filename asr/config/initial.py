"""The options of a training that starts from another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from .base import Config
from .decoder import PointerConfig
from .encoder import Padding

BROUGHT = ("features", "model", "tokenizer")  # the sections that a whole model brings


class AdaptConfig(Config):
    """Changes to the model that `init` brings; what is left out stays as it is there."""

    padding: Padding | None = Field(None, description="model.encoder.padding; default: as the model has it")
    keep_s: float | None = Field(None, ge=0, description="model.encoder.keep_s; default: as the model has it")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout of encoder and decoder; default: as the model has it"
    )
    attention_dropout: float | None = Field(
        None, ge=0, lt=1, description="attention_dropout of encoder and decoder; default: as the model has it"
    )
    pointer: PointerConfig | None = Field(
        None, description="a pointer to add, untrained, to a decoder that has none; {}: with its defaults"
    )

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """The given changes, separately for model.encoder and model.decoder."""
        given = {name: value for name, value in self if value is not None}
        both = {"dropout", "attention_dropout"}
        sides = {"encoder": {"padding", "keep_s", *both}, "decoder": {"pointer", *both}}
        return {side: {name: given[name] for name in given if name in known} for side, known in sides.items()}


class InitConfig(Config):
    """A model that a training starts from: all of it, or some parts with a new vocabulary.

    A part brings its settings.  Of the token weights in decoder and ctc, those of the common tokens are taken.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    from_: Path = Field(
        alias="from", description="the model: a folder, or a name that asr import knows, such as whisper-tiny.en"
    )
    parts: tuple[Literal["encoder", "decoder", "ctc"], ...] | None = Field(
        None,
        min_length=1,
        description="parts to take: encoder, which brings the features, and optionally decoder and ctc; default: the "
        "whole model with its vocabulary",
    )

    @field_validator("parts")
    @classmethod
    def _with_the_encoder(cls, parts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if parts is not None and "encoder" not in parts:
            raise ValueError("decoder and ctc only work with their own encoder: add encoder to parts")
        return parts

    @property
    def brings(self) -> dict[str, Any]:
        """The sections of an experiment that it brings, in the form of pydantic's `exclude`."""
        if self.parts is None:
            return dict.fromkeys(BROUGHT, True)
        return {"features": True, "model": {"activation", *self.parts}}
