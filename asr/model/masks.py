"""Attention masks as additive log-weights, and which encoder frames are kept.

A key's log-weight is added to its attention scores: 0 = may be attended, -inf = may not, log(k) = the key stands
for k alike.  One float form serves padding, causality and thinned silence.  Shapes: B batch, T frames, L tokens.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from asr.features import BLUR, Features, real_frames


class Memory(NamedTuple):
    """What the encoder gives to heads and decoders.

    states_BTD, log_weight_BT (see above), len_B: frames that hold speech; they come first and in order.
    """

    states_BTD: Tensor
    log_weight_BT: Tensor
    len_B: Tensor


def log_weight(may_attend: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn a boolean mask (True = may attend) into log-weights of the same shape."""
    return torch.zeros(may_attend.shape, dtype=dtype, device=may_attend.device).masked_fill(~may_attend, -math.inf)


def causal(L: int, device: torch.device) -> Tensor:
    """Log-weights (L, L) under which a token sees itself and what came before."""
    return log_weight(torch.ones(L, L, dtype=torch.bool, device=device).tril())


class Subsampling(Protocol):
    """Shortens (B, T, F) with lengths (B,) to (B, ceil(T / factor), D)."""

    factor: int

    def __call__(self, x_BTF: Tensor, len_B: Tensor) -> Tensor: ...


class MaskPadding(nn.Module):
    """Padding is never attended."""

    def subsample(self, subsampling: Subsampling, features: Features) -> Tensor:
        """Subsampled frames (B, T, D)."""
        return subsampling(features.x_BTF, features.len_B)

    def forward(self, x_BTD: Tensor, len_B: Tensor, speech_len_B: Tensor) -> Memory:
        return Memory(x_BTD, log_weight(real_frames(len_B, x_BTD.shape[1])), speech_len_B)


class KeepSilence(nn.Module):
    """Silence after the speech is input, as in Whisper, but one frame in `thin` can stand for its neighbours.

    Frames of padded silence hardly differ.  All frames of speech and the `keep` after them stay; of the rest every
    `thin`-th stays, with its own position and log(frames it stands for) as its log-weight, in the encoder's
    self-attention and in cross-attention.  thin=1 is exact.
    """

    def __init__(self, keep: int, thin: int) -> None:
        super().__init__()
        self.keep, self.thin = keep, thin

    def subsample(self, subsampling: Subsampling, features: Features) -> Tensor:
        """Subsampled frames (B, T, D); silence is computed once and repeated, for its frames are all alike.

        An output sees less than 2 x factor frames to each side: behind the speech, two outputs still see it, the
        third sees silence alone, and the last two may see the window's end.
        """
        x_BTF, len_B, speech_len_B = features
        factor, T = subsampling.factor, x_BTF.shape[1] // subsampling.factor
        speech = -(-(int(speech_len_B.max()) + BLUR) // factor)
        if speech + 5 >= T or x_BTF.shape[1] % factor:
            return subsampling(x_BTF, len_B)
        computed = (speech + 5) * factor
        y_BTD = subsampling(x_BTF[:, :computed], len_B.clamp(max=computed))
        B, _, D = y_BTD.shape
        silence_BTD = y_BTD[:, speech + 2 : speech + 3].expand(B, T - speech - 4, D)
        return torch.cat([y_BTD[:, : speech + 2], silence_BTD, y_BTD[:, speech + 3 :]], dim=1)

    def forward(self, x_BTD: Tensor, len_B: Tensor, speech_len_B: Tensor) -> Memory:
        _, T, D = x_BTD.shape
        if self.thin == 1:
            return Memory(x_BTD, log_weight(real_frames(len_B, T)), speech_len_B)
        dense_B = torch.minimum(speech_len_B + self.keep, len_B)
        thinned_B = -(-(len_B - dense_B) // self.thin)
        kept_B = dense_B + thinned_B
        slot = torch.arange(int(kept_B.max()), device=x_BTD.device)
        after_BS = slot - dense_B[:, None]
        frame_BS = torch.where(after_BS < 0, slot, dense_B[:, None] + after_BS * self.thin)
        stands_for_BS = torch.where(after_BS < 0, 1, (len_B[:, None] - frame_BS).clamp(max=self.thin))
        weight_BS = stands_for_BS.float().log().masked_fill(slot >= kept_B[:, None], -math.inf)
        frame_BS = frame_BS.clamp(max=T - 1)
        return Memory(x_BTD.gather(1, frame_BS[..., None].expand(-1, -1, D)), weight_BS, speech_len_B)
