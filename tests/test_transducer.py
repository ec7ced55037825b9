"""The transducer's loss, search and alignment against plain dynamic programming and enumeration."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch
from torch import Tensor

from asr import losses
from asr.decode.search import SearchOptions
from asr.decode.transducer import Limits, transducer_search
from asr.frames import best_alignment
from asr.model.transducer import ConvPredictor, Joiner, LstmPredictor, Transducer

BLANK, START = 1, 0
UNLIMITED = 1000


def transducer(kind: str = "lstm", vocab: int = 5, seed: int = 0, gain: float = 4.0) -> Transducer:
    """Return a small transducer with weights large enough for tokens and frames to matter."""
    torch.manual_seed(seed)
    predictor = LstmPredictor(vocab, 6, 2, 0.0) if kind == "lstm" else ConvPredictor(vocab, 6, int(kind), 0.0)
    model = Transducer(predictor, Joiner(4, 6, 8, vocab)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(gain if weight.dim() > 1 else 1.0)
    return model


def loss_by_loop(log_prob_TUV: Tensor, target: list[int], blank: int = BLANK) -> Tensor:
    """Return the negative log-likelihood, summed over all alignments cell by cell."""
    T = len(log_prob_TUV)
    alpha: dict[tuple[int, int], Tensor] = {(0, 0): torch.zeros(())}
    for t, u in itertools.product(range(T), range(len(target) + 1)):
        ways = []
        if t > 0:
            ways.append(alpha[t - 1, u] + log_prob_TUV[t - 1, u, blank])
        if u > 0:
            ways.append(alpha[t, u - 1] + log_prob_TUV[t, u - 1, target[u - 1]])
        if ways:
            alpha[t, u] = torch.stack(ways).logsumexp(0)
    return -(alpha[T - 1, len(target)] + log_prob_TUV[T - 1, len(target), blank])


def test_loss_and_gradient_match_plain_dynamic_programming() -> None:
    torch.manual_seed(0)
    targets = [[2, 0, 3], [4], [], [2, 2]]
    frames_B, len_B = torch.tensor([5, 4, 2, 1]), torch.tensor([len(t) for t in targets])
    logits_BTUV = torch.randn(4, 7, 5, 6, dtype=torch.float32).requires_grad_()  # longer than any utterance
    padded_BL = torch.full((4, 4), 5)
    for row, target in zip(padded_BL, targets, strict=True):
        row[: len(target)] = torch.tensor(target)
    found_B = losses.transducer(logits_BTUV, frames_B, padded_BL, len_B, BLANK)
    share_B = torch.tensor([1.0, 0.5, 2.0, 3.0])
    (found_grad,) = torch.autograd.grad((share_B * found_B).sum(), logits_BTUV)
    expected = []
    for b, target in enumerate(targets):
        log_prob_TUV = logits_BTUV[b, : int(frames_B[b])].double().log_softmax(-1)
        expected.append(loss_by_loop(log_prob_TUV, target))
    expected_B = torch.stack(expected)
    (expected_grad,) = torch.autograd.grad((share_B * expected_B).sum(), logits_BTUV)
    torch.testing.assert_close(found_B.double(), expected_B, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found_grad, expected_grad, atol=1e-5, rtol=1e-4)
    assert found_grad[2, 2:].abs().max() == 0


@pytest.mark.parametrize("kind", ["lstm", "1", "3"])
def test_stepwise_prediction_equals_whole_sequence_prediction(kind: str) -> None:
    model, tokens_BL = transducer(kind), torch.tensor([[0, 3, 2, 2, 4], [0, 4, 1, 3, 3]])
    with torch.inference_mode():
        y_BLE = model.joiner.token(model.predictor(tokens_BL))
        for P in (1, 3):
            y_BJ, state = model.start(tokens_BL[:, :P])
            torch.testing.assert_close(y_BJ, y_BLE[:, P - 1])
            for at in range(P, 5):
                y_BJ, state = model.step(tokens_BL[:, at], state)
                torch.testing.assert_close(y_BJ, y_BLE[:, at])
                assert all(len(x) == 2 for x in state)


def search(
    model: Transducer, states_BTD: Tensor, len_B: Tensor, options: SearchOptions, symbols: int = UNLIMITED, cap: int = 3
) -> list[list[tuple[tuple[int, ...], float]]]:
    limits = Limits([START], symbols, [cap] * len(len_B))
    prefix_BP = torch.full((len(len_B), 1), START)
    with torch.inference_mode():
        found = transducer_search(model, model.frames(states_BTD), len_B, prefix_BP, BLANK, limits, options)
    assert all(h.parts["transducer"] == pytest.approx(h.score) for h in itertools.chain(*found))
    return [[(h.tokens, h.score) for h in hypotheses] for hypotheses in found]


@torch.no_grad()
def exact(model: Transducer, states_TD: Tensor, text: tuple[int, ...]) -> float:
    logits_1TUV = model(torch.tensor([[START, *text]]), 1, states_TD[None])
    return -float(loss_by_loop(logits_1TUV[0].double().log_softmax(-1), list(text)))


@pytest.mark.parametrize("kind", ["lstm", "2"])
@pytest.mark.parametrize("seed", range(3))
def test_wide_beam_finds_the_best_of_all_texts(kind: str, seed: int) -> None:
    model = transducer(kind, seed=seed)
    states_BTD, len_B = torch.randn(2, 4, 4), torch.tensor([4, 3])
    found = search(model, states_BTD, len_B, SearchOptions(beam_size=60, n_best=5))
    texts = [text for n in range(4) for text in itertools.product([2, 3, 4], repeat=n)]
    for states_TD, length, best in zip(states_BTD, len_B.tolist(), found, strict=True):
        expected = sorted(((exact(model, states_TD[:length], text), text) for text in texts), reverse=True)[:5]
        assert [text for text, _ in best] == [text for _, text in expected]
        assert [score for _, score in best] == pytest.approx([score for score, _ in expected], abs=1e-4)


@pytest.mark.parametrize("bonus", [-3.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_search_does_not_prune_the_text_that_the_length_bonus_favours(bonus: float, seed: int) -> None:
    model, states_1TD = transducer(seed=seed), torch.randn(1, 4, 4)
    limits, prefix_BP = Limits([START], UNLIMITED, [3]), torch.full((1, 1), START)
    options = SearchOptions(beam_size=60, n_best=1, length_bonus=bonus)
    with torch.inference_mode():
        frames_1TJ = model.frames(states_1TD)
        ((found,),) = transducer_search(model, frames_1TJ, torch.tensor([4]), prefix_BP, BLANK, limits, options)
    texts = [text for n in range(4) for text in itertools.product([2, 3, 4], repeat=n)]
    scores = {text: exact(model, states_1TD[0], text) + bonus * len(text) for text in texts}
    assert found.tokens == max(scores, key=lambda text: scores[text])
    assert found.score == pytest.approx(scores[found.tokens], abs=1e-4)


@pytest.mark.parametrize("beam", [2, 4])
def test_narrow_beam_finds_distinct_texts_and_never_overrates_them(beam: int) -> None:
    model, states_BTD = transducer(seed=5), torch.randn(4, 6, 4)
    found = search(model, states_BTD, torch.full((4,), 6), SearchOptions(beam_size=beam, n_best=beam), cap=6)
    for states_TD, best in zip(states_BTD, found, strict=True):
        assert len({text for text, _ in best}) == len(best) >= 1
        for text, score in best:
            assert score <= exact(model, states_TD, text) + 1e-6


@torch.no_grad()
def greedy_by_loop(model: Transducer, states_TD: Tensor, symbols: int, cap: int) -> tuple[tuple[int, ...], float]:
    @cache
    def look(t: int, text: tuple[int, ...]) -> list[float]:
        logits_1TUV = model(torch.tensor([[START, *text]]), 1, states_TD[None, t : t + 1])
        return logits_1TUV[0, 0, -1].log_softmax(-1).tolist()

    text, total = (), 0.0
    for t in range(len(states_TD)):
        for count in itertools.count():
            log_probs = look(t, text)
            allowed = [BLANK, 2, 3, 4] if count < symbols and len(text) < cap else [BLANK]
            token = max(allowed, key=lambda i: log_probs[i])
            total += log_probs[token]
            if token == BLANK:
                break
            text += (token,)
    return text, total


@pytest.mark.parametrize(("symbols", "cap"), [(UNLIMITED, 7), (1, 7), (2, 7), (2, 2), (2, 0)])
def test_beam_size_1_is_greedy_search(symbols: int, cap: int) -> None:
    model, states_BTD, len_B = transducer(seed=2, gain=6.0), 2 * torch.randn(6, 5, 4), torch.tensor([5, 5, 2, 1, 4, 5])
    found = search(model, states_BTD, len_B, SearchOptions(), symbols, cap)
    for states_TD, length, ((text, score),) in zip(states_BTD, len_B.tolist(), found, strict=True):
        expected, total = greedy_by_loop(model, states_TD[:length], symbols, cap)
        assert text == expected
        assert score == pytest.approx(total, abs=1e-4)
    assert len({best[0][0] for best in found}) > 1 or cap == 0


def test_batching_and_padding_change_nothing_and_no_frames_give_no_text() -> None:
    model, states_BTD, lengths = transducer(seed=4), torch.randn(4, 9, 4), [9, 2, 0, 6]
    options = SearchOptions(beam_size=3, n_best=3)
    together = search(model, states_BTD, torch.tensor(lengths), options, cap=8)
    assert together[2] == [((), 0.0)]
    for b, length in enumerate(lengths):
        (alone,) = search(model, states_BTD[b : b + 1, : max(1, length)], torch.tensor([length]), options, cap=8)
        assert [text for text, _ in alone] == [text for text, _ in together[b]]
        assert [score for _, score in alone] == pytest.approx([score for _, score in together[b]], abs=1e-5)


@pytest.mark.parametrize(("T", "L"), [(4, 2), (3, 3), (1, 2), (5, 1)])
def test_best_alignment_is_the_best_of_all_alignments(T: int, L: int) -> None:
    torch.manual_seed(T)
    blank_TU, said_TL = torch.randn(T, L + 1).double(), torch.randn(T, L).double()

    def total(at: tuple[int, ...]) -> float:
        ends = [0, *at, T - 1]
        passed = sum(float(blank_TU[a:b, u].sum()) for u, (a, b) in enumerate(itertools.pairwise(ends)))
        return passed + sum(float(said_TL[t, u]) for u, t in enumerate(at))

    ways = itertools.combinations_with_replacement(range(T), L)
    best = max(ways, key=total)
    assert best_alignment(blank_TU, said_TL) == list(best)
