"""A training step: what the loss of an utterance depends on, and what happens when a step goes wrong."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console
from synthetic import clip, experiment, experiment_file, manifest, speech_data, untrained, white
from torch import Tensor

import asr.training.callbacks
from asr.checkpoint import load_state
from asr.data.batch import Batch
from asr.data.module import SpeechData
from asr.errors import AsrError, ConfigError
from asr.model.encoder import recompute_layers
from asr.training.callbacks import TryLargestBatch
from asr.training.criteria.base import Pass
from asr.training.run import train
from asr.training.start import starting_point
from asr.training.states import states_in
from asr.training.task import SpeechTask

Combine = Callable[[SpeechTask, dict[str, Tensor], Batch], Tensor]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


def prepared(path: Path, *overrides: str) -> tuple[SpeechTask, SpeechData]:
    config = experiment(path, *overrides)
    parts = untrained(config)
    data = speech_data(config, parts)
    return SpeechTask(parts, config), data


class Watch(L.Callback):
    """Records the weights before each batch, and the loss and logged values after it."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.losses: list[float] = []
        self.logged: list[dict[str, float]] = []
        self.norms: list[float] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.weights.append(torch.nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone())

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)) if gradients else math.nan)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: SpeechTask, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(pl_module.last_loss or math.nan)
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(task: SpeechTask, data: SpeechData, *callbacks: L.Callback) -> Watch:
    """Train without writing files until the stream ends or the task's trainer.max_steps is reached."""
    watch = Watch()
    L.Trainer(
        accelerator="cpu",
        max_steps=task.config.trainer.max_steps or -1,
        max_epochs=1,
        accumulate_grad_batches=task.config.trainer.accumulate,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch, *callbacks],
    ).fit(task, datamodule=data)
    return watch


# ---- the loss -------------------------------------------------------------------------------------------------


WHISPER = ("features.kind=whisper", "features.window_s=5", "model.encoder.padding=recall")


@pytest.mark.parametrize("kind", ["conv1d", "conv2d"])
@pytest.mark.parametrize(
    "others",
    [("model.encoder.subsampling.factor=2",), (), WHISPER, (*WHISPER[:2], "model.encoder.padding=keep"), WHISPER[:2]],
    ids=["x2", "x4", "whisper-recall", "whisper-keep", "whisper-mask"],
)
def test_utterance_has_the_same_loss_alone_and_in_a_batch(
    path: Path, tmp_path: Path, kind: str, others: tuple[str, ...]
) -> None:
    # Numbers of frames of 10 ms with every remainder modulo 8, so that every stride meets odd lengths.
    frames = {400: "two three four five one", 33: "one", 82: "four", 195: "one two", 300: "five five", 61: "two"}
    frames |= {126: "three", 47: "one"}
    clips = [clip(tmp_path / f"{T}.wav", white(200 + 80 * (T - 1), T), text) for T, text in frames.items()]
    train = manifest(tmp_path / "train.jsonl", clips)
    deeper = ("model.encoder.layers=2", "model.decoder.layers=2", f"model.encoder.subsampling.kind={kind}")
    task, data = prepared(path, f"data.train={train}", *deeper, *others)
    task.eval()
    for p in task.parameters():  # biases of zero could hide leaks from padding
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    batch = data.dev_batch(data.train_cuts)
    together = task.criteria(task.dev_pass(batch))
    assert set(together) == {"ce", "ctc", "guided"}
    for b, cut in enumerate(data.train_cuts):
        single = data.dev_batch([cut])
        alone, tokens = task.criteria(task.dev_pass(single)), single.target_len_B[0]
        for name, value_B in alone.items():
            per = tokens if name != "guided" else 1
            assert value_B[0] > 0
            torch.testing.assert_close(together[name][b] / per, value_B[0] / per, atol=1e-5, rtol=0)
    assert len(data.train_cuts) == len(frames)


