"""Comparing runs: finding their folders, checking their references, and showing settings that differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command import asr
from models import noises, small_model
from synthetic import clip, manifest

from asr.checkpoint import save_model_folder
from asr.errors import ConfigError, DataError
from asr.evaluate import evaluate
from asr.recognizer import Recognizer
from asr.runs import RunComparison, compare_runs, find_run
from asr.scoring import ScoreOptions, compare

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")

SAID = {"u1": "the cat sat", "u2": "on the mat", "u3": "all day long"}


def run(folder: Path, heard: dict[str, str], said: dict[str, str] | None = None, **config: Any) -> Path:
    """Write a folder as training leaves it."""
    folder.mkdir(parents=True)
    rows = [{"id": id, "text": heard[id], "reference": text, "language": None} for id, text in (said or SAID).items()]
    (folder / "hyp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "experiment.yaml").write_text(json.dumps({"out": str(folder), "normalizer": "basic", **config}))
    return folder


def compared(paths: Sequence[Path], options: ScoreOptions, **given: Any) -> RunComparison:
    return compare_runs([find_run(path) for path in paths], options, **given)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    first = run(tmp_path / "a", {**SAID, "u1": "a cat sat"}, optimizer={"lr": 0.1, "warmup_steps": 5})
    second = run(tmp_path / "b", {**SAID, "u1": "a dog sat"}, optimizer={"lr": 0.2, "warmup_steps": 5}, seed=1)
    return first, second


def test_comparison_of_runs_equals_that_of_their_files(two: tuple[Path, Path]) -> None:
    found = compared(two, ScoreOptions())
    reference = two[0].parent / "ref"
    reference.write_text("".join(f"{id} {text}\n" for id, text in SAID.items()))
    files = compare(reference, [path / "hyp.jsonl" for path in two], ScoreOptions(normalizer="basic"))
    for ours, theirs in zip(found.scores.reports, files.reports, strict=True):
        assert {**ours.as_dict(), "form": None} == {**theirs.as_dict(), "form": None}
    assert [c.difference for c in found.scores.contests()] == [c.difference for c in files.contests()]
    assert [r.values["wer"] for r in found.scores.reports] == [pytest.approx(1 / 9), pytest.approx(2 / 9)]


def test_run_folder_is_scored_like_its_hypothesis_file(two: tuple[Path, Path]) -> None:
    files = [path / "hyp.jsonl" for path in two]
    done = asr("score", *two)
    assert (done.status, done.err) == (0, [])
    assert done.out == asr("score", *files).out
    page = two[0].parent / "page"
    assert asr("report", files[0], two[1], "--out", page).status == 0
    assert (page / "report.html").exists()
    done = asr("score", files[0], page)
    assert done.err == [f"asr: {page}: has no hyp.jsonl; asr evaluate MANIFEST --model MODEL --out FOLDER writes one"]


def test_differing_settings_are_shown(two: tuple[Path, Path]) -> None:
    done = asr("compare", *two)
    assert (done.status, done.err) == (0, [])
    lines = done.out.splitlines()
    assert lines[0] == "3 utterances, normalizer basic"
    assert any(line.startswith(f"{two[1]} against {two[0]}: WER +11.11 points") for line in lines)
    assert [line.split(maxsplit=1) for line in lines[-3:]] == [
        ["settings", f"{two[0]} | {two[1]}"],
        ["optimizer.lr", "0.1 | 0.2"],
        ["seed", "- | 1"],
    ]
    found = json.loads(asr("compare", *two, "--json").out)
    assert found["settings_that_differ"]["optimizer.lr"] == {str(two[0]): 0.1, str(two[1]): 0.2}
    assert found["contests"][0]["metric"] == "wer"


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({**SAID, "u2": "on a mat"}, r"are not of the same references: 1 id \(u2\) with another reference$"),
        ({k: v for k, v in SAID.items() if k != "u3"}, r"references: 1 id \(u3\) only in .*a$"),
        ({**SAID, "u4": ""}, r"references: 1 id \(u4\) only in .*c$"),
    ],
)
def test_differing_references_are_reported_in_one_line(
    two: tuple[Path, Path], tmp_path: Path, said: dict[str, str], says: str
) -> None:
    other = run(tmp_path / "c", said, said)
    with pytest.raises(DataError, match=says) as caught:
        compared([two[0], other], ScoreOptions())
    assert "\n" not in str(caught.value)


def test_references_are_compared_after_normalisation(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Training writes its targets, evaluation the texts of the manifest."""
    loud = run(tmp_path / "c", SAID, {id: text.upper() + "!" for id, text in SAID.items()})
    assert compared([two[0], loud], ScoreOptions()).scores.reports[1].rates["wer"].errors == 0
    with pytest.raises(DataError, match=r"3 ids \(u1, u2, u3\) with another reference"):
        compared([two[0], loud], ScoreOptions(), normalizer="none")


