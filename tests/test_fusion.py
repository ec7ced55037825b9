"""Language models in the recognizer and on the command line, tuning of weights, and sampling of texts."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import asr
from models import noises, small_model
from synthetic import clip, cut, manifest
from torch import Tensor

from asr.checkpoint import save_model_folder
from asr.cli.searching import Searching
from asr.config import DecodeConfig, validate
from asr.data.batch import pad_audio
from asr.data.cuts import read_cuts
from asr.errors import ConfigError, DataError
from asr.evaluate import evaluate, noisy
from asr.lm.train import train_ngrams
from asr.model.masks import Memory
from asr.recognizer import Recognizer
from asr.recognizer.batch import BatchDecoder
from asr.tuning import best_of, parse_grid, tune

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it

JOINT = {"beam_size": 4, "ctc_weight": 0.3, "n_best": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, a language model for it, a manifest and a list of phrases."""
    path = tmp_path_factory.mktemp("fusion")
    save_model_folder(path / "model", small_model())
    (path / "texts.txt").write_text("hello world\nhold her door\nwell done\n" * 3)
    train_ngrams([path / "texts.txt"], path / "model", 4, path / "lm.arpa")
    train_ngrams([path / "texts.txt"], path / "model", 2, path / "words.arpa", "word")
    audio = zip("abcd", noises(0.5, 1.2, 0.4, 0.8), ("hello", "world", "hold her", "well"), strict=True)
    manifest(path / "dev.jsonl", [clip(path / f"{id}.wav", 0.2 * x.numpy(), text) for id, x, text in audio])
    (path / "names.txt").write_text("hello\n")
    return path


@pytest.mark.parametrize("lm", [{"lm": "lm.arpa"}, {"lm": "words.arpa", "lm_unit": "word"}], ids=["tokens", "words"])
def test_fused_scores_add_up_and_weight_0_disables_the_lm(folder: Path, lm: dict[str, str]) -> None:
    options = {**JOINT, "phrases": folder / "names.txt", "phrase_bonus": 0.5}
    fusion = {**lm, "lm": folder / lm["lm"]}
    batch = pad_audio(noises(1.0, 0.5, 1.5))
    plain = Recognizer(small_model(**options)).decode(*batch)
    assert Recognizer(small_model(**options, **fusion, lm_weight=0)).decode(*batch) == plain
    fused = Recognizer(small_model(**options, **fusion, lm_weight=0.4)).decode(*batch)
    assert [h[0].tokens for h in fused] != [h[0].tokens for h in plain]
    weights = {"attention": 0.7, "allowed": 1.0, "ctc": 0.3, "phrases": 0.5, "lm": 0.4}
    for h in (h for hypotheses in fused for h in hypotheses):
        assert h.parts.keys() == weights.keys()
        total = sum(weight * h.parts[name] for name, weight in weights.items())
        assert h.score == pytest.approx(total / (len(h.tokens) + (not h.truncated)), abs=1e-4)


def test_fused_texts_do_not_depend_on_the_batch(folder: Path) -> None:
    recognizer = Recognizer(small_model(**JOINT, lm=folder / "lm.arpa", lm_weight=0.4))
    audio = noises(1.0, 0.5, 1.5, 0.1, 0.75)
    alone = [recognizer.decode(*pad_audio([a]))[0][0].tokens for a in audio]
    assert [h[0].tokens for h in recognizer.decode(*pad_audio(audio))] == alone
    assert [h[0].tokens for h in recognizer.decode(*pad_audio(audio[::-1]))] == alone[::-1]


# ---- tuning on a manifest -----------------------------------------------------------------------------------


def test_tune_scores_each_setting_as_evaluate_does(folder: Path, tmp_path: Path) -> None:
    recognizer = Recognizer(small_model(beam_size=3, lm=folder / "lm.arpa"))
    grid = {"lm_weight": [0.0, 0.5], "ctc_weight": [0.0, 0.4], "beam_size": [1.0, 3.0]}
    tried = tune(recognizer, folder / "dev.jsonl", grid).tried
    assert len({t.report.values["cer"] for t in tried}) > 2
    for each in tried:
        options = validate(DecodeConfig, {**recognizer.options.model_dump(), **each.setting}, "test")
        own = evaluate(Recognizer(small_model(**options.model_dump())), folder / "dev.jsonl", tmp_path)
        assert own.report.values == each.report.values
        assert own.report.intervals == each.report.intervals
    best = best_of(tried, "cer")
    assert best.report.values["cer"] == min(t.report.values["cer"] for t in tried)


