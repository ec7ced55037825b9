"""Criteria, each a part of its own, that share one pass through the model.

Shapes: B batch, L target tokens, T encoder frames, V vocabulary, H attention heads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from asr import losses
from asr.config import GuidedAttentionConfig
from asr.data.augment import derived_random
from asr.data.batch import Batch
from asr.features import Features
from asr.model.attention import explicit
from asr.model.copying import Copying, copying
from asr.model.decoder import Decoder
from asr.model.masks import Memory
from asr.model.speech import SpeechModel

Per = Literal["token", "utterance"]
Draws = Callable[[str, str], random.Random]

MASKS = "spec_augment"


class Feed(Protocol):
    """Gives the tokens (B, L) that the decoder is fed."""

    def __call__(self, run: Pass) -> Tensor: ...


def teacher_forcing(run: Pass) -> Tensor:
    """The decoder is fed the target."""
    return run.batch.inputs_BL


class Pass:
    """A batch on its way through the model: what several criteria need is computed once, when the first one asks.

    attention: whether the decoder is to form the weights of its cross-attention.  training: not in validation.
    feed: what the decoder is fed.  draws: a random generator for a purpose and an utterance's id.  step: of the
    optimiser; None stands for one at which everything counts.  other: a second view of the same batch, if there is one.
    """

    other: Pass | None = None

    def __init__(
        self,
        model: SpeechModel,
        batch: Batch,
        features: Features,
        *,
        attention: bool = False,
        training: bool = True,
        feed: Feed = teacher_forcing,
        draws: Draws = derived_random,
        step: int | None = None,
    ) -> None:
        self.model, self.batch, self.features = model, batch, features
        self.attention, self.training = attention, training
        self.feed, self.draws, self.step = feed, draws, step

    def view(self, features: Features) -> None:
        """Let the batch be seen once more, with these features and the dropout that is drawn for it."""
        self.other = Pass(
            self.model,
            self.batch,
            features,
            attention=self.attention,
            feed=lambda _: self.inputs_BL,
            draws=self.draws,
            step=self.step,
        )

    @cached_property
    def inputs_BL(self) -> Tensor:
        """What the decoder is fed."""
        return self.feed(self)

    @cached_property
    def memory(self) -> Memory:
        """What the encoder heard."""
        memory: Memory = self.model.encoder(self.features)
        return memory

    @property
    def decoder(self) -> Decoder | Copying:
        """The decoder at work on the batch's phrase lists, where it has any."""
        return copying(self.model.decoder, self.batch.phrases, self.batch.prefix_length)

    @cached_property
    def decoded(self) -> tuple[Tensor, list[Tensor]]:
        """The decoder's logits (B, L, V) and the weights (B, H, L, T) of each layer's cross-attention, if formed."""
        attend = explicit if self.attention else None
        logits_BLV, attentions = self.decoder(self.inputs_BL, self.memory, attend, self.batch.target_len_B)
        return logits_BLV, attentions

    @cached_property
    def ctc_BTV(self) -> Tensor:
        """The CTC head's log-probabilities."""
        assert self.model.ctc is not None
        log_probs_BTV: Tensor = self.model.ctc(self.memory)
        return log_probs_BTV


class Criterion(Protocol):
    """A part of the loss.

    name: under which it is logged.  per: what its sum over a step is divided by.  attention: whether it needs the
    weights of cross-attention.
    """

    name: str
    per: Per
    attention: bool

    def share(self, step: int) -> float:
        """What the criterion counts at a step."""
        ...

    def __call__(self, run: Pass) -> Tensor:
        """Its value for each utterance: (B,)."""
        ...


class Steady:
    """What a criterion has whose weight stays as it is."""

    per: Per = "token"
    attention = False

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def share(self, step: int) -> float:
        """What the criterion counts at a step."""
        return self.weight


class CrossEntropy(Steady):
    """Cross entropy of the decoder's tokens, smoothed in training."""

    name: str = "ce"

    def __init__(self, weight: float, smoothing: float) -> None:
        super().__init__(weight)
        self.smoothing = smoothing

    def __call__(self, run: Pass) -> Tensor:
        logits_BLV, _ = run.decoded
        smoothing = self.smoothing if run.training else 0.0
        return losses.cross_entropy(logits_BLV, run.batch.targets_BL, run.batch.target_len_B, smoothing)


class CTC(Steady):
    """Connectionist temporal classification on the encoder, of what is said."""

    name: str = "ctc"

    def __init__(self, weight: float, blank: int) -> None:
        super().__init__(weight)
        self.blank = blank

    def __call__(self, run: Pass) -> Tensor:
        batch = run.batch
        return losses.ctc(run.ctc_BTV, run.memory.len_B, batch.spoken_BS, batch.spoken_len_B, self.blank)


class GuidedAttention:
    """Cross-attention of chosen heads is drawn to the diagonal; the weight may fall to 0."""

    name: str = "guided"
    per: Per = "utterance"
    attention = True

    def __init__(self, config: GuidedAttentionConfig) -> None:
        self.config = config

    def share(self, step: int) -> float:
        return losses.linear_decay(self.config.weight, step, self.config.decay_steps)

    def __call__(self, run: Pass) -> Tensor:
        _, attentions = run.decoded
        chosen = [attentions[layer][:, [head]] for layer, head in self.config.heads] or attentions
        own = run.batch.prefix_length - 1  # rows that predict start tokens, such as the language
        attention_BHLT, len_B = torch.cat(chosen, dim=1)[:, :, own:], run.batch.target_len_B - own
        return losses.guided_attention(attention_BHLT, len_B, run.memory.len_B, self.config.width)


class Criteria:
    """All criteria of a run.

    parts: with two views of the batch, their means over both count.  training: what makes no part of the loss on dev,
    so that it stays comparable.  feed: what the decoder is fed in training.  views: for what the masks of each view
    are drawn.
    """

    def __init__(
        self,
        parts: Sequence[Criterion],
        training: Sequence[Criterion] = (),
        feed: Feed = teacher_forcing,
        views: Sequence[str] = (MASKS,),
    ) -> None:
        self.parts, self.training = parts, training
        self.feed, self.views = feed, views

    def attention(self, step: int | None) -> bool:
        """Whether one that counts at a step needs the weights of cross-attention."""
        return any(part.attention for part in _counting(self._all, step))

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        """The values (B,) of each criterion that counts at the step, by name."""
        views = [run, *([run.other] if run.other else [])]
        parts, training = _counting(self.parts, run.step), _counting(self.training, run.step)
        found = {part.name: torch.stack([part(view) for view in views]).mean(0) for part in parts}
        return found | {part.name: part(run) for part in training if run.training}

    def weighed(self, sums: Mapping[str, Tensor], tokens: int, utterances: int, step: int) -> Tensor:
        """The loss from each criterion's sum over so many target tokens and utterances."""
        count = {"token": tokens, "utterance": utterances}
        found = [part for part in self._all if part.name in sums]
        return torch.stack([part.share(step) * sums[part.name] / count[part.per] for part in found]).sum()

    def per(self, name: str) -> Per:
        """What the sum of the criterion of that name is divided by."""
        return next(part.per for part in self._all if part.name == name)

    @property
    def _all(self) -> list[Criterion]:
        return [*self.parts, *self.training]


def _counting(parts: Sequence[Criterion], step: int | None) -> list[Criterion]:
    return [part for part in parts if step is None or part.share(step) > 0]
