"""The metrics table of a run, after kills and full disks; the names of its plots."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults import files_of_at_most

import asr.training.logs as logs_module
from asr.training.logs import MetricsTable, metrics_files, one_error, read_metrics
from asr.training.plots import _stem


def table(folder: Path, text: str, start: int = 1) -> Path:
    path = folder / f"start-{start:02}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def steps(folder: Path) -> list[int]:
    return [int(row["step"]) for row in read_metrics(folder)]


def test_truncated_row_is_left_out(tmp_path: Path) -> None:
    table(tmp_path, "loss,step\n3.5,9\n3.25,1")  # 19, cut off
    assert steps(tmp_path) == [9]
    table(tmp_path, "loss,st", start=2)
    assert steps(tmp_path) == [9]


def test_more_than_99_starts_are_in_order(tmp_path: Path) -> None:
    for start in (9, 10, 99, 100, 101):
        table(tmp_path, f"loss,step\n1,{start}\n", start)
    assert [path.parent.name for path in metrics_files(tmp_path)] == [f"start-{n:02}" for n in (9, 10, 99, 100, 101)]
    assert steps(tmp_path) == [9, 10, 99, 100, 101]


def test_adding_a_column_never_loses_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = MetricsTable(tmp_path)
    written.log_metrics({"loss": 1.5}, 0)
    written.save()

    @contextmanager
    def killed(path: Path) -> Iterator[Path]:
        yield tmp_path / "temporary"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(logs_module, "write_atomically", killed)
        written.log_metrics({"dev_loss": 2.5}, 1)
        with pytest.raises(KeyboardInterrupt):
            written.save()
    assert steps(tmp_path / "logs") == [0]
    again = MetricsTable(tmp_path)
    again.log_metrics({"loss": 1.0}, 1)
    again.save()
    again.log_metrics({"dev_loss": 2.5}, 2)
    again.save()
    assert [(row["step"], row.get("loss"), row.get("dev_loss")) for row in read_metrics(tmp_path / "logs")] == [
        ("0", "1.5", None),
        ("1", "1.0", ""),
        ("2", "", "2.5"),
    ]


def test_full_disk_in_the_middle_of_a_row_spoils_no_other(tmp_path: Path) -> None:
    """Lightning keeps the rows that it could not write, and writes them when the run ends."""
    written = MetricsTable(tmp_path)
    written.log_metrics({"loss": 1.5}, 1)
    written.save()
    (path,) = metrics_files(tmp_path / "logs")
    for step in (2, 3):
        written.log_metrics({"loss": 1.25}, step)
    with files_of_at_most(path.stat().st_size + 10), pytest.raises(OSError, match=r"metrics\.csv"):
        written.save()
    written.finalize("failed")
    assert path.read_text().endswith("\n1.")
    assert steps(tmp_path / "logs") == [1, 2]


def test_only_os_errors_of_threads_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> None:
        raise error

    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    before = threading.excepthook
    with one_error():
        for error in (OSError("no space"), ValueError("a mistake of ours")):
            thread = threading.Thread(target=fail, args=[error])
            thread.start()
            thread.join()
    assert threading.excepthook is before
    assert told == [ValueError]


def test_plots_have_file_names_that_are_short_and_unique() -> None:
    ids = ["a-b", "a/b", "a b", "x" * 239, "x" * 240, "ä" * 150]
    names = [_stem(id) for id in ids]
    assert names[0] == "a-b"
    assert len(set(names)) == len(ids)
    assert all(len(name.encode()) <= 210 and "/" not in name for name in names)
