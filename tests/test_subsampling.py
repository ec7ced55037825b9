"""Convolutional subsampling against torch's convolutions of each utterance by itself, without padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.subsampling import Conv1dSubsampling, Conv2dSubsampling, GluSubsampling, Subsampling

BINS, CHANNELS, DIM = 10, 6, 8


def conv1d(x_TF: Tensor, part: Subsampling) -> Tensor:
    x_1CT = x_TF.t()[None]
    for conv in part.convs:
        x_1CT = F.gelu(F.conv1d(x_1CT, conv.weight, conv.bias, conv.stride, padding=1))
    return x_1CT[0].t()


def conv2d(x_TF: Tensor, part: Subsampling) -> Tensor:
    x_1CTF = x_TF[None, None]
    for conv in part.convs:
        x_1CTF = F.gelu(F.conv2d(x_1CTF, conv.weight, conv.bias, 2, padding=1))
    return part.out(x_1CTF[0].transpose(0, 1).flatten(1))


def glu(x_TF: Tensor, part: Subsampling) -> Tensor:
    x_1CT = x_TF.t()[None]
    for conv in part.convs:
        x_1CT = F.glu(F.conv1d(x_1CT, conv.weight, conv.bias, 2, padding=2), dim=1)
    return x_1CT[0].t()


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv2d as on a GPU", "glu"])
def test_subsampling_a_batch_is_subsampling_each_utterance_alone(kind: str, factor: int) -> None:
    torch.manual_seed(0)
    kind, _, on_gpu = kind.partition(" ")
    part = {
        "conv1d": lambda: Conv1dSubsampling(BINS, CHANNELS, DIM, factor, nn.GELU()),
        "conv2d": lambda: Conv2dSubsampling(BINS, CHANNELS, DIM, factor, nn.GELU()),
        "glu": lambda: GluSubsampling(BINS, CHANNELS, DIM, factor),
    }[kind]().double()
    alone = {"conv1d": conv1d, "conv2d": conv2d, "glu": glu}[kind]
    len_B = torch.tensor([37, 1, 24, 9])
    x_BTF = torch.randn(4, 40, BINS, dtype=torch.float64)
    y_BTD = part.together(x_BTF, len_B) if on_gpu else part(x_BTF, len_B)
    assert y_BTD.shape == (4, 40 // factor, DIM)
    weights = [torch.randn(n, DIM, dtype=torch.float64) for n in part.lengths(len_B).tolist()]
    expected = [alone(x_TF[:n], part) for x_TF, n in zip(x_BTF, len_B.tolist(), strict=True)]
    for y_TD, expected_TD in zip(y_BTD, expected, strict=True):
        torch.testing.assert_close(y_TD[: len(expected_TD)], expected_TD)
    pairs = list(zip(weights, y_BTD, expected, strict=True))
    found = torch.autograd.grad(sum((w * y[: len(w)]).sum() for w, y, _ in pairs), list(part.parameters()))
    gradients = torch.autograd.grad(sum((w * y).sum() for w, _, y in pairs), list(part.parameters()))
    for gradient, expected_gradient in zip(found, gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


def test_an_utterance_without_frames_changes_no_other() -> None:
    torch.manual_seed(0)
    part = Conv2dSubsampling(BINS, CHANNELS, DIM, 4, nn.GELU())
    x_BTF = torch.randn(2, 20, BINS)
    y_BTD = part(x_BTF, torch.tensor([20, 0]))
    torch.testing.assert_close(y_BTD[:1], part(x_BTF[:1], torch.tensor([20])))
    assert y_BTD.isfinite().all()
