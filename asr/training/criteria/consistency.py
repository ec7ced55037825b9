"""Consistency criteria: two views of a batch, with different dropout or masks, shall have the same output."""

from __future__ import annotations

from torch import Tensor

from asr import losses
from asr.training.criteria.base import Pass, Steady


class RDrop(Steady):
    """R-Drop (Liang et al. 2021): mean Kullback-Leibler divergence of the decoder's tokens over both directions."""

    name: str = "r_drop"

    def __call__(self, run: Pass) -> Tensor:
        assert run.other is not None
        a_BLV, b_BLV = (view.decoded[0].float().log_softmax(-1) for view in (run, run.other))
        len_B = run.batch.target_len_B
        return (losses.divergence(a_BLV, b_BLV, len_B) + losses.divergence(b_BLV, a_BLV, len_B)) / 2


class CRCTC(Steady):
    """Consistency-regularised CTC (Yao et al. 2024): the same on CTC frames, each direction's target without gradient.

    It is summed over frames, as CTC is.
    """

    name: str = "cr_ctc"

    def __call__(self, run: Pass) -> Tensor:
        assert run.other is not None
        a_BTV, b_BTV, len_B = run.ctc_BTV, run.other.ctc_BTV, run.memory.len_B
        return (losses.divergence(a_BTV.detach(), b_BTV, len_B) + losses.divergence(b_BTV.detach(), a_BTV, len_B)) / 2
