"""The training cuts: all in memory, or read from disk as they are needed, an epoch at a time."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.utils import streaming_shuffle

from asr.config import DataConfig, ExperimentConfig
from asr.data.augment import Variation, derived_random
from asr.data.cuts import Chosen, Dropped, nothing_left, read_split, without_language
from asr.data.examples import spoken_text, target_text
from asr.data.sources import Manifest, Shar, open_source
from asr.data.tasks import for_tasks, task_of
from asr.data.usable import Usable
from asr.errors import DataError
from asr.files import Place
from asr.tasks import into

Item = TypeVar("Item")

_MEASURED = 10_000  # first cuts of a stream's epoch, whose lengths determine the buckets
_SAMPLE = 2_000  # first cuts of a stream, a sample of all
_VOCABULARY_CUTS = 50_000
_BUFFER = 20_000  # cuts from which lhotse draws batches


@dataclass(frozen=True)
class Drawn:
    """The cuts of one epoch, varied and in order; none is longer than `longest_s`.

    sample: cuts whose lengths determine the buckets.  buffer: number of cuts held in the buckets, from which batches
    are drawn; 0: as few as full batches need, for cuts that are shuffled already.
    """

    cuts: Iterable[Cut]
    sample: Sequence[Cut]
    longest_s: float
    buffer: int = 0

    @classmethod
    def listed(cls, cuts: CutSet) -> Drawn:
        """Return an epoch that is in memory."""
        return cls(cuts, cuts, max(cut.duration for cut in cuts), _BUFFER)


class Listed:
    """Cuts in memory: fully shuffled, and bucketed by the lengths of all of them.

    sample: the usable cuts, without augmentation.  longest_s: longest cut that augmentation may make.  dropped: cuts
    that are left out.  countable: whether it is quick to go through an epoch in order to count its batches.
    """

    countable = True

    def __init__(self, config: ExperimentConfig, usable: Usable) -> None:
        self.variation = _variation(config, usable)
        self.sample: Sequence[Cut]
        self.sample, self.dropped = select_usable(config.data.train, config.data, usable.problem)
        longest_s, slowest = max(cut.duration for cut in self.sample), min(config.augment.speeds)
        self.longest_s = max(longest_s, min(longest_s / slowest, config.data.max_duration_s), _join_max_s(config))

    def __str__(self) -> str:
        return f"{len(self.sample)} utterances"

    def epoch(self, epoch: int) -> Drawn:
        """Return the cuts of an epoch, which depend only on the run's seed and the epoch."""
        return Drawn.listed(self.variation.shuffled(self.sample, epoch))


Note = Callable[[Dropped], None]


@contextmanager
def unlisted(epoch: int) -> Iterator[Note]:
    """Ignore the cuts that are left out."""
    yield lambda dropped: None


class Streamed:
    """Cuts read as they are needed, in the source's order except that shards and a buffer of lines are shuffled.

    It has the attributes of Listed; `sample` holds the first usable cuts, and `dropped` none.  listing: opens, for an
    epoch, the callback that gets each cut that is left out in it.
    """

    countable = False

    def __init__(self, config: ExperimentConfig, usable: Usable, source: Manifest | Shar) -> None:
        self.config, self.usable, self.source = config, usable, source
        self.variation = _variation(config, usable)
        self.listing: Callable[[int], AbstractContextManager[Note]] = unlisted
        self.dropped: list[Dropped] = []
        self.longest_s = max(config.data.max_duration_s, _join_max_s(config))
        self.sample: Sequence[Cut] = self._first(_SAMPLE)

    def __str__(self) -> str:
        return "a stream of utterances"

    def epoch(self, epoch: int) -> Drawn:
        """Return the cuts of an epoch, which depend only on the run's seed and the epoch."""
        coming = self.variation.passing(self._told(epoch), epoch)
        sample = list(itertools.islice(coming, _MEASURED))
        return Drawn(itertools.chain(sample, coming), sample, self.longest_s)

    def _told(self, epoch: int) -> Iterator[Cut]:
        with self.listing(epoch) as note:
            yield from self._usable(epoch, note, Chosen(self.config.data.languages))

    def _usable(self, epoch: int, note: Note, chosen: Chosen) -> Iterator[Cut]:
        draw, data = derived_random(self.config.seed, epoch, "order"), self.config.data
        copies = ((line, task) for line in self.source.entries(draw) for task in data.tasks)
        for line, task in streaming_shuffle(copies, data.shuffle_buffer * len(data.tasks), draw):
            if not chosen(cut := line.cut()):
                if task == data.tasks[0] and (lacking := without_language(cut)) is not None:
                    note(lacking)
                continue
            for copy in for_tasks([cut], [task], note):
                if (reason := self.usable.problem(copy)) is None:
                    yield copy
                else:
                    note(Dropped(copy.id, reason))

    def _first(self, count: int) -> list[Cut]:
        left_out: list[Dropped] = []
        chosen = Chosen(self.config.data.languages, times=len(self.config.data.tasks))

        def note(dropped: Dropped) -> None:
            if len(left_out) < count:
                left_out.append(dropped)

        if found := list(itertools.islice(self._usable(0, note, chosen), count)):
            return found
        raise nothing_left(self.source.path, left_out) if chosen.any else chosen.none(self.source.path)


