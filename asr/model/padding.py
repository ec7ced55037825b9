"""How the encoder treats padding after the speech: it masks it, encodes it like speech, or recalls its encoding.

Shapes: B batch, T frames, F features, D width, C cells of silence, X stages: the layers and what comes after them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr.features import BLUR, Features
from asr.lengths import within
from asr.model.masks import log_weight
from asr.model.subsampling import Subsampling

LEVELS = (-1.5, -1.0, -0.5)  # of silence as a feature, which depends on how loud the speech is
LENGTHS_S = (0.9, 1.6, 4.0, 14.0)  # of the speech
WIDEST = 50  # frames in a cell of silence


class Padded(NamedTuple):
    """The input of the layers.

    x_BTD: frames, of which the layers compute the first `computed_B`.  log_weight_BT: of these frames, followed by the
    recalled cells.  len_B: the number of frames that hold speech.  silence_BXCD: the recalled silence, as each stage
    would have encoded it.
    """

    x_BTD: Tensor
    computed_B: Tensor
    log_weight_BT: Tensor
    len_B: Tensor
    silence_BXCD: Tensor | None = None


AnyPadding = Callable[[Subsampling, Features], Padded]


class MaskPadding(nn.Module):
    """Attends neither to padding nor to the silence that fills up a window: the speech is the only input."""

    def forward(self, subsampling: Subsampling, features: Features) -> Padded:
        x_BTF, _, speech_len_B = features
        x_BTD = subsampling(x_BTF[:, : int(speech_len_B.max())], speech_len_B)
        len_B = subsampling.lengths(speech_len_B)
        return Padded(x_BTD, len_B, log_weight(within(len_B, x_BTD.shape[1])), len_B)


class KeepSilence(nn.Module):
    """Encodes the silence that fills up a window, as Whisper does; without such silence it equals MaskPadding."""

    def forward(self, subsampling: Subsampling, features: Features) -> Padded:
        window_B = subsampling.lengths(features.len_B)
        x_BTD = _subsampled(subsampling, features, int(window_B.max()))
        weight_BT = log_weight(within(window_B, x_BTD.shape[1]))
        return Padded(x_BTD, window_B, weight_BT, subsampling.lengths(features.speech_len_B))


class RecallSilence(nn.Module):
    """Like KeepSilence, but recalls the silence later than `keep` frames after the speech instead of computing it.

    That silence is encoded nearly alike after any speech of equal loudness and length.  So the layers compute the
    speech and `keep` frames, and also attend to an average encoding of the rest: over several recordings, and over
    cells of neighbouring frames, whose log-weight is the logarithm of the number of frames that a cell stands for.
    `silence_MXCD` holds it for each level of silence and each length of speech (M = LEVELS x LENGTHS_S); between these
    it is linear in the level and in the logarithm of the length.  See docs/thinned-padding.md.
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
        weight_BT = log_weight(within(computed_B, x_BTD.shape[1]))
        weight_BT = torch.cat([weight_BT, count_BC.float().log()], dim=1)
        # As a feature all the silence is the same, including what x_BTF leaves out.
        share_BM = self._shares(features.x_BTF[:, -1, 0].float(), speech_B * self.frame_s)
        silence_BXCD = torch.tensordot(share_BM.to(self.silence_MXCD.dtype), self.silence_MXCD, dims=1)
        return Padded(x_BTD, computed_B, weight_BT, speech_B, silence_BXCD)

    def overlap(self, from_B: Tensor, to_B: Tensor) -> Tensor:
        """Return how many frames of each cell lie between two frames: (B, C)."""
        first_BC, last_BC = torch.maximum(self.start_C, from_B[:, None]), torch.minimum(self.end_C, to_B[:, None])
        return (last_BC - first_BC).clamp(min=0)

    @staticmethod
    def _shares(level_B: Tensor, length_B: Tensor) -> Tensor:
        level_BG = between(level_B, level_B.new_tensor(LEVELS))
        length_BN = between(length_B.log(), length_B.new_tensor(LENGTHS_S).log())
        return (level_BG[:, :, None] * length_BN[:, None]).flatten(1)


def cells(n: int) -> list[int]:
    """Return the sizes of the cells that n frames of silence are split into, smaller towards the window's end.

    They are WIDEST at most.  Attention clings to the end, and the last two frames differ from all others, since the
    convolutions see the edge.
    """
    sizes, grown = [1] * min(2, n), 1.0
    while (rest := n - sum(sizes)) > 0:
        grown = min(1.5 * grown, WIDEST)
        sizes.append(min(round(grown), rest))
    return sizes[::-1]


def between(x_B: Tensor, knots_K: Tensor) -> Tensor:
    """Return linear interpolation weights (B, K) of ascending knots at x; outside, the nearest knot has weight 1."""
    at_B = ((x_B[:, None] - knots_K[:-1]) / knots_K.diff()).clamp(0, 1).sum(1)
    return (1 - (at_B[:, None] - torch.arange(len(knots_K), device=x_B.device)).abs()).clamp(min=0)


def _subsampled(subsampling: Subsampling, features: Features, T: int) -> Tensor:
    """Return the first T subsampled frames (B, T, D) of windows; a frame of pure silence is computed once and repeated.

    An output depends on less than 2 x factor frames to each side.  So the first two outputs after the speech still see
    it, from the third on they see silence alone, and the last two may see the window's end.
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
    """Return T frames; the last one is repeated if there are fewer."""
    return torch.cat([x_BTF[:, :T], x_BTF[:, -1:].expand(-1, max(0, T - x_BTF.shape[1]), -1)], dim=1)
