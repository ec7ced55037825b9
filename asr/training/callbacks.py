"""Lightning callbacks around the training steps: saving states, showing progress, trying the largest batch first."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr.checkpoint import ModelFolder, save_model_folder
from asr.config import Measure, TrainerConfig
from asr.data.batch import Batch
from asr.data.module import data_given_to
from asr.data.stream import Position
from asr.errors import AsrError
from asr.files import drop_torn_line, naming
from asr.model.build import build_model, unfilled
from asr.recognizer.budget import out_of_memory
from asr.scoring.recognised import HYPOTHESES, write_recognised
from asr.training.dev import badness
from asr.training.logs import log_step
from asr.training.states import MODEL, model_weights, state_path, states_in
from asr.training.task import SpeechTask


class KeepStates(L.Callback):
    """Keep the last two training states and the best ones on dev, and write the best model and its dev hypotheses.

    The scores of the best states are part of each state, so they survive a crash.  If a step is validated, its state
    is saved after the validation.  Training ends after `patience` validations in a row without a new best.
    """

    def __init__(self, folder: Path, config: TrainerConfig, chosen_by: Measure) -> None:
        self.folder, self.config, self.chosen_by = folder, config, chosen_by
        self.best: dict[int, float] = {}  # value of `chosen_by` by step, best first
        self.validated = -1  # the step of the last validation
        self.waited = 0  # validations since the last new best

    @property
    def impatient(self) -> bool:
        """Whether `patience` is used up."""
        return self.config.patience is not None and self.waited >= self.config.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best), "validated": self.validated, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.validated = dict(state_dict["best"]), state_dict["validated"]
        self.waited = state_dict["waited"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop |= self.impatient

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a finished run continue if its limits were raised: to Lightning, a run is one epoch that never ends.

        If its last step had fewer batches than the others, they count as a whole step, since the stream begins one.
        """
        loop = checkpoint["loops"]["fit_loop"]
        for count in loop["epoch_progress"].values():
            count.update(processed=0, completed=0)
        batches = loop["epoch_loop.batch_progress"]
        batches["is_last_batch"] = False
        missing = -batches["current"]["ready"] % self.config.accumulate
        for count in (batches["current"], batches["total"]):
            count.update({stage: number + missing for stage, number in count.items()})

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        data_given_to(trainer).position = Position(batch.epoch, batch.index + 1)
        steps, part = divmod(batch_idx + 1, self.config.accumulate)
        if part or steps % self.config.validate_every_steps == 0:
            return
        if trainer.global_step % self.config.save_every_steps == 0:
            log_step(trainer)
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        name = f"dev_{self.chosen_by}"
        if name not in trainer.callback_metrics:
            return
        self.validated = trainer.global_step
        value = float(trainer.callback_metrics[name])
        bad = badness(self.chosen_by, value)
        better = all(bad < badness(self.chosen_by, before) for before in self.best.values())
        self.waited = 0 if better else self.waited + 1
        trainer.should_stop |= self.impatient
        found = {**self.best, trainer.global_step: value}
        order = sorted(found, key=lambda step: (badness(self.chosen_by, found[step]), -step))
        self.best = {step: found[step] for step in order[: self.config.keep_best]}
        if next(iter(self.best)) == trainer.global_step:
            self.write_best(trainer, pl_module)
        self.save(trainer)

    def write_best(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Write the model folder and the dev hypotheses, so that the best model can be used while training goes on."""
        weights = trainer.strategy.lightning_module_state_dict()  # every process may hold only a share of them
        if not trainer.is_global_zero:
            return
        assert isinstance(task, SpeechTask)
        write_recognised(self.folder.parent / HYPOTHESES, task.recognised)
        config, tokenizer = task.recognizer.config, task.tokenizer
        model = unfilled(build_model, config.features, config.model, tokenizer.vocab_size)
        model.load_state_dict(model_weights(weights))
        save_model_folder(self.folder.parent / MODEL, ModelFolder(config, model, tokenizer))

    def save(self, trainer: L.Trainer) -> None:
        """Write the state of this step, then remove the states that need not be kept."""
        trainer.save_checkpoint(state_path(self.folder, trainer.global_step))
        if trainer.is_global_zero:
            self.tidy()

    def tidy(self) -> None:
        """Remove the states that are neither among the best nor the last two."""
        for step, path in states_in(self.folder)[:-2]:
            if step not in self.best:
                path.unlink()


_LESS = "lower data.batch_duration_s (trainer.accumulate keeps the size of a step) or data.max_duration_s"


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn an out-of-memory error of a later step, as on a shared device, into one line that says what helps."""
    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if not out_of_memory(e):
            raise
        raise AsrError(
            f"out of memory; the last state is intact. If it happens again with no other job on the device, {_LESS}, "
            "and give another out=FOLDER"
        ) from None


class TryLargestBatch(L.Callback):
    """Run the largest batch forward and backward before the first step, so that memory runs out now or hardly ever."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SpeechTask)
        batch = data_given_to(trainer).largest_batch().to(pl_module.device)
        (optimizer,) = trainer.optimizers
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]  # without frozen ones
        moments = [torch.empty_like(w) for w in weights if w not in optimizer.state for _ in range(2)]  # Adam's
        before = [(buffer, buffer.clone()) for buffer in pl_module.buffers()]  # such as the running statistics of norms
        try:
            with trainer.precision_plugin.forward_context():
                pl_module.combine(pl_module.losses(batch), batch).backward()
        except (RuntimeError, MemoryError) as e:
            if not out_of_memory(e):
                raise
            size = f"{len(batch.ids)} utterances of {batch.audio_BN.shape[1]} samples"
            raise AsrError(f"the largest batch ({size}) does not fit into memory: {_LESS}") from None
        finally:
            moments.clear()
            pl_module.zero_grad(set_to_none=True)
            for buffer, value in before:
                buffer.copy_(value)


class StepLog(L.Callback):
    """Write the exact loss, the utterance ids and the seconds of every batch to steps.jsonl, one file per process.

    The seconds are counted from the end of the previous batch, so they include waiting for data and any validation
    in between.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rank = f".{trainer.global_rank}" if trainer.global_rank else ""
        self.path = self.path.with_suffix(f"{rank}{self.path.suffix}")
        drop_torn_line(self.path)
        self.before = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SpeechTask)
        if batch.weight == 0:
            return
        now = time.monotonic()
        took_s, self.before = round(now - self.before, 5), now
        loss = (pl_module.last_loss or 0.0).hex()
        line = {"batch": batch_idx, "epoch": batch.epoch, "loss": loss, "seconds": took_s, "ids": batch.ids}
        with naming(self.path), self.path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")


