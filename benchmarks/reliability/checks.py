"""Checks for what a fault must not leave: torn or temporary files, lost or repeated utterances, tracebacks."""

from __future__ import annotations

import csv
import gzip
import json
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.image
import torch
import yaml
from tensorboard.compat.tensorflow_stub.errors import (  # type: ignore[import-untyped]
    DataLossError,
    OutOfRangeError,
)
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New  # type: ignore[import-untyped]
from torch import Tensor

from asr.checkpoint import load_model_folder, load_state, load_tensors
from asr.errors import AsrError
from asr.files import filled_lines
from asr.training.logs import read_metrics
from asr.training.states import states_in

LOCKS = {".lock"}  # empty files that are never removed
PREPARED = "prepared"  # with which the first process of a training calls the others
Row = tuple[str, str, tuple[str, ...]]
# What the next start need not do again: files, each with its step or with the positions of its results in a manifest.
Kept = dict[str, set[int]]


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

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time that the body takes."""
        began = time.monotonic()
        yield
        self.wall_s += time.monotonic() - began


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


def _read_table(path: Path) -> None:
    """Read a table without line breaks in its fields; a .csv is a log, which a kill may end in half a row."""
    with path.open(encoding="utf-8", newline="") as f:
        lines = list(f)
    if path.suffix == ".csv":
        lines = [line for line in lines if line.endswith("\n")]
    elif lines and not lines[-1].endswith("\n"):
        raise ValueError("does not end with a newline")
    rows = list(csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True))
    if any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("its rows are not equally long")


def _read_sound(path: Path) -> None:
    """Read PCM to the last sample that its header promises; `asr` itself lets some be missing."""
    with wave.open(str(path)) as f:
        promised = f.getnframes() * f.getsampwidth() * f.getnchannels()
        if len(f.readframes(f.getnframes())) != promised:
            raise ValueError("ends before its last sample")


def _read_events(path: Path) -> None:
    """Check all records of a TensorBoard file; a killed run may leave half of the last one, which TensorBoard skips."""
    records = PyRecordReader_New(str(path))
    try:
        while True:
            records.GetNext()
    except OutOfRangeError:
        return
    except DataLossError as e:
        if "truncated" not in str(e):
            raise ValueError(str(e)) from None


def _read_part(path: Path) -> None:
    """Read the results of a worker, up to a line that it was killed in."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1]):
        json.loads(line.split(b"\t", 2)[2] if number else line)


def _read_mark(path: Path) -> None:
    if path.stat().st_size:
        raise ValueError("is not empty")


def _read_digest(path: Path) -> None:
    if len(bytes.fromhex(path.read_text(encoding="utf-8"))) != 32:
        raise ValueError("is not a digest")


# What readers raise for a file that is not whole.
FAULTS = AsrError, OSError, EOFError, ValueError, IndexError, SyntaxError, csv.Error, wave.Error, yaml.YAMLError
READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": lambda path: load_state(path) if path.name.startswith("step-") else load_tensors(path),
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _read_lines,
    ".gz": _read_gzip,
    ".yaml": lambda path: yaml.safe_load(path.read_text(encoding="utf-8")),
    ".png": matplotlib.image.imread,
    ".txt": _read_text,
    ".srt": _read_text,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".wav": _read_sound,
    ".part": _read_part,
    ".done": _read_mark,
}


def _reader(path: Path) -> Callable[[Path], object] | None:
    if path.name.startswith("events.out.tfevents."):
        return _read_events
    return _read_digest if path.name == PREPARED else READERS.get(path.suffix)


