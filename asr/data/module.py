"""The LightningDataModule: the training stream and dev batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import lightning as L
import torch
from lhotse import CutSet
from lhotse.cut import Cut

from asr.config import ExperimentConfig
from asr.data.batch import Batch, Example, batches_by_length, collate
from asr.data.corpus import open_corpus, select_usable
from asr.data.cuts import Dropped, text_of
from asr.data.examples import Examples
from asr.data.phrases import lists_of
from asr.data.stream import (
    ALONE,
    BatchLoader,
    CutBatch,
    ExampleDataset,
    Position,
    Share,
    TrainingStream,
    make_batch,
    start_worker,
)
from asr.data.usable import Usable
from asr.tokenizer import Tokenizer

LEAST_DEV_S = 64.0  # smaller batches take up to twice as long to decode, and without gradients these need little memory


class SpeechData(L.LightningDataModule):
    """Training and dev data of an experiment.

    window_s: longest dev cut, since dev cuts are decoded whole.  encoder_frames: number of encoder frames for a
    duration in seconds; cuts whose CTC target does not fit into them are left out; None: no such check.
    `dropped` lists the unusable cuts, except those of a streamed corpus, which are found as they come.  The state is
    the position in the training stream and the time waited for data.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        tokenizer: Tokenizer,
        sample_rate_hz: int,
        max_tokens: int,
        window_s: float,
        encoder_frames: Callable[[float], int] | None,
    ) -> None:
        super().__init__()
        self.config, self.sample_rate_hz, self.max_tokens = config, sample_rate_hz, max_tokens
        self.examples = Examples(config, tokenizer, sample_rate_hz, lists_of(config, tokenizer))
        usable = Usable(config, self.examples, max_tokens, window_s, encoder_frames)
        self.corpus = open_corpus(config, usable)
        self.dev_cuts, dropped = select_usable(config.data.dev, config.data, usable.dev_problem)
        self.dropped = self.corpus.dropped + dropped
        trainer = config.trainer
        self.stream = TrainingStream(
            self.corpus.epoch, config.data, config.seed, trainer.max_epochs, trainer.accumulate
        )
        self.position = Position()
        self.waited_before_s = 0.0
        self.loader: BatchLoader | None = None

    @property
    def train_cuts(self) -> Sequence[Cut]:
        """The train cuts without augmentation; of a streamed corpus, the first ones."""
        return self.corpus.sample

    def state_dict(self) -> dict[str, Any]:
        return {**self.position._asdict(), "waited_s": self.waited_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = self.stream.start = Position(state_dict["epoch"], state_dict["batches"])
        self.waited_before_s = state_dict["waited_s"]

    @property
    def waited_s(self) -> float:
        """Seconds that training has waited for its batches in this process, since the run's first start."""
        return self.waited_before_s + (0.0 if self.loader is None else self.loader.waited_s)

    def train_dataloader(self) -> BatchLoader:
        workers = self.config.data.workers
        self.loader = BatchLoader(
            ExampleDataset(
                self.examples.augmented, self.share, self.examples.count_targets, self.config.trainer.accumulate
            ),
            sampler=self.stream,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # leaves the global random state alone
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
        )
        return self.loader

    def val_dataloader(self) -> BatchLoader:
        return BatchLoader(
            ExampleDataset(self.examples.plain),
            sampler=self.share.of(self._dev_batches()),
            batch_size=None,
            generator=torch.Generator(),
        )

    def largest_batch(self) -> Batch:
        """Return a batch for trying the memory: the cut with the longest text and the longest cuts, as many as fit,
        each as long as augmentation may make it.
        """
        data, longest_s = self.config.data, self.corpus.longest_s
        cuts = sorted(self.train_cuts, key=lambda cut: -cut.duration)
        count = max(1, int(data.batch_duration_s / longest_s))
        samples = round(longest_s * self.sample_rate_hz)
        wordiest = max(cuts, key=lambda cut: len(text_of(cut)))
        chosen = [wordiest, *(cut for cut in cuts if cut is not wordiest)][: min(count, data.batch_size or count)]
        own = self.share.of(chosen)
        return collate([_stretched(self.examples.plain(cut), samples, self.max_tokens) for cut in own])

    def dev_batch(self, cuts: Sequence[Cut]) -> Batch:
        """Return a batch of cuts without augmentation."""
        return make_batch(CutBatch(CutSet.from_cuts(cuts), Position()), self.examples.plain)

    @property
    def share(self) -> Share:
        """This process's share of each batch."""
        trainer = self.trainer
        return Share(trainer.global_rank, trainer.world_size) if isinstance(trainer, L.Trainer) else ALONE

    def _dev_batches(self) -> list[CutBatch]:
        """Return batches of dev, each for one process: as large as its share of a batch of training, or larger."""
        cuts, data, rate = list(self.dev_cuts), self.config.data, self.sample_rate_hz
        samples = [round(cut.duration * rate) for cut in cuts]
        most = round(max(data.batch_duration_s / self.share.processes, LEAST_DEV_S) * rate)
        batches = batches_by_length(samples, most, data.batch_size)
        return [CutBatch(CutSet.from_cuts([cuts[c] for c in batch]), Position(0, i)) for i, batch in enumerate(batches)]


def data_given_to(trainer: L.Trainer) -> SpeechData:
    """Return the data module of a trainer."""
    data = cast(Any, trainer).datamodule
    assert isinstance(data, SpeechData)
    return data


def _stretched(example: Example, samples: int, max_tokens: int) -> Example:
    """Repeat an example, audio and text, until it is `samples` long."""
    times = samples / len(example.audio_N)
    audio_N = example.audio_N.repeat(math.ceil(times))[:samples]
    prefix_length = example.prefix_length

    def longer(tokens: list[int]) -> list[int]:
        return (tokens * math.ceil(times))[: min(math.ceil(len(tokens) * times), max_tokens - prefix_length - 1)]

    text = longer(example.tokens[prefix_length:-1])
    tokens = [*example.tokens[:prefix_length], *text, example.tokens[-1]]
    return replace(example, audio_N=audio_N, tokens=tokens, spoken=longer(example.spoken))


def dropped_summary(dropped: list[Dropped]) -> str:
    """Return a line "id, tab, reason" for each dropped cut."""
    return "".join(f"{d.id}\t{d.reason}\n" for d in dropped)
