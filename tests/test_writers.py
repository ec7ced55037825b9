"""Transcripts on standard output and in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.errors import ConfigError
from asr.transcript import Transcript
from asr.writers import WRITERS, TranscriptWriter


def said(id: str, text: str = "hello") -> Transcript:
    """A transcript with something in every field."""
    return Transcript(id, text, 1.5, "en", alternatives=((text, -0.25), ("hallo", -1.0)), truncated=True)


def written(folder: Path) -> dict[str, str]:
    """What lies in a folder, hidden files too."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}


def test_one_text_on_standard_output_is_the_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    TranscriptWriter(["txt"]).write(said("calls/a.wav", "¿qué tal?"))
    assert capsys.readouterr().out == "¿qué tal?\n"


def test_one_of_several_texts_begins_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    writer = TranscriptWriter(["txt"], named=True)
    writer.write(said("calls/a.wav", "one"))
    assert capsys.readouterr().out == "calls/a.wav\tone\n", "each is written at once"
    writer.write(said("calls/odd\n.wav", ""))
    assert capsys.readouterr().out == "calls/odd\\n.wav\t\n"


def test_json_holds_every_field_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_file_for_each_recording_and_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "texts"
    writer = TranscriptWriter(["txt", "json"], folder)
    writer.write(said("calls/a.b.wav"))
    writer.write(said("c"))
    files = written(folder)
    assert sorted(files) == ["a.b.json", "a.b.txt", "c.json", "c.txt"]
    assert files["a.b.txt"] == "hello\n"
    assert json.loads(files["c.json"])["id"] == "c"
    assert capsys.readouterr().out == ""


def test_recordings_of_the_same_name_get_numbers(tmp_path: Path) -> None:
    writer = TranscriptWriter(["txt", "json"], tmp_path)
    ids = ["x/a.wav", "y/a.wav", "a-2.wav", "a.mp3", "b.wav"]
    for id in ids:
        writer.write(said(id, id))
    files = written(tmp_path)
    assert sorted(text for name, text in files.items() if name.endswith(".txt")) == sorted(f"{id}\n" for id in ids)
    assert [files[f"{name}.txt"] for name in ("a", "a-2", "a-3")] == ["x/a.wav\n", "y/a.wav\n", "a.mp3\n"]
    for name, text in files.items():
        stem, _, kind = name.rpartition(".")
        assert kind == "txt" or json.loads(text)["text"] + "\n" == files[f"{stem}.txt"]


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    writer = TranscriptWriter(["txt", "json"], tmp_path)
    writer.write(said("caf\udce9.wav"))
    assert sorted(written(tmp_path)) == ["caf\udce9.json", "caf\udce9.txt"]
    assert json.loads((tmp_path / "caf\udce9.json").read_text(encoding="utf-8"))["id"] == "caf\udce9.wav"


@pytest.mark.parametrize(
    ("formats", "says"), [(["txt", "srt"], "unknown format 'srt': known are txt, json"), ([], "no")]
)
def test_an_unknown_format_is_an_error_before_anything_is_made(tmp_path: Path, formats: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TranscriptWriter(formats, tmp_path / "texts")
    assert written(tmp_path) == {}


def test_a_folder_that_cannot_be_one_shows_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"is a file, not a folder: .*file") as caught:
        TranscriptWriter(["txt"], tmp_path / "file")
    assert caught.value.filename == str(tmp_path / "file")


def test_nothing_is_written_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TranscriptWriter(["txt"], tmp_path).write(said("a", "old"))
    monkeypatch.setitem(WRITERS, "txt", lambda transcript: "x" * 100_000 + "\ud800")  # no UTF-8 for its end
    for id in ("a", "b"):
        with pytest.raises(UnicodeEncodeError):
            TranscriptWriter(["txt"], tmp_path).write(said(id))
    assert written(tmp_path) == {"a.txt": "old\n"}
