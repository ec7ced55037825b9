"""Checks for what a fault must not leave: torn or temporary files, lost or repeated utterances, tracebacks."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.image
import torch
import yaml
from torch import Tensor

from asr.checkpoint import load_model_folder, load_state, load_tensors
from asr.errors import AsrError
from asr.files import filled_lines
from asr.training.logs import read_metrics
from asr.training.states import states_in

LOCKS = {".lock"}  # empty files that are never removed
Row = tuple[str, str, tuple[str, ...]]


@dataclass
class Figures:
    """Results for one kind of fault: how often it was made, counts of interest, and broken promises."""

    name: str
    planned: int
    made: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether all planned faults were made and no promise was broken."""
        return not self.problems and self.made >= self.planned


# ---- files --------------------------------------------------------------------------------------------------------


def _read_gzip(path: Path) -> None:
    if not path.stat().st_size:
        raise ValueError("empty, which no gzip file can be")
    with gzip.open(path, "rt", encoding="utf-8") as f:
        for line in f:
            json.loads(line)


def _read_lines(path: Path) -> None:
    for _, line in filled_lines(path):
        json.loads(line)


def _read_text(path: Path) -> None:
    if not path.read_text(encoding="utf-8").endswith("\n"):
        raise ValueError("does not end with a newline")


READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": lambda path: load_state(path) if path.name.startswith("step-") else load_tensors(path),
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _read_lines,
    ".gz": _read_gzip,
    ".yaml": lambda path: yaml.safe_load(path.read_text(encoding="utf-8")),
    ".png": matplotlib.image.imread,
    ".txt": _read_text,
    ".srt": _read_text,
    ".wav": lambda path: path.stat(),
}


def visible(folder: Path) -> list[Path]:
    """Return the files in and below a folder, without those that are hidden or in a hidden folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def corrupt(folder: Path, *, but: tuple[str, ...] = ()) -> list[str]:
    """Return a line for each file that cannot be read to its end, except paths that contain a string of `but`.

    An empty text file is not corrupt, but an empty manifest or checkpoint is.
    """
    problems = []
    for path in visible(folder):
        reader = READERS.get(path.suffix)
        if reader is None or any(text in str(path.relative_to(folder)) for text in but):
            continue
        try:
            reader(path)
        except (AsrError, OSError, EOFError, ValueError, SyntaxError, yaml.YAMLError) as e:
            problems.append(f"corrupt: {path}: {e or type(e).__name__}")
    return problems


def leftovers(folder: Path) -> list[str]:
    """Return a line for each temporary: hidden files and folders, and names that mark unfinished ones."""
    names = (path for path in sorted(folder.rglob("*")) if path.name not in LOCKS)
    return [
        f"left behind: {path}"
        for path in names
        if path.name.startswith(".") or path.suffix in (".part", ".tmp") or path.name.startswith("tmp")
    ]


# ---- runs ---------------------------------------------------------------------------------------------------------


def logged(out: Path) -> dict[tuple[int, int], set[Row]]:
    """Return what was logged for each batch, by process and batch: epoch, loss to the last bit, utterances."""
    found: dict[tuple[int, int], set[Row]] = {}
    for path in out.glob("steps*.jsonl"):
        rank = int("0" + "".join(filter(str.isdigit, path.stem)))
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            entry = (str(row["epoch"]), row["loss"], tuple(row["ids"]))
            found.setdefault((rank, row["batch"]), set()).add(entry)
    return found


def wrong_steps(out: Path, whole: Path) -> list[str]:
    """Return utterances lost or repeated in an epoch, and batches that differ when redone or from `whole`."""
    ours, theirs = logged(out), logged(whole)
    problems = [f"batch {key}: done again, it came out differently" for key, rows in ours.items() if len(rows) > 1]
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            problems.append(f"batch {key}: not as in the uninterrupted run")
    seen, expected = (
        Counter((epoch, id) for rows in steps.values() for epoch, _, ids in rows for id in ids)
        for steps in (ours, theirs)
    )
    for epoch, id in sorted(seen.keys() | expected.keys()):
        if (times := seen[epoch, id]) != 1:
            problems.append(f"utterance {id}: {'lost' if not times else f'{times} times'} in epoch {epoch}")
    return problems


def wrong_curves(out: Path, whole: Path) -> list[str]:
    """Return how the learning curves differ from those of an uninterrupted run, with one such row."""
    ours, theirs = (
        [{name: value for name, value in row.items() if value} for row in read_metrics(folder / "logs")]
        for folder in (out, whole)
    )
    if ours == theirs:
        return []
    odd = [row for row in theirs if row not in ours][:1] or [row for row in ours if row not in theirs][:1]
    return [f"curves: {len(ours)} rows, not {len(theirs)}; one that differs: {odd}"]


def wrong_run(out: Path, whole: Path) -> list[str]:
    """Return how a run that was killed differs from an uninterrupted one; both must have finished."""
    problems = [*corrupt(out), *leftovers(out), *wrong_steps(out, whole), *wrong_curves(out, whole)]
    load_model_folder(out / "model")
    for name in sorted(path.name for path in (whole / "model").iterdir()):
        if (out / "model" / name).read_bytes() != (whole / "model" / name).read_bytes():
            problems.append(f"model/{name}: not bit for bit as in the uninterrupted run")
    counts = [json.loads((folder / "run.json").read_text()) for folder in (out, whole)]
    for key in ("steps", "utterances_seen", "audio_s_seen", "best_states"):
        if counts[0][key] != counts[1][key]:
            problems.append(f"run.json: {key} is {counts[0][key]}, not {counts[1][key]}")
    steps = [[step for step, _ in states_in(folder / "states")] for folder in (out, whole)]
    if steps[0] != steps[1]:
        return [*problems, f"states of the steps {steps[0]}, not {steps[1]}"]
    for (_, path), (_, other) in zip(states_in(out / "states"), states_in(whole / "states"), strict=True):
        ours, theirs = load_state(path), load_state(other)
        if not all(_same(ours[part], theirs[part]) for part in ("state_dict", "optimizer_states")):
            problems.append(f"{path.name}: not as in the uninterrupted run")
    return problems


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


# ---- output -------------------------------------------------------------------------------------------------------


def tracebacks(text: str) -> list[str]:
    """Return the last line of each traceback in a program's output."""
    problems, inside = [], False
    for line in text.splitlines():
        if "Traceback (most recent call last)" in line:
            inside = True
        elif inside and line and not line.startswith((" ", "\t")):
            problems.append(f"traceback: {line}")
            inside = False
    return problems or (["traceback: cut off"] if inside else [])
