"""Audio in, text out: cut into windows, batch by length, encode, search, join.

Shapes: B windows, N samples, P start tokens.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asr.audio import open_audio
from asr.checkpoint import ModelFolder, load_model_folder
from asr.config import DecodeConfig
from asr.data.batch import pad_audio
from asr.decode.scorers import CTCPrefixScorer, ForbidScorer
from asr.decode.search import Hypothesis, SearchOptions, Weighted, search
from asr.errors import AsrError, ConfigError
from asr.features import resample
from asr.model.masks import Memory


@dataclass(frozen=True)
class Transcript:
    """The text of a recording.

    alternatives: n-best texts with scores, where the recording fitted into one window.  truncated: a window's text
    reached the length cap before it ended.
    """

    id: str
    text: str
    duration_s: float
    language: str | None = None
    alternatives: tuple[tuple[str, float], ...] = ()
    truncated: bool = False


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed, and why."""

    id: str
    reason: str


class Recognizer:
    """A model folder at work.

    >>> Recognizer.load("exp/prompts-en/model").transcribe(["hello.wav"])   # doctest: +SKIP
    """

    def __init__(self, parts: ModelFolder, options: DecodeConfig | None = None) -> None:
        self.config, self.model, self.tokenizer = parts
        self.options = options or parts.config.decode
        if self.options.ctc_weight > 0 and self.model.ctc is None:
            raise ConfigError("decode.ctc_weight > 0 needs a model with a CTC head; this one has none")
        self.frame_s = self.model.front_end.hop_s * parts.config.model.encoder.subsampling.factor

    @classmethod
    def load(cls, folder: str | Path, options: DecodeConfig | None = None) -> Recognizer:
        """Load a model folder."""
        return cls(load_model_folder(Path(folder)), options)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def decode(
        self, audio_BN: Tensor, len_B: Tensor, languages: Sequence[str | None] | None = None
    ) -> list[list[Hypothesis]]:
        """Find the n best token sequences of each waveform; validation and every command come through here.

        languages: one per waveform; None lets a multilingual model detect it.  Waveforms are at the front end's
        rate and at most one window long.
        """
        memory = self.model.encode(audio_BN.to(self.device), len_B.to(self.device))
        prefix_BP = self._prefix(memory, languages or [None] * len(len_B))
        room = self.config.model.decoder.max_length - prefix_BP.shape[1]
        seconds_B = (memory.len_B * self.frame_s).tolist()
        caps = [min(room, 8 + math.ceil(s * self.options.max_tokens_per_s)) for s in seconds_B]
        o = self.options
        options = SearchOptions(o.beam_size, o.length_bonus, o.length_penalty, o.n_best)
        return search(self._scorers(prefix_BP), memory, prefix_BP, self.tokenizer.eos_id, caps, options)

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

    def _prefix(self, memory: Memory, languages: Sequence[str | None]) -> Tensor:
        """Start tokens (B, P); for languages that are not given, the most probable language token."""
        known = list(self.tokenizer.languages)
        if known and any(language is None for language in languages):
            detected = self._detect_language(memory)
            languages = [given or found for given, found in zip(languages, detected, strict=True)]
        rows = [self.tokenizer.prefix(language if known else None) for language in languages]
        return torch.tensor(rows, device=memory.states_BTD.device)

    def _detect_language(self, memory: Memory) -> list[str]:
        known = list(self.tokenizer.languages)
        starts = torch.tensor([self.tokenizer.prefix(language)[:2] for language in known])
        state = self.model.decoder.start(memory)
        first_B = starts[0, 0].expand(len(memory.len_B)).to(memory.states_BTD.device)
        log_prob_BV, _ = self.model.decoder.step(first_B, state)
        best_B = log_prob_BV[:, starts[:, 1].to(log_prob_BV.device)].argmax(1)
        return [known[i] for i in best_B.tolist()]

    # ---- files ----------------------------------------------------------------------------------------------

    def transcribe(
        self,
        paths: Iterable[str | Path],
        *,
        language: str | None = None,
        batch_s: float = 120.0,
        on_done: Callable[[float], None] | None = None,
    ) -> list[Transcript | Failure]:
        """Transcribe audio files; one that cannot be read becomes a Failure and the others go on.

        batch_s: seconds of padded audio that are decoded at once.  on_done is called with the seconds that each
        finished batch held.  The results stand in the order of the paths.
        """
        return self.transcribe_waveforms(
            ((str(path), lambda path=path: self._open(path)) for path in paths),  # type: ignore[misc]
            language=language,
            batch_s=batch_s,
            on_done=on_done,
        )

    def transcribe_waveforms(
        self,
        sources: Iterable[tuple[str, Callable[[], Tensor]]],
        *,
        language: str | Callable[[str], str | None] | None = None,
        batch_s: float = 120.0,
        on_done: Callable[[float], None] | None = None,
    ) -> list[Transcript | Failure]:
        """Transcribe waveforms (N,) at the front end's rate, each given as an id and a function that loads it."""
        rate = self.model.front_end.sample_rate_hz
        language_of = language if callable(language) else lambda _: language
        failures: dict[int, Failure] = {}
        windows: list[tuple[int, Tensor]] = []
        names: list[str] = []
        lengths: list[float] = []
        for i, (name, load) in enumerate(sources):
            names.append(name)
            try:
                audio_N = load()
            except AsrError as e:
                failures[i] = Failure(name, str(e))
                lengths.append(0.0)
                continue
            lengths.append(len(audio_N) / rate)
            windows += [(i, w) for w in split_at_quiet(audio_N, rate, self.options.window_s)]
        found: dict[int, list[list[Hypothesis]]] = {i: [] for i in range(len(names))}
        results: dict[int, list[Hypothesis]] = {}
        for batch in batches_by_length([len(w) for _, w in windows], round(batch_s * rate)):
            audio_BN, len_B = pad_audio([windows[w][1] for w in batch])
            hypotheses = self.decode(audio_BN, len_B, [language_of(names[windows[w][0]]) for w in batch])
            results.update(zip(batch, hypotheses, strict=True))
            if on_done:
                on_done(float(len_B.sum()) / rate)
        for w, (i, _) in enumerate(windows):
            found[i].append(results[w])
        return [
            failures.get(i) or self._join(names[i], lengths[i], found[i], language_of(names[i]))
            for i in range(len(names))
        ]

    def _open(self, path: str | Path) -> Tensor:
        audio = open_audio(path)
        samples_N = torch.from_numpy(audio.samples_N)
        return resample(samples_N, audio.sample_rate_hz, self.model.front_end.sample_rate_hz)

    def _join(self, name: str, duration_s: float, windows: list[list[Hypothesis]], language: str | None) -> Transcript:
        truncated = any(hypotheses[0].truncated for hypotheses in windows)
        if truncated:
            warnings.warn(f"{name}: the text reached the length cap before it ended", stacklevel=2)
        texts = [self.tokenizer.decode(list(hypotheses[0].tokens)).strip() for hypotheses in windows]
        alternatives: tuple[tuple[str, float], ...] = ()
        if len(windows) == 1:
            alternatives = tuple((self.tokenizer.decode(list(h.tokens)).strip(), h.score) for h in windows[0])
        return Transcript(name, " ".join(t for t in texts if t), duration_s, language, alternatives, truncated)


def batches_by_length(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Group indices, longest first, so that count x longest stays within `most` (one item always goes)."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        count = max(1, most // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


def split_at_quiet(audio_N: Tensor, rate: int, window_s: float) -> list[Tensor]:
    """Cut a waveform into windows of at most `window_s`, each at the quietest 0.2 s of the window's last third."""
    most, hop = round(window_s * rate), max(1, round(0.02 * rate))
    windows = []
    while len(audio_N) > most:
        start = most * 2 // 3
        energy_T = audio_N[start:most].square().unfold(0, min(10 * hop, most - start), hop).mean(1)
        cut = start + int(energy_T.argmin()) * hop + min(10 * hop, most - start) // 2
        windows.append(audio_N[:cut])
        audio_N = audio_N[cut:]
    return [*windows, audio_N]
