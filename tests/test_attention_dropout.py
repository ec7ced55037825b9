"""Dropout of attention weights in every form of attention: active in training, not in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import small_model
from torch import Tensor

from asr.config import EncoderConfig
from asr.model.additive import Additive
from asr.model.attention import Attend, CrossAttention, Form, SelfAttention, explicit, fused, products
from asr.model.band import Chunks, Window
from asr.model.layers import Dropout
from asr.model.relative import Rotary, Shaw, TransformerXL

DIM, HEADS, T, P = 12, 3, 7, 0.25
FORMS: dict[str, Form] = {
    "dot": Form(P),
    "additive": Additive(DIM, HEADS, P),
    "shaw": Shaw(DIM, HEADS, 3, P),
    "transformer_xl": TransformerXL(DIM, HEADS, P),
    "rotary": Rotary(P),
    "window": Window(Form(P), 2, 2),
    "chunk": Chunks(Rotary(P), 3, 1),
}


def drawn() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, HEADS, T, DIM // HEADS) for _ in range(3)]


@pytest.mark.parametrize("attend", [fused, explicit, products])
def test_dropout_zeroes_some_weights_and_rescales_the_others(attend: Attend) -> None:
    q, k, v = drawn()
    dropout = Dropout(P)
    torch.manual_seed(1)
    got, weights = attend(q, k, v, None, dropout)
    whole = (q @ k.transpose(-1, -2) / (DIM // HEADS) ** 0.5).softmax(-1)
    torch.manual_seed(1)
    kept = dropout(torch.ones_like(whole))  # the same draws
    assert 0.05 < (kept == 0).float().mean() < 0.5
    torch.testing.assert_close(got, whole * kept @ v)
    if weights is not None:
        torch.testing.assert_close(weights, whole, msg="the returned weights must be those before dropout")


@pytest.mark.parametrize("name", FORMS)
def test_dropout_is_active_in_training_only_and_unbiased(name: str) -> None:
    (q, k, v), form = drawn(), FORMS[name].requires_grad_(False)
    given = form.place(q), form.place(k), v, torch.zeros(2, 1, 1, T)
    whole, _ = form.eval()(fused, *given)
    torch.testing.assert_close(form(fused, *given)[0], whole)
    form.train()
    draws = torch.stack([form(fused, *given)[0] for _ in range(3000)])
    assert not torch.allclose(draws[0], draws[1])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - whole).abs() < 6 * error + 1e-5).all()


def test_encoder_and_decoder_have_their_own_dropout_rates() -> None:
    sides: dict[str, Any] = {"encoder": {"attention_dropout": 0.1}, "decoder": {"attention_dropout": 0.2}}
    model = small_model(**sides).model
    for side, share in (("encoder", 0.1), ("decoder", 0.2)):
        found = [m for m in getattr(model, side).modules() if isinstance(m, SelfAttention | CrossAttention)]
        assert found
        assert [m.form.dropout.p for m in found] == [share] * len(found)


def test_attention_dropout_is_refused_for_layers_without_attention() -> None:
    with pytest.raises(ValueError, match="attention_dropout are for layers with attention"):
        EncoderConfig(layer="lstm", attention_dropout=0.1)
