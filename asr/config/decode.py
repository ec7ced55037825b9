"""The options of the search, and of the guards that judge what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, model_validator

from .base import Config


class GuardConfig(Config):
    """Guards against hallucinations (docs/guards.md); a log-probability is the mean over a text's tokens."""

    enabled: bool = Field(
        False,
        description="whether the guards are at work, for attention decoders; models imported from Whisper have true",
    )
    silence_db: float = Field(
        -70.0,
        le=0,
        description="level in dB of full scale; windows without a sample above it are silence, without text",
    )
    doubt_log_prob: float = Field(
        -0.7,
        le=0,
        description="log-probability below which a text is doubtful, as is one that loops or reaches the length cap; "
        "only doubtful texts are looked at closely",
    )
    no_speech: float = Field(
        0.6,
        ge=0,
        le=1,
        description="a doubtful text is dropped if the probability that nobody speaks is above this, and its own "
        "below no_speech_log_prob (Whisper's rule)",
    )
    no_speech_log_prob: float = Field(
        -1.0, le=0, description="log-probability from which on no_speech lets a text pass"
    )
    min_log_prob: float = Field(
        -2.0, le=0, description="a doubtful text of lower log-probability is dropped whatever else speaks for it"
    )
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
        "probability that nobody speaks is above this",
    )
    stalled_tokens: int = Field(
        8, ge=2, description="a doubtful text is cut off where attention stands still for so many tokens up to its end"
    )
    compression_ratio: float = Field(
        2.4,
        gt=0,
        description="a text that zlib shortens by a larger factor is doubtful and, where it ends in a loop, cut off "
        "after the first round",
    )
    loop_times: int = Field(
        4,
        ge=2,
        description="a text that ends in the same 1 to 8 tokens so many times in a row is in a loop, and doubtful",
    )
    temperatures: tuple[Annotated[float, Field(ge=0.01)], ...] = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0),
        description="a text that was cut off is drawn anew at these temperatures, in turn, until one needs no guard",
    )
    fallback_log_prob: float = Field(
        -1.0, le=0, description="of texts drawn anew, those of lower log-probability are not taken"
    )
    wider_beam: int = Field(
        5, ge=1, le=1000, description="beam that improbable texts are searched for again with; 1: they are not"
    )
    wider_log_prob: float = Field(
        -0.5, le=0, description="log-probability below which a text is searched for again with wider_beam"
    )


class DecodeConfig(Config):
    """Beam search, of which greedy search is beam_size 1, or texts drawn at random (temperature above 0)."""

    beam_size: int = Field(
        1,
        ge=1,
        le=1000,
        description="hypotheses that are followed at a time; 1: greedy search, and with a temperature; with "
        "mask_predict: lengths that are tried",
    )
    ctc_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight c of the CTC prefix score in the beam of an attention decoder, score = (1 - c) decoder + "
        "c CTC (joint decoding, Watanabe et al. 2017); 0: the decoder alone",
    )
    length_bonus: float = Field(
        0.0, description="added to a text's score for each token; above 0 for texts that come out too short"
    )
    length_penalty: float = Field(
        1.0,
        ge=0,
        description="finished scores are divided by length ** length_penalty; 0: not at all, 1: a mean over tokens, "
        "with which length_bonus changes little",
    )
    max_tokens_per_s: float = Field(
        30.0, gt=0, description="most tokens of a text for each second of audio, beyond 8 that any may have"
    )
    n_best: int = Field(
        1,
        ge=1,
        le=1000,
        description="texts to give for a window, the best first; at most beam_size, unless they are drawn",
    )
    temperature: float = Field(
        0.0,
        ge=0,
        description="0: search; 0.01 or more: n_best texts of an attention decoder are drawn at random, the more "
        "freely the higher",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="with a temperature: draw from the fewest tokens that have this probability together (nucleus, "
        "Holtzman et al. 2020)",
    )
    seed: int = Field(0, description="with a temperature: what draws depend on, beside the audio")
    window_s: float = Field(
        30.0, gt=0, le=3600, description="recordings of up to so many seconds are decoded whole, longer ones in parts"
    )
    cut_s: float = Field(30.0, gt=0, le=3600, description="most seconds of such a part, if window_s is not less")
    guards: GuardConfig = Field(
        GuardConfig(), description="what is done against hallucinations, texts that nobody said"
    )
    max_symbols: int = Field(5, ge=1, le=1000, description="with a transducer: most tokens that one frame may give")
    iterations: int = Field(
        10, ge=1, le=1000, description="with mask_predict and mask_ctc: rounds in which tokens are predicted"
    )
    threshold: float = Field(
        0.999, ge=0, le=1, description="with mask_ctc: tokens that CTC gives a lower probability are predicted anew"
    )
    phrases: Path | None = Field(
        None, description="text file of names and words to listen for, a line each, with an attention decoder"
    )
    phrase_bonus: float | None = Field(
        None,
        ge=0,
        description="added to the score for each token along a phrase, in nats; default: 1, and 0 for a decoder with "
        "a pointer, which reads the phrases itself",
    )
    lm: Path | None = Field(
        None,
        description="language model for an attention decoder's beam: an ARPA file (.gz too) or asr lm train's folder",
    )
    lm_weight: float = Field(
        0.3, ge=0, description="weight of the language model's log-probability (shallow fusion); 0: off"
    )
    lm_unit: Literal["token", "word"] = Field(
        "token", description="what the n-grams of an ARPA file are made of: this model's tokens, or words"
    )
    lm_unknown_penalty: float = Field(
        10.0, ge=0, description="with lm_unit=word: nats taken off for a word that the language model does not know"
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
    """The keys of DecodeConfig as options of a function, for those who check types; what each means stands there."""

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
