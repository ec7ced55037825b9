"""The options of attention: positions, scores, and how far frames attend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Config, Size

PositionKind = Annotated[
    Literal["none", "sinusoidal", "learned", "shaw", "transformer_xl", "rotary"],
    Field(
        description="how positions are encoded: none; added to the vectors (sinusoidal, Vaswani et al. 2017; "
        "learned); or as distances in self-attention: shaw (Shaw et al. 2018), transformer_xl (Dai et al. 2019), "
        "rotary (RoPE, Su et al. 2021)"
    ),
]
RELATIVE = ("shaw", "transformer_xl", "rotary")
Clip = Annotated[
    int,
    Field(
        gt=0,
        le=65_536,
        description="with position=shaw: largest distance that is told apart; larger ones count as this one",
    ),
]
Score = Annotated[
    Literal["dot", "additive"],
    Field(
        description="score of a query and a key in all attention: dot, the scaled dot product, or additive, v . "
        "tanh(q + k) (Bahdanau et al. 2015)"
    ),
]
FirstPosition = Annotated[
    int,
    Field(ge=0, le=1024, description="with position=sinusoidal: position of the first vector; 2 in models of fairseq"),
]
AttentionDropout = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="share of attention weights zeroed in training; 0.1 in recipes of ESPnet and fairseq",
    ),
]
Scaled = Annotated[bool, Field(description="multiply the vectors by sqrt(dim) before positions are added")]


def check_attention(
    position: str, score: str, first_position: int, *, clipped: bool = False, head: int | None = None
) -> None:
    """Raise ValueError for options of attention that do not fit together.

    clipped: whether `clip` differs from its default.  head: width of a head.
    """
    if clipped and position != "shaw":
        raise ValueError(f"clip is for position=shaw: position={position} has no farthest distance")
    if position in RELATIVE and score == "additive":
        raise ValueError(f"score=additive has no dot product that position={position} could change: take score=dot")
    if position != "sinusoidal" and first_position:
        raise ValueError("first_position is for position=sinusoidal")
    if position == "rotary" and head is not None and head % 2:
        raise ValueError(f"position=rotary turns pairs: heads of width {head} must be even")


class WindowConfig(Config):
    """Self-attention to nearby encoder frames, each of which lasts subsampling.factor hops of the features."""

    left: int = Field(ge=0, le=65_536, description="number of preceding frames that a frame attends to")
    right: int = Field(ge=0, le=65_536, description="number of following frames that a frame attends to")


class ChunkConfig(Config):
    """Self-attention within chunks of encoder frames (Zhang et al. 2020)."""

    frames: Size = Field(
        description="encoder frames in a chunk: each attends to all frames of its chunk; convolutions of conformer "
        "layers reach beyond it"
    )
    left: int = Field(0, ge=0, le=1024, description="number of preceding chunks that a frame attends to as well")


def check_reach(position: str, padding: str, window: WindowConfig | None, chunk: ChunkConfig | None) -> None:
    """Raise ValueError if `window` or `chunk` exclude each other or do not fit `padding` and `position`."""
    if window and chunk:
        raise ValueError("window and chunk both limit self-attention: give one of them")
    if (window or chunk) and padding != "mask":
        raise ValueError(f"padding={padding} is for attention to all frames: leave out window and chunk")
    if position in RELATIVE and padding == "recall":
        raise ValueError(f"padding=recall has no distances to the remembered silence, which position={position} needs")
