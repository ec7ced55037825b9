"""Ablations: resuming, failing rows, and measurements."""

from __future__ import annotations

import io
import json
import platform
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import jiwer
import pytest
import torch
import yaml
from ablations import ROWS, plan, tree, written
from command import asr as command
from rich.console import Console
from synthetic import corpus, experiment, experiment_file, untrained

import asr.ablation
from asr.ablation import Progress, ablate
from asr.ablation.commands import CommandError, Commands, locked
from asr.ablation.measure import Measuring, diagonality, measure, teacher_forcing
from asr.ablation.plan import Plan
from asr.ablation.results import Failed, Job, Results
from asr.ablation.timing import step_times
from asr.config import AblationConfig, ExperimentConfig, read_config
from asr.errors import AsrError
from asr.model.attention import explicit
from asr.training.logs import read_metrics
from asr.training.run import train
from asr.training.start import data_of

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")

USED = ("wide", "mean", "longer")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("base"), train=12, dev=3)


def trained(path: Path) -> None:
    """Train in this process, without plotting the learning curves, which takes longer than the training."""
    with mock.patch("asr.training.finish.draw_learning_curves"):
        train(read_config(ExperimentConfig, path), Console(file=io.StringIO()))


class Here(Commands):
    """Commands that run in this process, to be quick; subclasses stop them or let them fail in `before`."""

    done: ClassVar[list[str]]

    def run(self, words: Sequence[str], log: Path, threads: int) -> None:
        path = Path(words[-1])
        name = f"{words[0]} {'/'.join(path.with_suffix('').parts[-3:])}"
        self.before(name)
        if words[:2] == ["asr", "train"]:
            trained(path)
        else:
            threads_before = torch.get_num_threads()
            measure(read_config(Measuring, path))
            torch.set_num_threads(threads_before)
        self.done.append(name)

    def before(self, name: str) -> None: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    class Own(Here):
        done: ClassVar[list[str]] = []

    monkeypatch.setattr(asr.ablation, "Commands", Own)
    return Own


# ---- running -----------------------------------------------------------------------------------------------------


