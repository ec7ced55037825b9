"""Training states on disk: Lightning's checkpoints as safetensors files, and finding the newest sound one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from asr.checkpoint import load_state, save_state
from asr.errors import CheckpointError

MODEL = "model"  # folder of the best model in that of a run
_NAME = re.compile(r"step-(\d+)\.safetensors")


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoint I/O without pickle; files are written atomically."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_training_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def state_path(folder: Path, step: int) -> Path:
    """Return the path of the state after `step` optimiser steps."""
    return folder / f"step-{step:07d}.safetensors"


def model_weights(weights_of_task: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the model among those of a task, under the model's own names."""
    prefix = "model."
    return {name.removeprefix(prefix): x for name, x in weights_of_task.items() if name.startswith(prefix)}


def states_in(folder: Path) -> list[tuple[int, Path]]:
    """Return all states in a folder with their steps, oldest first."""
    found = [(m, path) for path in folder.glob("step-*.safetensors") if (m := _NAME.fullmatch(path.name))]
    return sorted((int(m[1]), path) for m, path in found)


def load_training_state(path: Path) -> dict[str, Any]:
    """Read a state from which training can resume.

    Raises CheckpointError if the file is damaged or holds something else.
    """
    state = load_state(path)
    if not isinstance(state, dict) or not {"state_dict", "optimizer_states", "loops", "task"} <= state.keys():
        raise CheckpointError(f"{path}: not a training state of this program")
    return state


def newest_sound_state(
    folder: Path, report: Callable[[str], None], load: Callable[[Path], object] = load_training_state
) -> Path | None:
    """Return the path of the newest state that loads, None if there are no states; report each that does not load.

    Raises CheckpointError if there are states but none loads: training never silently starts anew.
    """
    states = states_in(folder)
    for _, path in reversed(states):
        try:
            load(path)
        except CheckpointError as e:
            report(f"{e}; trying the one before")
        else:
            return path
    if states:
        raise CheckpointError(
            f"{folder}: none of the {len(states)} training states can be read; move the folder away to start anew"
        )
    return None
