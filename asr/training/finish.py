"""The results of a run: the model folder, the learning curves, run.json; and the averaging of its best states."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from asr.checkpoint import WEIGHTS, ModelFolder, average_weights, load_model_folder, load_state, save_model_folder
from asr.config import ExperimentConfig, Measure
from asr.data.module import data_given_to
from asr.errors import CheckpointError, ConfigError
from asr.files import make_folder, write_whole
from asr.machine import cores, processor
from asr.scoring import ScoreReport, points, spelled
from asr.scoring.recognised import HYPOTHESES, read_recognised
from asr.training.callbacks import KeepStates
from asr.training.dev import scores_by_task
from asr.training.plots import draw_learning_curves
from asr.training.processes import is_first
from asr.training.states import MODEL, load_training_state, model_weights, newest_sound_state, state_path, states_in
from asr.training.task import SpeechTask

# In the folder of an average: which run and states it is of.  As evaluation.jsonl, it is no part of the model.
ORIGIN = "averaged.jsonl"


def finish(
    config: ExperimentConfig, parts: ModelFolder, task: SpeechTask, keeper: KeepStates, console: Console
) -> Path:
    """Write the best model, the learning curves and run.json in the first process; return the model's folder."""
    folder, applied = config.out / MODEL, dict(task.applied_in_all())
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
    config: ExperimentConfig, parts: ModelFolder, task: SpeechTask, keeper: KeepStates, applied: dict[str, int]
) -> dict[str, Any]:
    rate = parts.model.front_end.sample_rate_hz
    utterances = max(1, applied.get("utterances", 0))
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
        "utterances_seen": applied.get("utterances", 0),
        "audio_s_seen": round(applied.get("audio_samples", 0) / rate, 1),
        "padding_share": round(1 - applied.get("audio_samples", 0) / max(1, applied.get("padded_samples", 0)), 4),
        "share_of_utterances": {
            name: round(applied.get(name, 0) / utterances, 4) for name in ("speed", "join", "noise")
        },
        "share_of_batches_masked": round(applied.get("spec_augment_batches", 0) / max(1, applied.get("batches", 0)), 4),
        "skipped_steps": applied.get("skipped_steps", 0),
        "chosen_by": config.chosen_by,
        "best_states": {str(step): value for step, value in keeper.best.items()},
    }


def restore_weights(parts: ModelFolder, states: list[Path]) -> None:
    """Load the model's weights from training states, averaged if there are several."""
    weights = [model_weights(load_state(path)["state_dict"]) for path in states]
    parts.model.load_state_dict(weights[0] if len(weights) == 1 else average_weights(weights))


def average(run: Path, out: Path | None = None, say: Callable[[str], None] = print) -> tuple[Path, list[Path]]:
    """Average the best states of a run into a model folder (default: RUN/averaged).

    Returns the folder and the paths of the averaged states.  say: gets a line for each state that cannot be read.
    Raises CheckpointError if no state can be read, ConfigError if `out` holds a model that is no average of the run.
    """
    folder, model = run / "states", run / MODEL
    out = run / "averaged" if out is None else out
    _check_target(run, out)
    states = states_in(folder)
    if not states:
        raise CheckpointError(f"{folder}: no training states to average; train first")
    newest = newest_sound_state(folder, say)
    assert newest is not None
    best = load_training_state(newest)["callbacks"]["KeepStates"]["best"]
    paths = [path for step, path in states if step in best] or [newest]
    parts = load_model_folder(model)
    restore_weights(parts, paths)
    make_folder(out)
    origin = {"run": str(run.resolve()), "states": [path.stem for path in paths]}
    write_whole(out / ORIGIN, json.dumps(origin) + "\n")  # before the model, so that a killed call can be repeated
    save_model_folder(out, parts)
    return out, paths


def _check_target(run: Path, out: Path) -> None:
    """Raise ConfigError if `out` holds a model, unless that is an earlier average of the run."""
    if out.resolve() == (run / MODEL).resolve():
        raise ConfigError(f"--out {out}: that is the best model of the run: name another folder")
    own = out.resolve() == (run / "averaged").resolve() or _origin(out) == str(run.resolve())
    if (out / WEIGHTS).exists() and not own:
        raise ConfigError(f"--out {out}: there is another model already: remove it, or name another folder")


def _origin(folder: Path) -> object:
    """Return the run that the model of a folder was averaged from, None if it is not known."""
    try:
        told = json.loads((folder / ORIGIN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return told.get("run") if isinstance(told, dict) else None


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
