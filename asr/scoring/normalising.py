"""Normalise both sides of a score in the same way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice

from asr.errors import AsrError, DataError, printable
from asr.metrics import word_errors
from asr.scoring.pairs import Pair
from asr.text import Chain, Normalizer

_PAIRS_AT_ONCE = 2000


def normalised(pairs: Iterable[Pair], normalizer: Normalizer, language: str | None) -> Iterator[list[Pair]]:
    """Yield the pairs in portions, with both texts normalised in the pair's language.

    Warns once if a second pass of the normaliser would change a text further.
    Raises DataError, with the utterance's id, for a text that cannot be normalised.
    """
    of_language = cache(normalizer.of_language)
    # Raises here, without naming an utterance, if the normaliser cannot treat the language that the user chose.
    plain = not of_language(language).steps
    settles = normalizer.idempotent
    going = iter(pairs)
    while portion := list(islice(going, _PAIRS_AT_ONCE)):
        once = portion if plain else [_normalise(pair, of_language) for pair in portion]
        if not settles:
            twice = (_normalise(pair, of_language) for pair in once)
            changing = ((pair, again) for pair, again in zip(once, twice, strict=True) if _texts(pair) != _texts(again))
            for pair, again in islice(changing, 1):
                settles = True  # one warning is enough
                warnings.warn(f"normalizer {normalizer.name} {_change(pair, again)}", stacklevel=2)
        yield once


def _normalise(pair: Pair, of_language: Callable[[str | None], Chain]) -> Pair:
    try:
        normalise = of_language(pair.language)
        return pair._replace(
            reference=normalise(pair.reference),
            hypothesis=normalise(pair.hypothesis),
            alternatives=tuple(map(normalise, pair.alternatives)),
        )
    except AsrError as e:
        raise DataError(f"utterance {pair.id!r}: {e}") from None


def _texts(pair: Pair) -> tuple[str, str]:
    return pair.reference, pair.hypothesis


def _change(once: Pair, twice: Pair) -> str:
    texts = (once.reference, twice.reference), (once.hypothesis, twice.hypothesis)
    error = next(error for before, after in texts for error in word_errors(before, after))
    return printable(
        f"does not settle: a second pass turns {error.reference!r} of utterance {once.id!r} into {error.hypothesis!r}"
    )