def run(path: Path, here: type[Here], **options: Any) -> bool:
    lines: list[str] = []
    options = {"progress": Progress(lines.append)} | options
    return ablate(read_config(AblationConfig, path), path, **options)


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML file of a finished ablation with a row that fails."""
    folder = tmp_path_factory.mktemp("whole")
    corpus(folder, "test", 2, 3)
    rows = {name: ROWS[name] for name in USED}
    rows["bad"] = {"set": {"tokenizer.kind": "bpe", "tokenizer.vocab_size": 60_000}}
    path = written(folder / "ablation.yaml", tree(folder, base, rows=rows))

    class Own(Here):
        done: ClassVar[list[str]] = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asr.ablation, "Commands", Own)
        assert not run(path, Own)
    return path


def test_all_runs_are_recorded_and_a_failing_row_does_not_stop_others(whole: Path) -> None:
    config = read_config(AblationConfig, whole)
    results = Results(config.results)
    for seed in (0, 1):
        failed = results.failure(Job("noise", "bad", seed))
        assert failed is not None
        assert "vocabulary of 60000 is too large" in failed.reason
        for row in ("base", *USED):
            outcome = results.outcome(Job("noise", row, seed))
            assert outcome is not None
            assert outcome.steps == {"base": 4, "longer": 2}.get(row)
            assert outcome.parameters > 1000
            assert 0 < outcome.diagonality <= outcome.best_head_diagonality < 1
            assert set(outcome.dev_losses) == {"ce", "ctc"}
        assert (config.runs / f"noise/base/{seed}/states").is_dir()  # `mean` averaged them
        assert not (config.runs / f"noise/longer/{seed}/states").exists()
    assert len(results.records) == 3 + 8 + 2
    assert (config.report.with_name("ABLATION-noise.png")).stat().st_size > 10_000
    text = config.report.read_text()
    assert "- **bad**. `tokenizer.kind=bpe` `tokenizer.vocab_size=60000`. Failed on noise with seed 0, 1: a bpe" in text
    assert "| bad | - |" in text


def test_recorded_error_counts_match_the_hypotheses(whole: Path) -> None:
    config = read_config(AblationConfig, whole)
    outcome = Results(config.results).outcome(Job("noise", "wide", 1))
    assert outcome is not None
    for split in ("dev", "test"):
        rows = [json.loads(x) for x in (config.runs / f"noise/wide/1/{split}/hyp.jsonl").read_text().splitlines()]
        words = [jiwer.process_words(row["reference"], row["text"]) for row in rows]
        found = getattr(outcome, split)
        assert list(found.wer.errors) == [w.substitutions + w.deletions + w.insertions for w in words]
        assert list(found.cer.reference) == [len(row["reference"]) for row in rows]


def test_decode_rows_share_the_base_model_of_their_seed(whole: Path) -> None:
    results = Results(read_config(AblationConfig, whole).results)
    losses = {row: [r.dev_losses for r in results.outcomes("noise", row, (0, 1))] for row in ("base", "wide", "mean")}
    assert losses["wide"] == losses["base"]
    assert losses["base"][0] != losses["base"][1]
    assert losses["mean"] != losses["base"]


def test_rerun_does_not_repeat_finished_work(whole: Path, here: type[Here]) -> None:
    before = whole.with_name("results.jsonl").read_bytes()
    assert not run(whole, here)  # the bad row is still failed
    assert run(whole, here, only=["wide"])
    assert here.done == []
    assert whole.with_name("results.jsonl").read_bytes() == before


def test_resuming_between_and_within_runs_gives_the_same_results(
    whole: Path, base: Path, tmp_path: Path, here: type[Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop in the middle of a training that has a state already, then before a measurement."""
    corpus(tmp_path, "test", 2, 3)
    path = written(tmp_path / "ablation.yaml", tree(tmp_path, base, seeds=[0], rows={"wide": ROWS["wide"]}))
    config = read_config(AblationConfig, path)

    class StopsIn(Here):
        at = ""

        def before(self, name: str) -> None:
            if name == self.at and name.startswith("asr "):  # half of the training is done, then Ctrl-C
                half = config.runs / "half.yaml"
                experiment = yaml.safe_load((config.runs / "noise/base/0.yaml").read_text())
                experiment["trainer"]["max_steps"] = 2
                trained(written(half, experiment))
            if name == self.at:
                raise KeyboardInterrupt

    for at, done in (("asr noise/base/0", []), ("asr.ablation base/0/measure", ["asr noise/base/0"])):
        StopsIn.at, StopsIn.done = at, []
        monkeypatch.setattr(asr.ablation, "Commands", StopsIn)
        with pytest.raises(KeyboardInterrupt):
            run(path, StopsIn)
        assert StopsIn.done == done
    assert Results(config.results).outcome(Job("noise", "base", 0)) is None
    monkeypatch.setattr(asr.ablation, "Commands", here)
    assert run(path, here)
    expected = Results(read_config(AblationConfig, whole).results)
    for row in ("base", "wide"):
        found, other = (r.outcome(Job("noise", row, 0)) for r in (Results(config.results), expected))
        assert found is not None
        assert other is not None
        assert (found.dev, found.test, found.dev_losses) == (other.dev, other.test, other.dev_losses)


class Killed(Here):
    """Commands that are all killed."""

    def before(self, name: str) -> None:
        raise CommandError("exit status -9", killed=True)


def test_a_killed_run_is_not_recorded_as_failed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asr.ablation, "Commands", Killed)
    path = written(tmp_path / "ablation.yaml", tree(tmp_path, base, seeds=[0], rows={"wide": ROWS["wide"]}))
    lines: list[str] = []
    assert not run(path, Killed, progress=Progress(lines.append))
    assert [record.kind for record in Results(tmp_path / "results.jsonl").records] == ["steps"]
    assert lines[-2:] == [
        "noise/base/0: was ended (exit status -9); the same command goes on with it",
        "noise/wide/0: left out, for it needs noise/base/0, and it has no result",
    ]


