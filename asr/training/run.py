"""One training run from configuration to model folder; the same call goes on with a run that was cut off."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

from asr.checkpoint import ModelFolder, average_weights, load_model_folder, load_state, save_model_folder
from asr.config import ExperimentConfig, ModelFolderConfig, read_config, to_yaml
from asr.data.module import SpeechData, dropped_summary, read_split, target_text
from asr.errors import CheckpointError, ConfigError
from asr.features import GlobalNormalization
from asr.files import write_atomically
from asr.model.build import build_model
from asr.tokenizer import CharacterTokenizer, SentencePieceTokenizer, Tokenizer, load_tokenizer
from asr.training.callbacks import KeepStates, ShowProgress, StepLog, TryLargestBatch
from asr.training.plots import PlotAttention, draw_learning_curves
from asr.training.states import SafeCheckpointIO, newest_sound_state, state_path, states_in
from asr.training.task import SpeechTask


def train(config: ExperimentConfig, console: Console) -> Path:
    """Train, or go on training, and give the folder of the best model (by dev WER)."""
    began = time.monotonic()
    _claim_folder(config)
    L.seed_everything(config.seed, verbose=False)
    parts = _starting_point(config)
    data = _data(config, parts)
    _report_dropped(config, data, console)
    if config.features.kind == "log_mel" and config.features.normalization == "global" and config.init is None:
        _measure_normalization(parts, data)
    task = SpeechTask(parts, config)
    task.on_skip = lambda line: console.print(f"[yellow]{line}")
    task.total_steps = _total_steps(config, data)
    states = config.out / "states"
    trainer, keeper = _trainer(config, data, task, console)
    resume = newest_sound_state(states, lambda line: console.print(f"[yellow]{line}"))
    steps = f"{task.total_steps} steps" if task.total_steps else f"{config.trainer.max_epochs} epochs"
    console.print(
        f"{'going on from ' + resume.name if resume else 'training'}: {parts.model.parameters_count:,} parameters, "
        f"{len(data.train_cuts)} utterances, {steps}, {trainer.precision}, {config.out}",
        soft_wrap=True,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*length cap.*")  # usual while a model knows little
        trainer.fit(task, datamodule=data, ckpt_path=str(resume) if resume else None)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not keeper.best:
        trainer.validate(task, datamodule=data, verbose=False)
    return _finish(config, parts, task, keeper, time.monotonic() - began, console)


def _claim_folder(config: ExperimentConfig) -> None:
    """Write the configuration into the run's folder, or check that the run there is the same one."""
    path = config.out / "experiment.yaml"
    if path.exists():
        before = read_config(ExperimentConfig, path)
        changed = _differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
        changed = [key for key in changed if key not in _MAY_CHANGE]
        if changed and states_in(config.out / "states"):
            raise ConfigError(
                f"{config.out} holds a run with another configuration ({', '.join(changed[:5])} differ): "
                "give another out=FOLDER, or move that folder away"
            )
    config.out.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


_MAY_CHANGE = {"trainer.max_steps", "trainer.max_epochs", "trainer.device", "data.workers", "out"}


def _differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for key in {**a, **b} for d in _differences(a.get(key), b.get(key), f"{prefix}{key}.")]
    return [] if a == b else [prefix.rstrip(".")]


def _starting_point(config: ExperimentConfig) -> ModelFolder:
    """The untrained model of a new run, or the model that `init` names."""
    if config.init is not None:
        parts = load_model_folder(config.init)
        settled = parts.config.model_copy(update={"decode": config.decode, "normalizer": config.normalizer})
        return parts._replace(config=settled)
    tokenizer = _tokenizer(config)
    folder = ModelFolderConfig(
        features=config.features,
        model=config.model,
        tokenizer=config.tokenizer,
        decode=config.decode,
        normalizer=config.normalizer,
    )
    return ModelFolder(folder, build_model(config.features, config.model, tokenizer.vocab_size), tokenizer)


