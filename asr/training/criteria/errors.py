"""Errors of the model's texts against their reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

from asr.metrics import Unit, error_counts
from asr.scoring.translation import cutting
from asr.text import normalizer

_Count = Callable[[str, Sequence[str], str | None], list[float]]


class Errors:
    """Errors of texts, with both sides normalised as for scoring.

    metric: "wer" counts word errors, "cer" character errors; "bleu" is 1 - sentence BLEU, computed by sacrebleu.
    """

    def __init__(self, metric: str, normalizer_name: str) -> None:
        counts: dict[str, _Count] = {
            "wer": partial(_edits, "word"),
            "cer": partial(_edits, "character"),
            "bleu": _bleu,
        }
        self.count = counts[metric]
        self.normalise = cache(lambda language: normalizer(normalizer_name, language))

    def __call__(self, reference: str, language: str | None, texts: Sequence[str]) -> list[float]:
        """Return the errors of each text."""
        normalise: Callable[[str], str] = self.normalise(language)
        return self.count(normalise(reference), [normalise(text.strip()) for text in texts], language)


def _edits(unit: Unit, reference: str, texts: Sequence[str], language: str | None) -> list[float]:
    return [float(n) for n in error_counts([reference] * len(texts), texts, unit)[:, 1:].sum(1)]


def _bleu(reference: str, texts: Sequence[str], language: str | None) -> list[float]:
    import sacrebleu  # only if it is needed

    metric = sacrebleu.BLEU(effective_order=True, **cutting([language]))
    return [1 - metric.sentence_score(text, [reference]).score / 100 for text in texts]
