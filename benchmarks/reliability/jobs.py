"""The commands that are killed: small trainings, a recipe and transcription, all on seeded noise."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

from lhotse import MonoCut
from models import small_model
from prompts_source import tarball
from synthetic import RATE, clip, experiment, experiment_file, manifest, white

from asr.checkpoint import save_model_folder
from benchmarks.reliability import ROOT
from benchmarks.reliability.checks import (
    Kept,
    corrupt,
    kept_results,
    kept_states,
    leftovers,
    lost_results,
    lost_states,
    visible,
    wrong_run,
    wrong_texts,
)
from benchmarks.reliability.kills import Job, asr

# Losses are also logged at the steps that save checkpoints, which is the harder case.
SMALL = ("trainer.plot_utterances=1", "trainer.log_every_steps=3")


class Training:
    """`asr train` in `devices` processes, each with `workers` data loaders."""

    unit = "checkpoint"
    logs: tuple[str, ...] = ("logs/", "steps")

    def __init__(self, config: Path, devices: int = 1, workers: int = 1) -> None:
        self.config, self.devices, self.workers = config, devices, workers
        self.name = "asr train" + (f", {devices} processes" if devices > 1 else "")
        trainer = experiment(config).trainer
        self.every = trainer.save_every_steps, trainer.validate_every_steps
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

    def kept(self, out: Path) -> Kept:
        return kept_states(out)

    def lost(self, out: Path, before: Kept) -> list[str]:
        return lost_states(out, before, self.every)


class Files:
    """A command that must write the same bytes however often it is killed, except in the files `but`."""

    unit = "result"
    logs: tuple[str, ...] = ()

    def __init__(self, name: str, words: list[str], option: str, *, but: tuple[str, ...] = ()) -> None:
        self.name, self.words, self.option, self.but = name, words, option, but
        self.targets: dict[str, tuple[str, ...]] = {"files": ("",)}

    def command(self, out: Path) -> list[str]:
        return [*self.words, self.option, str(out)]

    def problems(self, out: Path, whole: Path) -> list[str]:
        ours, theirs = (dict(self._files(folder)) for folder in (out, whole))
        problems = [*corrupt(out), *leftovers(out, but=self.logs)]
        problems += [f"{name}: missing" for name in sorted(theirs.keys() - ours.keys())]
        problems += [f"{name}: unexpected file" for name in sorted(ours.keys() - theirs.keys())]
        for name in sorted(ours.keys() & theirs.keys() - set(self.but)):
            if _content(ours[name], out) != _content(theirs[name], whole):
                problems.append(f"{name}: differs from that of the uninterrupted run")
        return problems

    def _files(self, folder: Path) -> list[tuple[str, Path]]:
        named = ((str(path.relative_to(folder)), path) for path in visible(folder))
        return [(name, path) for name, path in named if not name.startswith(self.logs)]

    def kept(self, out: Path) -> Kept:
        return {}  # each start begins anew

    def lost(self, out: Path, before: Kept) -> list[str]:
        return []


class Corpus(Files):
    """`asr transcribe` of a manifest by two processes: each start goes on from the results of those before it."""

    logs: tuple[str, ...] = ("parts/",)

    def problems(self, out: Path, whole: Path) -> list[str]:
        return [*super().problems(out, whole), *wrong_texts(out, whole)]

    def kept(self, out: Path) -> Kept:
        return kept_results(out)

    def lost(self, out: Path, before: Kept) -> list[str]:
        return lost_results(out, before)


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
    """Return the job of transcribing forty files into a folder."""
    _clips(folder, 40)
    model = make_model(folder / "model")
    words = asr("transcribe", folder / "speech", "--model", model, "--format", "txt,json,srt", "--batch-seconds", 8)
    return Files("asr transcribe FILES", words, "--out")


def transcribing_corpus(folder: Path, count: int = 500) -> Job:
    """Return the job of transcribing a manifest in two processes; a text depends on its own recording only."""
    cuts = manifest(folder / "cuts.jsonl.gz", _clips(folder, count))
    model, exact = make_model(folder / "model"), ("--dtype", "float32", "--batch-seconds", 8)
    words = asr("transcribe", cuts, "--model", model, *exact, "--workers", 2)
    # Scores differ by rounding with the batches, which depend on what was there already.
    return Corpus("asr transcribe MANIFEST", words, "--out", but=("hyp.jsonl",))


def _clips(folder: Path, count: int) -> list[MonoCut]:
    speech = folder / "speech"
    speech.mkdir(parents=True)
    lengths = (RATE // 2 + 997 * i % (3 * RATE) for i in range(count))
    return [clip(speech / f"clip-{i:03}.wav", white(samples, i)) for i, samples in enumerate(lengths)]


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
    yield transcribing(folder / "transcribing"), 0.05
    yield transcribing_corpus(folder / "manifest"), 0.15
