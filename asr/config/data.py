"""The options of the training data: what is read, how it is batched, and how it is augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from asr.files import is_folder
from asr.tasks import TASK, TRANSCRIBE, into

from .base import Config, Location

Distractors = Annotated[int, Field(ge=0, le=100_000)]
Task = Annotated[str, StringConstraints(pattern=rf"^({TASK})$")]


class PhraseListConfig(Config):
    """The phrase lists that a pointer is trained with: rare words of the utterance and of others (distractors)."""

    rare_below: int = Field(
        5, gt=0, description="a word is rare if it occurs less often than this in the training texts"
    )
    keep: float = Field(
        0.7,
        ge=0,
        le=1,
        description="probability that a rare word of the utterance is in its list; below 1, the model learns to do "
        "without the list",
    )
    distractors: tuple[Distractors, Distractors] = Field(
        (10, 100), description="[fewest, most] rare words of other utterances in a list"
    )

    @model_validator(mode="after")
    def _fewest_first(self) -> PhraseListConfig:
        low, high = self.distractors
        if low > high:
            raise ValueError(f"distractors: the fewest, {low}, are more than the most, {high}")
        return self


class DataConfig(Config):
    """Manifests (lhotse cuts) or Shar folders, and how they are batched."""

    train: Location = Field(
        description="training data: a manifest of lhotse cuts (.jsonl, .jsonl.gz) or a folder of shards that lhotse "
        "wrote (Shar); a path or a URL"
    )
    dev: Location = Field(
        description="validation data in the same form, by which the best model is chosen; cuts longer than "
        "decode.window_s are left out"
    )
    stream: bool = Field(
        False,
        description="read the train cuts as they are needed, not into memory, for a million cuts or more; a Shar "
        "folder is always read so",
    )
    shuffle_buffer: int = Field(
        50_000,
        gt=0,
        description="with a stream: number of cuts held and shuffled at a time; take more for a manifest that is "
        "sorted",
    )
    languages: tuple[str, ...] | None = Field(
        None, description="keep only cuts in these languages, such as [en, es]; default: all"
    )
    tasks: tuple[Task, ...] = Field(
        (TRANSCRIBE,),
        min_length=1,
        description="tasks to train, such as [transcribe], [translate:en] or [transcribe, translate:de]; each cut is "
        "used for those that it has the text for; with a translation, a newly trained vocabulary has a token for each "
        "task",
    )
    min_duration_s: float = Field(0.1, ge=0, description="shorter train cuts, in seconds, are left out")
    max_duration_s: float = Field(
        30.0, gt=0, description="longer train cuts, in seconds, are left out; lower it if memory is short"
    )
    batch_duration_s: float = Field(
        120.0,
        gt=0,
        description="seconds of audio in a batch with its padding, over all processes together; lower it if memory is "
        "short",
    )
    batch_size: int | None = Field(
        None, gt=0, description="most utterances in a batch; default: as many as batch_duration_s allows"
    )
    buckets: int = Field(
        10,
        gt=0,
        description="groups of similar length from which batches are drawn: more of them mean less padding, and "
        "batches that are less mixed",
    )
    workers: int = Field(
        2,
        ge=0,
        description="processes that load audio for each training process; 0: it loads its own; take more if "
        "waited_for_data_s in run.json is high",
    )
    phrases: PhraseListConfig | None = Field(
        None, description="phrase lists for a model whose decoder has a pointer; {}: with their defaults; default: none"
    )

    @field_validator("languages")
    @classmethod
    def _some_language(cls, languages: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if languages is not None and not languages:
            raise ValueError("an empty list chooses no cut; write null for all languages")
        return languages

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
        """Whether the train cuts are read as they are needed, not into memory."""
        return self.stream or is_folder(self.train)


class AugmentConfig(Config):
    """Augmentation of the training data; a draw depends only on the seed, the utterance and its place in training."""

    speeds: tuple[Annotated[float, Field(ge=0.1, le=10)], ...] = Field(
        (1.0,),
        min_length=1,
        description="speed perturbation (Ko et al. 2015): factors of which one is drawn for each utterance, such as "
        "[0.9, 1.0, 1.1]; [1.0]: off",
    )
    join: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that another clip in the same language is appended to an utterance, and after each "
        "clip that yet another is; 0: off",
    )
    join_max_s: float = Field(12.0, gt=0, description="longest utterance, in seconds, that may result from joining")
    noise: Path | None = Field(
        None, description="folder of audio files with noise or music to mix in; goes with noise_probability"
    )
    noise_probability: float = Field(0.0, ge=0, le=1, description="probability that an utterance gets noise; 0: off")
    noise_snr_db: tuple[float, float] = Field(
        (5.0, 20.0),
        description="[lowest, highest] signal-to-noise ratio in dB, drawn uniformly for each utterance",
    )
    time_masks: int = Field(
        0,
        ge=0,
        description="SpecAugment (Park et al. 2019): number of masked spans of frames in each utterance; 0: off, 2 is "
        "usual",
    )
    time_mask_frames: int = Field(
        40,
        ge=1,
        description="widest time mask, in feature frames (10 ms each, unless features.hop_ms differs); widths are "
        "drawn from 0 to this",
    )
    time_mask_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="largest share of an utterance's frames that its time masks may cover together (adaptive, Park et "
        "al. 2020)",
    )
    freq_masks: int = Field(
        0, ge=0, description="SpecAugment: number of masked bands of mel bins in each utterance; 0: off, 2 is usual"
    )
    freq_mask_bins: int = Field(
        27,
        ge=1,
        description="widest frequency mask, in mel bins, fewer than features.n_mels; widths are drawn from 0 to this",
    )
    token_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the decoder's input tokens that are replaced by random ones in training, with an "
        "attention decoder (Xie et al. 2017); 0: off",
    )
    unpadded: float = Field(
        0.0,
        ge=0,
        le=1,
        description="with features.kind=whisper: probability that an utterance is trained on without the silence that "
        "fills its window",
    )

    @property
    def spec_augment(self) -> bool:
        """Whether any mask is drawn."""
        return self.time_masks > 0 or self.freq_masks > 0
