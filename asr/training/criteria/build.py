"""Building the criteria that a configuration describes."""

from __future__ import annotations

from asr.checkpoint import ModelFolder
from asr.config import DecoderConfig, ExperimentConfig, LossConfig
from asr.errors import ConfigError
from asr.model.decoder import Decoder
from asr.model.masked import MaskedDecoder
from asr.tokenizer import Tokenizer
from asr.training.criteria.base import (
    CTC,
    MASKS,
    Criteria,
    Criterion,
    CrossEntropy,
    Feed,
    GuidedAttention,
    teacher_forcing,
)
from asr.training.criteria.consistency import CRCTC, RDrop
from asr.training.criteria.decoders import LengthLoss, MaskedCrossEntropy, TransducerLoss
from asr.training.criteria.errors import Errors
from asr.training.criteria.feed import ScheduledSampling, TokenNoise, text_tokens
from asr.training.criteria.minimum_error import ExpectedErrors, JointScores, Policy, SelfCritical


def build_criteria(config: ExperimentConfig, folder: ModelFolder) -> Criteria:
    """Build the criteria of an experiment for a model.

    Raises ConfigError, one line, for a criterion that needs a part which the model lacks.
    """
    loss, (own, model, tokenizer) = config.loss, folder
    ctc = loss.ctc_weight if model.ctc is not None else 0.0
    if model.decoder is None:
        ctc = 1.0
    parts = _of_decoder(1 - ctc, loss, folder)
    if ctc > 0:
        assert tokenizer.blank_id is not None
        parts.append(CTC(ctc, tokenizer.blank_id))
    if loss.guided_attention.weight > 0:
        assert isinstance(own.model.decoder, DecoderConfig)
        try:
            own.model.decoder.check_heads("loss.guided_attention.heads", loss.guided_attention.heads)
        except ValueError as e:
            raise ConfigError(str(e)) from None
        parts.append(GuidedAttention(loss.guided_attention))
    return Criteria(parts, _in_training(config, folder), _feed(config, tokenizer), _views(config.loss))


def _of_decoder(weight: float, loss: LossConfig, folder: ModelFolder) -> list[Criterion]:
    decoder, blank = folder.model.decoder, folder.tokenizer.blank_id
    if isinstance(decoder, Decoder):
        return [CrossEntropy(weight, loss.label_smoothing)]
    if decoder is None:
        return []
    assert blank is not None
    if isinstance(decoder, MaskedDecoder):
        masked = MaskedCrossEntropy(weight, loss.label_smoothing, blank)
        return [masked] if decoder.length is None else [masked, LengthLoss(loss.length_weight)]
    return [TransducerLoss(weight, blank)]


def _in_training(config: ExperimentConfig, folder: ModelFolder) -> list[Criterion]:
    """Return the criteria that are left out on dev."""
    loss, parts = config.loss, list[Criterion]()
    if loss.r_drop > 0:
        parts.append(RDrop(loss.r_drop))
    if loss.cr_ctc > 0:
        if folder.model.ctc is None:
            raise ConfigError("loss.cr_ctc needs a model with a CTC head; this one has none")
        parts.append(CRCTC(loss.cr_ctc))
    if loss.minimum_error.weight > 0:
        parts.append(_on_errors(config, folder))
    return parts


def _on_errors(config: ExperimentConfig, folder: ModelFolder) -> Criterion:
    risk, blank = config.loss.minimum_error, folder.tokenizer.blank_id
    policy = Policy(folder.tokenizer, folder.config.model.decoder.max_length)
    errors = Errors(risk.metric, config.scored_with)
    if risk.kind == "self_critical":
        return SelfCritical(risk, policy, errors)
    if risk.ctc_weight == 0:
        return ExpectedErrors(risk, policy, errors)
    assert blank is not None
    return ExpectedErrors(risk, JointScores(policy, risk.ctc_weight, blank), errors)


def _views(config: LossConfig) -> tuple[str, ...]:
    """Return the purposes that seed the masks of each view; with R-Drop alone, both views have the same masks."""
    if config.cr_ctc > 0:
        return MASKS, f"{MASKS} again"
    return (MASKS, MASKS) if config.r_drop > 0 else (MASKS,)


def _feed(config: ExperimentConfig, tokenizer: Tokenizer) -> Feed:
    feed: Feed = teacher_forcing
    if config.augment.token_noise > 0:
        feed = TokenNoise(config.augment.token_noise, text_tokens(tokenizer), feed)
    if config.loss.scheduled_sampling.share > 0:
        feed = ScheduledSampling(config.loss.scheduled_sampling, text_tokens(tokenizer), feed)
    return feed
