"""The LightningDataModule: training stream and dev batches from manifests of cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import lightning as L
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch.utils.data import DataLoader

from asr.config import ExperimentConfig
from asr.data.augment import NoiseMixer, epoch_cuts
from asr.data.batch import Batch, Example
from asr.data.cuts import Dropped, language_of, load_audio, pieces, read_cuts, select, text_of
from asr.data.stream import CutBatch, ExampleDataset, Position, TrainingStream
from asr.errors import DataError
from asr.losses import ctc_fits
from asr.text import normalizer
from asr.tokenizer import Tokenizer

_cached_normalizer = cache(normalizer)


def target_text(cut: Cut, normalizer_name: str) -> str:
    """The text of a cut as it is trained on."""
    return _cached_normalizer(normalizer_name, language_of(cut))(text_of(cut))


def read_split(path: Any, languages: tuple[str, ...] | None) -> CutSet:
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
        self.config, self.tokenizer, self.sample_rate_hz = config, tokenizer, sample_rate_hz
        self.max_tokens, self.encoder_frames = max_tokens, encoder_frames
        self.noise = NoiseMixer(config.augment, sample_rate_hz, config.seed)
        data = config.data
        self.train_cuts, self.dropped = select(read_split(data.train, data.languages), self._problem)
        if len(self.train_cuts) == 0:
            reasons = sorted({d.reason for d in self.dropped})
            raise DataError(f"{data.train}: every cut was left out ({'; '.join(reasons[:3])})")
        self.dev_cuts, dev_dropped = select(read_split(data.dev, data.languages), self._dev_problem)
        self.dropped += dev_dropped
        train = list(self.train_cuts)
        self.stream = TrainingStream(
            lambda epoch: epoch_cuts(train, config.augment, config.seed, epoch),
            data,
            config.seed,
            config.trainer.max_epochs,
        )
        self.position = Position()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.position.epoch, "batches": self.position.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = self.stream.start = Position(state_dict["epoch"], state_dict["batches"])

    def train_dataloader(self) -> DataLoader[Batch]:
        workers = self.config.data.workers
        return DataLoader(
            ExampleDataset(self._training_example),
            sampler=self.stream,
            batch_size=None,
            num_workers=workers,
            generator=torch.Generator(),  # leaves the global random state alone
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(
            ExampleDataset(self._example),
            sampler=self._dev_batches(),  # type: ignore[arg-type]
            batch_size=None,
            generator=torch.Generator(),
        )

    def largest_batch(self) -> Batch:
        """The batch with the longest cuts that the frame budget allows, to try the memory with."""
        data, slowest = self.config.data, min(self.config.augment.speeds)
        cuts = sorted(self.train_cuts, key=lambda cut: -cut.duration)
        longest_s = cuts[0].duration / slowest
        if self.config.augment.join > 0:
            longest_s = max(longest_s, self.config.augment.join_max_s)
        count = max(1, int(data.batch_duration_s / longest_s))
        return self.dev_batch(cuts[: min(count, data.batch_size or count)])

    def dev_batch(self, cuts: Sequence[Cut]) -> Batch:
        """A batch of cuts as they are, without augmentation."""
        return ExampleDataset(self._example)[CutBatch(CutSet.from_cuts(cuts), Position())]

    def _dev_batches(self) -> list[CutBatch]:
        batches: list[list[Cut]] = [[]]
        for cut in sorted(self.dev_cuts, key=lambda cut: -cut.duration):
            batch = batches[-1]
            if batch and (len(batch) + 1) * batch[0].duration > self.config.data.batch_duration_s:
                batches.append([])
            batches[-1].append(cut)
        return [CutBatch(CutSet.from_cuts(b), Position(0, i)) for i, b in enumerate(batches)]

    def _tokens(self, cut: Cut) -> tuple[str, list[int], int]:
        text = target_text(cut, self.config.normalizer)
        language = language_of(cut)
        prefix = self.tokenizer.prefix(language if self.tokenizer.languages else None)
        return text, [*prefix, *self.tokenizer.encode(text), self.tokenizer.eos_id], len(prefix)

    def _example(self, cut: Cut, epoch: int = 0) -> Example:
        text, tokens, prefix_length = self._tokens(cut)
        audio_N = load_audio(cut, self.sample_rate_hz)
        return Example(cut.id, audio_N, text, tokens, prefix_length, language_of(cut))

    def _training_example(self, cut: Cut, epoch: int) -> Example:
        text, tokens, prefix_length = self._tokens(cut)
        audio_N, noisy = self.noise(load_audio(cut, self.sample_rate_hz), cut.id, epoch)
        clips = [clip for _, clip in pieces(cut)]
        applied = {"noise": noisy, "join": len(clips) > 1, "speed": bool(clips[0].recording.transforms)}
        names = tuple(name for name, was in applied.items() if was)
        return Example(cut.id, audio_N, text, tokens, prefix_length, language_of(cut), names)

    def _dev_problem(self, cut: Cut) -> str | None:
        most = self.config.decode.window_s
        if cut.duration > most:
            return f"dev cut of {cut.duration:.1f} s is longer than decode.window_s={most:g}"
        return None

    def _problem(self, cut: Cut) -> str | None:
        data = self.config.data
        if not data.min_duration_s <= cut.duration <= data.max_duration_s:
            return f"duration {cut.duration:.2f} s is outside {data.min_duration_s:g} to {data.max_duration_s:g} s"
        try:
            text, tokens, prefix_length = self._tokens(cut)
        except DataError as e:
            return str(e)
        if not text.strip():
            return "no text is left after normalisation"
        if len(tokens) > self.max_tokens:
            return f"target of {len(tokens)} tokens is longer than the decoder's max_length={self.max_tokens}"
        if self.encoder_frames is not None:
            frames = self.encoder_frames(cut.duration / max(self.config.augment.speeds))
            if not ctc_fits(frames, tokens[prefix_length:-1]):
                return f"target of {len(tokens) - prefix_length - 1} tokens does not fit {frames} encoder frames"
        return None


def dropped_summary(dropped: list[Dropped]) -> str:
    """One line a cut."""
    return "".join(f"{d.id}\t{d.reason}\n" for d in dropped)
