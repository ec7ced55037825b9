"""The training stream: batches of cuts of like duration, epoch after epoch, from any position on."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler
from torch.utils.data import Dataset, Sampler

from asr.config import DataConfig
from asr.data.batch import Batch, Example, collate


class Position(NamedTuple):
    """How far training has come: `batches` of epoch `epoch` are done."""

    epoch: int = 0
    batches: int = 0


class CutBatch(NamedTuple):
    """The cuts of one batch and where it stands in the stream."""

    cuts: CutSet
    position: Position


class TrainingStream(Sampler[CutBatch]):
    """Batches of an endless, or `max_epochs` long, run over the training cuts.

    The batches of an epoch are a function of seed and epoch (`cuts_of_epoch` gives its cuts), so a run goes on
    from a position by making that epoch's batches anew and passing over those that are done.
    """

    def __init__(
        self, cuts_of_epoch: Callable[[int], CutSet], config: DataConfig, seed: int, max_epochs: int | None
    ) -> None:
        self.cuts_of_epoch, self.config, self.seed = cuts_of_epoch, config, seed
        self.max_epochs = max_epochs
        self.start = Position()

    def epoch(self, epoch: int) -> Iterator[CutSet]:
        """The batches of one epoch."""
        cuts = self.cuts_of_epoch(epoch)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*eagerly read CutSet.*")  # an epoch's cuts fit into memory
            sampler = self._sampler(cuts, epoch)
        yield from sampler

    def _sampler(self, cuts: CutSet, epoch: int) -> DynamicBucketingSampler:
        return DynamicBucketingSampler(
            cuts,
            max_duration=self.config.batch_duration_s,
            max_cuts=self.config.batch_size,
            num_buckets=max(1, min(self.config.buckets, len(cuts) // 2)),
            shuffle=True,
            seed=self.seed + epoch,
            world_size=1,
            rank=0,
        )

    def __iter__(self) -> Iterator[CutBatch]:
        epochs = (
            itertools.count(self.start.epoch) if self.max_epochs is None else range(self.start.epoch, self.max_epochs)
        )
        for epoch in epochs:
            done = self.start.batches if epoch == self.start.epoch else 0
            for index, cuts in enumerate(self.epoch(epoch)):
                if index >= done:
                    yield CutBatch(cuts, Position(epoch, index))


class ExampleDataset(Dataset[Batch]):
    """Turn a batch of cuts into a batch of waveforms and tokens; runs in the loader's workers."""

    def __init__(self, make_example: Callable[..., Example]) -> None:
        self.make_example = make_example

    def __getitem__(self, batch: CutBatch) -> Batch:  # type: ignore[override]
        epoch, index = batch.position
        return collate([self.make_example(cut, epoch) for cut in batch.cuts], epoch, index)