def _tokenizer(config: ExperimentConfig) -> Tokenizer:
    """The vocabulary of a run: made from its training texts at the first start, read again after that."""
    folder = config.out / "tokenizer"
    kind = config.tokenizer.kind
    if kind == "whisper":
        raise ConfigError("tokenizer.kind: whisper cannot be trained; it comes with init=FOLDER")
    try:
        return load_tokenizer(folder, kind)
    except CheckpointError:
        pass
    cuts = read_split(config.data.train, config.data.languages)
    texts = [target_text(cut, config.normalizer) for cut in cuts]
    languages = config.tokenizer.languages
    tokenizer: Tokenizer
    if kind == "character":
        tokenizer = CharacterTokenizer.train(texts, languages)
    else:
        tokenizer = SentencePieceTokenizer.train(texts, languages, kind=kind, vocab_size=config.tokenizer.vocab_size)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return tokenizer


def _data(config: ExperimentConfig, parts: ModelFolder) -> SpeechData:
    front_end, encoder = parts.model.front_end, parts.model.encoder

    def encoder_frames(duration_s: float) -> int:
        frames = torch.tensor([int(duration_s / front_end.hop_s) - 2])
        return int(encoder.lengths(frames.clamp(min=1))[0])

    needs_frames = parts.model.ctc is not None and config.loss.ctc_weight > 0
    return SpeechData(
        config,
        parts.tokenizer,
        front_end.sample_rate_hz,
        parts.config.model.decoder.max_length,
        encoder_frames if needs_frames else None,
    )


def _report_dropped(config: ExperimentConfig, data: SpeechData, console: Console) -> None:
    path = config.out / "dropped.tsv"
    with write_atomically(path) as temporary:
        temporary.write_text(dropped_summary(data.dropped), encoding="utf-8")
    for d in data.dropped[:5]:
        console.print(f"left out {d.id}: {d.reason}", soft_wrap=True)
    if len(data.dropped) > 5:
        console.print(f"left out {len(data.dropped)} utterances in all, listed in {path}", soft_wrap=True)


def _measure_normalization(parts: ModelFolder, data: SpeechData) -> None:
    """Fill the global normalisation with mean and deviation over the training set."""
    front_end = parts.model.front_end
    normalization = front_end.normalization
    assert isinstance(normalization, GlobalNormalization)
    count, total, squares = 0, torch.zeros_like(normalization.mean_F), torch.zeros_like(normalization.mean_F)
    total, squares = total.double(), squares.double()
    for cut in data.train_cuts:
        batch = data.dev_batch([cut])
        x_TF = front_end.spectrum(batch.audio_BN, batch.audio_len_B).x_BTF[0].double()
        count, total, squares = count + len(x_TF), total + x_TF.sum(0), squares + x_TF.square().sum(0)
    mean = total / count
    normalization.mean_F.copy_(mean)
    normalization.std_F.copy_((squares / count - mean.square()).clamp(min=1e-4).sqrt())


