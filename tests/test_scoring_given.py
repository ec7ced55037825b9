"""Scoring texts from Python without files: lists, matched by position, and dicts, matched by id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from asr import score
from asr.errors import ConfigError, DataError
from asr.metrics import ErrorRate

REFS = {"a": "the cat sat", "b": "hello there world", "c": "yes"}
HYPS = {"c": "yes", "a": "the cat sat sat", "b": "hello the world"}
WER = ErrorRate(hits=6, substitutions=1, deletions=0, insertions=1)


def plain(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_lists_dicts_and_files_score_alike(tmp_path: Path) -> None:
    refs, hyps = [*REFS.values()], [HYPS[id] for id in REFS]
    lines = plain(tmp_path / "lines.txt", refs), plain(tmp_path / "heard.txt", hyps)
    ids = plain(tmp_path / "ids.txt", [f"{id} {text}" for id, text in REFS.items()])
    pairs: list[tuple[Any, Any]] = [
        (refs, hyps),
        (tuple(refs), iter(hyps)),
        (REFS, HYPS),
        (ids, HYPS),
        (refs, lines[1]),
    ]
    reports = [score(*pair) for pair in [*pairs, (str(lines[0]), hyps), lines]]
    assert [report.rates["wer"] for report in reports] == [WER] * 7
    assert reports[0].form is None
    assert score({1: "a"}, {"1": "a"}).rates["wer"].errors == 0  # type: ignore[dict-item]
    assert score(["One, two"], ["one two"], normalizer="basic").rates["wer"].errors == 0


def test_single_metric_or_breakdown_may_be_a_plain_string() -> None:
    assert score(REFS, HYPS, metrics="wer").metrics == ("wer",)
    assert score(REFS, HYPS, metrics=["wer", "bleu"]).metrics == ("wer", "bleu")
    assert score(REFS, HYPS, breakdown="length").breakdowns
    with pytest.raises(ConfigError, match="unknown metric 'were'; did you mean 'wer'"):
        score(REFS, HYPS, metrics="were")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "says"),
    [
        ("hello there", "hello", "hello there: no such file; give texts themselves in a list or a dict"),
        (["a"], ["a", "b"], "1 references and 2 hypotheses: lists are matched by number"),
        (["a"], {"a": "b"}, "matched by number, those of a dict by id: give both in lists or in dicts"),
        (
            {"a": "b"},
            {"b": "b"},
            "the hypothesis lacks 1 id (a) of the reference; the hypothesis has 1 id (b) that the reference lacks",
        ),
        (["a", 1], ["a", "b"], "the reference: the text of 2 must be a str, not int"),
        ({"a": "a"}, {"a": None}, "the hypothesis: the text of 'a' must be a str, not NoneType"),
        (None, ["a"], "a list of str or a dict of str, not NoneType"),
        (b"ab", ["a"], "a list of str or a dict of str, not bytes"),
        ([], [], "nothing to score"),
    ],
)
def test_unscorable_input_is_reported_in_one_line(reference: Any, hypothesis: Any, says: str) -> None:
    with pytest.raises(DataError, match=rf"^[^\n]*{re.escape(says)}[^\n]*\Z"):
        score(reference, hypothesis)


def test_list_and_file_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the hypothesis 1: texts without ids are matched by line number"):
        score(plain(tmp_path / "lines.txt", ["a", "b"]), ["a"])
