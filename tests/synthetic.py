"""Synthetic corpora of seeded noise with short texts, and small experiments on them."""

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
from asr.tokenizer import CharacterTokenizer, SentencePieceTokenizer, Tokenizer

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
    """Return a cut of a recording at `path`, which need not exist."""
    n = round(duration_s * rate)
    recording = Recording(id, [AudioSource("file", [0], str(path or f"{id}.wav"))], rate, n, n / rate)
    segment = SupervisionSegment(id, id, 0.0, n / rate, text=text, language=language)
    return MonoCut(id, 0.0, n / rate, 0, [segment], recording=recording)


def clip(
    path: Path, samples_N: NDArray[np.floating], text: str = "one", language: str | None = "en", rate: int = RATE
) -> MonoCut:
    """Write samples to a file and return their cut, whose id is the file's stem."""
    sf.write(path, samples_N.astype(np.float32), rate, subtype="FLOAT")
    return cut(path.stem, len(samples_N) / rate, text, path=path, language=language, rate=rate)


def manifest(path: Path, cuts: Sequence[MonoCut]) -> Path:
    """Write a manifest of cuts and return its path."""
    CutSet.from_cuts(cuts).to_file(path)
    return path


def short_cuts(count: int = 60, languages: Sequence[str] = ("en",)) -> list[Cut]:
    """Return cuts of 0.5 to 2 s without audio files, each with a different word as text."""
    draw = random.Random(1)
    durations_s = [draw.uniform(0.5, 2.0) for _ in range(count)]
    return [cut(f"c{i}", s, f"word{i}", language=languages[i % len(languages)]) for i, s in enumerate(durations_s)]


def logged_steps(out: Path, rank: int = 0) -> list[dict[str, Any]]:
    """Return the steps that a process of a run has logged so far, except a line that is still being written."""
    path = out / ("steps.jsonl" if rank == 0 else f"steps.{rank}.jsonl")
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def described(cuts: Iterable[Cut]) -> list[tuple[str, float, str]]:
    """Return id, duration and text of each cut, to compare lists of cuts."""
    return [(c.id, c.duration, text_of(c)) for c in cuts]


def white(samples: int, seed: int = 0) -> NDArray[np.floating]:
    """Return white noise."""
    return np.random.default_rng(seed).normal(0, 0.1, samples)


def mixer(
    folder: Path, samples_N: NDArray[np.floating], snr_db: tuple[float, float] = (5.0, 20.0), probability: float = 1.0
) -> NoiseMixer:
    """Return a mixer of noise from a new folder, which holds one file with these samples."""
    folder.mkdir()
    clip(folder / "noise.wav", samples_N)
    return NoiseMixer(AugmentConfig(noise=folder, noise_probability=probability, noise_snr_db=snr_db), RATE, seed=1)


def corpus(folder: Path, split: str, count: int, seed: int, languages: Sequence[str | None] = ("en",)) -> Path:
    """Write clips of noise, 0.5 to 2 s long, with one or two words of text each; return their manifest's path."""
    draw, cuts = random.Random(seed), []
    for i in range(count):
        n = draw.randrange(RATE // 2, 2 * RATE)
        text = " ".join(draw.choices(WORDS, k=draw.choice([1, 2])))
        cuts.append(clip(folder / f"{split}-{i}.wav", white(n, seed * 1000 + i), text, languages[i % len(languages)]))
    return manifest(folder / f"{split}.jsonl.gz", cuts)


def experiment_file(folder: Path, train: int = 40, dev: int = 4) -> Path:
    """Write a corpus of the given size and the YAML of a small experiment on it; return the YAML's path."""
    path = folder / "run.yaml"
    manifests = {"train": corpus(folder, "train", train, 1), "dev": corpus(folder, "dev", dev, 2)}
    path.write_text(CONFIG.format(folder=folder, **manifests))
    return path


def experiment(path: Path, *overrides: str) -> ExperimentConfig:
    """Read the configuration of an experiment from its YAML, with overrides."""
    return read_config(ExperimentConfig, path, overrides)


def untrained(config: ExperimentConfig) -> ModelFolder:
    """Return the experiment's untrained model with seeded weights and a vocabulary of the corpora's words."""
    texts, units = [" ".join(WORDS)], config.tokenizer
    tokenizer: Tokenizer = CharacterTokenizer.train(texts, units.languages)
    if units.kind == "bpe":
        tokenizer = SentencePieceTokenizer.train(texts, units.languages, kind="bpe", vocab_size=units.vocab_size)
    folder = ModelFolderConfig(
        features=config.features, model=config.model, normalizer=config.normalizer, decode=config.decode
    )
    torch.manual_seed(0)
    return ModelFolder(folder, build_model(config.features, config.model, tokenizer.vocab_size), tokenizer)


def speech_data(config: ExperimentConfig, parts: ModelFolder, frames_per_s: float | None = 25.0) -> SpeechData:
    """Return the experiment's data for an encoder with this frame rate; None is for a model without CTC."""
    return SpeechData(
        config,
        parts.tokenizer,
        config.features.sample_rate_hz,
        config.model.decoder.max_length,
        config.decode.window_s,
        None if frames_per_s is None else lambda duration_s: int(duration_s * frames_per_s),
    )


def translated(one: MonoCut, translations: Any) -> MonoCut:
    """Return the cut with translations by language, or with any other (invalid) value in their place."""
    (supervision,) = one.supervisions
    return replace(one, supervisions=[replace(supervision, custom={"translations": translations})])
