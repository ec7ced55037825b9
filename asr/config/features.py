"""The options of the front ends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from .base import Config, Rate, by_kind

_MOST_SAMPLES = 65_536  # of a frame: its filter bank is as large as that, times n_mels


class LogMelConfig(Config):
    """Log-mel filter bank over frames that lie wholly inside the recording."""

    kind: Literal["log_mel"] = "log_mel"
    sample_rate_hz: Rate = 16_000
    n_mels: int = Field(80, gt=0, le=512)
    window_ms: float = Field(25.0, ge=1, le=1000)
    hop_ms: float = Field(10.0, ge=1, le=1000)
    normalization: Literal["none", "utterance", "global"] = Field(
        "utterance", description="mean and variance of each utterance's own frames, or of the training set"
    )

    @model_validator(mode="after")
    def _window_is_short(self) -> LogMelConfig:
        if self.sample_rate_hz * self.window_ms > 1000 * _MOST_SAMPLES:
            raise ValueError(f"window_ms={self.window_ms:g} is more than {_MOST_SAMPLES:,} samples: take a shorter one")
        return self


class WhisperFeaturesConfig(Config):
    """Whisper's log-mel: centred frames over a window of fixed length, clamped 8 decades below the maximum."""

    kind: Literal["whisper"] = "whisper"
    sample_rate_hz: Rate = 16_000
    n_mels: int = Field(80, gt=0, le=512)
    window_s: float = Field(30.0, gt=0, le=3600)


class KaldiFeaturesConfig(Config):
    """Kaldi's log-mel filter bank of 25 ms every 10 ms, as fairseq's Speech2Text reads it."""

    kind: Literal["kaldi"] = "kaldi"
    sample_rate_hz: Rate = 16_000
    n_mels: int = Field(80, gt=3, le=512)
    normalize_means: bool = Field(True, description="every mel bin of an utterance gets mean 0")
    normalize_vars: bool = Field(True, description="every mel bin of an utterance gets variance 1")


FeaturesConfig = Annotated[
    Annotated[LogMelConfig, Tag("log_mel")]
    | Annotated[WhisperFeaturesConfig, Tag("whisper")]
    | Annotated[KaldiFeaturesConfig, Tag("kaldi")],
    by_kind("log_mel"),
]
