"""Sequences packed without padding: unpacking, gradients, and that layers compute no padding."""

from __future__ import annotations

import pytest
import torch
from models import noises, small_model
from torch import Tensor, nn

from asr.data.batch import pad_audio
from asr.losses import cross_entropy
from asr.model.attention import products
from asr.model.precision import attend_by
from asr.model.rows import Rows


@pytest.mark.parametrize("lengths", [[5, 3, 1], [2, 5], [4, 0, 5], [5, 5], [3]])
def test_packed_rows_keep_their_order_and_are_spread_back(lengths: list[int]) -> None:
    x_BTD = torch.randn(len(lengths), 5, 2)
    rows = Rows(torch.tensor(lengths), 5)
    x_ND = rows.pack(x_BTD)
    assert torch.equal(x_ND, torch.cat([x_TD[:length] for x_TD, length in zip(x_BTD, lengths, strict=True)]))
    back_BTD, zeroed_BTD = rows.spread(x_ND), rows.spread_zeros(x_ND)
    assert back_BTD.shape == zeroed_BTD.shape == x_BTD.shape
    for x_TD, back_TD, zeroed_TD, length in zip(x_BTD, back_BTD, zeroed_BTD, lengths, strict=True):
        assert torch.equal(back_TD[:length], x_TD[:length])
        assert torch.equal(zeroed_TD[:length], x_TD[:length])
        assert not zeroed_TD[length:].any()
        if length:
            assert torch.equal(back_TD[length:], x_TD[length - 1].expand(5 - length, 2))


def test_gradients_of_packing_and_spreading_are_exact() -> None:
    lengths, x_BTD = [4, 2, 5], torch.randn(3, 5, 2, dtype=torch.double, requires_grad=True)
    rows, scale_BTD = Rows(torch.tensor(lengths), 5), torch.randn(3, 5, 2, dtype=torch.double)
    real_BT1 = (torch.arange(5) < torch.tensor(lengths)[:, None])[..., None]

    def mixed(x_BTD: Tensor) -> Tensor:
        """Mix positions in time, without those of padding."""
        return (x_BTD * scale_BTD).masked_fill(~real_BT1, 0.0).cumsum(1)

    got = rows.pack(mixed(rows.spread(rows.pack(x_BTD).square()))).sin().sum()
    (expected_BTD,) = torch.autograd.grad(mixed(x_BTD.square())[real_BT1.squeeze(2)].sin().sum(), x_BTD)
    assert torch.equal(torch.autograd.grad(got, x_BTD)[0], expected_BTD)
    assert not expected_BTD[1, 2:].any()


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_batch_gradient_is_the_sum_of_those_of_its_utterances(precision: str, most: float) -> None:
    model, audio = small_model().model, noises(1.0, 0.4, 0.7)
    inputs_BL, targets_BL, len_B = torch.randint(3, 9, (3, 6)), torch.randint(3, 9, (3, 6)), torch.tensor([6, 2, 4])
    if precision == "bfloat16":
        attend_by(products, model)

    def gradient(chosen: list[int]) -> Tensor:
        model.zero_grad()
        L = int(len_B[chosen].max())
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            memory = model.encoder(model.front_end(*pad_audio([audio[i] for i in chosen])))
            logits_BLV, _ = model.decoder(inputs_BL[chosen, :L], memory, None, len_B[chosen])
        cross_entropy(logits_BLV, targets_BL[chosen, :L], len_B[chosen]).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    alone = sum((gradient([i]) for i in range(3)), torch.zeros(()))
    assert (gradient([0, 1, 2]) - alone).norm() < most * alone.norm()


def test_layers_do_not_compute_padding() -> None:
    parts = small_model()
    counts: list[int] = []
    for module in parts.model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, args: counts.append(args[0][..., 0].numel()))
    tokens_BL, len_B = torch.randint(3, 9, (3, 6)), torch.tensor([6, 2, 4])
    memory = parts.model.encode(*pad_audio(noises(1.0, 0.4, 0.7)))
    parts.model.decoder(tokens_BL, memory, None, len_B)
    assert set(counts) == {int(memory.len_B.sum()), int(len_B.sum())}
