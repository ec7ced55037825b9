"""The options of a model, which the `config.yaml` of a model folder holds, as frozen pydantic models."""

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


# A name, never a file: model folders hold everything they need.
NormalizerName = Annotated[str, AfterValidator(_known)]


class ModelConfig(Config):
    """Encoder, decoder and optional CTC head."""

    encoder: EncoderConfig = Field(EncoderConfig(), description="the encoder, from features to vectors")
    decoder: AnyDecoderConfig = Field(DecoderConfig(), description="the decoder, from the encoder's vectors to tokens")
    ctc: bool = Field(
        True,
        description="a CTC head on the encoder, for loss.ctc_weight, decode.ctc_weight and the times of words; false "
        "goes with loss.ctc_weight=0",
    )
    activation: Literal["relu", "gelu", "silu"] = Field(
        "gelu",
        description="nonlinearity of the feed-forward blocks and of conv1d and conv2d; silu is also called swish",
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
            raise ValueError(f"decoder.kind={kind} needs a CTC head: set ctc=true")
        return self


def check_window(features: FeaturesConfig, model: ModelConfig) -> None:
    """Raise ValueError for padding=recall without windows that are padded with silence, or for too long a window."""
    if model.encoder.padding == "recall" and not isinstance(features, WhisperFeaturesConfig):
        raise ValueError("model.encoder.padding=recall is for features with a window: features.kind=whisper")
    window_s = features.window_s if isinstance(features, WhisperFeaturesConfig) else 0.0
    if model.encoder.position == "learned" and window_s > model.encoder.longest_s:
        raise ValueError(f"model.encoder.longest_s must be at least features.window_s={window_s:g}")


class TokenizerConfig(Config):
    """The units into which texts are split; they are trained on the training split alone."""

    kind: Literal["character", "unigram", "bpe", "whisper", "speech2text"] = Field(
        "character",
        description="units of text: characters, or pieces of words found by SentencePiece (unigram, bpe); whisper and "
        "speech2text come with imported models and cannot be trained",
    )
    vocab_size: int = Field(
        500,
        gt=4,
        le=1_000_000,
        description="with kind=unigram and bpe: total number of tokens, including special ones; fewer for little text",
    )
    languages: tuple[str, ...] = Field(
        (),
        description="languages of the speech that the model is given or can detect, such as [en, es], with a token "
        "for each; empty: no such tokens",
    )


class ModelFolderConfig(Config):
    """The contents of `config.yaml` in a model folder: everything that is needed to turn audio into text."""

    version: Literal[1] = Field(1, description="version of the file's format")
    features: FeaturesConfig = Field(LogMelConfig(), description="the front end: from audio to features")
    model: ModelConfig = Field(ModelConfig(), description="the network")
    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="the vocabulary, whose file is beside this one")
    decode: DecodeConfig = Field(DecodeConfig(), description="default options of the search")
    normalizer: NormalizerName = Field("none", description="text normaliser of the training texts")

    @model_validator(mode="after")
    def _silence_has_a_window(self) -> ModelFolderConfig:
        check_window(self.features, self.model)
        return self

    @property
    def longest_s(self) -> float:
        """Seconds of audio that the model accepts at once; anything beyond would be lost silently."""
        window_s = self.features.window_s if isinstance(self.features, WhisperFeaturesConfig) else math.inf
        encoder = self.model.encoder
        return min(window_s, encoder.longest_s) if encoder.position == "learned" else window_s
