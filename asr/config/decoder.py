"""The options of decoders, a model of options for each kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from .attention import Clip, FirstPosition, PositionKind, Scaled, Score, check_attention
from .base import Config, Layers, Size, by_kind
from .encoder import Normalization


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
