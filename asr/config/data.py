"""The options of the training data: what is read, how it becomes batches, and how it is varied."""

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
