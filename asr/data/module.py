"""The LightningDataModule: training stream and dev batches from manifests of cuts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lhotse import CutSet
from lhotse.cut import Cut

from asr.config import ExperimentConfig
from asr.data.augment import epoch_cuts
from asr.data.batch import Batch, Example, batches_by_length, collate
from asr.data.cuts import Dropped, language_of, read_cuts, select, text_of
from asr.data.examples import Examples
from asr.data.stream import ALONE, BatchLoader, CutBatch, ExampleDataset, Position, Share, TrainingStream, make_batch
from asr.errors import DataError
from asr.losses import ctc_fits
from asr.tokenizer import Tokenizer


def read_split(path: Path, languages: tuple[str, ...] | None) -> CutSet:
    """Read a manifest and keep the chosen languages."""
    cuts = read_cuts(path)
    if languages is None:
        return cuts
    kept, _ = select(cuts, lambda cut: None if language_of(cut) in languages else "another language")
    if len(kept) == 0:
        raise DataError(f"{path}: no cuts in {', '.join(languages)}; check data.languages")
    return kept


class SpeechData(L.LightningDataModule):
    """Training and dev data of an experiment.

    encoder_frames: frames that the encoder gives for so many seconds; a longer target is left out.  Cuts that
    cannot be used stand in `dropped`.  The state is the position in the training stream.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        tokenizer: Tokenizer,
        sample_rate_hz: int,
        max_tokens: int,
        encoder_frames: Callable[[float], int] | None,
    ) -> None:
        super().__init__()
        self.config, self.sample_rate_hz = config, sample_rate_hz
        self.examples = Examples(config, tokenizer, sample_rate_hz)
        self.max_tokens, self.encoder_frames = max_tokens, encoder_frames
        data = config.data
        self.dropped: list[Dropped] = []
        self.train_cuts = self._usable(data.train, self._problem)
        self.dev_cuts = self._usable(data.dev, self._dev_problem)
        train = list(self.train_cuts)
        self.stream = TrainingStream(
            lambda epoch: epoch_cuts(
                train, config.augment, config.seed, epoch, longest_s=data.max_duration_s, fits=self._fits
            ),
            data,
            config.seed,
            config.trainer.max_epochs,
        )
        self.position = Position()

    def _usable(self, path: Path, problem: Callable[[Cut], str | None]) -> CutSet:
        kept, dropped = select(read_split(path, self.config.data.languages), problem)
        if len(kept) == 0:
            reasons = sorted({d.reason for d in dropped})
            raise DataError(f"{path}: every cut was left out ({'; '.join(reasons[:3])})")
        self.dropped += dropped
        return kept

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.position.epoch, "batches": self.position.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = self.stream.start = Position(state_dict["epoch"], state_dict["batches"])

    def train_dataloader(self) -> BatchLoader:
        workers = self.config.data.workers
        return BatchLoader(
            ExampleDataset(self.examples.augmented, self.share, self.examples.count_targets),
            sampler=self.stream,
            batch_size=None,
            num_workers=workers,
            generator=torch.Generator(),  # leaves the global random state alone
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> BatchLoader:
        return BatchLoader(
            ExampleDataset(self.examples.plain),
            sampler=self.share.of(self._dev_batches()),  # type: ignore[arg-type]
            batch_size=None,
            generator=torch.Generator(),
        )

    def largest_batch(self) -> Batch:
        """The wordiest and the longest cuts, as many as fit, as long as augmentation makes them, to try the memory."""
        data, augment = self.config.data, self.config.augment
        cuts = sorted(self.train_cuts, key=lambda cut: -cut.duration)
        longest_s = max(cuts[0].duration, min(cuts[0].duration / min(augment.speeds), data.max_duration_s))
        if augment.join > 0:
            longest_s = max(longest_s, augment.join_max_s)
        count = max(1, int(data.batch_duration_s / longest_s))
        samples = round(longest_s * self.sample_rate_hz)
        wordiest = max(cuts, key=lambda cut: len(text_of(cut)))
        chosen = [wordiest, *(cut for cut in cuts if cut is not wordiest)][: min(count, data.batch_size or count)]
        own = self.share.of(chosen)
        return collate([_stretched(self.examples.plain(cut), samples, self.max_tokens) for cut in own])

    def dev_batch(self, cuts: Sequence[Cut]) -> Batch:
        """A batch of cuts as they are, without augmentation."""
        return make_batch(CutBatch(CutSet.from_cuts(cuts), Position()), self.examples.plain)

    @property
    def share(self) -> Share:
        """What of each batch is this process's."""
        trainer = self.trainer
        return Share(trainer.global_rank, trainer.world_size) if isinstance(trainer, L.Trainer) else ALONE

    def _dev_batches(self) -> list[CutBatch]:
        cuts, data, rate = list(self.dev_cuts), self.config.data, self.sample_rate_hz
        samples = [round(cut.duration * rate) for cut in cuts]
        batches = batches_by_length(samples, round(data.batch_duration_s * rate), data.batch_size)
        return [CutBatch(CutSet.from_cuts([cuts[c] for c in batch]), Position(0, i)) for i, batch in enumerate(batches)]

    def _dev_problem(self, cut: Cut) -> str | None:
        most = self.config.decode.window_s
        if cut.duration > most:
            return f"dev cut of {cut.duration:.1f} s is longer than decode.window_s={most:g}"
        return self._target_problem(cut, None)

    def _problem(self, cut: Cut) -> str | None:
        data = self.config.data
        fastest_s = cut.duration / max(self.config.augment.speeds)
        if not data.min_duration_s <= cut.duration or max(cut.duration, fastest_s) > data.max_duration_s:
            return f"duration {cut.duration:.2f} s is outside {data.min_duration_s:g} to {data.max_duration_s:g} s"
        if not text_of(cut).strip():
            return "no text"
        return self._target_problem(cut, fastest_s)

    def _fits(self, joined: Cut) -> bool:
        return self._target_problem(joined, joined.duration) is None

    def _target_problem(self, cut: Cut, duration_s: float | None) -> str | None:
        """Why the cut's target cannot be trained on; without a duration, why its loss cannot be computed at all."""
        try:
            text, tokens, prefix_length = self.examples.tokens(cut)
        except DataError as e:
            return str(e)
        if duration_s is not None and not text.strip():
            return "no text is left after normalisation"
        if len(tokens) > self.max_tokens:
            return f"target of {len(tokens)} tokens is longer than the decoder's max_length={self.max_tokens}"
        if self.encoder_frames is not None and duration_s is not None:
            frames = self.encoder_frames(duration_s)
            if not ctc_fits(frames, tokens[prefix_length:-1]):
                return f"target of {len(tokens) - prefix_length - 1} tokens does not fit {frames} encoder frames"
        return None


def _stretched(example: Example, samples: int, max_tokens: int) -> Example:
    """The example said over and over until it is `samples` long."""
    times = samples / len(example.audio_N)
    audio_N = example.audio_N.repeat(math.ceil(times))[:samples]
    text = example.tokens[example.prefix_length : -1]
    text = (text * math.ceil(times))[: min(math.ceil(len(text) * times), max_tokens - example.prefix_length - 1)]
    tokens = [*example.tokens[: example.prefix_length], *text, example.tokens[-1]]
    return replace(example, audio_N=audio_N, tokens=tokens)


def dropped_summary(dropped: list[Dropped]) -> str:
    """One line a cut."""
    return "".join(f"{d.id}\t{d.reason}\n" for d in dropped)
