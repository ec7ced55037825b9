"""Local self-attention (windows and chunks) against masked full attention, and its linear cost."""

from __future__ import annotations

import math

import pytest
import torch
from models import noises, small_model
from torch import Tensor

from asr.data.batch import pad_audio
from asr.model.additive import Additive
from asr.model.attention import Form, blockwise, fused
from asr.model.band import Chunks, Near, Window
from asr.model.relative import Rotary, Shaw, TransformerXL

HEADS, K = 2, 6
FORMS = {
    "dot": Form,
    "additive": lambda: Additive(HEADS * K, HEADS),
    "shaw": lambda: Shaw(HEADS * K, HEADS, 3),
    "xl": lambda: TransformerXL(HEADS * K, HEADS),
    "rotary": Rotary,
}
NEAR = {
    "window 3, 2": lambda form: Window(form, 3, 2),
    "window 40, 0": lambda form: Window(form, 40, 0),
    "window 0, 0": lambda form: Window(form, 0, 0),
    "chunks of 4": lambda form: Chunks(form, 4, 0),
    "chunks of 5 and 2 before": lambda form: Chunks(form, 5, 2),
    "chunks of 7 and 100 before": lambda form: Chunks(form, 7, 100),
}


def seen(kind: str, i: int, j: int) -> bool:
    """Return whether frame i attends to frame j, by the definition of each kind."""
    words = kind.replace(",", "").split()
    if words[0] == "window":
        return -int(words[1]) <= j - i <= int(words[2])
    frames, before = int(words[2]), int(words[4]) if "before" in kind else 0
    return 0 <= i // frames - j // frames <= before


def drawn(T: int, real: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return queries, keys and values of two sequences with T and `real` frames, and log-weights of the keys."""
    draw = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(2, HEADS, T, K, generator=draw).requires_grad_() for _ in range(3))
    weight_B11T = torch.zeros(2, 1, 1, T)
    weight_B11T[1, ..., real:] = -math.inf
    return q, k, v, weight_B11T


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", NEAR)
def test_local_attention_equals_masked_full_attention(kind: str, form: str) -> None:
    torch.manual_seed(0)
    whole = FORMS[form]()
    near: Near = NEAR[kind](whole)
    for T, real in ((1, 1), (6, 3), (75, 33)):
        q, k, v, weight_B11T = drawn(T, real)
        seen_TT = torch.tensor([[seen(kind, i, j) for j in range(T)] for i in range(T)])
        mask_BHTT = weight_B11T.masked_fill(~seen_TT, -math.inf)
        for row, count in ((0, T), (1, real)):
            alone = [x[row : row + 1, :, :count] for x in (q, k, v)]
            placed = [whole.place(x) for x in alone[:2]]
            expected, _ = whole(fused, *placed, alone[2], mask_BHTT[row : row + 1, :, :count, :count])
            got, none = near(fused, near.place(q), near.place(k), v, weight_B11T)
            assert none is None
            torch.testing.assert_close(got[row, :, :count], expected[0], atol=2e-5, rtol=0)
            (by_mask,) = torch.autograd.grad(expected.sum(), k)
            (by_blocks,) = torch.autograd.grad(got[row, :, :count].sum(), k)
            torch.testing.assert_close(by_blocks, by_mask, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", NEAR)
def test_cost_of_local_attention_is_linear_in_length(kind: str) -> None:
    def pairs(T: int) -> int:
        count = 0

        def counting(q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tensor, None]:
            nonlocal count
            count += q.shape[0] * q.shape[2] * k.shape[2]
            return q, None

        x = torch.zeros(1, 1, T, 2)
        NEAR[kind](Form())(counting, x, x, x, torch.zeros(1, 1, 1, T))
        return count

    assert pairs(5120) < 2.1 * pairs(2560) < 2.1 * 0.4 * 2560**2


def test_window_attention_is_the_same_with_blockwise_and_fused() -> None:
    q, k, v, weight_B11T = drawn(75, 40)
    near = Window(Form(), 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(near(blockwise, q, k, v, weight_B11T)[0], near(fused, q, k, v, weight_B11T)[0])


@pytest.mark.parametrize("limits", [{"window": {"left": 4, "right": 2}}, {"chunk": {"frames": 5, "left": 1}}])
@torch.inference_mode()
def test_receptive_field_of_an_encoder_with_local_attention_is_limited(limits: dict[str, dict[str, int]]) -> None:
    model = small_model(encoder={"position": "none", **limits}, features=None).model
    audio_BN, len_B = pad_audio(noises(3.0))
    changed_BN = audio_BN.clone()
    changed_BN[:, 20_000:] = 0.0
    # Convolutions reach some frames further; normalization by the utterance's mean would reach everywhere.
    model.front_end.normalization = torch.nn.Identity()
    features = [model.front_end.spectrum(x, len_B) for x in (audio_BN, changed_BN)]
    a, b = (model.encoder(feature).states_BTD[0] for feature in features)
    assert torch.equal(a[:52], b[:52])
    assert not torch.allclose(a[62:], b[62:])
