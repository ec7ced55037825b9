"""Masked decoders: their iterations against plain loops, what tokens see, and masking in training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from models import noises, small_model
from synthetic import experiment, speech_data, untrained
from torch import Tensor

from asr import losses
from asr.data.batch import pad_audio
from asr.decode.ctc import best_paths
from asr.decode.masked import Filler, lowest, mask_predict, refine
from asr.model.masked import LengthHead
from asr.model.masks import Memory, log_weight
from asr.recognizer import Recognizer
from asr.recognizer.searchers import posteriors
from asr.training.task import SpeechTask

MASK, START, VOCAB = 0, 1, 7
LAYERS = {"layers": 2, "heads": 2, "feed_forward": 32}


def fill(tokens_NL: Tensor, len_N: Tensor) -> Tensor:
    """Return log-probabilities that depend, at each position, on all tokens of the text."""
    found = []
    for tokens_L, length in zip(tokens_NL, len_N.tolist(), strict=True):
        seed = hash(tuple(tokens_L[:length].tolist())) % 2**31
        draw_LV = torch.randn(64, VOCAB, generator=torch.Generator().manual_seed(seed))
        found.append((2 * draw_LV[: len(tokens_L)]).log_softmax(-1))
    return torch.stack(found)


def filler(count: int) -> Filler:
    return Filler(fill, torch.full((count, 1), START), MASK, [START])


def predicted(tokens: list[int]) -> tuple[list[int], list[float]]:
    """Return the best token at each position of one text and its log-probability."""
    log_prob_LV = fill(torch.tensor([[START, *tokens]]), torch.tensor([len(tokens) + 1]))[0, 1:]
    rows = [[-math.inf if v in (MASK, START) else x for v, x in enumerate(row)] for row in log_prob_LV.tolist()]
    return [row.index(max(row)) for row in rows], [max(row) for row in rows]


def mask_predict_by_loop(length: int, rounds: int) -> tuple[list[int], list[float]]:
    tokens, log_probs, masked = [MASK] * length, [0.0] * length, set(range(length))
    for i in range(1, rounds + 1):
        best, values = predicted([MASK if at in masked else token for at, token in enumerate(tokens)])
        for at in masked:
            tokens[at], log_probs[at] = best[at], values[at]
        masked = set(sorted(range(length), key=lambda at: log_probs[at])[: length * (rounds - i) // rounds])
    return tokens, log_probs


@pytest.mark.parametrize("rounds", [1, 3, 4, 10])
def test_mask_predict_equals_a_plain_loop(rounds: int) -> None:
    lengths = [5, 1, 9, 0, 4]
    found = mask_predict(filler(5), torch.tensor(lengths), rounds)
    for row, values, length in zip(found.tokens_NL.tolist(), found.log_prob_NL.tolist(), lengths, strict=True):
        tokens, log_probs = mask_predict_by_loop(length, rounds)
        assert row == tokens + [0] * (9 - length)
        assert values == pytest.approx(log_probs + [0.0] * (9 - length), abs=1e-6)
        assert MASK not in row[:length]


def refine_by_loop(tokens: list[int], unsure: set[int], rounds: int) -> list[int]:
    tokens, masked, count = list(tokens), set(unsure), len(unsure)
    for i in range(1, rounds + 1):
        best, values = predicted([MASK if at in masked else token for at, token in enumerate(tokens)])
        left = set(sorted(masked, key=lambda at: (values[at], at))[: count * (rounds - i) // rounds])
        for at in masked - left:
            tokens[at] = best[at]
        masked = left
    return tokens


@pytest.mark.parametrize("rounds", [1, 2, 5, 10])
def test_refinement_equals_a_plain_loop(rounds: int) -> None:
    torch.manual_seed(3)
    lengths = [6, 3, 8, 1]
    tokens_NL = torch.randint(2, VOCAB, (4, 8))
    masked_NL = torch.rand(4, 8) < 0.6
    found = refine(filler(4), tokens_NL, torch.tensor(lengths), masked_NL, rounds)
    for n, length in enumerate(lengths):
        unsure = {at for at in range(length) if masked_NL[n, at]}
        expected = refine_by_loop(tokens_NL[n, :length].tolist(), unsure, rounds)
        assert found.tokens_NL[n, :length].tolist() == expected
        assert ((found.log_prob_NL[n] != 0) == (masked_NL[n] & (torch.arange(8) < length))).all()


def test_lowest_marks_only_eligible_positions() -> None:
    value_NL = torch.tensor([[3.0, -math.inf, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    among_NL = torch.tensor([[True, True, True, False], [False, True, True, True]])
    expected = [[False, True, True, False], [False, True, True, False]]
    assert lowest(value_NL, among_NL, torch.tensor([2, 2])).tolist() == expected
    assert lowest(value_NL, among_NL, torch.tensor([9, 0])).tolist() == [[True, True, True, False], [False] * 4]


def test_mask_ctc_with_threshold_0_equals_ctc() -> None:
    recognizer = Recognizer(small_model(decoder={"kind": "mask_ctc", **LAYERS}, threshold=0.0))
    audio_BN, len_B = pad_audio(noises(1.0, 0.5, 1.5, 0.1))
    found = recognizer.decode(audio_BN, len_B)
    with torch.inference_mode():
        memory = recognizer.model.encode(audio_BN, len_B)
        paths = best_paths(*posteriors(recognizer.decoder.parts)(memory), recognizer.tokenizer.blank_id)
    assert [h.tokens for (h,) in found] == [path.tokens for path in paths]
    assert [h.score for (h,) in found] == pytest.approx([sum(path.log_probs) for path in paths], abs=1e-4)
    other = Recognizer(small_model(decoder={"kind": "mask_ctc", **LAYERS}, threshold=1.0)).decode(audio_BN, len_B)
    assert [h.tokens for (h,) in other] != [h.tokens for (h,) in found]
    assert [len(h.tokens) for (h,) in other] == [len(h.tokens) for (h,) in found]


def test_mask_ctc_truncates_at_the_decoders_max_length() -> None:
    recognizer = Recognizer(small_model(decoder={"kind": "mask_ctc", **LAYERS, "max_length": 4}, threshold=1.0))
    found = recognizer.decode(*pad_audio(noises(1.5, 0.02)))
    assert (len(found[0][0].tokens), found[0][0].truncated) == (3, True)
    assert not found[1][0].truncated


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "shaw", "transformer_xl"])
@torch.inference_mode()
def test_tokens_see_later_tokens_but_no_padding(position: str) -> None:
    decoder = small_model(decoder={"kind": "mask_predict", "position": position, **LAYERS}).model.decoder
    memory = Memory(torch.randn(2, 5, 32), torch.zeros(2, 5), torch.tensor([5, 5]))
    heard, tokens_NL, len_N = (
        decoder.project_memory(memory),
        torch.tensor([[1, 0, 5, 6, 0], [1, 4, 0, 5, 6]]),
        torch.tensor([4, 5]),
    )
    before = decoder.fill(tokens_NL, len_N, heard)
    padding, later = tokens_NL.clone(), tokens_NL.clone()
    padding[0, 4] = 6
    later[:, 3] = 4
    torch.testing.assert_close(decoder.fill(padding, len_N, heard)[0, :4], before[0, :4])
    assert (decoder.fill(later, len_N, heard)[:, 0] - before[:, 0]).abs().amax(-1).min() > 1e-4


@torch.no_grad()
def test_length_head_matches_its_formula_and_ignores_padding() -> None:
    torch.manual_seed(0)
    head, states_BTD = LengthHead(8, 20), torch.randn(2, 30, 8)
    memory = Memory(states_BTD, log_weight(torch.ones(2, 30, dtype=torch.bool)), torch.tensor([30, 12]))
    log_prob_BX = head(memory)
    assert log_prob_BX.shape == (2, 21)
    torch.testing.assert_close(log_prob_BX.exp().sum(1), torch.ones(2))
    alone_1X = head(Memory(states_BTD[1:, :12], memory.log_weight_BT[1:, :12], memory.len_B[1:]))
    torch.testing.assert_close(alone_1X[0], log_prob_BX[1])
    rate_BT = (states_BTD @ head.rate.weight[0] + head.rate.bias).exp().log1p()
    for b, length in enumerate((30, 12)):
        mean, spread = float(rate_BT[b, :length].sum()), 0.1 + math.log(2) * (1 + float(rate_BT[b, :length].sum()))
        expected = torch.tensor([-((x - mean) ** 2) / (2 * spread) for x in range(21)]).log_softmax(0)
        torch.testing.assert_close(log_prob_BX[b], expected, atol=1e-4, rtol=1e-4)


def test_most_probable_lengths_within_the_cap_are_tried() -> None:
    parts = small_model(decoder={"kind": "mask_predict", **LAYERS}, beam_size=3, n_best=3, max_tokens_per_s=1.0)
    recognizer = Recognizer(parts)
    audio_BN, len_B = pad_audio(noises(1.0, 0.4))
    with torch.no_grad():
        parts.model.decoder.length.rate.bias.fill_(0.2)
        log_prob_BX = parts.model.decoder.length(parts.model.encode(audio_BN, len_B))
    for log_prob_X, hypotheses in zip(log_prob_BX, recognizer.decode(audio_BN, len_B), strict=True):
        allowed = log_prob_X[:10].tolist()
        best = sorted(range(1, 10), key=lambda n: -allowed[n])[:3]
        assert sorted(len(h.tokens) for h in hypotheses) == sorted(best)
        assert [h.parts["length"] for h in hypotheses] == pytest.approx([allowed[len(h.tokens)] for h in hypotheses])
        assert all(h.score == pytest.approx(h.parts["mask_predict"] / len(h.tokens)) for h in hypotheses)
    with torch.no_grad():
        parts.model.decoder.length.rate.bias.fill_(-1e3)
    parts.model.decoder.length.rate.weight.data.zero_()
    assert [[h.tokens for h in best] for best in recognizer.decode(audio_BN, len_B)] == [[()], [()]]


def test_loss_counts_only_masked_tokens() -> None:
    torch.manual_seed(0)
    logits_BLV, targets_BL = torch.randn(2, 4, VOCAB), torch.randint(0, VOCAB, (2, 4))
    masked_BL = torch.tensor([[True, False, True, False], [False, False, False, False]])
    for smoothing in (0.0, 0.1):
        found_B = losses.masked_cross_entropy(logits_BLV, targets_BL, masked_BL, smoothing)
        log_prob_LV = logits_BLV[0].log_softmax(-1)
        expected = sum(
            -(1 - smoothing) * log_prob_LV[at, targets_BL[0, at]] - smoothing * log_prob_LV[at].mean() for at in (0, 2)
        )
        torch.testing.assert_close(found_B, torch.stack([expected, torch.zeros(())]))


def test_masks_depend_on_utterance_and_training_step(config: Path) -> None:
    settings = experiment(
        config, "model.decoder={kind: mask_predict, layers: 1, heads: 2, feed_forward: 16, dropout: 0}",
        "model.encoder.dropout=0", "loss.guided_attention.weight=0", "augment.time_masks=0", "augment.freq_masks=0",
    )  # fmt: skip
    parts = untrained(settings)
    task, data = SpeechTask(parts, settings), speech_data(settings, parts)
    cuts = data.train_cuts[:5]
    batch, reverse = data.dev_batch(cuts), data.dev_batch(list(reversed(cuts)))
    first = task.losses(batch)["masked"]
    torch.testing.assert_close(task.losses(reverse)["masked"].flip(0), first)
    checked = task.criteria(task.dev_pass(batch))["masked"]
    task.batches_seen += 1
    assert not torch.isclose(task.losses(batch)["masked"], first).all()
    assert torch.equal(task.criteria(task.dev_pass(batch))["masked"], checked)
