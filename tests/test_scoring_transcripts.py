"""The output of `asr transcribe` can be scored, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.metrics import ErrorRate
from asr.scoring import score
from asr.subtitles import SubtitleOptions
from asr.transcript import Segment, Transcript
from asr.writers import WRITERS

PARTS = ("The cat sat", "on a mat.")


def transcript(id: str, *parts: str) -> Transcript:
    """Return the transcript of a recording in which each part takes a second."""
    said = tuple(Segment(text=f" {part}", start_s=float(n), end_s=n + 1.0) for n, part in enumerate(parts))
    return Transcript(id=id, text=" ".join(parts), duration_s=float(len(parts)), language="en", segments=said)


def write(path: Path, *transcripts: Transcript) -> Path:
    path.write_text("".join(WRITERS[path.suffix[1:]](each, SubtitleOptions()) for each in transcripts))
    return path


@pytest.mark.parametrize("form", WRITERS)
def test_one_recording_against_plain_text(tmp_path: Path, form: str) -> None:
    hyp = write(tmp_path / f"talk.{form}", transcript("calls/talk.mp3", *PARTS))
    ref = tmp_path / "said.txt"
    ref.write_text("The cat sat on the mat.\n")
    assert score(ref, hyp).rates["wer"] == ErrorRate(hits=5, substitutions=1)
    assert score(hyp, ref).rates["wer"] == ErrorRate(hits=5, substitutions=1)
    assert score(hyp, hyp).rates["wer"] == ErrorRate(hits=6)
    if form != "txt":
        ref.write_text("The cat sat\non the mat.\n")
        assert score(ref, hyp).rates["wer"] == ErrorRate(hits=5, substitutions=1)


def test_recordings_are_matched_by_file_stem(tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp.json", transcript("calls/a_1.mp3", "yes"), transcript("calls/a_2.mp3", "no"))
    ref = tmp_path / "ref.txt"
    ref.write_text("a_2 no\na_1 yes\n")
    assert score(ref, hyp).rates["wer"] == ErrorRate(hits=2)
    one = write(tmp_path / "one.json", transcript("calls/a_1.mp3", "yes"))
    trn = tmp_path / "ref.trn"
    trn.write_text("yes (a_1)\n")
    assert score(trn, one).rates["wer"] == ErrorRate(hits=1)
    with pytest.raises(DataError, match=r"one\.json lacks 1 id \(a_2\)"):
        score(ref, one)


def test_paths_match_ids_by_their_stems_in_any_file(tmp_path: Path) -> None:
    """hyp.jsonl of a list of paths has these as ids."""
    hyp = write(tmp_path / "hyp.json", transcript("calls/a_1.wav", "yes"), transcript("calls/a_2.wav", "no"))
    hyp = hyp.rename(tmp_path / "hyp.jsonl")
    ref = tmp_path / "ref.txt"
    ref.write_text("a_2 no\na_1 yes\n")
    assert score(ref, hyp).rates["wer"] == ErrorRate(hits=2)
    assert score(hyp, ref).rates["wer"] == ErrorRate(hits=2)
    ref.write_text("a_2 no\na_3 yes\n")
    with pytest.raises(DataError, match=r"lacks 1 id \(a_3\) of .* has 1 id \(calls/a_1.wav\) that"):
        score(ref, hyp)
    ref.write_text("calls/a_1.wav yes\na_2 no\n")
    with pytest.raises(DataError, match=r"lacks 1 id \(a_2\) of .* has 1 id \(calls/a_2.wav\) that"):
        score(ref, hyp)  # some ids are the same, so the others differ for another reason


def test_stems_that_are_not_unique_match_nothing(tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp.json", transcript("en/a_1.wav", "yes"), transcript("fr/a_1.wav", "no"))
    ref = tmp_path / "ref.txt"
    ref.write_text("a_1 no\n")
    with pytest.raises(DataError, match=r"lacks 1 id \(a_1\) of .* has 2 ids \(en/a_1.wav, fr/a_1.wav\) that"):
        score(ref, hyp)
    for one, other in (("talk.1", "talk.2"), ("en/a_1", "a_1")):  # no files
        with pytest.raises(DataError, match="lacks 1 id"):
            score({one: "yes"}, {other: "yes"})


def test_the_json_of_openai_whisper_has_the_id_of_its_file(tmp_path: Path) -> None:
    hyp = tmp_path / "a_1.json"
    hyp.write_text(json.dumps({"text": " yes", "segments": [{"id": 0, "text": " yes"}], "language": "en"}))
    ref = tmp_path / "ref.txt"
    for text in ("a_1 yes\n", "yes\n"):
        ref.write_text(text)
        assert score(ref, hyp).rates["wer"] == ErrorRate(hits=1)
    hyp.write_text(2 * '{"text": "yes"}\n')
    with pytest.raises(DataError, match="none of the keys id, "):
        score(ref, hyp)


def test_ids_in_json_may_be_numbers(tmp_path: Path) -> None:
    hyp = tmp_path / "hyp.jsonl"
    hyp.write_text('{"id": 1, "text": "yes"}\n')
    assert score({1: "yes"}, hyp).rates["wer"] == ErrorRate(hits=1)  # type: ignore[dict-item]
