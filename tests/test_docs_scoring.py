"""The examples of normalisers in docs/scoring.md agree with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import asr

from asr.text import NORMALIZERS, normalizer

TEXT = (Path(__file__).parents[1] / "docs" / "scoring.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)`(?:, (\w+))? \| `(.+)` \| `(.+)` \|$", TEXT, flags=re.MULTILINE)


@pytest.mark.parametrize(("name", "language", "before", "after"), ROWS)
def test_table_rows_agree_with_the_normalisers(name: str, language: str, before: str, after: str) -> None:
    assert normalizer(name, language or None)(before) == after


def test_table_has_every_normaliser() -> None:
    assert [name for name in NORMALIZERS if name not in {row[0] for row in ROWS}] == []


def test_rules_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    blocks = [
        re.sub("^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^    .*\n)+", TEXT, re.MULTILINE)
    ]
    rules = next(block for block in blocks if block.startswith("# ours.yaml"))
    shown = next(block for block in blocks if "| asr normalize ours.yaml --trace" in block).splitlines()
    said = re.match(r"\$ echo '(.*)' \|", shown[0])
    assert said
    (tmp_path / "ours.yaml").write_text(rules, encoding="utf-8")
    (tmp_path / "said.txt").write_text(f"{said[1]}\n", encoding="utf-8")
    done = asr("normalize", tmp_path / "ours.yaml", tmp_path / "said.txt", "--trace")
    assert [line.rstrip() for line in done.out.splitlines()] == [line.rstrip() for line in shown[1:]]
