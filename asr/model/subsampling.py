"""Convolutions that shorten the frame sequence before the encoder layers; padding is zeroed before each of them.

Shapes: B batch, T frames, F mel bins, C channels, K inputs of a 3 x 3 convolution, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.lengths import within


def _initialize(convs: nn.ModuleList) -> None:
    """Initialise as He et al. 2015, which preserves the scale of the features through the convolutions."""
    for conv in convs:
        assert isinstance(conv, nn.Conv1d | nn.Conv2d)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)


class Subsampling(nn.Module):
    """Shortens (B, T, F) with lengths (B,) to (B, ceil(T / factor), D)."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def lengths(self, len_B: Tensor) -> Tensor:
        """Return the number of output frames for `len_B` input frames."""
        return -(-len_B // self.factor)


class _OverTime(Subsampling):
    """1-D convolutions over time, each followed by an activation."""

    def __init__(self, factor: int, convs: Iterable[nn.Conv1d], activation: nn.Module) -> None:
        super().__init__(factor)
        self.convs = nn.ModuleList(convs)
        _initialize(self.convs)
        self.activation = activation

    def forward(self, x_BTF: Tensor, len_B: Tensor) -> Tensor:
        """Map (B, T, F) to (B, ceil(T / factor), D)."""
        x_BCT = x_BTF.transpose(1, 2)
        for conv in cast(Iterable[nn.Conv1d], self.convs):
            real_B1T = within(len_B, x_BCT.shape[2])[:, None]
            x_BCT = self.activation(conv(x_BCT.masked_fill(~real_B1T, 0.0)))
            len_B = -(-len_B // conv.stride[0])
        return x_BCT.transpose(1, 2)


class Conv1dSubsampling(_OverTime):
    """1-D convolutions of width 3 over time.

    Their strides are 1, 2 for a factor of 2 (Whisper's stem), 2, 2 for 4 and 2, 2, 2 for 8.
    """

    def __init__(self, n_mels: int, channels: int, dim: int, factor: int, activation: nn.Module) -> None:
        strides = {2: (1, 2), 4: (2, 2), 8: (2, 2, 2)}[factor]
        sizes = [n_mels, *[channels] * (len(strides) - 1), dim]
        shapes = zip(sizes[:-1], sizes[1:], strides, strict=True)
        super().__init__(factor, (nn.Conv1d(i, o, 3, stride=s, padding=1) for i, o, s in shapes), activation)


class GluSubsampling(_OverTime):
    """1-D convolutions of width 5 and stride 2 over time, each with a gated linear unit (Synnaeve et al. 2020).

    This is the stem of fairseq's Speech2Text (Wang et al. 2020), whose own version lets padding into the last frames.
    """

    def __init__(self, n_mels: int, channels: int, dim: int, factor: int) -> None:
        sizes = [n_mels, *[channels] * (int(math.log2(factor)) - 1), dim]
        shapes = zip(sizes[:-1], sizes[1:], strict=True)
        super().__init__(factor, (nn.Conv1d(i, 2 * o, 5, stride=2, padding=2) for i, o in shapes), nn.GLU(dim=1))


class Conv2dSubsampling(Subsampling):
    """3 x 3 convolutions with stride 2 over time and frequency, then a linear map to the model's width."""

    def __init__(self, n_mels: int, channels: int, dim: int, factor: int, activation: nn.Module) -> None:
        super().__init__(factor)
        count = int(math.log2(factor))
        sizes = [1, *[channels] * count]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in zip(sizes[:-1], sizes[1:], strict=True)
        )
        _initialize(self.convs)
        self.activation = activation
        bins = n_mels
        for _ in range(count):
            bins = (bins + 1) // 2
        self.out = nn.Linear(channels * bins, dim)

    def forward(self, x_BTF: Tensor, len_B: Tensor) -> Tensor:
        """Map (B, T, F) to (B, ceil(T / factor), D)."""
        return self.one_by_one(x_BTF, len_B) if x_BTF.device.type == "cpu" else self.together(x_BTF, len_B)

    def together(self, x_BTF: Tensor, len_B: Tensor) -> Tensor:
        """Convolve the whole batch, as suits a GPU."""
        x_BCTF = x_BTF[:, None]
        for conv in self.convs:
            real_B1T1 = within(len_B, x_BCTF.shape[2])[:, None, :, None]
            x_BCTF = self.activation(conv(x_BCTF.masked_fill(~real_B1T1, 0.0)))
            len_B = -(-len_B // 2)
        y_BTD: Tensor = self.out(x_BCTF.transpose(1, 2).flatten(2))
        return y_BTD

    def one_by_one(self, x_BTF: Tensor, len_B: Tensor) -> Tensor:
        """Convolve each utterance without its padding: what a CPU computes for one stays in its caches."""
        outputs = [self._of_one(x_TF[:length]) for x_TF, length in zip(x_BTF, len_B.clamp(min=1).tolist(), strict=True)]
        y_BTD = nn.utils.rnn.pad_sequence(outputs, batch_first=True)
        return F.pad(y_BTD, (0, 0, 0, -(-x_BTF.shape[1] // self.factor) - y_BTD.shape[1]))

    def _of_one(self, x_TF: Tensor) -> Tensor:
        """Map the frames of one utterance, (T, F), to (ceil(T / factor), D).

        With one input channel, a convolution is faster as a matrix product, which leaves the channels last in memory.
        """
        (weight_C133, bias_C), *others = ((conv.weight, conv.bias) for conv in cast(Iterable[nn.Conv2d], self.convs))
        x_TFK = F.pad(x_TF, (1, 1, 1, 1)).unfold(0, 3, 2).unfold(1, 3, 2).flatten(2)
        x_TFC = self.activation(F.linear(x_TFK, weight_C133.flatten(1), bias_C))
        x_1CTF = x_TFC.permute(2, 0, 1)[None]
        for weight, bias_C in others:
            weight = weight.contiguous(memory_format=torch.channels_last)
            x_1CTF = self.activation(F.conv2d(x_1CTF, weight, bias_C, stride=2, padding=1))
        y_TD: Tensor = self.out(x_1CTF[0].transpose(0, 1).flatten(1))
        return y_TD
