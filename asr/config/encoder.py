"""The options of encoders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .attention import (
    ChunkConfig,
    Clip,
    FirstPosition,
    PositionKind,
    Scaled,
    Score,
    WindowConfig,
    check_attention,
    check_reach,
)
from .base import Config, Layers, Size


class SubsamplingConfig(Config):
    """Convolutional front end that shortens the frame sequence by `factor`."""

    kind: Literal["conv1d", "conv2d", "glu"] = Field(
        "conv1d", description="glu: 1-D convolutions with gated linear units (fairseq's Speech2Text)"
    )
    factor: Literal[2, 4, 8] = 4
    channels: Size | None = Field(None, description="inner channels; default: the encoder's width")


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
