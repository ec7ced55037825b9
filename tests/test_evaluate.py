"""Decoding and scoring a manifest: the counts are jiwer's on the texts that are written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import pytest
import torch
from command import asr
from models import noises, of_files, small_model
from synthetic import clip, cut, manifest

from asr.checkpoint import save_model_folder
from asr.data.cuts import load_audio, read_cuts
from asr.errors import AsrError, ConfigError, DataError
from asr.evaluate import evaluate, noisy
from asr.metrics import word_errors
from asr.recognizer import Recognizer
from asr.recognizer.cuts import cut_source
from asr.scoring import ScoreOptions, score
from asr.scoring import compare as compare_files
from asr.scoring.recognised import Recognised, read_recognised, write_recognised
from asr.scoring.rows import Row
from asr.text import normalizer

LANGUAGES = ("en", "es", "en", None)
TEXTS = ["Hello, world!", "who rode", "", "doll (old) WORLD"]


pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it


@pytest.fixture
def cuts(tmp_path: Path) -> Path:
    """A manifest of four recordings: three in two languages, one without a language."""
    audio = noises(0.5, 1.2, 0.4, 0.8)
    rows = [
        clip(tmp_path / f"{i}.wav", 0.2 * a.numpy(), text, language)
        for i, (a, text, language) in enumerate(zip(audio, TEXTS, LANGUAGES, strict=True))
    ]
    return manifest(tmp_path / "cuts.jsonl.gz", rows)


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_hypotheses_equal_those_of_transcribe(cuts: Path, tmp_path: Path) -> None:
    recognizer = Recognizer(small_model())
    found = evaluate(recognizer, cuts, tmp_path / "out")
    assert found.hypotheses == tmp_path / "out" / "hyp.jsonl"
    transcripts = of_files(recognizer, [tmp_path / f"{i}.wav" for i in range(4)])
    assert rows(found.hypotheses) == [
        {"id": str(i), "text": t.text, "reference": text, "language": language}
        for i, (t, text, language) in enumerate(zip(transcripts, TEXTS, LANGUAGES, strict=True))
    ]
    assert len({t.text for t in transcripts}) > 1


@pytest.mark.parametrize("name", [None, "none", "basic"])
def test_counts_equal_those_of_jiwer(cuts: Path, tmp_path: Path, name: str | None) -> None:
    found = evaluate(Recognizer(small_model()), cuts, tmp_path / "out", normalizer=name)
    prepare = normalizer(name or "basic")  # the model folder's own
    refs = [prepare(row["reference"]) for row in rows(found.hypotheses)]
    hyps = [prepare(row["text"]) for row in rows(found.hypotheses)]
    counted = {"wer": jiwer.process_words(refs, hyps), "cer": jiwer.process_characters(refs, hyps)}
    for metric, expected in counted.items():
        got = found.as_dict()["metrics"][metric]
        for count in ("substitutions", "deletions", "insertions", "hits"):
            assert got[count] == getattr(expected, count), (metric, count)
        assert got["rate"] == pytest.approx(getattr(expected, metric))


def test_score_gives_the_same_rates_from_the_written_files(cuts: Path, tmp_path: Path) -> None:
    found = evaluate(Recognizer(small_model()), cuts, tmp_path / "out")
    again = score(cuts, found.hypotheses, normalizer="basic")
    assert again.rates == found.report.rates
    assert found.audio_s == pytest.approx(2.9)
    assert found.as_dict()["times_real_time"] == pytest.approx(2.9 / found.wall_s, rel=0.01)


def test_report_options_work_as_in_asr_score(cuts: Path, tmp_path: Path) -> None:
    """With the same options, the report equals that of `asr score` on the written hypotheses."""
    words = tmp_path / "words.txt"
    words.write_text("world\nrode\n")
    options = ScoreOptions(by="room", breakdown=["length", "duration"], confusions=3, words=words)
    with pytest.raises(DataError, match="has no 'room' in the references; there are: duration"):
        evaluate(Recognizer(small_model()), cuts, tmp_path / "out", options=options)
    options = replace(options, by="duration")
    found = evaluate(Recognizer(small_model()), cuts, tmp_path / "out", options=options)
    again = compare_files(cuts, [found.hypotheses], replace(options, normalizer="basic")).reports[0]
    ours, theirs = found.report.as_dict(), again.as_dict()
    assert {**ours, "form": None} == {**theirs, "form": None}
    assert {"breakdown", "confusions", "listed_words", "without_speech"} < ours.keys()
    assert ours["metrics"]["wer"]["interval_95"] == list(again.intervals["wer"][:2])
    assert found.report.table().splitlines()[1:] == again.table().splitlines()[1:]


def test_n_best_lists_are_written_and_give_the_oracle_wer(cuts: Path, tmp_path: Path) -> None:
    found = evaluate(Recognizer(small_model(beam_size=3, n_best=3)), cuts, tmp_path / "out")
    lists = [[each["text"] for each in row.get("alternatives", [row])] for row in rows(found.hypotheses)]
    assert max(map(len, lists)) > 1
    prepare = normalizer("basic")
    refs = [prepare(row["reference"]) for row in rows(found.hypotheses)]
    errors = [min(len(word_errors(ref, prepare(t))) for t in texts) for ref, texts in zip(refs, lists, strict=True)]
    last = found.as_dict()["oracle_wer"]["of_the_first"][-1]
    assert (last["n"], last["errors"]) == (max(map(len, lists)), sum(errors))


def test_results_and_settings_are_written(cuts: Path, tmp_path: Path) -> None:
    found = evaluate(Recognizer(small_model()), cuts, tmp_path / "out", language="en", settings={"model": "small"})
    (told,) = rows(tmp_path / "out" / "evaluation.jsonl")
    settings = told.pop("settings")
    assert told == json.loads(json.dumps(found.as_dict()))
    assert (settings["model"], settings["only_language"], settings["manifest"]) == ("small", "en", str(cuts))
    assert settings["decode"]["beam_size"] == small_model().config.decode.beam_size


def test_tcwer_without_word_times_is_refused(cuts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tcwer needs the times of words: asr transcribe"):
        evaluate(Recognizer(small_model()), cuts, tmp_path / "out", options=ScoreOptions(metrics=["tcwer"]))


def test_language_option_selects_the_cuts(cuts: Path, tmp_path: Path) -> None:
    recognizer = Recognizer(small_model())
    everything = {row["id"]: row for row in rows(evaluate(recognizer, cuts, tmp_path / "all").hypotheses)}
    found = evaluate(recognizer, cuts, tmp_path / "en", language="en")
    assert rows(found.hypotheses) == [everything["0"], everything["2"]]
    assert found.audio_s == pytest.approx(0.9)
    assert found.left_out == (("3", "no language to choose it by"),)
    with pytest.raises(DataError, match=r"cuts\.jsonl\.gz: no cuts in fr: .*; give another --language"):
        evaluate(recognizer, cuts, tmp_path / "fr", language="fr")


def test_each_cut_is_decoded_in_its_language(cuts: Path, tmp_path: Path) -> None:
    recognizer = Recognizer(small_model(["en", "es"]))
    found = {row["id"]: row["text"] for row in rows(evaluate(recognizer, cuts, tmp_path / "out").hypotheses)}
    for i, language in enumerate(LANGUAGES):
        expected = recognizer.transcribe(tmp_path / f"{i}.wav", language=language)
        assert found[str(i)] == expected.text


def test_unreadable_cuts_are_named_and_the_others_scored(tmp_path: Path) -> None:
    good, _ = (clip(tmp_path / f"{name}.wav", 0.2 * noises(0.5)[0].numpy()) for name in ("good", "short"))
    lost, part = cut("lost", 1.0, path=tmp_path / "lost.wav"), cut("part", 1.0, path=tmp_path / "lost.wav")
    long = cut("short", 1.5, path=tmp_path / "short.wav")  # the file is shorter
    faster = replace(good.recording, transforms=[{"name": "Speed", "kwargs": {"factor": 99}}])
    fast = replace(good, id="fast", recording=faster)
    cuts = manifest(tmp_path / "cuts.jsonl", [good, lost, replace(part, duration=0.5), long, fast])
    save_model_folder(tmp_path / "small", small_model())
    done = asr("evaluate", cuts, "--model", tmp_path / "small", "--out", tmp_path / "out")
    assert done.status == 1
    gone = f"{tmp_path}/lost.wav: no such file"
    ends = "its audio ends after 0.50 of 1.50 s"
    speed = "its speed is no factor from 0.1 to 10"
    failed = {"lost": gone, "part": gone, "short": ends, "fast": speed}
    for id, reason in failed.items():
        assert f"asr: {cuts}: cut {id} cannot be read: {reason}" in done.err
    assert "1 utterance" in done.out
    assert "cuts that cannot be read, missing from these rates: 4\n" in done.out
    (told,) = rows(tmp_path / "out" / "evaluation.jsonl")
    assert (told["failed"], told["audio_s"]) == (failed, 0.5)
    none = manifest(tmp_path / "none.jsonl", [lost])
    with pytest.raises(DataError, match="no cut can be read; lost: "):
        evaluate(Recognizer(small_model()), none, tmp_path / "none")


def test_cut_longer_than_its_recording_is_left_out_and_named(tmp_path: Path) -> None:
    good, long = (clip(tmp_path / f"{name}.wav", 0.2 * noises(0.5)[0].numpy()) for name in ("good", "long"))
    cuts = manifest(tmp_path / "cuts.jsonl", [good, replace(long, duration=1.5)])
    found = evaluate(Recognizer(small_model()), cuts, tmp_path / "out")
    assert [row["id"] for row in rows(found.hypotheses)] == ["good"]
    assert found.as_dict()["left_out"] == {"long": "it goes from 0.00 to 1.50 s, but its recording lasts 0.50 s"}
    assert found.audio_s == 0.5


@pytest.mark.parametrize(
    ("normalizer", "error", "says"),
    [("basik", ConfigError, "did you mean 'basic'"), ("spoken", DataError, "utterance '1'.*digits")],
)
def test_scoring_errors_are_raised_before_decoding(
    tmp_path: Path, normalizer: str, error: type[AsrError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = Recognizer(small_model())
    monkeypatch.setattr(recognizer, "transcribe_sources", lambda *a, **k: pytest.fail("decoded"))
    digits = cut("1", 1.0, "3 calls", language=None)
    cuts = manifest(tmp_path / "cuts.jsonl", [cut("0", 1.0, "hello"), digits])
    with pytest.raises(error, match=says):
        evaluate(recognizer, cuts, tmp_path / "out", normalizer=normalizer)


def test_hypotheses_are_kept_when_scoring_fails(cuts: Path, tmp_path: Path) -> None:
    parts = small_model()
    parts.tokenizer.decode = lambda ids: "3"
    with pytest.raises(DataError, match="utterance '3'"):
        evaluate(Recognizer(parts), cuts, tmp_path / "out", normalizer="spoken")
    assert [row["text"] for row in rows(tmp_path / "out" / "hyp.jsonl")] == ["3"] * 4


def test_noise_is_repeatable_and_has_the_requested_snr(cuts: Path, tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    clip(tmp_path / "noise" / "hum.wav", noises(3.0)[0].numpy())
    recognizer = Recognizer(small_model())
    heard = {}
    for name, snr_db in (("once", 0.0), ("again", 0.0), ("quiet", 80.0)):
        found = evaluate(recognizer, cuts, tmp_path / name, noise=noisy(tmp_path / "noise", snr_db, recognizer.rate))
        heard[name] = [row["text"] for row in rows(found.hypotheses)]
    plain = [row["text"] for row in rows(evaluate(recognizer, cuts, tmp_path / "plain").hypotheses)]
    assert heard["once"] == heard["again"] != plain
    assert heard["quiet"] == plain
    source = cut_source(next(iter(read_cuts(cuts))), recognizer.rate, noisy(tmp_path / "noise", 6.0, recognizer.rate))
    (mixed_N,) = source.open().blocks
    clean_N = load_audio(next(iter(read_cuts(cuts))), recognizer.rate)
    noise_N = mixed_N - clean_N
    assert 10 * torch.log10(clean_N.square().mean() / noise_N.square().mean()).item() == pytest.approx(6.0, abs=0.01)
    with pytest.raises(DataError, match="no audio files to take as noise"):
        noisy(tmp_path / "plain", 0.0, recognizer.rate)


def test_texts_with_any_character_are_read_back_unchanged(tmp_path: Path) -> None:
    texts = ["one\u2028two", "three\u0085", "\u2029", "half of \ud800", "plain"]
    write_recognised(tmp_path / "hyp.jsonl", [Recognised(Row(text, text, "en"), text) for text in texts])
    assert [each.text for each in read_recognised(tmp_path / "hyp.jsonl")] == texts
