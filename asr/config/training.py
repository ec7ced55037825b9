"""The options of a training run, as in the YAML files of conf/, as frozen pydantic models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from asr.tasks import TRANSCRIBE
from asr.text import NORMALIZERS

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

EXPERIMENT = "experiment.yaml"  # in a run's folder: its configuration


class TrainerConfig(Config):
    """Length of the training, precision, devices, validations, and which states are kept."""

    max_epochs: int | None = Field(
        None,
        gt=0,
        description="passes over the train cuts; give this, max_steps or both; the run ends at the first limit "
        "reached; if it is raised, a finished run continues",
    )
    max_steps: int | None = Field(
        None,
        gt=0,
        description="optimiser steps of the run; give this, max_epochs or both; if it is raised, a finished run "
        "continues",
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "auto",
        description="numbers to compute with: fp32; bf16, mixed precision with fp32 weights; or auto, bf16 if the "
        "device is fast at it",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device to train on; auto: a GPU if torch finds one, else the CPU"
    )
    devices: int = Field(
        1, gt=0, description="number of processes on each machine, with a GPU each; they share each batch"
    )
    nodes: int = Field(1, gt=0, description="number of machines, each with as many processes as devices says")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto",
        description="how several processes train: ddp, which auto means, each with all weights; fsdp, each with a "
        "share of them, for models too large for a device",
    )
    accumulate: int = Field(
        1, gt=0, description="batches per optimiser step, equivalent to one large batch that would not fit into memory"
    )
    validate_every_steps: int = Field(
        500, gt=0, description="optimiser steps between validations, in which dev is decoded and the state saved"
    )
    save_every_steps: int = Field(
        500, gt=0, description="optimiser steps between saved states; an interrupted run resumes from the last one"
    )
    keep_best: int = Field(
        3,
        gt=0,
        description="number of states to keep of those that are best on dev, for asr average; the last two are kept "
        "as well",
    )
    choose_by: Measure | None = Field(
        None,
        description="dev measure by which the best states and the model are chosen; default: wer, or bleu if nothing "
        "is transcribed",
    )
    patience: int | None = Field(
        None,
        gt=0,
        description="validations in a row without a new best after which the run ends; default: no such end; if it is "
        "raised, an ended run continues",
    )
    recompute: bool = Field(
        False,
        description="recompute the activations within encoder layers for the gradient instead of keeping them: "
        "slower, but with far less memory (activation checkpointing)",
    )
    plot_utterances: int = Field(
        2,
        ge=0,
        description="number of dev utterances whose attention is drawn at each validation, the same each time; 0: none",
    )
    log_every_steps: int = Field(20, gt=0, description="optimiser steps between rows of the logs: loss, learning rate")
    step_log: bool = Field(
        False, description="write steps.jsonl: loss, seconds and utterances of every batch, for comparisons"
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainerConfig:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("give max_epochs or max_steps")
        return self


class ExperimentConfig(Config):
    """One training run, as the YAML files of conf/ describe it.

    With `init`, the run starts from that model, a folder or a name, which then brings features, model and tokenizer; or
    from some parts of it, as in {from: FOLDER, parts: [encoder]}.
    """

    out: Path = Field(
        description="folder of the run: states, logs, plots, the final model; an interrupted run resumes from it"
    )
    seed: int = Field(0, description="seed of all random draws: weights, order, augmentation, dropout")
    init: InitConfig | None = Field(
        None,
        description="model to start from, a folder or a name such as whisper-tiny.en, or {from: FOLDER, parts: "
        "[encoder]}; default: none, random weights",
    )
    adapt: AdaptConfig = Field(AdaptConfig(), description="changes to the model that init brings")
    features: FeaturesConfig = Field(LogMelConfig(), description="the front end: from audio to features")
    model: ModelConfig = Field(ModelConfig(), description="the network: encoder, decoder, CTC head")
    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="the units into which texts are split")
    decode: DecodeConfig = Field(
        DecodeConfig(),
        description="options of the search in validations, and defaults of the final model",
    )
    normalizer: NormalizerName = Field(
        "none", description=f"text normaliser of the training texts, one of {', '.join(NORMALIZERS)} (docs/scoring.md)"
    )
    score_normalizer: NormalizerName | None = Field(
        None, description="normaliser of both sides when dev is scored, one of the same names; default: normalizer"
    )
    data: DataConfig = Field(description="speech and texts, and how they are batched")
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes to the training data")
    loss: LossConfig = Field(LossConfig(), description="training criteria and their weights")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="optimiser and learning rate")
    trainer: TrainerConfig = Field(description="length, precision, processes, validations, kept states")

    @model_validator(mode="after")
    def _methods_have_what_they_need(self) -> ExperimentConfig:
        if self.loss.cr_ctc and not self.augment.spec_augment:
            raise ValueError("loss.cr_ctc compares two views by SpecAugment: give augment.time_masks or freq_masks")
        if (self.augment.noise is None) == (self.augment.noise_probability > 0):
            raise ValueError("augment.noise, a folder, and augment.noise_probability above 0 go together")
        if self.loss.minimum_error.weight and self.data.phrases is not None:
            raise ValueError("loss.minimum_error searches without phrase lists: leave out data.phrases")
        if self.loss.minimum_error.weight and self.loss.minimum_error.ctc_weight and self.data.translates:
            raise ValueError(
                "loss.minimum_error.ctc_weight: CTC spells what is said and has no part in translations: leave it out"
            )
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
        """The measure by which the best states are chosen."""
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
            check_fits(self, self.features, self.model)
        pointers = {"model.decoder": getattr(self.model.decoder, "pointer", None), "adapt": self.adapt.pointer}
        for where, pointer in pointers.items():
            if pointer is not None and self.data.phrases is None:
                raise ValueError(f"{where}.pointer learns nothing without lists: set data.phrases, such as {{}}")
        return self

    def _given(self, brought: dict[str, Any]) -> Iterator[str]:
        """Yield the sections set in this experiment that are among those brought."""
        for name, parts in brought.items():
            if parts is not True:
                yield from (f"{name}.{part}" for part in parts if part in getattr(self, name).model_fields_set)
            elif name in self.model_fields_set:
                yield name
