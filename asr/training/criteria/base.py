"""Independent criteria that share one pass through the model.

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
Feed = Callable[["Pass"], Tensor]  # returns the tokens (B, L) that the decoder is fed

MASKS = "spec_augment"


def teacher_forcing(run: Pass) -> Tensor:
    """Feed the decoder the target."""
    return run.batch.inputs_BL


class Pass:
    """One pass of a batch through the model; each result is computed once, when the first criterion needs it.

    attention: whether the decoder returns its cross-attention weights.  training: False in validation.  feed: gives
    the decoder's input tokens.  draws: a random generator for a purpose and an utterance's id.  step: the optimiser
    step; None: every criterion counts.  other: a second view of the same batch, or None.
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
        """Add a second view of the batch, with these features, the same decoder input and dropout of its own."""
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
        """Input tokens (B, L) of the decoder."""
        return self.feed(self)

    @cached_property
    def memory(self) -> Memory:
        """Output of the encoder."""
        memory: Memory = self.model.encoder(self.features)
        return memory

    @property
    def decoder(self) -> Decoder | Copying:
        """The decoder, which copies from the batch's phrase lists if there are any."""
        return copying(self.model.decoder, self.batch.phrases, self.batch.prefix_length)

    @cached_property
    def decoded(self) -> tuple[Tensor, list[Tensor]]:
        """The decoder's logits (B, L, V), and each layer's cross-attention weights (B, H, L, T) if `attention`."""
        attend = explicit if self.attention else None
        logits_BLV, attentions = self.decoder(self.inputs_BL, self.memory, attend, self.batch.target_len_B)
        return logits_BLV, attentions

    @property
    def text_attentions(self) -> list[Tensor]:
        """Cross-attention weights without the rows that predict start tokens, such as the language."""
        _, attentions = self.decoded
        return [attention_BHLT[:, :, self.batch.prefix_length - 1 :] for attention_BHLT in attentions]

    @property
    def text_rows_B(self) -> Tensor:
        """Number of the remaining rows of each utterance: its text tokens and the end token."""
        return self.batch.text_len_B + 1

    @cached_property
    def ctc_BTV(self) -> Tensor:
        """Log-probabilities (B, T, V) of the CTC head."""
        assert self.model.ctc is not None
        log_probs_BTV: Tensor = self.model.ctc(self.memory)
        return log_probs_BTV


class Criterion(Protocol):
    """A part of the loss.

    name: the name under which it is logged.  per: what its sum over a step is divided by.  attention: whether it needs
    cross-attention weights.
    """

    name: str
    per: Per
    attention: bool

    def share(self, step: int) -> float:
        """Return the weight of the criterion at a step."""
        ...

    def __call__(self, run: Pass) -> Tensor:
        """Return the value (B,) for each utterance."""
        ...


class Steady:
    """Base of the criteria whose weight is constant."""

    per: Per = "token"
    attention = False

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def share(self, step: int) -> float:
        """Return the weight, the same at every step."""
        return self.weight


class CrossEntropy(Steady):
    """Cross entropy of the decoder's tokens, with label smoothing in training."""

    name: str = "ce"

    def __init__(self, weight: float, smoothing: float) -> None:
        super().__init__(weight)
        self.smoothing = smoothing

    def __call__(self, run: Pass) -> Tensor:
        logits_BLV, _ = run.decoded
        smoothing = self.smoothing if run.training else 0.0
        return losses.cross_entropy(logits_BLV, run.batch.targets_BL, run.batch.target_len_B, smoothing)


class CTC(Steady):
    """Connectionist temporal classification on the encoder, of the spoken words even in translation."""

    name: str = "ctc"

    def __init__(self, weight: float, blank: int) -> None:
        super().__init__(weight)
        self.blank = blank

    def __call__(self, run: Pass) -> Tensor:
        batch = run.batch
        return losses.ctc(run.ctc_BTV, run.memory.len_B, batch.spoken_BS, batch.spoken_len_B, self.blank)


class GuidedAttention:
    """A penalty that draws the cross-attention of chosen heads to the diagonal; its weight may decay to 0."""

    name: str = "guided"
    per: Per = "utterance"
    attention = True

    def __init__(self, config: GuidedAttentionConfig) -> None:
        self.config = config

    def share(self, step: int) -> float:
        return losses.linear_decay(self.config.weight, step, self.config.decay_steps)

    def __call__(self, run: Pass) -> Tensor:
        attentions = run.text_attentions
        chosen = [attentions[layer][:, [head]] for layer, head in self.config.heads] or attentions
        return losses.guided_attention(torch.cat(chosen, dim=1), run.text_rows_B, run.memory.len_B, self.config.width)


class Criteria:
    """All criteria of a run.

    criteria: those of training and dev; with two views of the batch, each is averaged over both.  training_only: those
    that are left out on dev, so that dev losses stay comparable.  feed: gives the decoder's input in training.
    views: the purposes that seed the masks of each view.
    """

    def __init__(
        self,
        criteria: Sequence[Criterion],
        training_only: Sequence[Criterion] = (),
        feed: Feed = teacher_forcing,
        views: Sequence[str] = (MASKS,),
    ) -> None:
        self.criteria, self.training_only = criteria, training_only
        self.feed, self.views = feed, views

    def attention(self, step: int | None) -> bool:
        """Return whether a criterion that counts at the step needs cross-attention weights."""
        return any(criterion.attention for criterion in _counting(self._all, step))

    def __call__(self, run: Pass) -> dict[str, Tensor]:
        """Return the values (B,) of each criterion that counts at the step, by name."""
        views = [run, *([run.other] if run.other else [])]
        found = {
            criterion.name: torch.stack([criterion(view) for view in views]).mean(0)
            for criterion in _counting(self.criteria, run.step)
        }
        training_only = _counting(self.training_only, run.step) if run.training else []
        return found | {criterion.name: criterion(run) for criterion in training_only}

    def weighed(self, sums: Mapping[str, Tensor], tokens: int, utterances: int, step: int) -> Tensor:
        """Return the loss, given each criterion's sum over so many target tokens and utterances."""
        count = {"token": tokens, "utterance": utterances}
        found = [criterion for criterion in self._all if criterion.name in sums]
        return torch.stack([each.share(step) * sums[each.name] / count[each.per] for each in found]).sum()

    def per(self, name: str) -> Per:
        """Return what the sum of a criterion is divided by."""
        return next(criterion.per for criterion in self._all if criterion.name == name)

    @property
    def _all(self) -> list[Criterion]:
        return [*self.criteria, *self.training_only]


def _counting(criteria: Sequence[Criterion], step: int | None) -> list[Criterion]:
    return [criterion for criterion in criteria if step is None or criterion.share(step) > 0]
