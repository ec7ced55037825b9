"""The options of the criteria and methods of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import Config


class GuidedAttentionConfig(Config):
    """Guided attention (Tachibana et al. 2017) on the decoder's cross-attention."""

    weight: float = Field(0.0, ge=0, description="0: off")
    width: float = Field(0.2, gt=0, description="g of the paper")
    heads: tuple[tuple[int, int], ...] = Field((), description="(layer, head) pairs; empty: all of them")
    decay_steps: int = Field(0, ge=0, description="the weight falls to 0 in so many steps; 0: never")


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


class MinimumErrorConfig(Config):
    """Training on errors: minimum WER (Prabhavalkar et al. 2018), self-critical sequences (Rennie et al. 2017).

    For a model that is trained already.
    """

    kind: Literal["n_best", "self_critical"] = Field(
        "n_best", description="expected errors of the n best texts, or samples against the greedy text"
    )
    weight: float = Field(0.0, ge=0, description="beside cross entropy per token; 0: off")
    metric: Literal["wer", "cer", "bleu"] = Field(
        "wer", description="word or character errors of an utterance, or 1 - its BLEU"
    )
    n_best: int = Field(4, ge=1, le=1000, description="texts of an utterance: the best, or as many samples")
    from_step: int = Field(0, ge=0, description="cross entropy alone before that")

    @model_validator(mode="after")
    def _enough_texts(self) -> MinimumErrorConfig:
        if self.weight and self.kind == "n_best" and self.n_best < 2:
            raise ValueError("n_best must be 2 or more: one text alone has nothing to be better than")
        return self


class LossConfig(Config):
    """The training criteria and their weights."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ctc_weight: float = Field(0.3, ge=0, le=1)
    length_weight: float = Field(0.1, ge=0, description="of a mask_predict decoder's length, for each utterance")
    guided_attention: GuidedAttentionConfig = GuidedAttentionConfig()
    scheduled_sampling: ScheduledSamplingConfig = ScheduledSamplingConfig()
    minimum_error: MinimumErrorConfig = MinimumErrorConfig()
    r_drop: float = Field(0.0, ge=0, description="weight of R-Drop (Liang et al. 2021): two views by dropout; 0: off")
    cr_ctc: float = Field(0.0, ge=0, description="weight of CR-CTC (Yao et al. 2024): two views by SpecAugment; 0: off")

    @model_validator(mode="after")
    def _consistency_of_ctc(self) -> LossConfig:
        if self.cr_ctc and not self.ctc_weight:
            raise ValueError("cr_ctc keeps CTC consistent: it needs a ctc_weight above 0")
        return self