def test_invalid_comparisons_are_reported(two: tuple[Path, Path], tmp_path: Path) -> None:
    other = run(tmp_path / "c", SAID, score_normalizer="english")
    with pytest.raises(ConfigError, match=r"different normalisers \(.*a: basic, .*c: english\); choose one"):
        compared([two[0], other], ScoreOptions())
    assert asr("compare", two[0], other, "--normalizer", "none").status == 0
    with pytest.raises(ConfigError, match="tcwer needs the times of the reference words"):
        compared(two, ScoreOptions(metrics=["tcwer"]))
    torn = run(tmp_path / "torn", SAID)
    (torn / "experiment.yaml").write_bytes(b"\xff")
    for paths, says in (
        ([two[0], torn], "torn/experiment.yaml: cannot be read as UTF-8 text"),
        ([two[0]], "at least two runs"),
        ([two[0], two[0]], "given twice"),
        ([two[0], two[0] / "hyp.jsonl"], "given twice"),
        ([two[0], tmp_path], "has no hyp.jsonl; asr evaluate MANIFEST"),
        ([two[0], tmp_path / "none"], "none: no such file or folder"),
    ):
        done = asr("compare", *paths)
        assert done.status == 2
        assert says in done.err[0]
        assert len(done.err) == 1


def test_translations_are_compared_by_bleu_and_chrf(two: tuple[Path, Path], tmp_path: Path) -> None:
    def translated(name: str, *tasks: str) -> Path:
        folder = run(tmp_path / name, SAID)
        rows = [json.loads(line) for line in (folder / "hyp.jsonl").read_text().splitlines()]
        noted = [{**row, "task": task} if task else row for row, task in zip(rows, tasks, strict=True)]
        (folder / "hyp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in noted))
        return folder

    first, second = translated("c", *["translate:de"] * 3), translated("d", "translate:de", *["translate:en"] * 2)
    mixed = translated("e", "translate:de", "", "")
    for runs, words, metrics in (
        ([first, second], [], ["bleu", "chrf"]),
        ([first, second], ["--metric", "wer"], ["wer"]),
        ([first, mixed], [], ["wer", "cer"]),
        ([first, two[0]], [], ["wer", "cer"]),
    ):
        found = json.loads(asr("compare", *runs, *words, "--json").out)
        assert list(found["systems"][0]["metrics"]) == metrics
    (second / "parts").mkdir()
    (second / "parts" / "000000000-000000003.00000000.part").write_text('{"task": "translate"}\n')
    (second / "hyp.jsonl").write_text((two[1] / "hyp.jsonl").read_text())
    assert find_run(second).task == "translate"


def test_hypotheses_without_references_need_a_reference_file(two: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder as the transcription of a corpus leaves it, with the settings in its parts."""
    folder = tmp_path / "corpus"
    (folder / "parts").mkdir(parents=True)
    (folder / "hyp.jsonl").write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in SAID.items()))
    (folder / "parts" / "000000000-000000003.00000000.part").write_text('{"dtype": "int8"}\n0\tdone\t{}\n')
    with pytest.raises(DataError, match=r"corpus/hyp.jsonl holds no reference texts; give some"):
        compared([two[0], folder], ScoreOptions())
    reference = tmp_path / "ref.txt"
    reference.write_text("".join(f"{id} {text}\n" for id, text in SAID.items()))
    found = compared([two[0], folder], ScoreOptions(), reference=reference)
    assert found.scores.reports[1].values["wer"] == 0
    assert found.differences["transcribe.dtype"] == [None, "int8"]


def test_evaluations_record_their_decode_settings(tmp_path: Path) -> None:
    """And, if the model comes from a run, its training settings."""
    save_model_folder(tmp_path / "run" / "model", small_model())
    (tmp_path / "run" / "experiment.yaml").write_text("seed: 7\n")
    cuts = manifest(
        tmp_path / "cuts.jsonl",
        [clip(tmp_path / f"{i}.wav", 0.2 * a.numpy(), "hello") for i, a in enumerate(noises(0.4, 0.5))],
    )
    for beam in (1, 2):
        words = ["--beam-size", beam, "--out", tmp_path / f"beam{beam}"]
        assert asr("evaluate", cuts, "--model", tmp_path / "run" / "model", *words).status == 0
    found = compared([tmp_path / "beam1", tmp_path / "beam2"], ScoreOptions())
    assert found.differences == {"evaluate.decode.beam_size": [1, 2]}
    assert found.runs[0].settings["seed"] == 7
    assert found.runs[0].normalizer == "basic"
    evaluate(Recognizer(small_model()), cuts, tmp_path / "run" / "model")
    assert find_run(tmp_path / "run").settings["seed"] == 7  # the default output folder, inside the run


def test_settings_are_only_those_of_the_models_own_run(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model_folder(two[0] / "model", small_model())
    cuts = manifest(tmp_path / "cuts.jsonl", [clip(tmp_path / "0.wav", 0.2 * noises(0.4)[0].numpy(), "hello")])
    monkeypatch.chdir(two[0])
    assert asr("evaluate", cuts, "--model", "model", "--out", tmp_path / "own").status == 0
    named = run(tmp_path / "named", SAID)
    (named / "evaluation.jsonl").write_text(json.dumps({"settings": {"model": "whisper-tiny.en"}}))
    assert find_run(named).settings == {"evaluate.model": "whisper-tiny.en"}  # nothing of the current folder's run
    monkeypatch.chdir(tmp_path)
    assert find_run(tmp_path / "own").settings["optimizer.lr"] == 0.1
    texts = run(two[0] / "texts", SAID)
    (texts / "experiment.yaml").unlink()
    (texts / "parts").mkdir()
    assert find_run(texts).settings == {}
    assert find_run(texts).normalizer is None
