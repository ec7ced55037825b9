"""The checks of `make reliability` detect the faults that they look for."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import wave
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from asr.checkpoint import save_state
from benchmarks.reliability import checks, disk, kills
from benchmarks.reliability.checks import Kept
from benchmarks.reliability.mutated import MUTATIONS, judged, kind_of, waited

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


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    names = "a.csv", "b.tsv", "c.wav", "d.part", "e.done", "events.out.tfevents.1.host.2.0", "prepared"
    csv, tsv, wav, part, done, events, prepared = (tmp_path / name for name in names)
    csv.write_text("loss,step\n1,2\n3")  # a log may end in half a row
    tsv.write_text("id\treason\nx\tshort\n")
    with wave.open(str(wav), "wb") as f:
        f.setparams((1, 2, 8000, 0, "NONE", ""))
        f.writeframes(bytes(800))
    part.write_text('{"job": 1}\n0\tdone\t{"id": "a"}\n1\tdo')  # a killed worker's last line
    done.touch()
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        writer.add_scalar("loss", 1.0, 1)
    (written,) = (tmp_path / "logs").iterdir()
    records = written.read_bytes()
    written.rename(events)
    prepared.write_text("0" * 64)
    assert checks.corrupt(tmp_path) == []
    events.write_bytes(records[:-3])  # TensorBoard skips half a record
    assert checks.corrupt(tmp_path) == []
    csv.write_text("loss,step\n1\n")
    tsv.write_text("id\treason\nx\tsho")
    wav.write_bytes(wav.read_bytes()[:60])
    part.write_text('{"job": 1}\n0\tdone\t{"id": \n')
    done.write_text("x")
    events.write_bytes(records[:20] + b"\0\0" + records[22:])
    prepared.write_text("0" * 63)
    (tmp_path / "new.kind").touch()
    torn = sorted(Path(line.split(": ")[1]).name for line in checks.corrupt(tmp_path))
    assert torn == sorted([*names, "new.kind"])


@pytest.mark.parametrize(
    ("batches", "steps", "before", "found"),
    [
        ([], [], [], []),
        (range(6), [], [], []),  # killed before the state of step 6 was there
        (range(7), [6], [], []),
        (range(7), [], [], ["the newest state is that of step 0, though that of step 6"]),
        (range(12), [6, 10], [6], []),
        (range(12), [6], [6], ["the newest state is that of step 6, though that of step 10"]),
        (range(3), [6], [6, 10], ["the newest state is that of step 6, though that of step 10"]),  # of the last start
        ([*range(9), *range(6, 12)], [6, 10], [6], []),  # resumed where it should
        ([*range(9), *range(14)], [10, 12], [6], ["goes back to batch 0 though the state of step 6"]),
        ([*range(14), *range(10, 14)], [10, 12], [], ["goes back to batch 10 though the state of step 12"]),
    ],
)
def test_lost_states_are_detected(
    tmp_path: Path, batches: list[int], steps: list[int], before: list[int], found: list[str]
) -> None:
    out = run(tmp_path / "out", [(batch, 0, "0x1p0", ["a"]) for batch in batches])
    (out / "states").mkdir()
    for step in steps:
        (out / "states" / f"step-{step:07d}.safetensors").touch()
    if not batches:
        (out / "steps.jsonl").unlink()
    problems = checks.lost_states(out, {str(step): {step} for step in before}, (6, 10))
    assert len(problems) == len(found)
    assert all(text in problem for text, problem in zip(found, problems, strict=True))


def worker(folder: Path, name: str, *positions: int, torn: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f'{position}\tdone\t{{"id": "{position}"}}\n' for position in positions)
    (folder / name).write_text('{"job": 1}\n' + rows + torn)


def test_lost_and_repeated_results_of_a_corpus_are_detected(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    assert checks.kept_results(tmp_path) == {}
    worker(parts, "a.part", 0, 1, torn="2\tdone")
    before = checks.kept_results(tmp_path)
    assert before == {"a.part": {0, 1}}
    worker(parts, "a.part", 0, 1, 2)  # written by a worker that outlived its parent for a moment
    worker(parts, "b.part", 2, 3)
    assert checks.lost_results(tmp_path, before) == []
    worker(parts, "b.part", 1, 2, 3)
    assert checks.lost_results(tmp_path, before) == [f"{tmp_path}: recording 1 was transcribed again, in b.part"]
    (parts / "a.part").unlink()
    worker(parts, "b.part", 2, 3)
    assert len(checks.lost_results(tmp_path, before)) == 2


def test_each_recording_must_be_there_once_with_its_text(tmp_path: Path) -> None:
    def hypotheses(name: str, *rows: tuple[str, str]) -> Path:
        (tmp_path / name).mkdir()
        lines = (json.dumps({"id": id, "text": text}) for id, text in rows)
        (tmp_path / name / "hyp.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / name

    whole = hypotheses("whole", ("a", "one"), ("b", "two"), ("c", "three"))
    out = hypotheses("out", ("a", "one"), ("a", "one"), ("b", "too"))
    assert checks.wrong_texts(whole, whole) == []
    found = ["recording a: 2 times", "recording b: 'too', not 'two'", "recording c: lost"]
    assert checks.wrong_texts(out, whole) == found


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


@pytest.mark.parametrize("hung", [False, True])
def test_commands_that_hang_are_noticed(hung: bool) -> None:
    assert len(judged([], {}, "", None)) == 1
    (out, to_out), (err, to_err) = ((os.fdopen(r), os.fdopen(w, "w")) for r, w in (os.pipe(), os.pipe()))
    to_out.write("a\nb\n")
    to_out.flush()
    to_err.close()
    if not hung:
        to_out.close()
    rows, told, wait_s, noticed = waited(out, err, 1.0 if hung else 60.0)
    to_out.close()
    assert (rows, told, noticed) == (["a\n", "b\n"], [], hung)
    assert 0 < wait_s < 60


def test_broken_files_are_counted_by_how_they_were_made() -> None:
    names = "0123-flipped-wav.wav", "0124-misnamed-flac.mp3", "data-cut.wav", "-i.wav"
    kinds = [kind_of(Path(name)) for name in names]
    assert kinds == ["flipped wav", "misnamed flac", "from the tests", "from the tests"]


class Writer:
    """A job to kill: it writes three files, one after the other."""

    name, unit = "writer", "file"
    logs: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.targets: dict[str, tuple[str, ...]] = {"files": ("",)}

    def command(self, out: Path) -> list[str]:
        lines = f"out = Path({str(out)!r}); out.mkdir(exist_ok=True)", "[(out / n).write_text(n) for n in 'abc']"
        return [sys.executable, "-c", "\n".join(("from pathlib import Path", *lines))]

    def problems(self, out: Path, whole: Path) -> list[str]:
        return [name for name in os.listdir(whole) if not (out / name).exists()]

    def kept(self, out: Path) -> Kept:
        return {}

    def lost(self, out: Path, before: Kept) -> list[str]:
        return []


class Forgetful(Writer):
    """A training that removes its states whenever it starts: its losses and its last state are always the same."""

    name, unit, logs = "forgetful", "checkpoint", ("states", "steps")
    script = """
