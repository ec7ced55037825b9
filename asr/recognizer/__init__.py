"""The recogniser: cuts audio into windows, batches them by length, decodes them and joins the texts.

Shapes: B windows, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from asr.checkpoint import ModelFolder
from asr.config import DecodeConfig
from asr.data.batch import pad_audio
from asr.decode.search import Hypothesis
from asr.errors import AsrError, AudioError
from asr.model.masks import Memory
from asr.model.precision import Precision
from asr.phrases.lists import Hotwords, phrases_of
from asr.progress import OnDone
from asr.recognizer.batch import BatchDecoder
from asr.recognizer.budget import Budget, release
from asr.recognizer.decoded import Decoded
from asr.recognizer.files import Sound, file_sources, refuse, to_source
from asr.recognizer.joining import result_of
from asr.recognizer.parallel import Workers
from asr.recognizer.pool import Opened, Piece, Progress, Reader, Source
from asr.tasks import base_code, chosen, into, language_code
from asr.transcript import Failure, Transcript
from asr.windows import Detector, QuietWindows, SpeechWindows, WindowMaker

__all__ = ["Opened", "Recognizer", "Source"]

Decode = Callable[[Tensor, Tensor, Sequence[str | None]], list[Decoded]]


class Recognizer:
    """A speech recogniser, made of the parts of a model folder.

    detector: finds the speech in recordings that are longer than a window; without it, they are cut at quiet places.

    >>> asr.load_model("exp/prompts-en/model").transcribe("hello.wav").text   # doctest: +SKIP
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
        self.window_s = min(self.options.window_s, parts.config.longest_s)
        cut_s = min(self.options.cut_s, self.window_s)
        self.cut: WindowMaker = QuietWindows(self.rate, cut_s)
        if detector is not None:
            self.cut = SpeechWindows(self.rate, cut_s, detector)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.decoder.device

    def decode(
        self,
        audio_BN: Tensor,
        len_B: Tensor,
        languages: Sequence[str | None] | None = None,
        tasks: Sequence[str | None] | None = None,
        memory: Memory | None = None,
    ) -> list[list[Hypothesis]]:
        """Return the n-best hypotheses of each waveform from the search alone, without guards, as validation needs it.

        Waveforms are at the front end's rate and at most one window long.  languages: language of the speech in each
        waveform; None lets a multilingual model detect it.  tasks: task for each waveform; None is the model's first.
        memory: the encoder output of these waveforms, if it has been computed already.
        """
        languages, tasks = languages or [None] * len(len_B), tasks or [None] * len(len_B)
        found: dict[int, list[Hypothesis]] = {}
        for task in dict.fromkeys(tasks):
            rows = [row for row, own in enumerate(tasks) if own == task]
            some_BN = audio_BN[rows, : int(len_B[rows].max())]
            heard = None if memory is None else memory.part(rows)
            spoken = [languages[row] for row in rows]
            texts = self.decoder_for(task)(some_BN, len_B[rows], spoken, task=task, memory=heard)
            found |= {row: text.hypotheses for row, text in zip(rows, texts, strict=True)}
        return [found[row] for row in range(len(len_B))]

    def decoder_for(self, task: str | None) -> BatchDecoder:
        """Return the decoder for a task; for translations it does without CTC, which spells what is said."""
        if self.options.ctc_weight == 0 or into(chosen(task, self.tokenizer.tasks)) is None:
            return self.decoder
        return self.decoder.varied(self.options.model_copy(update={"ctc_weight": 0.0}))

    def transcribe(
        self,
        audio: Sound,
        *,
        sample_rate: int | None = None,
        language: str | None = None,
        task: str | None = None,
        words: bool = False,
        prompt: str | None = None,
        hotwords: Hotwords | None = None,
        hotword_bonus: float | None = None,
        batch_s: float | None = None,
        on_done: OnDone | None = None,
    ) -> Transcript:
        """Transcribe one recording.

        audio: a path ("-" is standard input), a file open in binary mode, or mono samples from -1 to 1 as a NumPy array
        or a tensor of floats (N,), with their `sample_rate` in hertz.  The other arguments are those of
        transcribe_sources.  Raises AudioError if the audio cannot be read.
        """
        (result,) = self.transcribe_sources(
            [self.source(audio, sample_rate=sample_rate)],
            language=language,
            task=task,
            words=words,
            prompt=prompt,
            hotwords=hotwords,
            hotword_bonus=hotword_bonus,
            batch_s=batch_s,
            on_done=on_done,
        )
        if isinstance(result, Failure):
            raise AudioError(result.reason)
        return result

    def source(self, audio: Sound, *, sample_rate: int | None = None) -> Source:
        """Turn what `transcribe` takes into a source, to be transcribed with others by transcribe_sources."""
        return to_source(audio, self.rate, sample_rate)

    def files(self, paths: Iterable[str | Path]) -> list[Source]:
        """Return audio files, and all those in folders, as sources; each is opened only when its turn comes."""
        return [source for path in paths for source in file_sources(path, self.rate)]

    def transcribe_sources(
        self,
        sources: Iterable[Source],
        *,
        language: str | None = None,
        task: str | None = None,
        words: bool = False,
        prompt: str | None = None,
        hotwords: Hotwords | None = None,
        hotword_bonus: float | None = None,
        batch_s: float | None = None,
        on_done: OnDone | None = None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe any number of recordings of any length in little memory.

        Yields results in the order of the sources, each as soon as it is known.  A source that raises AsrError becomes
        a Failure, and the others go on.  On KeyboardInterrupt, yields what is known of the recordings in progress
        (partial ones have `complete` False) before raising.

        sources: a sized collection may be of any length if it makes each source on demand; others are put into a list.
        language: code or English name of the language of the speech; None: that of each source, else detected, if the
            model has language tokens.
        task: a task of asr.tasks, or "translate" for the model's only translation, else that into English; None: the
            model's first.
        words: whether to find the times of words.
        prompt: text that the model takes for what was said before each window, to suggest names and a style.
        hotwords: phrases to listen for, as a list or a file with one per line; None: those of the model's options.
        hotword_bonus: bonus for each of their tokens, in nats; None: that of the options.
        batch_s: seconds of padded audio in a batch, two of which are decoded at a time on a CPU; None: as many as are
            fastest and fit into free memory.  Batches that do not fit after all are made smaller.
        on_done: called after each batch with the seconds done and the total, an estimate until the last source is open.

        Raises AsrError for a language, a task or a prompt that the model has no token for.
        """
        task = chosen(task, self.tokenizer.tasks)
        if language is not None:
            language = self._code(language)
            self.tokenizer.prefix(language, task)  # a wrong language or task fails before any work
        decode = self._decode(task, words, prompt, hotwords, hotword_bonus)
        todo = sources if isinstance(sources, Sized) else list(sources)
        reader = Reader(self.rate, self.window_s, self.cut)
        progress = Progress(reader, len(todo), on_done)
        workers = Workers(self.device)
        budget = Budget(self.decoder.footprint, self.device, batch_s, workers.count)
        decode_into = partial(self._decode_into, decode=decode, budget=budget)
        to_result = partial(result_of, text_of=self.decoder.text)
        batches = self._batches(reader.pools(self._in_language(source, language) for source in todo), budget)
        try:
            with workers:
                for done in workers.as_read(decode_into, batches):
                    if done is not None:
                        progress.add(done[0])
                    yield from map(to_result, reader.finished())
            yield from map(to_result, reader.finished())
        except KeyboardInterrupt:
            for recording in reader.waiting:
                if any(recording.found) and recording.problem is None:
                    yield to_result(recording)
            raise

    def _decode(
        self, task: str, words: bool, prompt: str | None, hotwords: Hotwords | None, hotword_bonus: float | None
    ) -> Decode:
        """Return the function that decodes a batch.  Raises AsrError for what the model cannot do."""
        if words and into(task) is not None and self.config.model.decoder.kind != "attention":
            raise AsrError(f"task {task}: only an attention decoder can tell when the words of a translation were said")
        if words:
            self.decoder.timer(task)  # a model that cannot find times fails before any work
        previous = self.decoder.previous(prompt) if prompt and prompt.strip() else ()
        decoder = self.decoder_for(task)
        if hotwords is not None or hotword_bonus is not None:
            decoder = decoder.with_phrases(None if hotwords is None else phrases_of(hotwords), hotword_bonus)
        return partial(decoder, task=task, words=words, guards=self.options.guards.enabled, previous=previous)

    def _in_language(self, source: Source, language: str | None) -> Source:
        """Return the source with the given language, else its own; one that the model lacks makes the source fail."""
        found, known = language or source.language, self.tokenizer.languages
        found = found and self._code(found)
        if found is None and self.decoder.languages.needed:
            problem = f"{source.id}: {self.decoder.languages.request}"
        elif known and found is not None and found not in known:
            problem = f"{source.id}: its language {found!r} is not one of this model's: {', '.join(known)}"
        else:
            return source._replace(language=found)
        return source._replace(language=None, open=partial(refuse, problem))

    def _code(self, language: str) -> str:
        """Return the model's code of a language, such as en for English, and for en-US unless it has a token."""
        codes = language_code(language), base_code(language)
        return next((code for code in codes if code in self.tokenizer.languages), codes[0])

    def _batches(self, pools: Iterable[Sequence[Piece]], budget: Budget) -> Iterator[list[Piece] | None]:
        """Yield batches of windows of similar length, from any recordings; None while there are none yet."""
        for pool in pools:
            if not pool:
                yield None
                continue
            self._detect_languages(pool, budget)
            for batch in budget.batches([self._length_s(piece) for piece in pool]):
                yield [pool[i] for i in batch]
            release()

    def _length_s(self, piece: Piece) -> float:
        return len(piece.samples_N) / self.rate

    def _detect_languages(self, pool: Sequence[Piece], budget: Budget) -> None:
        """Detect unknown languages of recordings with several windows: that of the first window holds for all."""
        first = [piece for piece in pool if piece.number == 0 and piece.recording.language is None]
        first = [piece for piece in first if not piece.recording.whole or len(piece.recording.found) > 1]
        if not self.decoder.languages.detected or not first:
            return

        def detect(some: Sequence[Piece]) -> list[str | None]:
            return self.decoder.detect_languages(*pad_audio([piece.samples_N for piece in some]))

        for batch in budget.batches([self._length_s(piece) for piece in first]):
            pieces = [first[i] for i in batch]
            found = budget.fitting(pieces, self._length_s, detect)
            for piece, language in zip(pieces, found, strict=True):
                piece.recording.language = language

    def _decode_into(self, pieces: Sequence[Piece], decode: Decode, budget: Budget) -> None:
        """Decode windows together and store the results in their recordings, where they survive a Ctrl-C."""

        def together(some: Sequence[Piece]) -> list[Decoded]:
            audio_BN, len_B = pad_audio([piece.samples_N for piece in some])
            return decode(audio_BN, len_B, [piece.recording.language for piece in some])

        for piece, found in zip(pieces, budget.fitting(pieces, self._length_s, together), strict=True):
            piece.recording.found[piece.number] = found
