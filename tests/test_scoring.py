"""Scoring of files in every format, and one clear line for each way that they can be wrong."""

from __future__ import annotations

import gzip
import json
import re
import warnings
from pathlib import Path

import jiwer
import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.cut import MixedCut, MixTrack

from asr.errors import AsrError, ConfigError, DataError
from asr.metrics import ErrorRate
from asr.scoring import Comparison, score
from asr.scoring.formats import open_texts

REFS = {"en/a": "the cat sat", "en/b": "hello there world", "en/c": "yes"}
HYPS = {"en/a": "the cat sat sat", "en/b": "hello the world", "en/c": "yes"}
WER = ErrorRate(hits=6, substitutions=1, deletions=0, insertions=1)


def plain(path: Path, texts: dict[str, str]) -> Path:
    path.write_text("".join(f"{id} {text}\n" for id, text in texts.items()), encoding="utf-8")
    return path


def jsonl(path: Path, texts: dict[str, str], **more: str) -> Path:
    rows = [json.dumps({"id": id, "text": text, **more}) for id, text in texts.items()]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def cut(id: str, *parts: tuple[float, str | None, str | None]) -> MonoCut:
    """Return a cut with a supervision for each (start, text, language)."""
    spoken = [SupervisionSegment(f"{id}-{i}", "r", s, 1.0, text=t, language=n) for i, (s, t, n) in enumerate(parts)]
    return MonoCut(id, 0.0, 10.0, channel=0, supervisions=spoken)


def cuts(path: Path, texts: dict[str, str], language: str | None = "en") -> Path:
    CutSet.from_cuts(cut(id, (0.0, text, language)) for id, text in texts.items()).to_file(path)
    return path


def texts(path: Path) -> dict[str, str]:
    return {row.id: row.text for row in open_texts(path).rows()}


@pytest.mark.parametrize("ref_form", ["ref.txt", "ref.jsonl", "ref.cuts.jsonl.gz"])
@pytest.mark.parametrize("hyp_form", ["hyp.txt", "hyp.jsonl", "hyp.cuts.jsonl"])
def test_all_file_formats_give_the_same_counts(tmp_path: Path, ref_form: str, hyp_form: str) -> None:
    write = {"txt": plain, "jsonl": jsonl, "cuts": cuts}
    ref = write[ref_form.split(".")[1]](tmp_path / ref_form, REFS)
    hyp = write[hyp_form.split(".")[1]](tmp_path / hyp_form, dict(reversed(HYPS.items())))
    report = score(ref, hyp)
    assert report.rates["wer"] == WER
    assert report.as_dict()["metrics"]["cer"]["rate"] == pytest.approx(jiwer.cer([*REFS.values()], [*HYPS.values()]))
    assert report.form == ("ids" if ref_form == "ref.txt" else "json")


def test_gzipped_plain_text_is_read(tmp_path: Path) -> None:
    ref = plain(tmp_path / "ref.txt", REFS)
    packed = tmp_path / "hyp.txt.gz"
    packed.write_bytes(gzip.compress(plain(tmp_path / "hyp.txt", HYPS).read_bytes()))
    assert score(ref, packed).rates["wer"] == WER


