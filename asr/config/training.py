"""The options of a training run: what the YAML files of conf/ hold, as frozen pydantic models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from asr.tasks import TRANSCRIBE

from .base import Config
from .criteria import LossConfig
from .data import AugmentConfig, DataConfig
from .decode import DecodeConfig
from .features import FeaturesConfig, LogMelConfig
from .fitting import check_fits
from .initial import AdaptConfig, InitConfig
from .model import ModelConfig, NormalizerName, TokenizerConfig, check_window
from .optimizer import OptimizerConfig

Measure = Literal["wer", "cer", "bleu", "chrf", "loss"]

EXPERIMENT = "experiment.yaml"  # in a run's folder: the configuration that it was begun with


class TrainerConfig(Config):
    """How long, in what precision, and what is kept."""

    max_epochs: int | None = Field(None, gt=0)
    max_steps: int | None = Field(None, gt=0)
    precision: Literal["fp32", "bf16", "auto"] = Field("auto", description="auto: bf16 where the device is fast at it")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(1, gt=0, description="processes on this machine, a GPU each; they share each step's batch")
    nodes: int = Field(1, gt=0, description="machines, each with so many")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto", description="auto: ddp where there are several processes; fsdp: each holds a share of the weights"
    )
    accumulate: int = Field(1, gt=0, description="batches per optimiser step")
    validate_every_steps: int = Field(500, gt=0)
    save_every_steps: int = Field(500, gt=0)
    keep_best: int = Field(3, gt=0)
    choose_by: Measure | None = Field(
        None, description="of dev: what the best states are found by; default: wer, where nothing is transcribed bleu"
    )
    plot_utterances: int = Field(2, ge=0, description="fixed dev utterances drawn at each validation")
    log_every_steps: int = Field(20, gt=0)
    step_log: bool = Field(False, description="write steps.jsonl: the loss and the utterances of every step")

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainerConfig:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("give max_epochs or max_steps")
        return self


class ExperimentConfig(Config):
    """One training run: what the YAML files of conf/ hold.

    With `init` the run starts from that model, a folder or a name, which then brings features, model and tokenizer; or,
    as {from: FOLDER, parts: [encoder]}, from that part of it.
    """

    out: Path = Field(description="folder of the run: checkpoints, logs, plots, the final model")
    seed: int = 0
    init: InitConfig | None = None
    adapt: AdaptConfig = AdaptConfig()
    features: FeaturesConfig = LogMelConfig()
    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    decode: DecodeConfig = DecodeConfig()
    normalizer: NormalizerName = Field("none", description="text normaliser of the training targets")
    score_normalizer: NormalizerName | None = Field(
        None, description="normaliser of both sides when scoring; default: normalizer"
    )
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    trainer: TrainerConfig

    @model_validator(mode="after")
    def _methods_have_what_they_need(self) -> ExperimentConfig:
        if self.loss.cr_ctc and not self.augment.spec_augment:
            raise ValueError("loss.cr_ctc compares two views by SpecAugment: give augment.time_masks or freq_masks")
        if (self.augment.noise is None) == (self.augment.noise_probability > 0):
            raise ValueError("augment.noise, a folder, and augment.noise_probability above 0 go together")
        if self.loss.minimum_error.weight and self.data.phrases is not None:
            raise ValueError("loss.minimum_error searches without phrase lists: leave out data.phrases")
        if self.loss.minimum_error.weight and self.trainer.strategy == "fsdp":
            raise ValueError("loss.minimum_error searches while it trains, which needs whole weights: no strategy=fsdp")
        return self

    @field_validator("init", mode="before")
    @classmethod
    def _all_of_a_folder(cls, init: Any) -> Any:
        return {"from": init} if isinstance(init, str | Path) else init

    @model_validator(mode="after")
    def _is_chosen_by_what_is_measured(self) -> ExperimentConfig:
        chosen, transcribes = self.chosen_by, TRANSCRIBE in self.data.tasks
        if chosen in ("wer", "cer") and not transcribes:
            raise ValueError(f"trainer.choose_by={chosen} is for data.tasks with transcribe: take bleu, chrf or loss")
        if chosen in ("bleu", "chrf") and not self.data.translates:
            raise ValueError(f"trainer.choose_by={chosen} is for data.tasks with a translation: take wer, cer or loss")
        return self

    @property
    def scored_with(self) -> str:
        """The normaliser of both sides when scoring."""
        return self.score_normalizer or self.normalizer

    @property
    def chosen_by(self) -> Measure:
        """What the best states are found by."""
        return self.trainer.choose_by or ("wer" if TRANSCRIBE in self.data.tasks else "bleu")

    @model_validator(mode="after")
    def _init_brings_the_model(self) -> ExperimentConfig:
        if self.init is not None and (given := sorted(self._given(self.init.brings))):
            raise ValueError(f"init brings its own {', '.join(given)}: leave out these sections or init")
        if self.init is None and self.adapt != AdaptConfig():
            raise ValueError("adapt is for the model that init brings: set model and so on themselves")
        if self.init is not None and self.init.parts is not None and self.adapt.pointer is not None:
            raise ValueError("adapt.pointer is for a whole model that init brings: set model.decoder.pointer")
        check_window(self.features, self.model)
        if self.init is None:
            check_fits(self, self.model)
        pointers = {"model.decoder": getattr(self.model.decoder, "pointer", None), "adapt": self.adapt.pointer}
        for where, pointer in pointers.items():
            if pointer is not None and self.data.phrases is None:
                raise ValueError(f"{where}.pointer learns nothing without lists: set data.phrases, such as {{}}")
        return self

    def _given(self, brought: dict[str, Any]) -> Iterator[str]:
        """Sections of this experiment among those that are brought."""
        for name, parts in brought.items():
            if parts is not True:
                yield from (f"{name}.{part}" for part in parts if part in getattr(self, name).model_fields_set)
            elif name in self.model_fields_set:
                yield name
