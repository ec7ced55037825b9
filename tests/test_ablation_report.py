"""Ablation reports from hand-written results, and the statistics in them against independent computations."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command import asr
from test_ablation import tree, written

from asr.ablation import statistics
from asr.ablation.plan import Plan
from asr.ablation.report import write_report
from asr.ablation.results import Errors, Results
from asr.ablation.statistics import difference, holm, rate, seed_variance
from asr.config import AblationConfig, read_config
from asr.errors import DataError

EXPERIMENT = """
out: unused
data: {train: none.jsonl, dev: none.jsonl}
trainer: {max_steps: 10}
"""
ROWS: dict[str, Any] = {
    "base": {"title": "as it is"},
    "worse": {"title": "without it", "set": {"loss.ctc_weight": 0.1}, "note": "It lacks what it had.", "needs": "luck"},
    "same": {"title": "greedy", "decode": {"beam_size": 1}},
    "more": {"from": "base", "share": 0.5},
    "tuned": {"from": "base", "share": 0.5, "set": {"optimizer.lr": 0.1}, "against": "more"},
    "lost": {"set": {"optimizer.lr": 9.0}},
    "undone": {"set": {"optimizer.lr": 8.0}},
}
SAID = tuple(5 + i % 7 for i in range(40))


def counts(share: float, seed: int) -> tuple[int, ...]:
    """Return random error counts of 40 utterances; `share` is the expected word error rate."""
    draw = random.Random(seed)
    return tuple(sum(draw.random() < share for _ in range(said)) for said in SAID)


def of_seeds(share: float, seeds: int, first: int = 0) -> list[Errors]:
    return [Errors(errors=counts(share, first + s), reference=SAID) for s in range(seeds)]


def line(plan: Plan, row: str, seed: int, share: float, **changes: Any) -> dict[str, Any]:
    own = {"errors": counts(share, 10 * list(ROWS).index(row) + seed), "reference": SAID}
    found = {
        "kind": "result", "corpus": "noise", "row": row, "seed": seed, "settings": plan.settings("noise", row),
        "steps": 10, "train_s": 20.0 + seed, "best_step": 8, "parameters": 1234567, "dev": {"wer": own, "cer": own},
        "test": {"wer": own, "cer": own}, "real_time_factor": 0.25, "dev_losses": {"ce": 1.5, "ctc": 2.5},
        "diagonality": 0.625, "best_head_diagonality": 0.75, "threads": 1, "machine": "abacus", "revision": None,
    }  # fmt: skip
    return found | changes


@pytest.fixture
def ablation(tmp_path: Path) -> Path:
    """The YAML file of an ablation with hand-written results."""
    base = tmp_path / "base.yaml"
    base.write_text(EXPERIMENT)
    corpora = {"noise": {"base": str(base), "title": "white noise"}}
    budget = {"train_s": 60, "validations": 4}
    path = written(tmp_path / "ablation.yaml", tree(tmp_path, base, rows=ROWS, corpora=corpora, budget=budget, set={}))
    plan = Plan(read_config(AblationConfig, path), path)
    lines = [line(plan, row, seed, 0.2) for row in ("base", "more", "tuned") for seed in (0, 1)]
    told: dict[str, Any] = {"dev_losses": {"ce": 1.0}, "diagonality": None}
    for seed in (0, 1):
        told |= {"real_time_factor": 0.5 - 0.125 * seed, "revision": f"0abc{seed}-dirty"}
        lines.append(line(plan, "worse", seed, 0.8, **told))
    lines += [
        lines[seed] | {"row": "same", "settings": plan.settings("noise", "same"), "steps": None} for seed in (0, 1)
    ]
    lost = {"kind": "failure", "corpus": "noise", "row": "lost", "seed": 0, "reason": "loss is nan"}
    lines.append({**lost, "settings": plan.settings("noise", "lost")})
    for row, step_s, base_step_s in (("base", 0.2, 0.2), ("worse", 0.6, 0.4)):  # `worse` on a slower machine
        timed = {"kind": "steps", "corpus": "noise", "row": row, "settings": plan.settings("noise", row), "threads": 1}
        lines.append({**timed, "step_s": step_s, "base_step_s": base_step_s, "steps": 10, "machine": "abacus"})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def cells(text: str, row: str) -> list[list[str]]:
    """Return the cells of a row in each table that has it."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {row} |")]


