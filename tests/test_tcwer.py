"""Time-constrained word errors against plain loops and, if it is installed, MeetEval."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from command import asr
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.supervision import AlignmentItem

from asr.errors import ConfigError, DataError
from asr.metrics import word_errors
from asr.scoring import score
from asr.scoring.tcwer import Spans, Stretch, constrained_counts, times_of

SPOKEN = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20), st.floats(0, 3)), max_size=7)
Words = list[tuple[str, float, float]]


def arrays(words: Words) -> tuple[list[str], Spans]:
    return [w for w, _, _ in words], np.array([(s, s + d) for _, s, d in words]).reshape(-1, 2)


def brute(refs: list[str], ref_spans: Spans, hyps: list[str], hyp_spans: Spans, collar_s: float) -> tuple[int, int]:
    """Return the errors and hits of the best of all alignments that pair words only within the collar."""

    def meet(r: int, h: int) -> bool:
        middle = sum(hyp_spans[h]) / 2
        return bool(ref_spans[r][0] < middle + collar_s and middle - collar_s < ref_spans[r][1])

    @cache
    def best(r: int, h: int) -> tuple[int, int]:
        if r == len(refs) or h == len(hyps):
            return len(refs) - r + len(hyps) - h, 0
        found = []
        for step_r, step_h in ((1, 0), (0, 1)):
            errors, hits = best(r + step_r, h + step_h)
            found.append((errors + 1, hits))
        if meet(r, h):
            errors, hits = best(r + 1, h + 1)
            found.append((errors, hits - 1) if refs[r] == hyps[h] else (errors + 1, hits))
        return min(found)

    errors, hits = best(0, 0)
    return errors, -hits


@settings(max_examples=300)
@given(ref=SPOKEN, hyp=SPOKEN, collar_s=st.sampled_from([0.0, 0.5, 2.0, 5.0, 100.0]), ordered=st.booleans())
def test_counts_match_the_best_alignment(ref: Words, hyp: Words, collar_s: float, ordered: bool) -> None:
    if ordered:
        ref, hyp = (sorted(words, key=lambda w: w[1]) for words in (ref, hyp))
    sides = *arrays(ref), *arrays(hyp)
    hits, substitutions, deletions, insertions = constrained_counts(*sides, collar_s)
    assert (substitutions + deletions + insertions, hits) == brute(*sides, collar_s)
    assert hits + substitutions + deletions == len(ref)
    assert hits + substitutions + insertions == len(hyp)
    assert min(substitutions, deletions, insertions) >= 0


def test_wide_collar_gives_plain_wer_and_narrow_ones_more_errors() -> None:
    draw = random.Random(3)
    refs = [(draw.choice("abcde"), n * 0.3, 0.3) for n in range(300)]
    hyps = [(w if draw.random() > 0.2 else "x", s + draw.uniform(-1, 1), d) for w, s, d in refs if draw.random() > 0.1]
    hyps.sort(key=lambda w: w[1])
    plain = len(word_errors(" ".join(w for w, *_ in refs), " ".join(w for w, *_ in hyps)))
    errors = [sum(constrained_counts(*arrays(refs), *arrays(hyps), c)[1:]) for c in (1000.0, 5.0, 0.3, 0.0)]
    assert errors[0] == plain
    assert errors == sorted(errors)
    assert errors[-1] > plain


def test_error_counts_match_meeteval() -> None:
    """Segments of several words, gaps and overlaps."""
    pytest.importorskip("meeteval", reason="MeetEval, which must be compiled, is not installed")
    from meeteval.wer.wer.time_constrained import time_constrained_siso_word_error_rate

    draw = random.Random(5)

    def stream(most: int) -> list[Stretch]:
        at_s, found = 0.0, []
        for _ in range(draw.randint(1, 12)):
            words = " ".join(draw.choices(["a", "b", "cc", "dddd"], k=draw.randint(1, most)))
            start_s = max(0.0, at_s + draw.uniform(-0.5, 2))
            at_s = start_s + draw.uniform(0.1, 1) * most
            found.append(Stretch(words, start_s, at_s))
        return sorted(found, key=lambda s: s.start_s)

    for _ in range(300):
        sides = stream(draw.choice([1, 4])), stream(draw.choice([1, 4]))
        texts = [" ".join(s.text for s in side).split() for side in sides]
        spans = [times_of(words, side) for words, side in zip(texts, sides, strict=True)]
        segments = [[{"words": s.text, "start_time": s.start_s, "end_time": s.end_s} for s in side] for side in sides]
        collar_s = draw.choice([0.0, 0.3, 1.0, 5.0])
        expected = time_constrained_siso_word_error_rate(*segments, collar=collar_s).errors
        assert sum(constrained_counts(texts[0], spans[0], texts[1], spans[1], collar_s)[1:]) == expected


def test_segment_time_is_divided_among_words_by_characters() -> None:
    spans = times_of(["a", "bcd", "e"], [Stretch("a bcd", 0.0, 4.0), Stretch("", 4.0, 5.0), Stretch("e", 6.0, 7.0)])
    assert spans.tolist() == [[0, 1], [1, 4], [6, 7]]


def test_words_keep_their_times_through_normalization() -> None:
    tokens = [("The", 0, 1), ("number", 1, 2), ("21,", 3, 5), ("don't", 6, 7), ("-", 8, 9)]
    said = [Stretch(*token) for token in tokens]
    spans = times_of(["the", "number", "twenty", "one", "dont"], said)
    one_s = pytest.approx(3 + 2 * 6 / 9)
    assert spans.tolist() == [[0, 1], [1, 2], [3, one_s], [one_s, 5], [6, 7]]
    assert times_of(["um", "the"], said[:1]).tolist() == [[0, 0], [0, 1]]
    assert times_of(["x"], []).shape == (1, 2)


# ---- files --------------------------------------------------------------------------------------------------------

STM = "f 1 spk 0.0 2.0 a b c\nf 1 spk 10 12 IGNORE_TIME_SEGMENT_IN_SCORING\nf 1 spk 30 32 a b\n"
# The last "a" is twenty seconds early: right as text, wrong in time. "x" is said where nothing is scored.
CTM = "f 1 0.1 0.3 a\nf 1 0.5 .3 b\nf 1 1 .3 c\nf 1 9 .4 a\nf 1 11 .2 x\nf 1 31 .3 b\n"


def test_tcwer_of_stm_and_ctm_files(tmp_path: Path) -> None:
    ref, hyp = tmp_path / "r.stm", tmp_path / "h.ctm"
    ref.write_text(STM)
    hyp.write_text(CTM)
    report = score(ref, hyp, metrics=["tcwer", "wer"])
    assert (report.utterances, report.values["wer"]) == (1, 0)
    assert report.values["tcwer"] == pytest.approx(2 / 5)
    assert report.as_dict()["metrics"]["tcwer"]["collar_s"] == 5.0
    assert score(ref, hyp, metrics=["tcwer"], collar_s=25.0).values["tcwer"] == 0
    shown = asr("score", ref, hyp, "--metric", "tcwer", "--collar", 5).out
    assert "tcWER     40.00" in shown
    assert shown.splitlines()[-1].endswith("; tcWER: collar 5 s")


@pytest.mark.parametrize("collar_s", [float("nan"), float("inf"), -1.0])
def test_a_collar_is_a_finite_number(collar_s: float) -> None:
    with pytest.raises(ConfigError, match=r"^a collar of .* s: give a finite number from 0$"):
        score({"a": "x"}, {"a": "x"}, collar_s=collar_s)


def test_channels_and_word_times_in_jsonl(tmp_path: Path) -> None:
    ref, hyp = tmp_path / "r.stm", tmp_path / "h.jsonl"
    ref.write_text("f 1 s 0 1 a b\nf 2 s 0 1 c\ng 1 s 5 6 d\n")
    words = [{"word": "a", "start": 0.0, "end": 0.4}, {"word": "b", "start": 9.0, "end": 9.5}]
    segment = {"text": " C", "start_s": 0.0, "end_s": 1.0, "words": [{"text": " C", "start_s": 0.2, "end_s": 0.4}]}
    rows = [
        {"id": "f_1", "text": "a b", "words": words},
        {"id": "f_2", "text": "C", "segments": [segment]},
        {"id": "g", "text": "d", "segments": [{"text": "d", "start": 30, "end": 31}]},
    ]
    hyp.write_text("\n".join(map(json.dumps, rows)))
    report = score(ref, hyp, metrics=["tcwer"], normalizer="basic", collar_s=2.0)
    assert report.counts["timed word"].tolist() == [[1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 1, 1]]


def test_word_alignments_in_cuts(tmp_path: Path) -> None:
    """A cut with an alignment has the times of its words, one without has those of its supervision."""
    words = [AlignmentItem("one", 0.0, 0.5), AlignmentItem("two", 8.0, 0.5)]
    aligned = SupervisionSegment("a", "a", 0.0, 10.0, text="one two", alignment={"word": words})
    plain = SupervisionSegment("b", "b", 0.0, 10.0, text="one two")
    cuts = [MonoCut(id, 0.0, 10.0, 0, [s]) for id, s in (("a", aligned), ("b", plain))]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    (tmp_path / "h.ctm").write_text("".join(f"{id} 1 4 0.5 one\n{id} 1 4.5 0.5 two\n" for id in "ab"))
    report = score(tmp_path / "cuts.jsonl", tmp_path / "h.ctm", metrics=["tcwer"], collar_s=1.0)
    assert report.counts["timed word"].tolist() == [[0, 0, 2, 2], [2, 0, 0, 0]]


def test_texts_without_times_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for words in (None, [{"word": "hi", "start": 0.0}], [{"word": "hi", "start": float("nan"), "end": 1}], 7):
        path.write_text(json.dumps({"id": "u", "text": "hi", "words": words}))
        with pytest.raises(DataError, match="utterance 'u' has no times, which tcwer needs"):
            score(path, path, metrics=["tcwer"])
    path.write_text('{"id": "u", "text": ""}')
    assert score(path, path, metrics=["tcwer"]).values["tcwer"] == 0