def test_batch_loss_weights_every_token_equally(path: Path) -> None:
    task, data = prepared(path, "loss.ctc_weight=0.3", "loss.guided_attention.weight=2")
    batch = data.dev_batch(list(data.train_cuts)[:3])
    found = {"ce": torch.tensor([1.0, 2.0, 3.0]), "ctc": torch.tensor([9.0, 0.0, 0.0]), "guided": torch.ones(3) * 0.5}
    tokens = int(batch.target_len_B.sum())
    assert task.combine(found, batch).item() == pytest.approx(0.7 * 6 / tokens + 0.3 * 9 / tokens + 2 * 0.5)


def test_gradient_norm_is_logged_before_clipping(path: Path) -> None:
    watch = fit(*prepared(path, "trainer.max_steps=4", "optimizer.clip_norm=0.01"))
    assert len(watch.norms) == 4
    for norm, logged in zip(watch.norms, watch.logged, strict=True):
        assert norm > 0.01
        assert logged["grad_norm"] == pytest.approx(norm)
        assert {"loss", "loss_ce", "loss_ctc", "loss_guided"} <= set(logged)


# ---- steps that go wrong --------------------------------------------------------------------------------------


def break_steps(monkeypatch: pytest.MonkeyPatch, kind: str, bad: Callable[[int], bool]) -> list[list[str]]:
    """Spoil loss or gradient of the training batches whose number `bad` accepts; return their utterances."""
    whole: Combine = SpeechTask.combine
    seen: list[list[str]] = []

    def combine(task: SpeechTask, found: dict[str, Tensor], batch: Batch) -> Tensor:
        loss = whole(task, found, batch)
        if not task.model.training or not task.batches_seen or not bad(task.batches_seen - 1):
            return loss
        seen.append(batch.ids)
        if kind == "loss":
            return loss * math.inf
        zero = next(task.parameters()).sum() * 0
        return loss + zero.sqrt() * 0  # the value is the loss, the gradient 0 times infinity

    monkeypatch.setattr(SpeechTask, "combine", combine)
    return seen


@pytest.mark.parametrize(("kind", "words"), [("loss", "loss is inf"), ("gradient", "the gradient is not finite")])
def test_non_finite_step_is_skipped_and_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    seen = break_steps(monkeypatch, kind, lambda i: i in (2, 3))
    task, data = prepared(path, "trainer.max_steps=6")
    lines: list[str] = []
    task.on_skip = lines.append
    watch = fit(task, data)
    assert lines == [f"step {i + 2}: {words}; skipped, utterances {', '.join(ids)}" for i, ids in enumerate(seen)]
    same = [torch.equal(a, b) for a, b in zip(watch.weights[:-1], watch.weights[1:], strict=True)]
    assert same == [False, False, True, True, False]
    assert all(w.isfinite().all() for w in watch.weights)
    assert task.applied["skipped_steps"] == 2
    assert task.skipped_in_a_row == 0


def test_all_accumulated_batches_of_a_skipped_step_are_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = break_steps(monkeypatch, "gradient", lambda i: i == 0)
    task, data = prepared(path, "trainer.max_steps=2", "trainer.accumulate=2")
    lines: list[str] = []
    task.on_skip = lines.append
    watch = fit(task, data)
    assert len(lines) == 1
    assert set(seen[0]) < set(lines[0].partition("utterances ")[2].split(", "))
    assert torch.equal(watch.weights[0], watch.weights[2])


