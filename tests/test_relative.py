"""Relative positions in attention: against plain loops over pairs, and that only the distance counts."""

from __future__ import annotations

import cmath
import itertools
import math

import pytest
import torch
from torch import Tensor

from asr.model.attention import Attend, Form, explicit, fused, split_heads
from asr.model.masks import causal
from asr.model.position import SinusoidalPosition, sinusoids
from asr.model.relative import Rotary, Shaw, TransformerXL, by_distance, by_key

DIM, HEADS, CLIP = 12, 3, 2
SIZES = [(1, 1, 0), (5, 5, 0), (1, 6, 5), (3, 7, 4), (4, 9, 2)]  # queries, keys, keys before the first query


def form_of(kind: str) -> Form:
    """Return a form whose weights are all of the same magnitude."""
    torch.manual_seed(3)
    form = {"shaw": lambda: Shaw(DIM, HEADS, CLIP), "xl": lambda: TransformerXL(DIM, HEADS), "rotary": Rotary}[kind]()
    for weight in form.parameters():
        torch.nn.init.normal_(weight).requires_grad_(False)
    return form.double()


def drawn(L: int, T: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw queries, keys, values and log-weights of two sequences."""
    draw = torch.Generator().manual_seed(L + T)
    q, k, v = (torch.randn(2, HEADS, n, DIM // HEADS, generator=draw, dtype=torch.double) for n in (L, T, T))
    return q, k, v, torch.randn(2, 1, 1, T, generator=draw, dtype=torch.double)


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def met(form: Form, q: Tensor, k: Tensor, v: Tensor, weight: Tensor | None, past: int = 0) -> Tensor:
    """Return the output of a form."""
    return form(fused, form.place(q, past), form.place(k), v, weight, past)[0]


@pytest.mark.parametrize(("L", "T", "past"), SIZES)
def test_shaw_equals_a_loop_over_pairs(L: int, T: int, past: int) -> None:
    form, (q, k, v, weight) = form_of("shaw"), drawn(L, T)
    assert isinstance(form, Shaw)
    got = met(form, q, k, v, weight, past)
    for b, h, i in itertools.product(range(2), range(HEADS), range(L)):
        row = [max(-CLIP, min(CLIP, t - (i + past))) + CLIP for t in range(T)]
        scores = [
            float(q[b, h, i] @ (k[b, h, t] + form.key_weight[row[t]])) / 2.0 + float(weight[b, 0, 0, t])
            for t in range(T)
        ]
        shares = softmax(scores)
        expected = sum(share * (v[b, h, t] + form.value_weight[row[t]]) for t, share in enumerate(shares))
        torch.testing.assert_close(got[b, h, i], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("L", "T", "past"), SIZES)
def test_transformer_xl_equals_a_loop_over_pairs(L: int, T: int, past: int) -> None:
    form, (q, k, v, weight) = form_of("xl"), drawn(L, T)
    assert isinstance(form, TransformerXL)
    got = met(form, q, k, v, weight, past)
    rates = [10_000 ** (-x / (DIM // 2 - 1)) for x in range(DIM // 2)]
    for b, h, i in itertools.product(range(2), range(HEADS), range(L)):
        scores = []
        for t in range(T):
            angles = [(i + past - t) * rate for rate in rates]
            r_D = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.double)
            r_K = (form.distance.weight @ r_D).view(HEADS, -1)[h]
            by_content = (q[b, h, i] + form.content_H1K[h, 0]) @ k[b, h, t]
            by_place = (q[b, h, i] + form.position_H1K[h, 0]) @ r_K
            scores.append(float(by_content + by_place) / 2.0 + float(weight[b, 0, 0, t]))
        expected = sum(share * v[b, h, t] for t, share in enumerate(softmax(scores)))
        torch.testing.assert_close(got[b, h, i], expected, atol=1e-5, rtol=0)


def test_rotary_rotates_complex_numbers() -> None:
    x_TK = torch.randn(7, 6, dtype=torch.double)
    got_TK = Rotary().place(x_TK[None, None], first=4)[0, 0]
    for t, x in itertools.product(range(7), range(3)):
        turned = complex(x_TK[t, x], x_TK[t, x + 3]) * cmath.exp(1j * (4 + t) * 10_000 ** (-2 * x / 6))
        assert complex(got_TK[t, x], got_TK[t, x + 3]) == pytest.approx(turned, abs=1e-5)


def formula(form: Form, q: Tensor, k: Tensor, v: Tensor, past: int) -> Tensor:
    """The output by the formula of the paper, as plain operations that autograd differentiates."""
    L, T, K = q.shape[2], *k.shape[2:]
    ahead_LT = torch.arange(T) - torch.arange(past, past + L)[:, None]
    k_BHLTK, v_BHLTK = (x[:, :, None].expand(-1, -1, L, -1, -1) for x in (k, v))
    by_place = torch.zeros(())
    if isinstance(form, Shaw):
        row_LT = ahead_LT.clamp(-CLIP, CLIP) + CLIP
        k_BHLTK, v_BHLTK = k_BHLTK + form.key_weight[row_LT], v_BHLTK + form.value_weight[row_LT]
    elif isinstance(form, TransformerXL):
        rate_X = 10_000 ** (-torch.arange(DIM // 2) / (DIM // 2 - 1)).double()
        angle_LTX = -ahead_LT[..., None] * rate_X
        r_LTHK = (torch.cat([angle_LTX.sin(), angle_LTX.cos()], -1) @ form.distance.weight.t()).unflatten(2, (HEADS, K))
        by_place = torch.einsum("bhlk,lthk->bhlt", q + form.position_H1K, r_LTHK)
        q = q + form.content_H1K
    else:
        rate_X = 10_000 ** (-2 * torch.arange(K // 2) / K).double()
        turn_LTX = torch.polar(torch.ones(()).double(), ahead_LT[..., None] * rate_X)
        q_C, k_C = (torch.complex(*x.chunk(2, dim=-1)) for x in (q[:, :, :, None], k_BHLTK))
        return torch.einsum("bhlt,bhtk->bhlk", ((q_C.conj() * k_C * turn_LTX).real.sum(-1) / K**0.5).softmax(-1), v)
    score_BHLT = (torch.einsum("bhlk,bhltk->bhlt", q, k_BHLTK) + by_place) / K**0.5
    return torch.einsum("bhlt,bhltk->bhlk", score_BHLT.softmax(-1), v_BHLTK)


@pytest.mark.parametrize("kind", ["shaw", "xl", "rotary"])
@pytest.mark.parametrize("attend", [fused, explicit])
def test_gradients_are_those_of_the_formula(kind: str, attend: Attend) -> None:
    form, (q, k, v, _) = form_of(kind), drawn(3, 5)
    wanted = [x.requires_grad_() for x in (q, k, v, *form.parameters())]
    got = form(attend, form.place(q, 2), form.place(k), v, None, 2)[0]
    expected = formula(form, q, k, v, 2)
    into = torch.randn_like(expected)
    for found, right in zip(*(torch.autograd.grad(y, wanted, into) for y in (got, expected)), strict=True):
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)
        assert right.abs().max() > 0.01


def scores_of_equals(form: Form, T: int = 9) -> Tensor:
    """Return scores (H, T, T), up to a constant per row, of identical queries and identical keys."""
    draw = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, HEADS, 1, DIM // HEADS, generator=draw).expand(-1, -1, T, -1) for _ in range(2))
    _, attention_BHTT = form(explicit, form.place(q), form.place(k), torch.zeros_like(k), None)
    assert attention_BHTT is not None
    score_HTT = attention_BHTT[0].log()
    return score_HTT - score_HTT.diagonal(dim1=1, dim2=2)[..., None]


@pytest.mark.parametrize("kind", ["shaw", "xl", "rotary"])
def test_score_of_two_positions_depends_only_on_their_distance(kind: str) -> None:
    score_HTT = scores_of_equals(form_of(kind).float())
    assert score_HTT[:, 0].std(1).min() > 0.01, "scores that ignore the distance prove nothing"
    torch.testing.assert_close(score_HTT[:, 1:, 1:], score_HTT[:, :-1, :-1], atol=2e-4, rtol=0)


def test_score_with_added_positions_depends_on_absolute_positions() -> None:
    class Added(Form):
        def place(self, x_BHTK: Tensor, first: int = 0) -> Tensor:
            return split_heads(SinusoidalPosition(DIM)(x_BHTK.transpose(1, 2).flatten(2), first), HEADS)

    score_HTT = scores_of_equals(Added())
    assert (score_HTT[:, 1:, 1:] - score_HTT[:, :-1, :-1]).abs().max() > 0.01


def test_distances_beyond_the_clip_score_alike() -> None:
    score_HT = scores_of_equals(form_of("shaw").float())[:, 0]
    torch.testing.assert_close(score_HT[:, CLIP:], score_HT[:, CLIP : CLIP + 1].expand(-1, 9 - CLIP))
    assert (score_HT[:, CLIP] - score_HT[:, CLIP - 1]).abs().min() > 1e-3


@pytest.mark.parametrize(("L", "T"), [(1, 1), (1, 5), (4, 4), (3, 7), (7, 3)])
def test_scores_by_distance_and_by_key_are_the_same_numbers(L: int, T: int) -> None:
    x_BHLR = torch.randn(2, 3, L, L + T)
    found = by_key(x_BHLR)
    for i, t in itertools.product(range(L), range(T)):
        assert torch.equal(found[:, :, i, t], x_BHLR[:, :, i, t - i + L - 1])
    back = by_distance(found)
    assert torch.equal(by_key(back), found)
    assert back.count_nonzero() == found.count_nonzero()
    assert found.untyped_storage().data_ptr() == x_BHLR.untyped_storage().data_ptr(), "found must be a view, not a copy"


@pytest.mark.parametrize("kind", ["shaw", "xl", "rotary"])
def test_attention_of_the_last_queries_equals_that_of_the_whole(kind: str) -> None:
    form, (q, k, v, _) = form_of(kind), drawn(6, 6)
    whole = met(form, q, k, v, causal(6, q.device))
    tail = form(fused, form.place(q[:, :, 4:], 4), form.place(k), v, causal(2, q.device, 4), 4)[0]
    torch.testing.assert_close(tail, whole[:, :, 4:])


def test_sinusoids_equal_their_formula() -> None:
    table_TD = sinusoids(5, 8)
    for t, x in itertools.product(range(5), range(4)):
        angle = t * 10_000 ** (-x / 3)
        assert table_TD[t, [x, x + 4]].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)
