"""One training run from configuration to model folder; the same call resumes an interrupted run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor
from lightning.pytorch.strategies import DDPStrategy, Strategy
from rich.console import Console

from asr.checkpoint import ModelFolder
from asr.config import ExperimentConfig
from asr.data.module import SpeechData
from asr.files import naming
from asr.machine import keep_memory, processor
from asr.model.attention import products
from asr.model.encoder import recompute_layers
from asr.model.precision import attend_by
from asr.training.callbacks import KeepStates, ShowPassing, ShowProgress, StepLog, TryLargestBatch, enough_memory
from asr.training.finish import finish
from asr.training.folder import as_claimed, claim_folder, decided, device_of
from asr.training.logs import MetricsTable, TensorBoard, one_error, within_steps
from asr.training.plots import PlotAttention
from asr.training.processes import (
    company,
    end_with_starter,
    is_first,
    tell_prepared,
    wait_until_prepared,
    withdraw_prepared,
)
from asr.training.sharding import ShardedStrategy, WholeInValidation
from asr.training.start import (
    advise_to_stream,
    check_files,
    data_of,
    measure_normalization,
    report_dropped,
    starting_point,
    total_steps,
)
from asr.training.states import SafeCheckpointIO, newest_sound_state
from asr.training.task import SpeechTask

_PRECISIONS: dict[str, Literal["bf16-mixed", "32-true"]] = {"bf16": "bf16-mixed", "fp32": "32-true"}


@end_with_starter()
def train(config: ExperimentConfig, console: Console) -> Path:
    """Train or resume training, and return the folder of the model that is best on dev."""
    device = device_of(config.trainer)
    if not is_first():
        console = Console(quiet=True)

    def warn(line: str) -> None:
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)

    config, parts, data = _prepared(config, device, console)
    resume = newest_sound_state(config.out / "states", warn)
    over_all = config.features.kind == "log_mel" and config.features.normalization == "global"
    if over_all and config.init is None and resume is None:  # else `init` or the state holds the measured values
        measure_normalization(parts, data, console)
    task = SpeechTask(parts, config)
    task.on_skip = warn
    task.total_steps = total_steps(config, data)
    if config.trainer.recompute:
        recompute_layers(task.model.encoder)
    if device.type == "cpu":
        keep_memory()
        if config.trainer.precision == "bf16":
            attend_by(products, task.model)
    trainer, keeper = _trainer(config, device, data, task, console)
    steps = f"{task.total_steps} steps" if task.total_steps else f"{config.trainer.max_epochs} epochs"
    console.print(
        f"{'going on from ' + resume.name if resume else 'training'}: {_size(task)}, "
        f"{data.corpus}, {steps}, {config.trainer.precision}, {processor(device)}, {config.out}",
        markup=False,
        soft_wrap=True,
    )
    with company(), enough_memory(), naming(config.out), one_error():
        _fit(trainer, task, data, keeper, resume)
    if keeper.impatient:
        console.print(f"ended after {keeper.waited} validations without a new best (trainer.patience)")
    if _sharded(config) and is_first():
        parts = starting_point(config)  # the task's model holds only a share; the best state fills this one
    return finish(config, parts, task, keeper, console)


def _prepared(
    asked: ExperimentConfig, device: torch.device, console: Console
) -> tuple[ExperimentConfig, ModelFolder, SpeechData]:
    """Return the configuration with its precision decided, the model and the data; the first process goes ahead."""
    if is_first():
        config = decided(asked, device)
        claim_folder(config)
    else:
        wait_until_prepared(asked)
        config = as_claimed(asked)
    L.seed_everything(config.seed, verbose=False)
    advise_to_stream(config, console)
    parts = starting_point(config, console)
    with console.status("reading cuts"):
        data = data_of(config, parts)
    if is_first():
        report_dropped(config, data, console)
        with console.status("looking for the audio"):
            check_files(config, data)
        tell_prepared(asked)
    return config, parts, data


def _fit(trainer: L.Trainer, task: SpeechTask, data: SpeechData, keeper: KeepStates, resume: Path | None) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*length cap.*")  # usual early in training
        try:
            with within_steps(trainer):
                trainer.fit(task, datamodule=data, ckpt_path=str(resume) if resume else None)
            if keeper.validated != trainer.global_step:  # the last steps have not been validated
                trainer.validate(task, datamodule=data, verbose=False)
        except SystemExit:  # Lightning's answer to Ctrl-C and SIGTERM, for the latter with status 0
            raise KeyboardInterrupt from None
    if is_first():
        keeper.tidy()  # an earlier start may have been killed between its last save and this


def _size(task: SpeechTask) -> str:
    count, trained = task.model.parameters_count, task.rates.trained
    return f"{count:,} parameters" + (f" ({trained:,} of them trained)" if trained < count else "")


def _cluster() -> list[ClusterEnvironment]:
    """Return SLURM's environment where srun started the processes, not torchrun, which runs in SLURM's jobs, too.

    A requeued job resumes from our states, not from Lightning's file.
    """
    if dist.is_torchelastic_launched() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]


def _sharded(config: ExperimentConfig) -> bool:
    return config.trainer.strategy == "fsdp"


def _strategy(config: ExperimentConfig) -> str | Strategy:
    t = config.trainer
    if _sharded(config):
        return ShardedStrategy()
    if t.strategy == "auto" and t.devices * t.nodes == 1:
        return "auto"
    # Buffers are equal in all processes, or tables that have grown with the audio each process has seen.
    return DDPStrategy(broadcast_buffers=False)


def _trainer(
    config: ExperimentConfig, device: torch.device, data: SpeechData, task: SpeechTask, console: Console
) -> tuple[L.Trainer, KeepStates]:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    t = config.trainer
    keeper = KeepStates(config.out / "states", t, config.chosen_by)
    callbacks: list[L.Callback] = [
        ShowPassing(console),
        ShowProgress(console, task.total_steps, data.sample_rate_hz),
        TryLargestBatch(),
        LambdaCallback(on_fit_start=lambda *_: withdraw_prepared(config)),
        LearningRateMonitor("step"),
        *([PlotAttention(config.out / "plots", t.plot_utterances)] if task.attends else []),
        *([StepLog(config.out / "steps.jsonl")] if t.step_log else []),
        *([WholeInValidation()] if _sharded(config) else []),  # after the callbacks that decode
        keeper,  # last: what the others write about a step must be there before its state
    ]
    trainer = L.Trainer(
        accelerator=device.type,
        devices=t.devices,
        num_nodes=t.nodes,
        strategy=_strategy(config),
        precision=_PRECISIONS[t.precision],
        max_steps=t.max_steps or -1,
        max_epochs=1,  # the stream holds all epochs, so that a run can stop and resume anywhere
        accumulate_grad_batches=t.accumulate,
        val_check_interval=t.validate_every_steps * t.accumulate,
        num_sanity_val_steps=0,
        log_every_n_steps=t.log_every_steps,
        logger=[MetricsTable(config.out), TensorBoard(config.out)],
        callbacks=callbacks,
        plugins=[SafeCheckpointIO(), *_cluster()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=config.out,
    )
    return trainer, keeper
