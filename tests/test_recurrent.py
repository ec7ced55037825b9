"""Recurrent layers against torch's LSTM run on each utterance by itself."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from asr.model.layers import Placement, PostNorm, PreNorm, Stacked
from asr.model.recurrent import RecurrentLayer
from asr.model.rows import Rows

DIM = 6
LENGTHS = [3, 7, 0, 1, 7]


@pytest.mark.parametrize("placed", [PreNorm, PostNorm, Stacked])
def test_recurrent_layer_equals_an_lstm_on_each_utterance(placed: type[Placement]) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(DIM, partial(placed, nn.LayerNorm), 0.1).eval()
    alone = nn.LSTM(DIM, DIM // 2, bidirectional=True)
    alone.load_state_dict(layer.lstm.state_dict())
    rows, x_BTD = Rows(torch.tensor(LENGTHS), 9), torch.randn(len(LENGTHS), 9, DIM, requires_grad=True)

    def plain(x_TD: Tensor) -> Tensor:
        if isinstance(layer.residual, PreNorm):
            return x_TD + alone(layer.residual.norm(x_TD))[0]
        if isinstance(layer.residual, PostNorm):
            return layer.residual.norm(x_TD + alone(x_TD)[0])
        return alone(x_TD)[0]

    found = layer(rows.pack(x_BTD), rows, torch.zeros(5, 1, 1, 9))
    expected = torch.cat([plain(x_TD[:n]) for x_TD, n in zip(x_BTD, LENGTHS, strict=True) if n])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    gradients = [torch.autograd.grad(y_ND.sin().sum(), x_BTD)[0] for y_ND in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)
