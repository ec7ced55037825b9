"""Cues: short enough to be read in time, with lines broken where they read well."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import ConfigError
from asr.subtitles import Cue, SubtitleOptions, cues, width
from asr.transcript import Segment, Transcript, Word
from asr.words import joined


def spoken(text: str, *, start_s: float = 0.0, word_s: float = 0.3, pauses: dict[int, float] | None = None) -> Segment:
    """Return a segment whose words take equal time, with pauses before some of them."""
    words, at = [], start_s
    for i, word in enumerate(text.split()):
        at += (pauses or {}).get(i, 0.0)
        words.append(Word(f" {word}", at, at + word_s, 1.0))
        at += word_s
    return Segment(text, start_s, at, tuple(words))


def shown(*segments: Segment, duration_s: float = 100.0, **options: float) -> list[Cue]:
    """Return the cues of a recording of these segments."""
    transcript = Transcript("a", " ".join(s.text for s in segments), duration_s, "en", segments)
    return cues(transcript, SubtitleOptions(**options))  # type: ignore[arg-type]


def lines(found: list[Cue]) -> list[tuple[str, ...]]:
    return [cue.lines for cue in found]


def test_short_text_is_one_line() -> None:
    assert shown(spoken("Hello there.")) == [Cue(0, 833, ("Hello there.",))]


def test_cues_break_after_sentences_rather_than_when_full() -> None:
    first, second = "The conference is now muted for all of you.", "Press one to leave it, or hold the line."
    assert lines(shown(spoken(f"{first} {second}"))) == [
        ("The conference is now", "muted for all of you."),
        ("Press one to leave it, or hold the line.",),
    ]


def test_sentences_readable_in_time_have_their_own_cues() -> None:
    found = shown(spoken("Press one now."), spoken("Hold the line.", start_s=1.4))
    assert lines(found) == [("Press one now.",), ("Hold the line.",)]


def test_cues_break_at_commas_and_pauses_rather_than_anywhere() -> None:
    text = "if you know the extension of your party you may dial it at any time to establish a sales partnership now"
    assert lines(shown(spoken(text.replace("party", "party,")))) == [
        ("if you know the extension of your party,",),
        ("you may dial it at any time to", "establish a sales partnership now"),
    ]
    assert lines(shown(spoken(text, pauses={12: 0.4}))) == [
        ("if you know the extension of", "your party you may dial it"),
        ("at any time to establish", "a sales partnership now"),
    ]


def test_cues_too_short_to_read_are_joined_to_neighbours() -> None:
    text = "The conference is currently locked and cannot be joined. to mute or unmute yourself."
    assert lines(shown(spoken(text, word_s=0.35))) == [
        ("The conference is currently", "locked and cannot be joined."),
        ("to mute or unmute yourself.",),
    ]
    assert lines(shown(spoken("Yes.", word_s=0.9), spoken("Go on and tell us.", start_s=0.9))) == [
        ("Yes. Go on and tell us.",)
    ]


def test_lines_break_at_commas_if_that_keeps_them_balanced() -> None:
    (cue,) = shown(spoken("for a company directory press four, or press five now"))
    assert cue.lines == ("for a company directory press four,", "or press five now")
    (cue,) = shown(spoken("oh, for a company directory please press four now"))
    assert cue.lines == ("oh, for a company directory", "please press four now")


def test_long_pause_ends_a_cue() -> None:
    found = shown(spoken("one two", pauses={1: 2.0}))
    assert found == [Cue(0, 833, ("one",)), Cue(2300, 3133, ("two",))]


def test_short_sentences_share_a_cue_if_too_quick_to_read_alone() -> None:
    quick = [spoken("Yes.", start_s=0.0), spoken("No.", start_s=0.35), spoken("Go.", start_s=0.7)]
    assert lines(shown(*quick)) == [("Yes. No. Go.",)]
    slow = [spoken("Yes.", start_s=0.0), spoken("No.", start_s=2.0)]
    assert lines(shown(*slow)) == [("Yes.",), ("No.",)]


def test_cue_stays_for_its_reading_time_but_not_into_the_next() -> None:
    text = "forty characters which are said too fast"
    assert [cue.end_ms for cue in shown(spoken(text, word_s=0.01))] == [2000]
    assert [cue.end_ms for cue in shown(spoken(text, word_s=0.01), characters_per_s=10.0)] == [4000]
    followed = shown(spoken(text, word_s=0.01), spoken("next", start_s=1.5))
    assert [(cue.start_ms, cue.end_ms) for cue in followed] == [(0, 1500), (1500, 2333)]
    assert [cue.end_ms for cue in shown(spoken(text, word_s=0.01), duration_s=1.2)] == [1200]
    assert [cue.end_ms for cue in shown(spoken("Hi.", word_s=0.1), min_duration_s=3.0)] == [3000]


def test_cues_do_not_exceed_the_maximum_duration() -> None:
    found = shown(spoken("one two three four five six", word_s=1.5), max_duration_s=5.0)
    assert len(found) == 2
    assert all(cue.end_ms - cue.start_ms <= 5000 for cue in found)


def test_word_longer_than_a_line_is_split_and_its_time_divided() -> None:
    found = shown(spoken("x" * 25, word_s=2.5), max_line_length=10, max_lines=1, min_duration_s=0.1)
    assert found == [
        Cue(0, 833, ("x" * 10,)),
        Cue(833, 1667, ("x" * 10,)),
        Cue(1667, 2500, ("x" * 5,)),
    ]
    assert lines(shown(spoken("a " + "x" * 15, word_s=2.0), max_line_length=10)) == [("a",), ("x" * 10, "x" * 5)]


def test_scripts_without_spaces_are_broken_between_characters() -> None:
    text = "我们今天去公园散步，然后回家吃饭。"
    words = tuple(Word(c, i * 0.3, i * 0.3 + 0.3, 1.0) for i, c in enumerate(text.replace("，", "").replace("。", "")))
    words = (*words[:8], Word(words[8].text + "，", 2.4, 2.7, 1.0), *words[9:-1], Word("饭。", 4.2, 4.5, 1.0))
    assert joined(words) == text
    found = shown(Segment(text, 0.0, 5.0, words), max_line_length=20)
    assert lines(found) == [("我们今天去公园散步，", "然后回家吃饭。")]
    following = Segment("再见。", 5.0, 6.0, (Word("再", 5.0, 5.3, 1.0), Word("见。", 5.3, 5.6, 1.0)))
    assert "".join("".join(cue.lines) for cue in shown(Segment(text, 0.0, 5.0, words), following)) == text + "再见。"


def test_text_without_word_times_is_spread_over_its_duration() -> None:
    (cue,) = shown(Segment("hello there", 1.0, 3.0))
    assert cue == Cue(1000, 3000, ("hello there",))
    assert cues(Transcript("a", "hello there", 3.0)) == [Cue(0, 3000, ("hello there",))]
    found = cues(Transcript("a", "one two three four", 10.0), SubtitleOptions(max_line_length=10, max_lines=1))
    assert [cue.lines for cue in found] == [("one two",), ("three four",)]
    assert found[1].start_ms == 4000


def test_segments_are_joined_by_the_space_before_their_first_word() -> None:
    first = Segment("你好,", 0.0, 0.6, (Word("你", 0.0, 0.3, 1.0), Word("好,", 0.3, 0.6, 1.0)))
    second = Segment("再见", 0.6, 1.2, (Word("再", 0.6, 0.9, 1.0), Word("见", 0.9, 1.2, 1.0)))
    assert lines(shown(first, second)) == [("你好,再见",)]
    spaced = Segment("再见", 0.6, 1.2, (Word(" 再见", 0.6, 1.2, 1.0),))
    assert lines(shown(first, spaced)) == [("你好, 再见",)]


def test_segments_without_words_are_joined_as_their_script_does() -> None:
    assert lines(shown(Segment("你好", 0.0, 0.4), Segment("「再见」", 0.4, 0.8))) == [("你好「再见」",)]
    assert lines(shown(Segment("안녕", 0.0, 0.4), Segment("日本", 0.4, 0.8))) == [("안녕 日本",)]


def test_chinese_text_without_word_times_is_broken_after_punctuation() -> None:
    text = "他昨天晚上回來得很晚，所以今天早上沒有起來。「你去叫他吧，我們要出門了！」" * 2
    found = shown(Segment(text, 0.0, 30.0), duration_s=30.0)
    broken = [line for each in lines(found) for line in each]
    assert "".join(broken) == text
    assert all(line[-1] in "。，！」" for line in broken)


@pytest.mark.parametrize(
    "transcript", [Transcript("a", "", 0.0), Transcript("a", " ", 5.0, segments=(Segment("", 0, 1),))]
)
def test_empty_transcript_gives_no_cues(transcript: Transcript) -> None:
    assert cues(transcript) == []


@pytest.mark.parametrize(
    "options",
    [
        {"max_line_length": 1},
        {"max_lines": 0},
        {"min_duration_s": 8.0},
        {"min_duration_s": -1.0},
        {"characters_per_s": 0.0},
        {"characters_per_s": float("nan")},
    ],
)
def test_impossible_subtitle_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="subtitles need"):
        SubtitleOptions(**options)  # type: ignore[arg-type]


words = st.tuples(
    st.text(st.sampled_from("ab,.!日。\u0301-<&> \u2028\t"), min_size=0, max_size=12), st.floats(0, 3), st.floats(0, 4)
)
forms = st.builds(
    SubtitleOptions,
    max_line_length=st.integers(2, 50),
    max_lines=st.integers(1, 4),
    min_duration_s=st.floats(0, 2),
    max_duration_s=st.floats(2, 10),
    characters_per_s=st.floats(1, 100),
)


@given(st.lists(words, max_size=20), st.integers(1, 7), forms)
def test_cues_respect_the_options_and_lose_no_text(
    drawn: list[tuple[str, float, float]], size: int, options: SubtitleOptions
) -> None:
    at, made = 0.0, []
    for text, gap, length in drawn:
        made.append(Word(f" {text}", at + gap, at + gap + length, 1.0))
        at += gap + length
    segments = tuple(
        Segment(joined(part), part[0].start_s, part[-1].end_s, tuple(part))
        for part in (made[i : i + size] for i in range(0, len(made), size))
    )
    found = cues(Transcript("a", "", at, segments=segments), options)
    everything = "".join(line for cue in found for line in cue.lines)
    assert "".join(everything.split()) == "".join("".join(w.text for w in made).split())
    assert all(line.strip() == line for cue in found for line in cue.lines)
    assert all(1 <= len(cue.lines) <= options.max_lines for cue in found)
    assert all(width(line) <= options.max_line_length for cue in found for line in cue.lines)
    assert all(cue.start_ms < cue.end_ms for cue in found)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(found))
    for cue, following in pairwise(found):
        short = cue.end_ms - cue.start_ms < 1000 * options.min_duration_s - 1
        assert not short or cue.end_ms == following.start_ms


def test_wide_characters_count_as_two_and_combining_marks_as_zero() -> None:
    assert width("a日é") == 4
    assert width(unicodedata.normalize("NFD", "é")) == 1
