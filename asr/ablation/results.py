"""The file of results, with a line for each row's step time, each run's outcome and each failure.

It is small and belongs in the repository beside the recipe: the report is made from it alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Tag, model_validator

from asr.config import Config, validate
from asr.config.base import by_kind
from asr.errors import DataError, printable
from asr.files import drop_torn_line, naming, write_whole


class Job(NamedTuple):
    """A run: a row on a corpus with a seed."""

    corpus: str
    row: str
    seed: int

    def __str__(self) -> str:
        return "/".join(map(str, self))


class Errors(Config):
    """Errors and reference length of each utterance, in the manifest's order, in words or characters."""

    errors: tuple[int, ...]
    reference: tuple[int, ...]

    @model_validator(mode="after")
    def _of_the_same_utterances(self) -> Errors:
        if len(self.errors) != len(self.reference):
            raise ValueError("errors and reference are not of the same utterances")
        return self


class Split(Config):
    """The errors on a manifest."""

    wer: Errors
    cer: Errors


class Steps(Config):
    """The time of a row's steps, and how many of them the budget allows.

    base_step_s: the time of base's steps, measured in the same session.
    """

    kind: Literal["steps"] = "steps"
    corpus: str
    row: str
    settings: dict[str, Any]
    step_s: float | None
    base_step_s: float | None
    steps: int
    threads: int
    machine: str


class Outcome(Config):
    """The result of a run.

    train_s: duration of its training with validations, None if it trained nothing.  real_time_factor: CPU seconds to
    decode a second of dev in one thread.  dev_losses: nats per character of the reference.  diagonality: see
    asr.ablation.measure.
    """

    kind: Literal["result"] = "result"
    corpus: str
    row: str
    seed: int
    settings: dict[str, Any]
    steps: int | None
    train_s: float | None
    best_step: int | None
    parameters: int
    dev: Split
    test: Split | None
    real_time_factor: float
    dev_losses: dict[str, float]
    diagonality: float | None
    best_head_diagonality: float | None
    threads: int
    machine: str
    revision: str | None


class Failed(Config):
    """The reason why a run failed."""

    kind: Literal["failure"] = "failure"
    corpus: str
    row: str
    seed: int
    settings: dict[str, Any]
    reason: str


class _Line(Config):
    line: Annotated[
        Annotated[Steps, Tag("steps")] | Annotated[Outcome, Tag("result")] | Annotated[Failed, Tag("failure")],
        by_kind("steps"),
    ]


Record = Steps | Outcome | Failed
_R = TypeVar("_R", Outcome, Failed)


class Results:
    """The records of a file, which need not exist yet.  Raises DataError, with the line, for an invalid record."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = list(_read(path)) if path.exists() else []

    def add(self, record: Record) -> None:
        """Append a record to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        drop_torn_line(self.path)
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_text(record))
        self.records.append(record)

    def drop(self, unwanted: Callable[[Record], bool]) -> None:
        """Remove records from the file."""
        kept = [record for record in self.records if not unwanted(record)]
        if len(kept) == len(self.records):
            return
        self.records = kept
        write_whole(self.path, "".join(map(_text, kept)))

    def steps(self, corpus: str, row: str) -> Steps | None:
        """Return the steps of a row, None if they are unknown."""
        found = (r for r in self.records if isinstance(r, Steps) and (r.corpus, r.row) == (corpus, row))
        return next(found, None)

    def outcome(self, job: Job) -> Outcome | None:
        """Return the result of a run, None if there is none."""
        return _of(job, (r for r in self.records if isinstance(r, Outcome)))

    def failure(self, job: Job) -> Failed | None:
        """Return the failure of a run, None if it did not fail."""
        return _of(job, (r for r in self.records if isinstance(r, Failed)))

    def outcomes(self, corpus: str, row: str, seeds: Sequence[int]) -> list[Outcome]:
        """Return the results of a row's runs, in the order of the seeds."""
        return [found for seed in seeds if (found := self.outcome(Job(corpus, row, seed)))]


def same(a: Any, b: Any) -> bool:
    """Return whether two values are the same when written as JSON."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def _of(job: Job, records: Iterable[_R]) -> _R | None:
    return next((r for r in records if (r.corpus, r.row, r.seed) == job), None)


def _text(record: Record) -> str:
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":")) + "\n"


def _read(path: Path) -> Iterable[Record]:
    *whole, _ = path.read_bytes().split(b"\n")  # what follows the last line feed was left by a killed writer
    for number, line in enumerate(whole, 1):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{printable(path)}: line {number} is not JSON; take it out") from None
        yield validate(_Line, {"line": found}, f"{path}: line {number}").line
