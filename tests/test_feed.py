"""Decoder inputs in training, against loops over utterances and tokens."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from synthetic import WORDS, experiment_file
from test_task import fit, prepared
from torch import Tensor

from asr.config import ScheduledSamplingConfig
from asr.data.batch import Batch
from asr.tokenizer import CharacterTokenizer
from asr.training.criteria import Pass
from asr.training.criteria.base import teacher_forcing
from asr.training.criteria.feed import ScheduledSampling, text_tokens
from asr.training.modes import evaluating
from asr.training.task import SpeechTask

PLAIN = ("augment={}", "loss={label_smoothing: 0}", "tokenizer.languages=[en, es]")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


def loaded(path: Path, *overrides: str) -> tuple[SpeechTask, Batch]:
    """Return an untrained model in evaluation mode and a batch of six utterances."""
    task, data = prepared(path, *PLAIN, *overrides)
    task.eval()
    return task, data.dev_batch(list(data.train_cuts)[:6])


def fed(task: SpeechTask, batch: Batch, step: int | None = None) -> Tensor:
    features = task.model.front_end(batch.audio_BN, batch.audio_len_B)
    return Pass(task.model, batch, features, feed=task.criteria.feed, draws=task._draws, step=step).inputs_BL


def inputs(batch: Batch, b: int) -> list[int]:
    return batch.inputs_BL[b, : int(batch.target_len_B[b])].tolist()


def said(task: SpeechTask, batch: Batch, b: int, tokens: list[int]) -> list[int]:
    """Return the prefix and, in place of each later token, the letter predicted after the tokens before it."""
    memory = task.model.encode(batch.audio_BN[b : b + 1, : int(batch.audio_len_B[b])], batch.audio_len_B[b : b + 1])
    found = tokens[: batch.prefix_length]
    for i in range(batch.prefix_length, len(tokens)):
        logits_BLV, _ = task.model.decoder(torch.tensor([tokens[:i]]), memory)
        row = logits_BLV[0, -1].tolist()
        letters = [v for v in range(task.tokenizer.vocab_size) if task.tokenizer.decode([v])]
        found.append(max(letters, key=row.__getitem__))
    return found


@torch.no_grad()
def test_loss_on_predicted_inputs_equals_a_loop(path: Path) -> None:
    task, batch = loaded(path, "loss.scheduled_sampling={share: 1, schedule: constant}")
    assert batch.prefix_length == 2
    got, inputs_BL = task.losses(batch)["ce"], fed(task, batch)
    changed = 0
    for b in range(len(batch.ids)):
        gold = inputs(batch, b)
        expected = said(task, batch, b, gold)
        assert inputs_BL[b, : len(gold)].tolist() == expected
        changed += expected != gold
        memory = task.model.encode(batch.audio_BN[b : b + 1, : int(batch.audio_len_B[b])], batch.audio_len_B[b : b + 1])
        log_probs_LV = task.model.decoder(torch.tensor([expected]), memory)[0][0].log_softmax(-1)
        targets = batch.targets_BL[b, : len(gold)].tolist()
        loss = -sum(float(log_probs_LV[i, token]) for i, token in enumerate(targets))
        assert got[b].item() == pytest.approx(loss, abs=1e-4)
    assert changed == len(batch.ids)


@torch.no_grad()
def test_predictions_are_made_without_dropout(path: Path) -> None:
    dropout = "model.encoder.dropout=0", "model.decoder.dropout=0.5"
    task, batch = loaded(path, *dropout, "loss.scheduled_sampling={share: 1, schedule: constant}")
    task.train()
    once = fed(task, batch)
    assert torch.equal(once, fed(task, batch))
    assert task.model.decoder.training
    task.eval()
    assert torch.equal(once, fed(task, batch))


def test_training_is_unchanged_until_scheduled_sampling_starts(path: Path) -> None:
    plain = fit(*prepared(path, "trainer.max_steps=3"))
    later = "loss.scheduled_sampling={share: 1, schedule: constant, from_step: 3}"
    none = fit(*prepared(path, "trainer.max_steps=3", later))
    assert none.losses == plain.losses
    now = fit(*prepared(path, "trainer.max_steps=3", later.replace("from_step: 3", "from_step: 2")))
    assert now.losses[:2] == plain.losses[:2]
    assert now.losses[2] != plain.losses[2]


@pytest.mark.parametrize(
    "override",
    [
        "loss.scheduled_sampling={share: 0.4, schedule: constant}",
        "loss.scheduled_sampling={share: 0.4, schedule: constant, choose: sample}",
        "augment.token_noise=0.4",
    ],
)
@torch.no_grad()
def test_inputs_are_the_same_alone_and_in_a_batch(path: Path, override: str) -> None:
    task, data = prepared(path, *PLAIN, override)
    task.eval()
    cuts = list(data.train_cuts)
    batch = data.dev_batch(cuts)
    inputs_BL = fed(task, batch)
    for b, cut in enumerate(cuts):
        given = inputs_BL[b, : int(batch.target_len_B[b])].tolist()
        assert fed(task, data.dev_batch([cut]))[0].tolist() == given
    assert torch.equal(inputs_BL[:, :2], batch.inputs_BL[:, :2])
    text_BL = batch.inputs_BL[:, 2:]
    real_BL = torch.arange(text_BL.shape[1]) < batch.target_len_B[:, None] - 2
    assert all(task.tokenizer.decode([token]) for token in inputs_BL[:, 2:][real_BL].tolist())
    changed = []
    for task.batches_seen in range(1, 13):
        changed.append((fed(task, batch)[:, 2:] != text_BL)[real_BL])
    assert not torch.equal(changed[0], changed[1]), "every step must draw anew"
    assert 0.3 < torch.cat(changed).double().mean() < 0.45  # some letters are replaced by themselves


@torch.no_grad()
def test_sampled_predictions_follow_the_decoder_probabilities(path: Path) -> None:
    task, data = prepared(path, *PLAIN, "loss.scheduled_sampling={share: 1, schedule: constant, choose: sample}")
    task.eval()
    batch = data.dev_batch([next(iter(data.train_cuts))])
    counts = Counter[int]()
    for task.batches_seen in range(400):
        counts[int(fed(task, batch)[0, 2])] += 1
    memory = task.model.encode(batch.audio_BN, batch.audio_len_B)
    logits_V = task.model.decoder(batch.inputs_BL[:, :2], memory)[0][0, -1]
    letters = [v for v in range(task.tokenizer.vocab_size) if task.tokenizer.decode([v])]
    for letter, p in zip(letters, logits_V[letters].softmax(-1).tolist(), strict=True):
        assert abs(counts[letter] / 400 - p) < 4 * math.sqrt(p * (1 - p) / 400)


def test_gradients_reach_the_encoder(path: Path) -> None:
    task, batch = loaded(
        path, "loss.scheduled_sampling={share: 0.5, schedule: constant}", "loss.ctc_weight=0", "model.ctc=false"
    )
    task.losses(batch)["ce"].sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in task.model.encoder.parameters())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 0.5, 10: 0.5}),
        ("linear", {0: 0.0, 10: 0.25, 20: 0.5, 90: 0.5}),
        ("exponential", {0: 0.0, 20: 0.5 * (1 - 1 / math.e), 40: 0.5 * (1 - math.e**-2)}),
        ("inverse_sigmoid", {0: 0.5 / 21, 20: 0.5 * math.e / (20 + math.e), 60: 0.5 * 20.0855 / 40.0855, 10**6: 0.5}),
    ],
)
def test_share_follows_its_schedule(schedule: str, expected: dict[int, float]) -> None:
    config = ScheduledSamplingConfig.model_validate({"share": 0.5, "schedule": schedule, "steps": 20, "from_step": 7})
    sampling = ScheduledSampling(config, torch.tensor([1]), teacher_forcing)
    assert sampling.share(6) == 0.0
    assert sampling.share(None) == 0.5
    for step, share in expected.items():
        assert sampling.share(7 + step) == pytest.approx(share, abs=1e-4)


def test_text_tokens_are_the_letters_alone() -> None:
    tokenizer = CharacterTokenizer.train([" ".join(WORDS)], ("en", "es"))
    assert tokenizer.decode(text_tokens(tokenizer).tolist()) == " efhinortuvw"


def test_evaluating_restores_modes_and_caches_no_weights(path: Path) -> None:
    """Under autocast, a weight cast without gradient must not be reused in training."""
    task, _ = prepared(path)
    decoder = task.model.decoder
    decoder.layers[0].feed_forward.training = False  # type: ignore[index]
    before = {name: part.training for name, part in decoder.named_modules()}
    linear = decoder.layers[0].self_attention.qkv  # type: ignore[index]
    with torch.autocast("cpu", torch.bfloat16):
        with evaluating(decoder):
            assert not any(part.training for part in decoder.modules())
            linear(torch.ones(1, 16))
        y = linear(torch.ones(1, 16))
    assert {name: part.training for name, part in decoder.named_modules()} == before
    y.float().sum().backward()
    assert linear.weight.grad is not None
    assert y.dtype == torch.bfloat16
