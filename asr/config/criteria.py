"""The options of the criteria and methods of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import Config


class GuidedAttentionConfig(Config):
    """Guided attention (Tachibana et al. 2017) on the decoder's cross-attention."""

    weight: float = Field(0.0, ge=0, description="weight in the loss of the mean penalty of each utterance; 0: off")
    width: float = Field(
        0.2, gt=0, description="g of the paper: how far attention may be from the diagonal at little cost"
    )
    heads: tuple[tuple[int, int], ...] = Field(
        (), description="guided heads of the decoder as [layer, head] pairs, counted from 0; empty: all of them"
    )
    decay_steps: int = Field(
        0, ge=0, description="optimiser steps over which the weight falls linearly to 0; 0: it stays constant"
    )


class ScheduledSamplingConfig(Config):
    """The decoder is fed its own predictions (Bengio et al. 2015; Mihaylova and Martins 2019)."""

    share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="highest share of the decoder's input tokens that are replaced by its own predictions; 0: off",
    )
    schedule: Literal["constant", "linear", "exponential", "inverse_sigmoid"] = Field(
        "linear",
        description="how the share rises from 0 to its highest value; constant: it has that value from the start",
    )
    steps: float = Field(
        1000.0,
        ge=1,
        description="optimiser steps of the rise: linear, in full; exponential, to 63 %; inverse_sigmoid, the paper's "
        "k, which reaches half at k log k",
    )
    from_step: int = Field(
        0, ge=0, description="optimiser step at which the rise begins; before it, only the target is fed"
    )
    choose: Literal["best", "sample"] = Field(
        "best", description="which prediction is fed: the most probable token, or one sampled by its probability"
    )


class MinimumErrorConfig(Config):
    """Training on errors: minimum WER (Prabhavalkar et al. 2018) or self-critical sequences (Rennie et al. 2017).

    It is meant for a model that is already trained.
    """

    kind: Literal["n_best", "self_critical"] = Field(
        "n_best",
        description="n_best: expected errors of the n best texts (minimum WER); self_critical: sampled texts against "
        "the greedy text",
    )
    weight: float = Field(
        0.0,
        ge=0,
        description="weight in the loss of an utterance's errors, beside the decoder's cross entropy per token; 0: "
        "off; begin with a small value",
    )
    metric: Literal["wer", "cer", "bleu"] = Field(
        "wer", description="what counts as errors: word errors of an utterance, character errors, or 1 - its BLEU"
    )
    n_best: int = Field(
        4,
        ge=1,
        le=1000,
        description="texts per utterance: the best that a beam of this width finds, or as many samples",
    )
    from_step: int = Field(
        0, ge=0, description="optimiser step from which errors count; before it, cross entropy alone"
    )
    ctc_weight: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="with n_best: weight c of CTC in the search and in the probabilities, score = (1 - c) decoder + c "
        "CTC, which trains both; take that of decode.ctc_weight; 0: the decoder alone",
    )

    @model_validator(mode="after")
    def _texts_can_be_found(self) -> MinimumErrorConfig:
        if self.weight and self.kind == "n_best" and self.n_best < 2:
            raise ValueError("n_best must be 2 or more: one text alone has nothing to be better than")
        if self.ctc_weight and self.kind != "n_best":
            raise ValueError(f"ctc_weight is for kind=n_best: {self.kind} draws texts from the decoder alone")
        return self


class LossConfig(Config):
    """The training criteria and their weights."""

    label_smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of a target's probability that is spread over the vocabulary (Szegedy et al. 2016) in the "
        "cross entropy of decoders, except transducers; 0: off",
    )
    ctc_weight: float = Field(
        0.3,
        ge=0,
        le=1,
        description="weight c of CTC in training, loss = (1 - c) decoder + c CTC; 0: no CTC, with model.ctc=false; a "
        "model without a decoder is trained on CTC alone",
    )
    length_weight: float = Field(
        0.1, gt=0, description="with model.decoder.kind=mask_predict: weight of the loss of the predicted length"
    )
    guided_attention: GuidedAttentionConfig = Field(
        GuidedAttentionConfig(), description="draws the decoder's cross-attention to the diagonal"
    )
    scheduled_sampling: ScheduledSamplingConfig = Field(
        ScheduledSamplingConfig(), description="feeds an attention decoder its own predictions"
    )
    minimum_error: MinimumErrorConfig = Field(
        MinimumErrorConfig(), description="trains on the errors of texts that the search finds"
    )
    r_drop: float = Field(
        0.0,
        ge=0,
        description="weight of R-Drop (Liang et al. 2021): two passes with different dropout shall predict the same "
        "tokens, which takes nearly twice the time; 0: off",
    )
    cr_ctc: float = Field(
        0.0,
        ge=0,
        description="weight of CR-CTC (Yao et al. 2024): CTC shall have the same output under two draws of "
        "SpecAugment, which takes nearly twice the time; 0: off",
    )

    @model_validator(mode="after")
    def _ctc_is_trained(self) -> LossConfig:
        if self.cr_ctc and not self.ctc_weight:
            raise ValueError("cr_ctc keeps CTC consistent: it needs a ctc_weight above 0")
        if self.minimum_error.weight and self.minimum_error.ctc_weight and not self.ctc_weight:
            raise ValueError("minimum_error.ctc_weight trains CTC, too: it needs a ctc_weight above 0")
        return self
