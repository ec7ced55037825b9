"""Two processes train as one: shares of the same batches and losses equal up to rounding; how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from safetensors.torch import load_file
from synthetic import logged_steps, short_cuts

from asr.checkpoint import load_state
from asr.data.batch import Batch, Example, collate
from asr.data.stream import CutBatch, ExampleDataset, Position, Share
from asr.training.logs import read_metrics
from asr.training.processes import end_with_starter
from asr.training.states import states_in

Step = tuple[float, list[str]]
ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "recipes" / "cluster"
TWO = "trainer.devices=2"
EPOCHS = "trainer.max_epochs=2"
EVEN = ("model.encoder.dropout=0", "model.decoder.dropout=0")  # dropout is drawn by each process for itself
FSDP = (TWO, "trainer.strategy=fsdp", *EVEN)


def command(config: Path, out: Path, *overrides: str, program: Sequence[str] = ("-m", "asr")) -> list[str]:
    return [sys.executable, *program, "train", str(config), f"out={out}", EPOCHS, *overrides]


def run(
    config: Path, out: Path, *overrides: str, program: Sequence[str] = ("-m", "asr")
) -> subprocess.CompletedProcess[str]:
    words = command(config, out, *overrides, program=program)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


def steps(out: Path, rank: int = 0) -> dict[int, Step]:
    """Return loss and utterances by batch as the process logged them; of a repeated batch, the last."""
    return {row["batch"]: (float.fromhex(row["loss"]), row["ids"]) for row in logged_steps(out, rank)}


@pytest.fixture(scope="module")
def two(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "run"
    done = run(config, out, TWO)
    assert done.stderr.count("best: dev WER") == 1
    return out


@pytest.fixture(scope="module")
def even(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("even") / "run"
    run(config, out, TWO, *EVEN)
    return out


def check_shares(alone: Mapping[int, Step], shares: Sequence[Mapping[int, Step]]) -> None:
    """Check the steps of one process against those of two."""
    for batch, (loss, ids) in alone.items():
        of_each = [share[batch] for share in shares if batch in share]
        assert sorted(id for _, own in of_each for id in own) == sorted(ids)
        assert sum(own for own, _ in of_each) / 2 == pytest.approx(loss, rel=1e-3)


def check_weights(ours: Path, theirs: Path) -> None:
    expected = load_file(theirs / "model" / "model.safetensors")
    for name, weight in load_file(ours / "model" / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], atol=1e-3, rtol=1e-3)


def check_same_ends(ours: Path, theirs: Path) -> None:
    final = [load_state(states_in(out / "states")[-1][1])["state_dict"] for out in (ours, theirs)]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[1])


def test_two_processes_train_as_one(config: Path, even: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    run(config, one, *EVEN)
    alone, shares = steps(one), [steps(even, rank) for rank in (0, 1)]
    assert len(alone) > 10
    assert set(shares[0]) == set(alone)
    check_shares(alone, shares)
    for name in ("dev_loss", "dev_wer", "grad_norm"):
        ours, theirs = (
            [float(row[name]) for row in read_metrics(out / "logs") if row.get(name)] for out in (even, one)
        )
        assert ours == pytest.approx(theirs, rel=1e-3)
    rates = [
        [float(row[f"dev_wer{end}"]) for end in ("_low", "", "_high")]
        for row in read_metrics(even / "logs")
        if row.get("dev_wer")
    ]
    assert rates
    assert all(low <= rate <= high for low, rate, high in rates)
    check_weights(even, one)
    counts = [json.loads((out / "run.json").read_text()) for out in (one, even)]
    for key in ("utterances_seen", "audio_s_seen", "steps"):
        assert counts[0][key] == counts[1][key]


def test_prepared_signal_is_removed_after_the_start(two: Path) -> None:
    assert (two / "experiment.yaml").exists()
    assert not (two / "prepared").exists()


def kill(config: Path, out: Path, step: int, *, child: bool) -> tuple[int, str]:
    """Kill the first process or its child at a step; return the exit status and stderr of the first."""
    process = subprocess.Popen(command(config, out, TWO), stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until = time.monotonic() + 200
        while step not in steps(out) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.005)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]) if child else process.pid, signal.SIGKILL)
        _, told = process.communicate(timeout=60)
        while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in children):
            time.sleep(0.05)
        assert not any(Path(f"/proc/{pid}").exists() for pid in children), "a process was left behind"
        return process.returncode, told
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")
def test_run_resumes_identically_after_its_processes_are_killed(config: Path, two: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    status, told = kill(config, out, 8, child=True)
    assert status not in (0, -signal.SIGKILL)
    assert "Traceback" not in told
    assert "goes on" in told
    kill(config, out, 14, child=False)
    assert states_in(out / "states")
    run(config, out, TWO)
    for rank in (0, 1):
        assert steps(out, rank) == steps(two, rank)
    check_same_ends(out, two)


# Trains and writes, for each process, how many numbers it holds and how many there are.
HELD = """import json
from torch.distributed.tensor import DTensor
from asr.cli import main
from asr.training.callbacks import StepLog

