"""Decoding of a batch of windows: encode, detect the language, search, apply guards, and find the times of words.

Shapes: B windows, N samples, P start tokens, L tokens, R rows encoded at once.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from asr.checkpoint import ModelFolder
from asr.config import DecodeConfig
from asr.decode.phrases import PhraseScorer
from asr.decode.sample import ranked, sample
from asr.decode.scorers import CTCPrefixScorer, ForbidScorer
from asr.decode.search import Hypothesis, Weighted, search
from asr.errors import AsrError, ConfigError
from asr.evidence import Evidence, evidence
from asr.guards import Found, Guarded, guarded, silent
from asr.model.copying import copying
from asr.model.masks import Memory
from asr.model.precision import Precision, set_precision
from asr.phrases.lists import Phrase, read_phrases
from asr.phrases.spelling import Speller
from asr.phrases.tree import PhraseTree
from asr.recognizer.budget import Footprint, footprint
from asr.recognizer.decoded import Decoded
from asr.recognizer.fusion import fused, open_language_model
from asr.recognizer.languages import Languages
from asr.recognizer.searchers import build_searcher, check_kind, check_options, posteriors, search_options
from asr.recognizer.timers import Timer, build_timer
from asr.tasks import chosen, into

# On a CPU, encoding is fastest with few rows of equal length, decoding with many: a batch is encoded in parts.
ENCODE_S = {"cpu": 30.0}
# The part of a hypothesis's score that gives its log-probability: the first of these that it has.
_MAIN = ("attention", "transducer", "mask_predict", "mask_ctc", "ctc")


class _Windows(NamedTuple):
    """Encoded windows that are decoded together; `fed_BL`: what the decoder is fed, a prompt and the start tokens."""

    audio_BN: Tensor
    len_B: Tensor
    memory: Memory
    prefix_BP: Tensor
    fed_BL: Tensor
    caps: Sequence[int]

    def part(self, rows: Sequence[int]) -> _Windows:
        """Return some of the windows, without encoding them again."""
        at = list(rows)
        memory = self.memory.part(at)
        caps = [self.caps[row] for row in at]
        return _Windows(self.audio_BN[at], self.len_B[at], memory, self.prefix_BP[at], self.fed_BL[at], caps)

    def seeds(self, run: str = "") -> list[int]:
        """Return sampling seeds derived from the audio itself, so that no text depends on what shares its batch."""
        begin, pairs = zlib.crc32(run.encode()), zip(self.audio_BN, self.len_B.tolist(), strict=True)
        return [zlib.crc32(audio_N[:count].cpu().numpy().tobytes(), begin) for audio_N, count in pairs]


class BatchDecoder:
    """Decoder of batches of waveforms, each at most a window long, with one set of options.

    Raises ConfigError for options that need parts that the model does not have.
    """

    def __init__(self, parts: ModelFolder, options: DecodeConfig, precision: Precision = "float32") -> None:
        self.config, self.model, self.tokenizer = parts
        self.kind = self.config.model.decoder.kind
        self.languages = Languages(self.kind, self.model.decoder, self.tokenizer)
        check_options(self.config.model, options)
        self.options = options
        set_precision(self.model, precision)
        self.rate = self.model.front_end.sample_rate_hz
        self.frame_s = self.model.front_end.hop_s * self.config.model.encoder.subsampling.factor
        self._set_phrases([] if options.phrases is None else read_phrases(options.phrases))
        self.lm = open_language_model(options, self.tokenizer)
        self.parts = parts
        self._timers: dict[bool, Timer] = {}
        self._choose_search()

    def varied(self, options: DecodeConfig) -> BatchDecoder:
        """Return this decoder with other search options, such as weights and beam size; no file is read again."""
        check_options(self.config.model, options)
        other = copy(self)
        other.options = options
        other.__dict__.pop("footprint", None)  # it depends on the beam
        other._choose_search()
        return other

    def with_phrases(self, phrases: Sequence[Phrase] | None, bonus: float | None = None) -> BatchDecoder:
        """Return this decoder with other phrases and another bonus; None keeps its own.

        Raises ConfigError if the model cannot use phrases, and for a bonus without phrases or below 0.
        """
        check_kind(self.kind, "phrases", "hotwords are")
        other = self.varied(self.options)
        if phrases is not None:
            other._set_phrases(phrases)
        if bonus is not None:
            if other.phrases is None or not 0 <= bonus < math.inf:
                raise ConfigError(f"hotword_bonus {bonus}: give a number from 0 on, and hotwords with it")
            other.options = other.options.model_copy(update={"phrase_bonus": float(bonus)})
        other._choose_search()
        return other

    def _set_phrases(self, phrases: Sequence[Phrase]) -> None:
        self.phrases = PhraseScorer(phrases, Speller(self.tokenizer)) if phrases else None
        tree = None if self.phrases is None else PhraseTree.of([self.phrases.paths])
        if self.kind == "attention":
            self.reader = copying(self.model.decoder, tree)  # with a pointer, the search copies from the list

    def _choose_search(self) -> None:
        self.searcher = build_searcher(self.parts, self.options, self._search, self._fused())

    def timer(self, task: str | None = None) -> Timer:
        """Return the timer for the words of a task's texts.  Raises ConfigError for a model that cannot time words."""
        spoken = into(chosen(task, self.tokenizer.tasks)) is None
        if spoken not in self._timers:
            self._timers[spoken] = build_timer(self.parts, self.frame_s, spoken=spoken)
        return self._timers[spoken]

    @cached_property
    def footprint(self) -> Footprint:
        """Device memory that decoding takes; the wider beam of the guards, needed by few windows, is not counted."""
        return footprint(self.parts, self.options)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def __call__(
        self,
        audio_BN: Tensor,
        len_B: Tensor,
        languages: Sequence[str | None],
        *,
        task: str | None = None,
        words: bool = False,
        guards: bool = False,
        previous: Sequence[int] = (),
        memory: Memory | None = None,
    ) -> list[Decoded]:
        """Decode waveforms at the front end's rate; a language that is None is detected, if the model can do so.

        previous: tokens that the decoder is fed before the start tokens, see `previous`.  Only the search uses them:
        language, guards and word times depend on the audio and the text that was found.  memory: the result of `encode`
        for these waveforms, to decode them several times.
        """
        audio_BN, len_B = audio_BN.to(self.device), len_B.to(self.device)
        memory = self.encode(audio_BN, len_B) if memory is None else memory
        languages = self.languages.filled_in(languages, memory)
        known = bool(self.languages.known)
        prefixes = [self._prefix(language if known else None, task) for language in languages]
        prefix_BP = torch.tensor(prefixes, dtype=torch.long, device=self.device)
        fed_BL = torch.cat([prefix_BP.new_tensor(previous).expand(len(prefix_BP), -1), prefix_BP], dim=1)
        windows = _Windows(audio_BN, len_B, memory, prefix_BP, fed_BL, self._caps(memory, fed_BL.shape[1]))
        found = self.searcher(memory, fed_BL, windows.caps) if self.options.temperature == 0 else self._drawn(windows)
        results = [
            Decoded(hypotheses, language, self._found(hypotheses[0]).log_prob)
            for hypotheses, language in zip(found, languages, strict=True)
        ]
        if guards:
            results = self._guard(results, windows)
        if words:
            texts = [result.hypotheses[0].tokens for result in results]
            timed = self.timer(task).words(memory, texts, prefix_BP, audio_BN, len_B)
            results = [replace(result, words=tuple(w)) for result, w in zip(results, timed, strict=True)]
        return results

    def _search(
        self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int], beam_size: int | None = None
    ) -> list[list[Hypothesis]]:
        """Run the beam search over weighted scorers; `beam_size` replaces that of the options."""
        options = search_options(self.options)
        if beam_size is not None:
            options = replace(options, beam_size=beam_size)
        if self.kind == "none":  # the score of CTC covers all frames, however many tokens they spell
            options = replace(options, length_penalty=0.0)
        return search(self._scorers(prefix_BP.shape[1]), memory, prefix_BP, self.tokenizer.eos_id, caps, options)

    def _drawn(self, windows: _Windows) -> list[list[Hypothesis]]:
        """Sample texts from an attention decoder, best first."""
        o = self.options
        seeds_KB = [windows.seeds(f"{o.seed} {number}") for number in range(o.n_best)]
        drawn = self._sample(windows, list(zip(*seeds_KB, strict=True)), o.temperature, o.top_p)
        return [ranked(texts) for texts in drawn]

    def _sample(
        self, windows: _Windows, seeds_BK: Sequence[Sequence[int]], temperature: float, top_p: float = 1.0
    ) -> list[list[Hypothesis]]:
        """Sample a text from an attention decoder for each seed."""
        scorers, options = self._scorers(windows.fed_BL.shape[1]), search_options(self.options)
        given = scorers, windows.memory, windows.fed_BL, self.tokenizer.eos_id, windows.caps, options
        return sample(*given, temperature=temperature, top_p=top_p, seeds_BK=seeds_BK)

    def _prefix(self, language: str | None, task: str | None) -> list[int]:
        """Return the start tokens of a text; CTC has none, but scorers expect some before the text."""
        return [self.tokenizer.eos_id] if self.kind == "none" else self.tokenizer.prefix(language, task)

    def _guard(self, results: Sequence[Decoded], windows: _Windows) -> list[Decoded]:
        """Apply the guards to the best text of each window."""
        wider: dict[int, list[Hypothesis]] = {}

        def gather(rows: Sequence[int], texts: Sequence[Found]) -> list[Evidence]:
            part, tokens = windows.part(rows), [text.tokens for text in texts]
            no_speech_id = self.tokenizer.no_speech_id
            return evidence(self.model.decoder, part.memory, part.prefix_BP, tokens, no_speech_id=no_speech_id)

        def widen(rows: Sequence[int]) -> list[Found]:
            part = windows.part(rows)
            texts = self._search(part.memory, part.fed_BL, part.caps, options.wider_beam)
            wider.update(zip(rows, texts, strict=True))
            return [self._found(wider[row][0]) for row in rows]

        def redo(rows: Sequence[int], temperature: float) -> list[Found]:
            part = windows.part(rows)
            drawn = self._sample(part, [[seed] for seed in part.seeds()], temperature)
            return [self._found(hypothesis) for (hypothesis,) in drawn]

        options = self.options.guards
        found = [self._found(result.hypotheses[0]) for result in results]
        quiet = silent(windows.audio_BN, windows.len_B, options).tolist()
        nothing = Found((), "", 0.0)  # an empty text, which no guard checks further
        found = [nothing if q else f for f, q in zip(found, quiet, strict=True)]
        narrow = options.wider_beam > self.options.beam_size and self.options.temperature == 0
        kept = guarded(found, redo, widen if narrow else None, gather, options)
        kept = [
            Guarded((), result.log_prob, guards=("silence",)) if q and result.hypotheses[0].tokens else g
            for g, q, result in zip(kept, quiet, results, strict=True)
        ]
        return [result.guarded(g, wider.get(i)) for i, (result, g) in enumerate(zip(results, kept, strict=True))]

    def _found(self, hypothesis: Hypothesis) -> Found:
        ended = self.kind == "attention" and not hypothesis.truncated  # its end token counts, too
        count = max(1, len(hypothesis.tokens) + ended)
        log_prob = next((hypothesis.parts[name] for name in _MAIN if name in hypothesis.parts), 0.0) / count
        return Found(hypothesis.tokens, self.text(hypothesis), log_prob, hypothesis.truncated, hypothesis.score)

    def text(self, hypothesis: Hypothesis) -> str:
        """Return the text of a hypothesis."""
        return self.tokenizer.decode(list(hypothesis.tokens)).strip()

    def previous(self, prompt: str) -> list[int]:
        """Return a prompt as tokens for the decoder, shortened to its end so as to fill at most half of the context.

        Raises AsrError if the vocabulary has no token that announces a prompt.
        """
        if self.kind != "attention" or self.tokenizer.previous_id is None:
            raise AsrError("this model takes no prompt: its vocabulary has no token for it (Whisper's has)")
        most = self.config.model.decoder.max_length // 2 - 1
        return [self.tokenizer.previous_id, *self.tokenizer.encode(prompt)[-most:]] if most > 0 else []

    @torch.inference_mode()
    def detect_languages(self, audio_BN: Tensor, len_B: Tensor) -> list[str | None]:
        """Detect the language of each waveform."""
        memory = self.encode(audio_BN.to(self.device), len_B.to(self.device))
        return list(self.languages.filled_in([None] * len(audio_BN), memory))

    @torch.inference_mode()
    def encode(self, audio_BN: Tensor, len_B: Tensor) -> Memory:
        """Return the encoder output for waveforms on the model's device."""
        seconds = ENCODE_S.get(audio_BN.device.type)
        rows = len(audio_BN) if seconds is None else max(1, int(seconds * self.rate / audio_BN.shape[1]))
        return Memory.join(
            [
                self.model.encode(audio_RN[:, : int(len_R.max())], len_R)
                for audio_RN, len_R in zip(audio_BN.split(rows), len_B.split(rows), strict=True)
            ]
        )

    def _caps(self, memory: Memory, fed: int) -> list[int]:
        """Return the maximum number of tokens of each text, after `fed` tokens."""
        room = self.config.model.decoder.max_length - fed
        seconds_B = (memory.len_B * self.frame_s).tolist()
        return [min(room, 8 + math.ceil(s * self.options.max_tokens_per_s)) for s in seconds_B]

    def _scorers(self, fed: int) -> list[Weighted]:
        """Return the weighted scorers of the search; `fed` start tokens are not scored."""
        forbid = ForbidScorer(
            self.tokenizer.vocab_size,
            self.tokenizer.suppressed_ids,
            self.tokenizer.suppressed_first_ids,
            fed,
        )
        share = 1.0 if self.kind == "none" else self.options.ctc_weight
        scorers = [Weighted("attention", self.reader, 1 - share)] if share < 1 else []
        scorers.append(Weighted("allowed", forbid, 1.0))
        if share > 0:
            ctc = CTCPrefixScorer(posteriors(self.parts), self.tokenizer.blank_id, self.tokenizer.eos_id)
            scorers.append(Weighted("ctc", ctc, share))
        return [s for s in (*scorers, *self._fused()) if s.weight > 0]

    def _fused(self) -> list[Weighted]:
        pointed = getattr(self.model.decoder, "pointer", None) is not None
        return fused(self.options, self.phrases, self.lm, pointed=pointed)
