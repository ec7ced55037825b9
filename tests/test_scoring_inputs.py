"""Scoring every file format besides the JSONL, cuts and plain text of test_scoring."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.metrics import ErrorRate
from asr.scoring import Columns, score
from asr.scoring.formats import open_texts
from asr.scoring.pairs import paired
from asr.scoring.rows import Row, Source

STM = """;; a comment
talk 1 anna 0.0 2.0 <o,f0,female> the cat sat
talk 1 ben 2.0 4.0 <o,f0,male> on a mat
talk 1 inter_segment_gap 4.0 6.0 <o> IGNORE_TIME_SEGMENT_IN_SCORING
talk 1 anna 8.0 9.0 <o> good night
talk 2 ben 0.0 1.0
"""
# A word belongs to the segment of its midpoint: "sat" begins in the first segment, "mat" extends into the gap, "well"
# comes before the last segment and "there" after it.
CTM = """;; a comment
talk 1 2.1 0.2 on 0.9
talk 1 0.1 0.2 the 0.9
talk 1 0.5 0.2 cat
talk 1 1.7 0.4 sat
talk 1 2.5 0.1 a
talk 1 3.8 0.3 mat
talk 1 5.0 0.1 noise
talk 1 7.0 0.1 well
talk 1 8.1 0.1 good
talk 1 8.5 0.1 night
talk 1 9.5 0.1 there
"""


def write(path: Path, text: str) -> Path:
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def texts(path: Path) -> dict[str, str]:
    return {row.id: row.text for row in open_texts(path).rows()}


def test_ctm_words_are_assigned_to_stm_segments_by_time(tmp_path: Path) -> None:
    ref, hyp = write(tmp_path / "ref.stm", STM), write(tmp_path / "hyp.ctm.gz", CTM)
    with pytest.raises(DataError, match=r"hyp\.ctm\.gz lacks 1 id \(talk_2_0\.000_1\.000\)"):
        score(ref, hyp)
    report = score(ref, hyp, metrics=["wer"], by="speaker", missing_as_empty=True)
    assert report.utterances == 4
    assert report.rates["wer"] == ErrorRate(hits=8, insertions=2)
    assert report.counts["word"][:, 3].tolist() == [0, 0, 2, 0]
    assert report.groups is not None
    assert report.groups.names == ("anna", "ben")
    assert report.groups.of_utterance.tolist() == [0, 1, 0, 1]
    assert "bootstrap by speaker (2), " in report.table()


def test_ctm_against_plain_text_is_one_text_per_channel(tmp_path: Path) -> None:
    ctm = write(tmp_path / "hyp.ctm", "b A 1 1 world\nb A 0 1 hello\nc A 0 1 yes\nc B 0 1 no\n")
    assert texts(ctm) == {"b": "hello world", "c_A": "yes", "c_B": "no"}
    ref = write(tmp_path / "ref.txt", "c_A yes\nb hello world\nc_B no\n")
    assert score(ref, ctm).rates["wer"] == ErrorRate(hits=4)


def test_ctm_of_a_recording_missing_from_the_stm_is_refused(tmp_path: Path) -> None:
    ref, hyp = write(tmp_path / "ref.stm", STM), write(tmp_path / "hyp.ctm", CTM + "walk 1 0 1 hey\n")
    with pytest.raises(DataError, match=r"hyp\.ctm: .*ref\.stm has no segment of walk 1"):
        score(ref, hyp)


def test_trn_files_are_read(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref.trn", "hello world (spk-1)\n;; no text\n (spk-2)\n(uh) well (spk-3)\n")
    assert texts(ref) == {"spk-1": "hello world", "spk-2": "", "spk-3": "(uh) well"}
    hyp = write(tmp_path / "hyp.txt", "spk-2\nspk-1 hello word\nspk-3 (uh) well\n")
    assert score(ref, hyp).rates["wer"] == ErrorRate(hits=3, substitutions=1)


def test_speaker_is_taken_from_trn_ids(tmp_path: Path) -> None:
    trn = write(tmp_path / "a.trn", "yes (ann_1)\nno (ann-2)\nso (ben_1-2)\nit (eve)\n")
    (groups,) = score(trn, trn, breakdown=["speaker"]).breakdowns
    assert groups.names == ("ann", "ben", "eve")
    assert groups.of_utterance.tolist() == [0, 0, 1, 2]


def test_table_columns_are_found_by_name(tmp_path: Path) -> None:
    table = write(tmp_path / "both.csv", 'id,reference,hypothesis,room\n1,"a, b\nc",a b c,x\n2,d,e,y\n')
    report = score(table, table, metrics=["wer"], normalizer="basic", by="room")
    assert report.rates["wer"] == ErrorRate(hits=3, substitutions=1)
    other = write(tmp_path / "other.tsv", 'clip\tsaid\tme\nz\t"a\ta\n\ny\tb "c"\tb\n')
    columns = Columns.of_references("clip", "said"), Columns.of_hypotheses("clip", "me")
    assert score(other, other, columns=columns).rates["wer"] == ErrorRate(hits=1, substitutions=1, deletions=1)
    rows = write(tmp_path / "hyp.jsonl", '{"clip": "z", "me": "a"}\n{"clip": "y", "me": "c"}\n')
    assert score(other, rows, columns=columns).rates["wer"].errors == 3


SRT = (
    "1\r\n00:00:00,198 --> 00:00:01,438\r\n<i>Hello</i>\r\n{\\an8}there,\r\n\r\n2\r\n00:00:02,0 --> 00:00:03,0\r\nworld"
)
VTT = (
    "WEBVTT\n\nNOTE not\nspoken\n\nSTYLE\n::cue {color: red}\n\nintro\n00:00.000 --> 00:02.000 align:start\n"
    "<v Anna>Hello <00:01.000><c.loud>there,</c>\n\n00:02.000 --> 00:03.000\nR&amp;D &lt;world&gt;\n"
)


def test_srt_cues_without_blank_lines_between_them(tmp_path: Path) -> None:
    cues = "1\n00:00:01,0 --> 00:00:02,0\nfive or\n6\n2\n00:00:03,0 --> 00:00:04,0\nan --> arrow\n\n"
    assert texts(write(tmp_path / "a.srt", cues)) == {"1": "five or 6", "2": "an --> arrow"}


def test_subtitle_text_is_scored_whole(tmp_path: Path) -> None:
    srt = SRT.replace("world", "a < x > c\n\nand\\Nthe {rest}\n\n3\n00:00:05 --> 00:00:06\n你好，\n世界\n")
    assert texts(write(tmp_path / "a.srt", srt)) == {
        "1": "Hello there,", "2": "a < x > c and the {rest}", "3": "你好，世界"
    }  # fmt: skip
    assert texts(write(tmp_path / "cr.srt.gz", srt.replace("\r\n", "\n").replace("\n", "\r"))) == texts(
        tmp_path / "a.srt"
    )
    comment = VTT.replace("NOTE not", "NOTE\n00:08.000 --> 00:09.000\nnot")
    assert texts(write(tmp_path / "a.vtt", comment)) == texts(write(tmp_path / "b.vtt", VTT))


def test_subtitles_are_scored_as_one_text(tmp_path: Path) -> None:
    srt, vtt = write(tmp_path / "a.srt", SRT), write(tmp_path / "a.vtt", VTT)
    assert texts(srt) == {"1": "Hello there,", "2": "world"}
    assert texts(vtt) == {"1": "Hello there,", "2": "R&D <world>"}
    ref = write(tmp_path / "ref.txt", "Hello\nthere, world\n")
    for pair in ((ref, srt), (srt, ref), (srt, srt)):
        report = score(*pair)
        assert (report.utterances, report.rates["wer"]) == (1, ErrorRate(hits=3))


def test_files_in_different_order_and_missing_texts(tmp_path: Path) -> None:
    ids = [f"u{i}" for i in range(30)]
    ref = write(tmp_path / "ref.txt", "".join(f"{id} one {id}\n" for id in ids))
    hyp = write(tmp_path / "hyp.txt", "".join(f"{id} one {id}\n" for id in reversed(ids[:20])))
    with pytest.raises(DataError, match=r"lacks 10 ids \(u20, "):
        score(ref, hyp)
    report = score(ref, hyp, missing_as_empty=True)
    assert report.rates["wer"] == ErrorRate(hits=40, deletions=20)
    assert report.counts["word"][:, 2].tolist() == [0] * 20 + [2] * 10
    write(tmp_path / "hyp.txt", "u1 one u1\nother x\n")
    with pytest.raises(DataError, match=r"has 1 id \(other\) that"):
        score(ref, hyp, missing_as_empty=True)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.stm", "talk 1 anna 0.0\n", r":1: needs `file channel speaker begin end text`"),
        ("x.stm", "talk 1 anna 2.0 1.0 hey\n", r":1: needs `file channel"),
        ("x.stm", "talk 1 anna 2.0 1e400 hey\n", r":1: needs `file channel"),
        ("x.ctm", "talk 1 0.0 inf hey\n", r":1: needs `file channel begin duration word`"),
        ("x.stm", "talk 1 anna 0 1 { a / b }\n", r":1: alternatives in curly brackets"),
        ("x.ctm", "\ntalk 1 0.0 x hey\n", r":2: needs `file channel begin duration word`"),
        ("x.ctm", "talk 1 * * <ALT_BEGIN>\n", r":1: alternatives are not read"),
        ("x.trn", "hello world\n", r":1: a line of \.trn ends with the id"),
        ("x.trn", "{ a / b } (u)\n", r":1: alternatives in curly"),
        ("x.srt", "hello\n", r"x\.srt: no cues"),
        (
            "x.srt",
            SRT + "\n\n3\n0:0x --> 0:1\nLost",
            r":11: unreadable time \('0:0x --> 0:1'\) would not be scored; mend or",
        ),
        ("x.srt", "1\n0:00:01,0 --> 0:0", r":2: unreadable time"),
        ("x.srt", "A talk\n\n" + SRT, r":1: text outside of cues \('A talk'\) would not"),
        ("x.ass", "[Events]\n", r"x\.ass: ASS and SSA are not scored; ffmpeg"),
        ("x.vtt", VTT + "\nLost\n", r":16: text outside of cues \('Lost'\)"),
        ("x.csv", "", r":1: .*: none of the columns id, .*there are: none; say which with --id-column"),
        (
            "x.csv",
            "id,words\n",
            r":1: columns separated by commas: none .*there are: id, words; say which with --ref",
        ),
        ("x.csv", "id;words\n", r":1: columns separated by semicolons: none of .*there are: id, words; say"),
        ("x.csv", "id\twords\n", r":1: columns separated by tabs: none of .*there are: id, words; say"),
        ("x.json", '[{"id": "a",\n"text": "b"}]', r":1: not a JSON object on one line"),
        ("x.tsv", "start\tend\ttext\n0\t1\n", r":2: needs start, end and text with tabs"),
        ("x.csv", "id,text\na\n", r":2: 1 columns, but the first line names 2"),
        ("x.csv", 'id,text\na,"b\n', r":2: unexpected end of data"),
        ("x.csv", "id,text\na,b\na,c\n", r"has 1 id \(a\) more than once"),
        ("x.tsv", "id\ttext\na\t" + "b" * 200_000, r":2: field larger than"),
    ],
)
def test_malformed_input_is_reported_with_its_line(tmp_path: Path, name: str, data: str, says: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(DataError, match=says) as caught:
        score(path, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_grouping_by_a_missing_field_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "id,text,room\n1,a,x\n")
    with pytest.raises(DataError, match=r"utterance '1' has no 'rooom' in the references; there are: id, text, room"):
        score(table, table, by="rooom")


def test_pairs_are_streamed_without_buffering() -> None:
    """A pair is yielded once both its texts are read; files in the same order need no buffering."""
    read: list[str] = []

    def rows(side: str) -> Iterator[Row]:
        for number in range(1000):
            read.append(side)
            yield Row(str(number), "x")

    pairs = paired(*(Source(side, None, partial(rows, side)) for side in ("ref", "hyp")))
    for number in range(1, 10):
        assert next(pairs).id == str(number - 1)
        assert (read.count("ref"), read.count("hyp")) == (number, number)
