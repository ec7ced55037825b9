"""The logs of a run; neither a kill nor a full disk may lose a row of the metrics table that was already written."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from asr.files import naming, write_atomically


class _Table(ExperimentWriter):
    """Lightning's metrics table, but rewriting it with a wider header replaces the file atomically.

    A row that is logged twice in succession is written once.  After an error nothing more is written, as it would go on
    where a full disk cut a row off.
    """

    last: dict[str, Any] | None = None
    torn = False

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        row = {**metrics_dict, "step": step}
        if row != self.last:
            self.last = row
            super().log_metrics(metrics_dict, step)

    def save(self) -> None:
        if self.torn:
            return
        self.torn = True
        with naming(self.metrics_file_path):
            super().save()
        self.torn = False

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f))
        with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as f:
            writer = csv.DictWriter(f, fieldnames)
            writer.writeheader()
            writer.writerows(rows)


class _StepsDone(Logger):
    """A logger that counts completed optimiser steps: during a step, Lightning passes the number before it.

    within: whether it is called during training steps.
    """

    within = False

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        super().log_metrics(metrics, step + 1 if self.within and step is not None else step)  # type: ignore[safe-super]


class TensorBoard(_StepsDone, TensorBoardLogger):  # type: ignore[misc]
    """TensorBoard events of a run, in its subfolder logs/."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name=None, version="logs")


class MetricsTable(_StepsDone, CSVLogger):  # type: ignore[misc]
    """logs/start-NN/metrics.csv, one file for each start of a run, because Lightning deletes an existing file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="logs", version=f"start-{len(metrics_files(folder / 'logs')) + 1:02d}")

    @property
    @rank_zero_experiment
    def experiment(self) -> _Table:
        if self._experiment is None:
            self._experiment = _Table(self.log_dir)
        assert isinstance(self._experiment, _Table)
        return self._experiment


@contextmanager
def one_error() -> Iterator[None]:
    """Keep TensorBoard's thread from printing the traceback of an OSError that the next logging call raises anyway."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not isinstance(args.exc_value, OSError):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def within_steps(trainer: L.Trainer) -> Iterator[None]:
    """Tell the loggers that they are called during training steps."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, _StepsDone)]
    for logger in loggers:
        logger.within = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.within = False


def forget_step(trainer: L.Trainer) -> None:
    """Forget what the step before has logged: what this step lacks, such as a criterion that ended, would stay."""
    results = trainer.fit_loop._results
    assert results is not None
    results.reset()


def log_step(trainer: L.Trainer) -> None:
    """Log this step's metrics before its state is saved: a run killed after that would resume behind this step.

    Lightning logs the same row again after all callbacks.
    """
    trainer._logger_connector.update_train_step_metrics()


def metrics_files(logs: Path) -> list[Path]:
    """Return the metrics files of all starts of a run, in order."""
    return sorted(logs.glob("start-*/metrics.csv"), key=lambda path: int(path.parent.name.removeprefix("start-")))


def read_metrics(logs: Path) -> list[dict[str, str]]:
    """Return the rows of all starts, without the steps that a later start repeated and without a truncated last row."""
    rows: list[dict[str, str]] = []
    for path in metrics_files(logs):
        with path.open(encoding="utf-8", newline="") as f:
            later = list(csv.DictReader(line for line in f if line.endswith("\n")))
        if later:
            first = min(int(row["step"]) for row in later)
            rows = [row for row in rows if int(row["step"]) < first] + later
    return rows