class Unlucky(Here):
    """Commands of which the training of base with seed 0 fails."""

    done: ClassVar[list[str]] = []

    def before(self, name: str) -> None:
        if name == "asr noise/base/0":
            raise CommandError("it diverged", killed=False)


def test_other_seeds_continue_after_one_seed_fails(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asr.ablation, "Commands", Unlucky)
    budget = {"max_steps": 2, "validations": 1, "timed_steps": 1, "untimed_steps": 1, "passes": 1}
    corpora = {"noise": {"base": str(base)}}
    changes = {"budget": budget, "rows": {"longer": ROWS["longer"]}, "corpora": corpora}
    path = written(tmp_path / "ablation.yaml", tree(tmp_path, base, **changes))
    lines: list[str] = []
    assert not run(path, Unlucky, progress=Progress(lines.append))
    results = Results(tmp_path / "results.jsonl")
    assert [found.seed for found in results.outcomes("noise", "longer", (0, 1))] == [1]
    assert "noise/longer/0: left out, for it needs noise/base/0, and it has no result" in lines


def test_rows_are_timed_in_turn_with_base(base: Path, tmp_path: Path, here: type[Here]) -> None:
    budget = {"train_s": 1e-3, "validations": 1, "timed_steps": 3, "untimed_steps": 1, "passes": 1}
    found = plan(tmp_path, base, seeds=[0], budget=budget, rows={"post": ROWS["post"]})
    asked: list[str] = []

    def failed(row: str, error: AsrError) -> None:
        raise error

    def once(experiment: dict[str, Any], path: Path) -> None:
        asked.append(experiment["model"]["encoder"].get("norm", "pre"))
        trained(written(path, experiment))

    times = step_times(found, "noise", ["post"], once, failed)
    assert asked == ["pre", "post"]
    assert all(0 < s < 10 for s in times.values())
    assert times.keys() == {"base", "post"}


def test_timed_as_copies_the_steps_of_the_other_row(base: Path, tmp_path: Path, here: type[Here]) -> None:
    rows = {"slow": {"set": {"optimizer.lr": 1e-4}, "timed_as": "base"}}
    budget = {"train_s": 0.5, "max_steps": 4, "validations": 1, "timed_steps": 2, "untimed_steps": 1, "passes": 1}
    corpora = {"noise": {"base": str(base)}}
    changes = {"seeds": [0], "budget": budget, "corpora": corpora, "rows": rows}
    path = written(tmp_path / "ablation.yaml", tree(tmp_path, base, **changes))
    assert run(path, here)
    found = Results(tmp_path / "results.jsonl")
    own, other = found.steps("noise", "slow"), found.steps("noise", "base")
    assert own is not None
    assert other is not None
    assert (own.step_s, own.base_step_s, own.steps) == (other.step_s, other.base_step_s, other.steps)
    assert sum(".timing" in name for name in here.done) == 1


def test_results_of_other_settings_are_refused_until_dropped_by_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "ablation.yaml", tree(tmp_path, base, seeds=[0], rows={"post": ROWS["post"]}))
    results = Results(tmp_path / "results.jsonl")
    for row in ("base", "post"):
        settings = Plan(read_config(AblationConfig, path), path).settings("noise", row)
        results.add(Failed(corpus="noise", row=row, seed=0, settings={**settings, "a": 1}, reason="diverged"))
    done = command("ablate", path)
    assert done.status == 2
    assert done.err[-1].endswith(
        "results of base, post were made with other settings (a): --again base,post drops them and makes them anew"
    )
    assert command("ablate", path, "--again", "base,pots").err[-1].endswith("no row 'pots'; there are base, post")
    monkeypatch.setattr(asr.ablation, "Commands", Killed)
    assert not run(path, Killed, again=["base", "post"])
    assert [record.kind for record in Results(tmp_path / "results.jsonl").records] == ["steps", "steps"]


