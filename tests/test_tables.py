"""The documented comparison of `asr score` with other scorers is covered by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "tests").glob("test_*.py")
TESTS = {name for path in FILES for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)}
DOCUMENT, HEADING = "docs/scoring.md", "Beside other scorers"


def table() -> list[list[str]]:
    """Return the cells of the first table below the heading, without its header."""
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    (below,) = re.findall(rf"^#+ {HEADING}$(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    rows = [line.strip().strip("|").split("|") for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("row", table(), ids=lambda row: row[0])
def test_each_claim_names_existing_tests(row: list[str]) -> None:
    named = re.findall(r"`(\w+)`", row[-1])
    assert named
    assert set(named) <= TESTS
