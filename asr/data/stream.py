"""The training stream: batches of cuts of similar duration, epoch after epoch, from any position on."""

from __future__ import annotations

import itertools
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, TypeVar

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import FixedBucketBatchSizeConstraint, estimate_duration_buckets
from torch.utils.data import DataLoader, Dataset, Sampler

from asr.config import DataConfig
from asr.data.batch import Batch, Example, collate
from asr.data.corpus import Drawn
from asr.errors import AsrError

Item = TypeVar("Item")

# Of a stream: batches of each bucket held in the buffer, on average, and the fewest cuts in all.
_BATCHES_HELD, _LEAST_HELD = 8, 2000


class Position(NamedTuple):
    """Position in the training stream: the number of `batches` of epoch `epoch` that are done."""

    epoch: int = 0
    batches: int = 0


class CutBatch(NamedTuple):
    """The cuts of one batch and its position in the stream.  of_step: all batches of its optimiser step."""

    cuts: CutSet
    position: Position
    of_step: tuple[CutSet, ...] = ()


class TrainingStream(Sampler[CutBatch]):
    """Batches of `max_epochs` epochs, or endlessly many, over the training cuts.

    The batches of an epoch depend only on seed and epoch (`cuts_of_epoch` gives its cuts), so a run resumes from a
    position by making that epoch's batches anew and skipping those that are done; `on_passed` gets the number of
    skipped batches and how many there are to skip.  accumulate: batches per optimiser step; a run resumes only between
    steps.
    """

    def __init__(
        self,
        cuts_of_epoch: Callable[[int], Drawn],
        config: DataConfig,
        seed: int,
        max_epochs: int | None,
        accumulate: int = 1,
    ) -> None:
        self.cuts_of_epoch, self.config, self.seed = cuts_of_epoch, config, seed
        self.max_epochs, self.accumulate = max_epochs, accumulate
        self.start = Position()
        self.on_passed: Callable[[int, int], None] = lambda passed, of: None

    def epoch(self, epoch: int) -> Iterator[CutSet]:
        """Yield the batches of one epoch, drawn in random order from buckets of cuts of similar duration."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*eagerly read CutSet.*")  # a listed epoch fits into memory
            sampler = self._sampler(self.cuts_of_epoch(epoch), epoch)
        yield from sampler

    def _sampler(self, drawn: Drawn, epoch: int) -> DynamicBucketingSampler:
        """Return a sampler of buckets with equal shares of the audio; the longest cut of a bucket sets its batch size.

        Cuts longer than any in the sample have a bucket of their own.  (With `max_duration`, lhotse would let the last
        cut of a batch exceed the budget, and the batch tried before training would not be the largest.)
        """
        count = min(self.config.buckets, len(drawn.sample))
        inner_s = estimate_duration_buckets(drawn.sample, count) if count > 1 else []
        longest_s = [*inner_s, max(cut.duration for cut in drawn.sample)]
        if longest_s[-1] < drawn.longest_s:
            longest_s.append(drawn.longest_s)
        sizes = [max(1, int(self.config.batch_duration_s / s)) for s in longest_s]
        if self.config.batch_size is not None:
            sizes = [min(size, self.config.batch_size) for size in sizes]
        return DynamicBucketingSampler(
            drawn.cuts,
            # Not bounded by longest_s: a changed speed, rounded to samples, may make a cut slightly longer.
            constraint=FixedBucketBatchSizeConstraint([*longest_s[:-1], math.inf], sizes),
            duration_bins=longest_s[:-1],
            num_buckets=len(longest_s),
            shuffle=True,
            seed=self.seed + epoch,
            buffer_size=drawn.buffer or max(_LEAST_HELD, _BATCHES_HELD * sum(sizes)),
            world_size=1,
            rank=0,
        )

    def __iter__(self) -> Iterator[CutBatch]:
        coming = self._coming()
        while step := list(itertools.islice(coming, self.accumulate)):
            of_step = tuple(batch.cuts for batch in step)
            yield from (batch._replace(of_step=of_step) for batch in step)

    def _coming(self) -> Iterator[CutBatch]:
        epochs = (
            itertools.count(self.start.epoch) if self.max_epochs is None else range(self.start.epoch, self.max_epochs)
        )
        for epoch in epochs:
            done = self.start.batches if epoch == self.start.epoch else 0
            for index, cuts in enumerate(self.epoch(epoch)):
                if index >= done:
                    yield CutBatch(cuts, Position(epoch, index))
                else:
                    self.on_passed(index + 1, done)


class Share(NamedTuple):
    """The part of each batch that belongs to a process."""

    rank: int = 0
    processes: int = 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return every `processes`-th item; if none is left, the first one, since every process needs a batch."""
        return list(items[self.rank :: self.processes] or items[:1])


ALONE = Share()


class ExampleDataset(Dataset["Batch | AsrError"]):
    """Turns this process's share of a batch of cuts into waveforms and tokens; runs in the loader's workers.

    count_targets: number of target tokens of a cut, by which a batch knows its share in its optimiser step's loss.  For
    an utterance that cannot be used, the item is the error itself: torch would raise a worker's exception with the
    worker's traceback as its message.
    """

    def __init__(
        self,
        make_example: Callable[[Cut, int], Example],
        share: Share = ALONE,
        count_targets: Callable[[Cut], int] | None = None,
        accumulate: int = 1,
    ) -> None:
        self.make_example, self.share, self.count_targets = make_example, share, count_targets
        self.parts = share.processes * accumulate  # parts of a step, over which torch and Lightning take the mean

    def __getitem__(self, batch: CutBatch) -> Batch | AsrError:  # type: ignore[override]
        try:
            return self._part(batch) if self.parts > 1 else make_batch(batch, self.make_example)
        except AsrError as e:
            return e

    def _part(self, batch: CutBatch) -> Batch:
        cuts = list(batch.cuts)
        made = make_batch(batch._replace(cuts=CutSet.from_cuts(self.share.of(cuts))), self.make_example)
        weight = float(self.parts) if self.share.rank < len(cuts) else 0.0
        if self.count_targets is None:
            return replace(made, weight=weight)
        of_step = list(itertools.chain.from_iterable(batch.of_step))
        targets = sum(map(self.count_targets, of_step))
        return replace(made, step_targets=targets, step_utterances=len(of_step), weight=weight)


def make_batch(batch: CutBatch, make_example: Callable[[Cut, int], Example]) -> Batch:
    """Load the cuts of a batch and pad them."""
    epoch, index = batch.position
    return collate([make_example(cut, epoch) for cut in batch.cuts], epoch, index)


class BatchLoader(DataLoader["Batch | AsrError"]):
    """Yields the batches of an ExampleDataset, and raises its errors in the process that iterates.

    waited_s: seconds spent waiting for batches so far.
    """

    waited_s = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        coming = super().__iter__()
        while True:
            asked = time.monotonic()
            item = next(coming, None)
            self.waited_s += time.monotonic() - asked
            if item is None:
                return
            if isinstance(item, AsrError):
                raise item
            yield item


def start_worker(number: int) -> None:
    """Prepare a worker of a BatchLoader: if training is stopped while the worker hands over a batch, it says nothing.

    multiprocessing's thread for handing over tensors gives all errors to sys.excepthook, also that nobody listens.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, ConnectionError | EOFError):
            before(kind, error, trace)

    sys.excepthook = hook