def test_narrower_beam_reduces_the_models_n_best(folder: Path, tmp_path: Path) -> None:
    save_model_folder(tmp_path / "several", small_model(beam_size=3, n_best=3))
    dev, model = folder / "dev.jsonl", ["--model", tmp_path / "several"]
    for words in (
        ["transcribe", folder / "a.wav", *model, "--beam-size", 1],
        ["evaluate", dev, *model, "--beam-size", 2, "--out", tmp_path],
        ["tune", dev, *model, "--beam-size", 2, "--grid", "length_penalty=1"],
        ["tune", dev, *model, "--grid", "beam_size=1,3"],
    ):
        assert asr(*words).status == 0
    rows = [json.loads(line) for line in (tmp_path / "hyp.jsonl").read_text().splitlines()]
    assert max(len(row["alternatives"]) for row in rows if "alternatives" in row) == 2
    done = asr("transcribe", folder / "a.wav", *model, "--beam-size", 1, "--n-best", 3)
    assert (done.status, done.err) == (2, ["asr: decode.n_best: --n-best 3 needs --beam-size 3 or more"])


def test_phrases_are_scored_as_they_are_transcribed(folder: Path, tmp_path: Path) -> None:
    names, common = folder / "names.txt", ["--model", folder / "model", "--dtype", "float32"]
    listening = ["--hotwords", names, "--hotword-bonus", 500]
    said = [asr("transcribe", folder / f"{id}.wav", *common, *listening).out.strip() for id in "abcd"]
    assert any("hello" in text for text in said)
    found = {}
    for name, options in (
        ("named", listening),
        ("keys", ["--decode", f"phrases={names}", "--decode", "phrase_bonus=500"]),
    ):
        done = asr("evaluate", folder / "dev.jsonl", *common, *options, "--out", tmp_path / name, "--word-list", names)
        assert (done.status, "recall" in done.out) == (0, True)
        found[name] = [json.loads(line)["text"] for line in (tmp_path / name / "hyp.jsonl").read_text().splitlines()]
    assert found == {"named": said, "keys": said}
    (told,) = (json.loads(line) for line in (tmp_path / "named" / "evaluation.jsonl").read_text().splitlines())
    assert (told["settings"]["decode"]["phrases"], told["settings"]["decode"]["phrase_bonus"]) == (str(names), 500)


def test_any_key_of_decode_can_be_given() -> None:
    changes = ["length_penalty=0", "guards.no_speech=.5", "guards.temperatures=[0.3]", "lm=lm.arpa"]
    assert Searching(guards=True, beam_size=2, decode=changes).given() == {
        "beam_size": 2,
        "length_penalty": 0,
        "guards": {"enabled": True, "no_speech": 0.5, "temperatures": [0.3]},
        "lm": "lm.arpa",
    }
    assert Searching(guards=False).given() == {"guards": {"enabled": False}}


def test_tune_halves_the_batch_when_out_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer, dev, grid = Recognizer(small_model()), folder / "dev.jsonl", {"beam_size": [1.0, 3.0]}
    expected = [each.as_dict() for each in tune(recognizer, dev, grid).tried]
    tried, encode = [], BatchDecoder.encode

    def small(self: BatchDecoder, audio_BN: Tensor, len_B: Tensor) -> Memory:
        tried.append(len(len_B))
        if len(len_B) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, audio_BN, len_B)

    monkeypatch.setattr(BatchDecoder, "encode", small)
    assert [each.as_dict() for each in tune(recognizer, dev, grid, batch_s=100).tried] == expected
    assert tried == [4, 2, 2]


def test_tune_and_evaluate_agree_on_a_silent_cut(folder: Path, tmp_path: Path) -> None:
    clips = [clip(tmp_path / "quiet.wav", np.zeros(8000), "nobody"), *read_cuts(folder / "dev.jsonl")]
    dev, recognizer = manifest(tmp_path / "dev.jsonl", clips), Recognizer(small_model())
    (tried,) = tune(recognizer, dev, {"beam_size": [1.0]}).tried
    assert tried.report.values == evaluate(recognizer, dev, tmp_path).report.values
    noise = tmp_path / "noise"
    noise.mkdir()
    clip(noise / "hum.wav", noises(1.0)[0].numpy())
    assert evaluate(recognizer, dev, tmp_path, noise=noisy(noise, 10.0, 8000)).report.utterances == 5
    with pytest.raises(ConfigError, match=r"^noise: 'noise_snr_db\.0': Input should be a finite number, got inf"):
        noisy(noise, math.inf, 8000)


