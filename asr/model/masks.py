"""Attention masks as additive log-weights, and which encoder frames are kept.

A key's log-weight is added to its attention scores: 0 = may be attended, -inf = may not, log(k) = the key stands
for k alike.  One float form serves padding, causality and thinned silence.  Shapes: B batch, T frames, L tokens.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.features import BLUR, Features, real_frames
from asr.model.position import Places


class Memory(NamedTuple):
    """What the encoder gives to heads and decoders.

    states_BTD, log_weight_BT (see above), len_B: frames that hold speech; they come first and in order.
    """

    states_BTD: Tensor
    log_weight_BT: Tensor
    len_B: Tensor

    @classmethod
    def join(cls, parts: Sequence[Memory]) -> Memory:
        """Several batches as one, padded to the longest."""
        T = max(part.states_BTD.shape[1] for part in parts)
        return cls(
            torch.cat([F.pad(part.states_BTD, (0, 0, 0, T - part.states_BTD.shape[1])) for part in parts]),
            torch.cat([F.pad(p.log_weight_BT, (0, T - p.log_weight_BT.shape[1]), value=-math.inf) for p in parts]),
            torch.cat([part.len_B for part in parts]),
        )


def log_weight(may_attend: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn a boolean mask (True = may attend) into log-weights of the same shape."""
    return torch.zeros(may_attend.shape, dtype=dtype, device=may_attend.device).masked_fill(~may_attend, -math.inf)


def causal(L: int, device: torch.device, past: int = 0) -> Tensor:
    """Log-weights (L, past + L) under which a token sees itself and what came before."""
    return log_weight(torch.ones(L, past + L, dtype=torch.bool, device=device).tril(past))


class Subsampling(Protocol):
    """Shortens (B, T, F) with lengths (B,) to (B, ceil(T / factor), D)."""

    factor: int

    def __call__(self, x_BTF: Tensor, len_B: Tensor) -> Tensor: ...

    def lengths(self, len_B: Tensor) -> Tensor:
        """Frames that are left of `len_B`."""
        ...


class MaskPadding(nn.Module):
    """Padding is never attended, nor is silence that fills up a window: nothing but the speech is input."""

    def forward(self, subsampling: Subsampling, features: Features) -> tuple[Memory, None]:
        """Subsampled frames; each stands at its own place."""
        x_BTF, _, speech_len_B = features
        x_BTD = subsampling(x_BTF[:, : int(speech_len_B.max())], speech_len_B)
        len_B = subsampling.lengths(speech_len_B)
        return Memory(x_BTD, log_weight(real_frames(len_B, x_BTD.shape[1])), len_B), None


class KeepSilence(nn.Module):
    """Silence after the speech is input, as in Whisper, but a frame of it can stand for its neighbours.

    Frames of padded silence hardly differ, least of all far from the speech and from the window's end, to which
    attention clings.  So the speech, the `keep` frames after it and the window's last two stay; what lies between
    is cut into cells that grow by half from both ends, up to `thin` frames wide.  A cell's middle frame stands for
    it, with log(frames of the cell) as its log-weight, in the encoder's self-attention and in cross-attention.
    thin=1 is exact.  Windows may differ in length; without silence this is MaskPadding.
    """

    def __init__(self, keep: int, thin: int) -> None:
        super().__init__()
        self.keep, self.thin = keep, thin

    def forward(self, subsampling: Subsampling, features: Features) -> tuple[Memory, Places]:
        """The frames that stay, and where in the window they stood."""
        window_B, speech_B = subsampling.lengths(features.len_B), subsampling.lengths(features.speech_len_B)
        window = int(window_B.max())
        y_BTD, silence = self._subsample(subsampling, features, window)
        plans = [self._plan(*sizes) for sizes in zip(speech_B.tolist(), window_B.tolist(), strict=True)]
        at_BS = nn.utils.rnn.pad_sequence([at for at, _ in plans], batch_first=True).to(y_BTD.device)
        cells_BS = nn.utils.rnn.pad_sequence([cells for _, cells in plans], batch_first=True).to(y_BTD.device)
        # What was computed: the frames up to the first of pure silence, and the window's last two.
        end = y_BTD.shape[1] - window
        row_BS = torch.where(at_BS < window - 2, at_BS.clamp(max=silence), at_BS + end)
        x_BSD = y_BTD.gather(1, row_BS[..., None].expand(-1, -1, y_BTD.shape[2]))
        return Memory(x_BSD, cells_BS.float().log(), speech_B), Places(at_BS, cells_BS.clamp(min=1))

    def _plan(self, speech: int, window: int) -> tuple[Tensor, Tensor]:
        dense = min(speech + self.keep, window)
        at, cells = spread(window - dense, self.thin)
        return torch.cat([torch.arange(dense), dense + at]), torch.cat([torch.ones(dense, dtype=torch.long), cells])

    @staticmethod
    def _subsample(subsampling: Subsampling, features: Features, window: int) -> tuple[Tensor, int]:
        """Subsampled frames (B, T, D), and the number of the one that repeats up to the last two.

        An output sees less than 2 x factor frames to each side: behind the speech, two outputs still see it, the
        third sees silence alone, and the last two may see the window's end.
        """
        x_BTF, len_B, speech_len_B = features
        factor, length = subsampling.factor, int(len_B.max())
        speech = -(-(int(speech_len_B.max()) + BLUR) // factor)
        whole = speech + 5 >= window or length % factor
        computed = length if whole else (speech + 5) * factor
        if x_BTF.shape[1] < computed:
            missing = computed - x_BTF.shape[1]
            x_BTF = torch.cat([x_BTF, x_BTF[:, -1:].expand(-1, missing, -1)], dim=1)
        y_BTD = subsampling(x_BTF[:, :computed], len_B.clamp(max=computed))
        return y_BTD, window if whole else speech + 2


@functools.lru_cache(maxsize=4096)
def spread(n: int, widest: int) -> tuple[Tensor, Tensor]:
    """Cut n frames into cells that grow by half from both ends, up to `widest`: middles and sizes, in order."""
    left: list[int] = []
    right = [1] * min(2, n)
    rest, grown = n - len(right), 1.0
    while rest:
        grown = min(grown * 1.5, widest)
        for side in (left, right):
            side.append(min(round(grown), rest))
            rest -= side[-1]
    sizes = torch.tensor([size for size in left + right[::-1] if size], dtype=torch.long)
    return sizes.cumsum(0) - sizes + sizes // 2, sizes
