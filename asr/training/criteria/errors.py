"""Errors of the model's texts against their reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from asr.metrics import error_counts
from asr.scoring.translation import cutting
from asr.text import normalizer


class Errors:
    """Errors of texts, with both sides normalised as for scoring.

    metric: "wer" counts word errors, "cer" character errors; "bleu" is 1 - sentence BLEU, computed by sacrebleu.
    """

    def __init__(self, metric: str, normalizer_name: str) -> None:
        self.count = {"wer": _words, "cer": _characters, "bleu": _bleu}[metric]
        self.normalise = cache(lambda language: normalizer(normalizer_name, language))

    def __call__(self, reference: str, language: str | None, texts: Sequence[str]) -> list[float]:
        """Return the errors of each text."""
        normalise: Callable[[str], str] = self.normalise(language)
        return self.count(normalise(reference), [normalise(text.strip()) for text in texts], language)


def _words(reference: str, texts: Sequence[str], language: str | None) -> list[float]:
    return [float(n) for n in error_counts([reference] * len(texts), texts, "word")[:, 1:].sum(1)]


def _characters(reference: str, texts: Sequence[str], language: str | None) -> list[float]:
    return [float(n) for n in error_counts([reference] * len(texts), texts, "character")[:, 1:].sum(1)]


def _bleu(reference: str, texts: Sequence[str], language: str | None) -> list[float]:
    import sacrebleu  # only if it is needed

    metric = sacrebleu.BLEU(effective_order=True, **cutting([language]))
    return [1 - metric.sentence_score(text, [reference]).score / 100 for text in texts]
