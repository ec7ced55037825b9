"""Tasks in worker processes: order, a worker that dies, errors, and how all of them end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from asr.errors import DataError
from asr.processes import Lost, OnPart, in_processes


def square(task: int, on_part: OnPart) -> tuple[int, int]:
    """Return the square and the number of threads; 1 dies, 2 is warned about, 8 is an error."""
    on_part(task)
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 2:
        warnings.warn("two", stacklevel=1)
    if task == 8:
        raise DataError("eight")
    return task * task, torch.get_num_threads()


def test_dead_worker_costs_its_task_only_and_results_keep_their_order() -> None:
    parts: list[float] = []
    with pytest.warns(UserWarning, match=r"^two$"):
        results = in_processes(square, [0, 1, 2, 3], 2, parts.append)
    assert results == [(0, 1), Lost("signal 9"), (4, 1), (9, 1)]
    assert sorted(parts) == [0, 1, 2, 3]


def test_error_of_a_task_is_raised_here() -> None:
    with pytest.raises(DataError, match=r"^eight$"):
        in_processes(square, [8, 8], 2, lambda part: None)


def test_one_job_is_done_here_with_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert in_processes(square, [3, 4], 1, lambda part: None) == [(9, 1), (16, 1)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


STOPPED = """
import os, signal, sys, time
from pathlib import Path
from asr.files import write_atomically
from asr.processes import in_processes
up = []
def write(task, on_part):
    with write_atomically(Path(sys.argv[2]) / str(task)) as part:
        part.write_text("half")
        on_part(os.getpid())
        for _ in range(900):
            time.sleep(0.1)
            on_part(0)
def heard(pid):
    if pid:
        up.append(int(pid))
    if len(up) == 2:
        print(*up, flush=True)
        os.killpg(0, signal.SIGINT) if sys.argv[1] == "2" else os.kill(os.getpid(), int(sys.argv[1]))
if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        in_processes(write, [1, 2], 2, heard)
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command_and_leave_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, str(tmp_path / "stopped.py"), str(int(number)), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, start_new_session=True)
    assert (done.returncode, done.stderr) == (-9 if number == signal.SIGKILL else 0, "")
    pids = {int(pid) for pid in done.stdout.split()}
    assert len(pids) == 2
    for _ in range(300 if number == signal.SIGKILL else 1):  # then they notice by themselves
        alive = [pid for pid in pids if _lives(pid)]
        if alive:
            time.sleep(0.1)
    assert not alive
    assert not list(out.iterdir())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
