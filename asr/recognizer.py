"""Audio in, text out: cut into windows, batch by length, encode, search, join.

Shapes: B windows, N samples, P start tokens.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from asr.audio import open_audio
from asr.checkpoint import ModelFolder, load_model_folder
from asr.config import DecodeConfig, WhisperFeaturesConfig
from asr.data.batch import batches_by_length, pad_audio
from asr.decode.scorers import CTCPrefixScorer, ForbidScorer
from asr.decode.search import Hypothesis, SearchOptions, Weighted, search
from asr.errors import AsrError, ConfigError, printable
from asr.model.masks import Memory
from asr.model.precision import Precision, set_precision
from asr.resampling import resample
from asr.transcript import Failure, Transcript

# So much audio is in memory at a time: batches by length need a choice, a folder of recordings may be endless.
POOL_S = 3600.0
# Encoding is fastest with few rows of equal length, decoding with many rows: a batch is encoded in parts.
ENCODE_S = 30.0

Source = tuple[str, Callable[[], Tensor]]
OnDone = Callable[[float, float], None]


@dataclass
class _Recording:
    """A recording on its way; `found` holds hypotheses and language of each of its windows, by number."""

    id: str
    language: str | None
    windows: list[Tensor] = field(default_factory=list)
    duration_s: float = 0.0
    problem: str | None = None
    found: dict[int, tuple[list[Hypothesis], str | None]] = field(default_factory=dict)


class Recognizer:
    """A model folder at work.

    >>> Recognizer.load("exp/prompts-en/model").transcribe(["hello.wav"])   # doctest: +SKIP
    """

    def __init__(
        self, parts: ModelFolder, options: DecodeConfig | None = None, precision: Precision = "float32"
    ) -> None:
        self.config, self.model, self.tokenizer = parts
        self.options = options or parts.config.decode
        set_precision(self.model, precision)
        if self.options.ctc_weight > 0 and self.model.ctc is None:
            raise ConfigError("decode.ctc_weight > 0 needs a model with a CTC head; this one has none")
        self.rate = self.model.front_end.sample_rate_hz
        self.frame_s = self.model.front_end.hop_s * parts.config.model.encoder.subsampling.factor
        features = parts.config.features
        # What exceeds a front end's own window would be cut off without a word.
        longest_s = features.window_s if isinstance(features, WhisperFeaturesConfig) else math.inf
        self.window_s = min(self.options.window_s, longest_s)

    @classmethod
    def load(
        cls, folder: str | Path, options: DecodeConfig | None = None, precision: Precision = "float32"
    ) -> Recognizer:
        """Load a model folder."""
        return cls(load_model_folder(Path(folder)), options, precision)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def decode(
        self, audio_BN: Tensor, len_B: Tensor, languages: Sequence[str | None] | None = None
    ) -> list[list[Hypothesis]]:
        """Find the n best token sequences of each waveform; validation and every command come through here.

        languages: one per waveform; None lets a multilingual model detect it.  Waveforms are at the front end's
        rate and at most one window long.
        """
        return self._decode(audio_BN, len_B, languages or [None] * len(len_B))[0]

    @torch.inference_mode()
    def _decode(
        self, audio_BN: Tensor, len_B: Tensor, languages: Sequence[str | None]
    ) -> tuple[list[list[Hypothesis]], Sequence[str | None]]:
        """As decode; and the languages, those detected filled in."""
        memory = self._encode(audio_BN.to(self.device), len_B.to(self.device))
        languages = self._fill_in(languages, memory)
        known = bool(self.tokenizer.languages)
        prefixes = [self.tokenizer.prefix(language if known else None) for language in languages]
        prefix_BP = torch.tensor(prefixes, device=self.device)
        room = self.config.model.decoder.max_length - prefix_BP.shape[1]
        seconds_B = (memory.len_B * self.frame_s).tolist()
        caps = [min(room, 8 + math.ceil(s * self.options.max_tokens_per_s)) for s in seconds_B]
        o = self.options
        options = SearchOptions(o.beam_size, o.length_bonus, o.length_penalty, o.n_best)
        found = search(self._scorers(prefix_BP), memory, prefix_BP, self.tokenizer.eos_id, caps, options)
        return found, languages

    def _encode(self, audio_BN: Tensor, len_B: Tensor) -> Memory:
        rows = max(1, int(ENCODE_S * self.rate / audio_BN.shape[1]))
        return Memory.join(
            [
                self.model.encode(audio_RN[:, : int(len_R.max())], len_R)
                for audio_RN, len_R in zip(audio_BN.split(rows), len_B.split(rows), strict=True)
            ]
        )

    def _scorers(self, prefix_BP: Tensor) -> list[Weighted]:
        """The weighted parts of the score."""
        forbid = ForbidScorer(
            self.tokenizer.vocab_size,
            self.tokenizer.suppressed_ids,
            self.tokenizer.suppressed_first_ids,
            prefix_BP.shape[1],
        )
        share = self.options.ctc_weight
        scorers = [Weighted("attention", self.model.decoder, 1 - share), Weighted("allowed", forbid, 1.0)]
        if share > 0:
            blank = self.tokenizer.blank_id
            ignored = sorted(set(prefix_BP.flatten().tolist()))
            assert blank is not None
            ctc = CTCPrefixScorer(self._posteriors, blank, self.tokenizer.eos_id, ignored)
            scorers.append(Weighted("ctc", ctc, share))
        return [s for s in scorers if s.weight > 0]

    def _posteriors(self, memory: Memory) -> tuple[Tensor, Tensor]:
        assert self.model.ctc is not None
        return self.model.ctc(memory), memory.len_B

    def _fill_in(self, languages: Sequence[str | None], memory: Memory) -> Sequence[str | None]:
        """For languages that are not given, that of the most probable language token, if there are any."""
        known = list(self.tokenizer.languages)
        if not known or None not in languages:
            return languages
        starts = torch.tensor([self.tokenizer.prefix(language)[:2] for language in known], device=self.device)
        first_B = starts[0, 0].expand(len(memory.len_B))
        log_prob_BV, _ = self.model.decoder.step(first_B[:, None], self.model.decoder.start(memory))
        best_B = log_prob_BV[:, starts[:, 1]].argmax(1).tolist()
        return [given or known[best] for given, best in zip(languages, best_B, strict=True)]

    # ---- files ----------------------------------------------------------------------------------------------

    def transcribe(
        self,
        paths: Iterable[str | Path],
        *,
        language: str | None = None,
        batch_s: float = 120.0,
        on_done: OnDone | None = None,
    ) -> list[Transcript | Failure]:
        """Transcribe audio files, results in the order of the paths; see transcribe_waveforms."""
        return list(self.transcribe_waveforms(self.files(paths), language=language, batch_s=batch_s, on_done=on_done))

    def files(self, paths: Iterable[str | Path]) -> list[Source]:
        """Audio files as sources for transcribe_waveforms; each is opened when its turn comes."""
        return [(str(path), partial(self._open, path)) for path in paths]

    def transcribe_waveforms(
        self,
        sources: Iterable[Source],
        *,
        language: str | Callable[[str], str | None] | None = None,
        batch_s: float = 120.0,
        on_done: OnDone | None = None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe waveforms (N,) at the front end's rate, each given as an id and a function that loads it.

        Results come in the order of the sources, whenever about an hour of audio is done.  A source that raises
        AsrError becomes a Failure and the others go on.  language: of all, or by id; None: detected, where the
        model has language tokens.  batch_s: seconds of padded audio that are decoded at once.  on_done is called
        after each batch with the seconds that are done and those in all, estimated until the last source is loaded.
        Raises AsrError for a language that the model does not know.
        """
        if isinstance(language, str):
            self.tokenizer.prefix(language)  # an unknown one is an error before any work
        language_of = language if callable(language) else lambda _: language
        todo = list(sources)
        pool: list[_Recording] = []
        loaded_s = done_s = 0.0
        for count, (id, load) in enumerate(todo, start=1):
            pool.append(self._load(id, load, language_of(id)))
            loaded_s += pool[-1].duration_s
            if count < len(todo) and loaded_s - done_s < POOL_S:
                continue
            for seconds in self._decode_pool(pool, batch_s):
                done_s += seconds
                if on_done:
                    on_done(done_s, loaded_s / count * len(todo))
            yield from map(self._join, pool)
            pool, done_s = [], loaded_s

    def _open(self, path: str | Path) -> Tensor:
        audio = open_audio(path)
        return resample(torch.from_numpy(audio.samples_N), audio.sample_rate_hz, self.rate)

    def _load(self, id: str, load: Callable[[], Tensor], language: str | None) -> _Recording:
        try:
            audio_N = load()
        except AsrError as e:
            return _Recording(id, language, problem=str(e))
        windows = split_at_quiet(audio_N, self.rate, self.window_s)
        return _Recording(id, language, windows, len(audio_N) / self.rate)

    def _decode_pool(self, pool: Sequence[_Recording], batch_s: float) -> Iterator[float]:
        """Decode the windows of all these recordings; gives the seconds of each batch when it is done."""
        windows = [(recording, i) for recording in pool for i in range(len(recording.windows))]
        for batch in batches_by_length([len(r.windows[i]) for r, i in windows], round(batch_s * self.rate)):
            chosen = [windows[w] for w in batch]
            audio_BN, len_B = pad_audio([r.windows[i] for r, i in chosen])
            try:
                found, languages = self._decode(audio_BN, len_B, [r.language for r, _ in chosen])
            except torch.OutOfMemoryError:
                hint = f"{batch_s:g} s of audio at once are too much for its memory; give less (--batch-seconds)"
                raise AsrError(f"{self.device}: {hint}") from None
            for (recording, i), hypotheses, language in zip(chosen, found, languages, strict=True):
                recording.found[i] = hypotheses, language
            yield float(len_B.sum()) / self.rate

    def _join(self, recording: _Recording) -> Transcript | Failure:
        if recording.problem is not None:
            return Failure(recording.id, recording.problem)
        found = [recording.found[i] for i in range(len(recording.windows))]
        truncated = any(hypotheses[0].truncated for hypotheses, _ in found)
        if truncated:
            warnings.warn(f"{printable(recording.id)}: the text reached the length cap before it ended", stacklevel=2)
        n_best = [[(self._text(h), h.score) for h in hypotheses] for hypotheses, _ in found]
        text = " ".join(best for (best, _), *_ in n_best if best)
        alternatives = tuple(n_best[0]) if len(n_best) == 1 else ()
        return Transcript(
            recording.id, text, recording.duration_s, found[0][1], alternatives=alternatives, truncated=truncated
        )

    def _text(self, hypothesis: Hypothesis) -> str:
        return self.tokenizer.decode(list(hypothesis.tokens)).strip()


def split_at_quiet(audio_N: Tensor, rate: int, window_s: float) -> list[Tensor]:
    """Cut a waveform into windows of at most `window_s`, each at the quietest 0.2 s of the window's last third."""
    most, hop = max(2, round(window_s * rate)), max(1, round(0.02 * rate))
    windows = []
    while len(audio_N) > most:
        start = most * 2 // 3
        energy_T = audio_N[start:most].square().unfold(0, min(10 * hop, most - start), hop).mean(1)
        cut = start + int(energy_T.argmin()) * hop + min(10 * hop, most - start) // 2
        windows.append(audio_N[:cut])
        audio_N = audio_N[cut:]
    return [*windows, audio_N]
