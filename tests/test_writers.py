"""Transcripts on standard output and in files."""

from __future__ import annotations

import html
import io
import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import ConfigError
from asr.subtitles import SubtitleOptions, cues
from asr.transcript import Failure, Segment, Transcript, Word
from asr.writers import (
    NEEDS_TIMES,
    WRITERS,
    TranscriptWriter,
    as_line,
    as_srt,
    as_tsv,
    as_vtt,
    from_line,
    needs_times,
)


def said(id: str, text: str = "hello") -> Transcript:
    """Return a transcript with alternatives and without segments."""
    return Transcript(id, text, 1.5, "en", alternatives=((text, -0.25), ("hallo", -1.0)), truncated=True)


def written(folder: Path) -> dict[str, str]:
    """Return names and contents of the files in a folder, including hidden ones."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}


def test_single_text_on_standard_output_is_the_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    TranscriptWriter(["txt"]).write(said("calls/a.wav", "¿qué tal?"))
    assert capsys.readouterr().out == "¿qué tal?\n"


def test_each_of_several_texts_begins_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    writer = TranscriptWriter(["txt"], named=True)
    writer.write(said("calls/a.wav", "one"))
    assert capsys.readouterr().out == "calls/a.wav\tone\n", "each text is written immediately"
    writer.write(said("calls/odd\n.wav", ""))
    assert capsys.readouterr().out == "calls/odd\\n.wav\t\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_standard_output_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True))
    with pytest.raises(OSError, match="No space left") as caught:
        TranscriptWriter(["txt"]).write(said("calls/a.wav"))
    assert caught.value.filename == "standard output"


def test_json_has_every_field_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    TranscriptWriter(["json"], named=True).write(said("calls/a.wav", "да\nда"))
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "да" in out
    assert json.loads(out) == {
        "id": "calls/a.wav",
        "text": "да\nда",
        "duration_s": 1.5,
        "language": "en",
        "segments": [],
        "alternatives": [{"text": "да\nда", "score": -0.25}, {"text": "hallo", "score": -1.0}],
        "truncated": True,
        "complete": True,
    }


def test_each_recording_and_format_has_its_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "texts"
    writer = TranscriptWriter(["txt", "json"], folder)
    writer.write(said("calls/a.b.wav"))
    writer.write(said("c"))
    files = written(folder)
    assert sorted(files) == ["a.b.json", "a.b.txt", "c.json", "c.txt"]
    assert files["a.b.txt"] == "hello\n"
    assert json.loads(files["c.json"])["id"] == "c"
    assert capsys.readouterr().out == ""


def test_given_name_may_include_folders(tmp_path: Path) -> None:
    writer = TranscriptWriter(["txt"], tmp_path)
    writer.write(said("x/mon/a.wav"), "mon/a.wav")
    assert (tmp_path / "mon" / "a.wav.txt").read_text() == "hello\n"


def test_file_name_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    writer = TranscriptWriter(["txt", "json"], tmp_path)
    writer.write(said("caf\udce9.wav"))
    assert sorted(written(tmp_path)) == ["caf\udce9.json", "caf\udce9.txt"]
    assert json.loads((tmp_path / "caf\udce9.json").read_text(encoding="utf-8"))["id"] == "caf\udce9.wav"


@pytest.mark.parametrize(
    ("formats", "says"), [(["txt", "doc"], "unknown format 'doc': known are txt, json, srt, vtt, tsv"), ([], "no")]
)
def test_unknown_format_is_refused_before_anything_is_written(tmp_path: Path, formats: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TranscriptWriter(formats, tmp_path / "texts")
    assert written(tmp_path) == {}


def test_file_in_place_of_the_folder_is_reported_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"is a file, not a folder: .*file") as caught:
        TranscriptWriter(["txt"], tmp_path / "file")
    assert caught.value.filename == str(tmp_path / "file")


def test_no_partial_file_is_left_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TranscriptWriter(["txt"], tmp_path).write(said("a", "old"))
    monkeypatch.setitem(
        WRITERS, "txt", lambda transcript, options: "x" * 100_000 + "\ud800"
    )  # its end cannot be encoded as UTF-8
    for id in ("a", "b"):
        with pytest.raises(UnicodeEncodeError):
            TranscriptWriter(["txt"], tmp_path).write(said(id))
    assert written(tmp_path) == {"a.txt": "old\n"}


# --- formats with times -------------------------------------------------------------------------------

OPTIONS = SubtitleOptions()
Read = list[tuple[int, int, str]]


def spoken(*sentences: str, start_s: float = 0.0) -> Transcript:
    """Return consecutive sentences with a third of a second per word and half a second of silence between them."""
    segments, at = [], start_s
    for sentence in sentences:
        words = tuple(Word(f" {w}", at + i / 3, at + (i + 1) / 3, 0.5) for i, w in enumerate(sentence.split(" ")))
        segments.append(Segment(sentence, at, at + len(words) / 3, words, -0.5, 0.1))
        at += len(words) / 3 + 0.5
    return Transcript("a.wav", " ".join(sentences), at, "en", tuple(segments))


def milliseconds(clock: str) -> int:
    hours, minutes, seconds, ms = map(int, re.split("[:.,]", clock))
    assert minutes < 60
    assert seconds < 60
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms


def read_srt(content: str) -> Read:
    """Return the cues of a SubRip file as strict readers do: blocks between blank lines, counted from 1."""
    found = []
    for number, block in enumerate(content.split("\n\n")[:-1], start=1):
        count, times, *text = block.split("\n")
        assert count == str(number)
        match = re.fullmatch(r"(\d{2,}:\d\d:\d\d,\d{3}) --> (\d{2,}:\d\d:\d\d,\d{3})", times)
        assert match
        assert text
        assert all(text)
        found.append((milliseconds(match[1]), milliseconds(match[2]), "\n".join(text)))
    assert content == "" or content.endswith("\n\n")
    assert content.count("-->") == len(found)
    return found


def read_vtt(content: str) -> Read:
    """Return the cues of a WebVTT file: blocks after the header, with times in the first line, then markup."""
    assert content.startswith("WEBVTT\n\n")
    found = []
    for block in content.removeprefix("WEBVTT\n\n").split("\n\n")[:-1]:
        times, *text = block.split("\n")
        match = re.fullmatch(r"(\d{2,}:\d\d:\d\d\.\d{3}) --> (\d{2,}:\d\d:\d\d\.\d{3})", times)
        assert match
        assert not any("<" in line or "-->" in line for line in text)
        assert all(text)
        found.append((milliseconds(match[1]), milliseconds(match[2]), html.unescape("\n".join(text))))
    return found


def as_cues(transcript: Transcript) -> Read:
    return [(cue.start_ms, cue.end_ms, "\n".join(cue.lines)) for cue in cues(transcript)]


def test_srt_is_what_players_expect() -> None:
    assert as_srt(
        spoken("Hello there.", "Press one to leave the conference or hold the line please now."), OPTIONS
    ) == (
        "1\n00:00:00,000 --> 00:00:00,833\nHello there.\n\n"
        "2\n00:00:01,167 --> 00:00:05,167\nPress one to leave the conference\nor hold the line please now.\n\n"
    )


def test_vtt_is_what_players_expect() -> None:
    assert as_vtt(spoken("Hello there.", "AT&T <b>, a --> b"), OPTIONS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:00.833\nHello there.\n\n"
        "00:00:01.167 --> 00:00:02.833\nAT&amp;T &lt;b&gt;, a --&gt; b\n\n"
    )


def test_arrows_and_tags_are_replaced_in_srt() -> None:
    ((*_, text),) = read_srt(as_srt(spoken("a --> b <i>c</i> 1 < 2 > 0"), OPTIONS))
    assert text == "a → b ‹i›c‹/i› 1 < 2 > 0"


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80), max_size=5),
    st.floats(0, 500_000),
)
def test_subtitles_of_any_text_can_be_read_back(sentences: list[str], start_s: float) -> None:
    transcript = spoken(*sentences, start_s=start_s)
    expected = as_cues(transcript)
    assert read_vtt(as_vtt(transcript, OPTIONS)) == expected
    assert [cue[:2] for cue in read_srt(as_srt(transcript, OPTIONS))] == [cue[:2] for cue in expected]


@pytest.mark.parametrize("start_s", [3599.9996, 359_999.5, 400_000.0])
def test_times_of_many_hours_are_read_back(start_s: float) -> None:
    transcript = spoken("Hello there.", start_s=start_s)
    assert read_srt(as_srt(transcript, OPTIONS)) == read_vtt(as_vtt(transcript, OPTIONS)) == as_cues(transcript)
    assert as_cues(transcript)[0][0] == round(start_s * 1000)


def test_hours_may_have_three_digits() -> None:
    assert "111:06:40,000 -->" in as_srt(spoken("Hi.", start_s=400_000.0), OPTIONS)


def test_tsv_has_a_row_for_each_segment_with_text() -> None:
    assert as_tsv(spoken("Hello there.", "Tab\tand\nline"), OPTIONS) == (
        "start\tend\ttext\n0\t667\tHello there.\n1167\t1500\tTab and line\n"
    )
    dropped = Transcript("a", "", 5.0, segments=(Segment("", 0.0, 5.0, guards=("no_speech",)),))
    assert as_tsv(dropped, OPTIONS) == "start\tend\ttext\n"


def test_silence_gives_valid_empty_files() -> None:
    silence = Transcript("a", "", 5.0)
    assert {name: write(silence, OPTIONS) for name, write in WRITERS.items() if name in NEEDS_TIMES} == {
        "srt": "",
        "vtt": "WEBVTT\n\n",
        "tsv": "start\tend\ttext\n",
    }
    assert read_srt("") == read_vtt("WEBVTT\n\n") == []


def test_json_has_segments_and_words() -> None:
    (segment,) = json.loads(WRITERS["json"](spoken("Hello there."), OPTIONS))["segments"]
    assert segment == {
        "text": "Hello there.",
        "start_s": 0.0,
        "end_s": 0.667,
        "words": [
            {"text": " Hello", "start_s": 0.0, "end_s": 0.333, "probability": 0.5},
            {"text": " there.", "start_s": 0.333, "end_s": 0.667, "probability": 0.5},
        ],
        "log_prob": -0.5,
        "no_speech": 0.1,
        "guards": [],
    }


def test_all_times_in_json_are_rounded() -> None:
    segment = Segment("a", 0.12345, 0.98765, (Word("a", 0.12345, 0.98765, 0.123456),))
    told = json.loads(as_line(Transcript("x", "a", 1.23456789, segments=(segment,))))
    assert told["duration_s"] == 1.235
    assert (told["segments"][0]["start_s"], told["segments"][0]["words"][0]["end_s"]) == (0.123, 0.988)


def test_several_formats_are_written_with_the_subtitle_options(tmp_path: Path) -> None:
    options = SubtitleOptions(max_line_length=8, max_lines=1)
    writer = TranscriptWriter(["txt", "srt", "vtt", "tsv", "json"], tmp_path, subtitles=options)
    writer.write(spoken("Hello there all."))
    files = written(tmp_path)
    assert sorted(files) == ["a.json", "a.srt", "a.tsv", "a.txt", "a.vtt"]
    assert files["a.txt"] == "Hello there all.\n"
    for found in (read_srt(files["a.srt"]), read_vtt(files["a.vtt"])):
        assert [text for *_, text in found] == ["Hello", "there", "all."]


def test_subtitles_of_several_recordings_require_an_output_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="txt, srt: with several recordings give --out, a folder for their files"):
        TranscriptWriter(["txt", "srt"], named=True)
    TranscriptWriter(["srt"]).write(spoken("Hello there."))
    assert capsys.readouterr().out.endswith("Hello there.\n\n")


def test_only_subtitle_and_tsv_formats_need_times() -> None:
    assert [needs_times(["txt", name]) for name in WRITERS] == [False, False, True, True, True]


def test_json_line_is_read_back_unchanged() -> None:
    words = (Word(" who?", 0.5, 1.25, 0.5), Word(" l\u2028\udce9\n", 1.25, 2.0, 1.0))
    segment = Segment("who? l", 0.5, 2.0, words, -0.25, 0.1, ("loop",))
    told = Transcript("a\n/\t\udce9", "who?", 2.5, "en", (segment, Segment("", 2.0, 2.5)), (("who?", -1.5),), True)
    line = as_line(told)
    assert "\n" not in line
    assert from_line(line.encode()) == told
    assert json.loads(as_line(Failure("a\n\udce9", "gone"))) == {"id": "a\n\udce9", "reason": "gone"}


def test_output_document_names_every_key() -> None:
    text = (Path(__file__).parents[1] / "docs" / "output.md").read_text(encoding="utf-8")
    names = {field.name for kind in (Transcript, Segment, Word) for field in fields(kind)}
    assert {name for name in names if f'"{name}"' not in text} == set()
