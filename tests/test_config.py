"""Configurations: every file in conf/ is valid, and each mistake is one line that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.config import ExperimentConfig, read_config, to_yaml
from asr.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
GOOD = "out: run\ndata: {train: a, dev: b}\ntrainer: {max_steps: 10}\n"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_file_is_valid_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = read_config(ExperimentConfig, path)
    if config.init is None:
        copy = tmp_path / "copy.yaml"
        copy.write_text(to_yaml(config))
        assert read_config(ExperimentConfig, copy) == config


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.encoder.layer=2", "did you mean 'model.encoder.layers'"),
        ("optimizr.lr=1", "did you mean 'optimizer'"),
        ("features.n_mel=3", "did you mean 'features.n_mels'"),
        ("optimizer.lr=fast", "'optimizer.lr'"),
        ("trainer.max_steps=null", "give max_epochs or max_steps"),
        ("model.encoder.dim=30", "multiple of heads"),
        ("trainer", "overrides look like"),
        ("out.x=1", "is a value, not a section"),
        ("optimizer.lr=[1", "not valid YAML"),
        ("seed=!!python/object/apply:os.system [id]", "not valid YAML"),
    ],
)
def test_mistakes_are_one_helpful_line(good: Path, override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(ExperimentConfig, good, [override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- b\n",
        "just words",
        "a: &x [1]\nb: *x\n",
        "out: 1\nout: 2\n",
        "out: [",
        "\t",
        "out: " + "[" * 5000,
        "out: " + "x" * 2_000_000,
        "!!python/object/apply:os.system ['true']",
        "a: !!python/name:os.system\n",
        "? {a: 1}\n: 2\n",
    ],
)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(ExperimentConfig, path)
    assert "bad.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_wrong_bytes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_config(ExperimentConfig, tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"out: \xe9\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_config(ExperimentConfig, tmp_path / "latin.yaml")


def test_numbers_like_1e_3_are_numbers(good: Path) -> None:
    assert read_config(ExperimentConfig, good, ["optimizer.lr=1e-3"]).optimizer.lr == 0.001
    assert read_config(ExperimentConfig, good, ["trainer.max_steps=20"]).trainer.max_steps == 20
