"""The averaging of a run's best states into one model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from asr.checkpoint import WEIGHTS, ModelFolder, average_weights, load_model_folder, load_state, save_model_folder
from asr.errors import CheckpointError, ConfigError
from asr.files import make_folder, write_whole
from asr.training.states import MODEL, load_training_state, model_weights, newest_sound_state, states_in

# In the folder of an average: which run and states it is of.  As evaluation.jsonl, it is no part of the model.
ORIGIN = "averaged.jsonl"


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