@pytest.mark.parametrize(
    ("lines", "form"),
    [
        (["utt1 hello", "utt2"], "ids"),
        (["en/vm-goodbye bye", "en/hello hi"], "ids"),
        (["spk_a hello", "", "spk_b there"], "ids"),
        (["hello there", "good morning"], "lines"),  # different words, but no ids
        (["3D audio on", "3D audio off"], "lines"),  # the same first word twice
        (["1 hello", "then"], "lines"),
        ([], "lines"),
    ],
)
def test_plain_text_is_read_by_ids_or_by_lines(tmp_path: Path, lines: list[str], form: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    assert open_texts(path).form == form


def test_reference_decides_the_form_unless_it_is_given(tmp_path: Path) -> None:
    ref, hyp = tmp_path / "ref.txt", tmp_path / "hyp.txt"
    ref.write_text("3D audio disabled\n")
    hyp.write_text("3D audio\n")
    assert score(ref, hyp).as_dict()["form"] == "ids"
    assert score(ref, hyp).rates["wer"].reference_length == 2
    assert score(ref, hyp, form="lines").rates["wer"].reference_length == 3
    hyp.write_text("free the audio\n")
    with pytest.raises(DataError, match=r"read as `id text`; form 'lines'"):
        score(ref, hyp)
    ref.write_text("free the audio\n")
    hyp.write_text("3D audio\n")
    assert score(ref, hyp).form == "lines"
    assert ", a text a line, normalizer" in score(ref, hyp).table()


def test_lines_are_matched_by_number_and_split_at_line_feeds_only(tmp_path: Path) -> None:
    ref, hyp = tmp_path / "ref.txt", tmp_path / "hyp.txt"
    ref.write_bytes(b"\xef\xbb\xbfone\x0ctwo\xe2\x80\xa8three\r\n\r\nfour\r\n")
    hyp.write_bytes(b"one two three\n\nfive")
    assert texts(ref) == {"1": "one\x0ctwo\u2028three", "2": "", "3": "four"}
    report = score(ref, hyp)
    assert report.utterances == 3
    assert report.rates["wer"] == ErrorRate(hits=3, substitutions=1)
    hyp.write_text("one two three\n\nfive\n\n")
    with pytest.raises(DataError, match=r"ref\.txt has 3 lines and .*hyp\.txt 4"):
        score(ref, hyp)


def test_supervisions_are_joined_in_order_of_time(tmp_path: Path) -> None:
    one = cut("a", (2.0, "world", "en"), (0.5, "hello", "en"))
    late, early = cut("b", (0.0, "second", "en")), cut("c", (1.0, "first", "fr"))
    mixed = MixedCut("m", [MixTrack(late, offset=5.0), MixTrack(early)])
    empty = cut("z", (0.0, None, None))
    CutSet.from_cuts([one, mixed, empty]).to_file(tmp_path / "cuts.jsonl.gz")
    found = tmp_path / "cuts.jsonl.gz"
    assert texts(found) == {"a": "hello world", "m": "first second", "z": ""}
    languages = {row.id: row.language for row in open_texts(found).rows()}
    assert languages == {"a": "en", "m": None, "z": None}  # two languages in one cut: undecided


def test_languages_may_have_their_english_names(tmp_path: Path) -> None:
    """As lhotse's own recipes write them."""
    ref, hyp = cuts(tmp_path / "ref.cuts.jsonl", {"a": "I'm 5"}, "English"), tmp_path / "hyp.csv"
    hyp.write_text("id,text,language\na,I am five,English\n")
    assert score(ref, hyp, normalizer="english", language="en").rates["wer"].errors == 0
    jsonl(ref, {"a": "five"})
    assert score(hyp, ref, normalizer="spoken").rates["wer"].reference_length == 3
    chinese = cuts(tmp_path / "zh.cuts.jsonl", {"a": "他今天去了北京吗"}, "Chinese")
    assert "tok:zh" in score(chinese, chinese, metrics="bleu").translation["bleu"].signature


def test_each_utterance_is_normalised_in_its_language(tmp_path: Path) -> None:
    ref = tmp_path / "ref.jsonl"
    rows = [("a", "3 cats", "en"), ("b", "3 chats", "fr"), ("c", "3 Katzen", None)]
    ref.write_text("\n".join(json.dumps({"id": i, "text": t, "language": n}) for i, t, n in rows))
    hyp = plain(tmp_path / "hyp.txt", {"a": "three cats", "b": "trois chats", "c": "drei katzen"})
    assert score(ref, hyp, normalizer="spoken", language="de").rates["wer"].errors == 0
    with pytest.raises(DataError, match=r"^utterance 'c': digits cannot be spelled out, no language is given"):
        score(ref, hyp, normalizer="spoken")


def test_mismatched_ids_are_listed(tmp_path: Path) -> None:
    many = {f"utt{i:02}": "a" for i in range(13)}
    ref = plain(tmp_path / "ref.txt", many)
    hyp = jsonl(tmp_path / "hyp.jsonl", {"utt00": "a", "other": "b"})
    with pytest.raises(DataError) as caught:
        score(ref, hyp)
    message = str(caught.value)
    assert "lacks 12 ids (utt01, utt02, utt03, utt04, utt05, utt06, utt07, utt08, utt09, utt10 and 2 more)" in message
    assert "has 1 id (other) that" in message
    assert "\n" not in message


@pytest.mark.parametrize("side", ["ref", "hyp"])
@pytest.mark.parametrize("write", [plain, jsonl])
def test_duplicate_id_is_an_error(tmp_path: Path, side: str, write: object) -> None:
    paths = {name: write(tmp_path / f"{name}.{write.__name__}", REFS) for name in ("ref", "hyp")}  # type: ignore[operator, attr-defined]
    with paths[side].open("a") as f:
        f.write('\n{"id": "en/b", "text": "x"}' if write is jsonl else "en/b x\n")
    with pytest.raises(DataError, match=rf"{side}\.\w+ has 1 id \(en/b\) more than once"):
        score(paths["ref"], paths["hyp"], form="ids")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"id": "a", "text": "x"}\n{"id": "b", ', ":2: not a JSON object"),
        (b"[" * 100_000, ":1: not a JSON object"),
        (b'{"id": "a", "text": ' + b"1" * 5000 + b"}", ":1: n"),
        (b'"a"', ":1: needs "),
        (b"null", ":1: needs "),
        (b'\n{"id": 5.5, "text": "x"}', ":2: needs "),
        (b'{"id": "a", "text": null}', ":1: needs "),
        (b'{"id": "a"}', ":1: none of the keys .*; there are: id; say which with --ref-column or --hyp-column"),
        (
            b'{"audio_filepath": "a.wav", "said": "x"}',
            ":1: none .*there are: audio_filepath, said; say",
        ),
        (
            b'{"clip": "a.wav", "text": "x"}',
            ":1: none of the keys id.*; there are: clip, text; say which with --id",
        ),
        (b'{"id": "a", "text": "x", "language": ["en"]}', ":1: needs "),
        (b'{"id": "a", "supervisions": [{"text": "x"}]}', ":1: needs "),
        (b'{"id": "a", "supervisions": 7}', ":1: needs "),
        (b'{"id": "a", "tracks": [{"cut": null}]}', ":1: needs "),
        (b'{"id": "a", "text": "x"}\n{"id": "b", "text": "\xe9"}', ":2: not UTF-8 .byte 0xe9."),
    ],
)
def test_malformed_files_are_reported_with_the_line(tmp_path: Path, data: bytes, says: str) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        score(bad, bad)
    assert "\n" not in str(caught.value)


