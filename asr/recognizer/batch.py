"""A batch of windows to texts: encode, find the language, search, guard, and tell when each word was said.

Shapes: B windows, N samples, P start tokens, L tokens, R rows encoded at once.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from asr.checkpoint import ModelFolder
from asr.config import DecodeConfig
from asr.decode.phrases import PhraseScorer
from asr.decode.sample import sample
from asr.decode.scorers import CTCPrefixScorer, ForbidScorer
from asr.decode.search import Hypothesis, Weighted, search
from asr.errors import AsrError
from asr.evidence import Evidence, evidence
from asr.guards import Found, Guarded, guarded, silent
from asr.model.copying import copying
from asr.model.masks import Memory
from asr.model.precision import Precision, set_precision
from asr.phrases.lists import read_phrases
from asr.phrases.spelling import Speller
from asr.phrases.tree import PhraseTree
from asr.recognizer.budget import Footprint, footprint
from asr.recognizer.searchers import build_searcher, check_options, search_options
from asr.recognizer.timers import Timer, build_timer
from asr.transcript import Word

# Encoding is fastest with few rows of equal length, decoding with many rows: a batch is encoded in parts.
ENCODE_S = 30.0
_MAIN = (
    "attention",
    "transducer",
    "mask_predict",
    "mask_ctc",
    "ctc",
)  # whose part of a hypothesis tells how probable it is


@dataclass(frozen=True)
class Decoded:
    """What was found in a window: hypotheses, best first, its language, and of the best one more.

    log_prob: the mean of its tokens.  words: with times, if asked for.  no_speech: the probability that nobody speaks,
    where that was looked at.  guards: those that stepped in.
    """

    hypotheses: list[Hypothesis]
    language: str | None
    log_prob: float = 0.0
    words: tuple[Word, ...] = ()
    no_speech: float | None = None
    guards: tuple[str, ...] = ()


class BatchDecoder:
    """Turns waveforms of at most a window, batch by batch, into hypotheses; one set of options for all.

    Raises ConfigError for options that the model does not have the parts for.
    """

    def __init__(self, parts: ModelFolder, options: DecodeConfig, precision: Precision = "float32") -> None:
        self.config, self.model, self.tokenizer = parts
        self.options = options
        self.kind = self.config.model.decoder.kind
        check_options(self.config.model, options)
        set_precision(self.model, precision)
        self.rate = self.model.front_end.sample_rate_hz
        self.frame_s = self.model.front_end.hop_s * self.config.model.encoder.subsampling.factor
        self.phrases: PhraseScorer | None = None
        tree: PhraseTree | None = None
        if options.phrases is not None:
            self.phrases = PhraseScorer(read_phrases(options.phrases), Speller(self.tokenizer))
            tree = PhraseTree.of([self.phrases.paths])
        self.reader = copying(self.model.decoder, tree)  # of the list, in search
        self.parts = parts
        self.searcher = build_searcher(parts, options, self._search)

    @cached_property
    def timer(self) -> Timer:
        """What tells when words were said."""
        return build_timer(self.parts, self.frame_s)

    @cached_property
    def footprint(self) -> Footprint:
        """What decoding takes of the device's memory."""
        return footprint(self.parts, self.options.beam_size)

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
        task: str = "transcribe",
        words: bool = False,
        guards: bool = False,
        previous: Sequence[int] = (),
    ) -> list[Decoded]:
        """Decode waveforms at the front end's rate; a language that is None is detected, where the model can.

        previous: tokens that the decoder is fed before the start tokens, see `previous`.  They serve the search alone:
        language, guards and times of words come from the sound and the text that was found.
        """
        audio_BN, len_B = audio_BN.to(self.device), len_B.to(self.device)
        memory = self._encode(audio_BN, len_B)
        languages = self._fill_in(languages, memory)
        known = bool(self.tokenizer.languages)
        prefixes = [self._prefix(language if known else None, task) for language in languages]
        prefix_BP = torch.tensor(prefixes, dtype=torch.long, device=self.device)
        fed_BL = torch.cat([prefix_BP.new_tensor(previous).expand(len(prefix_BP), -1), prefix_BP], dim=1)
        caps = self._caps(memory, fed_BL.shape[1])
        found = self.searcher(memory, fed_BL, caps)
        results = [
            Decoded(hypotheses, language, self._found(hypotheses[0]).log_prob)
            for hypotheses, language in zip(found, languages, strict=True)
        ]
        if guards:
            kept = self._guard(found, audio_BN, len_B, memory, prefix_BP, fed_BL, caps)
            results = [_with(result, guarded) for result, guarded in zip(results, kept, strict=True)]
        if words:
            texts = [result.hypotheses[0].tokens for result in results]
            timed = self.timer.words(memory, texts, prefix_BP, audio_BN, len_B)
            results = [replace(result, words=tuple(w)) for result, w in zip(results, timed, strict=True)]
        return results

    def _search(self, memory: Memory, prefix_BP: Tensor, caps: Sequence[int]) -> list[list[Hypothesis]]:
        """The search of an attention decoder."""
        eos_id, options = self.tokenizer.eos_id, search_options(self.options)
        return search(self._scorers(prefix_BP.shape[1]), memory, prefix_BP, eos_id, caps, options)

    def _prefix(self, language: str | None, task: str) -> list[int]:
        """The start tokens of a text; CTC alone has no place for any."""
        return [] if self.kind == "none" else self.tokenizer.prefix(language, task)

    def _guard(
        self,
        found: Sequence[list[Hypothesis]],
        audio_BN: Tensor,
        len_B: Tensor,
        memory: Memory,
        prefix_BP: Tensor,
        fed_BL: Tensor,
        caps: Sequence[int],
    ) -> list[Guarded]:
        """What the guards leave of each best text."""

        def part(windows: Sequence[int]) -> Memory:
            return Memory(*(x[list(windows)] for x in memory))

        def listen(windows: Sequence[int], texts: Sequence[Found]) -> list[Evidence]:
            tokens, no_speech = [text.tokens for text in texts], self.tokenizer.no_speech_id
            prefix_RP = prefix_BP[list(windows)]
            return evidence(self.model.decoder, part(windows), prefix_RP, tokens, no_speech_id=no_speech)

        def redo(windows: Sequence[int], temperature: float) -> list[Found]:
            # Drawn from the sound itself, a text depends on nothing that stands beside it.
            seeds = [zlib.crc32(audio_BN[i, : int(len_B[i])].cpu().numpy().tobytes()) for i in windows]
            drawn = sample(
                self._scorers(fed_BL.shape[1]),
                part(windows),
                fed_BL[list(windows)],
                self.tokenizer.eos_id,
                [caps[i] for i in windows],
                search_options(self.options),
                temperature=temperature,
                seeds_B=seeds,
            )
            return [self._found(hypothesis) for hypothesis in drawn]

        options = self.options.guards
        kept = guarded([self._found(best) for best, *_ in found], redo, listen, options)
        nothing = silent(audio_BN, len_B, options).tolist()
        return [
            Guarded((), 0.0, guards=("silence",)) if quiet and g.tokens else g
            for g, quiet in zip(kept, nothing, strict=True)
        ]

    def _found(self, hypothesis: Hypothesis) -> Found:
        ended = self.kind == "attention" and not hypothesis.truncated  # with a token that says so
        count = max(1, len(hypothesis.tokens) + ended)
        log_prob = next((hypothesis.parts[name] for name in _MAIN if name in hypothesis.parts), 0.0) / count
        return Found(hypothesis.tokens, self.text(hypothesis), log_prob, hypothesis.truncated)

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

    def _encode(self, audio_BN: Tensor, len_B: Tensor) -> Memory:
        rows = max(1, int(ENCODE_S * self.rate / audio_BN.shape[1]))
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
            ctc = CTCPrefixScorer(self._posteriors, self.tokenizer.blank_id, self.tokenizer.eos_id)
            scorers.append(Weighted("ctc", ctc, share))
        if self.phrases is not None:
            scorers.append(Weighted("phrases", self.phrases, self.options.phrase_bonus))
        return [s for s in scorers if s.weight > 0]

    def _posteriors(self, memory: Memory) -> tuple[Tensor, Tensor]:
        assert self.model.ctc is not None
        return self.model.ctc(memory), memory.len_B

    def _fill_in(self, languages: Sequence[str | None], memory: Memory) -> Sequence[str | None]:
        """For languages that are not given, that of the most probable language token, if there are any.

        Only an attention decoder can tell; CTC alone need not know.
        """
        known = list(self.tokenizer.languages)
        if not known or None not in languages or self.kind == "none":
            return languages
        if self.kind != "attention":
            if len(known) > 1:
                raise AsrError(f"this model cannot detect the language: give it, one of {', '.join(known)}")
            return [known[0]] * len(languages)
        starts = torch.tensor([self.tokenizer.prefix(language)[:2] for language in known], device=self.device)
        first_B1 = starts[:1, :1].expand(len(memory.len_B), 1)
        log_prob_BV, _ = self.model.decoder.step(first_B1, self.model.decoder.start(memory))
        best_B = log_prob_BV[:, starts[:, 1]].argmax(1).tolist()
        return [given or known[best] for given, best in zip(languages, best_B, strict=True)]


def _with(result: Decoded, kept: Guarded) -> Decoded:
    """The result as the guards leave it."""
    if not kept.guards:
        return replace(result, no_speech=kept.no_speech)
    best, *others = result.hypotheses
    best = replace(best, tokens=kept.tokens, truncated=kept.truncated)
    return replace(
        result, hypotheses=[best, *others], log_prob=kept.log_prob, no_speech=kept.no_speech, guards=kept.guards
    )
