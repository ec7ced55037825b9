"""What an encoder makes of the padding behind the speech: nothing, input like any other, or something it remembers.

Shapes: B batch, T frames, F features, D width, C cells of silence, X stages: the layers and what comes after them.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from asr.features import BLUR, Features, real_frames
from asr.model.masks import log_weight

LEVELS = (-1.5, -1.0, -0.5)  # of silence as a feature: it depends on how loud the speech is
LENGTHS_S = (0.9, 1.6, 4.0, 14.0)  # of the speech
WIDEST = 50  # frames of a cell of silence


class Subsampling(Protocol):
    """Shortens (B, T, F) with lengths (B,) to (B, ceil(T / factor), D)."""

    factor: int

    def __call__(self, x_BTF: Tensor, len_B: Tensor) -> Tensor: ...

    def lengths(self, len_B: Tensor) -> Tensor:
        """Frames that are left of `len_B`."""
        ...


class Padded(NamedTuple):
    """What the layers begin with.

    x_BTD: frames, of which they compute the first `computed_B`.  log_weight_BT: of these, and behind them of the cells
    that are remembered.  len_B: frames that hold speech.  silence_BXCD: what each stage would have of the silence that
    is remembered.
    """

    x_BTD: Tensor
    computed_B: Tensor
    log_weight_BT: Tensor
    len_B: Tensor
    silence_BXCD: Tensor | None = None


class AnyPadding(Protocol):
    """What is done with the frames behind the speech."""

    def __call__(self, subsampling: Subsampling, features: Features) -> Padded: ...


class MaskPadding(nn.Module):
    """Padding is never attended, nor is silence that fills up a window: nothing but the speech is input."""

    def forward(self, subsampling: Subsampling, features: Features) -> Padded:
        x_BTF, _, speech_len_B = features
        x_BTD = subsampling(x_BTF[:, : int(speech_len_B.max())], speech_len_B)
        len_B = subsampling.lengths(speech_len_B)
        return Padded(x_BTD, len_B, log_weight(real_frames(len_B, x_BTD.shape[1])), len_B)


class KeepSilence(nn.Module):
    """Silence that fills up a window is input, as in Whisper; without such silence this is MaskPadding."""

    def forward(self, subsampling: Subsampling, features: Features) -> Padded:
        window_B = subsampling.lengths(features.len_B)
        x_BTD = _subsampled(subsampling, features, int(window_B.max()))
        weight_BT = log_weight(real_frames(window_B, x_BTD.shape[1]))
        return Padded(x_BTD, window_B, weight_BT, subsampling.lengths(features.speech_len_B))


class RecallSilence(nn.Module):
    """The same, but silence from `keep` frames behind the speech on is remembered instead of computed.

    It is nearly the same behind any speech, if that is equally loud and long.  So the layers compute the speech and
    `keep` frames, and attend besides to what they would have had of the rest, on average: over several recordings,
    and over cells of neighbouring frames, whose log-weight is the logarithm of how many a cell stands for.
    `silence_MXCD` holds it for each level of silence and each length of speech (M = LEVELS x LENGTHS_S); between
    these it is linear in the level and in the logarithm of the length.  See docs/thinned-padding.md.
    """

    start_C: Tensor
    end_C: Tensor

    def __init__(self, keep: int, window: int, frame_s: float, stages: int, dim: int) -> None:
        super().__init__()
        self.keep, self.frame_s = keep, frame_s
        size_C = torch.tensor(cells(window), dtype=torch.long, device="cpu")
        self.register_buffer("end_C", size_C.cumsum(0), persistent=False)
        self.register_buffer("start_C", size_C.cumsum(0) - size_C, persistent=False)
        self.silence_MXCD = nn.Parameter(torch.zeros(len(LEVELS) * len(LENGTHS_S), stages, len(size_C), dim))

    def forward(self, subsampling: Subsampling, features: Features) -> Padded:
        window_B, speech_B = subsampling.lengths(features.len_B), subsampling.lengths(features.speech_len_B)
        computed_B = torch.minimum(speech_B + self.keep, window_B)
        x_BTD = _subsampled(subsampling, features, int(computed_B.max()))
        count_BC = self.overlap(computed_B, window_B)
        weight_BT = log_weight(real_frames(computed_B, x_BTD.shape[1]))
        weight_BT = torch.cat([weight_BT, count_BC.float().log()], dim=1)
        # All of the silence is alike as a feature; what x_BTF leaves out is, too.
        share_BM = self._shares(features.x_BTF[:, -1, 0].float(), speech_B * self.frame_s)
        silence_BXCD = torch.tensordot(share_BM.to(self.silence_MXCD.dtype), self.silence_MXCD, dims=1)
        return Padded(x_BTD, computed_B, weight_BT, speech_B, silence_BXCD)

    def overlap(self, from_B: Tensor, to_B: Tensor) -> Tensor:
        """How many frames of each cell lie between two frames: (B, C)."""
        first_BC, last_BC = torch.maximum(self.start_C, from_B[:, None]), torch.minimum(self.end_C, to_B[:, None])
        return (last_BC - first_BC).clamp(min=0)

    @staticmethod
    def _shares(level_B: Tensor, length_B: Tensor) -> Tensor:
        level_BG = between(level_B, level_B.new_tensor(LEVELS))
        length_BN = between(length_B.log(), length_B.new_tensor(LENGTHS_S).log())
        return (level_BG[:, :, None] * length_BN[:, None]).flatten(1)


def cells(n: int) -> list[int]:
    """Sizes of the cells that n frames of silence are cut into: WIDEST, but shrinking towards the window's end.

    There attention clings, and the last two frames are unlike all others, for the convolution sees the end.
    """
    sizes, grown = [1] * min(2, n), 1.0
    while (rest := n - sum(sizes)) > 0:
        grown = min(1.5 * grown, WIDEST)
        sizes.append(min(round(grown), rest))
    return sizes[::-1]


def between(x_B: Tensor, knots_K: Tensor) -> Tensor:
    """Shares (B, K) of ascending knots in linear interpolation at x; outside, the nearest has all."""
    at_B = ((x_B[:, None] - knots_K[:-1]) / knots_K.diff()).clamp(0, 1).sum(1)
    return (1 - (at_B[:, None] - torch.arange(len(knots_K), device=x_B.device)).abs()).clamp(min=0)


def _subsampled(subsampling: Subsampling, features: Features, T: int) -> Tensor:
    """The first T subsampled frames (B, T, D) of windows; a frame of pure silence is computed once and repeated.

    An output sees less than 2 x factor frames to each side: behind the speech, two outputs still see it, the third
    sees silence alone, and the last two may see the window's end.
    """
    x_BTF, len_B, speech_len_B = features
    factor, length = subsampling.factor, int(len_B.max())
    window = math.ceil(length / factor)
    silence = math.ceil((int(speech_len_B.max()) + BLUR) / factor) + 2
    if silence + 3 >= window or length % factor:
        return subsampling(_filled(x_BTF, length), len_B)[:, :T]
    y_BTD = subsampling(_filled(x_BTF, (silence + 3) * factor), len_B.clamp(max=(silence + 3) * factor))
    at_T = torch.arange(T, device=y_BTD.device)
    return y_BTD[:, torch.where(at_T < window - 2, at_T.clamp(max=silence), at_T - window + silence + 3)]


def _filled(x_BTF: Tensor, T: int) -> Tensor:
    """T frames, the last one repeated where there are fewer."""
    return torch.cat([x_BTF[:, :T], x_BTF[:, -1:].expand(-1, max(0, T - x_BTF.shape[1]), -1)], dim=1)
