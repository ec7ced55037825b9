"""A run's folder, which belongs to one configuration, and the choice of device and precision before it is claimed."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from asr.config import EXPERIMENT, ExperimentConfig, LanguageExperimentConfig, TrainerConfig, flat, read_config, to_yaml
from asr.errors import ConfigError
from asr.files import make_folder, sweep, write_whole
from asr.machine import find_device
from asr.model.precision import multiplies_bfloat16
from asr.training.states import states_in

TOKENIZER = "tokenizer"  # subfolder of the vocabulary that the run trained


def claim_folder(config: ExperimentConfig | LanguageExperimentConfig) -> None:
    """Write the configuration into the run's folder.

    Raises ConfigError if the folder holds training states of a configuration that differs in a setting that may not
    change within a run.
    """
    path = config.out / EXPERIMENT
    if path.exists():
        before = read_config(type(config), path)
        old, new = (flat(each.model_dump(mode="json")) for each in (before, config))
        changed = [key for key in {**old, **new} if old.get(key) != new.get(key) and key not in _MAY_CHANGE]
        if changed and states_in(config.out / "states"):
            raise ConfigError(
                f"{config.out} holds a run with another configuration ({', '.join(changed[:5])} differ): "
                "give another out=FOLDER, or move that folder away"
            )
        if changed:  # the vocabulary was trained for the other configuration
            shutil.rmtree(config.out / TOKENIZER, ignore_errors=True)
    make_folder(config.out)
    for folder in filter(Path.is_dir, (*config.out.iterdir(), *config.out.glob("logs/*"))):
        sweep(folder)
    write_whole(path, to_yaml(config))


_MAY_CHANGE = {
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.device",
    "trainer.devices",
    "trainer.nodes",
    "trainer.strategy",
    "trainer.keep_best",
    "trainer.patience",
    "trainer.recompute",
    "trainer.save_every_steps",
    "trainer.log_every_steps",
    "trainer.plot_utterances",
    "trainer.step_log",
    "data.workers",
    "out",
}


def device_of(config: TrainerConfig) -> torch.device:
    """Return the device of each process on this machine.  Raises ConfigError if there are fewer than asked for."""
    try:
        device = find_device(config.device)
    except ConfigError as e:
        raise ConfigError(f"trainer.{e}") from None
    if device.type == "cuda" and config.devices > (gpus := torch.cuda.device_count()):
        raise ConfigError(f"trainer.devices={config.devices}: torch finds {gpus} here")
    return device


def decided(config: ExperimentConfig, device: torch.device) -> ExperimentConfig:
    """Replace precision "auto" by that of the run's states; for a new run, bf16 if it is faster here."""
    if config.trainer.precision != "auto":
        return config
    if states_in(config.out / "states"):
        return as_claimed(config)
    return _with_precision(config, "bf16" if multiplies_bfloat16(device) else "fp32")


def as_claimed(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration with the precision that the process that claimed the run's folder has decided on."""
    return _with_precision(config, read_config(ExperimentConfig, config.out / EXPERIMENT).trainer.precision)


def _with_precision(config: ExperimentConfig, precision: str) -> ExperimentConfig:
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"precision": precision})})
