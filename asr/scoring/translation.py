"""BLEU, chrF and TER, as sacrebleu computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

TRANSLATION = ("bleu", "chrf", "ter")


class TranslationScore(NamedTuple):
    """A score on sacrebleu's scale of 0 to 100, and the signature that tells how it was computed."""

    value: float
    signature: str


def translation_score(name: str, references: Sequence[str], hypotheses: Sequence[str]) -> TranslationScore:
    """The score of a corpus with one reference a text.  name: of TRANSLATION."""
    import sacrebleu  # only where it is asked for

    metrics: dict[str, Any] = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF, "ter": sacrebleu.TER}
    metric = metrics[name]()
    score = metric.corpus_score(hypotheses, [references])
    return TranslationScore(float(score.score), str(metric.get_signature()))
