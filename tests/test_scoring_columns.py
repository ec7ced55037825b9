"""Which columns and keys hold ids and texts when the caller does not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asr.errors import DataError
from asr.metrics import ErrorRate
from asr.scoring import Columns, score
from asr.scoring.formats import open_texts


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_reference_field_takes_precedence_over_recognized_text(tmp_path: Path) -> None:
    one = jsonl(tmp_path / "a.jsonl", {"id": "u", "text": "the hat sat", "reference": "the cat sat"})
    two = jsonl(tmp_path / "b.jsonl", {"id": "u", "text": "the cat sat", "reference": "the cat sat"})
    assert score(one, one).rates["wer"] == ErrorRate(hits=2, substitutions=1)
    assert score(one, two).rates["wer"] == ErrorRate(hits=3)
    assert score(two, one).rates["wer"] == ErrorRate(hits=2, substitutions=1)


def test_first_line_determines_the_keys_of_all_lines(tmp_path: Path) -> None:
    rows = {"id": "u", "text": "a", "reference": "b"}, {"id": "v", "text": "c"}
    path = jsonl(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError, match=r'a\.jsonl:2: needs "id" and "reference" as strings'):
        score(path, path)


def test_nemo_manifest(tmp_path: Path) -> None:
    row = {"audio_filepath": "/data/x/u1.wav", "duration": 2.0, "text": "the cat", "pred_text": "the hat"}
    path = jsonl(tmp_path / "a.jsonl", row)
    assert score(path, path).rates["wer"] == ErrorRate(hits=1, substitutions=1)
    assert [row.id for row in open_texts(path).rows()] == ["u1"]
    whole = open_texts(path, columns=Columns(id="audio_filepath"))
    assert [row.id for row in whole.rows()] == ["/data/x/u1.wav"]


def test_common_voice_table(tmp_path: Path) -> None:
    table = tmp_path / "test.tsv"
    table.write_text("client_id\tpath\tsentence\nabc\tcommon_voice_en_1.mp3\tThe cat\n")
    hyp = jsonl(tmp_path / "hyp.jsonl", {"id": "common_voice_en_1", "transcription": "The cat"})
    assert score(table, hyp).rates["wer"] == ErrorRate(hits=2)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_column_separator_is_detected_from_the_first_line(tmp_path: Path, mark: str) -> None:
    table = tmp_path / "a.csv"
    table.write_text(f'id{mark}text{mark}hyp\nu{mark}"the{mark} cat"{mark}"the, cat; sat"\n')
    assert score(table, table, normalizer="basic").rates["wer"] == ErrorRate(hits=2, insertions=1)
