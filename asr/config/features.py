"""The options of the front ends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from .base import Config, Rate, by_kind

_KIND = "which front end: log_mel, whisper or kaldi; default: log_mel"
_MELS = "number of mel bins in a frame"
SampleRate = Annotated[
    Rate,
    Field(description="samples per second to which audio is resampled; 8000 for telephone speech; Whisper uses 16000"),
]
_MOST_SAMPLES = 65_536  # of a frame: the filter bank has as many numbers, times n_mels


class LogMelConfig(Config):
    """Log-mel filter bank over frames that lie entirely inside the recording."""

    kind: Literal["log_mel"] = Field("log_mel", description=_KIND)
    sample_rate_hz: SampleRate = 16_000
    n_mels: int = Field(80, gt=0, le=512, description=_MELS)
    window_ms: float = Field(25.0, ge=1, le=1000, description="length of a frame, in milliseconds")
    hop_ms: float = Field(10.0, ge=1, le=1000, description="distance between frames, in milliseconds")
    normalization: Literal["none", "utterance", "global"] = Field(
        "utterance",
        description="utterance: each mel bin gets mean 0 and variance 1 over the frames of its utterance; global: "
        "over those of the training set; none: no normalisation",
    )

    @model_validator(mode="after")
    def _window_is_short(self) -> LogMelConfig:
        if self.sample_rate_hz * self.window_ms > 1000 * _MOST_SAMPLES:
            raise ValueError(f"window_ms={self.window_ms:g} is more than {_MOST_SAMPLES:,} samples: take a shorter one")
        return self


class WhisperFeaturesConfig(Config):
    """Whisper's log-mel features: centred frames over a window of fixed length, clamped 8 decades below the maximum."""

    kind: Literal["whisper"] = Field("whisper", description=_KIND)
    sample_rate_hz: SampleRate = 16_000
    n_mels: int = Field(80, gt=0, le=512, description=_MELS)
    window_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="seconds of audio in the model's input: shorter audio is padded with silence, longer audio is "
        "split",
    )


class KaldiFeaturesConfig(Config):
    """Kaldi's log-mel filter bank, with frames of 25 ms every 10 ms, as fairseq's Speech2Text uses it."""

    kind: Literal["kaldi"] = Field("kaldi", description=_KIND)
    sample_rate_hz: SampleRate = 16_000
    n_mels: int = Field(80, gt=3, le=512, description=_MELS)
    normalize_means: bool = Field(True, description="each mel bin gets mean 0 over the frames of its utterance")
    normalize_vars: bool = Field(True, description="each mel bin gets variance 1 over the frames of its utterance")


FeaturesConfig = Annotated[
    Annotated[LogMelConfig, Tag("log_mel")]
    | Annotated[WhisperFeaturesConfig, Tag("whisper")]
    | Annotated[KaldiFeaturesConfig, Tag("kaldi")],
    by_kind("log_mel"),
]
