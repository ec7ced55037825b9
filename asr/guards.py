"""Guards against texts that nobody said: noise that became words, and texts that run in a loop.

Nothing here needs a model: searching again and looking closer are functions that the caller hands in.  The sign that
tells hallucinations best is cross-attention: in speech it moves on through the recording from token to token, in
hallucinations and loops it stands still, often in the silence behind the recording.  The other signs are Whisper's
(Radford et al. 2022, section 4.5).  What was said, but is hard to make out, deserves a wider beam than the rest.

Shapes: B windows, N samples.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from asr.config import GuardConfig
from asr.evidence import Evidence

SHORT = 3  # tokens: a word and its punctuation are too few to tell how attention moves
LONGEST_ROUND = 8  # tokens of a loop


class Found(NamedTuple):
    """What a search found in a window.

    tokens: without start and end.  log_prob: their mean log-probability, the end included.  truncated: the length
    cap came before the end.  score: by which searches rank it.
    """

    tokens: Sequence[int]
    text: str
    log_prob: float
    truncated: bool = False
    score: float = 0.0


class Guarded(NamedTuple):
    """What is left of a text, and the names of the guards that stepped in.

    no_speech, unheard, improbable: the text was dropped.  loop_cut: it ran in a loop or went on where nothing more was
    heard, and was cut off there.  fallback:0.4: it did so, and this one was found instead, at that temperature.
    beam:5: it was improbable, and this one was found instead, with that beam.
    """

    tokens: tuple[int, ...]
    log_prob: float
    truncated: bool = False
    no_speech: float | None = None
    guards: tuple[str, ...] = ()


Redo = Callable[[Sequence[int], float], Sequence[Found]]
Widen = Callable[[Sequence[int]], Sequence[Found]]
Listen = Callable[[Sequence[int], Sequence[Found]], Sequence[Evidence]]


def guarded(
    found: Sequence[Found], redo: Redo, widen: Widen | None, listen: Listen, options: GuardConfig
) -> list[Guarded]:
    """Judge the text of every window, and mend or drop those that do not hold.

    redo(windows, temperature) searches these windows again, at random, and widen(windows) with the wider beam, if the
    search was narrower.  listen(windows, found) gives the evidence for texts of these windows.  All are asked only
    about texts that look doubtful, which is rare in speech.
    """
    results = [Guarded(tuple(f.tokens), f.log_prob, f.truncated) for f in found]
    doubtful = [i for i, f in enumerate(found) if _doubtful(f, options)]
    cases = _examine(doubtful, [found[i] for i in doubtful], listen, options)
    for i, case in cases.items():
        results[i] = case.outcome
    repeating = [i for i, case in cases.items() if "loop_cut" in case.outcome.guards]
    for temperature in options.temperatures:
        if not repeating:
            break
        again = _examine(repeating, redo(repeating, temperature), listen, options)
        for i, case in again.items():
            if not case.outcome.guards and case.found.log_prob >= options.fallback_log_prob:
                results[i] = case.outcome._replace(guards=(f"fallback:{temperature:g}",))
        repeating = [i for i in repeating if "loop_cut" in results[i].guards]
    if widen is not None:
        _take_better(results, found, widen, listen, options)
    return results


def silent(audio_BN: Tensor, len_B: Tensor, options: GuardConfig) -> Tensor:
    """Mark windows (B,) without a sample above the level of silence: there is nothing to search for in them."""
    real_BN = torch.arange(audio_BN.shape[1], device=len_B.device) < len_B[:, None]
    loud_BN = audio_BN.abs() > 10 ** (options.silence_db / 20)
    return ~(real_BN & loud_BN).any(1)


def advances(positions: Sequence[int], frames: int) -> tuple[int, int]:
    """How many tokens move on through the recording, and how many tokens there are up to the last that does.

    The longest rising run, gaps allowed (Fredman 1975): a token that looks ahead for once does not make the next
    ones stand still.  Positions behind the recording never count.
    """
    lowest: list[int] = []  # the lowest position at which a rising run of each length can end
    last = 0
    for count, position in enumerate(positions, start=1):
        if position < frames:
            length = bisect_left(lowest, position)
            last = count if length == len(lowest) else last
            lowest[length : length + 1] = [position]
    return len(lowest), last


def first_round(tokens: Sequence[int], times: int) -> int:
    """The number of tokens up to the end of a loop's first round; all of them where the text ends in no loop.

    A loop is the same 1 to 8 tokens at least `times` times at the end, the last time perhaps cut short.
    """
    best = len(tokens)
    for size in range(1, LONGEST_ROUND + 1):
        repeated = 0
        while repeated + size < len(tokens) and tokens[-1 - repeated] == tokens[-1 - repeated - size]:
            repeated += 1
        if repeated >= (times - 1) * size:
            best = min(best, len(tokens) - repeated)
    return best


def compression_ratio(text: str) -> float:
    """How much shorter zlib makes a text: about 1 for a sentence, above 2.4 where it repeats itself."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def _doubtful(found: Found, options: GuardConfig) -> bool:
    loops = first_round(found.tokens, options.loop_times) < len(found.tokens)
    squeezed = compression_ratio(found.text) > options.compression_ratio
    improbable = found.log_prob < options.doubt_log_prob
    return len(found.tokens) > 0 and (found.truncated or improbable or loops or squeezed)


