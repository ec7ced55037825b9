"""Guards against texts that nobody said: noise that was turned into words, and texts that run in a loop.

Nothing here needs a model: the caller passes in functions that search again and that gather evidence.  The best sign of
a hallucination is cross-attention: in speech it moves on through the recording from token to token; in hallucinations
and loops it stands still, often in the silence after the recording.  The other signs are Whisper's (Radford et al.
2022, section 4.5).  Speech that is hard to make out is searched again with a wider beam.

Shapes: B windows, N samples.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from asr.config import GuardConfig
from asr.evidence import Evidence
from asr.lengths import within

SHORT = 3  # tokens: a word and its punctuation are too few to judge how attention moves
LONGEST_ROUND = 8  # tokens in one round of a loop


class Found(NamedTuple):
    """The text that a search found in a window.

    tokens: without start and end.  log_prob: their mean log-probability, the end token included.  truncated: whether
    the length cap came before the end token.  score: what the search ranks texts by.
    """

    tokens: Sequence[int]
    text: str
    log_prob: float
    truncated: bool = False
    score: float = 0.0


class Guarded(NamedTuple):
    """What is left of a text, and the names of the guards that intervened.

    no_speech, unheard, improbable: the text was dropped.  loop_cut: it ran in a loop, or continued after nothing more
    was heard, and was cut off there.  fallback:0.4: the same happened, and this text was found instead at that
    temperature.  beam:5: the text was improbable, and this one was found instead with that beam.
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
    """Judge the text of every window, and repair or drop those that fail.

    redo(windows, temperature) searches windows again by random sampling, and widen(windows) with the wider beam;
    widen is None if the search was already that wide.  listen(windows, found) gives the evidence for texts of these
    windows.  All are called only for doubtful texts, which are rare in speech.
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
    real_BN = within(len_B, audio_BN.shape[1])
    loud_BN = audio_BN.abs() > 10 ** (options.silence_db / 20)
    return ~(real_BN & loud_BN).any(1)


def advances(positions: Sequence[int], frames: int) -> tuple[int, int]:
    """Return how many tokens move on through the recording, and the number of tokens up to the last one that does.

    These are the longest rising subsequence (Fredman 1975), so one token that looks ahead does not make the next ones
    seem to stand still.  Positions after the recording never count.
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
    """Return the number of tokens up to the end of a loop's first round, or of all if the text ends in no loop.

    A loop is the same 1 to 8 tokens, at least `times` times at the end of the text; the last round may be incomplete.
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
    """Return how much shorter zlib makes a text: about 1 for a sentence, above 2.4 for one that repeats itself."""
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
    """Replace improbable texts by better ones from the wider beam, unless a guard intervened or would intervene."""
    improbable = [i for i, r in enumerate(results) if not r.guards and r.log_prob < options.wider_log_prob]
    wider = dict(zip(improbable, widen(improbable) if improbable else (), strict=True))
    # The same text may score slightly higher because of rounding.
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
    """A text with the evidence for and against it."""

    found: Found
    evidence: Evidence
    options: GuardConfig

    @cached_property
    def outcome(self) -> Guarded:
        """What is left of the text."""
        tokens, log_probs = tuple(self.found.tokens[: self.kept]), self.evidence.log_probs[: self.kept]
        cut = len(tokens) < len(self.found.tokens)
        log_prob = sum(log_probs) / max(1, len(log_probs)) if cut else self.found.log_prob
        if name := self._problem(len(tokens), log_prob, cut=cut):
            return Guarded((), log_prob, False, self.evidence.no_speech, (name,))
        guards = ("loop_cut",) if cut else ()
        return Guarded(tokens, log_prob, self.found.truncated and not cut, self.evidence.no_speech, guards)

    @cached_property
    def kept(self) -> int:
        """The number of tokens before the text repeats itself or attention stops moving."""
        tokens, o = self.found.tokens, self.options
        once = first_round(tokens, o.loop_times)
        _, last = advances(self.evidence.positions, self.evidence.frames)
        if len(tokens) - last >= o.stalled_tokens:
            return min(once, last)
        # Repeated words that were really said are heard each time, but nobody repeats them this often.
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
