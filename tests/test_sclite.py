"""The same files scored by NIST's sclite (Debian package sctk): the same errors, the same verdict."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asr.scoring import ScoreOptions, compare, score

SCLITE = [["sclite"]] * bool(shutil.which("sclite")) + [["sctk", "sclite"]] * bool(shutil.which("sctk"))
pytestmark = pytest.mark.skipif(not SCLITE, reason="sclite is not installed (Debian: apt-get install sctk)")
WORDS = [a + b + c for a in "bdfgklm" for b in "aeiou" for c in "nprstvz"]


@pytest.fixture
def draw() -> random.Random:
    return random.Random(1)


def noisy(draw: random.Random, words: list[str], share: float) -> list[str]:
    found: list[str] = []
    for word in words:
        lot = draw.random() / share
        found += [draw.choice(WORDS)] if lot < 1 else [] if lot < 1.6 else [word, word] if lot < 2 else [word]
    return found


def sclite(folder: Path, *words: str, name: str = "hyp") -> tuple[int, int]:
    """Return the total words and errors in its raw report; its alignments go to name.sgml."""
    kind = ["-i", "spu_id"] if "trn" in words else []
    command = [*SCLITE[0], *words, name, *kind, "-n", name, "-O", ".", "-o", "rsum", "sgml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    (row,) = (row for row in (folder / f"{name}.raw").read_text().splitlines() if re.match(r"\s*\| Sum ", row))
    numbers = [int(n) for n in re.findall(r"\d+", row)]
    return numbers[1], numbers[6]


def trn(path: Path, texts: list[list[str]]) -> Path:
    path.write_text("".join(f"{' '.join(text)} (spk{i % 7}-{i})\n" for i, text in enumerate(texts)))
    return path


def test_errors_and_mapsswe_of_two_systems_equal_those_of_sclite(tmp_path: Path, draw: random.Random) -> None:
    refs = [draw.choices(WORDS, k=draw.randint(0, 20)) for _ in range(1000)]
    assert sum(not ref for ref in refs) > 10
    hyps = {"a": [noisy(draw, ref, 0.05) for ref in refs], "b": [noisy(draw, ref, 0.06) for ref in refs]}
    for number in range(0, 1000, 50):
        hyps["a"][number] = []
    ref = trn(tmp_path / "ref.trn", refs)
    paths = {name: trn(tmp_path / f"{name}.trn", texts) for name, texts in hyps.items()}
    found = compare(ref, list(paths.values()), ScoreOptions(metrics=["wer"]))
    for report, name in zip(found.reports, hyps, strict=True):
        rate = report.rates["wer"]
        files = ("-r", "ref.trn", "trn", "-h", f"{name}.trn", "trn")
        assert sclite(tmp_path, *files, name=name) == (rate.reference_length, rate.errors)
    (contest,) = found.contests()
    assert contest.mapsswe is not None
    if not shutil.which("sctk"):
        return
    alignments = b"".join((tmp_path / f"{name}.sgml").read_bytes() for name in hyps)
    words = ["sctk", "sc_stats", "-p", "-t", "mapsswe", "-u", "-n", "both"]
    subprocess.run(words, cwd=tmp_path, input=alignments, check=True, capture_output=True, timeout=60)
    verdict = re.search(r"~\s+(0\.\d+)", (tmp_path / "both.stats.unified").read_text())
    assert verdict is not None
    assert contest.mapsswe.p == pytest.approx(float(verdict[1]), abs=0.02)  # alignments may differ in ties


def test_words_assigned_by_time_are_scored_as_by_sclite(tmp_path: Path, draw: random.Random) -> None:
    """Segments with gaps, and words anywhere: some across segment ends, some in segments that are not scored."""
    stm, ctm = [], []
    for file in ("f", "g"):
        at_s = 0.0
        for number in range(100):
            end_s = at_s + draw.choice([0.5, 1.0, 3.0])
            ignored = number % 10 == 5
            text = "IGNORE_TIME_SEGMENT_IN_SCORING" if ignored else " ".join(WORDS[number : number + 4])
            stm.append(f"{file} 1 spk {at_s:.2f} {end_s:.2f} {text}")
            for word in WORDS[number : number + 4]:
                ctm.append((file, draw.uniform(at_s - 0.1, end_s + 0.1), draw.choice([0.1, 0.3]), word))
            at_s = end_s + draw.choice([0.0, 0.0, 0.7])
    ctm.sort()
    (tmp_path / "ref.stm").write_text("".join(f"{row}\n" for row in stm))
    (tmp_path / "hyp.ctm").write_text("".join(f"{f} 1 {max(0, s):.3f} {d} {w}\n" for f, s, d, w in ctm))
    rate = score(tmp_path / "ref.stm", tmp_path / "hyp.ctm", metrics=["wer"]).rates["wer"]
    assert rate.errors > 100
    assert sclite(tmp_path, "-r", "ref.stm", "stm", "-h", "hyp.ctm", "ctm") == (rate.reference_length, rate.errors)
