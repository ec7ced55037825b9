"""Subtitle files as they are found: the cues of SubRip and WebVTT, and the lines of all else."""

from __future__ import annotations

import time

import pytest

from asr.files.subtitles import OUTSIDE, TAG, UNREADABLE, Stray, Timed, read_subtitles

ONE, TWO = "00:00:01,000 --> 00:00:02,000", "00:00:03,000 --> 00:00:04,000"
WEB = "WEBVTT\n\n"
HELLO = Timed(1000, 2000, "Hello")


def said(text: str) -> list[str]:
    cues, strays = read_subtitles(text)
    assert strays == []
    return [cue.text for cue in cues]


@pytest.mark.parametrize("head", ["", WEB])
@pytest.mark.parametrize(
    ("line", "start_ms", "end_ms"),
    [
        ("00:00:01,500 --> 01:02:03,004", 1500, 3_723_004),
        ("00:00:01.500 --> 01:02:03.004", 1500, 3_723_004),
        ("00:01.500 --> 62:03,004", 1500, 3_723_004),
        ("0:0:1,5 --> 0:0:2,25", 1500, 2250),
        ("00:00:01,5001 --> 00:00:02,2504999", 1500, 2250),
        ("123:00:01,000 --> 123:00:02,000", 442_801_000, 442_802_000),
        ("00:00:01 --> 00:00:02", 1000, 2000),
        ("00:00:01:500 --> 00:00:02:250", 1500, 2250),
        ("00:00:01,500-->00:00:02,250", 1500, 2250),
        ("00:00:01,500 -> 00:00:02,250", 1500, 2250),
        ("00:00:01,500 –> 00:00:02,250", 1500, 2250),
        ("00:01,500 -> 00:02,250", 1500, 2250),
        ("7 00:00:01,500 --> 00:00:02,250", 1500, 2250),
        (" 00:00:05,500 \t-->  00:00:02,250 ", 5500, 2250),
        ("00:00:01,500 --> 00:00:02,250  X1:100 X2:200 Y1:10 Y2:20", 1500, 2250),
        ("00:00:01.500 --> 00:00:02.250 align:start position:10%,line-left", 1500, 2250),
        ("00:00:01.500 --> 00:00:02.250 align: 00:00:05.000", 1500, 2250),
    ],
)
def test_times_are_read_in_all_usual_forms(head: str, line: str, start_ms: int, end_ms: int) -> None:
    assert read_subtitles(f"{head}1\n{line}\nHello\n\n2\n{TWO}\nBye\n") == (
        [(start_ms, end_ms, "Hello"), (3000, 4000, "Bye")],
        [],
    )


@pytest.mark.parametrize("head", ["", WEB])
@pytest.mark.parametrize(
    "line",
    [
        "00:00:0x,000 --> 00:00:02,000",
        "00:00:01, 000 --> 00:00:02, 000",
        "-00:00:01,000 --> 00:00:02,000",
        "00:01 --> 00:02",
        "00:00:01:12 --> 00:00:02:12",
        "00:00:01,000 -->",
        "--> 00:00:02,000",
        "00:00:01,000 - 00:00:02,000",
        "00:00:01,000 --> 00:00:02,000 Lost",
        "00:00:01,000",
        "00：00：01，000 --> 00：00：02，000",
        "9" * 5000 + ":00:01,000 --> 00:00:02,000",
    ],
)
def test_cue_with_times_that_cannot_be_read_is_a_stray_with_its_line(head: str, line: str) -> None:
    above = head.count("\n")
    assert read_subtitles(f"{head}1\n{ONE}\nHello\n\n2\n{line}\nLost\nwords\n\n3\n{TWO}\nBye\n") == (
        [HELLO, (3000, 4000, "Bye")],
        [Stray(above + 6, f"{line}\nLost\nwords", UNREADABLE)],
    )
    assert read_subtitles(f"{head}1\n{line}\nLost\n")[1] == [(above + 2, f"{line}\nLost", UNREADABLE)]


