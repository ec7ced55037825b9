"""Cues reduced to what is said in them, and regrouped into sentences."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from subtitled import activity_of, cue

from asr.subtitling.cleaning import clean
from asr.subtitling.cues import Cue
from asr.subtitling.sentences import sentence_ends, to_sentences


def said(text: str) -> str | None:
    """Return what cleaning leaves of a cue, or None if it drops it."""
    kept, _ = clean([cue(1, 0, 2, text)])
    return kept[0].line if kept else None


def reason(text: str) -> str:
    kept, dropped = clean([cue(1, 0, 2, text)])
    assert not kept
    return dropped[0].reason


@pytest.mark.parametrize(
    ("shown", "heard"),
    [
        ("<i>Hello</i> <font color='#fff'>there</font>.", "Hello there."),
        (r"{\an8}Up here", "Up here"),
        ("Tom &amp; Anna", "Tom & Anna"),
        ("I <3 you", "I <3 you"),
        ("-Who is it?\n- Me.", "Who is it? Me."),
        (">> And now the news.", "And now the news."),
        ("JOHN: Come in.", "Come in."),
        ("MAN #2:\nCome in.", "Come in."),
        ("(sighs) Come in. [door creaks]", "Come in."),
        ("[man (on phone)] Come in.", "Come in."),
        ("*sighs* Come in.", "Come in."),
        ("- Come in. *door closes*", "Come in."),
        ("It is *really* cold, *very*.", "It is really cold, very."),
        ("*Never* do that. F**k it, s**t.", "Never do that. F**k it, s**t."),
        ("[door\nCome in.", None),
        ("It is 10:30 now", "It is 10:30 now"),
        ("Remember: never again.", "Remember: never again."),
        ("We\u200bn\u00adt home\u202c.", "Went home."),
        ("（嘆氣）你來了", "你來了"),
        ("你來了\n我等你很久", "你來了我等你很久"),
        ("我用 app 打卡", "我用 app 打卡"),
        ("他看了\n《红楼梦》", "他看了《红楼梦》"),
    ],
)
def test_unspoken_text_is_removed(shown: str, heard: str | None) -> None:
    assert said(shown) == heard


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("<i></i>", "empty"),
        ("♪ La la la\nla la ♪", "music"),
        ("# We are the champions #", "music"),
        ("~ la la la\nla la ~", "music"),
        ("[music]", "sound description"),
        ("/hudba/", "sound description"),
        ("- /hudba/\n- /potlesk/", "sound description"),
        ("- (laughs)\n- (applause)", "sound description"),
        ("...", "no words"),
        ("JOHN:", "no words"),
        ("Subtitles by Jane Doe", "credits"),
        ("Synced and corrected by nobody", "credits"),
        ("A FILM\n- English subtitles: Jane -", "credits"),
        ("Find more on www.example.com", "credits"),
        ("Subtitles and timing & sync by Jane", "credits"),
        ("字幕組：某某", "credits"),
    ],
)
def test_cues_without_speech_are_dropped_with_a_reason(shown: str, why: str) -> None:
    assert reason(shown) == why


@pytest.mark.parametrize(
    "text",
    [
        "The correct answer.",
        "He was by the sea: lost.",
        "I read the translation.",
        "I'd like it corrected by Monday.",
        "The letter was translated by my brother.",
        "字幕很好",
    ],
)
def test_speech_about_subtitles_is_not_taken_for_credits(text: str) -> None:
    assert said(text) == text


def test_recurring_names_before_a_colon_are_taken_for_speakers() -> None:
    cues = [
        cue(i, 3 * i, 3 * i + 2, text)
        for i, text in enumerate(["Anna: One.", "Anna: Two.", "- Anna: Three.", "Note: Four."])
    ]
    kept, _ = clean(cues)
    assert [c.text for c in kept] == ["One.", "Two.", "Three.", "Note: Four."]
    cues = [
        cue(i, 3 * i, 3 * i + 2, text)
        for i, text in enumerate(["阿明：一", "阿明：二", "阿明：三", "他說：四", "他說：五", "他說：六"])
    ]
    kept, _ = clean(cues)
    assert [c.text for c in kept] == ["一", "二", "三", "他說：四", "他說：五", "他說：六"]


# For each language, a label in a file that has it three times, and whether one that is there once is removed, too.
@pytest.mark.parametrize(
    ("text", "heard", "once"),
    [
        ("JOHN：Hello", "Hello", True),
        ("ИВАН：Привет", "Привет", True),
        ("JEAN : Oui", "Oui", True),
        ("Anna : Oui", "Oui", False),
        ("1ER HOMME : Oui", "Oui", False),
        ("マリオ：やあ", "やあ", False),
        ("マリオ:やあ", "やあ", False),
        ("철수: 안녕", "안녕", False),
        ("محمد: مرحبا", "مرحبا", False),
        ("דוד: שלום", "שלום", False),
        ("阿明 ：你好", "你好", False),
        ("Note: never again.", "never again.", False),
    ],
)
def test_labels_of_any_script_are_removed(text: str, heard: str, once: bool) -> None:
    assert [c.text for c in clean([cue(i, 3 * i, 3 * i + 2, text) for i in range(3)])[0]] == [heard] * 3
    assert said(text) == (heard if once else text)


@pytest.mark.parametrize("text", ["12:30", "12:30 je čas", "三点:30", "قال: مرحبا", "他說：四", "ano: ne"])
def test_what_is_no_label_is_kept_however_often(text: str) -> None:
    assert [c.text for c in clean([cue(i, 3 * i, 3 * i + 2, text) for i in range(3)])[0]] == [text] * 3


@pytest.mark.parametrize(
    ("shown", "lines"),
    [
        ("你來了\n我等你很久", ["你來了", "我等你很久"]),
        ("你來了  我等你很久", ["你來了", "我等你很久"]),
        ("你來了 我等你很久", ["你來了 我等你很久"]),
        ("-Who is it?\n- [door]\n- Me.", ["Who is it?", "Me."]),
    ],
)
def test_lines_and_wide_gaps_are_kept_apart(shown: str, lines: list[str]) -> None:
    kept, _ = clean([cue(1, 0, 2, shown)])
    assert kept[0].text.split("\n") == lines


def test_cue_without_positive_duration_is_dropped() -> None:
    kept, dropped = clean([cue(1, 5, 4, "Back."), cue(2, 6, 6, "Still."), cue(3, 7, 8, "On.")])
    assert [c.text for c in kept] == ["On."]
    assert [(d.cue.numbers, d.reason) for d in dropped] == [((1,), "negative length"), ((2,), "negative length")]


def test_adjacent_duplicates_are_merged_unless_a_pause_separates_them() -> None:
    kept, dropped = clean([cue(1, 0, 1, "No!"), cue(2, 1, 2, "No!"), cue(3, 2.5, 3, "No!")])
    assert [(c.start_s, c.end_s) for c in kept] == [(0, 2), (2.5, 3)]
    assert [d.reason for d in dropped] == ["duplicate"]


def test_repeated_lines_of_roll_up_captions_are_removed() -> None:
    rolling = ["one two", "one two", "one two\nthree four", "three four", "three four\nfive"]
    kept, _ = clean([cue(i, i, i + 1, text) for i, text in enumerate(rolling)])
    assert " ".join(c.text for c in kept) == "one two three four five"


shown_text = st.text(st.sampled_from("ab A.:-♪[]()<>{}*#\n你。…\u202a&"), max_size=30)


@given(st.lists(shown_text, max_size=8))
def test_any_cue_is_either_kept_with_words_or_dropped(texts: list[str]) -> None:
    cues = [cue(i, 3 * i, 3 * i + 2, text) for i, text in enumerate(texts)]
    kept, dropped = clean(cues)
    assert len(kept) + len(dropped) == len(texts)
    for one in kept:
        assert any(c.isalnum() for c in one.text)
        assert not set(one.text) & set("♪\u202a")
        assert "\n" not in one.line


# --- sentences ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Who? Me. Mr. Smith said so.", ["Who?", "Me.", "Mr. Smith said so."]),
        ("他來了。我走了！你呢", ["他來了。", "我走了！", "你呢"]),
        ("我用 app。好", ["我用 app。", "好"]),
        ("no end", ["no end"]),
    ],
)
def test_sentence_ends(text: str, sentences: list[str]) -> None:
    ends = sentence_ends(text)
    assert [text[a:b].strip() for a, b in zip([0, *ends[:-1]], ends, strict=True)] == sentences


@given(st.text(st.sampled_from("ab .?!。你…\"' "), min_size=1).filter(str.strip))
def test_sentence_ends_are_increasing_and_cover_the_text(text: str) -> None:
    ends = sentence_ends(text)
    assert ends[-1] == len(text)
    assert ends == sorted(set(ends))


def sentences(cues: list[Cue], *speech: tuple[float, float], max_s: float = 20) -> list[tuple[float, float, str]]:
    activity = activity_of(speech or ((0.0, 60.0),), 60)
    return [(round(c.start_s, 1), round(c.end_s, 1), c.text) for c in to_sentences(cues, activity, max_s)]


def test_parts_of_a_sentence_are_joined() -> None:
    cues = [
        cue(1, 0, 2, "When he came"),
        cue(2, 2.2, 4, "to the house,"),
        cue(3, 4.1, 5, "it was dark."),
        cue(4, 5.2, 6, "Night."),
    ]
    assert sentences(cues) == [(0, 5, "When he came to the house, it was dark."), (5.2, 6, "Night.")]


def test_pause_or_maximum_length_keeps_parts_apart() -> None:
    cues = [cue(1, 0, 2, "When he came"), cue(2, 4, 5, "to the house."), cue(3, 5.1, 6, "Yes.")]
    assert len(sentences(cues)) == 3
    cues = [cue(1, 0, 2, "When he came"), cue(2, 2, 5, "to the house."), cue(3, 5.1, 6, "Yes.")]
    assert len(sentences(cues)) == 2
    assert len(sentences(cues, max_s=4)) == 3


def test_sentence_continues_after_an_ellipsis_on_both_sides() -> None:
    cues = [
        cue(1, 0, 2, "I thought that..."),
        cue(2, 2.2, 4, "...you knew."),
        cue(3, 5, 6, "Well..."),
        cue(4, 6.1, 7, "Yes."),
    ]
    assert [text for _, _, text in sentences(cues)] == ["I thought that you knew.", "Well...", "Yes."]


def test_subtitles_without_punctuation_keep_their_cues() -> None:
    cues = [cue(i, 2 * i, 2 * i + 1.9, "你來了") for i in range(4)]
    assert len(sentences(cues)) == 4


def test_two_sentences_in_a_cue_are_split_at_the_pause_between_them() -> None:
    one = cue(1, 0, 6, "Are you there? No, I am not.")
    assert sentences([one], (0, 2.5), (3.5, 6)) == [(0, 2.5, "Are you there?"), (3.5, 6, "No, I am not.")]


@pytest.mark.parametrize("speech", [[(0, 6)], [(0, 0.5), (1.5, 6)]])
def test_two_sentences_stay_together_without_a_pause_between_them(speech: list[tuple[float, float]]) -> None:
    assert len(sentences([cue(1, 0, 6, "Are you there? No, I am not.")], *speech)) == 1


@pytest.mark.parametrize("between", ["\n", " ", "，\n"])
def test_lines_without_full_stops_are_split_at_the_pause_between_them(between: str) -> None:
    one = cue(1, 0, 8, f"你來了{between}我等你很久")
    first = f"你來了{between.strip()}"
    assert sentences([one], (0, 2), (5, 8)) == [(0, 2, first), (5, 8, "我等你很久")]
    assert sentences([one], (0, 8)) == [(0, 8, one.line)]
    assert sentences([one], (0, 6.5), (7, 8)) == [(0, 8, one.line)]  # a pause elsewhere


@pytest.mark.parametrize("text", ["你來了我等你，很久", "我用 app 打卡", "I have been waiting for you"])
def test_commas_and_spaces_beside_latin_words_do_not_split_a_short_cue(text: str) -> None:
    assert len(sentences([cue(1, 0, 8, text)], (0, 2.5), (3, 4), (4.5, 8))) == 1


def test_line_breaks_within_a_sentence_do_not_split_it_in_punctuated_subtitles() -> None:
    one = cue(1, 0, 6, "When he came to\nthe house, it was dark.")
    assert sentences([one], (0, 2.5), (3, 6)) == [(0, 6, "When he came to the house, it was dark.")]


LONG = "I went to the market early, I bought three loaves of bread, I came home by the river, I cooked our dinner."


@pytest.mark.parametrize("text", [LONG, "我一早去市場，買了三條麵包，沿著河走回家，煮了全部晚餐"])
def test_cue_that_is_too_long_is_split_at_commas_where_speech_pauses(text: str) -> None:
    found = sentences([cue(1, 0, 31, text)], (0, 7.5), (8, 15.5), (17, 23.5), (24, 31))
    assert [(start_s, end_s) for start_s, end_s, _ in found] == [(0, 15.5), (17, 31)]
    assert "".join(part for *_, part in found).replace(" ", "") == text.replace(" ", "")
    assert found[0][2][-1] in ",，"
    assert len(sentences([cue(1, 0, 31, text)], (0, 7.5), (8, 15.5), (17, 23.5), (24, 31), max_s=8)) == 4
    assert len(sentences([cue(1, 0, 31, text)], (0, 31))) == 1
    assert len(sentences([cue(1, 0, 31, text)], (0, 15.5), (17, 31), max_s=40)) == 1


spoken = st.lists(st.floats(0, 60), max_size=12).map(lambda edges: list(pairwise(sorted(edges)))[::2])


@given(
    st.text(st.sampled_from("ab .,?\n你，。 …"), min_size=1).map(str.strip).filter(lambda t: any(map(str.isalnum, t))),
    spoken,
)
def test_splitting_loses_no_text_and_overlaps_nothing(text: str, speech: list[tuple[float, float]]) -> None:
    found = sentences([cue(1, 0, 60, text)], *speech)
    assert "".join("".join(part.split()) for *_, part in found) == "".join(text.split())
    assert all(one[1] <= two[0] for one, two in pairwise(found))


def test_activity_measures_speech_time() -> None:
    activity = activity_of([(1, 2), (4, 6)], 10)
    assert np.allclose(activity.regions, [(1, 2), (4, 6)], atol=0.05)
    assert activity.speech_s(0, 10) == pytest.approx(3, abs=0.05)
    assert activity.when(0, np.array([1.5])) == pytest.approx(4.5, abs=0.05)


@pytest.mark.parametrize(
    "part", ["sub and ", "a-", "ondertitel", "sub & ", "* ", "( ", "{", "<i", "\n", "/\n", "A ", "a.com ", ". "]
)
def test_very_long_cue_is_cleaned_quickly(part: str) -> None:
    clean([cue(1, 0, 2, part * 20_000)])  # takes minutes if a pattern backtracks


def test_nested_brackets_are_removed_to_a_limited_depth() -> None:
    ((kept,), _) = clean([cue(1, 0, 2, "((((door))))Come in.")])
    assert kept.text == "Come in."
    nested = 60_000
    clean([cue(1, 0, 2, "(" * nested + ")" * nested)])  # takes minutes if they are removed pair by pair
