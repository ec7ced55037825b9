"""BLEU, chrF and TER, as sacrebleu computes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

TRANSLATION = ("bleu", "chrf", "ter")
_CUT = {"zh": "zh"} | dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")


class TranslationScore(NamedTuple):
    """A score on sacrebleu's scale of 0 to 100, and the signature that tells how it was computed."""

    value: float
    signature: str


def translation_score(
    name: str, references: Sequence[str], hypotheses: Sequence[str], languages: Collection[str | None] = ()
) -> TranslationScore:
    """The score of a corpus with one reference a text.

    name: of TRANSLATION.  languages: of the texts.  BLEU cuts Chinese as sacrebleu does, and texts of other scripts
    without spaces into characters; all else, and texts of several languages, into the words of mteval-v13a.
    """
    import sacrebleu  # only where it is asked for

    metrics: dict[str, Any] = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF, "ter": sacrebleu.TER}
    codes = {(code or "").replace("_", "-").partition("-")[0].lower() for code in languages}
    cut = _CUT.get(codes.pop()) if name == "bleu" and len(codes) == 1 else None
    metric = metrics[name](**({"tokenize": cut} if cut else {}))
    score = metric.corpus_score(hypotheses, [references])
    return TranslationScore(float(score.score), str(metric.get_signature()))
