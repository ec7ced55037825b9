"""Corpora of seeded noise with a few words of text, and small experiments on them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import Cut
from numpy.typing import NDArray

from asr.checkpoint import ModelFolder
from asr.config import AugmentConfig, ExperimentConfig, ModelFolderConfig, read_config
from asr.data.augment import NoiseMixer
from asr.data.cuts import text_of
from asr.data.module import SpeechData
from asr.model.build import build_model
from asr.tokenizer import CharacterTokenizer

RATE = 8000
WORDS = ["one", "two", "three", "four", "five"]

CONFIG = """
out: {folder}/run
seed: 5
normalizer: basic
data: {{train: {train}, dev: {dev}, batch_duration_s: 8, buckets: 3, workers: 0}}
features: {{sample_rate_hz: 8000, n_mels: 20}}
model:
  encoder: {{layers: 1, dim: 16, heads: 2, feed_forward: 32, dropout: 0.1}}
  decoder: {{layers: 1, heads: 2, feed_forward: 32, dropout: 0.1}}
augment: {{speeds: [0.9, 1.0, 1.1], join: 0.3, join_max_s: 4, time_masks: 2, freq_masks: 1, freq_mask_bins: 5}}
loss: {{guided_attention: {{weight: 0.5, decay_steps: 20}}}}
optimizer: {{lr: 1e-3, warmup_steps: 5}}
trainer:
  max_epochs: 3
  precision: fp32
  device: cpu
  validate_every_steps: 10
  save_every_steps: 6
  step_log: true
  plot_utterances: 2
"""


def cut(
    id: str,
    duration_s: float,
    text: str = "one",
    *,
    path: Path | None = None,
    language: str | None = "en",
    rate: int = RATE,
) -> MonoCut:
    """A cut of a recording at `path`, which need not be there."""
    n = round(duration_s * rate)
    recording = Recording(id, [AudioSource("file", [0], str(path or f"{id}.wav"))], rate, n, n / rate)
    segment = SupervisionSegment(id, id, 0.0, n / rate, text=text, language=language)
    return MonoCut(id, 0.0, n / rate, 0, [segment], recording=recording)


def clip(
    path: Path, samples_N: NDArray[np.floating], text: str = "one", language: str | None = "en", rate: int = RATE
) -> MonoCut:
    """Write samples and give their cut, whose id is the file's name."""
    sf.write(path, samples_N.astype(np.float32), rate, subtype="FLOAT")
    return cut(path.stem, len(samples_N) / rate, text, path=path, language=language, rate=rate)


def manifest(path: Path, cuts: Sequence[MonoCut]) -> Path:
    """Write a manifest of cuts."""
    CutSet.from_cuts(cuts).to_file(path)
    return path


def short_cuts(count: int = 60, languages: Sequence[str] = ("en",)) -> list[Cut]:
    """Cuts of half a second to two, without audio, each with a word of its own."""
    draw = random.Random(1)
    durations_s = [draw.uniform(0.5, 2.0) for _ in range(count)]
    return [cut(f"c{i}", s, f"word{i}", language=languages[i % len(languages)]) for i, s in enumerate(durations_s)]


def logged_steps(out: Path, rank: int = 0) -> list[dict[str, Any]]:
    """What a process of a run wrote of its steps so far; a line that it is writing just now is left out."""
    path = out / ("steps.jsonl" if rank == 0 else f"steps.{rank}.jsonl")
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def described(cuts: Iterable[Cut]) -> list[tuple[str, float, str]]:
    """What tells cuts apart: id, duration and text of each."""
    return [(c.id, c.duration, text_of(c)) for c in cuts]


def white(samples: int, seed: int = 0) -> NDArray[np.floating]:
    """White noise."""
    return np.random.default_rng(seed).normal(0, 0.1, samples)


def mixer(
    folder: Path, samples_N: NDArray[np.floating], snr_db: tuple[float, float] = (5.0, 20.0), probability: float = 1.0
) -> NoiseMixer:
    """A mixer for a new folder that holds one file of noise."""
    folder.mkdir()
    clip(folder / "noise.wav", samples_N)
    return NoiseMixer(AugmentConfig(noise=folder, noise_probability=probability, noise_snr_db=snr_db), RATE, seed=1)


def corpus(folder: Path, split: str, count: int, seed: int, languages: Sequence[str | None] = ("en",)) -> Path:
    """Clips of noise, half a second to two long, with one or two words of text each."""
    draw, cuts = random.Random(seed), []
    for i in range(count):
        n = draw.randrange(RATE // 2, 2 * RATE)
        text = " ".join(draw.choices(WORDS, k=draw.choice([1, 2])))
        cuts.append(clip(folder / f"{split}-{i}.wav", white(n, seed * 1000 + i), text, languages[i % len(languages)]))
    return manifest(folder / f"{split}.jsonl.gz", cuts)


def experiment_file(folder: Path, train: int = 40, dev: int = 4) -> Path:
    """Write a corpus of so many clips and a YAML that trains a small model on it."""
    path = folder / "run.yaml"
    manifests = {"train": corpus(folder, "train", train, 1), "dev": corpus(folder, "dev", dev, 2)}
    path.write_text(CONFIG.format(folder=folder, **manifests))
    return path


def experiment(path: Path, *overrides: str) -> ExperimentConfig:
    """Read such a YAML with changes."""
    return read_config(ExperimentConfig, path, overrides)


def untrained(config: ExperimentConfig) -> ModelFolder:
    """The experiment's model with seeded weights and a vocabulary of the corpora's characters."""
    tokenizer = CharacterTokenizer.train([" ".join(WORDS)], config.tokenizer.languages)
    folder = ModelFolderConfig(features=config.features, model=config.model, normalizer=config.normalizer)
    torch.manual_seed(0)
    return ModelFolder(folder, build_model(config.features, config.model, tokenizer.vocab_size), tokenizer)


def speech_data(config: ExperimentConfig, parts: ModelFolder, frames_per_s: float | None = 25.0) -> SpeechData:
    """The experiment's data for a model whose encoder gives so many frames a second, None for one without CTC."""
    return SpeechData(
        config,
        parts.tokenizer,
        config.features.sample_rate_hz,
        config.model.decoder.max_length,
        config.decode.window_s,
        None if frames_per_s is None else lambda duration_s: int(duration_s * frames_per_s),
    )


def translated(one: MonoCut, translations: Any) -> MonoCut:
    """The cut with translations by language, or what stands in their place."""
    (supervision,) = one.supervisions
    return replace(one, supervisions=[replace(supervision, custom={"translations": translations})])