import json, sys
from pathlib import Path
out = Path(sys.argv[1])
(out / "states").mkdir(parents=True, exist_ok=True)
for path in (out / "states").iterdir():
    path.unlink()
for batch in range(9):
    with (out / "steps.jsonl").open("a") as f:
        print(json.dumps({"batch": batch, "epoch": 0, "loss": "0x1p0", "ids": [str(batch)]}), file=f)
    (out / "states" / f"step-{batch + 1:07d}.safetensors").touch()
"""

    def command(self, out: Path) -> list[str]:
        return [sys.executable, "-c", self.script, str(out)]

    def problems(self, out: Path, whole: Path) -> list[str]:
        return checks.wrong_steps(out, whole)

    def kept(self, out: Path) -> Kept:
        return checks.kept_states(out)

    def lost(self, out: Path, before: Kept) -> list[str]:
        return checks.lost_states(out, before, (1,))


def test_run_that_forgets_its_states_is_found_out_by_kills(tmp_path: Path) -> None:
    figures = kills.kill_job(Forgetful(), 4, tmp_path, 1, lambda: None)
    assert figures.made == 4
    assert figures.counts["after a first checkpoint"] > 0
    assert any("goes back to batch 0 though the state of step" in problem for problem in figures.problems)
    assert not any("as in the uninterrupted run" in problem for problem in figures.problems)


def test_reading_is_not_a_write_and_a_command_can_stop_itself_at_one(tmp_path: Path) -> None:
    script = "import sys; p = sys.argv[1]; open(p, 'w').close(); open(p).close(); open(p, 'a').close()"
    command, out = [sys.executable, "-c", script, str(tmp_path / "out")], tmp_path / "out"
    for at, there in ((1, False), (2, True)):
        moment = kills.Moment("writing", at=at, under=("",))
        started = kills.spawn(command, hook=kills.hook_for(moment, out, signal.SIGSTOP))
        assert kills.stopped(started.process.pid)
        assert out.exists() is there
        started.process.send_signal(signal.SIGCONT)
        assert not kills.stopped(started.process.pid)
        assert kills.finish(started) == (0, "")
        assert out.exists()
    moment = kills.Moment("writing", at=3, under=("",))
    started = kills.spawn(command, hook=kills.hook_for(moment, out))
    assert not kills.stopped(started.process.pid)
    assert kills.finish(started) == (0, "")  # it had only two


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
