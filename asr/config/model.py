"""The options that make up a model: what the `config.yaml` of a model folder holds, as frozen pydantic models."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, model_validator

from asr.errors import ConfigError
from asr.text import check_name

from .attention import ChunkConfig, Clip, PositionKind, Score, WindowConfig, check_attention, check_reach
from .base import Config, Layers, Size, by_kind
from .decode import DecodeConfig
from .features import FeaturesConfig, LogMelConfig, WhisperFeaturesConfig


def _known(normalizer: str) -> str:
    try:
        return check_name(normalizer)
    except ConfigError as e:
        raise ValueError(e) from None


# A name and never a file: model folders hold all that they need.
NormalizerName = Annotated[str, AfterValidator(_known)]


class SubsamplingConfig(Config):
    """Convolutional front end that shortens the frame sequence by `factor`."""

    kind: Literal["conv1d", "conv2d", "glu"] = Field(
        "conv1d", description="glu: 1-D convolutions with gated linear units (fairseq's Speech2Text)"
    )
    factor: Literal[2, 4, 8] = 4
    channels: Size | None = Field(None, description="inner channels; default: the encoder's width")


FirstPosition = Annotated[int, Field(ge=0, le=1024, description="position of the first vector; fairseq's is 2")]
Scaled = Annotated[bool, Field(description="vectors are multiplied by sqrt(dim) before positions are added")]


Padding = Annotated[
    Literal["mask", "keep", "recall"],
    Field(
        description="mask: padding is never attended; keep: silence that fills a window is input (Whisper); "
        "recall: it is remembered instead of computed"
    ),
]


Normalization = Annotated[
    Literal["layer", "rms", "batch", "power"],
    Field(
        description="what all norms are: of each vector (layer, rms), or of each element, over the batch in training "
        "and by running statistics after it (batch, power), which is for training in one process"
    ),
]


class EncoderConfig(Config):
    """Subsampling, positions and layers: of the Transformer, of the Conformer or bidirectional LSTMs."""

    subsampling: SubsamplingConfig = SubsamplingConfig()
    layer: Literal["transformer", "conformer", "lstm"] = Field(
        "transformer", description="lstm has no use for heads, feed_forward and positions, which it goes without"
    )
    layers: Layers = 6
    dim: Size = 256
    heads: Size = Field(4, description="of self-attention; layer=lstm has none")
    feed_forward: Size = Field(1024, description="inner width, of both in layer=conformer; layer=lstm has none")
    kernel: int = Field(15, gt=0, le=1023, description="with layer=conformer: frames that a convolution sees, odd")
    dropout: float = Field(0.1, ge=0, lt=1)
    norm: Literal["pre", "post", "none"] = Field(
        "pre", description="where norms stand; none: neither norms nor residuals, with layer=lstm"
    )
    normalization: Normalization = "layer"
    padding: Padding = "mask"
    keep_s: float = Field(0.5, ge=0, description="with padding=recall: silence after the speech that is computed")
    position: PositionKind = "sinusoidal"
    clip: Clip = 64
    longest_s: float = Field(30.0, gt=0, le=3600, description="with position=learned: audio up to here has positions")
    first_position: FirstPosition = 0
    scaled: Scaled = False
    score: Score = "dot"
    window: WindowConfig | None = Field(None, description="default: every frame attends to all others")
    chunk: ChunkConfig | None = Field(None, description="the same in chunks")

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> EncoderConfig:
        if self.dim % 2 or (self.layer != "lstm" and self.dim % self.heads):
            raise ValueError(f"dim={self.dim} must be even and a multiple of heads={self.heads}")
        return self

    @model_validator(mode="after")
    def _layer_fits(self) -> EncoderConfig:
        if self.changed("kernel") and self.layer != "conformer":
            raise ValueError(f"kernel is for layer=conformer: layer={self.layer} has no convolution")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} must be odd: a frame, and as many before as behind it")
        if self.padding == "recall" and self.layer != "transformer":
            raise ValueError(f"padding=recall is for layer=transformer: layer={self.layer} needs all frames in order")
        if self.norm == "none" and self.layer != "lstm":
            raise ValueError("norm=none is for layer=lstm")
        if self.norm == "post" and self.layer == "conformer":
            raise ValueError(
                "norm=post is not for layer=conformer, which has norms before its parts and one at its end"
            )
        return self

    @model_validator(mode="after")
    def _attention_fits(self) -> EncoderConfig:
        if self.layer == "lstm":
            if self.first_position or self.scaled or self.position not in ("none", "sinusoidal"):
                raise ValueError("position, first_position and scaled are for layers with positions: not layer=lstm")
            if self.score != "dot" or self.window or self.chunk:
                raise ValueError("score, window and chunk are for layers with attention: not layer=lstm")
            return self
        given = self.position, self.score, self.first_position
        check_attention(*given, clipped=self.changed("clip"), head=self.dim // self.heads)
        check_reach(self.position, self.padding, self.window, self.chunk)
        return self


class PointerConfig(Config):
    """A pointer by which the decoder copies from phrase lists (tree-constrained pointer generator)."""

    size: Size | None = Field(None, description="width of its queries and keys; default: the decoder's")


def _outweighed(given: dict[str, Any]) -> bool:
    """Sines and cosines are of length sqrt(dim / 2), and would drown embeddings, which begin at length 1."""
    return given.get("position") == "sinusoidal"


class TransformerDecoderConfig(Config):
    """Layers over tokens that attend to the encoder; their width is the encoder's."""

    layers: Layers = Field(3, gt=0)
    heads: Size = 4
    feed_forward: Size = 1024
    dropout: float = Field(0.1, ge=0, lt=1)
    norm: Literal["pre", "post"] = "pre"
    normalization: Normalization = "layer"
    max_length: int = Field(448, gt=1, le=65_536, description="longest target in tokens, start tokens included")
    tied_output: bool = Field(True, description="the output projection is the embedding matrix")
    position: PositionKind = "learned"
    clip: Clip = 64
    first_position: FirstPosition = 0
    scaled: Scaled = Field(default_factory=_outweighed)
    score: Score = Field("dot", description="of self-attention and of attention to the encoder")

    @model_validator(mode="after")
    def _attention_fits(self) -> TransformerDecoderConfig:
        check_attention(self.position, self.score, self.first_position, clipped=self.changed("clip"))
        return self


