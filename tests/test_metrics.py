"""Error rates against a plain edit distance, and against jiwer where it splits texts in the same way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from asr.errors import DataError
from asr.metrics import Edit, ErrorRate, Unit, align, error_counts, show_alignment, word_errors
from asr.text.scripts import mixed_tokens

# Few words, so that hits are common; one of them wide, one with a combining mark, one outside the BMP.
WORDS = st.sampled_from(["a", "b", "the", "漢字", "cafe\u0301", "𝔄"])
SENTENCES = st.lists(WORDS, max_size=7).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), max_size=6)
MIXED = st.lists(st.sampled_from(["我", "们", "用", "app", "ok", " ", "ガ", "ที่", "。"]), max_size=9).map("".join)
UNITS: list[Unit] = ["word", "character"]


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the edit distance by its recurrence, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def total(refs: list[str], hyps: list[str], unit: Unit = "word") -> ErrorRate:
    return ErrorRate(*error_counts(refs, hyps, unit).sum(0).tolist())


def tokens(text: str, unit: Unit) -> list[str]:
    return text.split() if unit == "word" else list(text)


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=200)
@given(pairs=PAIRS)
def test_counts_agree_with_the_edit_distance(unit: Unit, pairs: list[tuple[str, str]]) -> None:
    refs, hyps = [r for r, _ in pairs], [h for _, h in pairs]
    rates = [ErrorRate(*row) for row in error_counts(refs, hyps, unit).tolist()]
    for (ref, hyp), rate in zip(pairs, rates, strict=True):
        assert rate.errors == distance(tokens(ref, unit), tokens(hyp, unit))
        assert rate.hits + rate.substitutions + rate.deletions == len(tokens(ref, unit)) == rate.reference_length
        assert rate.hits + rate.substitutions + rate.insertions == len(tokens(hyp, unit))


@settings(max_examples=200)
@given(pairs=PAIRS)
def test_counts_and_rates_equal_those_of_jiwer(pairs: list[tuple[str, str]]) -> None:
    pairs = [*pairs, ("a word", "a")]
    refs, hyps = [r for r, _ in pairs], [h for _, h in pairs]
    for unit, out, rate in (
        ("word", jiwer.process_words(refs, hyps), jiwer.wer(refs, hyps)),
        ("character", jiwer.process_characters(refs, hyps), jiwer.cer(refs, hyps)),
    ):
        found = total(refs, hyps, unit)
        assert found == ErrorRate(out.hits, out.substitutions, out.deletions, out.insertions)
        assert found.rate == pytest.approx(rate)


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=200)
@given(ref=SENTENCES, hyp=SENTENCES)
def test_alignment_reproduces_both_sides(unit: Unit, ref: str, hyp: str) -> None:
    edits = align(ref, hyp, unit)
    assert [e.reference for e in edits if e.kind != "insert"] == tokens(ref, unit)
    assert [e.hypothesis for e in edits if e.kind != "delete"] == tokens(hyp, unit)
    assert all((e.kind == "equal") == (e.reference == e.hypothesis) for e in edits)
    assert sum(e.kind != "equal" for e in edits) == error_counts([ref], [hyp], unit)[:, 1:].sum()


@settings(max_examples=200)
@given(ref=SENTENCES, hyp=SENTENCES, width=st.integers(20, 60))
def test_shown_alignment_has_columns_within_the_width(ref: str, hyp: str, width: int) -> None:
    edits = align(ref, hyp)
    marks = ""
    for block in show_alignment(edits, width=width).split("\n\n"):
        lines = [*block.split("\n"), ""][:3]
        assert all(cell_len(line) <= width for line in lines)
        above, below, marked = ([cell_len(line[: m.start()]) for m in re.finditer(r"\S+", line)] for line in lines)
        assert above == below
        assert set(marked) <= set(above)
        marks += lines[2].replace(" ", "")
    assert marks == "".join(e.kind[0].upper() for e in edits if e.kind != "equal")


def test_known_alignments_are_shown() -> None:
    edits = align("short one here", "shoe order one")
    assert edits[-1] == Edit("delete", "here", "")
    assert show_alignment(edits) == "REF: **** short one here\nHYP: shoe order one ****\n     I    S         D"
    assert show_alignment(edits, width=16) == (
        "REF: **** short\nHYP: shoe order\n     I    S\n\nREF: one here\nHYP: one ****\n         D"
    )
    assert show_alignment(align("今天 好", "今 好")) == "REF: 今天 好\nHYP: 今   好\n     S"
    assert show_alignment(align("a b", "ab", "character"), gap="") == "REF: a␣b\nHYP: a*b\n      D"
    assert show_alignment([]) == "REF:\nHYP:"


def test_hostile_texts_are_shown_without_control_characters() -> None:
    shown = show_alignment(align("\x1b[2J \u202efoo \x07", "a\u200b"))
    assert shown.replace("\n", "").isprintable()
    assert "\\x1b[2J" in shown


def test_error_rates_of_empty_texts() -> None:
    assert total([], []).rate == 0.0
    assert total([""], [""]).rate == 0.0
    assert total(["", ""], ["two words", ""]) == ErrorRate(insertions=2)
    assert total([""], ["two words"]).rate == 2.0 == jiwer.wer([""], ["two words"])
    assert total(["two words"], [""]) == ErrorRate(deletions=2)
    assert total(["", "a b"], ["x", "a"]).rate == 1.0


def test_any_whitespace_separates_words_and_spaces_are_characters() -> None:
    assert total(["a\tb\u3000c\u00a0d"], ["a b  c d "]) == ErrorRate(hits=4)
    assert total(["a b "], ["ab"], "character") == ErrorRate(hits=2, deletions=1)


@settings(max_examples=300)
@given(pairs=st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), min_size=1, max_size=4))
def test_counts_of_any_unicode_text_equal_those_of_jiwer(pairs: list[tuple[str, str]]) -> None:
    """Also of spaces alone; jiwer splits words at single spaces only, so it is given those."""
    processes: dict[Unit, Any] = {"word": jiwer.process_words, "character": jiwer.process_characters}
    for unit, process in processes.items():
        rows = error_counts([r for r, _ in pairs], [h for _, h in pairs], unit)
        for (ref, hyp), row in zip(pairs, rows.tolist(), strict=True):
            given_ref, given_hyp = (" ".join(t.split()) if unit == "word" else t for t in (ref, hyp))
            out = process(given_ref, given_hyp)
            assert row == [out.hits, out.substitutions, out.deletions, out.insertions]


@settings(max_examples=200)
@given(ref=SENTENCES, hyp=SENTENCES)
def test_word_errors_equal_those_of_the_alignment(ref: str, hyp: str) -> None:
    shown = [(e.kind, e.reference, e.hypothesis) for e in align(ref, hyp) if e.kind != "equal"]
    found = word_errors(ref, hyp)
    assert [(e.kind, e.reference, e.hypothesis) for e in found] == shown
    assert all(ref.split()[e.at] == e.reference for e in found if e.kind != "insert")


@settings(max_examples=150)
@given(pairs=st.lists(st.tuples(MIXED, MIXED), min_size=1, max_size=5))
def test_counts_of_mixed_tokens_equal_those_of_jiwer(pairs: list[tuple[str, str]]) -> None:
    refs, hyps = ([" ".join(mixed_tokens(side)) for side in sides] for sides in zip(*pairs, strict=True))
    out = jiwer.process_words(refs, hyps)
    found = total([r for r, _ in pairs], [h for _, h in pairs], "token")
    assert found == ErrorRate(out.hits, out.substitutions, out.deletions, out.insertions)
    for ref, hyp in pairs:
        edits = align(ref, hyp, "token")
        assert [e.reference for e in edits if e.kind != "insert"] == mixed_tokens(ref)
        assert sum(e.kind != "equal" for e in edits) == error_counts([ref], [hyp], "token")[:, 1:].sum()


def test_unequal_numbers_of_texts_are_refused() -> None:
    with pytest.raises(DataError, match="2 references but 1 hypotheses"):
        error_counts(["a", "b"], ["a"])
