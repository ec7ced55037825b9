"""The command line as a user sees it: output, standard error, and exit status."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import torch
from command import Outcome, asr
from models import RATE, noises, of_files, small_model, whisper_folder
from synthetic import CONFIG, clip, manifest

from asr import __version__
from asr.checkpoint import load_model_folder, save_model_folder, save_state
from asr.cli import terminal
from asr.config import ExperimentConfig, parse_yaml, read_config
from asr.recognizer import Recognizer
from asr.transcript import Transcript


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose texts never reach the length cap, which would add a line to stderr."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model_folder(folder, small_model(max_tokens_per_s=500.0))
    return folder


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """A folder with three recordings, one of them in a subfolder, and files that are not audio."""
    folder = tmp_path / "calls"
    (folder / "old").mkdir(parents=True)
    for name, audio in zip(["b.wav", "a.flac", "old/a.wav"], noises(0.5, 0.9, 0.3), strict=True):
        sf.write(folder / name, 0.2 * audio.numpy(), RATE)
    (folder / "notes.txt").write_text("no audio, and its name says so")
    (folder / ".hidden.wav").write_text("no audio, and hidden")
    return folder


@pytest.fixture
def bad(tmp_path: Path) -> list[Path]:
    """Paths that cannot be transcribed."""
    folder = tmp_path / "bad"
    (folder / "nothing").mkdir(parents=True)
    paths = [folder / f"{name}.wav" for name in ("empty", "cut", "text", "zeros", "nan", "missing")]
    empty, cut_off, text, zeros, nan, _ = paths
    empty.touch()
    sf.write(cut_off, noises(1.0)[0].numpy(), RATE)
    os.truncate(cut_off, cut_off.stat().st_size // 2)
    text.write_text("This is no audio.\n" * 20)
    sf.write(zeros, np.zeros(RATE), RATE)
    sf.write(nan, np.full(RATE, np.nan), RATE, subtype="FLOAT")
    return [*paths, folder / "nothing"]


def texts_of(model: Path, paths: list[Path]) -> list[str]:
    """Return the texts of recordings, transcribed without the command line."""
    results = of_files(Recognizer(load_model_folder(model)), paths)
    return [r.text for r in results if isinstance(r, Transcript)]


# --- transcribe ---------------------------------------------------------------------------------------


def test_transcribe_one_file(model: Path, calls: Path) -> None:
    done = asr("transcribe", calls / "b.wav", "--model", model)
    (text,) = texts_of(model, [calls / "b.wav"])
    assert text
    assert done == Outcome(0, f"{text}\n", [])


def test_transcribe_a_folder(model: Path, calls: Path) -> None:
    (calls / "talk.ass").write_text("[Script Info]\n")  # mimetypes takes it for audio/aac
    done = asr("transcribe", calls, "--model", model)
    paths = [calls / "a.flac", calls / "b.wav", calls / "old" / "a.wav"]
    lines = [f"{path}\t{text}\n" for path, text in zip(paths, texts_of(model, paths), strict=True)]
    assert done == Outcome(0, "".join(lines), [f"asr: {calls}: left out, no audio by name: notes.txt, talk.ass"])


@pytest.mark.parametrize(("pattern", "names"), [("*.wav", ["b.wav"]), ("**/a.*", ["a.flac", "old/a.wav"])])
def test_files_matched_more_than_once_are_transcribed_once(
    model: Path, calls: Path, pattern: str, names: list[str]
) -> None:
    done = asr("transcribe", calls / pattern, calls / "b.wav", calls / pattern, "--model", model)
    found = [line.split("\t")[0] for line in done.out.splitlines()]
    expected = [str(calls / name) for name in dict.fromkeys([*names, "b.wav"])]
    assert (done.status, done.err) == (0, [])
    assert found == expected if len(expected) > 1 else "\t" not in done.out


def test_transcribe_into_files(model: Path, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts"
    paths = [calls / "a.flac", calls / "b.wav", calls / "old" / "a.wav"]
    done = asr("transcribe", *paths, "--model", model, "--out", out, "--format", "txt, json")
    assert done == Outcome(0, "", [])
    assert sorted(p.name for p in out.iterdir()) == [
        f"{n}.{kind}" for n in ("a.flac", "a.wav", "b") for kind in ("json", "txt")
    ]
    expected = texts_of(model, paths)
    assert [(out / f"{n}.txt").read_text() for n in ("a.flac", "b", "a.wav")] == [f"{text}\n" for text in expected]
    fields = json.loads((out / "a.wav.json").read_text())
    assert (fields["id"], fields["text"], fields["duration_s"]) == (str(paths[2]), expected[2], 0.3)


def test_each_bad_file_is_one_error_line_and_others_are_transcribed(
    model: Path, calls: Path, bad: list[Path], tmp_path: Path
) -> None:
    good = [calls / "b.wav", calls / "a.flac"]
    done = asr("transcribe", good[0], *bad, tmp_path / "no*.wav", good[1], "--model", model)
    lines = [f"{path}\t{text}\n" for path, text in zip(good, texts_of(model, good), strict=True)]
    assert done.out == "".join(lines)
    assert done.status == 1
    *named, last = done.err
    assert last == f"asr: {len(bad) + 1} of {len(bad) + 3} failed"
    assert len(named) == len(bad) + 1
    for path in [*bad, tmp_path / "no*.wav"]:
        assert [line.startswith(f"asr: {path}: ") for line in named].count(True) == 1, path


def test_each_unreadable_file_or_folder_is_one_error_line(calls: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        save_model_folder(folder / "model", small_model(max_tokens_per_s=500.0))
        for path in ("a.wav", "shut/b.wav", "good.wav"):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes((calls / "b.wav").read_bytes())
        expected = asr("transcribe", folder / "good.wav", "--model", folder / "model").out  # also imports everything
        (folder / "a.wav").chmod(0)
        (folder / "shut").chmod(0)
        with nobody():
            done = asr("transcribe", *(folder / n for n in ("a.wav", "shut", "good.wav")), "--model", folder / "model")
        (folder / "shut").chmod(0o755)
    assert done.out == f"{folder}/good.wav\t{expected}"
    assert [line.lower() for line in done.err] == [
        f"asr: {folder}/shut: permission denied".lower(),
        f"asr: {folder}/a.wav: permission denied".lower(),
        "asr: 2 of 3 failed",
    ]
    assert done.status == 1


@contextmanager
def nobody() -> Iterator[None]:
    """Run as an unprivileged user if root, who may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_search_options_take_effect(model: Path, calls: Path) -> None:
    words = ["transcribe", calls / "a.flac", "--model", model, "--format", "json"]
    scores = {
        json.loads(asr(*words, *options).out)["alternatives"][0]["score"]
        for options in ([], ["--beam-size", 4], ["--beam-size", 4, "--ctc-weight", 0.5])
    }
    assert len(scores) == 3