class DecoderConfig(TransformerDecoderConfig):
    """Autoregressive Transformer decoder: token after token, until it says the end."""

    kind: Literal["attention"] = "attention"
    pointer: PointerConfig | None = Field(None, description="copies from phrase lists; trained with data.phrases")
    alignment_heads: tuple[tuple[int, int], ...] = Field(
        (),
        description="(layer, head) pairs whose cross-attention follows time; empty: all of the upper layers",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> DecoderConfig:
        for layer, head in self.alignment_heads:
            if not (0 <= layer < self.layers and 0 <= head < self.heads):
                raise ValueError(f"alignment_heads: there is no head {head} in a layer {layer}")
        return self


class NoDecoderConfig(Config):
    """CTC alone (Graves et al. 2006)."""

    kind: Literal["none"] = "none"

    @property
    def max_length(self) -> int:
        """The longest target in tokens: the frames alone limit it."""
        return 65_536


class TransducerConfig(Config):
    """Transducer (Graves 2012): a prediction network over the tokens so far, joined with every frame."""

    kind: Literal["transducer"] = "transducer"
    predictor: Literal["lstm", "convolution"] = Field(
        "lstm", description="convolution: over the last `context` tokens, without other state (Ghodsi et al. 2020)"
    )
    layers: int = Field(1, gt=0, le=16, description="of the LSTM")
    context: int = Field(2, gt=0, le=64, description="tokens that the convolution sees")
    dim: Size = Field(256, description="width of embedding and prediction network")
    joiner: Size = Field(256, description="width in which frames and tokens are added")
    dropout: float = Field(0.1, ge=0, lt=1, description="of the prediction network")
    max_length: int = Field(448, gt=1, le=65_536, description="longest target in tokens, start tokens included")

    @model_validator(mode="after")
    def _options_have_a_use(self) -> TransducerConfig:
        name, other = ("layers", "lstm") if self.predictor == "convolution" else ("context", "convolution")
        if self.changed(name):
            raise ValueError(f"{name} is for predictor={other}")
        return self


class MaskPredictConfig(TransformerDecoderConfig):
    """Predicts the length, then all tokens at once, and the least sure ones anew (Ghazvininejad et al. 2019)."""

    kind: Literal["mask_predict"] = "mask_predict"


class MaskCTCConfig(TransformerDecoderConfig):
    """Predicts those tokens anew of which CTC is not sure (Higuchi et al. 2020)."""

    kind: Literal["mask_ctc"] = "mask_ctc"


AnyDecoderConfig = Annotated[
    Annotated[DecoderConfig, Tag("attention")]
    | Annotated[NoDecoderConfig, Tag("none")]
    | Annotated[TransducerConfig, Tag("transducer")]
    | Annotated[MaskPredictConfig, Tag("mask_predict")]
    | Annotated[MaskCTCConfig, Tag("mask_ctc")],
    by_kind("attention"),
]


NEED_CTC = ("none", "mask_ctc")


class ModelConfig(Config):
    """Encoder, decoder and optional CTC head."""

    encoder: EncoderConfig = EncoderConfig()
    decoder: AnyDecoderConfig = DecoderConfig()
    ctc: bool = Field(True, description="a CTC head on the encoder")
    activation: Literal["relu", "gelu", "silu"] = "gelu"

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

    kind: Literal["character", "unigram", "bpe", "whisper", "speech2text"] = "character"
    vocab_size: int = Field(500, gt=4, le=1_000_000, description="for unigram and bpe")
    languages: tuple[str, ...] = Field((), description="language tokens, such as [en, es]; none: no such token")


class ModelFolderConfig(Config):
    """What `config.yaml` of a model folder holds: all that is needed to turn audio into text."""

    version: Literal[1] = 1
    features: FeaturesConfig = LogMelConfig()
    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    decode: DecodeConfig = DecodeConfig()
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
