"""Cuts to examples: audio loaded, text normalised and tokenised; what the loader's workers do.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from lhotse.cut import Cut

from asr.config import ExperimentConfig
from asr.data.augment import NoiseMixer
from asr.data.batch import Example
from asr.data.cuts import language_of, load_audio, pieces, text_of
from asr.phrases.paths import Paths
from asr.text import normalizer
from asr.tokenizer import Tokenizer

_cached_normalizer = cache(normalizer)

ListOf = Callable[[str, str, int], Paths | None]  # the phrase list of an utterance, by its text, its id and the epoch


def no_list(text: str, id: str, epoch: int) -> None:
    """Where no phrase lists are trained with."""


def target_text(cut: Cut, normalizer_name: str) -> str:
    """The text of a cut as it is trained on."""
    return _cached_normalizer(normalizer_name, language_of(cut))(text_of(cut))


class Examples:
    """Makes examples of an experiment; it knows nothing of the training around it, so that workers can be sent one."""

    def __init__(
        self, config: ExperimentConfig, tokenizer: Tokenizer, sample_rate_hz: int, list_of: ListOf = no_list
    ) -> None:
        self.normalizer, self.tokenizer, self.sample_rate_hz = config.normalizer, tokenizer, sample_rate_hz
        self.noise = NoiseMixer(config.augment, sample_rate_hz, config.seed)
        self.list_of = list_of

    def tokens(self, cut: Cut) -> tuple[str, list[int], int]:
        """The target's text, its tokens with start and end, and how many of these are start tokens."""
        text = target_text(cut, self.normalizer)
        language = language_of(cut)
        prefix = self.tokenizer.prefix(language if self.tokenizer.languages else None)
        return text, [*prefix, *self.tokenizer.encode(text), self.tokenizer.eos_id], len(prefix)

    def count_targets(self, cut: Cut) -> int:
        """How many tokens a decoder is to say."""
        return len(self.tokens(cut)[1]) - 1

    def plain(self, cut: Cut, epoch: int = 0) -> Example:
        """The cut as it is."""
        text, tokens, prefix_length = self.tokens(cut)
        audio_N = load_audio(cut, self.sample_rate_hz)
        phrases = self.list_of(text, cut.id, epoch)
        return Example(cut.id, audio_N, text, tokens, prefix_length, language_of(cut), phrases=phrases)

    def augmented(self, cut: Cut, epoch: int) -> Example:
        """The cut, which may be a joined or a faster one, with noise as it is drawn for the epoch."""
        text, tokens, prefix_length = self.tokens(cut)
        audio_N, noisy = self.noise(load_audio(cut, self.sample_rate_hz), cut.id, epoch)
        clips = [clip for _, clip in pieces(cut)]
        applied = {"noise": noisy, "join": len(clips) > 1, "speed": bool(clips[0].recording.transforms)}
        names = tuple(name for name, was in applied.items() if was)
        phrases = self.list_of(text, cut.id, epoch)
        return Example(cut.id, audio_N, text, tokens, prefix_length, language_of(cut), names, phrases)
