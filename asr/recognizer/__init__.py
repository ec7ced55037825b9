"""Audio in, text out: cut into windows, batch by length, decode, join.

Shapes: B windows, N samples.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr.audio import stream_audio
from asr.checkpoint import ModelFolder, load_model_folder
from asr.config import DecodeConfig, WhisperFeaturesConfig
from asr.data.batch import batches_by_length, pad_audio
from asr.decode.search import Hypothesis
from asr.errors import AsrError, AudioError, printable
from asr.model.precision import Precision
from asr.recognizer.batch import BatchDecoder, Decoded
from asr.resampling import resample_blocks
from asr.transcript import Failure, Segment, Transcript
from asr.windows import Detector, QuietWindows, SpeechWindows, Window, WindowMaker
from asr.words import split

# So much audio is in memory at a time: batches by length need a choice, a recording or a folder may be endless.
POOL_S = 1800.0

OnDone = Callable[[float, float], None]


class Opened(NamedTuple):
    """A recording that is open: its blocks (N,) at the front end's rate, and its length in seconds, if known."""

    blocks: Iterable[Tensor]
    duration_s: float | None


class Source(NamedTuple):
    """A recording to be: its id, and what opens it when its turn comes."""

    id: str
    open: Callable[[], Opened]


@dataclass
class _Recording:
    """A recording on its way.

    expected_s: its length as far as known.  heard_s: how much of it has been cut into windows.  found: what was found
    in each window, None before it is decoded.
    """

    id: str
    language: str | None
    expected_s: float = 0.0
    heard_s: float = 0.0
    loudest: float = 0.0
    whole: bool = False
    problem: str | None = None
    windows: list[tuple[float, float]] = field(default_factory=list)
    found: list[Decoded | None] = field(default_factory=list)


