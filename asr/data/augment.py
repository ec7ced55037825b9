"""Augmentation of training audio, drawn by seed, epoch and utterance: the same in any worker and after any restart."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lhotse import CutSet
from lhotse.cut import Cut, MixedCut, MixTrack
from torch import Tensor

from asr.audio import open_audio
from asr.config import AugmentConfig
from asr.data.cuts import language_of, pieces
from asr.data.tasks import task_of
from asr.errors import AudioError, DataError
from asr.files import is_media
from asr.resampling import resample

MOST_KEPT_SAMPLES = 64 << 20  # samples of decoded noise that a worker keeps: 256 MB
_LATELY = 1000  # most recent cuts of a stream, from which clips to join are drawn


Kind = tuple[str | None, str]  # language of the speech, task


def _kind(cut: Cut) -> Kind:
    return language_of(cut), task_of(cut)


def derived_random(*key: object) -> random.Random:
    """Return a random generator that depends only on its key."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "little"))


@dataclass(frozen=True)
class Variation:
    """Variation of the cuts of an epoch: each gets a random speed, some are joined with further clips.

    Speeds that make a cut longer than `longest_s` are not drawn, unless all of them do; clips are joined only if `fits`
    accepts the result.
    """

    config: AugmentConfig
    seed: int
    longest_s: float = math.inf
    fits: Callable[[Cut], bool] = lambda cut: True

    def shuffled(self, cuts: Sequence[Cut], epoch: int) -> CutSet:
        """Return the cuts in random order, some joined with any others of the same language and task."""
        order = list(cuts)
        derived_random(self.seed, epoch, "order").shuffle(order)
        groups: dict[Kind, list[Cut]] = {}
        for cut in order:
            groups.setdefault(_kind(cut), []).append(cut)
        return CutSet.from_cuts([self._vary(cut, lambda kind: groups[kind], epoch) for cut in order])

    def passing(self, cuts: Iterable[Cut], epoch: int) -> Iterator[Cut]:
        """Yield the cuts in the order they come, some joined with others that come near them."""
        coming = iter(cuts)
        lately = list(itertools.islice(coming, _LATELY))
        kinds = list(map(_kind, lately))

        def alike(wanted: Kind) -> list[Cut]:
            return [cut for cut, kind in zip(lately, kinds, strict=True) if kind == wanted]

        for index, cut in enumerate(itertools.chain(list(lately), coming)):
            lately[index % _LATELY], kinds[index % _LATELY] = cut, _kind(cut)
            yield self._vary(cut, alike, epoch)

    def _vary(self, cut: Cut, alike: Callable[[Kind], Sequence[Cut]], epoch: int) -> Cut:
        """Give a cut a speed and perhaps join others to it, drawn from `alike` of its language and task."""
        config, draw = self.config, derived_random(self.seed, epoch, cut.id)
        speeds = [s for s in config.speeds if cut.duration / s <= self.longest_s] or [max(config.speeds)]
        speed = draw.choice(speeds)
        varied = _at_speed(cut, speed)
        while draw.random() < config.join:
            other = _at_speed(draw.choice(alike(_kind(cut))), speed)
            offset_s = round(varied.duration + draw.uniform(0.1, 0.5), 3)
            if offset_s + other.duration > config.join_max_s:
                break
            joined = _joined(varied, other, offset_s)
            if not self.fits(joined):
                break
            varied = joined
        return varied


def _at_speed(cut: Cut, speed: float) -> Cut:
    return cut if speed == 1.0 else cut.perturb_speed(speed, affix_id=False)


def _joined(cut: Cut, other: Cut, offset_s: float) -> Cut:
    """Join two cuts one after the other; lhotse's `mix` would refuse clips of different sample rates."""
    clips = [*pieces(cut), *((offset_s + start_s, clip) for start_s, clip in pieces(other))]
    return MixedCut(cut.id, [MixTrack(clip, offset=round(start_s, ndigits=8)) for start_s, clip in clips])


class NoiseMixer:
    """Mixes a random stretch of noise or music into an utterance at a random signal-to-noise ratio.

    Raises DataError if the folder of noise has no audio files.
    """

    def __init__(self, config: AugmentConfig, sample_rate_hz: int, seed: int) -> None:
        self.config, self.sample_rate_hz, self.seed = config, sample_rate_hz, seed
        self._cache: dict[Path, Tensor] = {}
        self.files: list[Path] = []
        if config.noise is not None and config.noise_probability > 0:
            self.files = sorted(p for p in config.noise.rglob("*") if is_media(p))
            if not self.files:
                raise DataError(f"{config.noise}: no audio files to take as noise")

    def __call__(self, audio_N: Tensor, id: str, epoch: int) -> tuple[Tensor, bool]:
        """Return the waveform (N,), with or without noise, and whether noise was added."""
        draw = derived_random(self.seed, epoch, id, "noise")
        if not self.files or draw.random() >= self.config.noise_probability:
            return audio_N, False
        noise_N = self._load(draw.choice(self.files))
        start = draw.randrange(len(noise_N))
        repeats = -(-(start + len(audio_N)) // len(noise_N))
        noise_N = noise_N.repeat(repeats)[start : start + len(audio_N)]
        snr_db = draw.uniform(*self.config.noise_snr_db)
        power = noise_N.square().mean()
        if power == 0:
            return audio_N, False
        gain = (audio_N.square().mean() / power * 10 ** (-snr_db / 10)).sqrt()
        return audio_N + gain * noise_N, True

    def _load(self, path: Path) -> Tensor:
        if (noise_N := self._cache.pop(path, None)) is None:
            try:
                audio = open_audio(path)
            except AudioError as e:
                raise DataError(f"{e} (taken as noise)") from None
            noise_N = resample(torch.from_numpy(audio.samples_N), audio.sample_rate_hz, self.sample_rate_hz)
        self._cache[path] = noise_N  # at the end: most recently used
        while len(self._cache) > 1 and sum(map(len, self._cache.values())) > MOST_KEPT_SAMPLES:
            del self._cache[next(iter(self._cache))]
        return noise_N
