"""The result of decoding a window of audio."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asr.decode.search import Hypothesis
from asr.guards import Guarded
from asr.transcript import Word


@dataclass(frozen=True)
class Decoded:
    """The result of decoding a window: its hypotheses, best first, its language, and details of the best hypothesis.

    log_prob: mean log-probability of its tokens.  words: its words with times, if requested.  no_speech: probability
    that nobody speaks, if it was computed.  guards: names of the guards that intervened.
    """

    hypotheses: list[Hypothesis]
    language: str | None
    log_prob: float = 0.0
    words: tuple[Word, ...] = ()
    no_speech: float | None = None
    guards: tuple[str, ...] = ()

    def guarded(self, kept: Guarded, wider: list[Hypothesis] | None) -> Decoded:
        """Apply the decision of the guards; `wider`: the hypotheses of a wider beam, if one was tried."""
        if not kept.guards:
            return replace(self, no_speech=kept.no_speech)
        if wider is not None and kept.tokens == wider[0].tokens:
            hypotheses = wider
        else:
            # The guards have not checked the other hypotheses of the search.
            hypotheses = [Hypothesis(kept.tokens, kept.log_prob, {}, kept.truncated)]
        return replace(
            self, hypotheses=hypotheses, log_prob=kept.log_prob, no_speech=kept.no_speech, guards=kept.guards
        )