def _take_better(
    results: list[Guarded], found: Sequence[Found], widen: Widen, listen: Listen, options: GuardConfig
) -> None:
    """Put better texts in place of improbable ones; where a guard has stepped in, or would, what it left stays."""
    improbable = [i for i, r in enumerate(results) if not r.guards and r.log_prob < options.wider_log_prob]
    wider = dict(zip(improbable, widen(improbable) if improbable else (), strict=True))
    # The same text may score a rounding higher.
    better = {i: f for i, f in wider.items() if f.score > found[i].score and tuple(f.tokens) != results[i].tokens}
    doubtful = [i for i, f in better.items() if _doubtful(f, options)]
    cases = _examine(doubtful, [better[i] for i in doubtful], listen, options)
    for i, f in better.items():
        if i not in cases or not cases[i].outcome.guards:
            mark = (f"beam:{options.wider_beam}",)
            results[i] = Guarded(tuple(f.tokens), f.log_prob, f.truncated, results[i].no_speech, mark)


def _examine(windows: Sequence[int], found: Sequence[Found], listen: Listen, options: GuardConfig) -> dict[int, _Case]:
    evidence = listen(windows, found) if windows else []
    return {i: _Case(f, e, options) for i, f, e in zip(windows, found, evidence, strict=True)}


@dataclass(frozen=True)
class _Case:
    """A text with what speaks for and against it."""

    found: Found
    evidence: Evidence
    options: GuardConfig

    @cached_property
    def outcome(self) -> Guarded:
        """The text that holds."""
        tokens, log_probs = tuple(self.found.tokens[: self.kept]), self.evidence.log_probs[: self.kept]
        cut = len(tokens) < len(self.found.tokens)
        log_prob = sum(log_probs) / max(1, len(log_probs)) if cut else self.found.log_prob
        if name := self._problem(len(tokens), log_prob, cut=cut):
            return Guarded((), log_prob, False, self.evidence.no_speech, (name,))
        guards = ("loop_cut",) if cut else ()
        return Guarded(tokens, log_prob, self.found.truncated and not cut, self.evidence.no_speech, guards)

    @cached_property
    def kept(self) -> int:
        """How many tokens stand before the text repeats itself or attention has come to its end."""
        tokens, o = self.found.tokens, self.options
        once = first_round(tokens, o.loop_times)
        _, last = advances(self.evidence.positions, self.evidence.frames)
        if len(tokens) - last >= o.stalled_tokens:
            return min(once, last)
        # Words that somebody says again and again are heard again and again; but nobody says them so often.
        return once if compression_ratio(self.found.text) > o.compression_ratio else len(tokens)

    def _problem(self, kept: int, log_prob: float, *, cut: bool) -> str | None:
        o, no_speech = self.options, self.evidence.no_speech or 0.0
        if no_speech > o.no_speech and log_prob < o.no_speech_log_prob:
            return "no_speech"
        moved, _ = advances(self.evidence.positions[:kept], self.evidence.frames)
        still = moved == 0 and no_speech > o.short_no_speech
        if (cut or still) if kept <= SHORT else moved < o.heard_share * kept:
            return "unheard"
        return "improbable" if log_prob < o.min_log_prob else None