def test_tune_and_evaluate_leave_out_the_same_cuts(folder: Path, tmp_path: Path) -> None:
    good = read_cuts(folder / "dev.jsonl")
    short = cut("short", 1.2, "well", path=folder / "a.wav")  # the file is shorter
    lost, part = (cut(id, 0.6, "well", path=tmp_path / "lost.wav") for id in ("lost", "part"))
    bad = [lost, replace(part, duration=0.4), short]
    dev, recognizer = manifest(tmp_path / "dev.jsonl", [*good, *bad]), Recognizer(small_model())
    expected = evaluate(recognizer, dev, tmp_path)
    found = tune(recognizer, dev, {"beam_size": [1.0]}, batch_s=1.0)
    assert found.tried[0].report.values == expected.report.values
    assert sorted(found.left_out) == sorted(expected.failed)
    with pytest.raises(DataError, match=r"none\.jsonl: no cut can be read; lost: .*lost\.wav: no such file"):
        tune(recognizer, manifest(tmp_path / "none.jsonl", [lost]), {"beam_size": [1.0]})


def test_tune_prints_every_setting_the_best_and_a_note_on_the_data(folder: Path) -> None:
    words = ["tune", folder / "dev.jsonl", "--model", folder / "model", "--lm", folder / "lm.arpa"]
    done = asr(*words, "--grid", "lm_weight=0,0.5", "--grid", "ctc_weight=0.3")
    assert done.status == 0
    head, *rows, least = done.out.splitlines()
    assert head.split()[:2] == ["lm_weight", "ctc_weight"]
    assert len(rows) == 2
    (best,) = [row for row in rows if row.startswith("* ")]
    assert least == f"least WER: lm_weight={best.split()[1]} ctc_weight=0.3"
    assert done.err[-1] == f"asr: the weights were tuned on {folder / 'dev.jsonl'}: report scores on other data"
    done = asr(*words, "--grid", "lm_weight=0,0.5", "--json")
    assert [each["setting"] for each in json.loads(done.out)] == [{"lm_weight": 0.0}, {"lm_weight": 0.5}]


def test_gzipped_language_model_is_the_same(folder: Path, tmp_path: Path) -> None:
    for name in ("a.arpa", "b.arpa.gz", "c.arpa.gz"):
        words = "lm", "ngram", folder / "texts.txt", "--model", folder / "model", "--out", tmp_path / name
        assert asr(*words).status == 0
    plain, packed, again = ((tmp_path / name).read_bytes() for name in ("a.arpa", "b.arpa.gz", "c.arpa.gz"))
    assert gzip.decompress(packed) == plain
    assert packed == again
    batch = pad_audio(noises(1.0, 0.5))
    found = [Recognizer(small_model(lm=tmp_path / name)).decode(*batch) for name in ("a.arpa", "b.arpa.gz")]
    assert found[0] == found[1]


@pytest.mark.parametrize("word", ["lm_weight", "lm_weight=", "lm_weight=a", "window_s=3", "=1"])
def test_grid_takes_only_known_names_and_numbers(word: str) -> None:
    with pytest.raises(ConfigError, match="--grid "):
        parse_grid([word])
    assert parse_grid(["lm_weight=0,0.5", "beam_size=2"]) == {"lm_weight": [0.0, 0.5], "beam_size": [2.0]}


# ---- sampling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_sampled_texts_depend_only_on_audio_and_seed(ctc_weight: float) -> None:
    audio, options = noises(1.0, 0.5, 1.5), {"temperature": 1.0, "top_p": 0.9, "n_best": 5, "ctc_weight": ctc_weight}
    recognizer = Recognizer(small_model(**options))
    together = recognizer.decode(*pad_audio(audio))
    for a, hypotheses in zip(audio, together, strict=True):
        (alone,) = recognizer.decode(*pad_audio([a]))
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        assert len({h.tokens for h in hypotheses}) == len(hypotheses)
    assert max(map(len, together)) > 2
    assert Recognizer(small_model(**options, seed=1)).decode(*pad_audio(audio)) != together


def test_tiny_top_p_equals_greedy_search() -> None:
    batch = pad_audio(noises(1.0, 0.5, 1.5))
    greedy = Recognizer(small_model()).decode(*batch)
    drawn = Recognizer(small_model(temperature=1.0, top_p=1e-6)).decode(*batch)
    assert [h[0].tokens for h in drawn] == [h[0].tokens for h in greedy]


# ---- user errors --------------------------------------------------------------------------------------------


