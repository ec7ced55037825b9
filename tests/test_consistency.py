"""Consistency of two views of a batch (R-Drop, CR-CTC) against loops over tokens and frames."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from synthetic import experiment_file
from test_task import fit, prepared
from torch import Tensor

from asr.training.criteria.base import MASKS
from asr.training.criteria.consistency import CRCTC

PLAIN = ("augment={time_masks: 2, freq_masks: 1, freq_mask_bins: 5}", "loss.label_smoothing=0")
BOTH = ("loss.r_drop=2", "loss.cr_ctc=0.2")
STILL = ("model.encoder.dropout=0", "model.decoder.dropout=0")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


def divergence(p: Tensor, q: Tensor) -> float:
    """Return the mean of the KL divergences between two distributions in both directions."""
    pairs = zip(p.tolist(), q.tolist(), strict=True)
    return sum((a - b) * (torch.tensor(a).log() - torch.tensor(b).log()).item() for a, b in pairs) / 2


def test_r_drop_is_zero_without_dropout(path: Path) -> None:
    task, data = prepared(path, *PLAIN, *STILL, "loss.r_drop=2")
    batch = data.dev_batch(list(data.train_cuts)[:3])
    plain, _ = prepared(path, *PLAIN, *STILL)
    found, expected = task.losses(batch), plain.losses(batch)
    assert found["r_drop"].abs().max() < 1e-6
    torch.testing.assert_close(found["ce"], expected["ce"])


@torch.no_grad()
def test_r_drop_matches_a_loop_over_tokens(path: Path) -> None:
    more = ("model.encoder.dropout=0.3", "model.decoder.dropout=0.3", "loss.guided_attention.weight=0")
    task, data = prepared(path, *PLAIN, *more, "loss.ctc_weight=0", "model.ctc=false", "loss.r_drop=2")
    batch = data.dev_batch(list(data.train_cuts)[:4])
    torch.manual_seed(1)
    found = task.losses(batch)
    torch.manual_seed(1)
    features = task.model.front_end(batch.audio_BN, batch.audio_len_B)
    assert task.spec_augment is not None
    masked = task.spec_augment(features, [task._draws(MASKS, id) for id in batch.ids])
    views = []
    for _ in range(2):
        memory = task.model.encoder(masked)
        views.append(task.model.decoder(batch.inputs_BL, memory, None, batch.target_len_B)[0].softmax(-1))
    for b in range(4):
        length = int(batch.target_len_B[b])
        expected = sum(divergence(views[0][b, i], views[1][b, i]) for i in range(length))
        assert expected > 0.01
        assert found["r_drop"][b].item() == pytest.approx(expected, rel=1e-3)
        targets = batch.targets_BL[b, :length].tolist()
        losses = [-sum(float(p_BLV[b, i, t].log()) for i, t in enumerate(targets)) for p_BLV in views]
        assert losses[0] != losses[1]
        assert found["ce"][b].item() == pytest.approx(sum(losses) / 2, rel=1e-4)


@torch.no_grad()
def test_cr_ctc_matches_a_loop_over_real_frames(path: Path) -> None:
    task, data = prepared(path, *PLAIN, "loss.cr_ctc=0.2")
    task.eval()
    batch = data.dev_batch(list(data.train_cuts)[:4])
    found = task.losses(batch)
    assert task.spec_augment is not None
    assert task.model.ctc is not None
    for b, id in enumerate(batch.ids):
        audio_BN, len_B = batch.audio_BN[b : b + 1, : int(batch.audio_len_B[b])], batch.audio_len_B[b : b + 1]
        features = task.model.front_end(audio_BN, len_B)
        masked = [task.spec_augment(features, [task._draws(purpose, id)]) for purpose in task.criteria.views]
        views = [task.model.ctc(task.model.encoder(m))[0].exp() for m in masked]
        expected = sum(divergence(p, q) for p, q in zip(*views, strict=True))
        assert expected > 1e-4
        assert found["cr_ctc"][b].item() == pytest.approx(expected, rel=1e-3)


def test_cr_ctc_does_not_backpropagate_into_its_target() -> None:
    """The gradient is then half the difference of the distributions, and zero on padding."""
    a_BTV, b_BTV = torch.randn(2, 1, 5, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    a_BTV.requires_grad_()
    other: Any = SimpleNamespace(ctc_BTV=b_BTV.log_softmax(-1))
    memory = SimpleNamespace(len_B=torch.tensor([3]))
    run: Any = SimpleNamespace(ctc_BTV=a_BTV.log_softmax(-1), other=other, memory=memory)
    CRCTC(1.0)(run).sum().backward()
    expected = (a_BTV.softmax(-1) - b_BTV.softmax(-1)) / 2
    expected[:, 3:] = 0
    assert a_BTV.grad is not None
    torch.testing.assert_close(a_BTV.grad, expected)


@torch.no_grad()
def test_losses_of_an_utterance_do_not_depend_on_the_batch(path: Path) -> None:
    task, data = prepared(path, *PLAIN, *BOTH)
    task.eval()
    cuts = list(data.train_cuts)[:8]
    together = task.losses(data.dev_batch(cuts))
    assert set(together) == {"ce", "ctc", "guided", "r_drop", "cr_ctc"}
    for b, cut in enumerate(cuts):
        for name, value_B in task.losses(data.dev_batch([cut])).items():
            assert value_B[0] > 0
            torch.testing.assert_close(together[name][b], value_B[0], atol=2e-5, rtol=1e-5)


def test_dev_loss_excludes_consistency_losses(path: Path) -> None:
    task, data = prepared(path, *PLAIN, *BOTH)
    task.eval()
    plain, _ = prepared(path, *PLAIN)
    plain.eval()
    batch = data.dev_batch(list(data.train_cuts)[:3])
    found, expected = task.criteria(task.dev_pass(batch)), plain.criteria(plain.dev_pass(batch))
    assert found.keys() == expected.keys() == {"ce", "ctc", "guided"}
    assert task.combine(found, batch) == plain.combine(expected, batch)


def test_consistency_losses_are_logged_and_trained(path: Path) -> None:
    watch = fit(*prepared(path, *PLAIN, *BOTH, "trainer.max_steps=2"))
    assert {"loss_r_drop", "loss_cr_ctc"} <= set(watch.logged[-1])
    other = fit(*prepared(path, *PLAIN, "loss.r_drop=2", "loss.cr_ctc=9", "trainer.max_steps=2"))
    assert watch.losses[0] != other.losses[0]
