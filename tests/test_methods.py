"""Training methods in whole runs: exact resume, split steps, and refused settings."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from synthetic import experiment, experiment_file, logged_steps
from test_task import Combine, fit, prepared
from torch import Tensor

from asr.checkpoint import load_state
from asr.data.batch import Batch
from asr.errors import ConfigError
from asr.training.run import train
from asr.training.states import states_in
from asr.training.task import SpeechTask

SAMPLED = "loss.scheduled_sampling={share: 0.5, schedule: exponential, steps: 4, choose: sample}"
METHODS = ("augment.token_noise=0.1", SAMPLED, "loss.r_drop=1", "loss.cr_ctc=0.1")
RISK = "loss.minimum_error={kind: self_critical, weight: 0.1, metric: cer, n_best: 2, from_step: 2}"
RESUMED = {
    "self_critical": (RISK,),
    "n_best, attention dropout, guided attention that ends before the run": (
        RISK.replace("self_critical", "n_best"),
        "model.encoder.attention_dropout=0.3",
        "model.decoder.attention_dropout=0.3",
        "loss.guided_attention.decay_steps=5",
    ),
    "n_best, joint with CTC": (RISK.replace("self_critical", "n_best, ctc_weight: 0.5"),),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


@pytest.mark.parametrize("method", RESUMED)
def test_resumed_run_of_all_methods_equals_an_uninterrupted_one(
    method: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> tuple[dict[str, Tensor], list[tuple[str, list[str]]]]:
        limits = ("trainer.max_epochs=null", "trainer.max_steps=6", "trainer.save_every_steps=3")
        out = tmp_path / name
        plain = experiment(path, *METHODS, *RESUMED[method], *limits, f"out={out}", "trainer.plot_utterances=0")
        train(plain, Console(file=io.StringIO()))
        steps = [(row["loss"], row["ids"]) for row in logged_steps(out)]
        return load_state(states_in(out / "states")[-1][1])["state_dict"], steps

    whole: Combine = SpeechTask.combine

    def combine(task: SpeechTask, found: dict[str, Tensor], batch: Batch) -> Tensor:
        if task.batches_seen:  # not in the trial of the largest batch, which uses all losses
            assert ("minimum_error" in found) == (task.model.training and task.global_step >= 2)
        if task.batches_seen == 5:
            raise OSError("cut off")
        return whole(task, found, batch)

    monkeypatch.setattr(SpeechTask, "combine", combine)
    with pytest.raises(OSError, match="cut off"):
        run("resumed")
    monkeypatch.undo()
    (weights, steps), (again, steps_again) = run("whole"), run("resumed")
    assert [name for name in weights if not torch.equal(weights[name], again[name])] == []
    assert steps_again[-3:] == steps[-3:]


@pytest.mark.parametrize("kind", ["n_best", "n_best, ctc_weight: 0.5", "self_critical"])
@torch.no_grad()
def test_split_step_has_the_loss_of_the_whole_step(path: Path, kind: str) -> None:
    """The risk of an utterance does not depend on its batch either."""
    risk = f"loss.minimum_error={{kind: {kind}, weight: 1, metric: cer, n_best: 3}}"
    task, data = prepared(path, *METHODS, risk)
    task.eval()
    cuts = list(data.train_cuts)[:5]
    batch = data.dev_batch(cuts)
    found = task.losses(batch)
    assert set(found) == {"ce", "ctc", "guided", "r_drop", "cr_ctc", "minimum_error"}
    counts = {"step_targets": int(batch.target_len_B.sum()), "step_utterances": 5, "weight": 2.0}
    shares = [replace(data.dev_batch(some), **counts) for some in (cuts[:2], cuts[2:])]
    own = [task.losses(share) for share in shares]
    for name, value_B in found.items():
        torch.testing.assert_close(torch.cat([share[name] for share in own]), value_B, atol=1e-4, rtol=1e-4)
    halves = [task.combine(found, share) for found, share in zip(own, shares, strict=True)]
    torch.testing.assert_close(sum(halves) / 2, task.combine(found, batch), atol=1e-5, rtol=1e-5)
    assert found["minimum_error"].abs().max() > 0.02


def test_minimum_error_training_starts_at_from_step(path: Path) -> None:
    plain, risky = (fit(*prepared(path, "trainer.max_steps=4", *more)) for more in ((), (RISK,)))
    assert risky.losses[:2] == plain.losses[:2]
    assert risky.losses[2] != plain.losses[2]
    assert ["loss_minimum_error" in logged for logged in risky.logged] == [False, False, True, True]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("loss={cr_ctc: 0.1, ctc_weight: 0}", "cr_ctc keeps CTC consistent: it needs a ctc_weight above 0"),
        ("augment={token_noise: 0.5}", r"loss\.cr_ctc compares two views by SpecAugment"),
        ("loss.minimum_error={weight: 1, n_best: 1}", "n_best must be 2 or more"),
        (
            "loss.minimum_error={kind: self_critical, ctc_weight: 0.5}",
            "ctc_weight is for kind=n_best: self_critical draws",
        ),
        (
            "loss={cr_ctc: 0, ctc_weight: 0, minimum_error: {weight: 1, ctc_weight: 0.5}}",
            r"minimum_error\.ctc_weight trains CTC, too: it needs a ctc_weight above 0",
        ),
        (
            "data.tasks=[transcribe, translate:de]",
            r"loss\.minimum_error\.ctc_weight: CTC .* has no part in translations: leave it out",
        ),
        ("trainer.strategy=fsdp", r"loss\.minimum_error searches while it trains.*no strategy=fsdp"),
        ("data.phrases={}", r"loss\.minimum_error searches without phrase lists"),
        ("loss.scheduled_sampling.schedule=quadratic", "scheduled_sampling.schedule"),
    ],
)
def test_inconsistent_settings_are_refused_in_one_line(path: Path, override: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        experiment(path, "loss={cr_ctc: 0.1, minimum_error: {weight: 1, ctc_weight: 0.5}}", override)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("head", ["[1, 0]", "[0, 2]", "[-1, 0]"])
def test_guiding_nonexistent_heads_is_refused(path: Path, head: str) -> None:
    with pytest.raises(
        ConfigError, match=r"guided_attention\.heads: there is no head .* 1 layers of 2 heads"
    ) as caught:
        prepared(path, f"loss.guided_attention={{weight: 1, heads: [[0, 1], {head}]}}")
    assert str(caught.value).isprintable()
    prepared(path, "loss.guided_attention={weight: 1, heads: [[0, 0], [0, 1]]}")


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("loss.cr_ctc=0.1", r"loss\.cr_ctc"),
        ("loss.minimum_error={weight: 1, ctc_weight: 0.5}", r"loss\.minimum_error\.ctc_weight"),
    ],
)
def test_methods_of_ctc_need_a_ctc_head(path: Path, override: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} needs a model with a CTC head; this one has none") as caught:
        prepared(path, override, "model.ctc=false")
    assert str(caught.value).isprintable()
