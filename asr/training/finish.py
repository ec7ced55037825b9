"""The results of a run: the model folder, the learning curves, run.json."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from asr.checkpoint import ModelFolder, save_model_folder
from asr.config import ExperimentConfig, Measure
from asr.data.module import data_given_to
from asr.files import write_whole
from asr.machine import cores, processor
from asr.scoring import ScoreReport, points, spelled
from asr.scoring.recognised import HYPOTHESES, read_recognised
from asr.training.averaging import restore_weights
from asr.training.callbacks import KeepStates
from asr.training.dev import scores_by_task
from asr.training.plots import draw_learning_curves
from asr.training.processes import is_first
from asr.training.states import MODEL, state_path
from asr.training.task import SpeechTask


def finish(
    config: ExperimentConfig, parts: ModelFolder, task: SpeechTask, keeper: KeepStates, console: Console
) -> Path:
    """Write the best model, the learning curves and run.json in the first process; return the model's folder."""
    folder, applied = config.out / MODEL, task.applied_in_all()
    if not is_first():
        return folder
    best = next(iter(keeper.best), None)
    if best is not None:
        restore_weights(parts, [state_path(config.out / "states", best)])
    save_model_folder(folder, parts)
    draw_learning_curves(config.out / "logs", config.out / "learning_curves.png")
    dev = _dev_scores(config)
    scores = {name: report.as_dict() for name, report in dev.items()}
    found = {**_manifest(config, parts, task, keeper, applied), "dev_of_best": scores or None}
    write_whole(config.out / "run.json", json.dumps(found, indent=2) + "\n")
    if best is not None:
        line = f"best: dev {_shown(config.chosen_by, keeper.best[best], dev)} at step {best}; model in {folder}"
        console.print(line, soft_wrap=True)
    attention = f"; attention: {config.out / 'plots'}" if task.attends else ""
    console.print(f"curves: {config.out / 'learning_curves.png'}{attention}", soft_wrap=True)
    console.print(f"next: asr evaluate {config.data.dev} --model {folder}", soft_wrap=True, markup=False)
    return folder


def _dev_scores(config: ExperimentConfig) -> dict[str, ScoreReport]:
    """Return the dev scores of the best model by task; empty for old runs, which did not write their hypotheses."""
    path = config.out / HYPOTHESES
    if not path.exists():
        return {}
    return scores_by_task(read_recognised(path), config.scored_with)


def _shown(measure: Measure, value: float, dev: Mapping[str, ScoreReport]) -> str:
    """Format a dev measure, with its interval if there is a single task."""
    name = "loss" if measure == "loss" else spelled(measure)
    intervals = [report.intervals[measure] for report in dev.values() if measure in report.metrics]
    if len(intervals) != 1:  # for several tasks, the value is their mean
        return f"{name} {value:.2f}"
    low, high = (points(measure, end) for end in intervals[0][:2])
    return f"{name} {value:.2f} (95 % {low:.2f} to {high:.2f})"


def _manifest(
    config: ExperimentConfig, parts: ModelFolder, task: SpeechTask, keeper: KeepStates, applied: Counter[str]
) -> dict[str, Any]:
    rate = parts.model.front_end.sample_rate_hz
    utterances = max(1, applied["utterances"])
    return {
        "config": config.model_dump(mode="json"),
        "git": git_revision(),
        "machine": {
            "processor": processor(task.trainer.strategy.root_device),
            "cores": cores(),
            "processes": task.trainer.world_size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "parameters": parts.model.parameters_count,
        "parameters_trained": task.rates.trained,
        "vocabulary": parts.tokenizer.vocab_size,
        "wall_s": round(task.wall_s, 1),
        "waited_for_data_s": round(data_given_to(task.trainer).waited_s, 1),
        "steps": task.global_step,
        "utterances_seen": applied["utterances"],
        "audio_s_seen": round(applied["audio_samples"] / rate, 1),
        "padding_share": round(1 - applied["audio_samples"] / max(1, applied["padded_samples"]), 4),
        "share_of_utterances": {name: round(applied[name] / utterances, 4) for name in ("speed", "join", "noise")},
        "share_of_batches_masked": round(applied["spec_augment_batches"] / max(1, applied["batches"]), 4),
        "skipped_steps": applied["skipped_steps"],
        "chosen_by": config.chosen_by,
        "best_states": {str(step): value for step, value in keeper.best.items()},
    }


def git_revision() -> str | None:
    """Return the git revision of this code's checkout, None if it is not in one."""
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
