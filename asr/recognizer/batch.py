"""A batch of windows to texts: encode, find the language, search, guard, and tell when each word was said.

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
from asr.decode.search import Hypothesis, SearchOptions, Weighted, search
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
from asr.recognizer.fusion import open_language_model
from asr.recognizer.searchers import build_searcher, check_options, posteriors, search_options
from asr.recognizer.timers import Timer, build_timer
from asr.tasks import chosen, into

# Encoding on a CPU is fastest with few rows of equal length, decoding with many rows: a batch is encoded in parts.
ENCODE_S = {"cpu": 30.0}
# Whose part of a hypothesis tells how probable it is.
_MAIN = ("attention", "transducer", "mask_predict", "mask_ctc", "ctc")


class _Windows(NamedTuple):
    """Windows that are decoded together, encoded; `fed_BL` are the start tokens with what is fed before them."""

    audio_BN: Tensor
    len_B: Tensor
    memory: Memory
    prefix_BP: Tensor
    fed_BL: Tensor
    caps: Sequence[int]

    def part(self, rows: Sequence[int]) -> _Windows:
        """Some of the windows, nothing being encoded again."""
        at = list(rows)
        memory = self.memory.part(at)
        caps = [self.caps[row] for row in at]
        return _Windows(self.audio_BN[at], self.len_B[at], memory, self.prefix_BP[at], self.fed_BL[at], caps)

    def seeds(self, run: str = "") -> list[int]:
        """Of random draws: made from the sound itself, so that a text depends on nothing that stands beside it."""
        begin, pairs = zlib.crc32(run.encode()), zip(self.audio_BN, self.len_B.tolist(), strict=True)
        return [zlib.crc32(audio_N[:count].cpu().numpy().tobytes(), begin) for audio_N, count in pairs]


class BatchDecoder:
    """Turns waveforms of at most a window, batch by batch, into hypotheses; one set of options for all.

    Raises ConfigError for options that the model does not have the parts for.
    """

    def __init__(self, parts: ModelFolder, options: DecodeConfig, precision: Precision = "float32") -> None:
        self.config, self.model, self.tokenizer = parts
        self.kind = self.config.model.decoder.kind
        check_options(self.config.model, options)
        self.options = options
        set_precision(self.model, precision)
        self.rate = self.model.front_end.sample_rate_hz
        self.frame_s = self.model.front_end.hop_s * self.config.model.encoder.subsampling.factor
        self._listen([] if options.phrases is None else read_phrases(options.phrases))
        self.lm = open_language_model(options, self.tokenizer)
        self.parts = parts
        self._timers: dict[bool, Timer] = {}
        self.searcher = build_searcher(parts, options, self._search)

    def varied(self, options: DecodeConfig) -> BatchDecoder:
        """The same decoder with other weights and widths of the search; files are not read again."""
        check_options(self.config.model, options)
        other = copy(self)
        other.options = options
        other.__dict__.pop("footprint", None)  # which hangs on the beam
        other.searcher = build_searcher(self.parts, options, other._search)
        return other

    def listening(self, phrases: Sequence[Phrase] | None, bonus: float | None = None) -> BatchDecoder:
        """The same decoder with these phrases and their bonus in place of its own, each None where it is to be kept.

        Raises ConfigError where it cannot use any, and for a bonus without phrases or below 0.
        """
        if self.kind != "attention":
            raise ConfigError(f"hotwords are for decoders of kind attention; this model's is {self.kind}")
        other = self.varied(self.options)
        if phrases is not None:
            other._listen(phrases)
        if bonus is not None:
            if other.phrases is None or not 0 <= bonus < math.inf:
                raise ConfigError(f"hotword_bonus {bonus}: give a number from 0 on, and hotwords with it")
            other.options = other.options.model_copy(update={"phrase_bonus": float(bonus)})
        return other

    def _listen(self, phrases: Sequence[Phrase]) -> None:
        self.phrases = PhraseScorer(phrases, Speller(self.tokenizer)) if phrases else None
        tree = None if self.phrases is None else PhraseTree.of([self.phrases.paths])
        self.reader = copying(self.model.decoder, tree)  # of the list, in search

    def timer(self, task: str | None = None) -> Timer:
        """What tells when words of a task's texts were said.  Raises ConfigError for a model that cannot."""
        spoken = into(chosen(task, self.tokenizer.tasks)) is None
        if spoken not in self._timers:
            self._timers[spoken] = build_timer(self.parts, self.frame_s, spoken=spoken)
        return self._timers[spoken]

    @cached_property
    def footprint(self) -> Footprint:
        """What decoding takes of the device's memory; few windows are searched again with a wider beam."""
        return footprint(self.parts, self.options)

    @property
    def detects(self) -> bool:
        """Whether a language need not be given."""
        return self.kind in ("attention", "none") or len(self.tokenizer.languages) < 2

    @property
    def asks_language(self) -> str:
        """What to tell who has not given one that has to be."""
        return f"this model cannot detect the language: give it, one of {', '.join(self.tokenizer.languages)}"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
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
        """Decode waveforms at the front end's rate; a language that is None is detected, where the model can.

        previous: tokens that the decoder is fed before the start tokens, see `previous`.  They serve the search alone:
        language, guards and times of words come from the sound and the text that was found.  memory: what `encode` gave
        for these waveforms, where they are decoded several times.
        """
        audio_BN, len_B = audio_BN.to(self.device), len_B.to(self.device)
        memory = self.encode(audio_BN, len_B) if memory is None else memory
        languages = self._fill_in(languages, memory)
        known = bool(self.tokenizer.languages)
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
        """The search of an attention decoder, perhaps with another beam than that of the options."""
        options = search_options(self.options)
        if beam_size is not None:
            options = replace(options, beam_size=beam_size)
        return search(self._scorers(prefix_BP.shape[1]), memory, prefix_BP, self.tokenizer.eos_id, caps, options)

    def _drawn(self, windows: _Windows) -> list[list[Hypothesis]]:
        """Texts of an attention decoder that are drawn at random."""
        o = self.options
        seeds_KB = [windows.seeds(f"{o.seed} {number}") for number in range(o.n_best)]
        seeds_BK = list(zip(*seeds_KB, strict=True))
        drawn = sample(*self._searched(windows), temperature=o.temperature, top_p=o.top_p, seeds_BK=seeds_BK)
        return [ranked(texts) for texts in drawn]

    def _searched(self, windows: _Windows) -> tuple[list[Weighted], Memory, Tensor, int, Sequence[int], SearchOptions]:
        """What it takes to draw texts."""
        scorers, options = self._scorers(windows.fed_BL.shape[1]), search_options(self.options)
        return scorers, windows.memory, windows.fed_BL, self.tokenizer.eos_id, windows.caps, options

    def _prefix(self, language: str | None, task: str | None) -> list[int]:
        """The start tokens of a text; CTC alone has no place for any."""
        return [] if self.kind == "none" else self.tokenizer.prefix(language, task)

    def _guard(self, results: Sequence[Decoded], windows: _Windows) -> list[Decoded]:
        """What the guards leave of each best text."""
        wider: dict[int, list[Hypothesis]] = {}

        def listen(rows: Sequence[int], texts: Sequence[Found]) -> list[Evidence]:
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
            seeds_BK = [[seed] for seed in part.seeds()]
            drawn = sample(*self._searched(part), temperature=temperature, seeds_BK=seeds_BK)
            return [self._found(hypothesis) for (hypothesis,) in drawn]

        options = self.options.guards
        found = [self._found(result.hypotheses[0]) for result in results]
        quiet = silent(windows.audio_BN, windows.len_B, options).tolist()
        nothing = Found((), "", 0.0)  # of which no guard asks more
        found = [nothing if q else f for f, q in zip(found, quiet, strict=True)]
        narrow = options.wider_beam > self.options.beam_size and self.options.temperature == 0
        kept = guarded(found, redo, widen if narrow else None, listen, options)
        kept = [
            Guarded((), result.log_prob, guards=("silence",)) if q and result.hypotheses[0].tokens else g
            for g, q, result in zip(kept, quiet, results, strict=True)
        ]
        return [result.guarded(g, wider.get(i)) for i, (result, g) in enumerate(zip(results, kept, strict=True))]

    def _found(self, hypothesis: Hypothesis) -> Found:
        ended = self.kind == "attention" and not hypothesis.truncated  # with a token that says so
        count = max(1, len(hypothesis.tokens) + ended)
        log_prob = next((hypothesis.parts[name] for name in _MAIN if name in hypothesis.parts), 0.0) / count
        return Found(hypothesis.tokens, self.text(hypothesis), log_prob, hypothesis.truncated, hypothesis.score)

    def text(self, hypothesis: Hypothesis) -> str:
        """The text of a hypothesis."""
        return self.tokenizer.decode(list(hypothesis.tokens)).strip()

    def previous(self, prompt: str) -> list[int]:
        """A text as the model is told of what was said before, at most half of what the decoder can be fed: its end.

        Raises AsrError where the vocabulary has no token that announces it.
        """
        if self.kind != "attention" or self.tokenizer.previous_id is None:
            raise AsrError("this model takes no prompt: its vocabulary has no token for it (Whisper's has)")
        most = self.config.model.decoder.max_length // 2 - 1
        return [self.tokenizer.previous_id, *self.tokenizer.encode(prompt)[-most:]] if most > 0 else []

    @property
    def listens(self) -> bool:
        """Whether a language that is not given is found in the sound."""
        return self.kind == "attention" and len(self.tokenizer.languages) > 1

    @torch.inference_mode()
    def languages(self, audio_BN: Tensor, len_B: Tensor) -> list[str | None]:
        """The language of each of these waveforms."""
        memory = self.encode(audio_BN.to(self.device), len_B.to(self.device))
        return list(self._fill_in([None] * len(audio_BN), memory))

    @torch.inference_mode()
    def encode(self, audio_BN: Tensor, len_B: Tensor) -> Memory:
        """What the encoder hears in waveforms on its device."""
        seconds = ENCODE_S.get(audio_BN.device.type)
        rows = len(audio_BN) if seconds is None else max(1, int(seconds * self.rate / audio_BN.shape[1]))
        return Memory.join(
            [
                self.model.encode(audio_RN[:, : int(len_R.max())], len_R)
                for audio_RN, len_R in zip(audio_BN.split(rows), len_B.split(rows), strict=True)
            ]
        )

    def _caps(self, memory: Memory, fed: int) -> list[int]:
        """The most tokens that each text may have, after `fed` tokens."""
        room = self.config.model.decoder.max_length - fed
        seconds_B = (memory.len_B * self.frame_s).tolist()
        return [min(room, 8 + math.ceil(s * self.options.max_tokens_per_s)) for s in seconds_B]

    def _scorers(self, fed: int) -> list[Weighted]:
        """The weighted parts of the score, after `fed` tokens that are not scored."""
        forbid = ForbidScorer(
            self.tokenizer.vocab_size,
            self.tokenizer.suppressed_ids,
            self.tokenizer.suppressed_first_ids,
            fed,
        )
        share = self.options.ctc_weight
        scorers = [Weighted("attention", self.reader, 1 - share), Weighted("allowed", forbid, 1.0)]
        if share > 0:
            ctc = CTCPrefixScorer(posteriors(self.parts), self.tokenizer.blank_id, self.tokenizer.eos_id)
            scorers.append(Weighted("ctc", ctc, share))
        if self.phrases is not None:
            pointed = getattr(self.model.decoder, "pointer", None) is not None
            usual = 0.0 if pointed else 1.0  # both together make more errors than either (docs/methods.md)
            given = self.options.phrase_bonus
            scorers.append(Weighted("phrases", self.phrases, usual if given is None else given))
        if self.lm is not None:
            scorers.append(Weighted("lm", self.lm, self.options.lm_weight))
        return [s for s in scorers if s.weight > 0]

    def _fill_in(self, languages: Sequence[str | None], memory: Memory) -> Sequence[str | None]:
        """For languages that are not given, that of the most probable language token, if there are any.

        Only an attention decoder can tell; CTC alone need not know.
        """
        known = list(self.tokenizer.languages)
        if not known or None not in languages or self.kind == "none":
            return languages
        if not self.detects:
            raise AsrError(self.asks_language)
        if self.kind != "attention":
            return [known[0]] * len(languages)
        rows = [row for row, given in enumerate(languages) if given is None]
        starts = torch.tensor([self.tokenizer.prefix(language)[:2] for language in known], device=self.device)
        first_B1 = starts[:1, :1].expand(len(rows), 1)
        part = Memory(*(x[rows] for x in memory))
        log_prob_BV, _ = self.model.decoder.step(first_B1, self.model.decoder.start(part))
        heard = iter(log_prob_BV[:, starts[:, 1]].argmax(1).tolist())
        return [known[next(heard)] if given is None else given for given in languages]
