"""The commands that are killed: small trainings, a recipe and transcription, all on seeded noise."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

from models import small_model
from prompts_source import tarball
from synthetic import RATE, clip, experiment_file, white

from asr.checkpoint import save_model_folder
from benchmarks.reliability import ROOT
from benchmarks.reliability.checks import corrupt, leftovers, visible, wrong_run
from benchmarks.reliability.kills import Job, asr

# Losses are also logged at the steps that save checkpoints, which is the harder case.
SMALL = ("trainer.plot_utterances=1", "trainer.log_every_steps=3")


class Training:
    """`asr train` in `devices` processes, each with `workers` data loaders."""

    logs: tuple[str, ...] = ("logs/", "steps")

    def __init__(self, config: Path, devices: int = 1, workers: int = 1) -> None:
        self.config, self.devices, self.workers = config, devices, workers
        self.name = "asr train" + (f", {devices} processes" if devices > 1 else "")
        self.targets: dict[str, tuple[str, ...]] = {
            "states": ("/states",),
            "the model folder": ("/model",),
            "plots and tables": ("/plots", "/logs", "/run.json", "/tokenizer", "/experiment", "/dropped", "/prepared"),
        }

    def command(self, out: Path) -> list[str]:
        shape = f"trainer.devices={self.devices}", f"data.workers={self.workers}"
        return asr("train", self.config, f"out={out}", *shape, *SMALL)

    def problems(self, out: Path, whole: Path) -> list[str]:
        return wrong_run(out, whole)


class Files:
    """A command that must write the same bytes however often it is killed, except in the files `but`."""

    logs: tuple[str, ...] = ()

    def __init__(self, name: str, words: list[str], option: str, *, but: tuple[str, ...] = ()) -> None:
        self.name, self.words, self.option, self.but = name, words, option, but
        self.targets: dict[str, tuple[str, ...]] = {"files": ("",)}

    def command(self, out: Path) -> list[str]:
        return [*self.words, self.option, str(out)]

    def problems(self, out: Path, whole: Path) -> list[str]:
        ours, theirs = ({str(p.relative_to(folder)): p for p in visible(folder)} for folder in (out, whole))
        problems = [*corrupt(out), *leftovers(out)]
        problems += [f"{name}: missing" for name in sorted(theirs.keys() - ours.keys())]
        problems += [f"{name}: unexpected file" for name in sorted(ours.keys() - theirs.keys())]
        for name in sorted(ours.keys() & theirs.keys() - set(self.but)):
            if _content(ours[name], out) != _content(theirs[name], whole):
                problems.append(f"{name}: differs from that of the uninterrupted run")
        return problems


def _content(path: Path, folder: Path) -> bytes:
    """Return the uncompressed bytes of a file, with the path of `folder` removed wherever it occurs."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).replace(bytes(folder), b"")


def make_config(folder: Path) -> Path:
    """Make a corpus and return the configuration file of an experiment on it."""
    folder.mkdir(parents=True)
    return experiment_file(folder)


def make_model(folder: Path) -> Path:
    """Save an untrained model whose texts nevertheless depend on the audio, and return its folder."""
    save_model_folder(folder, small_model())
    return folder


def transcribing(folder: Path) -> Job:
    """Return the job of transcribing forty clips into a folder."""
    speech = folder / "speech"
    speech.mkdir(parents=True)
    for i in range(40):
        clip(speech / f"clip-{i:02}.wav", white(RATE // 2 + 997 * i % (3 * RATE), i))
    model = make_model(folder / "model")
    words = asr("transcribe", speech, "--model", model, "--format", "txt,json,srt", "--batch-seconds", "8")
    return Files("asr transcribe", words, "--out")


def preparing(folder: Path) -> Job:
    """Return the job of running the recipe `prompts` on release tarballs of two languages."""
    folder.mkdir(parents=True)
    for language in ("en", "it"):
        name = f"asterisk-core-sounds-{language}-wav-1.6.1.tar.gz"
        tarball(folder / name, language)
    script = ROOT / "recipes" / "prompts" / "prepare.py"
    words = [sys.executable, str(script), "--languages", "en,it", "--source", str(folder)]
    # prepared.json has digests of the manifests, which contain the path of their folder.
    return Files("recipes/prompts/prepare.py", words, "--out", but=("prepared.json",))


def jobs(folder: Path) -> Iterator[tuple[Job, float]]:
    """Yield each job and its share of all kills."""
    config = make_config(folder / "corpus")
    yield Training(config, 1), 0.5
    yield Training(config, 2), 0.1
    yield preparing(folder / "source"), 0.2
    yield transcribing(folder / "transcribing"), 0.2


__all__ = ["Training", "jobs", "make_config", "make_model", "preparing", "transcribing"]
