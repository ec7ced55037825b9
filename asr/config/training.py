"""The options of a training run: what the YAML files of conf/ hold, as frozen pydantic models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from asr.files import is_folder
from asr.tasks import TASK, TRANSCRIBE, into

from .base import Config, Location
from .criteria import MinimumErrorConfig, ScheduledSamplingConfig
from .decode import DecodeConfig
from .features import FeaturesConfig, LogMelConfig
from .fitting import check_fits
from .initial import AdaptConfig, InitConfig
from .model import ModelConfig, NormalizerName, TokenizerConfig, check_window

Distractors = Annotated[int, Field(ge=0, le=100_000)]
Task = Annotated[str, StringConstraints(pattern=rf"^({TASK})$")]
Measure = Literal["wer", "cer", "bleu", "chrf", "loss"]

EXPERIMENT = "experiment.yaml"  # in a run's folder: the configuration that it was begun with


class PhraseListConfig(Config):
    """The phrase lists that a pointer is trained with: rare words of the utterance and of others (distractors)."""

    rare_below: int = Field(5, gt=0, description="a word is rare if the training texts have it less often")
    keep: float = Field(0.7, ge=0, le=1, description="probability that a rare word of the utterance is in its list")
    distractors: tuple[Distractors, Distractors] = Field((10, 100), description="fewest and most in a list")

    @model_validator(mode="after")
    def _fewest_first(self) -> PhraseListConfig:
        low, high = self.distractors
        if low > high:
            raise ValueError(f"distractors: the fewest, {low}, are more than the most, {high}")
        return self


class DataConfig(Config):
    """Manifests (lhotse cuts) or Shar folders, and how they are put into batches."""

    train: Location = Field(
        description="a manifest of cuts, or a folder of shards that lhotse wrote (Shar); a path or a URL"
    )
    dev: Location
    stream: bool = Field(
        False, description="read the train cuts as they are needed, not into memory; a Shar folder always is read so"
    )
    shuffle_buffer: int = Field(
        50_000, gt=0, description="cuts of a stream that are shuffled at a time; more for a manifest that is sorted"
    )
    languages: tuple[str, ...] | None = Field(None, description="keep only cuts in these languages")
    tasks: tuple[Task, ...] = Field(
        (TRANSCRIBE,),
        min_length=1,
        description="what each cut is trained to be written as: transcribe, translate:en and so on, as far as it has "
        "the texts; with others than transcribe a vocabulary that is made has a token for each",
    )
    min_duration_s: float = Field(0.1, ge=0)
    max_duration_s: float = Field(30.0, gt=0)
    batch_duration_s: float = Field(120.0, gt=0, description="audio in a batch, padding included")
    batch_size: int | None = Field(None, gt=0, description="most utterances in a batch")
    buckets: int = Field(10, gt=0)
    workers: int = Field(2, ge=0)
    phrases: PhraseListConfig | None = Field(None, description="phrase lists, for a model whose decoder has a pointer")

    @field_validator("tasks")
    @classmethod
    def _each_once(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tasks)) < len(tasks):
            raise ValueError("a task is given twice")
        return tasks

    @property
    def translates(self) -> bool:
        """Whether one of the tasks is a translation."""
        return any(into(task) is not None for task in self.tasks)

    @property
    def streamed(self) -> bool:
        """Whether the train cuts are read as they are needed."""
        return self.stream or is_folder(self.train)


class AugmentConfig(Config):
    """Changes to the training data; every draw is a function of the seed and of when an utterance comes."""

    speeds: tuple[Annotated[float, Field(ge=0.1, le=10)], ...] = Field(
        (1.0,), min_length=1, description="one is drawn per utterance, such as [0.9, 1.0, 1.1]"
    )
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
    token_noise: float = Field(
        0.0, ge=0, le=1, description="share of the decoder's input tokens that random ones of the vocabulary replace"
    )
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
    scheduled_sampling: ScheduledSamplingConfig = ScheduledSamplingConfig()
    minimum_error: MinimumErrorConfig = MinimumErrorConfig()
    r_drop: float = Field(0.0, ge=0, description="weight of R-Drop (Liang et al. 2021): two views by dropout; 0: off")
    cr_ctc: float = Field(0.0, ge=0, description="weight of CR-CTC (Yao et al. 2024): two views by SpecAugment; 0: off")

    @model_validator(mode="after")
    def _consistency_of_ctc(self) -> LossConfig:
        if self.cr_ctc and not self.ctc_weight:
            raise ValueError("cr_ctc keeps CTC consistent: it needs a ctc_weight above 0")
        return self


Factor = Annotated[float, Field(ge=0, le=1000)]
_BETAS = 0.9, 0.98
_Beta = Annotated[float, Field(ge=0, lt=1)]


class PlateauConfig(Config):
    """When and by how much the learning rate falls with schedule=plateau."""

    metric: Literal["chosen", "loss"] = Field(
        "chosen", description="of dev: what has to get better; chosen: what trainer.choose_by names"
    )
    patience: int = Field(2, ge=0, description="validations in a row that may pass without a new best")
    factor: float = Field(0.5, gt=0, lt=1, description="after one more, the learning rate is multiplied by this")


class OptimizerConfig(Config):
    """The optimiser and its learning-rate schedule."""

    kind: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0, description="the highest learning rate")
    parts: dict[str, Factor] = Field(
        {}, description="factors on lr by part of the model, such as encoder.layers.0; 0 freezes, the longest name wins"
    )
    betas: tuple[_Beta, _Beta] = Field(_BETAS, description="of adam and adamw")
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd and rmsprop")
    nesterov: bool = Field(False, description="sgd looks ahead along its momentum")
    weight_decay: float = Field(
        0.01, ge=0, description="of matrices; adamw takes it from the weights, the others add it to the gradient"
    )
    schedule: Literal["constant", "inverse_sqrt", "cosine", "plateau"] = Field(
        "inverse_sqrt", description="after warm-up; inverse_sqrt with lr = (dim x warmup_steps) ** -0.5 is Noam's"
    )
    warmup_steps: int = Field(1000, ge=0)
    final_lr_share: float = Field(0.0, ge=0, le=1, description="cosine and plateau end at this share of lr")
    plateau: PlateauConfig = PlateauConfig()
    clip_norm: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _options_of_the_kind(self) -> OptimizerConfig:
        if self.betas != _BETAS and self.kind not in ("adam", "adamw"):
            raise ValueError(f"betas are for kind=adam and kind=adamw: {self.kind} has none")
        if self.momentum and self.kind not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is for kind=sgd and kind=rmsprop: with {self.kind} give betas")
        if self.nesterov and not (self.kind == "sgd" and self.momentum):
            raise ValueError("nesterov=true needs kind=sgd and a momentum above 0")
        if self.plateau != PlateauConfig() and self.schedule != "plateau":
            raise ValueError(f"plateau is for schedule=plateau, not {self.schedule}")
        return self


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
