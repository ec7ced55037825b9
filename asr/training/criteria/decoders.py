"""The criteria of the other decoders than the autoregressive one.

Shapes: B batch, L target tokens, T encoder frames, U positions in a target, V vocabulary, X lengths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from asr import losses
from asr.training.criteria.base import Pass, Per, Steady


class TransducerLoss(Steady):
    """Transducer loss: the negative log-likelihood of the text, summed over all alignments."""

    name: str = "transducer"

    def __init__(self, weight: float, blank: int) -> None:
        super().__init__(weight)
        self.blank = blank

    def __call__(self, run: Pass) -> Tensor:
        batch, frames_B = run.batch, run.memory.len_B
        states_BTD = run.memory.states_BTD[:, : max(1, int(frames_B.max()))]
        logits_BTUV = run.model.decoder(batch.inputs_BL, batch.prefix_length, states_BTD)
        return losses.transducer(logits_BTUV, frames_B, batch.text_BL, batch.text_len_B, self.blank)


class MaskedCrossEntropy(Steady):
    """Cross entropy of masked tokens, whose number is drawn between 1 and all (Ghazvininejad et al. 2019).

    Each utterance's draws are independent of its batch; in validation they are always the same.
    """

    name: str = "masked"

    def __init__(self, weight: float, smoothing: float, mask: int) -> None:
        super().__init__(weight)
        self.smoothing, self.mask = smoothing, mask

    def __call__(self, run: Pass) -> Tensor:
        batch, decoder = run.batch, run.model.decoder
        P, targets_BL = batch.prefix_length, batch.text_BL[:, :-1]
        masked_BL = self._masked(run).to(targets_BL.device)
        text_BL = targets_BL.masked_fill(masked_BL, self.mask)
        tokens_BL = torch.cat([batch.tokens_BL[:, :P], text_BL], dim=1)
        logits_BLV = decoder(tokens_BL, P + batch.text_len_B, decoder.project_memory(run.memory))[:, P:]
        smoothing = self.smoothing if run.training else 0.0
        return losses.masked_cross_entropy(logits_BLV, targets_BL, masked_BL, smoothing)

    def _masked(self, run: Pass) -> Tensor:
        """Return which tokens (B, L) of each text are masked."""
        lengths = run.batch.text_len_B.tolist()
        masked_BL = torch.zeros(len(lengths), run.batch.text_BL.shape[1] - 1, dtype=torch.bool)
        for row_L, length, id in zip(masked_BL, lengths, run.batch.ids, strict=True):
            if length:
                draw = run.draws("masked tokens", id)
                row_L[draw.sample(range(length), draw.randint(1, length))] = True
        return masked_BL


class LengthLoss(Steady):
    """Negative log-probability of the text's length."""

    name: str = "length"
    per: Per = "utterance"

    def __call__(self, run: Pass) -> Tensor:
        log_prob_BX: Tensor = run.model.decoder.length(run.memory)
        return -log_prob_BX.gather(1, run.batch.text_len_B[:, None])[:, 0]
