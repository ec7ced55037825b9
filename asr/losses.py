"""Training criteria as pure functions that return one value per utterance.

Shapes: B batch, L target tokens, T encoder frames, U positions in a target, V vocabulary, H attention heads, N texts of
an utterance.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
import torchaudio.functional as TA
from torch import Tensor

from asr.lengths import within


def cross_entropy(logits_BLV: Tensor, targets_BL: Tensor, len_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Label-smoothed cross entropy (Szegedy et al. 2016), summed over each utterance's tokens: (B,), in nats.

    The target distribution is 1 - smoothing on the token, plus smoothing spread evenly over the vocabulary.
    """
    loss_BL = F.cross_entropy(
        logits_BLV.float().transpose(1, 2), targets_BL, reduction="none", label_smoothing=smoothing
    )
    return loss_BL.masked_fill(~within(len_B, targets_BL.shape[1]), 0.0).sum(1)


def masked_cross_entropy(logits_BLV: Tensor, targets_BL: Tensor, masked_BL: Tensor, smoothing: float = 0.0) -> Tensor:
    """Label-smoothed cross entropy, summed over the masked tokens only: (B,)."""
    logits_MV, targets_M = logits_BLV[masked_BL].float(), targets_BL[masked_BL]
    loss_M = F.cross_entropy(logits_MV, targets_M, reduction="none", label_smoothing=smoothing)
    return torch.zeros(masked_BL.shape, device=loss_M.device).masked_scatter(masked_BL, loss_M).sum(1)


def ctc(log_probs_BTV: Tensor, frames_B: Tensor, targets_BL: Tensor, len_B: Tensor, blank: int) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006): -log p(target | frames) of each utterance, (B,).

    A target that cannot be aligned (see `ctc_fits`) gives 0 and no gradient.
    """
    return F.ctc_loss(
        log_probs_BTV.transpose(0, 1),
        targets_BL,
        frames_B,
        len_B,
        blank,
        reduction="none",
        zero_infinity=True,
    )


def transducer(logits_BTUV: Tensor, frames_B: Tensor, targets_BL: Tensor, len_B: Tensor, blank: int) -> Tensor:
    """Transducer loss (Graves 2012): -log p(target | frames) of each utterance, summed over all alignments, (B,).

    U = L + 1 positions: before, between and after the targets.  An utterance without frames is treated as having one.
    """
    frames_B = frames_B.clamp(min=1)
    T, L = int(frames_B.max()), int(len_B.max())
    return TA.rnnt_loss(
        logits_BTUV[:, :T, : L + 1].float().contiguous(),
        targets_BL[:, :L].int().contiguous(),
        frames_B.int(),
        len_B.int(),
        blank,
        reduction="none",
    )


def ctc_fits(frames: int, target: list[int]) -> bool:
    """Return whether CTC can align the target: it needs a frame per token and a blank between equal neighbours."""
    repeats = sum(a == b for a, b in itertools.pairwise(target))
    return len(target) + repeats <= frames


def guided_attention(attention_BHLT: Tensor, len_B: Tensor, frames_B: Tensor, width: float = 0.2) -> Tensor:
    """Guided attention (Tachibana et al. 2017): a penalty on attention far from the diagonal, (B,).

    It is averaged over tokens and heads.  The penalty of token l and frame t is 1 - exp(-(l / L - t / T)^2 / (2
    width^2)), with each utterance's own L and T, and 1 beyond its frames, such as in the silence of a Whisper window.
    """
    L, T = attention_BHLT.shape[2:]
    device = attention_BHLT.device
    l_BL1 = (torch.arange(L, device=device) / len_B[:, None])[..., None]
    t_B1T = (torch.arange(T, device=device) / frames_B[:, None])[:, None]
    penalty_BLT = 1.0 - torch.exp(-((l_BL1 - t_B1T) ** 2) / (2 * width**2))
    penalty_BLT = penalty_BLT.masked_fill(~within(frames_B, T)[:, None], 1.0)
    penalty_BLT = penalty_BLT * within(len_B, L)[..., None]
    per_token_BHL = (attention_BHLT * penalty_BLT[:, None]).sum(-1)
    return per_token_BHL.sum(-1).mean(-1) / len_B


def divergence(target_BLV: Tensor, log_probs_BLV: Tensor, len_B: Tensor) -> Tensor:
    """Kullback-Leibler divergence from a target, both as log-probabilities, summed over real positions: (B,), in nats.

    L may also be frames.
    """
    at_BL = (target_BLV.exp() * (target_BLV - log_probs_BLV)).sum(-1)
    return at_BL.masked_fill(~within(len_B, at_BL.shape[1]), 0.0).sum(1)


def expected_errors(log_prob_BN: Tensor, errors_BN: Tensor) -> Tensor:
    """Expected errors of N texts, with their probabilities renormalised over the N, minus their mean errors: (B,).

    This is the minimum-WER criterion of Prabhavalkar et al. 2018; the mean lowers the variance of the gradient and
    changes nothing else.  Missing texts have log-probability -inf, and their errors are ignored; 0 if all are missing.
    """
    there_BN = log_prob_BN.isfinite()
    mean_B1 = (errors_BN * there_BN).sum(1, keepdim=True) / there_BN.sum(1, keepdim=True).clamp(min=1)
    prob_BN = log_prob_BN.masked_fill(~there_BN.any(1, keepdim=True), 0.0).softmax(1)
    return (prob_BN * (errors_BN - mean_B1) * there_BN).sum(1)


def policy_gradient(log_prob_BN: Tensor, errors_BN: Tensor, baseline_B: Tensor) -> Tensor:
    """The mean over N samples of (errors - baseline) x log-probability: (B,).

    Its gradient is an unbiased estimate of that of the expected errors (REINFORCE, Williams 1992); with the errors of
    the greedy text as baseline it is self-critical sequence training (Rennie et al. 2017).  The value itself has no
    meaning.
    """
    return ((errors_BN - baseline_B[:, None]) * log_prob_BN).mean(1)


def linear_decay(weight: float, step: int, steps: int) -> float:
    """Return a weight that falls linearly to 0 over `steps`; with steps=0 it stays constant."""
    return weight if steps == 0 else weight * max(0.0, 1.0 - step / steps)
