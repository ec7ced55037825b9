"""The options of the search, and of the guards against hallucinated texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, model_validator

from .base import Config


class GuardConfig(Config):
    """Guards against hallucinations (docs/guards.md); log-probabilities are means over a text's tokens."""

    enabled: bool = Field(
        False,
        description="whether the guards are used, with attention decoders; true in models imported from Whisper",
    )
    silence_db: float = Field(
        -70.0,
        le=0,
        description="level in dB of full scale; windows without a sample above it are silent and get no text",
    )
    doubt_log_prob: float = Field(
        -0.7,
        le=0,
        description="texts of lower log-probability are doubtful, as are texts that loop or reach the length cap; "
        "only doubtful texts are examined",
    )
    no_speech: float = Field(
        0.6,
        ge=0,
        le=1,
        description="a doubtful text is dropped if the no-speech probability is above this and its own "
        "log-probability below no_speech_log_prob (Whisper's rule)",
    )
    no_speech_log_prob: float = Field(
        -1.0, le=0, description="texts of this log-probability or more pass the no_speech rule"
    )
    min_log_prob: float = Field(-2.0, le=0, description="a doubtful text of lower log-probability is always dropped")
    heard_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="a doubtful text is dropped if attention to the audio moves on at a smaller share of its tokens",
    )
    short_no_speech: float = Field(
        0.2,
        ge=0,
        le=1,
        description="a doubtful text of 1 to 3 tokens is dropped if attention moves on at none of them and the "
        "no-speech probability is above this",
    )
    stalled_tokens: int = Field(
        8, ge=2, description="a doubtful text is cut where attention stands still for this many tokens up to its end"
    )
    compression_ratio: float = Field(
        2.4,
        gt=0,
        description="a text that zlib compresses by a larger factor is doubtful and, if it ends in a loop, cut after "
        "the loop's first round",
    )
    loop_times: int = Field(
        4,
        ge=2,
        description="a text that ends in the same 1 to 8 tokens this many times in a row loops and is doubtful",
    )
    temperatures: tuple[Annotated[float, Field(ge=0.01)], ...] = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0),
        description="a text that was cut is sampled again at these temperatures in turn, until a sample needs no guard",
    )
    fallback_log_prob: float = Field(
        -1.0, le=0, description="samples of lower log-probability are not taken in place of the text"
    )
    wider_beam: int = Field(
        5, ge=1, le=1000, description="beam with which improbable texts are searched for again; 1: they are not"
    )
    wider_log_prob: float = Field(
        -0.5, le=0, description="texts of lower log-probability are searched for again with wider_beam"
    )


class DecodeConfig(Config):
    """Beam search (greedy search with beam_size 1), or sampling (temperature above 0)."""

    beam_size: int = Field(
        1,
        ge=1,
        le=1000,
        description="number of hypotheses followed at a time; 1: greedy search, and required with a temperature; with "
        "mask_predict: number of lengths tried",
    )
    ctc_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight c of the CTC prefix score in the beam of an attention decoder, score = (1 - c) decoder + "
        "c CTC (joint decoding, Watanabe et al. 2017); 0: the decoder alone",
    )
    length_bonus: float = Field(
        0.0, description="added to a text's score for each token; above 0 if texts come out too short"
    )
    length_penalty: float = Field(
        1.0,
        ge=0,
        description="finished scores are divided by length ** length_penalty; 0: not at all; 1: mean over tokens, "
        "with which length_bonus has little effect",
    )
    max_tokens_per_s: float = Field(30.0, gt=0, description="most tokens of a text per second of audio, plus 8")
    n_best: int = Field(
        1,
        ge=1,
        le=1000,
        description="texts to return for a window, best first; at most beam_size, unless they are sampled",
    )
    temperature: float = Field(
        0.0,
        ge=0,
        description="0: search; 0.01 or more: n_best texts of an attention decoder are sampled, more randomly the "
        "higher it is",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="with a temperature: sample from the fewest tokens whose probabilities add up to this (nucleus "
        "sampling, Holtzman et al. 2020)",
    )
    seed: int = Field(0, description="with a temperature: seed of the samples, which also depend on the audio")
    window_s: float = Field(
        30.0, gt=0, le=3600, description="recordings up to this many seconds are decoded whole, longer ones in parts"
    )
    cut_s: float = Field(
        30.0, gt=0, le=3600, description="longest of these parts in seconds, unless window_s is shorter"
    )
    guards: GuardConfig = Field(GuardConfig(), description="guards against hallucinations, texts that nobody said")
    max_symbols: int = Field(5, ge=1, le=1000, description="with a transducer: most tokens that one frame may yield")
    iterations: int = Field(
        10, ge=1, le=1000, description="with mask_predict and mask_ctc: rounds of predicting tokens"
    )
    threshold: float = Field(
        0.999,
        ge=0,
        le=1,
        description="with mask_ctc: tokens to which CTC gives a lower probability are predicted again",
    )
    phrases: Path | None = Field(
        None,
        description="text file of names and words to listen for, one per line, with decoders of kind attention, none "
        "or transducer",
    )
    phrase_bonus: float | None = Field(
        None,
        ge=0,
        description="added to the score for each token along a phrase, in nats; default: 1, or 0 for a decoder with a "
        "pointer, which reads the phrases itself",
    )
    lm: Path | None = Field(
        None,
        description="language model for the beam of decoders of kind attention, none or transducer: an ARPA file (also "
        ".gz) or a folder of asr lm train",
    )
    lm_weight: float = Field(
        0.3, ge=0, description="weight of the language model's log-probability (shallow fusion); 0: off"
    )
    lm_unit: Literal["token", "word"] = Field(
        "token", description="units of the n-grams in an ARPA file: this model's tokens, or words"
    )
    lm_unknown_penalty: float = Field(
        10.0, ge=0, description="with lm_unit=word: nats subtracted for a word that the language model does not know"
    )

    @model_validator(mode="after")
    def _draws_are_possible(self) -> DecodeConfig:
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError("top_p is for drawing: give a temperature above 0, or leave top_p out")
        if 0 < self.temperature < 0.01:
            raise ValueError(
                "temperature is 0, or 0.01 and more: below that nothing is drawn but the most probable token"
            )
        return self


class DecodeKeys(TypedDict, total=False):
    """The keys of DecodeConfig, which describes them, as typed keyword arguments of a function."""

    beam_size: int
    ctc_weight: float
    length_bonus: float
    length_penalty: float
    max_tokens_per_s: float
    n_best: int
    temperature: float
    top_p: float
    seed: int
    window_s: float
    cut_s: float
    guards: GuardConfig | Mapping[str, Any]
    max_symbols: int
    iterations: int
    threshold: float
    phrases: str | Path | None
    phrase_bonus: float | None
    lm: str | Path | None
    lm_weight: float
    lm_unit: Literal["token", "word"]
    lm_unknown_penalty: float
