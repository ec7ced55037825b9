"""The output of `asr transcribe` can be scored, in every format."""

from __future__ import annotations

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
