"""BLEU, chrF and TER, computed by sacrebleu.

Shapes: N texts, K statistics of each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from asr.scoring.rates import Sums, Values
from asr.tasks import base_code

TRANSLATION = ("bleu", "chrf", "ter")
MORE_IS_BETTER = ("bleu", "chrf")
_AT_ONCE = 1_000  # texts at once: sacrebleu holds all n-grams of their references
RESAMPLES = 1_000  # as in sacrebleu; each resample's score is computed in Python
_CHINESE = ("zh", "cmn", "nan", "wuu", "yue")
_CUT = dict.fromkeys(_CHINESE, "zh") | dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")
_EAST_ASIAN = (*_CHINESE, "ja")
_SPACED = "tok:13a", "asian:no"  # in signatures of scores whose words are what spaces separate


class TranslationScore(NamedTuple):
    """A score on sacrebleu's scale of 0 to 100, and sacrebleu's signature of how it was computed.

    counts_NK: sufficient statistics of each text.  metric: the sacrebleu object that turns sums of them into scores.
    """

    value: float
    signature: str
    counts_NK: Sums
    metric: Any

    @property
    def spaced(self) -> bool:
        """Whether the score is of words separated by spaces."""
        return any(sign in self.signature.split("|") for sign in _SPACED)

    def ratio(self, sums: Sums) -> Values:
        """Return the score for each row of sums [..., K]."""
        return np.apply_along_axis(self._of_sums, -1, sums)

    def _of_sums(self, sums_K: Sums) -> float:
        return float(self.metric._compute_score_from_stats(sums_K.tolist()).score)


def cutting(languages: Collection[str | None]) -> dict[str, str]:
    """Return the tokenizer option of sacrebleu's BLEU for texts in these languages."""
    cut = _CUT.get(_only(languages))
    return {"tokenize": cut} if cut else {}


def _only(languages: Collection[str | None]) -> str:
    """Return the base code of the only language, '' if there are several."""
    codes = {base_code(code or "") for code in languages}
    return codes.pop() if len(codes) == 1 else ""


def translation_score(
    name: str, references: Sequence[str], hypotheses: Sequence[str], languages: Collection[str | None] = ()
) -> TranslationScore:
    """Score a corpus with one reference for each text.

    name: one of TRANSLATION.  languages: of the texts.  BLEU tokenizes Chinese with sacrebleu's `zh`, other scripts
    without spaces into characters, and everything else, including texts in several languages, with mteval-v13a.  TER
    splits Chinese characters and kanji, as tercom's normalisation does, if all texts are Chinese or Japanese.
    """
    import sacrebleu  # imported only when needed

    metrics: dict[str, Any] = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF, "ter": sacrebleu.TER}
    split = _only(languages) in _EAST_ASIAN
    options: Mapping[str, Mapping[str, Any]] = {
        "bleu": cutting(languages),
        "ter": {"normalized": split, "asian_support": split},
    }
    metric = metrics[name](**options.get(name, {}))
    # The statistics that corpus_score sums up: no public method returns them by text, as intervals and groups need.
    counts_NK = np.concatenate(
        [
            np.array(metric._extract_corpus_statistics(hypotheses[part], [references[part]]), dtype=np.int32)
            for part in (slice(at, at + _AT_ONCE) for at in range(0, len(references), _AT_ONCE))
        ]
    )
    score = metric._compute_score_from_stats(counts_NK.sum(0).tolist())
    return TranslationScore(float(score.score), str(metric.get_signature()), counts_NK, metric)
