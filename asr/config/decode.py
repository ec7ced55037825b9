"""The options of the search, and of the guards that judge what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Config


class GuardConfig(Config):
    """Guards against texts that nobody said (asr.guards); log-probabilities are means over a text's tokens."""

    enabled: bool = Field(False, description="imported models of Whisper bring them switched on")
    silence_db: float = Field(
        -70.0, le=0, description="windows without a sample above this are silence (dB full scale)"
    )
    doubt_log_prob: float = Field(-0.7, le=0, description="less probable texts are looked at more closely")
    no_speech: float = Field(0.6, ge=0, le=1, description="texts are dropped above this no-speech probability and ...")
    no_speech_log_prob: float = Field(-1.0, le=0, description="... below this log-probability")
    min_log_prob: float = Field(-2.0, le=0, description="less probable texts are dropped in any case")
    heard_share: float = Field(
        0.25, ge=0, le=1, description="texts are dropped if attention moves on at a smaller share of their tokens"
    )
    short_no_speech: float = Field(
        0.2, ge=0, le=1, description="no-speech probability above which this also holds for texts of 1 to 3 tokens"
    )
    stalled_tokens: int = Field(8, ge=2, description="a text ends where attention stands still for so many tokens")
    compression_ratio: float = Field(2.4, gt=0, description="texts that zlib makes shorter by more repeat themselves")
    loop_times: int = Field(4, ge=2, description="the same 1 to 8 tokens so often in a row are a loop")
    temperatures: tuple[Annotated[float, Field(ge=0.01)], ...] = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0), description="a text in a loop is searched for anew by sampling at these, in turn"
    )
    fallback_log_prob: float = Field(-1.0, le=0, description="less probable samples are not taken")
    wider_beam: int = Field(5, ge=1, le=1000, description="beam for improbable texts, if decode's is narrower; 1: none")
    wider_log_prob: float = Field(-0.5, le=0, description="less probable texts are searched for again with that beam")


class DecodeConfig(Config):
    """Beam search, of which greedy search is beam_size 1, or texts drawn at random (temperature above 0)."""

    beam_size: int = Field(1, ge=1, le=1000, description="hypotheses at a time; with mask_predict: lengths")
    ctc_weight: float = Field(0.0, ge=0, le=1, description="share of the CTC prefix score (joint decoding)")
    length_bonus: float = Field(0.0, description="added to the score for every token")
    length_penalty: float = Field(1.0, ge=0, description="final scores are divided by length ** length_penalty")
    max_tokens_per_s: float = Field(30.0, gt=0, description="the cap on the text's length, tied to the audio's")
    n_best: int = Field(1, ge=1, le=1000, description="texts to give; of a beam at most its width")
    temperature: float = Field(
        0.0,
        ge=0,
        description="above 0 (0.01 or more): n_best texts are drawn, the best first, log-probabilities divided by it",
    )
    top_p: float = Field(1.0, gt=0, le=1, description="drawn from the most probable tokens of this share together")
    seed: int = Field(0, description="of what is drawn, together with the audio")
    window_s: float = Field(30.0, gt=0, le=3600, description="recordings up to this length are decoded whole")
    cut_s: float = Field(30.0, gt=0, le=3600, description="longer ones are cut into parts of at most this length")
    guards: GuardConfig = GuardConfig()
    max_symbols: int = Field(5, ge=1, le=1000, description="with a transducer: the most tokens of a frame")
    iterations: int = Field(10, ge=1, le=1000, description="of a masked decoder: rounds in which tokens are predicted")
    threshold: float = Field(0.999, ge=0, le=1, description="with mask_ctc: less probable tokens are predicted anew")
    phrases: Path | None = Field(None, description="a phrase list: names and words to listen for, a line each")
    phrase_bonus: float | None = Field(
        None,
        ge=0,
        description="nats for every token along a phrase; default: 1, with a pointer, which reads the list, 0",
    )
    lm: Path | None = Field(None, description="a language model: an ARPA file of n-grams (.gz too), or a folder")
    lm_weight: float = Field(0.3, ge=0, description="what its log-probabilities count (shallow fusion); 0: off")
    lm_unit: Literal["token", "word"] = Field("token", description="what n-grams are made of")
    lm_unknown_penalty: float = Field(10.0, ge=0, description="nats off for a word that an n-gram model of words lacks")

    @model_validator(mode="after")
    def _draws_are_possible(self) -> DecodeConfig:
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError("top_p is for drawing: give a temperature above 0, or leave top_p out")
        if 0 < self.temperature < 0.01:
            raise ValueError(
                "temperature is 0, or 0.01 and more: below that nothing is drawn but the most probable token"
            )
        return self
