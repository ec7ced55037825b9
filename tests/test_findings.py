"""Findings besides the error rates: words invented without speech, listed words, n-best oracles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jiwer
import pytest
from command import asr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_breakdown import WORDS

from asr.errors import DataError
from asr.metrics import align, word_errors
from asr.scoring import ScoreOptions, ScoreReport, compare, score

Texts = list[tuple[str, str]]
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5)


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def finding(report: ScoreReport, name: str) -> dict[str, Any]:
    found: dict[str, Any] = report.as_dict()[name]
    return found


# ---- references without words -------------------------------------------------------------------------------------


def test_invented_words_are_counted_for_empty_references(tmp_path: Path) -> None:
    ref = jsonl(
        tmp_path / "ref.jsonl",
        {"id": "a", "text": "yes", "duration": 5},
        {"id": "b", "text": "", "duration": 60.0},
        {"id": "c", "text": " ?! ", "duration": "30"},
        {"id": "d", "text": ""},
        {"id": "e", "text": "", "duration": "long"},
    )
    texts = {"a": "no no no", "b": "thank you for watching", "c": "", "d": "bye bye", "e": "bye"}
    hyp = jsonl(tmp_path / "hyp.jsonl", *({"id": id, "text": text} for id, text in texts.items()))
    assert finding(score(ref, hyp, normalizer="basic"), "without_speech") == {
        "utterances": 4,
        "utterances_with_words": 3,
        "words": 7,
        "duration_s": 90.0,
        "words_per_hour": 4 * 3600 / 90,
    }
    shown = "references without words: 4 (90.0 s); 7 words invented, in 3 of them, 160.0 words an hour"
    assert shown in asr("score", ref, hyp, "--normalizer", "basic").out.splitlines()


def test_hypothesis_durations_replace_missing_reference_durations(tmp_path: Path) -> None:
    """`asr transcribe` writes these durations; a cut without supervisions is an empty reference."""
    cut = {"id": "a", "start": 0, "duration": 8.0, "channel": 0, "supervisions": [], "type": "MonoCut"}
    cuts = jsonl(tmp_path / "cuts.jsonl", cut, {**cut, "id": "b", "duration": None})
    rows = [{"id": id, "text": "oh", "duration_s": 2.0} for id in "ab"]
    found = finding(score(cuts, jsonl(tmp_path / "hyp.jsonl", *rows)), "without_speech")
    assert (found["duration_s"], found["words_per_hour"]) == (10.0, 720.0)


def test_no_hourly_rate_without_durations() -> None:
    report = score({"a": "", "b": "x"}, {"a": "oh", "b": "x"})
    assert finding(report, "without_speech")["words_per_hour"] is None
    assert report.table().endswith("references without words: 1; 1 words invented, in 1 of them")
    assert "without_speech" not in score({"b": "x"}, {"b": "x"}).as_dict()


# ---- listed words -------------------------------------------------------------------------------------------------


def listed(folder: Path, pairs: Texts, entries: list[str], **options: Any) -> ScoreReport:
    path = folder / "words.txt"
    path.write_text("\n".join(entries) + "\n\n")
    refs, hyps = ({str(n): pair[side] for n, pair in enumerate(pairs)} for side in (0, 1))
    return score(refs, hyps, words=path, **options)


@settings(max_examples=100)
@given(pairs=PAIRS, entries=st.sets(st.sampled_from(["a", "c", "d"]), min_size=1))
def test_listed_single_words_are_counted_as_in_le_et_al(
    tmp_path_factory: pytest.TempPathFactory, pairs: Texts, entries: set[str]
) -> None:
    """Counted from jiwer's alignments: an error belongs to its reference word, or else to the inserted one."""
    found = finding(listed(tmp_path_factory.getbasetemp(), pairs, sorted(entries)), "listed_words")
    edits = [edit for pair in pairs for edit in align(*pair)]
    wrong = [edit for edit in edits if edit.kind != "equal"]
    said = sum(edit.reference in entries for edit in edits)
    written = sum(edit.hypothesis in entries for edit in edits)
    right = sum(edit.reference in entries for edit in edits if edit.kind == "equal")
    b_errors = sum((edit.reference or edit.hypothesis) in entries for edit in wrong)
    assert [found["recall"][key] for key in ("right", "said")] == [right, said]
    assert [found["precision"][key] for key in ("right", "written")] == [right, written]
    assert [found["b_wer"][key] for key in ("errors", "words")] == [b_errors, said]
    others = sum(bool(edit.reference) and edit.reference not in entries for edit in edits)
    assert [found["u_wer"][key] for key in ("errors", "words")] == [len(wrong) - b_errors, others]