def test_damaged_or_missing_files_are_reported(tmp_path: Path) -> None:
    packed = tmp_path / "x.jsonl.gz"
    good = gzip.compress(b'{"id": "a", "text": "x"}\n' * 100)
    for data in (b"no gzip", good[:-9], good[:20] + b"\xff" * 9 + good[29:]):
        packed.write_bytes(data)
        with pytest.raises(DataError, match=r"x\.jsonl\.gz:\d+: the file is damaged there: "):
            score(packed, packed)
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match=r"cannot be read: (No such file|Is a directory)"):
            score(path, path)


def test_latin_1_text_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.txt:2: not UTF-8"):
        score(path, path)


def test_report_as_table_and_as_dictionary() -> None:
    report = score(REFS, HYPS, metrics=["wer"], normalizer="basic")
    assert report.table().splitlines() == [
        "3 utterances, normalizer basic",
        "        rate %     95 % interval       sub       del       ins      hits  reference",
        "WER      28.57     0.00 to 33.33         1         0         1         6          7",
        "                                    14.29%     0.00%    14.29%    85.71%",
        "95 % intervals: bootstrap by utterance, 10,000 resamples",
    ]
    assert json.loads(json.dumps(report.as_dict())) == {
        "utterances": 3,
        "normalizer": "basic",
        "language": None,
        "form": None,
        "bootstrap_by": "utterance",
        "metrics": {
            "wer": {
                "rate": pytest.approx(2 / 7),
                "interval_95": [0.0, pytest.approx(1 / 3)],
                "resamples": 10_000,
                "substitutions": 1,
                "deletions": 0,
                "insertions": 1,
                "hits": 6,
                "reference_length": 7,
            }
        },
    }