class Recognizer:
    """A model folder at work.

    detector: finds the speech in recordings that are longer than a window; without one they are cut at quiet places.

    >>> Recognizer.load("exp/prompts-en/model").transcribe("hello.wav").text   # doctest: +SKIP
    """

    def __init__(
        self,
        parts: ModelFolder,
        options: DecodeConfig | None = None,
        precision: Precision = "float32",
        detector: Detector | None = None,
    ) -> None:
        self.config, self.model, self.tokenizer = parts
        self.options = options or parts.config.decode
        self.decoder = BatchDecoder(parts, self.options, precision)
        self.rate = self.decoder.rate
        features = parts.config.features
        # What exceeds a front end's own window would be cut off without a word.
        longest_s = features.window_s if isinstance(features, WhisperFeaturesConfig) else math.inf
        self.window_s = min(self.options.window_s, longest_s)
        self.cut: WindowMaker = QuietWindows(self.rate, self.window_s)
        if detector is not None:
            self.cut = SpeechWindows(self.rate, self.window_s, detector)

    @classmethod
    def load(
        cls, folder: str | Path, options: DecodeConfig | None = None, precision: Precision = "float32"
    ) -> Recognizer:
        """Load a model folder."""
        return cls(load_model_folder(Path(folder)), options, precision)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.decoder.device

    def decode(
        self, audio_BN: Tensor, len_B: Tensor, languages: Sequence[str | None] | None = None
    ) -> list[list[Hypothesis]]:
        """Find the n best token sequences of each waveform; validation and every command come through here.

        languages: one per waveform; None lets a multilingual model detect it.  Waveforms are at the front end's
        rate and at most one window long.
        """
        return [found.hypotheses for found in self.decoder(audio_BN, len_B, languages or [None] * len(len_B))]

    def transcribe(self, path: str | Path, **options: Any) -> Transcript:
        """Transcribe an audio file, with the options of transcribe_sources; AudioError if it cannot be read."""
        (result,) = self.transcribe_sources(self.files([path]), **options)
        if isinstance(result, Failure):
            raise AudioError(result.reason)
        return result

    def files(self, paths: Iterable[str | Path]) -> list[Source]:
        """Audio files as sources; each is opened when its turn comes, and read as far as it is needed."""
        return [Source(str(path), partial(self._open, path)) for path in paths]

    def transcribe_sources(
        self,
        sources: Iterable[Source],
        *,
        language: str | Callable[[str], str | None] | None = None,
        task: str = "transcribe",
        words: bool = False,
        batch_s: float = 240.0,
        on_done: OnDone | None = None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe recordings of any length and number in little memory.

        Results come in the order of the sources, some half an hour of audio at a time.  A source that raises AsrError
        becomes a Failure and the others go on.  Interrupted (Ctrl-C), it first gives what it has of the recordings at
        hand, `complete` being False.  language: of all, or by id; None: detected, where the model has language
        tokens.  task: transcribe, or translate (into English) where the model can.  words: tell when each word was
        said.  batch_s: seconds of padded audio that are decoded at once.  on_done is called after each batch with the
        seconds that are done and those in all, estimated until the last source is open.
        Raises AsrError for a language or task that the model does not know.
        """
        language_of = language if callable(language) else lambda _: language
        if not callable(language) and (language is not None or task != "transcribe"):
            known = list(self.tokenizer.languages)
            self.tokenizer.prefix(language or next(iter(known), None), task)  # wrong: an error before any work
        todo = list(sources)
        waiting: deque[_Recording] = deque()
        decode = partial(self._decode_pool, task=task, words=words, batch_s=batch_s)
        progress = _Progress(len(todo), on_done)
        try:
            for pool in self._pools(todo, language_of, waiting, progress):
                for seconds in decode(pool):
                    progress.add(seconds)
                while waiting and waiting[0].whole:
                    yield self._join(waiting.popleft())
        except KeyboardInterrupt:
            for recording in waiting:
                if any(recording.found) and recording.problem is None:
                    yield self._join(recording)
            raise

    def _open(self, path: str | Path) -> Opened:
        stream = stream_audio(path)
        blocks = (torch.from_numpy(block_N) for block_N in stream)
        return Opened(_closing(stream, resample_blocks(blocks, stream.sample_rate_hz, self.rate)), stream.duration_s)

    def _pools(
        self,
        sources: Sequence[Source],
        language_of: Callable[[str], str | None],
        waiting: deque[_Recording],
        progress: _Progress,
    ) -> Iterator[list[tuple[_Recording, int, Window]]]:
        """Windows of about POOL_S, with their recordings and numbers; recordings queue up in `waiting`."""
        pool: list[tuple[_Recording, int, Window]] = []
        pooled = 0
        for source in sources:
            recording = _Recording(source.id, language_of(source.id))
            waiting.append(recording)
            progress.recordings.append(recording)
            for window in self._windows(source, recording):
                pool.append((recording, len(recording.found), window))
                recording.found.append(None)
                recording.windows.append((window.start_s, window.start_s + len(window.samples_N) / self.rate))
                pooled += len(window.samples_N)
                if pooled > POOL_S * self.rate:
                    yield pool
                    pool, pooled = [], 0
            recording.whole = True
        yield pool

    def _windows(self, source: Source, recording: _Recording) -> Iterator[Window]:
        """The windows of a recording; what is wrong with it ends up in `problem`."""
        try:
            opened = source.open()
            recording.expected_s = opened.duration_s or 0.0
            blocks = self._listen(opened.blocks, recording)
            head: list[Tensor] = []
            for block_N in blocks:
                head.append(block_N)
                if sum(map(len, head)) > self.window_s * self.rate:
                    yield from self.cut(_chain(head, blocks))
                    break
            else:
                if head:
                    yield Window(0.0, torch.cat(head))
        except AsrError as e:
            recording.problem = str(e)
        else:
            if recording.loudest == 0.0:
                recording.problem = f"{printable(recording.id)}: silent: every sample is zero"

    def _listen(self, blocks: Iterable[Tensor], recording: _Recording) -> Iterator[Tensor]:
        for block_N in blocks:
            recording.heard_s += len(block_N) / self.rate
            recording.loudest = max(recording.loudest, float(block_N.abs().amax()) if len(block_N) else 0.0)
            yield block_N

    def _decode_pool(
        self, pool: Sequence[tuple[_Recording, int, Window]], *, task: str, words: bool, batch_s: float
    ) -> Iterator[float]:
        """Decode windows of any recordings; gives the share of them that is done after each batch."""
        lengths = [len(window.samples_N) for *_, window in pool]
        for batch in batches_by_length(lengths, round(batch_s * self.rate)):
            chosen = [pool[i] for i in batch]
            audio_BN, len_B = pad_audio([window.samples_N for *_, window in chosen])
            try:
                results = self.decoder(
                    audio_BN,
                    len_B,
                    [recording.language for recording, *_ in chosen],
                    task=task,
                    words=words,
                    guards=self.options.guards.enabled,
                )
            except torch.OutOfMemoryError:
                hint = f"{batch_s:g} s of audio at once are too much for its memory; give less (--batch-seconds)"
                raise AsrError(f"{self.decoder.device}: {hint}") from None
            for (recording, number, _), found in zip(chosen, results, strict=True):
                recording.found[number] = found
            yield float(len_B.sum()) / sum(lengths)

    def _join(self, recording: _Recording) -> Transcript | Failure:
        if recording.problem is not None:
            return Failure(recording.id, recording.problem)
        decoded = [(times, found) for times, found in zip(recording.windows, recording.found, strict=True) if found]
        truncated = any(found.hypotheses[0].truncated for _, found in decoded)
        if truncated:
            warnings.warn(f"{printable(recording.id)}: the text reached the length cap before it ended", stacklevel=2)
        segments = tuple(segment for times, found in decoded for segment in self._segments(*times, found))
        n_best = [(self.decoder.text(h), h.score) for h in decoded[0][1].hypotheses] if len(decoded) == 1 else []
        complete = recording.whole and len(decoded) == len(recording.found)
        return Transcript(
            recording.id,
            n_best[0][0] if n_best else " ".join(segment.text for segment in segments if segment.text),
            recording.heard_s if complete else max((end_s for (_, end_s), _ in decoded), default=0.0),
            decoded[0][1].language if decoded else recording.language,
            segments,
            tuple(n_best),
            truncated,
            complete,
        )

    def _segments(self, start_s: float, end_s: float, found: Decoded) -> list[Segment]:
        """The text of a window that began at `start_s`, cut up where its words have times."""
        text = self.decoder.text(found.hypotheses[0])
        if not text and not found.guards:
            return []
        words = tuple(
            replace(w, start_s=round(start_s + w.start_s, 3), end_s=round(start_s + w.end_s, 3)) for w in found.words
        )
        whole = Segment(text, round(start_s, 3), round(end_s, 3), words, found.log_prob, found.no_speech, found.guards)
        return split(whole) if words else [whole]


class _Progress:
    """How many seconds are done and how many there are, as far as is known."""

    def __init__(self, count: int, on_done: OnDone | None) -> None:
        self.count, self.on_done = count, on_done
        self.recordings: list[_Recording] = []
        self._done_s = 0.0
        self._share = 0.0

    def add(self, share: float) -> None:
        """So much of the present pool has been decoded, too."""
        heard_s = sum(recording.heard_s for recording in self.recordings)
        self._share += share
        done_s = self._done_s + min(self._share, 1.0) * (heard_s - self._done_s)
        if self._share > 1 - 1e-6:
            self._done_s, self._share = heard_s, 0.0
        if self.on_done is not None:
            expected_s = sum(max(r.expected_s, r.heard_s) for r in self.recordings)
            self.on_done(done_s, expected_s / len(self.recordings) * self.count)


def _chain(head: list[Tensor], rest: Iterator[Tensor]) -> Iterator[Tensor]:
    while head:
        yield head.pop(0)
    yield from rest


def _closing(stream: object, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    with closing(stream):  # type: ignore[type-var]
        yield from blocks
