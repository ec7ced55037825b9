"""The checks of `make reliability` detect the faults that they look for."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import torch

from asr.checkpoint import save_state
from benchmarks.reliability import checks, disk, kills
from benchmarks.reliability.mutated import MUTATIONS, judged

Row = tuple[int, int, str, list[str]]
DOUBLED = [f"utterance {id}: 2 times in epoch 1" for id in "abc"]
WHOLE: list[Row] = [(0, 0, "0x1p0", ["a", "b"]), (1, 0, "0x1p1", ["c"]), (2, 1, "0x1p2", ["c", "a", "b"])]


def run(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir()
    lines = (json.dumps({"batch": b, "epoch": e, "loss": loss, "ids": ids}) for b, e, loss, ids in rows)
    (folder / "steps.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (WHOLE, []),
        ([WHOLE[0], WHOLE[0], *WHOLE[1:]], []),  # repeated after a kill, bitwise identical
        ([WHOLE[0], WHOLE[2]], ["batch (0, 1): not as", "utterance c: lost in epoch 0"]),
        ([*WHOLE, (3, 1, "0x1p3", ["a"])], ["batch (0, 3): not as", "utterance a: 2 times in epoch 1"]),
        ([*WHOLE, (2, 1, "0x1p3", ["c", "a", "b"])], ["done again, it came out differently", "not as", *DOUBLED]),
    ],
)
def test_lost_and_repeated_utterances_are_detected(tmp_path: Path, rows: list[Row], found: list[str]) -> None:
    problems = checks.wrong_steps(run(tmp_path / "out", rows), run(tmp_path / "whole", WHOLE))
    assert len(problems) == len(found)
    assert all(any(text in problem for problem in problems) for text in found)


def test_torn_and_temporary_files_are_detected(tmp_path: Path) -> None:
    state = tmp_path / "states" / "step-0000001.safetensors"
    save_state(state, {"weight": torch.ones(100)})
    (tmp_path / "run.json").write_text('{"steps": 1}\n')
    (tmp_path / "hyp.txt").write_text("\n")
    (tmp_path / ".lock").touch()
    assert [*checks.corrupt(tmp_path), *checks.leftovers(tmp_path)] == []
    state.write_bytes(state.read_bytes()[:-1])
    (tmp_path / "run.json").write_text('{"steps": ')
    (tmp_path / "hyp.txt").write_text("hal")
    (tmp_path / "cuts.jsonl.gz").write_bytes(b"")
    (tmp_path / ".writing-1").mkdir()
    (tmp_path / "states" / "x.part").touch()
    torn = sorted(Path(line.split(": ")[1]).name for line in checks.corrupt(tmp_path))
    assert torn == ["cuts.jsonl.gz", "hyp.txt", "run.json", state.name]
    assert checks.corrupt(tmp_path, but=("states",)) != checks.corrupt(tmp_path)
    assert len(checks.leftovers(tmp_path)) == 2


def test_tracebacks_and_missing_lines_are_detected(tmp_path: Path) -> None:
    told = 'asr: one\nTraceback (most recent call last):\n  File "x.py", line 1\n    y\nValueError: no\nasr: two\n'
    assert checks.tracebacks(told) == ["traceback: ValueError: no"]
    assert checks.tracebacks("asr: one\nTraceback (most recent call last):\n  File") == ["traceback: cut off"]
    bad = [tmp_path / name for name in ("a.wav", "b.wav", "c.wav")]
    good = f"asr: {bad[0]}: is empty\nasr: {bad[1]}: truncated\nasr: 2 of 3 failed\n"
    assert judged(bad, {str(bad[2]): ""}, good, 1) == []
    assert len(judged(bad, {str(bad[2]): ""}, good, 0)) == 1
    assert len(judged(bad, {}, good, 1)) == 1  # neither a text nor a line
    assert len(judged(bad, {str(path): "" for path in bad[1:]}, good, 1)) == 1  # both
    assert len(judged(bad, {str(bad[2]): ""}, good + "libmp3: bad bitstream\n", 1)) == 1


class Writer:
    """A job to kill: it writes three files, one after the other."""

    name = "writer"
    logs: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.targets: dict[str, tuple[str, ...]] = {"files": ("",)}

    def command(self, out: Path) -> list[str]:
        lines = f"out = Path({str(out)!r}); out.mkdir(exist_ok=True)", "[(out / n).write_text(n) for n in 'abc']"
        return [sys.executable, "-c", "\n".join(("from pathlib import Path", *lines))]

    def problems(self, out: Path, whole: Path) -> list[str]:
        return [name for name in os.listdir(whole) if not (out / name).exists()]


def test_command_is_killed_at_the_requested_write(tmp_path: Path) -> None:
    job = Writer()
    assert kills.uninterrupted(job, tmp_path / "whole").steps == {"files": 4}  # a folder and three files
    out = tmp_path / "out"
    hook = {"KILL_AT": "3", "KILL_UNDER": str(out)}
    status, _ = kills.finish(kills.spawn(job.command(out), hook=hook))
    assert status == -signal.SIGKILL
    assert os.listdir(out) == ["a"]  # before it opened the second
    assert job.problems(out, tmp_path / "whole") != []


def test_full_disk_must_be_reported_in_one_line_with_the_file(tmp_path: Path) -> None:
    job, line = Writer(), f"asr: {tmp_path}/x: No space left on device\n"
    assert disk.one_line(job, 2, line, tmp_path) == []
    for status, told in ((0, line), (-9, line), (2, ""), (2, line * 2), (2, "asr: No space left on device\n")):
        assert len(disk.one_line(job, status, told, tmp_path)) == 1


def test_every_mutation_but_one_changes_the_data() -> None:
    data = bytes(range(256)) * 40
    same = {name for name, change in MUTATIONS.items() if change(data, random.Random(name)) == data}
    assert same == {"misnamed"}
