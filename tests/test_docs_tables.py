"""The tables of docs/methods.md agree with the ablation's results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.config import AblationConfig, read_config
from asr.errors import ConfigError
from docs.tables import filled

ROOT = Path(__file__).parents[1]
CONF = Path("conf/ablation.yaml")


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_tables_of_the_methods_page_are_up_to_date() -> None:
    text = Path("docs/methods.md").read_text(encoding="utf-8")
    assert text.count("<!-- ablation: ") == text.count("<!-- end -->") > 10
    assert filled(text, CONF) == text, "run python -m docs.tables"


def test_rate_pools_the_errors_of_all_seeds() -> None:
    results = map(json.loads, Path("recipes/prompts/ablation.jsonl").read_text(encoding="utf-8").splitlines())
    base = [r["dev"]["cer"] for r in results if (r["kind"], r["corpus"], r["row"]) == ("result", "en", "base")]
    rate = sum(sum(seed["errors"]) for seed in base) / sum(sum(seed["reference"]) for seed in base)
    table = filled("<!-- ablation: base -->\nold\n<!-- end -->", CONF).splitlines()
    assert table[3].split(" | ")[1:5][0::3] == ["1.00", f"{100 * rate:.1f}"]
    assert table[3].split(" | ")[2] == str(len(base))
    assert "old" not in table


def test_unknown_row_is_refused() -> None:
    with pytest.raises(ConfigError, match="no row nothing, of which a table is wanted"):
        filled("<!-- ablation: base nothing -->\n<!-- end -->", CONF)


def test_number_of_rows_is_as_the_methods_page_says() -> None:
    rows = read_config(AblationConfig, CONF).rows.values()
    of = {corpora: sum(row.only == corpora for row in rows) for corpora in ((), ("en",), ("all",))}
    text = " ".join(Path("docs/methods.md").read_text(encoding="utf-8").split())
    assert f"English (`en`) has {of[()] + of[('en',)]} rows" in text
    assert f"the five languages together (`all`) {of[()] + of[('all',)]}, {of[('all',)]} of them only there" in text
    assert f" {of[('en',)]} rows are for English alone" in text


def test_every_row_has_the_three_seeds_that_the_methods_page_says() -> None:
    config = read_config(AblationConfig, CONF)
    lines = Path("recipes/prompts/ablation.jsonl").read_text(encoding="utf-8").splitlines()
    done = {(r["corpus"], r["row"], r["seed"]) for r in map(json.loads, lines) if r["kind"] == "result"}
    assert done == {
        (corpus, name, seed)
        for name, row in config.rows.items()
        for corpus in row.only or config.corpora
        for seed in config.seeds
    }
    assert config.seeds == (0, 1, 2)