@pytest.mark.parametrize(
    "line", ["an --> arrow", "step 1 -> step 2", "from 00:00:01,000 to 00:00:02,000", "10:30 - 11:45"]
)
def test_text_that_looks_like_times_is_text(line: str) -> None:
    assert said(f"1\n{ONE}\nHello\n{line}\n\n2\n{TWO}\nBye\n") == [f"Hello\n{line}", "Bye"]


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        (f"1\n{ONE}\nHello\n2\n{TWO}\nBye\n", ["Hello", "Bye"]),
        (f"1\n{ONE}\nHello\n7\n2\n{TWO}\n1984", ["Hello\n7", "1984"]),
        (f"1\n{ONE}\n2\n{TWO}\nBye\n\n3\n\n", ["", "Bye"]),
        (f"1\n{ONE}\nHello\n\n2\n\n{TWO}\n\n\nBye\n", ["Hello", "Bye"]),
        (f"1\n{ONE}\nHello\n\n5\n\n5 \n{TWO}\nBye\n", ["Hello\n\n5", "Bye"]),
        (f"{ONE}\nHello\n7\n{TWO}\n\n1984\n\n", ["Hello\n7", "1984"]),
        (f"{ONE}\nHello\n7\n{TWO}\nIn\n1984", ["Hello\n7", "In\n1984"]),
        (f"\ufeff1\n{ONE}\nHello\n\n\ufeff2\n{TWO}\nBye\n", ["Hello", "Bye"]),
        (f"1\n{ONE}\nHello\n\nthere\n \n2\n{TWO}\nBye\n", ["Hello\n\nthere", "Bye"]),
        (f"{WEB}1\n{ONE}\nHello\n2\n{TWO}\nBye\n", ["Hello", "Bye"]),
        (f"{WEB}{ONE}\n{TWO}\nBye\n7\n", ["", "Bye\n7"]),
        (f"{WEB}{ONE}\nHello\nthere\n{TWO}\nBye", ["Hello\nthere", "Bye"]),
        (f"{WEB}intro\n{ONE}\nHello\n7\n\n2\n{TWO}\n1984\n", ["Hello\n7", "1984"]),
        (f"WEBVTT - title\nKind: captions\nLanguage: en\n\n{ONE}\nHello\n", ["Hello"]),
        (f"\ufeff\nWEBVTT\n{ONE}\nHello\nNOTE this\n", ["Hello\nNOTE this"]),
        (f"{WEB}NOTE\nnot {ONE}\n{ONE}\nold\n\nSTYLE\n::cue {{}}\n\nREGION\nid:x\n\n{TWO}\nBye\n\nNOTE x\n", ["Bye"]),
        (f"{WEB}NOTEBOOK\n{ONE}\nHello\n", ["Hello"]),
        ("", []),
        (WEB, []),
    ],
)
def test_numbers_identifiers_and_comments_are_no_text(text: str, texts: list[str]) -> None:
    assert said(text) == texts


@pytest.mark.parametrize("end", ["\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("head", ["", WEB])
def test_all_line_ends_are_one(head: str, end: str) -> None:
    text = f"{head}1\n{ONE}\nHello\nthere\n\n2\n{TWO}\nBye\n\n0:x --> 1\n"
    assert read_subtitles(text.replace("\n", end)) == read_subtitles(text)


def test_text_outside_of_cues_is_a_stray_with_its_line() -> None:
    assert read_subtitles(f"\nA title\nof two lines\n\n1\n{ONE}\nHello\n") == (
        [HELLO],
        [(2, "A title\nof two lines", OUTSIDE)],
    )
    assert read_subtitles(f"{WEB}{ONE}\nHello\n\nNOTED\n\nintro\n{TWO}\n\nBye\n") == (
        [HELLO, (3000, 4000, "")],
        [(6, "NOTED", OUTSIDE), (11, "Bye", OUTSIDE)],
    )
    assert read_subtitles(f"{WEB}1\n{ONE}\nHello\n\nthere\n\n{TWO}\nBye\n\n3")[1] == [
        (7, "there", OUTSIDE),
        (12, "3", OUTSIDE),
    ]
    assert read_subtitles("hello\n") == ([], [(1, "hello", OUTSIDE)])


def test_tags_are_told_from_signs() -> None:
    text = '<i>He</i><b>y < there > 5 <3</ b>< / i > <font\ncolor="x">you</font> <v Anna>and<00:01.500> <c.loud>I</c>'
    assert TAG.sub("", text) == "Hey < there > 5 <3 you and I"


@pytest.mark.parametrize(
    "part", ["\r", " ", "<", "< ", "<i", "</", "1", "1:", "1 ", "-", "\n1\n", f"{ONE}\n", "-->\n", "NOTE\n\n"]
)
def test_hostile_files_take_linear_time(part: str) -> None:
    text = part * (200_000 // len(part))
    begin = time.process_time()
    for head in ("", WEB, ONE, f"{ONE} "):
        read_subtitles(head + text)
    TAG.sub("", text)
    assert time.process_time() - begin < 10
