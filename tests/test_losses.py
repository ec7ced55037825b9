"""Losses against independent computations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from asr import losses


def test_smoothed_cross_entropy_equals_a_loop_and_ignores_padding() -> None:
    logits_BLV = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    targets_BL, len_B = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0]]), torch.tensor([3, 1])
    got = losses.cross_entropy(logits_BLV, targets_BL, len_B, smoothing=0.1)
    for b in range(2):
        total = 0.0
        for i in range(int(len_B[b])):
            log_prob = logits_BLV[b, i].log_softmax(-1)
            goal = torch.full((5,), 0.1 / 5)
            goal[targets_BL[b, i]] += 0.9
            total -= float((goal * log_prob).sum())
        assert got[b].item() == pytest.approx(total, abs=1e-5)


def test_ctc_equals_the_sum_over_paths() -> None:
    log_probs_BTV = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    frames_B, targets_BL, len_B = torch.tensor([5, 4]), torch.tensor([[1, 1], [2, 0]]), torch.tensor([2, 1])
    got = losses.ctc(log_probs_BTV, frames_B, targets_BL, len_B, blank=0)
    for b in range(2):
        total = 0.0
        for path in itertools.product(range(4), repeat=int(frames_B[b])):
            text = [k for k, _ in itertools.groupby(path) if k != 0]
            if text == targets_BL[b, : int(len_B[b])].tolist():
                total += math.exp(sum(float(log_probs_BTV[b, t, k]) for t, k in enumerate(path)))
        assert got[b].item() == pytest.approx(-math.log(total), abs=1e-4)


def test_ctc_fits_counts_the_blank_between_repeats() -> None:
    assert losses.ctc_fits(3, [1, 1])
    assert not losses.ctc_fits(2, [1, 1])
    assert losses.ctc_fits(2, [1, 2])


def test_guided_attention_equals_a_loop() -> None:
    attention_BHLT = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(2)).softmax(-1)
    len_B, frames_B = torch.tensor([4, 2]), torch.tensor([6, 5])
    got = losses.guided_attention(attention_BHLT, len_B, frames_B, width=0.3)
    for b in range(2):
        L, T, total = int(len_B[b]), int(frames_B[b]), 0.0
        for h, i, t in itertools.product(range(3), range(L), range(6)):
            penalty = 1 - math.exp(-((i / L - t / T) ** 2) / (2 * 0.3**2)) if t < T else 1.0
            total += float(attention_BHLT[b, h, i, t]) * penalty
        assert got[b].item() == pytest.approx(total / (3 * L), abs=1e-5)


def test_guided_attention_gradient_is_the_penalty_of_each_weight() -> None:
    attention_BHLT = torch.rand(2, 3, 4, 6, requires_grad=True)
    len_B, frames_B = torch.tensor([4, 2]), torch.tensor([6, 5])
    losses.guided_attention(attention_BHLT, len_B, frames_B, width=0.3).sum().backward()
    assert attention_BHLT.grad is not None
    for b, h, i, t in itertools.product(range(2), range(3), range(4), range(6)):
        L, T = int(len_B[b]), int(frames_B[b])
        penalty = 1 - math.exp(-((i / L - t / T) ** 2) / (2 * 0.3**2)) if t < T else 1.0
        expected = penalty / (3 * L) if i < L else 0.0
        assert float(attention_BHLT.grad[b, h, i, t]) == pytest.approx(expected, abs=1e-6)


def test_guided_attention_prefers_the_diagonal() -> None:
    diagonal = torch.eye(8)[None, None]
    reverse = diagonal.flip(-1)
    n = torch.tensor([8])
    assert losses.guided_attention(diagonal, n, n).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.guided_attention(reverse, n, n).item() > 0.5


def test_policy_gradient_equals_a_loop() -> None:
    torch.manual_seed(3)
    log_prob_BN = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    errors_BN, baseline_B = torch.tensor([[2.0, 0, 5], [1, 1, 0]]), torch.tensor([3.0, 1.0])
    value_B = losses.policy_gradient(log_prob_BN, errors_BN, baseline_B)
    for b in range(2):
        terms = [(errors_BN[b, n] - baseline_B[b]).item() * log_prob_BN[b, n].item() for n in range(3)]
        assert value_B[b].item() == pytest.approx(sum(terms) / 3)
    (push_BN,) = torch.autograd.grad(value_B.sum(), log_prob_BN)
    torch.testing.assert_close(push_BN, torch.tensor([[-1.0, -3, 2], [0, 0, -1]], dtype=torch.double) / 3)


def test_linear_decay() -> None:
    assert [losses.linear_decay(2.0, step, 4) for step in (0, 1, 4, 9)] == [2.0, 1.5, 0.0, 0.0]
    assert losses.linear_decay(2.0, 1000, 0) == 2.0