def visible(folder: Path) -> list[Path]:
    """Return the files in and below a folder, without those that are hidden or in a hidden folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def corrupt(folder: Path, *, but: tuple[str, ...] = ()) -> list[str]:
    """Return a line for each file that cannot be read to its end, except paths that contain a string of `but`.

    A file that no reader is known for counts as corrupt: what is not looked at cannot be called sound.
    """
    problems = []
    for path in visible(folder):
        if any(text in str(path.relative_to(folder)) for text in but):
            continue
        if (reader := _reader(path)) is None:
            problems.append(f"corrupt: {path}: not a kind of file that these checks can read")
            continue
        try:
            reader(path)
        except FAULTS as e:
            problems.append(f"corrupt: {path}: {e or type(e).__name__}")
    return problems


def leftovers(folder: Path, *, but: tuple[str, ...] = ()) -> list[str]:
    """Return a line for each temporary: hidden files and folders, and names that mark unfinished ones.

    but: starts of paths below `folder` that are exempt.
    """
    found = (path for path in sorted(folder.rglob("*")) if path.name not in LOCKS)
    names = [path for path in found if not str(path.relative_to(folder)).startswith(but)]
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


def kept_states(out: Path) -> Kept:
    """Return the states of a training run, each with its step."""
    return {path.name: {step} for step, path in states_in(out / "states")}


def lost_states(out: Path, before: Kept, every: Sequence[int]) -> list[str]:
    """Return how a run has lost states since it had those of `before`, or has gone back further than it had to.

    every: a state is due after each multiple of these numbers of steps, each step having one batch.

    Training goes on only when a state has been written.  So once a step log has batch b, counted from 0, there is a
    state for the last step up to b at which one was due: the newest may not be older, and no later start may go back
    behind it.  This also shows a loss that the losses do not, as a run that begins anew repeats them bit for bit.
    """
    problems, newest = [], max(_all(kept_states(out)), default=0)
    least = max(_all(before), default=0)
    for path in sorted(out.glob("steps*.jsonl")):
        due = previous = 0
        for batch in _batches(path):
            if batch <= previous and batch < due:
                problems.append(f"{path}: goes back to batch {batch} though the state of step {due} had been saved")
            due, previous = max(due, *(batch // steps * steps for steps in every)), batch
        least = max(least, due)
    if newest < least:
        problems.append(f"{out}: the newest state is that of step {newest}, though that of step {least} had been saved")
    return problems


def _batches(steps: Path) -> Iterator[int]:
    """Yield the batches of a step log, in the order of its lines, except an incomplete last line."""
    for line in steps.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)["batch"]


def _all(kept: Kept) -> set[int]:
    return set().union(*kept.values())


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


# ---- transcripts of a corpus --------------------------------------------------------------------------------------


def kept_results(out: Path) -> Kept:
    """Return the workers' files of a corpus's transcription, each with the positions of the recordings it has."""
    files = sorted((out / "parts").glob("*.part"))
    lines = {path.name: path.read_bytes().split(b"\n")[1:-1] for path in files}  # without header and torn last line
    return {name: {int(line.split(b"\t")[0]) for line in rows} for name, rows in lines.items()}


def lost_results(out: Path, before: Kept) -> list[str]:
    """Return the results of `before` that are gone or, in files begun since then, there again.

    A file of `before` may still have grown: its worker ends only when it notices that its parent was killed.
    """
    now, were = kept_results(out), _all(before)
    problems = [f"{out}: the result of recording {number} is lost" for number in sorted(were - _all(now))]
    for name in sorted(now.keys() - before.keys()):
        problems += [
            f"{out}: recording {number} was transcribed again, in {name}" for number in sorted(now[name] & were)
        ]
    return problems


def wrong_texts(out: Path, whole: Path) -> list[str]:
    """Return the ids that are not exactly once in hyp.jsonl, or with another text than in that of `whole`."""
    (ours, count), (theirs, _) = map(_texts, (out, whole))
    problems = []
    for id in sorted(ours.keys() | theirs.keys()):
        if count[id] != 1:
            problems.append(f"recording {id}: {f'{count[id]} times' if count[id] else 'lost'}")
        elif ours[id] != theirs.get(id):
            problems.append(f"recording {id}: {ours[id]!r}, not {theirs.get(id)!r}")
    return problems


def _texts(out: Path) -> tuple[dict[str, str], Counter[str]]:
    rows = [json.loads(line) for _, line in filled_lines(out / "hyp.jsonl")]
    return {row["id"]: row["text"] for row in rows}, Counter(row["id"] for row in rows)


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
