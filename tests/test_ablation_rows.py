"""What the shipped ablation says of its rows: why they are worse, and what they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.ablation import statistics
from asr.ablation.plan import Plan
from asr.ablation.results import Results
from asr.ablation.running import check_settings
from asr.ablation.table import lines
from asr.config import BASE, AblationConfig, read_config

CONF = Path("conf/ablation.yaml")


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(Path(__file__).parents[1])
    return Plan(read_config(AblationConfig, CONF), CONF)


def test_rows_that_are_worse_say_why(shipped: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    results = Results(shipped.config.results)
    check_settings(shipped, results, ())
    worse = {
        line.name
        for corpus in shipped.config.corpora
        for line in lines(shipped, results, corpus)
        if any(contest.difference.estimate.low > 0 for contest in line.contests.values())
    }
    assert len(worse) > 20
    assert [row for row in shipped.config.rows if row in worse and not shipped.config.rows[row].note] == []


def test_rows_that_need_a_ctc_head_say_so(shipped: Plan) -> None:
    rows = shipped.config.rows
    assert [row for row in rows if ("CTC head" in rows[row].needs) != needs_ctc(shipped, row)] == []


def needs_ctc(plan: Plan, row: str) -> bool:
    """Whether a row's own changes need a CTC head, or, where it only decodes, its search; base is as it is."""
    own, settings = plan.config.rows[row], plan.settings(plan.config.corpora_of(row)[0], row)
    if row == BASE or not own.trains:
        return bool(settings["decode.ctc_weight"] > 0)
    weights = [own.set.get(key, 0) for key in ("loss.ctc_weight", "loss.cr_ctc", "decode.ctc_weight")]
    weights.append(own.set.get("loss.minimum_error", {}).get("ctc_weight", 0))
    return max(weights) > 0 or own.set.get("model.decoder", {}).get("kind") in ("none", "mask_ctc")