def test_unknown_word_penalty_needs_a_word_lm(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^decode\.lm_unknown_penalty needs decode\.lm_unit \(--lm-unit\) word$"):
        Recognizer(small_model(lm=folder / "lm.arpa", lm_unknown_penalty=5.0))
    Recognizer(small_model(lm=folder / "words.arpa", lm_unit="word", lm_unknown_penalty=5.0))


def test_user_errors_are_one_line_with_status_2(folder: Path) -> None:
    model, wav, dev = folder / "model", folder / "a.wav", folder / "dev.jsonl"
    (folder / "broken.arpa").write_text("\\data\\\nngram 1=1\n\n\\1-grams:\nx </s>\n")
    (folder / "empty.txt").write_text("")
    said = ["transcribe", wav, "--model", model]
    tuned = ["tune", dev, "--model", model]
    values = ",".join(map(str, range(1, 51)))
    many = [
        word
        for name in ("lm_weight", "length_bonus", "length_penalty", "beam_size")
        for word in ("--grid", f"{name}={values}")
    ]
    made = ["lm", "ngram", folder / "texts.txt", "--model", model, "--out", folder / "new.arpa"]
    for words, says in (
        ([*said, "--lm", folder / "none"], "none: cannot be read: No such file"),
        ([*said, "--lm", folder / "broken.arpa"], "broken.arpa:5: 'x' is not a logarithm of a probability (0 or less)"),
        (
            [*said, "--lm", folder / "words.arpa"],
            "words.arpa: 0 of its 7 different words are tokens of this model; for",
        ),
        ([*said, "--lm", folder / "lm.arpa", "--lm-weight", "-1"], "'--lm-weight'"),
        ([*said, "--lm-weight", "0.5"], "asr: decode.lm_weight (--lm-weight) needs decode.lm (--lm)"),
        ([*said, "--hotword-bonus", "3"], "decode.phrase_bonus (--hotword-bonus) needs decode.phrases (--hotwords)"),
        (
            [*said, "--temperature", "1", "--beam-size", "2"],
            "asr: decode.beam_size (--beam-size) is for beam search and ",
        ),
        ([*said, "--n-best", "5"], "asr: decode.n_best: --n-best 5 needs --beam-size 5 or more"),
        ([*said, "--n-best", "5", "--beam-size", "4"], "--n-best 5 needs --beam-size 5 or more"),
        ([*said, "--temperature", "inf"], "'temperature': Input should be a finite number"),
        ([*said, "--temperature", "1e-45"], "temperature is 0, or 0.01 and more"),
        ([*said, "--length-bonus", "nan"], "'length_bonus': Input should be a finite number"),
        ([*said, "--decode", "length_penalty"], "--decode length_penalty: give KEY=VALUE, and each key once"),
        ([*said, "--beam-size", "2", "--decode", "beam_size=3"], "--decode beam_size=3: give KEY=VALUE, and each key"),
        ([*said, "--decode", "length_penalti=1"], "unknown key 'length_penalti'; did you mean 'length_penalty'?"),
        ([*said, "--decode", "seed=2024-01-01"], "--decode: 'seed': "),
        ([*said, "--decode", "seed=[1"], "--decode seed=[1: line 1 not valid YAML"),
        ([*tuned, "--grid", "beam_size=1", "--decode", "max_symbols=2"], "decode.max_symbols is for decoders of kind"),
        ([*said, "--top-p", "0.5"], "options of the search: top_p is for drawing"),
        ([*tuned, "--grid", "lm_weight=0,1"], "decode.lm_weight (--lm-weight) needs decode.lm (--lm)"),
        (
            [*tuned, "--grid", "phrase_bonus=1"],
            "decode.phrase_bonus (--hotword-bonus) needs decode.phrases (--hotwords)",
        ),
        ([*tuned, *many], "--grid: 6,250,000 settings are too many; 1,000 is the most"),
        ([*tuned, "--grid", "ctc_weight=2"], "--grid: 'ctc_weight': "),
        ([*tuned, "--grid", "ctc_weight=x"], "--grid ctc_weight=x: give numbers separated by commas"),
        (["tune", folder / "no.jsonl", "--model", model, "--grid", "beam_size=1"], "no.jsonl: no such manifest"),
        ([*made[:2], folder / "empty.txt", *made[3:]], "empty.txt: there is no text to make a language model of"),
        ([*made, "--order", "0"], "'--order'"),
        ([*made[:4], folder / "none", *made[5:]], "none: no model folder"),
    ):
        done = asr(*words)
        assert (done.status, done.out, len(done.err)) == (2, "", 1), f"{words}: {done}"
        assert says in done.err[0], done.err
        assert done.err[0].isprintable()