def test_json_contains_the_language(calls: Path, tmp_path: Path) -> None:
    save_model_folder(tmp_path / "m", small_model(["en", "es"], max_tokens_per_s=500.0))
    words = ["transcribe", calls / "b.wav", "--model", tmp_path / "m", "--format", "json"]
    found = {json.loads(asr(*words, *more).out)["language"] for more in (["--language", "en"], ["--language", "es"])}
    assert found == {"en", "es"}
    assert json.loads(asr(*words).out)["language"] in found


def test_length_cap_warning_is_one_line(calls: Path, tmp_path: Path) -> None:
    parts = small_model(max_tokens_per_s=0.1)
    save_model_folder(tmp_path / "m", parts)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = asr("transcribe", calls / "a.flac", "--model", tmp_path / "m")
    assert done.status == 0
    assert done.err == [f"asr: {calls}/a.flac: the text reached the length cap before it ended"]


def test_ctrl_c_prints_one_line_and_exits_with_130(model: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recognizer, "transcribe_sources", stop)
    assert asr("transcribe", calls / "b.wav", "--model", model) == Outcome(130, "", ["asr: stopped"])


# --- progress -----------------------------------------------------------------------------------------


def test_progress_bar_shows_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with terminal.progress("transcribing") as on_done:
        on_done(100.0, 1000.0)
    shown = capsys.readouterr().err
    assert "transcribing" in shown
    assert "100/1000 s, 5.0 times real time, 0:03:00 left" in shown


