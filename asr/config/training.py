"""The options of a training run: what the YAML files of conf/ hold, as frozen pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Config
from .features import FeaturesConfig, LogMelConfig
from .model import NEED_CTC, DecodeConfig, ModelConfig, NormalizerName, Padding, TokenizerConfig, check_window

EXPERIMENT = "experiment.yaml"  # in a run's folder: the configuration that it was begun with


class DataConfig(Config):
    """Manifests (lhotse cuts) or Shar folders, and how they are put into batches."""

    train: Path = Field(description="a manifest of cuts, or a folder of shards that lhotse wrote (Shar)")
    dev: Path
    stream: bool = Field(
        False, description="read the train cuts as they are needed, not into memory; a Shar folder always is read so"
    )
    shuffle_buffer: int = Field(
        50_000, gt=0, description="cuts of a stream that are shuffled at a time; more for a manifest that is sorted"
    )
    languages: tuple[str, ...] | None = Field(None, description="keep only cuts in these languages")
    min_duration_s: float = Field(0.1, ge=0)
    max_duration_s: float = Field(30.0, gt=0)
    batch_duration_s: float = Field(120.0, gt=0, description="audio in a batch, padding included")
    batch_size: int | None = Field(None, gt=0, description="most utterances in a batch")
    buckets: int = Field(10, gt=0)
    workers: int = Field(2, ge=0)

    @property
    def streamed(self) -> bool:
        """Whether the train cuts are read as they are needed."""
        return self.stream or self.train.is_dir()


class AugmentConfig(Config):
    """Changes to the training audio; every draw is a function of seed, epoch and utterance."""

    speeds: tuple[float, ...] = Field((1.0,), description="one is drawn per utterance, such as [0.9, 1.0, 1.1]")
    join: float = Field(0.0, ge=0, le=1, description="probability that further clips are appended to an utterance")
    join_max_s: float = Field(12.0, gt=0)
    noise: Path | None = Field(None, description="folder of noise or music to mix in")
    noise_probability: float = Field(0.0, ge=0, le=1)
    noise_snr_db: tuple[float, float] = (5.0, 20.0)
    time_masks: int = Field(0, ge=0)
    time_mask_frames: int = Field(40, ge=1, description="widest time mask")
    time_mask_share: float = Field(0.2, ge=0, le=1, description="adaptive: the masks together cover at most this share")
    freq_masks: int = Field(0, ge=0)
    freq_mask_bins: int = Field(27, ge=1)
    unpadded: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that an utterance is trained without the silence that fills its window",
    )

    @property
    def spec_augment(self) -> bool:
        """Whether any mask is drawn."""
        return self.time_masks > 0 or self.freq_masks > 0


class GuidedAttentionConfig(Config):
    """Guided attention (Tachibana et al. 2017) on the decoder's cross-attention."""

    weight: float = Field(0.0, ge=0, description="0: off")
    width: float = Field(0.2, gt=0, description="g of the paper")
    heads: tuple[tuple[int, int], ...] = Field((), description="(layer, head) pairs; empty: all of them")
    decay_steps: int = Field(0, ge=0, description="the weight falls to 0 in so many steps; 0: never")


class LossConfig(Config):
    """The training criteria and their weights."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ctc_weight: float = Field(0.3, ge=0, le=1)
    length_weight: float = Field(0.1, ge=0, description="of a mask_predict decoder's length, for each utterance")
    guided_attention: GuidedAttentionConfig = GuidedAttentionConfig()


Factor = Annotated[float, Field(ge=0, le=1000)]


class OptimizerConfig(Config):
    """AdamW and its learning-rate schedule."""

    lr: float = Field(1e-3, gt=0, description="the highest learning rate")
    parts: dict[str, Factor] = Field(
        {}, description="factors on lr by part of the model, such as encoder.layers.0; 0 freezes, the longest name wins"
    )
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    warmup_steps: int = Field(1000, ge=0)
    final_lr_share: float = Field(0.0, ge=0, le=1, description="cosine ends at this share of lr")
    clip_norm: float = Field(1.0, gt=0)


class TrainerConfig(Config):
    """How long, in what precision, and what is kept."""

    max_epochs: int | None = Field(None, gt=0)
    max_steps: int | None = Field(None, gt=0)
    precision: Literal["fp32", "bf16", "auto"] = Field("auto", description="auto: bf16 where the device is fast at it")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(1, gt=0, description="processes on this machine, a GPU each; they share each step's batch")
    nodes: int = Field(1, gt=0, description="machines, each with so many")
    strategy: Literal["auto", "ddp"] = Field("auto", description="auto: ddp where there are several processes")
    accumulate: int = Field(1, gt=0, description="batches per optimiser step")
    validate_every_steps: int = Field(500, gt=0)
    save_every_steps: int = Field(500, gt=0)
    keep_best: int = Field(3, gt=0)
    plot_utterances: int = Field(2, ge=0, description="fixed dev utterances drawn at each validation")
    log_every_steps: int = Field(20, gt=0)
    step_log: bool = Field(False, description="write steps.jsonl: the loss and the utterances of every step")

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainerConfig:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("give max_epochs or max_steps")
        return self


class AdaptConfig(Config):
    """What is set anew in the model that `init` brings; what is left out stays as it is there."""

    padding: Padding | None = Field(None, description="as in model.encoder")
    keep_s: float | None = Field(None, ge=0, description="as in model.encoder")
    dropout: float | None = Field(None, ge=0, lt=1, description="of encoder and decoder")

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """What changes in model.encoder and model.decoder."""
        given = self.model_dump(exclude_none=True)
        return {"encoder": given, "decoder": {name: given[name] for name in given if name == "dropout"}}


BROUGHT = {"features", "model", "tokenizer"}  # by `init`


class ExperimentConfig(Config):
    """One training run: what the YAML files of conf/ hold.

    With `init` the run starts from that model, a folder or a name, which then brings features, model and tokenizer.
    """

    out: Path = Field(description="folder of the run: checkpoints, logs, plots, the final model")
    seed: int = 0
    init: Path | None = None
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
    def _init_brings_the_model(self) -> ExperimentConfig:
        given = BROUGHT & self.model_fields_set
        if self.init is not None and given:
            raise ValueError(f"init brings its own {', '.join(sorted(given))}: leave out these sections or init")
        if self.init is None and self.adapt != AdaptConfig():
            raise ValueError("adapt is for the model that init brings: set model and so on themselves")
        check_window(self.features, self.model)
        if self.init is None:
            check_losses(self.loss, self.model)
        return self


def check_losses(loss: LossConfig, model: ModelConfig) -> None:
    """ValueError for training criteria that such a model has no part for."""
    kind = model.decoder.kind
    if loss.guided_attention.weight > 0 and kind != "attention":
        raise ValueError(f"loss.guided_attention needs model.decoder.kind=attention, for kind {kind} has none to guide")
    if loss.ctc_weight == 0 and kind in NEED_CTC:
        raise ValueError(f"loss.ctc_weight=0 would not train the CTC head that model.decoder.kind={kind} needs")
