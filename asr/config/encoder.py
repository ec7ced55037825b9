"""The options of encoders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .attention import (
    AttentionDropout,
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
        "conv1d",
        description="conv1d: width 3 over time, all mel bins at once (Whisper); conv2d: 3 x 3 over time and bins; "
        "glu: 1-D of width 5 with gated linear units (fairseq's Speech2Text)",
    )
    factor: Literal[2, 4, 8] = Field(
        4, description="number of feature frames that become one encoder frame; with hops of 10 ms, 4 makes 40 ms"
    )
    channels: Size | None = Field(
        None, description="channels between the convolutions; default: model.encoder.dim; with conv2d, fewer are faster"
    )


Padding = Annotated[
    Literal["mask", "keep", "recall"],
    Field(
        description="mask: only the recording is attended to; keep: so is the silence that fills a window of "
        "features.kind=whisper, as in Whisper itself; recall: the model has learned what that silence looks like and "
        "need not compute it (docs/thinned-padding.md)"
    ),
]

Normalization = Annotated[
    Literal["layer", "rms", "batch", "power"],
    Field(
        description="kind of the norms: over each vector, layer (LayerNorm) or rms (RMSNorm, Zhang & Sennrich 2019); "
        "over the batch, with running statistics after training, batch (Ioffe & Szegedy 2015) or power (PowerNorm, "
        "Shen et al. 2020), for training in one process only"
    ),
]


class EncoderConfig(Config):
    """Subsampling, positions and layers: Transformer, Conformer or bidirectional LSTM."""

    subsampling: SubsamplingConfig = Field(
        SubsamplingConfig(), description="convolutions before the layers, which shorten the sequence of frames"
    )
    layer: Literal["transformer", "conformer", "lstm"] = Field(
        "transformer",
        description="kind of the layers: transformer (Vaswani et al. 2017), conformer (Gulati et al. 2020) or lstm "
        "(bidirectional), which has no heads, feed_forward or positions",
    )
    layers: Layers = Field(6, description="number of layers")
    dim: Size = Field(
        256, description="width of the vectors (d_model) in encoder and decoder: even, a multiple of the heads of both"
    )
    heads: Size = Field(4, description="heads of self-attention; layer=lstm has none")
    feed_forward: Size = Field(
        1024,
        description="inner width of the feed-forward blocks, of which a conformer layer has two and an lstm layer none",
    )
    kernel: int = Field(
        15, gt=0, le=1023, description="with layer=conformer: width of the depthwise convolution in frames, odd"
    )
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of elements zeroed in training, after the positions and within each layer; more for "
        "little data",
    )
    attention_dropout: AttentionDropout = 0.0
    norm: Literal["pre", "post", "none"] = Field(
        "pre",
        description="where norms are: pre, x + f(norm(x)) (Xiong et al. 2020); post, norm(x + f(x)) (Vaswani et al. "
        "2017), not for layer=conformer; none, with layer=lstm: neither norms nor residuals",
    )
    normalization: Normalization = "layer"
    padding: Padding = "mask"
    keep_s: float = Field(
        0.5, ge=0, description="with padding=recall: seconds of silence after the speech that are still computed"
    )
    position: PositionKind = "sinusoidal"
    clip: Clip = 64
    longest_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="with position=learned: seconds of audio for which there are positions; longer recordings are "
        "split, longer training data is rejected",
    )
    first_position: FirstPosition = 0
    scaled: Scaled = False
    score: Score = "dot"
    window: WindowConfig | None = Field(
        None,
        description="self-attention to nearby frames, such as {left: 32, right: 32}, whose cost grows with the "
        "length, not its square; default: each frame attends to all others",
    )
    chunk: ChunkConfig | None = Field(
        None, description="self-attention within chunks, such as {frames: 16, left: 1}, instead of a window"
    )

    def padded(self, padding: Padding) -> EncoderConfig:
        """Return the same encoder with another padding; keep_s is reset to its default unless padding is "recall"."""
        kept = {} if padding == "recall" else {"keep_s": type(self).model_fields["keep_s"].default}
        return self.model_copy(update={"padding": padding, **kept})

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
        if self.changed("keep_s") and self.padding != "recall":
            raise ValueError(f"keep_s is for padding=recall: padding={self.padding} remembers no silence")
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
            if self.score != "dot" or self.window or self.chunk or self.attention_dropout:
                raise ValueError(
                    "score, window, chunk and attention_dropout are for layers with attention: not layer=lstm"
                )
            return self
        given = self.position, self.score, self.first_position
        check_attention(*given, clipped=self.changed("clip"), head=self.dim // self.heads)
        check_reach(self.position, self.padding, self.window, self.chunk)
        return self