def test_report_tables_match_the_results(ablation: Path) -> None:
    assert asr("ablate", ablation, "--report").out.strip() == str(ablation.with_name("ABLATION.md"))
    text = ablation.with_name("ABLATION.md").read_text()
    rates, costs = cells(text, "worse")
    results = Results(ablation.with_name("results.jsonl"))
    outcomes = {row: results.outcomes("noise", row, (0, 1)) for row in ("base", "worse")}
    means = {row: 100 * sum(sum(o.dev.wer.errors) / sum(SAID) for o in found) / 2 for row, found in outcomes.items()}
    assert rates[1].startswith(f"{means['worse']:.2f} (")
    assert rates[3].startswith(f"**{means['worse'] - means['base']:+.2f} (+")
    assert rates[3].endswith("p < 0.001**")
    assert rates[-1] == "2 of 2"
    assert costs == ["worse", "1,234,567", "300", "10", "20", "0.375", "-", "0.75", "1.000", "-"]
    assert cells(text, "same")[0][3] == "+0.00 (+0.0 to +0.0), p 1.000"
    assert cells(text, "base")[0][3] == "-"
    assert cells(text, "tuned")[0][3].endswith("(minus more's)")
    assert cells(text, "lost")[0] == ["lost", *["-"] * 6, "0 of 2, 1 failed"]
    assert cells(text, "undone") == []
    assert "- **worse**: without it. `loss.ctc_weight=0.1`. Needs luck. It lacks what it had." in text
    assert "Failed on noise with seed 0: loss is nan" in text
    assert "Budget: 60 s of base's steps. dev: 40 utterances, " in text
    assert "Machine: abacus." in text
    assert "\nRevisions of the code: 3, from unknown to 0abc1; base is from unknown; 2 of 10 runs had " in text
    by_hand = next(line for line in text.splitlines() if line.startswith("    asr train "))
    assert by_hand.endswith("base.yaml seed=0 trainer.max_steps=10 trainer.validate_every_steps=3")
    assert ablation.with_name("ABLATION-noise.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(("choose_by", "named"), [("cer", "dev CER"), ("loss", "dev loss"), (None, "dev WER")])
def test_report_names_the_metric_that_selects_checkpoints(ablation: Path, choose_by: str | None, named: str) -> None:
    tree = yaml.safe_load(ablation.read_text())
    if choose_by is not None:
        tree["set"] = {"trainer.choose_by": choose_by}
    config = read_config(AblationConfig, written(ablation, tree))
    plan = Plan(config, ablation)
    write_report(plan, Results(config.results))
    assert f"The best of 4 validations by {named} is kept" in config.report.read_text()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ("{", "results.jsonl: line 2 is not JSON; take it out"),
        ("\udcff", "results.jsonl: line 2 is not JSON; take it out"),
        ('{"kind": "result"}', "results.jsonl: line 2: key 'line.result.corpus' is missing"),
        ('{"kind": "x"}', "results.jsonl: line 2: 'line'"),
    ],
)
def test_a_broken_results_line_is_reported_by_number(ablation: Path, changed: str, says: str) -> None:
    path = ablation.with_name("results.jsonl")
    lines = path.read_text().splitlines()
    path.write_bytes(os.fsencode("\n".join([lines[0], changed, *lines[2:]]) + "\n"))
    done = asr("ablate", ablation, "--report")
    assert done.status == 2
    assert says in done.err[0]
    assert len(done.err) == 1


def test_truncated_last_line_is_skipped_and_missing_results_are_an_error(ablation: Path) -> None:
    path = ablation.with_name("results.jsonl")
    whole = path.read_text()
    path.write_text(whole + '{"kind": "res')
    assert len(Results(path).records) == len(whole.splitlines())
    path.unlink()
    done = asr("ablate", ablation, "--report")
    assert (done.status, done.err) == (2, [f"asr: {path}: no results yet; asr ablate {ablation} makes them"])


def test_report_refuses_rows_scored_on_other_utterances(ablation: Path) -> None:
    path = ablation.with_name("results.jsonl")
    lines = [json.loads(each) for each in path.read_text().splitlines()]
    lines[2]["dev"]["wer"] = lines[3]["dev"]["wer"] = {"errors": [1], "reference": [2]}
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert "were scored on other utterances" in asr("ablate", ablation, "--report").err[0]


# ---- statistics --------------------------------------------------------------------------------------------------


def errors_of(errors_NS: np.ndarray, words: int = 10) -> list[Errors]:
    said = (words,) * len(errors_NS)
    return [Errors(errors=tuple(map(int, column)), reference=said) for column in errors_NS.T]