def test_phrase_is_right_only_if_complete_and_contiguous(tmp_path: Path) -> None:
    pairs = [
        ("in new york today", "in new york today"),  # right
        ("in new york", "in new big york"),  # a word in between: both are hits, but not the phrase
        ("new york", "york"),  # a word is missing
        ("old town", "old new york town"),  # inserted where it was not said
        ("york new", "york new"),  # no phrase on either side
    ]
    report = listed(tmp_path, pairs, ["New York"], normalizer="basic")
    found = finding(report, "listed_words")
    assert (found["recall"]["right"], found["recall"]["said"], found["precision"]["written"]) == (1, 3, 2)
    # One of six listed words is deleted, two are inserted; "big" is not listed.
    assert (found["b_wer"]["errors"], found["b_wer"]["words"]) == (3, 6)
    assert (found["u_wer"]["errors"], found["u_wer"]["words"]) == (1, 2 + 1 + 2 + 2)
    assert found["by_entry"] == {"New York": {"said": 3, "right": 1, "written": 2}}
    assert report.rates["wer"].errors == 3 + 1
    assert "missed: New York (2)" in report.table()
    assert "written where not said: New York (1)" in report.table()


def test_overlapping_entries_are_counted_separately(tmp_path: Path) -> None:
    entries = ["york", "New York", "york city"]
    found = finding(listed(tmp_path, [("new york city", "new york city")], entries), "listed_words")
    assert found["recall"]["said"] == 2  # without a normaliser New York is not new york
    assert found["b_wer"]["words"] == 2


def test_list_is_normalised_in_the_language_of_each_utterance(tmp_path: Path) -> None:
    spanish = {"id": "b", "text": "linea 3", "language": "es"}
    refs = jsonl(tmp_path / "ref.jsonl", {"id": "a", "text": "line 3"}, spanish)
    hyps = jsonl(tmp_path / "hyp.jsonl", {"id": "a", "text": "line three"}, {"id": "b", "text": "linea dos"})
    path = tmp_path / "words.txt"
    path.write_text("3\n")
    report = score(refs, hyps, words=path, normalizer="spoken", language="en")
    assert finding(report, "listed_words")["by_entry"] == {"3": {"said": 2, "right": 1, "written": 1}}


def test_listed_word_intervals_resample_by_the_given_groups(tmp_path: Path) -> None:
    ref = jsonl(tmp_path / "ref.jsonl", *({"id": str(n), "text": "kay", "spk": n % 2} for n in range(20)))
    hyp = jsonl(tmp_path / "hyp.jsonl", *({"id": str(n), "text": "kay" if n % 2 else "x"} for n in range(20)))
    (tmp_path / "list").write_text("kay\n")
    alone = finding(score(ref, hyp, words=tmp_path / "list"), "listed_words")["recall"]
    by_speaker = finding(score(ref, hyp, words=tmp_path / "list", by="spk"), "listed_words")["recall"]
    assert alone["rate"] == by_speaker["rate"] == 0.5
    assert by_speaker["interval_95"] == [0.0, 1.0]  # one of the two speakers is always right
    assert 0.2 < alone["interval_95"][0] < 0.4


