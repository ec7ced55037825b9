"""From configuration to criteria: the only place that asks which there are."""

from __future__ import annotations

from asr.config import ExperimentConfig, GuidedAttentionConfig
from asr.errors import ConfigError
from asr.model.speech import SpeechModel
from asr.tokenizer import Tokenizer
from asr.training.criteria.base import (
    CTC,
    Criteria,
    Criterion,
    CrossEntropy,
    Feed,
    GuidedAttention,
    teacher_forcing,
)
from asr.training.criteria.feed import ScheduledSampling, TokenNoise, text_tokens


def build_criteria(config: ExperimentConfig, model: SpeechModel, tokenizer: Tokenizer) -> Criteria:
    """The criteria of an experiment.

    Raises ConfigError, one line, for one that the model lacks the parts for.
    """
    loss = config.loss
    ctc = loss.ctc_weight if model.ctc is not None else 0.0
    parts: list[Criterion] = [CrossEntropy(1 - ctc, loss.label_smoothing)]
    if ctc > 0:
        assert tokenizer.blank_id is not None
        parts.append(CTC(ctc, tokenizer.blank_id))
    if loss.guided_attention.weight > 0:
        _check_heads(loss.guided_attention, model)
        parts.append(GuidedAttention(loss.guided_attention))
    return Criteria(parts, feed=_feed(config, tokenizer))


def _feed(config: ExperimentConfig, tokenizer: Tokenizer) -> Feed:
    feed: Feed = teacher_forcing
    if config.augment.token_noise > 0:
        feed = TokenNoise(config.augment.token_noise, text_tokens(tokenizer), feed)
    if config.loss.scheduled_sampling.share > 0:
        feed = ScheduledSampling(config.loss.scheduled_sampling, text_tokens(tokenizer), feed)
    return feed


def _check_heads(config: GuidedAttentionConfig, model: SpeechModel) -> None:
    heads = [layer.cross_attention.heads for layer in model.decoder.layers]
    for layer, head in config.heads:
        if not (0 <= layer < len(heads) and 0 <= head < heads[layer]):
            raise ConfigError(
                f"loss.guided_attention.heads: there is no head {head} in a layer {layer}; the decoder has "
                f"{len(heads)} layers of {heads[0]} heads, counted from 0"
            )
