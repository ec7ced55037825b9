"""Grouping of tokens into words, and of words into segments."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import CHARACTERS, TEXTS, UNIGRAM, WHISPER

from asr.tokenizer import SentencePieceTokenizer
from asr.transcript import Segment, Word
from asr.words import LONGEST_SEGMENT_S, group, is_clause_end, is_sentence_end, joined, split


def texts(pieces: list[str]) -> list[str]:
    """Return the words' texts."""
    return [span.text for span in group(pieces)]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([" Press", " 1", ",", " please", "."], [" Press", " 1,", " please."]),
        ([" un", "mut", "ed", "?!"], [" unmuted?!"]),
        ([" a", " -", " b"], [" a", " - b"]),
        ([" he", " said", ' "', "Go", '."', " (", "no", ")"], [" he", " said", ' "Go."', " (no)"]),
        ([" what", " ?"], [" what ?"]),
        ([" ¿", "Que", " tal", "?"], [" ¿Que", " tal?"]),
        (["..."], ["..."]),
        (["...", " well"], ["... well"]),
        ([" ♪", " la", " $", "5"], [" ♪", " la", " $5"]),
        (list("hi  you "), ["hi", "  you"]),
        ([" 3", ".", "14"], [" 3.14"]),
        (["我", "喜欢", "你", "。", "「", "好", "」"], ["我", "喜欢", "你。", "「好」"]),
        (["我", "说", "hello", " world", "吧", "!"], ["我", "说", "hello", " world", "吧!"]),
        (["สวั", "ส", "ดี", "\u0e49", " ครับ"], ["สวั", "ส", "ดี\u0e49", " ครับ"]),
        (["コ", "ー", "ヒ"], ["コー", "ヒ"]),
        ([" да", "", "", "й", "", " т", "\ufffd"], [" дай", " т\ufffd"]),
        ([" 안녕", "하세요", " 여러분"], [" 안녕하세요", " 여러분"]),
        ([], []),
        ([" ", ""], []),
        (["", ""], []),
    ],
)
def test_pieces_are_grouped_into_words(pieces: list[str], words: list[str]) -> None:
    assert texts(pieces) == words


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([" key", "."], [slice(0, 1)]),
        ([' "', "Go", "ne", '."', " on"], [slice(1, 3), slice(4, 5)]),
        (list("hi you"), [slice(0, 2), slice(3, 6)]),
        ([" a", " ", "", "", "日", "", ""], [slice(0, 1), slice(2, 5)]),
        (["..."], [slice(0, 1)]),
        ([" $", "5"], [slice(0, 2)]),
    ],
)
def test_said_pieces_exclude_outer_spaces_and_punctuation(pieces: list[str], said: list[slice]) -> None:
    assert [span.said for span in group(pieces)] == said


@given(st.lists(st.sampled_from(["", " ", "a", " b", "-", " (", ".", '"', "日", "。", "ー", "\u0301", " \ufffd", "¿"])))
def test_words_keep_all_text_and_order(pieces: list[str]) -> None:
    spans = group(pieces)
    assert "".join(span.text for span in spans) == "".join(pieces).rstrip()
    assert all(span.text.strip() for span in spans)
    assert all(0 <= span.said.start < span.said.stop <= len(pieces) for span in spans)
    assert all(a.said.stop <= b.said.start for a, b in pairwise(spans))


@pytest.mark.parametrize("tokenizer", [CHARACTERS, UNIGRAM, WHISPER], ids=["character", "unigram", "whisper"])
@pytest.mark.parametrize("text", TEXTS[:5])
def test_every_tokenizer_gives_the_words_between_spaces(tokenizer: SentencePieceTokenizer, text: str) -> None:
    assert [word.strip() for word in texts(tokenizer.pieces(tokenizer.encode(text)))] == text.split()


@pytest.mark.parametrize("word", ["yes.", "no?!", 'go."', "好。", "wait…", "(done.)", "नमस्ते।", "A.M", " 1."])
@pytest.mark.parametrize("following", ["", " And", "5"])
def test_sentence_ends(word: str, following: str) -> None:
    assert is_sentence_end(word, following) is (word != "A.M")


@pytest.mark.parametrize(
    ("word", "following"), [("yes,", ""), ("yes.", "and"), ("A.M.", "Monday"), ("(Dr.", "Who"), ("J.", "S."), ("", "")]
)
def test_words_that_do_not_end_a_sentence(word: str, following: str) -> None:
    assert not is_sentence_end(word, following)


def test_clause_ends() -> None:
    assert [is_clause_end(w) for w in ("so,", "so，", 'so,"', "so.", "so")] == [True, True, True, False, False]


# --- segments -----------------------------------------------------------------------------------------


def said(*words: tuple[str, float, float]) -> Segment:
    """Return a segment of these words."""
    made = tuple(Word(text, start, end, 0.5) for text, start, end in words)
    return Segment(joined(made), 0.0, 100.0, made, -0.25, 0.5, ("loop",))


def test_segments_end_at_sentence_ends_and_long_pauses() -> None:
    segment = said(("One", 0.5, 1), (" two.", 1, 1.5), (" Three", 1.5, 2), (" four", 2.7, 3), (" five", 3.81, 4))
    parts = split(segment)
    assert [(p.text, p.start_s, p.end_s) for p in parts] == [
        ("One two.", 0.5, 1.5),
        ("Three four", 1.5, 3),
        ("five", 3.81, 4),
    ]
    assert sum((p.words for p in parts), ()) == segment.words
    for part in parts:
        assert replace(part, text=segment.text, start_s=0.0, end_s=100.0, words=segment.words) == segment


def test_long_segment_is_split_at_a_pause_or_comma_near_the_middle() -> None:
    words = [(f" w{i}", i, i + 1.0) for i in range(20)]
    assert [len(p.words) for p in split(said(*words))] == [10, 10]
    comma = [(f"{text}," if i in (2, 7) else text, a, b) for i, (text, a, b) in enumerate(words)]
    assert [len(p.words) for p in split(said(*comma))] == [8, 12]
    pause = [(text, a, b - 0.7 * (i == 11)) for i, (text, a, b) in enumerate(comma)]
    assert [len(p.words) for p in split(said(*pause))] == [12, 8]
    commas = [(f"{text}," if i in (5, 9) else text, a, b) for i, (text, a, b) in enumerate(words)]
    assert [len(p.words) for p in split(said(*commas))] == [10, 10]


@given(st.lists(st.tuples(st.sampled_from([" a", " b.", " c,"]), st.floats(0, 3), st.floats(0, 20)), max_size=40))
def test_splitting_loses_no_words_and_limits_segment_length(drawn: list[tuple[str, float, float]]) -> None:
    at, words = 0.0, []
    for text, gap, length in drawn:
        words.append((text, at + gap, at + gap + length))
        at += gap + length
    segment = said(*words)
    parts = split(segment)
    assert sum((p.words for p in parts), ()) == segment.words
    assert " ".join(p.text for p in parts) == segment.text
    assert all(len(p.words) < 2 or p.end_s - p.start_s <= LONGEST_SEGMENT_S for p in parts)


def test_segment_without_words_stays_whole() -> None:
    segment = Segment("One. Two.", 1.0, 2.0)
    assert split(segment) == [segment]