@pytest.mark.parametrize(
    ("content", "says"),
    [("\n \n", "no words in the list"), ("a\n\n?!\n", r"words.txt:3: normalizer basic leaves nothing")],
)
def test_unusable_word_lists_are_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "words.txt").write_text(content)
    (tmp_path / "ref.txt").write_text("a x\n")
    ref, words = tmp_path / "ref.txt", tmp_path / "words.txt"
    done = asr("score", ref, ref, "--word-list", words, "--normalizer", "basic")
    assert done.status == 2
    assert re.search(says, done.err[0])
    with pytest.raises(DataError, match=says):
        score({"a": "x"}, {"a": "x"}, words=tmp_path / "words.txt", normalizer="basic")


# ---- n-best lists -------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=4)), min_size=1, max_size=4))
def test_oracle_takes_the_fewest_errors_of_each_list(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[str]]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    refs = jsonl(folder / "oracle-ref.jsonl", *({"id": str(n), "text": ref} for n, (ref, _) in enumerate(rows)))
    lists = ({"id": str(n), "text": texts[0], "nbest": texts} for n, (_, texts) in enumerate(rows))
    found = score(refs, jsonl(folder / "oracle-hyp.jsonl", *lists)).as_dict().get("oracle_wer")
    longest = max(len(texts) for _, texts in rows)
    if longest == 1:
        assert found is None
        return
    assert found is not None
    assert [row["n"] for row in found["of_the_first"]] == [n for n in (1, 2, 5) if n < longest] + [longest]
    for row in found["of_the_first"]:
        expected = sum(min(len(word_errors(ref, text)) for text in texts[: row["n"]]) for ref, texts in rows)
        assert row["errors"] == expected


def test_n_best_lists_of_other_tools_are_read(tmp_path: Path) -> None:
    """Ours have "alternatives" that begin with the text; others omit it, hold plain texts, or are missing."""
    refs = {"a": "one two", "b": "one two", "c": "one two", "d": "one two"}
    rows = [
        {
            "id": "a",
            "text": "One",
            "alternatives": [{"text": "One", "score": -1.0}, {"text": "ONE TWO", "score": -2.0}],
        },
        {"id": "b", "text": "two", "nbest": ["x", "one two"]},
        {"id": "c", "text": "x y", "nbest": []},
        {"id": "d", "text": "one two"},
    ]
    ref = jsonl(tmp_path / "ref.jsonl", *({"id": id, "text": text} for id, text in refs.items()))
    hyp = jsonl(tmp_path / "hyp.jsonl", *rows)
    found = finding(score(ref, hyp, normalizer="basic"), "oracle_wer")
    assert found["lists"] == 2
    assert [(row["n"], row["errors"], row["words"]) for row in found["of_the_first"]] == [
        (1, 4, 8),
        (2, 3, 8),
        (3, 2, 8),
    ]
    first = jiwer.process_words([*refs.values()], [row["text"].lower() for row in rows])
    assert found["of_the_first"][0]["rate"] == pytest.approx(first.wer)
    shown = asr("score", ref, hyp, "--normalizer", "basic").out
    assert "oracle WER        rate %     95 % interval    errors     words\nbest of 1          50.00" in shown


def test_malformed_n_best_list_names_the_utterance(tmp_path: Path) -> None:
    ref = jsonl(tmp_path / "ref.jsonl", {"id": "a", "text": "x"})
    hyp = jsonl(tmp_path / "hyp.jsonl", {"id": "a", "text": "x", "nbest": [{"words": "x"}]})
    with pytest.raises(DataError, match="utterance 'a': its n-best list"):
        score(ref, hyp)


def test_each_compared_system_has_its_own_findings(tmp_path: Path) -> None:
    ref = jsonl(tmp_path / "ref.jsonl", {"id": "a", "text": ""}, {"id": "b", "text": "x"})
    hyps = [
        jsonl(tmp_path / f"{name}.jsonl", {"id": "a", "text": text}, {"id": "b", "text": "x"})
        for name, text in (("quiet", ""), ("loud", "oh no"))
    ]
    found = compare(ref, hyps, ScoreOptions()).as_dict()
    assert [system["without_speech"]["words"] for system in found["systems"]] == [0, 2]