def log_and_count(self, trainer, task, *given):
    log(self, trainer, task, *given)
    weights = list(task.model.parameters())
    moments = [x for own in trainer.optimizers[0].state.values() for x in own.values() if x.dim()]
    held = {"weights": weights, "gradients": [w.grad for w in weights], "moments": moments}
    local = lambda x: x.to_local() if isinstance(x, DTensor) else x
    counts = {name: [sum(local(x).numel() for x in all), sum(x.numel() for x in all)] for name, all in held.items()}
    (self.path.parent / f"held.{trainer.global_rank}.json").write_text(json.dumps(counts))

log, StepLog.on_train_batch_end = StepLog.on_train_batch_end, log_and_count
main()
"""


@pytest.fixture(scope="module")
def sharded(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sharded") / "run"
    (script := out.parent / "held.py").write_text(HELD)
    run(config, out, *FSDP, program=[str(script)])
    return out


def test_sharded_weights_train_like_whole_ones(even: Path, sharded: Path) -> None:
    held = [json.loads((sharded / f"held.{rank}.json").read_text()) for rank in (0, 1)]
    for name in ("weights", "gradients", "moments"):
        (first, whole), (second, _) = (each[name] for each in held)
        assert first + second == whole
        assert max(first, second) < 0.6 * whole
    for rank in (0, 1):
        for batch, (loss, ids) in steps(even, rank).items():
            own, own_ids = steps(sharded, rank)[batch]
            assert own_ids == ids
            assert own == pytest.approx(loss, rel=1e-3)
    norms = [
        [float(row["grad_norm"]) for row in read_metrics(out / "logs") if row.get("grad_norm")]
        for out in (even, sharded)
    ]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    check_weights(sharded, even)


def resumed(config: Path, before: Path, out: Path, *overrides: str) -> int:
    """Copy a run as it was at the first state that it still has, and resume it; return the step of that state."""
    shutil.copytree(before, out, ignore=shutil.ignore_patterns("steps*.jsonl", "model"))
    (first, _), *later = states_in(out / "states")
    for _, path in later:
        path.unlink()
    run(config, out, *overrides)
    return first


def test_sharded_run_resumes_identically_and_in_one_process(config: Path, sharded: Path, tmp_path: Path) -> None:
    first = resumed(config, sharded, tmp_path / "two", *FSDP)
    whole = [steps(sharded, rank) for rank in (0, 1)]
    assert 0 < first < len(whole[0])
    for rank in (0, 1):
        assert steps(tmp_path / "two", rank) == {batch: step for batch, step in whole[rank].items() if batch >= first}
    check_same_ends(tmp_path / "two", sharded)
    resumed(config, sharded, tmp_path / "one", *EVEN)
    alone = steps(tmp_path / "one")
    assert set(alone) == set(range(first, len(whole[0])))
    check_shares(alone, whole)
    check_weights(tmp_path / "one", sharded)


def test_process_ends_with_its_starter_before_they_connect() -> None:
    held = "from asr.training.processes import end_with_starter\nwith end_with_starter():\n    "
    child = f"import time\n{held}print('up', flush=True); time.sleep(60); print('still up')"
    run_it = f"os.environ['LOCAL_RANK'] = '1'; subprocess.run([sys.executable, '-c', {child!r}])"
    first = f"import os, subprocess, sys\n{held}{run_it}"
    process = subprocess.Popen([sys.executable, "-c", first], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "up\n"
        process.kill()
        process.wait()
        assert process.stdout.read() == "", "the child outlived its starter"


def test_end_with_starter_restores_the_environment() -> None:
    before = dict(os.environ)
    with end_with_starter():
        assert os.environ != before
    assert os.environ == before


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_processes_started_by_torchrun_train_like_ours(config: Path, two: Path, tmp_path: Path) -> None:
    out, script = tmp_path / "launched", CLUSTER / "torchrun.sh"
    folder = Path(sys.executable).parent
    given = {"HOST": "127.0.0.1", "PORT": free_port(), "GPUS": "2", "PATH": f"{folder}:{os.environ['PATH']}"}
    words = ["bash", str(script), str(config), f"out={out}", EPOCHS]
    done = subprocess.run(words, env=os.environ | given, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert steps(out, rank) == steps(two, rank)


# ---- machines -------------------------------------------------------------------------------------------------


def take_two_steps(script: str, config: Path, folders: Sequence[Path], given: Mapping[str, str]) -> list[str]:
    """Run a script of recipes/cluster in several folders at once; return what each run wrote to standard error."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path} | given
    words = ["bash", str(CLUSTER / script), str(config), EPOCHS, "trainer.max_steps=2"]
    runs = []
    try:
        for folder in folders:
            folder.mkdir()
            out = f"out={folder.parent / 'run'}"
            runs.append(
                subprocess.Popen(
                    [*words, out], cwd=folder, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
                )
            )
        told = [run.communicate(timeout=300)[1] for run in runs]
    finally:
        for run in runs:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGTERM)  # torchrun ends its processes, which are in groups of their own
    assert [run.returncode for run in runs] == [0] * len(folders), told
    return told


