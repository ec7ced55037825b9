"""Worker processes on one machine: their messages, threads and GPUs, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from asr.corpus import Settings, Shard
from asr.corpus.processes import Say, side_by_side
from asr.errors import AsrError
from asr.progress import OnDone


def one_is_killed(shard: Shard, number: int, say: Say, on_done: OnDone) -> None:
    """Work as a process; the one with number 1 kills itself."""
    on_done(1.0, 2.0)
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    say(f"{shard}: {torch.get_num_threads()} threads")
    on_done(3.0, 3.0)


def both_warn(shard: Shard, number: int, say: Say, on_done: OnDone) -> None:
    """Give a warning of one's own and one that all processes give."""
    warnings.warn(f"{shard} was\nhere", stacklevel=1)
    warnings.warn("all were", stacklevel=1)


def test_killed_worker_is_named_and_the_others_finish() -> None:
    said: list[str] = []
    seconds: list[tuple[float, float]] = []
    shards = Shard(2, 3).split(2)
    with pytest.raises(AsrError, match=r"^the worker of shard 4/6 ended with signal 9; the same command goes on"):
        side_by_side(one_is_killed, shards, said.append, lambda *s: seconds.append(s))
    assert said == [f"3/6: {max(1, torch.get_num_threads() // 2)} threads"]
    assert seconds[0] == (1.0, 4.0), "a worker not heard from counts as average"
    assert seconds[-1] in ((3.0, 6.0), (4.0, 5.0))


def test_warning_of_all_workers_is_shown_once() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        side_by_side(both_warn, Shard(1, 1).split(2), _not_called, _not_called)
    assert sorted(str(warning.message) for warning in shown) == ["1/2 was here", "2/2 was here", "all were"]


def _not_called(*_: object) -> None:
    raise AssertionError


STOPPED = """
import os, signal, time
from asr.corpus.manifest import Shard
from asr.corpus.processes import side_by_side
up = []
def sleep(shard, number, say, on_done):
    say(str(os.getpid()))
    time.sleep(90)
def heard(pid):
    up.append(pid)
    if len(up) == 2:
        os.killpg(0, signal.SIGINT)
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    try:
        side_by_side(sleep, Shard(1, 1).split(2), heard, None)
    except KeyboardInterrupt:
        print(*up)
"""


def test_ctrl_c_ends_all_workers_silently(tmp_path: Path) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED)
    command = [sys.executable, str(tmp_path / "stopped.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, start_new_session=True)
    assert (done.returncode, done.stderr) == (0, "")
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr("asr.loading.load_model", lambda model, *, device, **_: taken.append(device))
    for count, device in ((0, "auto"), (1, "auto"), (2, "auto"), (2, "cuda"), (2, "cuda:1"), (2, "cpu")):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        for number in range(3):
            Settings("m", device=device).recognizer(number)
    turns = ["cuda:0", "cuda:1", "cuda:0"]
    assert taken == ["auto"] * 6 + turns * 2 + ["cuda:1"] * 3 + ["cpu"] * 3
