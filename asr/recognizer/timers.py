"""Timers that find when words were said, depending on the parts of the model."""

from __future__ import annotations

from asr.align import WordTimer
from asr.checkpoint import ModelFolder
from asr.config import DecoderConfig
from asr.errors import ConfigError
from asr.frames import CTCAligner, FrameTimer, TransducerAligner
from asr.model.transducer import Transducer
from asr.recognizer.searchers import posteriors

Timer = WordTimer | FrameTimer


def build_timer(parts: ModelFolder, frame_s: float, *, spoken: bool) -> Timer:
    """Return the timer for a model: by cross-attention and CTC for an attention decoder, else by CTC or a transducer.

    spoken: whether the texts are what is said; for translations CTC is no help.  Raises ConfigError for a model with
    none of these.
    """
    config, model, tokenizer = parts
    if isinstance(config.model.decoder, DecoderConfig):
        return WordTimer(model, tokenizer, frame_s, config.model.decoder.alignment_heads, spoken=spoken)
    if model.ctc is not None:
        align = CTCAligner(posteriors(parts), tokenizer.blank_id)
        return FrameTimer(align, tokenizer, model.front_end.sample_rate_hz, frame_s)
    if isinstance(model.decoder, Transducer):
        own = TransducerAligner(model.decoder, tokenizer.blank_id)
        return FrameTimer(own, tokenizer, model.front_end.sample_rate_hz, frame_s)
    raise ConfigError(
        f"decoders of kind {config.model.decoder.kind} need a CTC head for word times; this model has none"
    )