def test_worst_utterances_come_first_and_correct_ones_are_left_out() -> None:
    refs = {"a": "one two three four", "b": "one", "c": "one two three four five six", "d": "right"}
    hyps = {"a": "one two three", "b": "", "c": "one", "d": "right"}
    shown = score(refs, hyps, worst=10).worst(10)
    assert [line.split(":")[0] for line in shown.splitlines() if "word errors" in line] == ["c", "b", "a"]
    assert shown.splitlines()[0] == "c: word errors 5, reference 6"
    assert "\n     D\n" in shown.split("\n\n")[1] + "\n"
    assert score(refs, hyps).worst(1).startswith("c: ")
    assert score(refs, refs).worst() == ""


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (ConfigError, {"metrics": ["wear"]}, "unknown metric 'wear'; did you mean 'wer'"),
        (ConfigError, {"metrics": []}, "no metric"),
        (ConfigError, {"normalizer": "basik"}, "did you mean 'basic'"),
        (DataError, {"normalizer": "spoken"}, "utterance 'u'"),
        (ConfigError, {"normalizer": "english", "language": "fr"}, "^normalizer 'english' cannot treat"),
    ],
)
def test_invalid_options_are_reported(kind: type[AsrError], options: dict, says: str) -> None:
    with pytest.raises(kind, match=says):
        score({"u": "1"}, {"u": "1"}, **options)


def test_utterance_in_a_language_that_the_normalizer_cannot_treat_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "u", "text": "1", "language": "fr"}\n')
    with pytest.raises(DataError, match="utterance 'u': normalizer 'english' cannot treat"):
        score(path, path, normalizer="english")


def test_mixed_error_rate_counts_characters_and_words() -> None:
    refs = {"a": "我 用 app 打卡", "b": "okay 好"}
    report = score(refs, {"a": "我用 map 打", "b": "okay 好"}, metrics=["mixed"], worst=1)
    assert report.as_dict()["metrics"]["mixed"]["reference_length"] == 7
    assert report.values["mixed"] == pytest.approx(2 / 7)
    assert report.table().splitlines()[2].startswith("MIXED     28.57     0.00 to 40.00 ")
    assert (
        report.worst()
        == "a: token errors 2, reference 5\nREF: 我 用 app 打 卡\nHYP: 我 用 map 打 **\n           S      D"
    )


UNSEGMENTED = {
    "chinese": "打开空调",
    "japanese": "今日はいい天気ですね",
    "thai": "วันนี้อากาศดีมาก",
}
SEGMENTED = {
    "chinese": "今天 天气 很 好 我们 出去 玩",
    "characters": "今 天 天 气 很 好",
    "thai": "วันนี้ อากาศ ดี มาก",
    "korean": "오늘날씨가정말좋네요",
    "russian": "достопримечательности",
    "mostly english": "we all went to 天安门广场 yesterday",
}


@pytest.mark.parametrize("text", UNSEGMENTED.values(), ids=UNSEGMENTED)
def test_word_errors_of_unsegmented_text_cause_a_warning(text: str) -> None:
    texts = {str(i): text for i in range(3)}
    with pytest.warns(UserWarning, match=r"no spaces between words .*--metric cer,mixed$") as told:
        score(texts, texts)
    assert len(told) == 1


@pytest.mark.parametrize("text", SEGMENTED.values(), ids=SEGMENTED)
def test_segmented_text_causes_no_warning(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score({"a": text}, {"a": text})
        score({"a": UNSEGMENTED["chinese"]}, {"a": "开"}, metrics=["cer", "mixed"])


def test_empty_references_and_hypotheses_are_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(DataError, match="nothing to score"):
        score(empty, empty)
    with pytest.raises(DataError, match="nothing to score"):
        score({}, {})


def test_columns_stay_apart_at_very_high_rates() -> None:
    options = {"metrics": ["wer", "cer", "mer"], "breakdown": ["length"]}
    report = score({"a": "a"}, {"a": "b " * 2_000_000}, **options)
    rows = Comparison((report, report)).table() + report.table()
    counts = [line.split() for line in rows.splitlines() if line.startswith(("WER ", "CER ", "MER "))]
    assert [len(cells) for cells in counts] == [10, 10, 10]
    assert not re.search(r"\.\d{3,}\.|\d%\d", rows), "rates end after two decimals"
