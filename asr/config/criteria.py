"""The options of the criteria and methods of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .model import Config


class ScheduledSamplingConfig(Config):
    """The decoder is fed its own predictions (Bengio et al. 2015; Mihaylova and Martins 2019)."""

    share: float = Field(0.0, ge=0, le=1, description="of the input tokens, at its highest; 0: off")
    schedule: Literal["constant", "linear", "exponential", "inverse_sigmoid"] = Field(
        "linear", description="how the share rises from 0, but for constant"
    )
    steps: float = Field(
        1000.0,
        ge=1,
        description="linear: the whole rise; exponential: to 63 %; inverse_sigmoid: k of the paper, half at k log k",
    )
    from_step: int = Field(0, ge=0, description="the rise begins here")
    choose: Literal["best", "sample"] = Field("best", description="the most probable token, or one that is drawn")
