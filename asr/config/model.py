"""The options that make up a model: what the `config.yaml` of a model folder holds, as frozen pydantic models."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from asr.errors import ConfigError
from asr.text import check_name

from .attention import check_attention
from .base import Config
from .decode import DecodeConfig
from .decoder import NEED_CTC, AnyDecoderConfig, DecoderConfig, TransformerDecoderConfig
from .encoder import EncoderConfig
from .features import FeaturesConfig, LogMelConfig, WhisperFeaturesConfig


def _known(normalizer: str) -> str:
    try:
        return check_name(normalizer)
    except ConfigError as e:
        raise ValueError(e) from None


# A name and never a file: model folders hold all that they need.
NormalizerName = Annotated[str, AfterValidator(_known)]


class ModelConfig(Config):
    """Encoder, decoder and optional CTC head."""

    encoder: EncoderConfig = Field(EncoderConfig(), description="what hears: from features to vectors")
    decoder: AnyDecoderConfig = Field(DecoderConfig(), description="what writes: from the encoder's vectors to tokens")
    ctc: bool = Field(
        True,
        description="a CTC head on the encoder: for loss.ctc_weight, for decode.ctc_weight and to tell when words "
        "were said; false goes with loss.ctc_weight=0",
    )
    activation: Literal["relu", "gelu", "silu"] = Field(
        "gelu", description="nonlinearity of the feed-forward parts and of conv1d and conv2d; silu is also called swish"
    )

    @model_validator(mode="after")
    def _decoder_fits(self) -> ModelConfig:
        heads, kind = getattr(self.decoder, "heads", 1), self.decoder.kind
        if self.encoder.dim % heads:
            raise ValueError(f"encoder.dim={self.encoder.dim} must be a multiple of decoder.heads={heads}")
        if isinstance(self.decoder, TransformerDecoderConfig):
            d = self.decoder
            check_attention(d.position, d.score, d.first_position, head=self.encoder.dim // heads)
        if kind in NEED_CTC and not self.ctc:
            raise ValueError(f"decoder.kind={kind} finds its texts by a CTC head: ctc=true")
        return self


def check_window(features: FeaturesConfig, model: ModelConfig) -> None:
    """ValueError if silence is to be remembered where no window is filled up with it, or a window is too long."""
    if model.encoder.padding == "recall" and not isinstance(features, WhisperFeaturesConfig):
        raise ValueError("model.encoder.padding=recall is for features with a window: features.kind=whisper")
    window_s = features.window_s if isinstance(features, WhisperFeaturesConfig) else 0.0
    if model.encoder.position == "learned" and window_s > model.encoder.longest_s:
        raise ValueError(f"model.encoder.longest_s must be at least features.window_s={window_s:g}")


class TokenizerConfig(Config):
    """Which units the text is cut into; trained on the training split alone."""

    kind: Literal["character", "unigram", "bpe", "whisper", "speech2text"] = Field(
        "character",
        description="what a token is: a character, or a piece of a word as SentencePiece finds it (unigram, bpe); "
        "whisper and speech2text come with imported models and cannot be trained",
    )
    vocab_size: int = Field(
        500,
        gt=4,
        le=1_000_000,
        description="with kind=unigram and bpe: tokens in all, special ones included; fewer for little text",
    )
    languages: tuple[str, ...] = Field(
        (),
        description="languages of the speech that the model is told or can detect, such as [en, es], a token each; "
        "empty: no such tokens",
    )


class ModelFolderConfig(Config):
    """What `config.yaml` of a model folder holds: all that is needed to turn audio into text."""

    version: Literal[1] = Field(1, description="of what such a file holds")
    features: FeaturesConfig = Field(LogMelConfig(), description="the front end: from audio to features")
    model: ModelConfig = Field(ModelConfig(), description="the network")
    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="the vocabulary, which stands beside this file")
    decode: DecodeConfig = Field(DecodeConfig(), description="how texts are searched for, unless told otherwise")
    normalizer: NormalizerName = Field("none", description="the text normaliser that training texts went through")

    @model_validator(mode="after")
    def _silence_has_a_window(self) -> ModelFolderConfig:
        check_window(self.features, self.model)
        return self

    @property
    def longest_s(self) -> float:
        """How much audio the model hears at once; what is behind it would be lost without a word."""
        window_s = self.features.window_s if isinstance(self.features, WhisperFeaturesConfig) else math.inf
        encoder = self.model.encoder
        return min(window_s, encoder.longest_s) if encoder.position == "learned" else window_s
