"""The commands of recipes/drama on tiny films of noise: from films with Chinese subtitles to a scored model."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pysubs2
import pytest
import soundfile
from command import Outcome, asr
from marks import needs_ffmpeg
from subtitled import RATE, LoudIsSpeech, bursts, conversation

from asr import vad
from asr.data.cuts import read_cuts

PAGE = Path(__file__).parents[1] / "recipes" / "drama" / "README.md"
TURNS = 16
SIMPLIFIED = ("软件很好", "我们来了", "台湾下雨了")
TRADITIONAL = ("軟體很好", "我們來了", "臺灣下雨了")
SMALL = ["model.encoder.dim=16"]
SMALL += [
    f"model.{part}.{size}" for part in ("encoder", "decoder") for size in ("layers=1", "heads=2", "feed_forward=16")
]
SMALL += ["data.workers=0", "trainer.max_steps=2", "trainer.step_log=true", "trainer.plot_utterances=0"]
SMALL += ["trainer.device=cpu", "trainer.precision=fp32", "decode.beam_size=1"]


def film(path: Path, seed: int) -> list[tuple[float, float]]:
    """Write a film without pictures, with noise as speech; return start and end of each turn in seconds."""
    speech = conversation(TURNS, seed, lead_s=5)
    sound = path.with_suffix(".wav")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(sound, bursts(speech, speech[-1][1] + 5), RATE)
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-i", sound, "-c:a", "pcm_s16le", path], check=True)
    sound.unlink()
    return speech


def subtitle(path: Path, speech: list[tuple[float, float]], texts: tuple[str, ...]) -> None:
    """Write subtitles in the format of the suffix, 2 s late."""
    cues = pysubs2.SSAFile()
    for i, (start_s, end_s) in enumerate(speech):
        start, end = (pysubs2.make_time(s=at_s + 2) for at_s in (start_s, end_s))
        cues.append(pysubs2.SSAEvent(start, end, texts[i % len(texts)]))
    cues.save(str(path), encoding="utf-8")


def run(block: str) -> list[Outcome]:
    """Run a block's `asr` commands in this process, with the words that the shell makes of them."""
    noted = subprocess.run(
        ["bash", "-c", f'asr() {{ printf "%q " "$@"; echo; }}\n{block}'], capture_output=True, text=True
    )
    assert noted.returncode == 0, noted.stderr
    done = [asr(*shlex.split(line)) for line in noted.stdout.splitlines()]
    assert done
    assert [each.status for each in done] == [0] * len(done), done
    return done


@needs_ffmpeg
def test_the_commands_of_the_page_lead_from_films_to_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "load_detector", LoudIsSpeech)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^(?: {4}.*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    films, cutting, converting, experiment, training, scoring = map(dedent, blocks)
    for seed, row in enumerate(films.splitlines()):
        name, subtitles = row.split()
        speech = film(Path(name), seed)
        if seed == 0:  # this one has to be converted
            subtitle(Path(subtitles.replace("zh-TW", "zh-CN")), speech, SIMPLIFIED)
        else:
            subtitle(Path(subtitles), speech, TRADITIONAL)
    python = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", converting], env=os.environ | {"PATH": python}, check=True)
    assert not list(Path("drama").rglob("*.zh-CN.*"))

    run(cutting)
    for split, count in (("train", 2), ("dev", 1), ("test", 1)):
        cuts = list(read_cuts(Path("data/drama") / split / "cuts.jsonl.gz"))
        assert len(cuts) == count * TURNS
        said = [cut.supervisions[0] for cut in cuts]
        assert {one.language for one in said} == {"nan"}
        assert {one.custom["translations"]["zh-TW"] for one in said} == set(TRADITIONAL)

    assert experiment.startswith("# drama.yaml\n")
    Path("drama.yaml").write_text(experiment, encoding="utf-8")
    run(f"{training.strip()} {shlex.join(SMALL)}")
    steps = [json.loads(line) for line in Path("exp/drama/steps.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    (scored,) = run(scoring)
    assert f"{TURNS} utterances" in scored.out
    assert all(measure in scored.out for measure in ("CER", "BLEU", "chrF"))
