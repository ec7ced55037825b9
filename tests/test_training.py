"""A run on synthetic noise: it can be killed at any point and resumed, and ends as if it had never been killed."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jiwer
import pytest
from rich.console import Console
from synthetic import cut, experiment, logged_steps, manifest
from torch import Tensor

import asr.training.states
from asr.checkpoint import load_model_folder, load_state, save_state
from asr.data.batch import Batch
from asr.data.cuts import read_cuts
from asr.errors import AudioError, CheckpointError, ConfigError
from asr.training.averaging import average
from asr.training.folder import claim_folder
from asr.training.logs import read_metrics
from asr.training.run import train
from asr.training.start import starting_point
from asr.training.states import newest_sound_state, state_path, states_in
from asr.training.task import SpeechTask

VALIDATE_EVERY, SAVE_EVERY = 10, 6  # as in the synthetic experiment
NAMES = ("lr-AdamW/pg1", "loss", "grad_norm")


def command(config: Path, out: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "asr", "train", str(config), f"out={out}", "data.workers=2", *overrides]


def run(config: Path, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(config, out, *overrides), capture_output=True, text=True, timeout=300, check=False)


def steps(out: Path) -> dict[int, set[tuple[str, ...]]]:
    """Return what was logged for each step: one entry, or several if a step that was done twice differed."""
    found: dict[int, set[tuple[str, ...]]] = {}
    for row in logged_steps(out):
        found.setdefault(row["batch"], set()).add((str(row["epoch"]), row["loss"], *row["ids"]))
    return found


def kill_after(config: Path, out: Path, step: int) -> int:
    """Start or resume a run, kill it once `step` steps are logged, and return the last step that it logged."""
    before = len(logged_steps(out))
    process = subprocess.Popen(command(config, out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if any(row["batch"] + 1 >= step for row in logged_steps(out)[before:]):
            break
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()
    return logged_steps(out)[-1]["batch"] + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signalled_run_exits_with_130_and_a_hint_to_resume(
    number: signal.Signals, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits that background jobs ignore it
    process = subprocess.Popen(command(config, out), stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, ours)
    deadline = time.monotonic() + 200
    while process.poll() is None and not logged_steps(out) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 130, told
    assert "the same command goes on where this one left off" in told
    assert "Traceback" not in told


def curve(out: Path, name: str) -> list[tuple[int, str]]:
    """Return the steps and values of a learning curve."""
    return [(int(row["step"]), row[name]) for row in read_metrics(out / "logs") if row.get(name)]


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = run(config, out)
    assert done.returncode == 0, done.stderr
    return out


def test_finished_run_leaves_its_files_and_statistics(whole: Path) -> None:
    load_model_folder(whole / "model")
    for name in ("run.json", "learning_curves.png", "experiment.yaml", "dropped.tsv", "logs/start-01/metrics.csv"):
        assert (whole / name).stat().st_size > 0 or name == "dropped.tsv"
    assert list((whole / "plots").glob("*.png"))
    manifest = json.loads((whole / "run.json").read_text())
    assert manifest["utterances_seen"] == 3 * 40
    assert manifest["share_of_utterances"]["speed"] > 0.3
    assert manifest["share_of_batches_masked"] == 1.0
    epochs = [
        sorted(i for row in steps(whole).values() for (e, _, *ids) in row if e == str(k) for i in ids) for k in range(3)
    ]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(epochs[0]) == len(set(epochs[0])) == 40
    *validated, (last, _) = curve(whole, "dev_wer")
    assert [step for step, _ in validated] == list(range(VALIDATE_EVERY, last, VALIDATE_EVERY))
    assert last == manifest["steps"]  # the last steps are validated, too


def test_dev_wer_of_the_best_model_has_an_interval(whole: Path) -> None:
    """The rate is jiwer's for the written texts, and the one by which the model was chosen."""
    manifest = json.loads((whole / "run.json").read_text())
    rows = [json.loads(line) for line in (whole / "hyp.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {f"dev-{i}" for i in range(4)}
    found = manifest["dev_of_best"]["transcribe"]["metrics"]["wer"]
    expected = jiwer.wer([row["reference"] for row in rows], [row["text"] for row in rows])
    assert found["rate"] == pytest.approx(expected)
    assert 100 * expected == pytest.approx(min(manifest["best_states"].values()))
    low, high = found["interval_95"]
    assert low <= expected <= high
    assert 100 * expected == pytest.approx(min(float(value) for _, value in curve(whole, "dev_wer")))


def test_run_killed_four_times_ends_bit_identical(config: Path, whole: Path, tmp_path: Path) -> None:
    out, last = tmp_path / "run", max(steps(whole)) + 1
    draw = random.Random(last)
    before_any_state = draw.randrange(1, SAVE_EVERY - 2)
    after_a_state = draw.randrange(SAVE_EVERY, VALIDATE_EVERY - 1)
    late = draw.randrange(VALIDATE_EVERY + 3, last - 2)
    kill_after(config, out, before_any_state)
    assert not states_in(out / "states")
    kill_after(config, out, after_a_state)
    assert states_in(out / "states")
    # The step before a validation is logged when the validation begins; the state is saved when it ends.
    assert kill_after(config, out, VALIDATE_EVERY) == VALIDATE_EVERY
    assert max(step for step, _ in states_in(out / "states")) < VALIDATE_EVERY
    kill_after(config, out, late)
    torn = states_in(out / "states")[-1][1]
    torn.write_bytes(torn.read_bytes()[:-50])  # a damaged last state is reported, and the one before is used
    done = run(config, out)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if torn.name in line]
    assert steps(out) == steps(whole)
    assert curve(out, "dev_wer") == curve(whole, "dev_wer")
    assert (out / "hyp.jsonl").read_bytes() == (whole / "hyp.jsonl").read_bytes()
    assert curve(out, "loss") == curve(whole, "loss")
    assert (out / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()


def test_finished_run_resumes_if_its_limits_are_raised(config: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for longer in ("trainer.max_steps=4", "trainer.max_epochs=1", "trainer.max_epochs=3", "trainer.max_epochs=3"):
        done = run(config, out, longer)
        assert done.returncode == 0, done.stderr
    assert steps(out) == steps(whole)
    assert [line for line in done.stderr.splitlines() if "going on" in line]


SHORT = (
    "trainer.max_epochs=null",
    "trainer.save_every_steps=2",
    "trainer.plot_utterances=0",
    "trainer.log_every_steps=1",
)


def test_best_model_can_be_used_before_the_run_ends(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    short = experiment(config, f"out={out}", *SHORT, "trainer.validate_every_steps=2", "trainer.max_steps=4")
    with monkeypatch.context() as killed:
        killed.setattr("asr.training.run.finish", lambda *given: out)
        train(short, Console(quiet=True))
    assert not (out / "run.json").exists()
    files = sorted((out / "model").iterdir())
    before = [path.read_bytes() for path in files]
    load_model_folder(out / "model")
    load_model_folder(average(out)[0])
    train(short, Console(quiet=True))
    assert sorted((out / "model").iterdir()) == files
    assert [path.read_bytes() for path in files] == before


def test_run_ends_when_patience_runs_out_and_resumes_with_more(config: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "run", []
    still = (
        *SHORT,
        "trainer.max_steps=9",
        "trainer.validate_every_steps=2",
        "optimizer.lr=1e-9",
        "trainer.step_log=true",
    )
    for patience in (2, 2, 3):
        console = Console(file=io.StringIO())
        train(experiment(config, f"out={out}", *still, f"trainer.patience={patience}"), console)
        told.append((len(logged_steps(out)), console.file.getvalue().count("validations without a new best")))
    assert told == [(6, 1), (6, 1), (8, 1)]


def test_raised_limit_after_a_partial_step_begins_a_whole_step(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 5 batches of the first epoch end in a step of a single batch."""
    limits = (
        *SHORT,
        "trainer.accumulate=2",
        "data.batch_size=8",
        "data.batch_duration_s=100",
        "data.buckets=1",
        "augment.join=0",
    )
    done: dict[int, list[tuple[int, int]]] = {}  # by step, own utterances and those of the whole step
    step = SpeechTask.training_step

    def noted(task: SpeechTask, batch: Batch, batch_idx: int) -> Tensor | None:
        done.setdefault(task.global_step, []).append((len(batch.ids), batch.step_utterances))
        return step(task, batch, batch_idx)

    monkeypatch.setattr(SpeechTask, "training_step", noted)
    for epochs in (1, 2):
        train(
            experiment(config, f"out={tmp_path / 'run'}", *limits, f"trainer.max_epochs={epochs}"), Console(quiet=True)
        )
    assert done == {step: [(8, 16), (8, 16)] for step in (0, 1, 3, 4)} | {2: [(8, 8)], 5: [(8, 8)]}


def test_extended_cosine_run_follows_the_schedule_of_its_new_length(config: Path, tmp_path: Path) -> None:
    def rates(out: Path, *lengths: int) -> list[tuple[int, str]]:
        for steps in lengths:
            changes = "optimizer.schedule=cosine", "trainer.validate_every_steps=2", f"trainer.max_steps={steps}"
            train(experiment(config, f"out={out}", *SHORT, *changes), Console(quiet=True))
        return curve(out, NAMES[0])

    longer, whole = rates(tmp_path / "longer", 4, 8), rates(tmp_path / "whole", 8)
    assert [step for step, _ in longer] == [step for step, _ in whole]
    assert longer[-3:] == whole[-3:]  # a step's learning rate is set when the one before it ends
    assert float(longer[-1][1]) > 0


def test_dev_loss_does_not_depend_on_a_decaying_loss_weight(config: Path, tmp_path: Path) -> None:
    out, decaying = tmp_path / "run", "loss.guided_attention={weight: 5, decay_steps: 6}"
    changes = decaying, "optimizer.lr=1e-12", "trainer.validate_every_steps=2", "trainer.max_steps=4"
    train(experiment(config, f"out={out}", *SHORT, *changes), Console(quiet=True))
    first, second = (float(value) for _, value in curve(out, "dev_loss"))
    assert first == pytest.approx(second, rel=1e-5)


def test_criterion_that_has_ended_is_not_logged_again(config: Path, tmp_path: Path) -> None:
    out, decaying = tmp_path / "run", "loss.guided_attention={weight: 5, decay_steps: 2}"
    changes = decaying, "trainer.log_every_steps=1", "trainer.validate_every_steps=2", "trainer.max_steps=4"
    train(experiment(config, f"out={out}", *SHORT, *changes), Console(quiet=True))
    assert [step for step, _ in curve(out, "loss_ce")] == [1, 2, 3, 4]
    assert [step for step, _ in curve(out, "loss_guided")] == [1, 2]


def test_run_without_steps_left_is_still_validated_and_finished(config: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "run", io.StringIO()
    limits = (*SHORT, "trainer.validate_every_steps=3")
    train(experiment(config, f"out={out}", *limits, "trainer.max_steps=8"), Console(quiet=True))
    for step, path in states_in(out / "states"):
        if step > 6:
            path.unlink()
    state = load_state(state_path(out / "states", 6))
    state["callbacks"]["KeepStates"] |= {"validated": 3}  # as if it had been killed before the validation
    save_state(state_path(out / "states", 6), state)
    train(experiment(config, f"out={out}", *limits, "trainer.max_steps=6"), Console(file=said))
    assert re.search(r"^step 6, \d+ s: .*dev loss", said.getvalue(), re.MULTILINE), said.getvalue()
    assert json.loads((out / "run.json").read_text())["steps"] == 6


def test_changed_configuration_gets_a_new_vocabulary_before_training(config: Path, tmp_path: Path) -> None:
    changes = f"out={tmp_path / 'run'}", *SHORT, "trainer.validate_every_steps=1", "trainer.max_steps=1"
    claim_folder(plain := experiment(config, *changes))
    before = starting_point(plain).tokenizer
    claim_folder(other := experiment(config, *changes, "normalizer=none", "tokenizer.languages=[en]"))
    after = starting_point(other).tokenizer
    assert (before.languages, after.languages) == ((), ("en",))
    claim_folder(other)
    assert starting_point(other).tokenizer.languages == ("en",)


def test_stop_during_the_last_validation_interrupts_the_run(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_stop(*args: Any, **options: Any) -> None:
        raise SystemExit

    monkeypatch.setattr("lightning.Trainer.validate", told_to_stop)
    with pytest.raises(KeyboardInterrupt):
        train(experiment(config, f"out={tmp_path / 'run'}", *SHORT, "trainer.max_steps=1"), Console(quiet=True))


def test_only_options_that_affect_no_weights_may_change_on_resuming(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    claim_folder(experiment(config, f"out={out}"))
    state_path(out / "states", 6).parent.mkdir()
    state_path(out / "states", 6).write_bytes(b"")
    claim_folder(experiment(config, f"out={out}", "trainer.keep_best=2", "trainer.log_every_steps=3"))
    with pytest.raises(ConfigError, match=r"another configuration \(optimizer\.lr differ\)"):
        claim_folder(experiment(config, f"out={out}", "optimizer.lr=0.5"))


def test_logs_of_a_step_are_written_before_its_state(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "run", []

    def save_and_look(path: Path, tree: dict[str, Any]) -> None:
        save_state(path, tree)
        step = int(path.stem.removeprefix("step-"))
        rows = [row for row in read_metrics(out / "logs") if int(row["step"]) == step]
        seen.append(
            (step, logged_steps(out)[-1]["batch"] + 1, [name for row in rows for name in NAMES if row.get(name)])
        )

    monkeypatch.setattr(asr.training.states, "save_state", save_and_look)
    limits = (
        "trainer.max_epochs=null",
        "trainer.max_steps=4",
        "trainer.save_every_steps=2",
        "trainer.log_every_steps=2",
    )
    train(experiment(config, f"out={out}", *limits, "trainer.plot_utterances=1"), Console(quiet=True))
    assert seen[:2] == [(2, 2, list(NAMES)), (4, 4, list(NAMES))]  # each once, though Lightning logs it again
    assert len([row for row in read_metrics(out / "logs") if row.get("loss")]) == 2


def test_leftovers_of_a_killed_start_do_not_hinder_the_next(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for name in ("tokenizer", "states", "plots", "model", "logs/start-01", "."):
        (out / name / ".writing-killed").mkdir(parents=True)
        (out / name / ".writing-killed" / ".tmpOfALibrary").write_text("half")
    (out / "steps.jsonl").write_text('{"batch": 0, "epo')
    short = experiment(config, f"out={out}", "trainer.max_epochs=null", "trainer.max_steps=2")
    train(short, Console(quiet=True))
    assert not list(out.rglob(".*"))
    assert [row["batch"] for row in logged_steps(out)] == [0, 1]
    for step in (0, 1):  # as if a start had been killed before removing them
        shutil.copy(state_path(out / "states", 2), state_path(out / "states", step))
    train(short, Console(quiet=True))
    assert [step for step, _ in states_in(out / "states")] == [1, 2]


def test_newest_sound_state_is_used_and_damaged_ones_are_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    assert newest_sound_state(tmp_path, lines.append) is None
    sound = {"state_dict": {}, "optimizer_states": [], "loops": {}, "task": {}}
    for step in (5, 900, 1000):
        save_state(tmp_path / f"step-{step:07d}.safetensors", sound)
    save_state(tmp_path / "step-0002000.safetensors", {"another": "program's"})
    (tmp_path / "step-0001000.safetensors").write_bytes(b"torn")
    (tmp_path / "step-0003000.safetensors.tmp").write_bytes(b"not yet renamed")
    assert newest_sound_state(tmp_path, lines.append) == tmp_path / "step-0000900.safetensors"
    assert ["step-0002000" in lines[0], "step-0001000" in lines[1], len(lines)] == [True, True, 2]
    for path in tmp_path.glob("step-0000*"):
        path.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="none of the 4 training states can be read; move the folder away"):
        newest_sound_state(tmp_path, lines.append)


def test_missing_audio_stops_a_run_before_it_begins(config: Path, tmp_path: Path) -> None:
    gone = [cut(f"gone-{i}", 1, path=tmp_path / f"gone-{i}.wav") for i in range(5)]
    train = manifest(tmp_path / "train.jsonl", [*gone, *read_cuts(config.parent / "train.jsonl.gz")])
    done = run(config, tmp_path / "run", f"data.train={train}")
    assert done.returncode == 2
    named = "; ".join(f"gone-{i}: {tmp_path}/gone-{i}.wav" for i in range(3))
    remedy = "bring it back, or take a manifest without"
    said = f"asr: {train}: the audio of 5 cuts is not there ({named}; and 2 more): {remedy}"
    assert done.stderr.splitlines() == [said]


def test_audio_lost_during_a_run_is_reported_with_its_cut_id(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.training.run.check_files", lambda *given: None)
    gone = manifest(tmp_path / "train.jsonl", [cut("gone", 1, path=tmp_path / "gone.wav")])
    with pytest.raises(AudioError, match=rf"^cut gone: {tmp_path}/gone\.wav: no such file"):
        train(experiment(config, f"data.train={gone}", f"out={tmp_path / 'run'}"), Console(quiet=True))


def test_different_configuration_in_the_same_folder_is_refused(config: Path, whole: Path) -> None:
    done = run(config, whole, "optimizer.lr=0.5")
    assert done.returncode == 2
    assert "optimizer.lr" in done.stderr
    assert "Traceback" not in done.stderr
