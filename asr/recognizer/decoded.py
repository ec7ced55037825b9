"""What was found in a window of audio."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asr.decode.search import Hypothesis
from asr.guards import Guarded
from asr.transcript import Word


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

    def guarded(self, kept: Guarded, wider: list[Hypothesis] | None) -> Decoded:
        """What the guards leave of it; `wider`: what a wider beam found, if it was asked."""
        if not kept.guards:
            return replace(self, no_speech=kept.no_speech)
        if wider is not None and kept.tokens == wider[0].tokens:
            hypotheses = wider
        else:
            # What else the search found has not been looked at.
            score = kept.log_prob * max(1, len(kept.tokens))
            hypotheses = [Hypothesis(kept.tokens, score, {}, kept.truncated)]
        return replace(
            self, hypotheses=hypotheses, log_prob=kept.log_prob, no_speech=kept.no_speech, guards=kept.guards
        )
