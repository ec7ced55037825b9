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

    rare_below: int = Field(5, gt=0, description="a word is rare if the training texts have it less often than this")
    keep: float = Field(
        0.7,
        ge=0,
        le=1,
        description="probability that a rare word of the utterance is in its list; below 1, the model learns to do "
        "without",
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
    """Manifests (lhotse cuts) or Shar folders, and how they are put into batches."""

    train: Location = Field(
        description="what is trained on: a manifest of lhotse cuts (.jsonl, .jsonl.gz) or a folder of shards that "
        "lhotse wrote (Shar); a path or a URL"
    )
    dev: Location = Field(
        description="speech of the same form, which validations decode and the best model is chosen by; cuts longer "
        "than decode.window_s are left out"
    )
    stream: bool = Field(
        False,
        description="read the train cuts as they are needed, not into memory, for a million cuts and more; a Shar "
        "folder always is read so",
    )
    shuffle_buffer: int = Field(
        50_000,
        gt=0,
        description="with a stream: cuts that are held and shuffled at a time; more for a manifest that is sorted",
    )
    languages: tuple[str, ...] | None = Field(
        None, description="keep only cuts in these languages, such as [en, es]; default: all"
    )
    tasks: tuple[Task, ...] = Field(
        (TRANSCRIBE,),
        min_length=1,
        description="what is trained: [transcribe], [translate:en], [transcribe, translate:de] and so on, each cut on "
        "those that it has the text for; with a translation, a vocabulary that is made has a token for each task",
    )
    min_duration_s: float = Field(0.1, ge=0, description="train cuts of fewer seconds are left out")
    max_duration_s: float = Field(
        30.0, gt=0, description="train cuts of more seconds are left out; lower it where memory is short"
    )
    batch_duration_s: float = Field(
        120.0,
        gt=0,
        description="seconds of audio in a batch, padding included, of all processes together; lower it where memory "
        "is short",
    )
    batch_size: int | None = Field(
        None, gt=0, description="most utterances in a batch; default: as many as batch_duration_s holds"
    )
    buckets: int = Field(
        10,
        gt=0,
        description="groups of like length that batches are drawn from: with more there is less padding, and batches "
        "are less mixed",
    )
    workers: int = Field(
        2,
        ge=0,
        description="processes that load audio for each process that trains; 0: it loads its own; more where run.json "
        "has a high waited_for_data_s",
    )
    phrases: PhraseListConfig | None = Field(
        None, description="phrase lists for a model whose decoder has a pointer, {} for their defaults; default: none"
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
        """Whether the train cuts are read as they are needed."""
        return self.stream or is_folder(self.train)


class AugmentConfig(Config):
    """Changes to the training data; every draw is a function of the seed and of when an utterance comes."""

    speeds: tuple[Annotated[float, Field(ge=0.1, le=10)], ...] = Field(
        (1.0,),
        min_length=1,
        description="speed perturbation (Ko et al. 2015): one factor is drawn for each utterance of those listed, "
        "such as [0.9, 1.0, 1.1]; [1.0]: off",
    )
    join: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a further clip of the same language is appended to an utterance, then perhaps "
        "another; 0: off",
    )
    join_max_s: float = Field(12.0, gt=0, description="seconds beyond which no clip is appended")
    noise: Path | None = Field(
        None, description="folder of audio files, noise or music, to mix in; goes with noise_probability"
    )
    noise_probability: float = Field(0.0, ge=0, le=1, description="probability that an utterance gets noise; 0: off")
    noise_snr_db: tuple[float, float] = Field(
        (5.0, 20.0),
        description="[least, most] signal-to-noise ratio in dB, drawn evenly for each utterance; the less, the noisier",
    )
    time_masks: int = Field(
        0,
        ge=0,
        description="SpecAugment (Park et al. 2019): masked stretches of frames in each utterance; 0: off, 2 is usual",
    )
    time_mask_frames: int = Field(
        40,
        ge=1,
        description="widest time mask, in feature frames (10 ms each, unless features.hop_ms differs); widths are "
        "drawn from 0 up to it",
    )
    time_mask_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="largest share of an utterance's frames that its time masks cover together (adaptive, Park et al. "
        "2020)",
    )
    freq_masks: int = Field(
        0, ge=0, description="SpecAugment: masked bands of mel bins in each utterance; 0: off, 2 is usual"
    )
    freq_mask_bins: int = Field(
        27, ge=1, description="widest frequency mask, in mel bins of features.n_mels; widths are drawn from 0 up to it"
    )
    token_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the decoder's input tokens that random ones replace in training, with an attention "
        "decoder (Xie et al. 2017); 0: off",
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
