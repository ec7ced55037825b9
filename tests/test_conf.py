"""Every experiment in conf/ can be read, its model built, and a training step taken."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from lhotse import CutSet
from rich.console import Console
from synthetic import WORDS, clip, corpus, white

from asr.checkpoint import ModelFolder, load_model_folder, save_model_folder
from asr.config import (
    DecoderConfig,
    EncoderConfig,
    ExperimentConfig,
    ModelConfig,
    ModelFolderConfig,
    SubsamplingConfig,
    WhisperFeaturesConfig,
    read_config,
)
from asr.data.cuts import read_cuts
from asr.model.build import build_model
from asr.tasks import into
from asr.tokenizer import CharacterTokenizer
from asr.training import run

CONF = Path(__file__).parents[1] / "conf"
# One folder per corpus; files beside these folders and language models are no experiments.
FILES = sorted(path for path in CONF.glob("*/*.yaml") if not path.name.startswith("lm-"))
SMALL = ["dim=16", "layers=1", "heads=2", "feed_forward=16"]


def overrides(config: ExperimentConfig, folder: Path) -> list[str]:
    """Return overrides that make an experiment small enough for a test; everything else stays as written."""
    languages = config.data.languages or config.tokenizer.languages or ("en",)
    train, dev = corpus(folder, "train", 8, 1, languages), corpus(folder, "dev", 2, 2, languages)
    for path in (train, dev):
        translate(path, [code for task in config.data.tasks if (code := into(task))])
    changed = [f"data.train={train}", f"data.dev={dev}"]
    changed += [f"out={folder / 'run'}", "data.workers=0", "trainer.max_steps=1", "trainer.step_log=true"]
    parts = config.init.parts if config.init is not None else ()
    if config.init is not None:
        changed.append(f"init{'.from' if parts else ''}={stand_in(folder / 'init', config)}")
    if parts is not None:
        changed += [f"model.encoder.{small}" for small in SMALL if "encoder" not in parts]
        changed += [f"model.decoder.{small}" for small in SMALL[1:]]
        if config.tokenizer.kind in ("unigram", "bpe"):
            changed.append(f"tokenizer.vocab_size={17 + len(config.tokenizer.languages) + len(config.data.tasks)}")
    if config.augment.noise is not None:
        (folder / "noise").mkdir()
        clip(folder / "noise" / "noise.wav", white(8000))
        changed.append(f"augment.noise={folder / 'noise'}")
    return changed


def translate(path: Path, codes: Sequence[str]) -> None:
    """Give the cuts of a manifest a translation into each language: a copy of their text."""
    cuts = list(read_cuts(path))
    for cut in cuts:
        (supervision,) = cut.supervisions
        supervision.custom = {"translations": dict.fromkeys(codes, supervision.text)}
    CutSet.from_cuts(cuts).to_file(path)


def stand_in(folder: Path, config: ExperimentConfig) -> Path:
    """Write a small model folder of Whisper's shape in place of the one that `init` names."""
    tokenizer = CharacterTokenizer.train([" ".join(WORDS)], config.data.languages or ())
    encoder = EncoderConfig(
        layers=1, dim=16, heads=2, feed_forward=16, padding="keep", subsampling=SubsamplingConfig(factor=2)
    )
    model = ModelConfig(encoder=encoder, decoder=DecoderConfig(layers=1, heads=2, feed_forward=16), ctc=False)
    settings = ModelFolderConfig(features=WhisperFeaturesConfig(), model=model)
    torch.manual_seed(0)
    network = build_model(settings.features, model, tokenizer.vocab_size)
    save_model_folder(folder, ModelFolder(settings, network, tokenizer))
    return folder


def test_experiments_are_found() -> None:
    assert {path.relative_to(CONF).as_posix() for path in FILES} >= {"prompts/en.yaml", "prompts/finetune-tiny-en.yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_model_of_every_experiment_can_be_built(path: Path) -> None:
    config = read_config(ExperimentConfig, path)
    if config.init is not None:
        assert config.init.parts or not config.model_fields_set & {"features", "model", "tokenizer"}
        return
    model = build_model(config.features, config.model, config.tokenizer.vocab_size)
    assert model.front_end.sample_rate_hz == config.features.sample_rate_hz
    assert len(model.encoder.layers) == config.model.encoder.layers
    assert (model.ctc is not None) >= (config.loss.ctc_weight > 0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_experiment_takes_a_training_step(path: Path, tmp_path: Path) -> None:
    config = read_config(ExperimentConfig, path, overrides(read_config(ExperimentConfig, path), tmp_path))
    folder = run.train(config, Console(file=io.StringIO()))
    batches = [json.loads(line) for line in (config.out / "steps.jsonl").read_text().splitlines()]
    assert len(batches) == config.trainer.accumulate
    assert all(0 < float.fromhex(batch["loss"]) < math.inf for batch in batches)
    assert load_model_folder(folder).config.decode == config.decode
    written = yaml.safe_load((config.out / "experiment.yaml").read_text())
    assert written["optimizer"] == config.model_dump(mode="json")["optimizer"]