def _total_steps(config: ExperimentConfig, data: SpeechData) -> int | None:
    """Optimiser steps of the run; for a cosine over epochs, the batches are counted by making them."""
    limits = [config.trainer.max_steps] if config.trainer.max_steps else []
    if config.trainer.max_epochs and (config.optimizer.schedule == "cosine" or not limits):
        batches = sum(1 for epoch in range(config.trainer.max_epochs) for _ in data.stream.epoch(epoch))
        limits.append(-(-batches // config.trainer.accumulate))
    return min(limits) if limits else None


def _precision(config: ExperimentConfig) -> str:
    """bf16 where the device multiplies it faster than fp32."""
    chosen = config.trainer.precision
    if chosen == "auto":
        if torch.cuda.is_available() and config.trainer.device != "cpu":
            fast = torch.cuda.is_bf16_supported()
        else:
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        chosen = "bf16" if fast else "fp32"
    return {"bf16": "bf16-mixed", "fp32": "32-true"}[chosen]


def _trainer(
    config: ExperimentConfig, data: SpeechData, task: SpeechTask, console: Console
) -> tuple[L.Trainer, KeepStates]:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    t = config.trainer
    keeper = KeepStates(config.out / "states", t)
    callbacks: list[L.Callback] = [
        ShowProgress(console, task.total_steps, data.sample_rate_hz),
        TryLargestBatch(),
        LearningRateMonitor("step"),
        PlotAttention(config.out / "plots", t.plot_utterances),
        keeper,
    ]
    if t.step_log:
        callbacks.append(StepLog(config.out / "steps.jsonl"))
    trainer = L.Trainer(
        accelerator={"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[t.device],
        devices=1,
        precision=_precision(config),  # type: ignore[arg-type]
        max_steps=t.max_steps or -1,
        max_epochs=1,  # the stream holds all epochs, so that a run can stop and go on anywhere
        accumulate_grad_batches=t.accumulate,
        val_check_interval=t.validate_every_steps * t.accumulate,
        num_sanity_val_steps=0,
        log_every_n_steps=t.log_every_steps,
        logger=[
            CSVLogger(config.out, name=None, version="logs"),
            TensorBoardLogger(config.out, name=None, version="logs"),
        ],
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=config.out,
    )
    return trainer, keeper


def _finish(
    config: ExperimentConfig,
    parts: ModelFolder,
    task: SpeechTask,
    keeper: KeepStates,
    wall_s: float,
    console: Console,
) -> Path:
    folder = config.out / "model"
    best = min(keeper.best, key=lambda step: (keeper.best[step], -step), default=None)
    if best is not None:
        restore_weights(parts, [state_path(config.out / "states", best)])
    save_model_folder(folder, parts)
    draw_learning_curves(config.out / "logs" / "metrics.csv", config.out / "learning_curves.png")
    rate = parts.model.front_end.sample_rate_hz
    applied = dict(task.applied)
    utterances = max(1, applied.get("utterances", 0))
    manifest = {
        "config": config.model_dump(mode="json"),
        "git": git_revision(),
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "parameters": parts.model.parameters_count,
        "vocabulary": parts.tokenizer.vocab_size,
        "wall_s_of_this_start": round(wall_s, 1),
        "steps": task.global_step,
        "utterances_seen": applied.get("utterances", 0),
        "audio_s_seen": round(applied.get("audio_samples", 0) / rate, 1),
        "padding_share": round(1 - applied.get("audio_samples", 0) / max(1, applied.get("padded_samples", 0)), 4),
        "share_of_utterances": {
            name: round(applied.get(name, 0) / utterances, 4) for name in ("speed", "join", "noise")
        },
        "share_of_batches_masked": round(applied.get("spec_augment_batches", 0) / max(1, applied.get("batches", 0)), 4),
        "skipped_steps": applied.get("skipped_steps", 0),
        "dev_wer_of_best": {str(step): wer for step, wer in keeper.best.items()},
    }
    with write_atomically(config.out / "run.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if best is not None:
        console.print(f"best: dev WER {keeper.best[best]:.2f} at step {best}; model in {folder}", soft_wrap=True)
    console.print(f"curves: {config.out / 'learning_curves.png'}; attention: {config.out / 'plots'}", soft_wrap=True)
    return folder


def restore_weights(parts: ModelFolder, states: list[Path]) -> None:
    """Load the model's weights from training states, averaged if there are several."""
    prefix = "model."
    weights = [
        {name.removeprefix(prefix): t for name, t in load_state(path)["state_dict"].items() if name.startswith(prefix)}
        for path in states
    ]
    parts.model.load_state_dict(weights[0] if len(weights) == 1 else average_weights(weights))


def average(run: Path, out: Path | None = None) -> tuple[Path, list[Path]]:
    """Average the best states of a run into a model folder (default: RUN/averaged)."""
    folder = run / "states"
    states = states_in(folder)
    if not states:
        raise CheckpointError(f"{folder}: no training states to average; train first")
    best = load_state(states[-1][1])["callbacks"]["KeepStates"]["best"]
    paths = [path for step, path in states if step in best]
    parts = load_model_folder(run / "model")
    restore_weights(parts, paths or [states[-1][1]])
    save_model_folder(out or run / "averaged", parts)
    return out or run / "averaged", paths


def git_revision() -> str | None:
    """The revision of the code's checkout, None where there is none."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