def experiments(seeds_vary: float, count: int, seeds: int) -> Iterator[np.ndarray]:
    """Yield error counts of 30 utterances of 1,000 words, half of them wrong, with normally distributed effects."""
    draw = np.random.default_rng(3)
    for _ in range(count):
        parts = draw.normal(0, 20, (30, 1)), draw.normal(0, seeds_vary, seeds), draw.normal(0, 10, (30, seeds))
        yield np.rint(500 + sum(parts)).astype(int)


@pytest.mark.parametrize("seeds_vary", [0, 8])
def test_seed_variance_is_recovered_from_simulated_experiments(seeds_vary: float) -> None:
    said_N = np.full(30, 1000)
    found = [seed_variance(errors_NS, said_N) for errors_NS in experiments(seeds_vary, 300, 30)]
    assert np.mean(found) == pytest.approx((seeds_vary / 1000) ** 2, rel=0.1, abs=2e-6)


@pytest.mark.parametrize("seeds_vary", [0, 20])
def test_intervals_have_about_95_percent_coverage(monkeypatch: pytest.MonkeyPatch, seeds_vary: float) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    found = [rate(errors_of(errors_NS, 1000)) for errors_NS in experiments(seeds_vary, 200, 3)]
    assert 0.9 < np.mean([estimate.low < 0.5 < estimate.high for estimate in found]) < 1
    assert np.mean([estimate.value for estimate in found]) == pytest.approx(0.5, abs=0.01)


def test_with_one_seed_the_interval_is_the_utterance_bootstrap() -> None:
    """Against a loop that draws the utterances one by one."""
    (only,) = of_seeds(0.3, 1)
    draw, rates = random.Random(1), []
    for _ in range(4000):
        chosen = draw.choices(range(len(SAID)), k=len(SAID))
        rates.append(sum(only.errors[i] for i in chosen) / sum(SAID[i] for i in chosen))
    rates.sort()
    found = rate([only])
    assert (found.low, found.high) == pytest.approx((rates[100], rates[3900]), abs=0.006)


def test_paired_comparison_resamples_the_same_seeds_of_both_rows() -> None:
    """Good and bad seeds hide a difference that every seed shows, unless both rows resample the same seeds."""
    first_NS = np.array([[1, 5, 9]] * 30)
    second_NS = first_NS - 1
    paired, alone = (difference(errors_of(second_NS), errors_of(first_NS), paired=p) for p in (True, False))
    assert paired.estimate == pytest.approx((-0.1, -0.1, -0.1))
    assert paired.p < 0.001
    assert alone.estimate.high > 0.1
    assert alone.p > 0.05
    assert difference(errors_of(first_NS), errors_of(first_NS), paired=True).p == 1


@pytest.mark.parametrize(("seeds_vary", "paired"), [(0.0, False), (0.3, False), (0.0, True)])
def test_false_positive_rate_is_about_five_percent(
    monkeypatch: pytest.MonkeyPatch, seeds_vary: float, paired: bool
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    draw = np.random.default_rng(5)

    def row(of_N: np.ndarray) -> list[Errors]:
        return errors_of(draw.poisson(of_N * np.exp(draw.normal(0, seeds_vary, 3))))

    below = 0
    for _ in range(100):
        of_N = draw.gamma(2, 1, (40, 1))
        below += difference(row(of_N), row(of_N), paired=paired).p < 0.05
    assert 1 <= below <= 12


def test_holm_adjustment_matches_its_definition() -> None:
    """An adjusted p-value is the lowest level at which Holm's step-down procedure rejects."""
    p_values = [0.01, 0.04, 0.03, 0.5]
    for i, level in itertools.product(range(4), (0.03, 0.05, 0.1, 0.2, 0.6)):
        rejected = set()
        for rank, k in enumerate(sorted(range(4), key=p_values.__getitem__)):
            if p_values[k] > level / (4 - rank):
                break
            rejected.add(k)
        assert (holm(p_values)[i] <= level) == (i in rejected)


def test_statistics_refuse_counts_of_other_utterances() -> None:
    with pytest.raises(DataError, match="scored on other utterances"):
        difference(of_seeds(0.1, 2), errors_of(np.ones((3, 2))), paired=False)
    with pytest.raises(DataError, match="seeds of a row were scored on other utterances"):
        rate([*of_seeds(0.1, 1), *errors_of(np.ones((3, 1)))])
