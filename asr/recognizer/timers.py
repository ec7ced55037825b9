"""What tells when words were said, by what a model has for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from asr.align import WordTimer
from asr.checkpoint import ModelFolder
from asr.config import DecoderConfig
from asr.errors import ConfigError
from asr.frames import CTCAligner, FrameTimer, TransducerAligner
from asr.model.masks import Memory
from asr.model.transducer import Transducer
from asr.recognizer.searchers import posteriors
from asr.transcript import Word


class Timer(Protocol):
    """Finds the words of texts that are known, see WordTimer."""

    def words(
        self,
        memory: Memory,
        texts: Sequence[Sequence[int]],
        prefix_BP: Tensor,
        audio_BN: Tensor,
        audio_len_B: Tensor,
    ) -> list[list[Word]]: ...


def build_timer(parts: ModelFolder, frame_s: float, *, spoken: bool) -> Timer:
    """By CTC and the cross-attention of an attention decoder, else by CTC, else by a transducer's own alignment.

    spoken: whether the texts are what is said; of a translation CTC knows nothing.  Raises ConfigError for a model that
    has none of them.
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
        f"decoders of kind {config.model.decoder.kind} tell when words were said by a CTC head: none here"
    )
