"""Turning cuts into examples in the loader's workers: audio is loaded, text normalised and tokenised.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from lhotse.cut import Cut
from torch import Tensor

from asr.config import ExperimentConfig
from asr.data.augment import NoiseMixer
from asr.data.batch import Example
from asr.data.cuts import language_of, load_audio, pieces, text_of
from asr.data.tasks import spoken_text_of, task_of, text_language_of
from asr.phrases.paths import Paths
from asr.tasks import into
from asr.text import normalizer
from asr.tokenizer import Tokenizer

_cached_normalizer = cache(normalizer)

ListOf = Callable[[str, str, int], Paths | None]  # phrase list for an utterance's text, id and epoch


def no_list(text: str, id: str, epoch: int) -> None:
    """Return no phrase list, for training without them."""


def target_text(cut: Cut, normalizer_name: str) -> str:
    """Return the normalised text of a cut, as it is trained on."""
    return _cached_normalizer(normalizer_name, text_language_of(cut))(text_of(cut))


def spoken_text(cut: Cut, normalizer_name: str) -> str:
    """Return the normalised text of what is said in a cut, as CTC is trained on it."""
    return _cached_normalizer(normalizer_name, language_of(cut))(spoken_text_of(cut))


class Target(NamedTuple):
    """The training target of an utterance.

    tokens: start tokens (the first `prefix_length`), text, end token.  spoken: the tokens of what is said, which differ
    from those of the text if that is a translation.
    """

    text: str
    tokens: list[int]
    prefix_length: int
    spoken: list[int]


class Examples:
    """Makes the examples of an experiment; holds no reference to the training, so that it can be sent to workers."""

    def __init__(
        self, config: ExperimentConfig, tokenizer: Tokenizer, sample_rate_hz: int, list_of: ListOf = no_list
    ) -> None:
        self.normalizer, self.tokenizer, self.sample_rate_hz = config.normalizer, tokenizer, sample_rate_hz
        self.noise = NoiseMixer(config.augment, sample_rate_hz, config.seed)
        self.list_of = list_of

    def target(self, cut: Cut) -> Target:
        """Return the target of a cut."""
        text, task = target_text(cut, self.normalizer), task_of(cut)
        prefix = self.tokenizer.prefix(language_of(cut) if self.tokenizer.languages else None, task)
        tokens = self.tokenizer.encode(text)
        spoken = tokens if into(task) is None else self.tokenizer.encode(spoken_text(cut, self.normalizer))
        return Target(text, [*prefix, *tokens, self.tokenizer.eos_id], len(prefix), spoken)

    def count_targets(self, cut: Cut) -> int:
        """Return the number of target tokens of the decoder."""
        return len(self.target(cut).tokens) - 1

    def plain(self, cut: Cut, epoch: int = 0) -> Example:
        """Return the example of a cut, without noise."""
        return self._example(cut, load_audio(cut, self.sample_rate_hz), epoch)

    def augmented(self, cut: Cut, epoch: int) -> Example:
        """Return the example of a cut, already varied in speed or joined, with the noise drawn for the epoch."""
        audio_N, noisy = self.noise(load_audio(cut, self.sample_rate_hz), cut.id, epoch)
        clips = [clip for _, clip in pieces(cut)]
        applied = {"noise": noisy, "join": len(clips) > 1, "speed": bool(clips[0].recording.transforms)}
        return self._example(cut, audio_N, epoch, tuple(name for name, was in applied.items() if was))

    def _example(self, cut: Cut, audio_N: Tensor, epoch: int, applied: tuple[str, ...] = ()) -> Example:
        target = self.target(cut)
        phrases = self.list_of(target.text, cut.id, epoch)
        return Example(cut.id, audio_N, *target, task_of(cut), language_of(cut), applied, phrases)