def open_corpus(config: ExperimentConfig, usable: Usable) -> Listed | Streamed:
    """Open the train cuts, in memory or streamed as `data` says.  Raises DataError if there is nothing to train on."""
    if config.data.streamed:
        return Streamed(config, usable, open_source(config.data.train))
    return Listed(config, usable)


def select_usable(
    path: Place, data: DataConfig, problem: Callable[[Cut], str | None]
) -> tuple[list[Cut], list[Dropped]]:
    """Read cuts for the tasks of `data`, and split off those for which `problem` gives a reason.

    Raises DataError if nothing is left.
    """
    kept, missing, dropped = list[Cut](), list[Dropped](), list[Dropped]()
    cuts = read_split(path, data.languages, missing.append)
    for cut in for_tasks(cuts, data.tasks, missing.append):
        if (reason := problem(cut)) is None:
            kept.append(cut)
        else:
            dropped.append(Dropped(cut.id, reason))
    if not kept:
        raise nothing_left(path, missing + dropped)
    return kept, missing + dropped


def vocabulary_texts(config: ExperimentConfig, *, spoken: bool = False) -> Iterator[str]:
    """Yield the training texts of `vocabulary_cuts`.  spoken: also yield what is said in cuts to be translated."""
    for cut in vocabulary_cuts(config.data):
        with suppress(DataError):  # such a cut is reported as left out when its turn comes
            yield target_text(cut, config.normalizer)
            if spoken and into(task_of(cut)) is not None:
                yield spoken_text(cut, config.normalizer)


def vocabulary_cuts(data: DataConfig) -> Iterator[Cut]:
    """Return the cuts from whose texts a vocabulary is trained: all cuts in memory, or a random sample of a stream.

    They are in the chosen languages, usable or not, one for each task.  Raises DataError if there are none.
    """
    return for_tasks(_vocabulary_cuts(data), data.tasks, lambda dropped: None)


def _vocabulary_cuts(data: DataConfig) -> Iterator[Cut]:
    if not data.streamed:
        return iter(read_split(data.train, data.languages))
    lines, chosen = iter(open_source(data.train).lines()), Chosen(data.languages)
    if data.languages is not None:
        lines = (line for line in lines if chosen(line.cut()))
    drawn = _drawn_evenly(lines, _VOCABULARY_CUTS, derived_random("vocabulary"))
    if not drawn:
        raise chosen.none(data.train)
    return (line.cut() for line in drawn)


def _drawn_evenly(items: Iterable[Item], most: int, draw: random.Random) -> list[Item]:
    """Return a uniform random sample of at most `most` items (reservoir sampling, algorithm L, Li 1994)."""
    coming = iter(items)
    kept = list(itertools.islice(coming, most))
    threshold = 1.0
    while True:
        threshold *= (1 - draw.random()) ** (1 / most)
        skipped = int(math.log(1 - draw.random()) / math.log1p(-threshold)) if threshold < 1 else 0
        item = next(itertools.islice(coming, skipped, None), None)
        if item is None:
            return kept
        kept[draw.randrange(most)] = item


def _variation(config: ExperimentConfig, usable: Usable) -> Variation:
    return Variation(config.augment, config.seed, config.data.max_duration_s, usable.fits)


def _join_max_s(config: ExperimentConfig) -> float:
    return config.augment.join_max_s if config.augment.join > 0 else 0.0