def test_progress_bar_goes_to_stderr(model: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = asr("transcribe", calls / "b.wav", "--model", model)
    assert done.out.splitlines() == texts_of(model, [calls / "b.wav"])
    assert "0:00:00 left" in "".join(done.err)


# --- the other commands -------------------------------------------------------------------------------


@pytest.fixture
def cuts(tmp_path: Path) -> Path:
    """A manifest of three recordings in two languages."""
    audio = noises(0.5, 1.2, 0.4)
    said = [("hello world", "en"), ("who", "es"), ("old", "en")]
    rows = [
        clip(tmp_path / f"{i}.wav", 0.2 * a.numpy(), text, language)
        for i, (a, (text, language)) in enumerate(zip(audio, said, strict=True))
    ]
    return manifest(tmp_path / "cuts.jsonl.gz", rows)


def test_evaluate_prints_the_same_report_as_score(model: Path, cuts: Path, tmp_path: Path) -> None:
    done = asr("evaluate", cuts, "--model", model, "--out", tmp_path / "out", "--worst", 1)
    assert done.status == 0
    assert done.out.startswith("3 utterances, normalizer basic\n")
    assert done.out.count("REF:") == done.out.count("HYP:") == 1
    assert "2.1 s of audio in" in done.err[-1]
    assert done.err[-1].endswith(f"texts in {tmp_path}/out/hyp.jsonl")
    scored = asr("score", cuts, tmp_path / "out" / "hyp.jsonl", "--normalizer", "basic", "--worst", 1)
    assert scored == Outcome(0, done.out, [])


def test_evaluate_as_json_in_one_language(model: Path, cuts: Path, tmp_path: Path) -> None:
    words = ["evaluate", cuts, "--model", model, "--out", tmp_path / "out", "--json"]
    found = json.loads(asr(*words, "--language", "en", "--normalizer", "none").out)
    assert (found["utterances"], found["normalizer"], found["audio_s"]) == (2, "none", 0.9)
    assert set(found["metrics"]) == {"wer", "cer"}


def test_score_as_json_with_a_single_metric(tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("hello big world\n")
    (tmp_path / "hyp").write_text("hello world\n")
    done = asr("score", tmp_path / "ref", tmp_path / "hyp", "--metric", "wer", "--json")
    assert json.loads(done.out)["metrics"]["wer"]["deletions"] == 1
    assert (done.status, done.err) == (0, [])
    assert "cer" not in json.loads(done.out)["metrics"]


def test_average_uses_the_best_states_and_spares_the_best_model(model: Path, tmp_path: Path) -> None:
    parts = load_model_folder(model)
    save_model_folder(tmp_path / "run" / "model", parts)
    names = [f"model.{name}" for name in parts.model.state_dict()]
    best = {2: 40.0, 3: 50.0}
    for step in (1, 2, 3):
        weights = [torch.full_like(w, float(step)) for w in parts.model.state_dict().values()]
        state = {"state_dict": dict(zip(names, weights, strict=True)), "callbacks": {"KeepStates": {"best": best}}}
        state |= {"optimizer_states": [], "loops": {}, "task": {}}
        save_state(tmp_path / "run" / "states" / f"step-{step:07d}.safetensors", state)
    (tmp_path / "run" / "states" / "step-0000004.safetensors").write_bytes(b"torn")
    done = asr("average", tmp_path / "run")
    assert "step-0000004.safetensors: not a safetensors file, or cut off; trying the one before" in done.err[0]
    assert (done.status, done.out) == (0, f"{tmp_path}/run/averaged: mean of step-0000002, step-0000003\n")
    averaged = load_model_folder(tmp_path / "run" / "averaged").model
    assert {float(w) for p in averaged.parameters() for w in p.detach().unique()} == {2.5}
    best = tmp_path / "run" / "model" / "model.safetensors"
    before = best.read_bytes()
    refused = asr("average", tmp_path / "run", "--out", tmp_path / "run" / "states" / ".." / "model")
    assert refused.status == 2
    assert "that is the best model of the run: name another folder" in refused.err[0]
    assert best.read_bytes() == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    for _ in range(2):  # a second average of the same run replaces the first
        assert asr("average", tmp_path / "run", "--out", tmp_path / "notes").status == 0
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    for run, out in ((tmp_path / "other", tmp_path / "notes"), (tmp_path / "run", tmp_path / "other" / "model")):
        before = (out / "model.safetensors").read_bytes()
        refused = asr("average", run, "--out", out)
        told = f"asr: --out {out}: there is another model already: remove it, or name another folder"
        assert refused == Outcome(2, "", [told])
        assert (out / "model.safetensors").read_bytes() == before


def test_imported_model_can_transcribe_and_is_not_overwritten(calls: Path, tmp_path: Path) -> None:
    source, out = whisper_folder(tmp_path / "ct2"), tmp_path / "imported"
    assert asr("import", source, out) == Outcome(0, f"{out}: ready; next: asr transcribe FILE --model {out}\n", [])
    assert asr("transcribe", calls / "b.wav", "--model", out).status == 0
    again = asr("import", source, out)
    assert again == Outcome(2, "", [f"asr: {out}: there is a model already: remove it, or name another folder"])


def test_config_schema_lists_required_keys() -> None:
    schema = json.loads(asr("config", "schema").out)
    assert set(schema["required"]) == {"out", "data", "trainer"}
    assert schema["additionalProperties"] is False


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """The YAML file of an experiment whose manifests do not exist."""
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(folder=tmp_path, train="train.jsonl", dev="dev.jsonl"))
    return path


def test_print_config_shows_the_full_config_without_training(experiment: Path, tmp_path: Path) -> None:
    done = asr("train", experiment, "optimizer.lr=2e-3", "--print-config")
    assert (done.status, done.err) == (0, [])
    shown = ExperimentConfig.model_validate(parse_yaml(done.out, "stdout"))
    assert shown == read_config(ExperimentConfig, experiment, ["optimizer.lr=2e-3"])
    assert shown.optimizer.lr == 0.002
    assert not (tmp_path / "run").exists()


def test_json_contains_the_n_best_list(model: Path, calls: Path) -> None:
    done = asr("transcribe", calls / "b.wav", "--model", model, "--format", "json", "--beam-size", 4, "--n-best", 3)
    assert done.status == 0
    found = json.loads(done.out)
    scores = [a["score"] for a in found["alternatives"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert found["alternatives"][0]["text"] == found["text"]


def test_version_is_printed() -> None:
    done = asr("--version")
    assert (done.status, done.out, done.err) == (0, f"asr {__version__}\n", [])


def test_progress_can_be_reported_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any speed the time left is unknown; an estimate would overflow."""
    times = iter([0.0, 60.0, 120.0])
    monkeypatch.setattr("asr.cli.terminal.time.monotonic", lambda: next(times))
    with terminal.progress("working") as on_done:
        on_done(0.0, 1e6)
        on_done(1.0, 1e6)
