"""Comparison of systems on the same references, translation metrics, and both in `asr score`."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from command import asr

from asr.errors import DataError
from asr.scoring import Comparison, ScoreOptions, compare, score

DRAW = random.Random(4)
REFS = [[DRAW.choice("abcdefgh") for _ in range(12)] for _ in range(200)]
# The second and the third system have a third of the errors of the first.
SYSTEMS = {
    name: [" ".join(w if DRAW.random() > share else "x" for w in ref) for ref in REFS]
    for name, share in (("bad", 0.3), ("good", 0.1), ("same", 0.1))
}


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"u_{number} {text}\n" for number, text in enumerate(texts)))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    texts = {"ref": [" ".join(ref) for ref in REFS], **SYSTEMS}
    return [write(tmp_path / name, rows) for name, rows in texts.items()]


def test_comparison_verdicts_are_sentences(files: list[Path]) -> None:
    found = compare(files[0], files[1:], ScoreOptions())
    sentences = {(Path(c.first).name, Path(c.second).name, c.metric): c.sentence() for c in found.contests()}
    assert len(sentences) == 6
    good = sentences["bad", "good", "wer"]
    assert f"paired bootstrap: {files[2]} is better, p < 0.001; MAPSSWE over " in good
    assert good.endswith(f"{files[2]} is better, p < 0.001")
    same = sentences["good", "same", "wer"]
    assert same.count("no difference shown, p = 0.") == 2
    assert "MAPSSWE" not in sentences["bad", "good", "cer"]


def test_swapping_the_systems_only_flips_the_sign(files: list[Path]) -> None:
    there, back = (
        next(iter(compare(files[0], order, ScoreOptions()).contests())) for order in (files[1:3], files[2:0:-1])
    )
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert there.mapsswe is not None
    assert back.mapsswe is not None
    assert there.mapsswe.p == back.mapsswe.p < 0.001
    assert "is better" in back.sentence()
    assert str(files[2]) + " is better" in back.sentence()


def test_compared_systems_are_scored_as_if_alone(files: list[Path]) -> None:
    together = compare(files[0], files[1:3], ScoreOptions())
    assert [r.as_dict() for r in together.reports] == [score(files[0], path).as_dict() for path in files[1:3]]


def test_utterances_are_paired_by_id_not_by_position(files: list[Path], tmp_path: Path) -> None:
    turned = tmp_path / "turned"
    turned.write_text("".join(reversed(files[1].read_text().splitlines(keepends=True))))
    (contest,) = compare(files[0], [files[1], turned], ScoreOptions(metrics=["wer"])).contests()
    assert contest.difference == (0.0, (0.0, 0.0, 10_000), 1.0)
    assert contest.mapsswe is not None
    assert (contest.mapsswe.mean, contest.mapsswe.p) == (0.0, 1.0)


def test_speakers_are_paired_regardless_of_file_order(tmp_path: Path) -> None:
    def rows(texts: list[str]) -> list[str]:
        return [
            json.dumps({"id": f"u{i}", "text": text, "speaker": f"s{i % 7}"}) + "\n" for i, text in enumerate(texts)
        ]

    ref, one, turned = (tmp_path / f"{name}.jsonl" for name in ("ref", "one", "turned"))
    ref.write_text("".join(rows([" ".join(words) for words in REFS])))
    one.write_text("".join(rows(SYSTEMS["bad"])))
    turned.write_text("".join(reversed(rows(SYSTEMS["bad"]))))
    (contest,) = compare(ref, [one, turned], ScoreOptions(metrics=["wer"], by="speaker")).contests()
    assert contest.difference == (0.0, (0.0, 0.0, 10_000), 1.0)


def test_a_system_with_missing_texts_is_named(files: list[Path]) -> None:
    write(files[2], SYSTEMS["good"][:-1])
    with pytest.raises(DataError, match=r"good lacks 1 id \(u_199\) of .*ref"):
        compare(files[0], files[1:], ScoreOptions())


def test_translation_metrics_match_sacrebleu() -> None:
    refs = {"a": "the cat sat on the mat", "b": "", "c": "good night moon", "d": "I said 3 words"}
    hyps = {"a": "the cat sat on a mat", "b": "oh", "c": "", "d": "I said 3 words"}
    report = score(refs, hyps, metrics=["wer", "bleu", "chrf", "ter"], normalizer="basic")
    clean = [text.lower() for text in refs.values()]
    said = [text.lower() for text in hyps.values()]
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF()), ("ter", sacrebleu.TER())):
        assert report.values[name] == pytest.approx(metric.corpus_score(said, [clean]).score)
        low, high, resamples = report.intervals[name]
        assert low <= report.values[name] <= high
        assert resamples == 1000
        shown = f"{report.values[name]:.2f}{f'{low:.2f} to {high:.2f}':>18}  {metric.get_signature()}"
        assert shown in report.table()
        assert report.as_dict()["metrics"][name]["interval_95"] == [low, high]
        assert report.as_dict()["metrics"][name]["signature"] == str(metric.get_signature())
    assert list(report.as_dict()["metrics"]) == ["wer", "bleu", "chrf", "ter"]


@pytest.mark.parametrize(
    ("language", "cut"), [("zh", "zh"), ("zh-TW", "zh"), ("ja", "char"), ("de", "13a"), (None, "13a")]
)
def test_bleu_tokenizer_depends_on_the_language(language: str | None, cut: str) -> None:
    refs, hyps = {"a": "他 今天 去 北京 了 吗"}, {"a": "他今天去了北京吗"}
    report = score(refs, hyps, metrics=["bleu"], language=language)
    expected = sacrebleu.BLEU(tokenize=cut).corpus_score(list(hyps.values()), [list(refs.values())])
    assert report.values["bleu"] == pytest.approx(expected.score)
    assert f"tok:{cut}" in report.translation["bleu"].signature


@pytest.mark.parametrize("language", ["zh", "yue-HK", "cmn", "ja"])
def test_ter_of_chinese_and_japanese_counts_characters(language: str) -> None:
    report = score({"a": "他今天去了北京玩"}, {"a": "他今天去了南京玩"}, metrics=["ter", "bleu"], language=language)
    assert report.values["ter"] == pytest.approx(100 / 8)
    assert report.values["bleu"] > 0


def test_words_that_are_sentences_are_warned_of_in_translations() -> None:
    said, heard = {"a": "他今天去了北京玩"}, {"a": "他今天去了南京玩"}
    thai = {"a": "วันนี้อากาศดีมาก"}
    for metric, texts, language in (("bleu", said, None), ("ter", said, None), ("ter", thai, "th")):
        with pytest.warns(UserWarning, match=f"so {metric.upper()} compares whole sentences; give their language"):
            score(texts, texts, metrics=metric, language=language)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(said, heard, metrics=["bleu", "ter", "chrf"], language="zh")
        score(thai, thai, metrics=["bleu", "chrf"], language="th")


def test_translation_metrics_support_breakdown_and_resampling_by_field(tmp_path: Path) -> None:
    said = {"a": "the cat sat on a mat", "b": "good day moon", "c": "I said three words", "d": "not this one at all"}
    meant = {"a": "the cat sat on the mat", "b": "good night moon", "c": "I said 3 words", "d": "not that one at all"}
    rows = [{"id": id, "text": text, "level": "one" if id in "ad" else "two"} for id, text in meant.items()]
    (tmp_path / "ref.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "hyp.jsonl").write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in said.items()))
    words = ("score", tmp_path / "ref.jsonl", tmp_path / "hyp.jsonl", "--breakdown", "level", "--by", "level")
    found = json.loads(asr(*words, "--metric", "bleu,chrf", "--json").out)
    assert [group["name"] for group in found["breakdown"]["level"]] == ["one", "two"]
    for group, ids in zip(found["breakdown"]["level"], ("ad", "bc"), strict=True):
        texts = [said[id] for id in ids], [[meant[id] for id in ids]]
        assert group["utterances"] == 2
        assert group["reference_length"] is None
        assert group["bleu"] == pytest.approx(sacrebleu.BLEU().corpus_score(*texts).score)
        assert group["chrf"] == pytest.approx(sacrebleu.CHRF().corpus_score(*texts).score)
    ends = [group["bleu"] for group in found["breakdown"]["level"]]
    twice = [
        sacrebleu.BLEU().corpus_score([said[id] for id in 2 * ids], [[meant[id] for id in 2 * ids]]).score
        for ids in ("ad", "bc")
    ]
    assert found["metrics"]["bleu"]["interval_95"] == pytest.approx(sorted(twice))  # resamples with one level twice
    lines = asr(*words, "--metric", "wer,bleu").out.splitlines()
    table = [line.split() for line in lines[lines.index("") + 1 :]][:3]
    assert table == [
        ["level", "utterances", "reference", "WER", "%", "BLEU"],
        ["one", "2", "11", "18.18", f"{ends[0]:.2f}"],
        ["two", "2", "7", "28.57", f"{ends[1]:.2f}"],
    ]


def test_systems_are_compared_by_paired_bootstrap_of_bleu() -> None:
    """Against scores that sacrebleu computes for each resample."""
    words = [f"w{i}" for i in range(30)]
    draw = random.Random(3)
    refs = {str(i): " ".join(draw.choices(words, k=9)) for i in range(40)}
    worse = {i: " ".join(w if draw.random() < 0.7 else "no" for w in text.split()) for i, text in refs.items()}
    better = {i: " ".join(w if draw.random() < 0.95 else "no" for w in text.split()) for i, text in refs.items()}
    first, second = (score(refs, hyps, metrics=["bleu"]) for hyps in (worse, better))
    (contest,) = Comparison((first, second)).contests()
    draws = np.random.default_rng(1).integers(0, 40, (300, 40)).tolist()

    def bleu(hyps: dict[str, str], row: Iterable[int]) -> float:
        numbers = [str(i) for i in row]
        return float(sacrebleu.BLEU().corpus_score([hyps[i] for i in numbers], [[refs[i] for i in numbers]]).score)

    differences = [bleu(better, row) - bleu(worse, row) for row in draws]
    assert contest.difference.value == pytest.approx(bleu(better, range(40)) - bleu(worse, range(40)))
    assert contest.difference.interval[:2] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=2.5)
    assert "is better, p = 0.002" in contest.sentence()
    assert f"BLEU {contest.difference.value:+.2f} points" in contest.sentence()


def test_bleu_with_different_tokenizers_is_not_compared(tmp_path: Path) -> None:
    ref, plain, told = (tmp_path / f"{name}.jsonl" for name in ("ref", "plain", "told"))
    for path, language in ((ref, {}), (plain, {}), (told, {"language": "zh"})):
        path.write_text(json.dumps({"id": "a", "text": "他今天去了北京吗", **language}) + "\n")
    with pytest.raises(DataError, match=r"told\.jsonl: bleu tokenizes .* from those of .*plain\.jsonl, .* --language"):
        compare(ref, [plain, told], ScoreOptions(metrics=["bleu"]))
    both = compare(ref, [plain, told], ScoreOptions(metrics=["bleu"], language="zh"))
    assert [report.values["bleu"] for report in both.reports] == pytest.approx([100.0, 100.0])


def test_the_language_of_a_hypothesis_decides_last(tmp_path: Path) -> None:
    """A recogniser may have detected a wrong one."""
    ref = tmp_path / "ref.txt"
    ref.write_text("u_1 pay 5\n")
    english, spanish = (tmp_path / f"{language}.jsonl" for language in ("en", "es"))
    for path in (english, spanish):
        path.write_text(json.dumps({"id": "u_1", "text": "pay five", "language": path.stem}) + "\n")
    assert score(ref, spanish, normalizer="spoken").rates["wer"].errors == 1  # "pay cinco": no other language is known
    assert score(ref, spanish, normalizer="spoken", language="English").rates["wer"].errors == 0
    assert score(ref, spanish, normalizer="english", language="en").rates["wer"].reference_length == 2
    with pytest.raises(
        DataError, match=r"es\.jsonl: the references are normalised differently for it and for .*en\.jsonl"
    ):
        compare(ref, [english, spanish], ScoreOptions(normalizer="spoken"))
    assert len(compare(ref, [english, spanish], ScoreOptions()).reports) == 2  # the same text in any language
    both = compare(ref, [english, spanish], ScoreOptions(normalizer="spoken", language="en"))
    assert [report.rates["wer"].errors for report in both.reports] == [0, 0]


def test_bleu_alone_has_no_alignments() -> None:
    report = score({"a": "b c"}, {"a": "b d"}, metrics=["bleu"])
    assert "BLEU" in report.table()
    assert report.worst() == ""


def test_mer_and_wil_are_shown_without_percentages_of_edit_types() -> None:
    report = score({"a": "a b c d"}, {"a": "a b x y z"}, metrics=["mer", "wil"])
    assert report.values == {"mer": pytest.approx(3 / 5), "wil": pytest.approx(1 - 2 / 4 * 2 / 5)}
    assert [line[:4] for line in report.table().splitlines()[2:]] == ["MER ", "WIL ", "95 %"]


def test_score_command_compares_systems(files: list[Path]) -> None:
    done = asr("score", *files[:3], "--metric", "wer,bleu", "--worst", 1)
    assert (done.status, done.err) == (0, [])
    lines = done.out.splitlines()
    assert lines[0] == "200 utterances, read as id and text, normalizer none"
    assert [line.split()[0] for line in lines[2:4]] == [str(path) for path in files[1:3]]
    assert any(line.startswith("BLEU: nrefs:1|") for line in lines)
    assert sum(f"{files[2]} is better" in line for line in lines) == 2  # once per metric
    assert done.out.count("\nREF: ") == 2
    found = json.loads(asr("score", *files[:3], "--json").out)
    assert [system["name"] for system in found["systems"]] == [str(path) for path in files[1:3]]
    assert found["contests"][0]["in_words"].startswith(f"{files[2]} against {files[1]}: WER -")
    assert found["contests"][0]["mapsswe"]["p"] < 0.001


def test_missing_and_extra_texts_are_errors_unless_allowed(files: list[Path]) -> None:
    write(files[1], SYSTEMS["bad"][:-2])
    done = asr("score", *files[:2])
    assert done.status == 2
    assert done.err == [
        f"asr: {files[1]} lacks 2 ids (u_198, u_199) of {files[0]} (asr score --missing-as-empty accepts this) "
        f"({files[0]} was read as `id text`; form 'lines' matches lines by number)"
    ]
    assert asr("score", *files[:2], "--missing-as-empty").status == 0
    done = asr("score", *files[1::-1])
    assert (done.status, len(done.err)) == (2, 1)
    assert (
        f"{files[0]} has 2 ids (u_198, u_199) that {files[1]} lacks (asr score --ignore-extra accepts this)"
        in done.err[0]
    )
    done = asr("score", *files[1::-1], "--ignore-extra")
    assert (done.status, done.out.splitlines()[0][:15]) == (0, "198 utterances,")
    assert done.err == [f"asr: {files[0]}: left out 2 ids (u_198, u_199) that {files[1]} lacks"]