def test_sound_batches_of_an_accumulated_step_still_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_steps(monkeypatch, "loss", lambda i: i % 2 == 1)
    task, data = prepared(path, "trainer.max_steps=3", "trainer.accumulate=2")
    task.on_skip = lambda line: None
    watch = fit(task, data)
    assert len({w.sum().item() for w in watch.weights[::2]}) == 3
    assert all(w.isfinite().all() for w in watch.weights)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_ten_bad_steps_in_a_row_stop_the_run_with_a_sound_last_state(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    break_steps(monkeypatch, kind, lambda i: i >= 5)
    out, said = tmp_path / "run", io.StringIO()
    config = experiment(
        path, f"out={out}", "trainer.max_epochs=9", "trainer.validate_every_steps=50", "trainer.plot_utterances=0"
    )
    with pytest.raises(AsrError, match="10 steps in a row had no finite loss or gradient") as caught:
        train(config, Console(file=said, width=1000))
    assert str(caught.value).isprintable()
    assert said.getvalue().count("skipped, utterances train-") == 10
    last = states_in(out / "states")[-1][1]
    state = load_state(last)
    assert last.name == "step-0000012.safetensors"
    assert all(t.isfinite().all() for t in state["state_dict"].values())
    assert state["task"]["skipped_in_a_row"] == 7
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    assert len(steps) == 14


def test_bad_steps_stop_the_run_only_if_consecutive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_steps(monkeypatch, "loss", lambda i: i % 2 == 0)
    task, data = prepared(path, "trainer.max_epochs=9")
    task.on_skip = lambda line: None
    fit(task, data)
    assert task.applied["skipped_steps"] > 10


# ---- memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_batch_too_large_for_memory_gives_advice(path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def combine(task: SpeechTask, found: dict[str, Tensor], batch: Batch) -> Tensor:
        weight = next(task.parameters())
        weight.grad = torch.ones_like(weight)
        raise error

    monkeypatch.setattr(SpeechTask, "combine", combine)
    task, data = prepared(path)
    with pytest.raises(AsrError, match=r"lower data\.batch_duration_s .* or data\.max_duration_s") as caught:
        fit(task, data, TryLargestBatch())
    assert str(caught.value).isprintable()
    assert f"{len(data.largest_batch().ids)} utterances" in str(caught.value)
    assert all(p.grad is None for p in task.parameters())


def test_other_errors_are_not_taken_for_out_of_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def combine(task: SpeechTask, found: dict[str, Tensor], batch: Batch) -> Tensor:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(SpeechTask, "combine", combine)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        fit(*prepared(path), TryLargestBatch())


def test_trying_the_largest_batch_does_not_change_the_run(path: Path) -> None:
    tried: list[bool] = []

    class Tried(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            tried.append(all(p.grad is None for p in pl_module.parameters()))

    plain = fit(*prepared(path, "trainer.max_steps=3"))
    with_try = fit(*prepared(path, "trainer.max_steps=3"), TryLargestBatch(), Tried())
    assert tried == [True]
    assert with_try.losses == plain.losses
    assert torch.equal(with_try.weights[-1], plain.weights[-1])


def test_optimizer_moments_are_reserved_only_for_trained_weights(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserved: list[Tensor] = []
    empty_like = torch.empty_like

    class Torch:
        """The module torch as the callbacks see it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def empty_like(self, weight: Tensor) -> Tensor:
            reserved.append(weight)
            return empty_like(weight)

    monkeypatch.setattr(asr.training.callbacks, "torch", Torch())
    task, data = prepared(path, "optimizer.parts={encoder: 0}", "trainer.max_steps=1")
    fit(task, data, TryLargestBatch())
    decoders = {id(weight) for name, weight in task.named_parameters() if not name.startswith("model.encoder.")}
    assert {id(weight) for weight in reserved} == decoders
    assert len(reserved) == 2 * len(decoders)


# ---- accumulation ---------------------------------------------------------------------------------------------


STILL = ("model.encoder.dropout=0", "model.decoder.dropout=0", "augment={}", "data.batch_duration_s=3")


def test_accumulated_batches_have_the_gradient_of_one_large_batch(path: Path) -> None:
    task, data = prepared(path, *STILL, "trainer.accumulate=3")
    first, *others = itertools.islice(data.train_dataloader(), 3)
    assert len({int(batch.target_len_B.sum()) for batch in (first, *others)}) > 1
    by_id = {cut.id: cut for cut in data.train_cuts}
    whole = data.dev_batch([by_id[id] for batch in (first, *others) for id in batch.ids])

    def gradient(*batches: Batch) -> Tensor:
        task.zero_grad()
        for batch in batches:
            (task.combine(task.losses(batch), batch) / len(batches)).backward()
        return torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])

    torch.testing.assert_close(gradient(first, *others), gradient(whole), atol=1e-5, rtol=1e-4)


def test_logged_loss_is_the_mean_over_accumulated_batches(path: Path) -> None:
    task, data = prepared(path, *STILL, "trainer.accumulate=2", "trainer.max_steps=3")
    watch = fit(task, data)
    for step in range(3):
        assert watch.logged[2 * step + 1]["loss"] == pytest.approx(sum(watch.losses[2 * step : 2 * step + 2]) / 2)


# ---- recomputation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["transformer", "conformer"])
def test_recomputed_layers_have_the_same_gradient(path: Path, layer: str) -> None:
    def gradients(task: SpeechTask, data: SpeechData) -> Tensor:
        batch = data.dev_batch(data.train_cuts[:3])
        torch.manual_seed(4)
        task.combine(task.losses(batch), batch).backward()
        return torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])

    kept, again = (prepared(path, f"model.encoder.layer={layer}", "model.encoder.layers=2") for _ in range(2))
    names = list(again[0].state_dict())
    recompute_layers(again[0].model.encoder)
    assert list(again[0].state_dict()) == names
    torch.testing.assert_close(gradients(*again), gradients(*kept), atol=0, rtol=0)


def test_recompute_is_refused_for_norms_with_running_statistics(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.recompute would count each batch twice in the norms of .*=power"):
        starting_point(experiment(path, "trainer.recompute=true", "model.encoder.normalization=power"))


# ---- guided attention -----------------------------------------------------------------------------------------


def test_cross_attention_weights_are_not_requested_once_unused(path: Path) -> None:
    task, data = prepared(path, "loss.guided_attention={weight: 1, decay_steps: 20}")
    batch = data.dev_batch(data.train_cuts[:2])
    assert task.criteria.attention(19)
    assert "guided" in task.losses(batch, step=19)
    assert not task.criteria.attention(20)
    assert set(task.losses(batch, step=20)) == {"ce", "ctc"}
    assert "guided" in task.criteria(task.dev_pass(batch))


@torch.no_grad()
def test_only_the_chosen_heads_are_guided(path: Path) -> None:
    def guided(*heads: list[int]) -> tuple[Tensor, Pass]:
        chosen = f"loss.guided_attention={{weight: 1, width: 0.3, heads: {list(heads)}}}"
        task, data = prepared(path, "model.decoder.layers=2", chosen)
        task.eval()
        for p in task.parameters():  # otherwise all heads attend evenly
            p.data *= 4
        run = task.dev_pass(data.dev_batch(data.train_cuts[:3]))
        return task.criteria(run)["guided"], run

    for layer, head in itertools.product(range(2), range(2)):
        found_B, run = guided([layer, head])
        attention_BLT, start = run.decoded[1][layer][:, head], run.batch.prefix_length - 1
        for b, (rows, frames) in enumerate(zip(run.text_rows_B.tolist(), run.memory.len_B.tolist(), strict=True)):
            penalty = 0.0
            for i, t in itertools.product(range(rows), range(frames)):
                far = 1 - math.exp(-((i / rows - t / frames) ** 2) / (2 * 0.3**2))
                penalty += far * float(attention_BLT[b, start + i, t])
            assert found_B[b].item() == pytest.approx(penalty / rows, abs=1e-5)
    alone = [guided([0, 1])[0], guided([1, 0])[0]]
    torch.testing.assert_close(guided([0, 1], [1, 0])[0], sum(alone) / 2)
    assert not torch.allclose(*alone, atol=1e-3)


# ---- state ----------------------------------------------------------------------------------------------------


def test_wall_time_and_counts_accumulate_over_restarts(path: Path) -> None:
    first, data = prepared(path, "trainer.max_steps=2")
    fit(first, data)
    first.began -= 100
    checkpoint: dict[str, Any] = {}
    first.on_save_checkpoint(checkpoint)
    second, _ = prepared(path)
    assert second.wall_s < 50
    second.on_load_checkpoint(checkpoint)
    assert second.wall_s >= first.wall_s - 1 > 99
    assert second.applied_in_all() == first.applied_in_all()
    assert first.applied_in_all()["batches"] == 2
    assert second.batches_seen == 2
