"""The Conformer layer against torchaudio's, utterance by utterance."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torchaudio.models import conformer as theirs

from asr.lengths import within
from asr.model.attention import SelfAttention
from asr.model.conformer import ConformerLayer, ConvolutionModule
from asr.model.layers import FeedForward, PreNorm
from asr.model.masks import log_weight
from asr.model.norms import BatchNorm
from asr.model.rows import Rows

DIM, HEADS, INNER, KERNEL = 8, 2, 12, 5
LENGTHS = [9, 1, 6]


def ours() -> ConformerLayer:
    """Return a layer as in the paper, with batch norm in its convolution; all weights and statistics are random."""
    torch.manual_seed(0)
    halves = FeedForward(DIM, INNER, nn.SiLU(), 0.1), FeedForward(DIM, INNER, nn.SiLU(), 0.1)
    convolution = ConvolutionModule(DIM, KERNEL, BatchNorm)
    norms = partial(PreNorm, nn.LayerNorm)
    layer = ConformerLayer(DIM, SelfAttention(DIM, HEADS), convolution, halves, norms, nn.LayerNorm(DIM), 0.1)
    for value in (*layer.parameters(), *layer.buffers()):
        value.data = torch.randn(value.shape) / 2
    convolution.norm.variance_D.abs_()
    return layer.eval()


def same(layer: ConformerLayer) -> theirs.ConformerLayer:
    """Return torchaudio's layer with the same weights."""
    other = theirs.ConformerLayer(DIM, INNER, HEADS, KERNEL, dropout=0.1).eval()
    conv, state = layer.convolution, {}
    pairs = {
        "self_attn_layer_norm": layer.attention_residual.norm,
        "self_attn.out_proj": layer.attention.out,
        "conv_module.layer_norm": layer.convolution_residual.norm,
        "conv_module.sequential.2": conv.depthwise,
        "conv_module.sequential.3": conv.norm,
        "final_layer_norm": layer.norm,
    }
    for name, half, residual in (
        ("ffn1", layer.first, layer.first_residual),
        ("ffn2", layer.second, layer.second_residual),
    ):
        pairs |= {f"{name}.sequential.{at}": part for at, part in ((0, residual.norm), (1, half[0]), (4, half[3]))}
    for name, part in pairs.items():
        state |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
    qkv = layer.attention.qkv
    state |= {"self_attn.in_proj_weight": qkv.weight, "self_attn.in_proj_bias": qkv.bias}
    for name, part in (("conv_module.sequential.0", conv.gated), ("conv_module.sequential.5", conv.out)):
        state |= {f"{name}.weight": part.weight[..., None], f"{name}.bias": part.bias}
    norm = "conv_module.sequential.3"
    state |= {f"{norm}.running_mean": conv.norm.mean_D, f"{norm}.running_var": conv.norm.variance_D}
    state |= {f"{norm}.num_batches_tracked": torch.tensor(1)}
    other.conv_module.sequential[0] = nn.Conv1d(DIM, 2 * DIM, 1)
    other.conv_module.sequential[2] = nn.Conv1d(DIM, DIM, KERNEL, padding=KERNEL // 2, groups=DIM)
    other.conv_module.sequential[5] = nn.Conv1d(DIM, DIM, 1)
    other.load_state_dict(state)
    return other


@pytest.mark.parametrize("lengths", [LENGTHS, [7, 7], [3]])
def test_packed_layer_matches_torchaudio_on_each_utterance(lengths: list[int]) -> None:
    layer = ours()
    other, len_B, T = same(layer), torch.tensor(lengths), max(lengths)
    rows, x_BTD = Rows(len_B, T), torch.randn(len(lengths), T, DIM)
    weight_B11T = log_weight(within(len_B, T))[:, None, None]
    found = layer(rows.pack(x_BTD), rows, weight_B11T).split(lengths)
    for x_TD, length, y_TD in zip(x_BTD, lengths, found, strict=True):
        expected_T1D = other(x_TD[:length, None], None)
        torch.testing.assert_close(y_TD, expected_T1D[:, 0], atol=1e-5, rtol=0)


def test_gradients_do_not_cross_utterance_boundaries() -> None:
    layer, lengths = ours(), [4, 2]
    x_BTD = torch.randn(2, 4, DIM, requires_grad=True)

    def gradient(chosen: list[int]) -> torch.Tensor:
        rows = Rows(torch.tensor(lengths)[chosen], max(lengths[i] for i in chosen))
        y_ND = layer.convolution(rows.pack(x_BTD[chosen, : rows.shape[1]]), rows)
        return torch.autograd.grad(y_ND.sin().sum(), x_BTD)[0]

    torch.testing.assert_close(gradient([0, 1]), gradient([0]) + gradient([1]), atol=1e-5, rtol=0)
