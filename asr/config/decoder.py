"""The options of decoders, with a model of options for each kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from .attention import AttentionDropout, Clip, FirstPosition, PositionKind, Score, check_attention
from .base import Config, Layers, Size, by_kind
from .encoder import Normalization

_KIND = "which decoder: attention, transducer, none (CTC alone), mask_predict or mask_ctc; default: attention"
MaxLength = Annotated[
    int,
    Field(
        gt=1,
        le=65_536,
        description="longest text in tokens, including start tokens; cuts with a longer text are left out",
    ),
]


class PointerConfig(Config):
    """A pointer with which the decoder copies from phrase lists (TCPGen, Sun, Zhang & Woodland 2021)."""

    size: Size | None = Field(
        None,
        description="width of the pointer's queries and keys; default: model.encoder.dim, which is also the decoder's "
        "width",
    )


def _outweighed(given: dict[str, Any]) -> bool:
    """Scale with sinusoidal positions, whose norm sqrt(dim / 2) would drown embeddings, which start with norm 1."""
    return given.get("position") == "sinusoidal"


class TransformerDecoderConfig(Config):
    """Transformer layers over tokens that attend to the encoder; their width is the encoder's."""

    layers: Layers = Field(3, gt=0, description="number of layers")
    heads: Size = Field(4, description="heads of self-attention and of cross-attention")
    feed_forward: Size = Field(1024, description="inner width of the feed-forward blocks")
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of elements zeroed in training, after the positions and within each layer",
    )
    attention_dropout: AttentionDropout = 0.0
    norm: Literal["pre", "post"] = Field(
        "pre",
        description="where norms are: pre, x + f(norm(x)) (Xiong et al. 2020); post, norm(x + f(x)) (Vaswani et al. "
        "2017)",
    )
    normalization: Normalization = "layer"
    max_length: MaxLength = 448
    tied_output: bool = Field(True, description="whether output projection and embedding share one matrix")
    position: PositionKind = "learned"
    clip: Clip = 64
    first_position: FirstPosition = 0
    scaled: bool = Field(
        default_factory=_outweighed,
        description="multiply the vectors by sqrt(dim) before positions are added; default: true with "
        "position=sinusoidal, else false",
    )
    score: Score = "dot"

    @model_validator(mode="after")
    def _attention_fits(self) -> TransformerDecoderConfig:
        check_attention(self.position, self.score, self.first_position, clipped=self.changed("clip"))
        return self


class DecoderConfig(TransformerDecoderConfig):
    """Autoregressive Transformer decoder, which predicts one token after another until the end token."""

    kind: Literal["attention"] = Field("attention", description=_KIND)
    pointer: PointerConfig | None = Field(
        None, description="a pointer that copies from phrase lists; {}: with its defaults; trained with data.phrases"
    )
    alignment_heads: tuple[tuple[int, int], ...] = Field(
        (),
        description="cross-attention heads that align words with the audio, as [layer, head] pairs counted from 0; "
        "empty: all heads of the upper half of the layers",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> DecoderConfig:
        self.check_heads("alignment_heads", self.alignment_heads)
        return self

    def check_heads(self, key: str, heads: Iterable[tuple[int, int]]) -> None:
        """Raise ValueError, which names the key, for a (layer, head) pair that the cross-attention does not have."""
        for layer, head in heads:
            if not (0 <= layer < self.layers and 0 <= head < self.heads):
                has = f"the decoder has {self.layers} layers of {self.heads} heads, counted from 0"
                raise ValueError(f"{key}: there is no head {head} in a layer {layer}; {has}")


class NoDecoderConfig(Config):
    """No decoder, CTC alone (Graves et al. 2006)."""

    kind: Literal["none"] = Field("none", description=_KIND)

    @property
    def max_length(self) -> int:
        """The longest target in tokens, practically unlimited: CTC targets are limited by the frames."""
        return 65_536


class TransducerConfig(Config):
    """Transducer (Graves 2012): a prediction network over the previous tokens, joined with every frame."""

    kind: Literal["transducer"] = Field("transducer", description=_KIND)
    predictor: Literal["lstm", "convolution"] = Field(
        "lstm",
        description="the prediction network: lstm, which remembers all previous tokens, or convolution, which sees "
        "the last few (Ghodsi et al. 2020)",
    )
    layers: int = Field(1, gt=0, le=16, description="with predictor=lstm: number of layers")
    context: int = Field(2, gt=0, le=64, description="with predictor=convolution: number of tokens that it sees")
    dim: Size = Field(256, description="width of the embedding and of the prediction network")
    joiner: Size = Field(256, description="width of the joiner, where frames and tokens are added")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="share of elements zeroed in training, in the prediction network"
    )
    max_length: MaxLength = 448

    @model_validator(mode="after")
    def _options_have_a_use(self) -> TransducerConfig:
        name, other = ("layers", "lstm") if self.predictor == "convolution" else ("context", "convolution")
        if self.changed(name):
            raise ValueError(f"{name} is for predictor={other}")
        return self


class MaskPredictConfig(TransformerDecoderConfig):
    """Predicts the length, then all tokens at once, then the least certain ones again (Ghazvininejad et al. 2019)."""

    kind: Literal["mask_predict"] = Field("mask_predict", description=_KIND)


class MaskCTCConfig(TransformerDecoderConfig):
    """Predicts the tokens again of which CTC is not certain (Higuchi et al. 2020)."""

    kind: Literal["mask_ctc"] = Field("mask_ctc", description=_KIND)


AnyDecoderConfig = Annotated[
    Annotated[DecoderConfig, Tag("attention")]
    | Annotated[NoDecoderConfig, Tag("none")]
    | Annotated[TransducerConfig, Tag("transducer")]
    | Annotated[MaskPredictConfig, Tag("mask_predict")]
    | Annotated[MaskCTCConfig, Tag("mask_ctc")],
    by_kind("attention"),
]


NEED_CTC = ("none", "mask_ctc")