class ShowPassing(L.Callback):
    """Show the progress of a resumed run towards its place in the epoch, which in a stream takes a while."""

    QUICK_S = 5.0

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = TextColumn("finding its place"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data_given_to(trainer).stream.on_passed = self.passed

    def passed(self, batches: int, of: int) -> None:
        """Show that `batches` out of `of` batches have been skipped."""
        if batches == 1:
            self.began, self.bar = time.monotonic(), self.progress.add_task("", total=of)
            self.progress.start()
        self.progress.update(self.bar, completed=batches)
        if batches == of:
            self.progress.stop()
            if (took_s := time.monotonic() - self.began) > self.QUICK_S:
                self.console.print(f"passed over {of} batches that are done, {took_s:.0f} s", soft_wrap=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.progress.stop()


class ShowProgress(L.Callback):
    """A progress bar with loss, dev scores, audio seconds per second and time left; without a terminal, a line per
    validation.
    """

    def __init__(self, console: Console, total_steps: int | None, sample_rate_hz: int) -> None:
        self.console, self.rate = console, sample_rate_hz
        self.total = total_steps
        self.began, self.audio_before, self.processes = time.monotonic(), 0, 1  # a run may have no steps left
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SpeechTask)
        self.began, self.audio_before = time.monotonic(), pl_module.applied["audio_samples"]
        self.processes = trainer.world_size
        self.bar = self.progress.add_task("training", total=self.total, completed=trainer.global_step, state="")
        self.progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.progress.disable:
            return
        self.progress.update(self.bar, completed=trainer.global_step, state=self._state(trainer, pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.progress.disable:
            now = time.monotonic() - self.began
            line = f"step {trainer.global_step}, {now:.0f} s: {self._state(trainer, pl_module)}"
            self.console.print(line, soft_wrap=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.progress.stop()

    def _state(self, trainer: L.Trainer, task: L.LightningModule) -> str:
        assert isinstance(task, SpeechTask)
        seconds = self.processes * (task.applied["audio_samples"] - self.audio_before) / self.rate
        shown = {
            "loss": f"{task.last_loss:.3f}" if task.last_loss is not None else "",
            **{
                name.replace("_", " "): f"{float(trainer.callback_metrics[name]):.2f}"
                for name in ("dev_loss", "dev_wer", "dev_cer", "dev_bleu", "dev_chrf")
                if name in trainer.callback_metrics
            },
            "audio-s/s": f"{seconds / max(1e-9, time.monotonic() - self.began):.0f}",
        }
        return "  ".join(f"{name} {value}" for name, value in shown.items())
