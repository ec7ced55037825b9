"""BLEU, chrF and TER, as sacrebleu computes them.

Shapes: N texts, K counts of each.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from asr.scoring.rates import Sums, Values

TRANSLATION = ("bleu", "chrf", "ter")
MORE_IS_BETTER = ("bleu", "chrf")
_AT_ONCE = 1_000  # texts, of whose references sacrebleu holds all n-grams
RESAMPLES = 1_000  # sacrebleu's own number; each is a score that Python computes
_CUT = {"zh": "zh"} | dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")


class TranslationScore(NamedTuple):
    """A score on sacrebleu's scale of 0 to 100, and the signature that tells how it was computed.

    counts_NK: what it is made of, by text.  metric: sacrebleu's, which makes scores of their sums.
    """

    value: float
    signature: str
    counts_NK: Sums
    metric: Any

    def ratio(self, sums: Sums) -> Values:
        """The scores of corpora with these sums [..., K]."""
        return np.apply_along_axis(self._of_sums, -1, sums)

    def _of_sums(self, sums_K: Sums) -> float:
        return float(self.metric._compute_score_from_stats(sums_K.tolist()).score)


def cutting(languages: Collection[str | None]) -> dict[str, str]:
    """How sacrebleu's BLEU is told to cut texts of these languages."""
    codes = {(code or "").replace("_", "-").partition("-")[0].lower() for code in languages}
    cut = _CUT.get(codes.pop()) if len(codes) == 1 else None
    return {"tokenize": cut} if cut else {}


def translation_score(
    name: str, references: Sequence[str], hypotheses: Sequence[str], languages: Collection[str | None] = ()
) -> TranslationScore:
    """The score of a corpus with one reference a text.

    name: of TRANSLATION.  languages: of the texts.  BLEU cuts Chinese as sacrebleu does, and texts of other scripts
    without spaces into characters; all else, and texts of several languages, into the words of mteval-v13a.
    """
    import sacrebleu  # only where it is asked for

    metrics: dict[str, Any] = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF, "ter": sacrebleu.TER}
    metric = metrics[name](**(cutting(languages) if name == "bleu" else {}))
    # What corpus_score sums up; nothing public gives it by text, which intervals and groups need.
    counts_NK = np.concatenate(
        [
            np.array(metric._extract_corpus_statistics(hypotheses[part], [references[part]]), dtype=np.int32)
            for part in (slice(at, at + _AT_ONCE) for at in range(0, len(references), _AT_ONCE))
        ]
    )
    score = metric._compute_score_from_stats(counts_NK.sum(0).tolist())
    return TranslationScore(float(score.score), str(metric.get_signature()), counts_NK, metric)
