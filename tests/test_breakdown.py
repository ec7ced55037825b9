"""Breakdowns of errors: by words, by length, and by fields of the references."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command import asr
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.metrics import WordError, align, error_counts, word_errors
from asr.scoring import breakdown, score
from asr.scoring.breakdown import Confusions, Groups, by_length, in_quarters

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=8).map(" ".join)


@settings(max_examples=100)
@given(pairs=st.lists(st.tuples(WORDS, WORDS), max_size=5))
def test_confusions_count_the_edits_of_the_alignments(pairs: list[tuple[str, str]]) -> None:
    found = Confusions()
    for ref, hyp in pairs:
        found.add(word_errors(ref, hyp))
    edits = [edit for ref, hyp in pairs for edit in align(ref, hyp)]
    for kind in ("substitute", "delete", "insert"):
        expected = Counter((e.reference, e.hypothesis) for e in edits if e.kind == kind)
        assert {(r, h): n for r, h, n in found.most_common(kind, 100)} == expected


def test_errors_seen_once_are_dropped_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "_MOST_KEPT", 3)
    found = Confusions()
    for word in "aabcda":
        found.add([WordError("delete", 0, word, "")])
    assert found.most_common("delete", 5) == [("a", "", 3)]


def test_utterances_are_grouped_by_reference_length() -> None:
    refs = ["", "a", "a b c d e", "a b c d e f", "a " * 41]
    groups = by_length(error_counts(refs, ["x"] * 5))
    assert groups.names == ("0 words", "1-5 words", "6-10 words", "41 words or more")
    assert groups.of_utterance.tolist() == [0, 1, 1, 2, 3]


def test_numeric_fields_with_many_values_are_split_into_quartiles() -> None:
    seconds = [str(number / 10) for number in range(40)]
    groups = in_quarters(Groups("duration", tuple(seconds), np.arange(40)))
    assert len(groups.names) == 4
    assert np.bincount(groups.of_utterance).tolist() == [10, 10, 10, 10]
    few = Groups("channel", ("0", "1"), np.array([0, 1, 0]))
    words = Groups("speaker", tuple(f"s{n}" for n in range(20)), np.arange(20))
    readers = Groups("speaker", tuple(str(n) for n in range(60, 80)), np.arange(20))
    assert (in_quarters(few), in_quarters(words), in_quarters(readers)) == (few, words, readers)


def test_names_that_python_reads_as_numbers_are_names() -> None:
    for form in ("103_{}", "{}e1", "{}_1", "１.{}"):
        names = Groups("speaker", tuple(form.format(number) for number in range(10, 30)), np.arange(20))
        assert in_quarters(names) == names


def test_score_command_prints_breakdowns_and_confusions(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    rows = ["1,anna,the cat sat,the cat sat", "2,ben,the cat,a cat", "3,ben,the dog,a dog oh", "4,anna,so,"]
    table.write_text("\n".join(["id,speaker,reference,hypothesis", *rows]))
    done = asr("score", table, table, "--metric", "cer", "--breakdown", "speaker,length", "--confusions", 2)
    assert (done.status, done.err) == (0, [])
    assert done.out.splitlines()[5:] == [
        "",
        "speaker  utterances  reference    CER %",
        "ben               2         14    64.29",
        "anna              2         13    15.38",
        "",
        "length     utterances  reference    CER %",
        "1-5 words           4         27    40.74",
        "",
        "substituted: the > a (2)",
        "deleted: so (1)",
        "inserted: oh (1)",
    ]
    found = json.loads(asr("score", table, table, "--breakdown", "speaker", "--confusions", 1, "--json").out)
    (ben,) = (group for group in found["breakdown"]["speaker"] if group["name"] == "ben")
    assert ben == {"name": "ben", "utterances": 2, "reference_length": 4, "wer": 0.75, "cer": pytest.approx(9 / 14)}
    assert found["confusions"]["substituted"] == [{"reference": "the", "hypothesis": "a", "times": 2}]


def test_groups_do_not_depend_on_the_order_of_hypotheses(tmp_path: Path) -> None:
    """With hypotheses in reverse order, pairs are not in the order of the references."""
    ref, hyp = tmp_path / "ref.csv", tmp_path / "hyp.txt"
    ids = [f"u{number}" for number in range(9)]
    ref.write_text("id,text,room\n" + "".join(f"{id},a b,{'xyz'[n % 3]}\n" for n, id in enumerate(ids)))
    hyp.write_text("".join(f"{id} {'a b' if n % 3 else 'c d'}\n" for n, id in reversed([*enumerate(ids)])))
    report = score(ref, hyp, breakdown=["room"], by="room")
    (groups,) = report.breakdowns
    assert {group.name: group.values["wer"] for group in report.by_group(groups)} == {"x": 1, "y": 0, "z": 0}


def test_no_breakdown_is_shown_by_default() -> None:
    report = score({"a": "b"}, {"a": "c"})
    assert list(report.details()) == []
    assert "breakdown" not in report.as_dict()
