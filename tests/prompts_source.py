"""Small source data for the tests of the prompts recipe, and a runner for its command line."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut
from typer.testing import CliRunner

from recipes.preparing import SPLITS
from recipes.prompts import corpus
from recipes.prompts import prepare as recipe

ROOT = Path(__file__).parents[1]
RATE = 8000
MANIFESTS = [f"cuts_{split}.jsonl.gz" for split in SPLITS]
# Two prompt ids that fall into each split.
TRAIN, DEV, TEST = (
    ("agent-user", "digits/1"),
    ("agent-incorrect", "astcc-followed-by-the-pound-key"),
    ("added", "digits/0"),
)
PROMPTS = (*TRAIN, *DEV, *TEST)


def wav(path: Path, hertz: float, *, samples: int = 800, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_N = np.arange(samples) / RATE
    # Rounded to 16-bit steps, so that all subtypes hold the same samples.
    steps_N = np.round(8000 * np.sin(2 * np.pi * hertz * time_N))
    soundfile.write(path, steps_N / 32768, RATE, subtype=subtype)


def voice(root: Path, language: str = "en", *, lines: str = "", prompts: tuple[str, ...] = PROMPTS) -> Path:
    """Write a voice in the layout of the Debian packages; every clip sounds different, also across languages."""
    folder = root / "usr/share/asterisk/sounds" / corpus.VOICES[language].speaker
    first = 200 + 500 * list(corpus.VOICES).index(language)
    for number, prompt in enumerate(prompts):
        wav(folder / f"{prompt}.wav", first + 10 * number)
    text = "\ufeff; a comment\n\n" + "".join(f"{prompt}: Say {prompt}.\n" for prompt in prompts) + lines
    document = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    document.parent.mkdir(parents=True)
    document.write_bytes(gzip.compress(text.encode()))
    return folder


def tarball(path: Path, language: str = "en") -> bytes:
    """Write a release tarball of one language, with all files at its top level, and return its bytes."""
    folder = voice(path.parent / f"{path.name}.tree", language)
    text = "".join(f"{prompt}: Say {prompt}.\n" for prompt in PROMPTS)
    (folder / f"core-sounds-{language}.txt").write_text(text)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=".")
    return path.read_bytes()


def run(*arguments: object, status: int = 0) -> str:
    """Run the recipe's command line in this process; return its standard output and error."""
    result = CliRunner().invoke(recipe.app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def fails(*arguments: object) -> str:
    """Run the command line, which must fail, and return its error line."""
    last = run(*arguments, status=1).strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def manifests(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in MANIFESTS]


def ids(out: Path, split: str) -> list[str]:
    return [json.loads(line)["id"] for line in gzip.open(out / f"cuts_{split}.jsonl.gz")]


def added(out: Path) -> MonoCut:
    """Return the cut en/added as read by lhotse."""
    return next(cut for cut in CutSet.from_file(out / "cuts_test.jsonl.gz") if cut.id == "en/added")


def reasons(out: Path, language: str = "en") -> dict[str, list[str]]:
    items = json.loads((out / "prepared.json").read_text())["report"]["languages"]
    dropped = next(item["dropped"] for item in items if item["language"] == language)
    return {
        reason: [prompt for prompts in by_split.values() for prompt in prompts] for reason, by_split in dropped.items()
    }
