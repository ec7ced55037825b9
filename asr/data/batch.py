"""Batches of waveforms and targets.  Shapes: B batch, N samples, L tokens of the target, S tokens of what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.lengths import pad_tokens
from asr.phrases.paths import Paths
from asr.phrases.tree import PhraseTree
from asr.tasks import TRANSCRIBE, into


@dataclass(frozen=True)
class Example:
    """One utterance, ready to be batched.

    audio_N: mono waveform at the model's sample rate.  text: the normalised target text.  tokens: start tokens, text,
    end token.  spoken: the tokens of what is said.  language: that of the speech.  applied: names of the augmentations.
    phrases: its phrase list, if a pointer is trained.
    """

    id: str
    audio_N: Tensor
    text: str
    tokens: list[int]
    prefix_length: int
    spoken: list[int]
    task: str = TRANSCRIBE
    language: str | None = None
    applied: tuple[str, ...] = ()
    phrases: Paths | None = None


@dataclass(frozen=True)
class Batch:
    """Utterances padded to the longest: audio with 0.0, tokens with 0.

    tokens_BL: start tokens (the first `prefix_length`), text and end token.  spoken_BS: the tokens of what is said,
    for CTC: those of the text, unless it is a translation.  languages: those of the speech.  step_targets,
    step_utterances: target tokens and utterances of the whole optimiser step, in all its batches and processes.  epoch,
    index: position in the training stream.  applied: counts of augmentations.  weight: factor of its losses, so that
    their mean over the batches and processes of a step is the step's loss: the number of those, or 0 for a batch that
    stands in because there were fewer utterances than processes.  phrases: the tree of the utterances' phrase lists,
    if a pointer is trained.
    """

    ids: list[str]
    audio_BN: Tensor
    audio_len_B: Tensor
    texts: list[str]
    tokens_BL: Tensor
    token_len_B: Tensor
    prefix_length: int
    spoken_BS: Tensor
    spoken_len_B: Tensor
    tasks: list[str]
    languages: list[str | None]
    step_targets: int
    step_utterances: int
    epoch: int = 0
    index: int = 0
    applied: Mapping[str, int] = field(default_factory=dict)
    weight: float = 1.0
    phrases: PhraseTree | None = None

    @property
    def inputs_BL(self) -> Tensor:
        """Input of the decoder: all tokens but the last."""
        return self.tokens_BL[:, :-1]

    @property
    def targets_BL(self) -> Tensor:
        """Targets of the decoder: all tokens but the first."""
        return self.tokens_BL[:, 1:]

    @property
    def target_len_B(self) -> Tensor:
        """Number of targets of each utterance."""
        return self.token_len_B - 1

    @property
    def text_BL(self) -> Tensor:
        """The tokens of the text and the end token; `text_len_B` does not count the latter."""
        return self.tokens_BL[:, self.prefix_length :]

    @property
    def text_len_B(self) -> Tensor:
        """Number of text tokens of each utterance."""
        return self.token_len_B - self.prefix_length - 1

    @property
    def text_languages(self) -> list[str | None]:
        """The language of each text."""
        return [into(task) or spoken for task, spoken in zip(self.tasks, self.languages, strict=True)]

    def to(self, device: torch.device) -> Batch:
        """Return a copy with its tensors on `device`."""
        phrases = self.phrases.to(device) if self.phrases is not None else None
        return replace(self._each(lambda tensor: tensor.to(device, non_blocking=True)), phrases=phrases)

    def pin_memory(self) -> Batch:
        """Return a copy whose tensors, except those of `phrases`, are in pinned memory; DataLoader calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        changed: dict[str, Any] = {name: change(value) for name, value in values if isinstance(value, Tensor)}
        return replace(self, **changed)


def batches_by_length(lengths: Sequence[int], most: int, items: int | None = None) -> Iterator[list[int]]:
    """Group indices into batches, longest first.

    In each batch, count x longest is at most `most` and count is at most `items`, unless it is a single item.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        count = max(1, most // max(1, lengths[order[start]]))
        count = count if items is None else min(count, items)
        yield order[start : start + count]
        start += count


def pad_audio(audio: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad and stack waveforms (N,) of any lengths; return (B, N) and lengths (B,)."""
    return pad_sequence(list(audio), batch_first=True), torch.tensor([len(a) for a in audio])


def collate(examples: Sequence[Example], epoch: int = 0, index: int = 0) -> Batch:
    """Pad examples into a batch."""
    audio_BN, audio_len_B = pad_audio([e.audio_N for e in examples])
    tokens_BL, token_len_B = pad_tokens([e.tokens for e in examples])
    spoken_BS, spoken_len_B = pad_tokens([e.spoken for e in examples])
    applied = Counter(name for e in examples for name in e.applied)
    lists = [e.phrases for e in examples if e.phrases is not None]
    return Batch(
        ids=[e.id for e in examples],
        audio_BN=audio_BN,
        audio_len_B=audio_len_B,
        texts=[e.text for e in examples],
        tokens_BL=tokens_BL,
        token_len_B=token_len_B,
        prefix_length=examples[0].prefix_length,
        spoken_BS=spoken_BS,
        spoken_len_B=spoken_len_B,
        tasks=[e.task for e in examples],
        languages=[e.language for e in examples],
        epoch=epoch,
        index=index,
        applied=applied,
        step_targets=sum(len(e.tokens) - 1 for e in examples),
        step_utterances=len(examples),
        phrases=PhraseTree.of(lists) if lists else None,
    )
