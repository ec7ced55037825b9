"""Ablation plans: the runs, their order, their settings, and their number of steps."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from ablations import ROWS, plan, written
from synthetic import experiment_file

from asr.ablation.plan import Plan
from asr.ablation.results import Job
from asr.ablation.timing import quickest, steps_within
from asr.config import AblationConfig, ExperimentConfig, read_config, validate
from asr.errors import ConfigError
from asr.model.build import build_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("base"), train=12, dev=3)


def test_waves_order_runs_by_dependency_and_seed(tmp_path: Path, base: Path) -> None:
    two = {"one": {"base": str(base)}, "two": {"base": str(base), "set": {"optimizer.lr": 0.5}}}
    rows = {**ROWS, "post": {**ROWS["post"], "only": ["two"]}}
    found = plan(tmp_path, base, corpora=two, rows=rows)
    assert list(found.waves("one")) == [
        [Job("one", "base", 0), Job("one", "base", 1)],
        [Job("one", row, seed) for seed in (0, 1) for row in ("wide", "mean", "longer")],
    ]
    assert next(found.waves("two")) == [Job("two", row, seed) for seed in (0, 1) for row in ("base", "post")]
    assert list(found.waves("two", ["longer"])) == [
        [Job("two", row, seed) for seed in (0, 1)] for row in ("base", "longer")
    ]


def test_run_configs_contain_the_changes_of_row_and_corpus(tmp_path: Path, base: Path) -> None:
    corpora = {"noise": {"base": str(base), "set": {"optimizer.lr": 0.5, "optimizer.clip_norm": 3.0}}}
    found = plan(tmp_path, base, corpora=corpora, budget={"max_steps": 10, "validations": 4, "timed_steps": 0})
    post = read_config(ExperimentConfig, written(tmp_path / "x.yaml", found.experiment(Job("noise", "post", 1), 10)))
    before = read_config(ExperimentConfig, base)
    assert (post.seed, post.optimizer.lr, post.trainer.max_steps, post.trainer.max_epochs) == (1, 0.5, 10, None)
    assert post.trainer.validate_every_steps == 3  # after 3, 6, 9 and 10
    assert post.model.encoder == before.model.encoder.model_copy(update={"norm": "post"})
    assert post.augment == before.augment
    longer = found.experiment(Job("noise", "longer", 1), 5)
    assert longer["init"] == str(tmp_path / "runs/noise/base/1/model")
    assert longer["optimizer"]["lr"] == 1e-4  # a row's change overrides the corpus's
    assert not longer.keys() & {"model", "features", "tokenizer"}
    assert found.settings("noise", "wide") == found.settings("noise", "base") | {"from": "base", "decode.beam_size": 2}


def test_reported_base_command_reproduces_the_base_config(tmp_path: Path, base: Path) -> None:
    found = plan(tmp_path, base, set={"optimizer.betas": [0.9, 0.99], "tokenizer.kind": "bpe"})
    program, what, path, *overrides = shlex.split(found.command("noise", 7))
    assert (program, what, path) == ("asr", "train", str(base))
    ours = validate(ExperimentConfig, found.experiment(Job("noise", "base", 0), 7), "base")
    assert read_config(ExperimentConfig, base, [*overrides, f"out={ours.out}"]) == ours


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": {"x": {"sett": {}}}}, r"ablation.yaml: unknown key 'rows.x.sett'; did you mean 'rows.set'\?$"),
        ({"rows": {"x": {"set": {"model.encoder.nrm": "post"}}}}, r"row 'x': unknown key 'model.encoder.nrm'; did"),
        ({"rows": {"x": {"set": {"model.encoder.dim": 15}}}}, r"row 'x': 'model.encoder': dim=15 must be even"),
        ({"rows": {"x": {"set": {"seed": 3}}}}, "row 'x': seed is decided by the ablation"),
        ({"rows": {"x": {"set": {"out.y": 3}}}}, "row 'x': out is a value, not a section"),
        ({"rows": {"x": {"decode": {"beam": 3}}}}, "row 'x': unknown key 'beam'; did you mean 'beam_size'"),
        ({"rows": {"x": {"decode": {"beam_size": 3}, "set": {"seed": 1}}}}, "put decode.. keys into set"),
        ({"rows": {"x": {"from": "y"}}}, "row 'x': from: there is no other row 'y'"),
        ({"rows": {"x": {"against": "x"}}}, "row 'x': against: there is no other row 'x'"),
        ({"rows": {"x": {"from": "y"}, "y": {"from": "base"}}}, "'y' does not train a model from the start"),
        ({"rows": {"x": {"from": "y"}, "y": {"average": True}}}, "'y' does not train a model from the start"),
        ({"rows": {"x": {"from": "base", "set": {"model.encoder.layers": 2}}}}, "row 'x': init brings its own model"),
        ({"rows": {"x": {"share": 0.5}}}, "share is for rows that train on from another row"),
        ({"rows": {"x": {"only": ["fr"]}}}, "row 'x': only: there is no corpus 'fr'"),
        ({"rows": {"x": {"timed_as": "y"}, "y": {"timed_as": "base"}}}, "row 'y' is not one that is trained and timed"),
        ({"rows": {"x": {"decode": {"beam_size": 3}, "timed_as": "base"}}}, "is not one that is trained and timed"),
        ({"rows": {"x/y": {}}}, "'rows.x/y.*': String should match pattern"),
        ({"rows": {"base": {"set": {"seed": 1}}}}, "row 'base' changes nothing: put what all rows have into set"),
        ({"seeds": [1, 1]}, "a seed is given twice"),
        ({"budget": {}}, "'budget': give train_s or max_steps"),
        ({"budget": {"train_s": 3, "timed_steps": 0}}, "train_s needs timed_steps"),
        (
            {"budget": {"max_steps": 3, "timed_steps": 0}, "corpora": {"en": {"base": "base.yaml", "train_s": 3}}},
            "train_s needs timed_steps",
        ),
        ({"corpora": {"en": {"base": "none.yaml"}}}, "none.yaml: no such file"),
        ({"set": {"data.languages": ["en", "fr"]}}, "row 'base': data.languages must be one or none"),
    ],
)
def test_config_errors_are_reported_in_one_line(tmp_path: Path, base: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        plan(tmp_path, base, **changes)
    assert "\n" not in str(caught.value)


def test_row_must_be_limited_to_the_corpora_of_rows_it_depends_on(tmp_path: Path, base: Path) -> None:
    two = {name: {"base": str(base)} for name in ("one", "two")}
    rows = {"x": {"only": ["one"]}, "y": {"against": "x"}}
    with pytest.raises(ConfigError, match="row 'y': row 'x', which it needs, is not for corpus 'two'"):
        plan(tmp_path, base, corpora=two, rows=rows)


def test_number_of_steps_fills_the_time_budget_of_base(tmp_path: Path, base: Path) -> None:
    found = plan(tmp_path, base, budget={"train_s": 100, "max_steps": 900})
    assert quickest([[1.0, 5.0, 2.0], [3.0, 1.0, 3.0]]) == pytest.approx(4 / 3)
    assert steps_within(found, "noise", "base", 0.2, 0.2, 0.2) == 500
    assert steps_within(found, "noise", "post", 0.4, 0.2, 0.2) == 250
    assert steps_within(found, "noise", "post", 0.8, 0.4, 0.2) == 250  # on a machine half as fast
    assert steps_within(found, "noise", "longer", 0.2, 0.2, 0.2) == 250  # share: 0.5
    assert steps_within(found, "noise", "post", 0.1, 0.2, 0.2) == 900  # limited by max_steps


def test_corpus_can_override_the_time_budget(tmp_path: Path, base: Path) -> None:
    corpora = {"short": {"base": str(base)}, "long": {"base": str(base), "train_s": 300}}
    found = plan(tmp_path, base, corpora=corpora, budget={"train_s": 100})
    assert steps_within(found, "short", "post", 0.4, 0.2, 0.2) == 250
    assert steps_within(found, "long", "post", 0.4, 0.2, 0.2) == 750
    assert found.settings("long", "post")["train_s"] == 300


def test_models_of_the_shipped_ablation_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    path = Path("conf/ablation.yaml")
    config = read_config(AblationConfig, path)
    found = Plan(config, path)
    assert list(config.corpora) == ["en", "all"]
    for corpus, row in [(name, row) for name in config.corpora for row in found.rows(name)]:
        if found.start(Job(corpus, row, 0)).row == row:
            read = ExperimentConfig.model_validate(found.experiment(Job(corpus, row, 0), 100))
            model = build_model(read.features, read.model, 30)
            assert (model.ctc is not None) >= (read.decode.ctc_weight > 0)
