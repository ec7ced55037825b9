"""Configurations: every file in conf/ is valid, and each mistake gives one helpful line."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest
from audit import audited, expect_refused

from asr.config import ExperimentConfig, LanguageExperimentConfig, parse_yaml, read_config, to_yaml
from asr.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
GOOD = "out: run\ndata: {train: a, dev: b}\ntrainer: {max_steps: 10}\n"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("path", sorted(CONF.glob("*/*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_experiment_is_valid_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    kind = LanguageExperimentConfig if path.name.startswith("lm-") else ExperimentConfig
    config = read_config(kind, path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(config))
    assert read_config(kind, copy) == config


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.encoder.layrs=2", "did you mean 'model.encoder.layers'"),
        ("optimizr.lr=1", "did you mean 'optimizer'"),
        ("features.n_mel=3", "did you mean 'features.n_mels'"),
        ("optimizer.lr=fast", "'optimizer.lr'"),
        ("model.encoder.layers=1000000000", "'model.encoder.layers'"),
        ("model.encoder.dim=1000000000", "'model.encoder.dim'"),
        ("trainer.max_steps=null", "give max_epochs or max_steps"),
        ("model.encoder.dim=30", "multiple of heads"),
        ("features={sample_rate_hz: 96000, window_ms: 1000}", "window_ms=1000 is more than 65,536 samples"),
        ("augment.speeds=[]", "'augment.speeds': must be a list of 1 or more, got []"),
        ("augment.noise_probability=0.5", "augment.noise, a folder, and augment.noise_probability above 0 go together"),
        ("optimizer.betas=[0.9, 1.0]", "'optimizer.betas.1': Input should be less than 1"),
        ("normalizer=basik", "'normalizer': unknown normalizer 'basik'; did you mean 'basic'?"),
        ("score_normalizer=rules.yaml", "'score_normalizer': 'rules.yaml': a file of rules cannot be used here"),
        ("augment.speeds=1", "'augment.speeds': must be a list, got 1: write [1]"),
        ("data.languages=en", "'data.languages': must be a list, got en: write [en]"),
        ("data.languages=[]", "'data.languages': an empty list chooses no cut; write null for all languages"),
        ("data=a", "good.yaml: 'data': must be a section of keys, got a"),
        ("augment.noise=1", "'augment.noise': must be a path, got 1"),
        ("augment={freq_masks: 2, freq_mask_bins: 80}", "augment.freq_mask_bins=80 could mask all 80 mel bins"),
        ("trainer.max_steps=true", "good.yaml: 'trainer.max_steps': must be a number, not true"),
        ("model.decoder.layers=fast", "'model.decoder.layers': Input should be a valid integer"),
        ("optimizer.lr=false", "'optimizer.lr': must be a number, not false"),
        ("augment.speeds=[0.9, true]", "'augment.speeds': must be a number, not true"),
        ("optimizer.parts={encoder: true}", "'optimizer.parts': must be a number, not true"),
        ("trainer.max_steps=1:00", "'trainer.max_steps': Input should be a valid integer"),
        ("trainer", "overrides look like"),
        ("out.x=1", "out.x=1: out is a value, not a section"),
        ("optimizer.lr=[1", "not valid YAML"),
        ("seed=!!python/object/apply:os.system [id]", "not valid YAML"),
    ],
)
def test_config_mistakes_give_one_helpful_line(good: Path, override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(ExperimentConfig, good, [override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "default factory" not in str(caught.value)


def test_the_file_is_named_once_for_several_errors(good: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(ExperimentConfig, good, ["seed=x", "optimizer.lr=fast"])
    assert str(caught.value).count("good.yaml") == 1
    assert "'seed': " in str(caught.value).partition("; ")[0]
    assert str(caught.value).partition("; ")[2].startswith("'optimizer.lr': ")


HOSTILE = {
    "list": "- a\n- b\n",
    "words": "just words",
    "alias": "a: &x [1]\nb: *x\n",
    "laughs": "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefgh")),
    "twice": "out: 1\nout: 2\n",
    "open": "out: [",
    "tab": "\t",
    "deep": "out: " + "[" * 5000,
    "long": "out: " + "x" * 2_000_000,
    "apply": "!!python/object/apply:os.system ['touch EXECUTED']",
    "apply-inside": "out: !!python/object/apply:subprocess.run [[touch, EXECUTED]]\n",
    "new": "out: !!python/object/new:os.system ['touch EXECUTED']\n",
    "name": "a: !!python/name:os.system\n",
    "module": "a: !!python/module:antigravity\n",
    "own-tag": "out: !run touch EXECUTED\n",
    "key": "? {a: 1}\n: 2\n",
    "key-tag": "? !!python/object/apply:os.system ['touch EXECUTED']\n: 2\n",
    "two-documents": "out: a\n---\nout: b\n",
    "merge": "<<: [1, 2]\n",
    "key-with-escape": '"\\e[31mout": 1\n',
    "value-with-escape": GOOD + 'seed: "\\e[31m"\n',
    "not-a-number": GOOD + "seed: .nan\n",
    "date": GOOD + "seed: 2001-01-01\n",
    "bytes": "out: !!binary AAAA\n",
}


def test_hostile_yaml_gives_one_line_errors_and_executes_nothing(good: Path, tmp_path: Path) -> None:
    cases = [(tmp_path / f"{name}.yaml", re.escape(f"{name}.yaml")) for name in HOSTILE]
    for (path, _), text in zip(cases, HOSTILE.values(), strict=True):
        path.write_text(text)
    setup = "from asr.config import ExperimentConfig, read_config\ndef act(path): read_config(ExperimentConfig, path)"
    report = audited(setup, [*(path for path, _ in cases), good], warm_up=[good])
    expect_refused(report, [*cases, (good, "^$")])


def test_missing_and_non_utf8_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_config(ExperimentConfig, tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"out: \xe9\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_config(ExperimentConfig, tmp_path / "latin.yaml")


@pytest.mark.parametrize("value", ["no", "on", "y", "2024-05-01", "12:30", "2024_01", "1.5.0", "0x10", "<<", "="])
def test_texts_that_are_other_values_in_yaml_1_1_stay_texts(good: Path, value: str) -> None:
    found = read_config(ExperimentConfig, good, [f"out={value}", f"data.languages=[{value}]"])
    assert (str(found.out), found.data.languages) == (value, (value,))


def test_numbers_and_truth_values_are_read_in_every_usual_form(good: Path) -> None:
    forms = {"0": 0, "+7": 7, "-7": -7, "1.": 1.0, "-.5": -0.5, "1.5e3": 1500.0, "2E-1": 0.2, "~": None, "": None}
    assert {text: parse_yaml(text, "a test") for text in forms} == forms
    assert parse_yaml("[true, False, .inf, null]", "a test") == [True, False, math.inf, None]
    found = read_config(ExperimentConfig, good, ["seed=010", "data.stream=yes", "trainer.step_log=off"])
    assert (found.seed, found.data.stream, found.trainer.step_log) == (10, True, False)


def test_1e_3_is_parsed_as_a_number(good: Path) -> None:
    assert read_config(ExperimentConfig, good, ["optimizer.lr=1e-3"]).optimizer.lr == 0.001
    assert read_config(ExperimentConfig, good, ["trainer.max_steps=20"]).trainer.max_steps == 20
