"""Names of output files below --out, and which recordings are skipped or protected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from command import Outcome, asr
from models import RATE, noises, small_model

from asr.checkpoint import save_model_folder
from asr.cli.naming import other_recording, output_names
from asr.errors import ConfigError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model_folder(folder, small_model())
    return folder


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    folder = tmp_path / "calls"
    (folder / "mon").mkdir(parents=True)
    for name, seconds in (("a.wav", 0.3), ("a.flac", 0.4), ("b.wav", 0.5), ("mon/b.wav", 0.6)):
        soundfile.write(folder / name, noises(seconds)[0].numpy(), RATE)
    return folder


def below(folder: Path) -> dict[str, str]:
    """Return the contents of all files below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_output_names_keep_the_suffix_only_if_they_collide() -> None:
    places = {"c/x.wav": "x.wav", "c/x.mp3": "x.mp3", "c/m/x.wav": "m/x.wav", "c/y.b.ogg": "y.b.ogg", "-": "-"}
    names = ["x.wav", "x.mp3", "m/x", "y.b", "-"]
    assert output_names(places) == dict(zip(places, names, strict=True))
    third = output_names({"x.wav": "x.wav", "x.mp3": "x.mp3", "x.wav.ogg": "x.wav.ogg"})
    assert sorted(third.values()) == ["x.mp3", "x.wav", "x.wav.ogg"]


def test_recordings_with_the_same_output_name_are_refused() -> None:
    says = "a/x.wav and b/x.wav would both be written as x.wav: give the folder above them"
    with pytest.raises(ConfigError, match=says):
        output_names({"a/x.wav": "x.wav", "b/x.wav": "x.wav"})


def test_names_that_are_too_long_are_shortened() -> None:
    places = {"a": f"{'m' * 250}/{'x' * 251}.wav", "b": "y" * 241, "c": "z" * 236 + ".wav"}
    assert list(output_names(places).values()) == [f"{'m' * 250}/{'x' * 240}", "y" * 240, "z" * 236]
    with pytest.raises(ConfigError, match="would both be written as"):
        output_names({"a": f"{'x' * 250}.wav", "b": f"{'x' * 250}.mp3"})


def test_folders_are_mirrored_and_names_stay_until_they_no_longer_collide(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert asr("transcribe", calls, "--model", model, "--out", out).status == 0
    before = below(out)
    assert list(before) == ["a.flac.txt", "a.wav.txt", "b.txt", "mon/b.txt"]
    (calls / "b.wav").unlink()
    assert asr("transcribe", calls, "--model", model, "--out", out).status == 0
    assert below(out) == before
    (calls / "a.wav").unlink()
    assert asr("transcribe", calls, "--model", model, "--out", out).status == 0
    assert below(out) == before | {"a.txt": before["a.flac.txt"]}


def test_output_is_not_overwritten_if_its_json_names_another_recording(
    model: Path, calls: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # its own text is replaced
        done = asr("transcribe", calls / "a.wav", "--model", model, "--out", out, "--format", "txt,json")
        assert done == Outcome(0, "", [])
    before = below(out)
    done = asr("transcribe", calls / "a.flac", calls / "b.wav", "--model", model, "--out", out)
    problem = f"{calls}/a.flac: {out}/a.json is of {calls}/a.wav; move it or give another --out"
    assert (done.status, done.err) == (1, [f"asr: {problem}", "asr: 1 of 2 failed"])
    assert {name: text for name, text in below(out).items() if name != "b.txt"} == before


def test_other_recording_is_an_existing_file_named_in_the_json(tmp_path: Path) -> None:
    for name in ("mon", "tue"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").touch()
    mon, tue = str(tmp_path / "mon" / "x.wav"), str(tmp_path / "tue" / "x.wav")
    told = tmp_path / "x.json"
    told.write_text(json.dumps({"id": mon}))
    assert other_recording(tmp_path, "x", mon) is None
    assert other_recording(tmp_path, "x", tue) == mon
    assert other_recording(tmp_path, "y", tue) is None
    for text in ('{"id": "elsewhere/x.wav"}', '{"id": 3}', "[]", "no"):
        told.write_text(text)
        assert other_recording(tmp_path, "x", tue) is None


def test_explicitly_named_file_is_transcribed_whatever_its_suffix(model: Path, calls: Path) -> None:
    alone = asr("transcribe", calls / "b.wav", "--model", model)
    (calls / "b.wav").rename(calls / "b.part")
    assert asr("transcribe", calls / "b.part", "--model", model) == alone


def test_a_list_among_audio_files_is_skipped_with_an_error(model: Path, calls: Path) -> None:
    (calls / "notes.txt").write_text("remember\n")
    alone = asr("transcribe", calls / "b.wav", "--model", model).out
    done = asr("transcribe", calls / "b.wav", calls / "notes.txt", "--model", model)
    problem = f"{calls}/notes.txt: left out: a manifest or list is transcribed alone"
    assert done == Outcome(1, f"{calls}/b.wav\t{alone}", [f"asr: {problem}", "asr: 1 of 2 failed"])


def test_skip_existing_skips_recordings_with_complete_output(model: Path, calls: Path, tmp_path: Path) -> None:
    options = ["--model", model, "--out", tmp_path / "out", "--format", "txt,json", "--skip-existing"]

    def skipped() -> list[str]:
        done = asr("transcribe", calls, *options)
        assert (done.status, done.out) == (0, "")
        return [line for line in done.err if "their files are there" in line]

    assert skipped() == []
    before = below(tmp_path / "out")
    (tmp_path / "out" / "b.txt").unlink()
    stopped = tmp_path / "out" / "mon" / "b.json"
    stopped.write_text(stopped.read_text().replace('"complete": true', '"complete": false'))
    assert skipped() == ["asr: 2 of 4 left out: their files are there"]
    assert below(tmp_path / "out") == before
    assert skipped() == ["asr: 4 of 4 left out: their files are there"]
    assert asr("transcribe", calls, "--skip-existing").err == [
        "asr: --skip-existing needs --out, the folder to look in"
    ]
