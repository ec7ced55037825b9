"""Cutting recordings of any length into windows that a model can take: at quiet places, or around speech.

A window maker takes the blocks of a recording, of any size, and yields windows as soon as they are known; it holds
little more than a window.  Windows are in the order of the recording and share no sample, so joining their texts
neither doubles nor loses a word at a cut.  The result does not depend on where the blocks end.

Shapes: N samples, T frames.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a recording, with its start in seconds."""

    start_s: float
    samples_N: Tensor


WindowMaker = Callable[[Iterable[Tensor]], Iterator[Window]]


class Detector(Protocol):
    """Detects speech: gives the probability of speech for every `frame_s` seconds."""

    @property
    def frame_s(self) -> float: ...

    def __call__(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Map blocks (N,) of a recording to probabilities (T,), yielded as soon as they are known."""


class _Tape:
    """The latest part of a recording; samples are addressed by their index in the whole recording."""

    def __init__(self) -> None:
        self.start = self.end = 0
        self._blocks: list[Tensor] = []

    def append(self, block_N: Tensor) -> None:
        """Add the next block."""
        self._blocks.append(block_N)
        self.end += len(block_N)

    def passing(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the blocks, adding each before passing it on."""
        for block_N in blocks:
            self.append(block_N)
            yield block_N

    def part(self, start: int, end: int) -> Tensor:
        """Return the samples from `start` up to `end`."""
        if len(self._blocks) > 1:
            self._blocks = [torch.cat(self._blocks)]
        return self._blocks[0][start - self.start : end - self.start]

    def forget(self, end: int) -> None:
        """Drop the samples before `end`."""
        if end > self.start:
            self._blocks = [self.part(end, self.end)]
            self.start = end


def quietest(audio_N: Tensor, rate: int) -> int:
    """Return the middle of the quietest 0.2 s, searched in steps of 20 ms; needs at least one sample."""
    hop = max(1, round(0.02 * rate))
    width = min(10 * hop, len(audio_N))
    energy_T = audio_N.square().unfold(0, width, hop).mean(1)
    return int(energy_T.argmin()) * hop + width // 2


class QuietWindows:
    """Cuts all of a recording into windows of at most `window_s`, each at the quietest place of its last third."""

    def __init__(self, rate: int, window_s: float) -> None:
        self.rate = rate
        self.most = max(2, round(window_s * rate))

    def __call__(self, blocks: Iterable[Tensor]) -> Iterator[Window]:
        tape, third = _Tape(), self.most * 2 // 3
        for block_N in blocks:
            tape.append(block_N)
            while tape.end - tape.start > self.most:
                last_third_N = tape.part(tape.start + third, tape.start + self.most)
                yield self._take(tape, tape.start + third + quietest(last_third_N, self.rate))
        if tape.end > tape.start:
            yield self._take(tape, tape.end)

    def _take(self, tape: _Tape, cut: int) -> Window:
        window = Window(tape.start / self.rate, tape.part(tape.start, cut).clone())
        tape.forget(cut)
        return window


class _Span(NamedTuple):
    """Samples from `start` up to `end`, of speech or of a pause."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def middle(self) -> int:
        return (self.start + self.end) // 2


# silero-vad's own values: the probabilities at which speech begins and ends, and the shortest speech and pause
ON, OFF, MIN_SPEECH_S, MIN_SILENCE_S = 0.5, 0.35, 0.25, 0.1


class SpeechWindows:
    """Finds speech and packs it into windows of at most `window_s`; long pauses are left out.

    Speech begins where its probability reaches ON, and ends where it falls below OFF and does not return to ON within
    MIN_SILENCE_S; speech shorter than MIN_SPEECH_S is ignored.  Speech with pauses of at most `merge_s` stays together
    in one window, padded by `pad_s` on both sides.  If that is longer than a window, it is cut in the longest pause of
    the window's last third, else in its last pause, else, if the speech has no pause, at the quietest place of that
    third.
    """

    def __init__(
        self,
        rate: int,
        window_s: float,
        detector: Detector,
        *,
        merge_s: float = 3.0,
        pad_s: float = 0.2,
    ) -> None:
        self.rate, self.detector = rate, detector
        self.frame_N = detector.frame_s * rate  # not a whole number at every rate
        self.most = max(round(window_s * rate), 4 * math.ceil(self.frame_N))
        self.pad, self.merge = round(pad_s * rate), round(merge_s * rate)
        self.min_speech, self.min_silence = round(MIN_SPEECH_S * rate), round(MIN_SILENCE_S * rate)

    def __call__(self, blocks: Iterable[Tensor]) -> Iterator[Window]:
        tape = _Tape()
        packing = _Packing(self, tape)
        for prob_T in self.detector(tape.passing(blocks)):
            for probability in prob_T.tolist():
                yield from packing.step(probability)
            tape.forget(packing.needed)
        yield from packing.finish()


class _Packing:
    """How far one recording has been processed, and its speech that is in no window yet."""

    def __init__(self, rules: SpeechWindows, tape: _Tape) -> None:
        self.rules, self.tape = rules, tape
        self.frames = 0
        self.done = 0  # no window may begin before this sample
        self.regions: list[_Span] = []
        self.began: int | None = None  # where the current speech began
        self.open = 0  # where the part of it that is in no window yet starts
        self.quiet: int | None = None  # where it may have ended

    @property
    def first(self) -> int | None:
        """Where the speech that is in no window yet starts."""
        if self.regions:
            return self.regions[0].start
        return None if self.began is None else self.open

    @property
    def start(self) -> int:
        """Where the next window starts, as far as is known."""
        first = self._position(self.frames) if self.first is None else self.first
        return max(first - self.rules.pad, self.done)

    @property
    def needed(self) -> int:
        """The first sample that is still needed."""
        return min(self.start, self.tape.end)

    def step(self, probability: float) -> Iterator[Window]:
        """Process the next frame's probability; yield the windows that end with it."""
        rules = self.rules
        here, after = self._position(self.frames), self._position(self.frames + 1)
        while self.began is not None and after - self.start > rules.most:
            yield self._cut(here)
        self._listen(probability, here)
        self.frames += 1
        pause = after - self.regions[-1].end if self.regions else 0
        if self.began is None and pause > max(rules.merge, rules.pad):
            yield self._flush(after)

    def finish(self) -> Iterator[Window]:
        """Yield the last window, if there is speech left."""
        if self.began is not None:
            self._close(self.tape.end)
        if self.regions:
            yield self._flush(self.tape.end)

    def _position(self, frame: int) -> int:
        return round(frame * self.rules.frame_N)

    def _listen(self, probability: float, here: int) -> None:
        """Track where speech begins and ends."""
        if probability >= ON:
            if self.began is None:
                self.began = self.open = here
            self.quiet = None
        elif self.began is not None and (probability < OFF or self.quiet is not None):
            self.quiet = here if self.quiet is None else self.quiet
            if here - self.quiet >= self.rules.min_silence:
                self._close(self.quiet)

    def _close(self, end: int) -> None:
        assert self.began is not None
        if end - self.began > self.rules.min_speech and end > self.open:
            self.regions.append(_Span(self.open, end))
        self.began = self.quiet = None

    def _flush(self, known: int) -> Window:
        """Return a window with all finished speech and its padding, up to the sample `known`."""
        end = min(self.regions[-1].end + self.rules.pad, self.start + self.rules.most, known)
        window = self._window(end)
        self.regions = []
        return window

    def _cut(self, here: int) -> Window:
        """Return a full window, cut so that the rest of the current speech goes into the next one."""
        third = self.start + self.rules.most * 2 // 3
        speech = [*self.regions, _Span(self.open, here)]
        pauses = [_Span(one.end, two.start) for one, two in itertools.pairwise(speech)]
        if not pauses:
            window = self._window(third + quietest(self.tape.part(third, here), self.rules.rate))
            self.open = self.done
            return window
        late = [pause for pause in pauses if pause.middle >= third] or pauses[-1:]
        pause = max(late, key=lambda pause: pause.length)
        window = self._window(min(pause.start + self.rules.pad, pause.middle, self.start + self.rules.most))
        self.regions = [region for region in self.regions if region.start >= pause.end]
        return window

    def _window(self, end: int) -> Window:
        start = self.start
        self.done = end
        return Window(start / self.rules.rate, self.tape.part(start, end).clone())