def test_commands_run_fail_stop_and_lock(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with locked(tmp_path) as lock:
        commands = Commands(lock)
        commands.run(["platform"], log, 1)
        assert log.read_text().strip() == platform.platform()
        with pytest.raises(CommandError, match="No such file") as caught:
            commands.run(["json.tool", str(tmp_path / "none")], log, 1)
        assert not caught.value.killed
        with pytest.raises(AsrError, match="another asr ablate"), locked(tmp_path):
            pass
        ended: list[CommandError] = []

        def serve() -> None:
            with pytest.raises(CommandError) as caught:
                commands.run(["http.server", "0", "--bind", "127.0.0.1"], log, 1)
            ended.append(caught.value)

        thread = threading.Thread(target=serve)
        thread.start()
        while not commands._running:
            time.sleep(0.01)
        commands.stop()
        thread.join(20)
    assert ended[0].killed
    with locked(tmp_path):
        pass


# ---- measuring ---------------------------------------------------------------------------------------------------


def test_diagonality_matches_a_plain_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    tokens, frames = [3, 5], [7, 4]
    attention_BHLT = torch.zeros(2, 2, 5, 7)
    for b in range(2):
        part = torch.rand(2, tokens[b], frames[b], generator=draw)
        attention_BHLT[b, :, : tokens[b], : frames[b]] = part / part.sum(-1, keepdim=True)
    found_HB = diagonality(attention_BHLT, torch.tensor(tokens), torch.tensor(frames))
    for b in range(2):
        for h in range(2):
            total = 0.0
            for token in range(tokens[b]):
                for t in range(frames[b]):
                    distance = token / tokens[b] - t / frames[b]
                    total += float(attention_BHLT[b, h, token, t]) * 2.718281828459045 ** (-(distance**2) / 0.08)
            assert float(found_HB[h, b]) == pytest.approx(total / tokens[b], abs=1e-5)


def test_uniform_attention_has_the_diagonality_stated_in_the_report() -> None:
    even = torch.full((1, 1, 400, 400), 1 / 400)
    assert float(diagonality(even, torch.tensor([400]), torch.tensor([400]))) == pytest.approx(0.42, abs=0.005)


def test_diagonality_ignores_the_row_that_predicts_the_language(base: Path) -> None:
    config = experiment(base, "tokenizer.languages=[de,en]")
    parts = untrained(config)
    model, data = parts.model.eval(), data_of(config, parts)
    sum_H, tokens = torch.zeros(2), 0
    for cut in data.dev_cuts:
        batch = data.dev_batch([cut])
        assert batch.prefix_length == 2
        memory = model.encode(batch.audio_BN, batch.audio_len_B)
        _, (attention_BHLT,) = model.decoder(batch.inputs_BL, memory, explicit)
        text_BHLT = attention_BHLT[:, :, 1:]
        count = text_BHLT.shape[2]
        sum_H += count * diagonality(text_BHLT, torch.tensor([count]), memory.len_B)[:, 0].detach()
        tokens += count
    found = teacher_forcing(config, parts)
    assert found["diagonality"] == pytest.approx(float((sum_H / tokens).mean()), abs=1e-4)
    assert found["best_head_diagonality"] == pytest.approx(float((sum_H / tokens).max()), abs=1e-4)


def test_dev_losses_are_per_character(whole: Path) -> None:
    """Against the logged dev loss, which is per token: the characters of a text and its end."""
    config = read_config(AblationConfig, whole)
    folder = config.runs / "noise/base/0"
    found = json.loads((folder / "measured.json").read_text())["dev_losses"]
    experiment = read_config(ExperimentConfig, folder / "experiment.yaml")
    rows = [json.loads(line) for line in (folder / "hyp.jsonl").read_text().splitlines()]
    characters = sum(len(row["reference"]) for row in rows)
    weight = experiment.loss.ctc_weight
    expected = ((1 - weight) * found["ce"] + weight * found["ctc"]) * characters / (characters + len(rows))
    best = json.loads((folder / "measured.json").read_text())["best_step"]
    logged = {int(row["step"]): float(row["dev_loss"]) for row in read_metrics(folder / "logs") if row.get("dev_loss")}
    assert expected == pytest.approx(logged[max(step for step in logged if step <= best)], rel=1e-4)