def check_first_two_steps(out: Path, two: Path) -> None:
    """Check a run of two processes against the one that was started by one command."""
    for rank in (0, 1):
        assert steps(out, rank) == {batch: step for batch, step in steps(two, rank).items() if batch < 2}


def test_two_machines_train_as_one_does(config: Path, two: Path, tmp_path: Path) -> None:
    given = {"HOST": "127.0.0.1", "PORT": free_port(), "NODES": "2", "GPUS": "1"}
    given["PET_LOCAL_ADDR"] = "127.0.0.1"  # torchrun's --local-addr: this machine's name may have no address
    told = take_two_steps("torchrun.sh", config, [tmp_path / "first", tmp_path / "second"], given)
    assert sorted(text.count("best: dev WER") for text in told) == [0, 1]
    check_first_two_steps(tmp_path / "run", two)


# Starts the tasks of all machines on this one, ends all if one fails, as srun does, and records its own arguments.
SRUN = """#!/usr/bin/env bash
set -eu
printf '%s\\n' "$OMP_NUM_THREADS" "$@" > srun.txt
while [[ $1 == --* ]]; do
  if [[ $1 == --ntasks-per-node=* ]]; then export SLURM_NTASKS_PER_NODE=${1#*=}; fi
  shift
done
export SLURM_NTASKS=$((SLURM_JOB_NUM_NODES * SLURM_NTASKS_PER_NODE))
for ((i = 0; i < SLURM_NTASKS; i++)); do
  export SLURM_PROCID=$i SLURM_NODEID=$((i / SLURM_NTASKS_PER_NODE)) SLURM_LOCALID=$((i % SLURM_NTASKS_PER_NODE))
  "$@" &
done
while ((i--)); do wait -n || kill 0; done
"""


def test_slurm_script_trains_on_two_machines_as_on_one(config: Path, two: Path, tmp_path: Path) -> None:
    stubs = {"srun": SRUN, "asr": f'#!/bin/sh\nexec {sys.executable} -m asr "$@"\n'}
    for name, content in stubs.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    given = {"SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "1"}
    given |= {"SLURM_JOB_ID": "7", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": free_port()}
    given["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    take_two_steps("slurm.sbatch", config, [tmp_path / "job"], given)
    passed = (tmp_path / "job" / "srun.txt").read_text().splitlines()
    assert passed[:6] == ["1", "--ntasks-per-node=1", "--cpus-per-task=1", "--kill-on-bad-exit=1", "asr", "train"]
    assert passed[-2:] == ["trainer.nodes=2", "trainer.devices=1"]
    check_first_two_steps(tmp_path / "run", two)


# ---- shares ---------------------------------------------------------------------------------------------------


def example(cut: Cut, epoch: int) -> Example:
    return Example(cut.id, torch.ones(3), "", [1, 2], 1, [])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_partition_the_batch_with_equal_weights(count: int) -> None:
    cuts = short_cuts(count)
    whole = CutSet.from_cuts(cuts)
    batch = CutBatch(whole, Position(), (whole,))
    shares: list[Batch] = []
    for rank in range(3):
        made = ExampleDataset(example, Share(rank, 3), lambda _: 5)[batch]
        assert isinstance(made, Batch)
        assert (made.step_targets, made.step_utterances) == (5 * count, count)
        shares.append(made)
    counting = [share for share in shares if share.weight]
    assert sorted(id for share in counting for id in share.ids) == sorted(cut.id for cut in cuts)
    assert {share.weight for share in counting} == {3.0}
    assert len(counting) == min(3, count)
    assert collate([example(cuts[0], 0)]).weight == 1.0
