"""The measures that are made of an alignment's counts, on arrays of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asr.errors import ConfigError
from asr.metrics import Counts, Unit

Values = npt.NDArray[np.float64]


class Measure(NamedTuple):
    """What is counted, and what is made of the counts [..., 4] of each corpus, as a fraction."""

    unit: Unit
    of: Callable[[Counts], Values]


def _error_rate(counts: Counts) -> Values:
    hits, substitutions, deletions, insertions = np.moveaxis(counts, -1, 0)
    return (substitutions + deletions + insertions) / np.maximum(1, hits + substitutions + deletions)


def _match_error_rate(counts: Counts) -> Values:
    return (counts.sum(-1) - counts[..., 0]) / np.maximum(1, counts.sum(-1))


def _information_lost(counts: Counts) -> Values:
    hits, substitutions, deletions, insertions = np.moveaxis(counts.astype(float), -1, 0)
    said, recognised = hits + substitutions + deletions, hits + substitutions + insertions
    kept = hits / np.maximum(1, said) * (hits / np.maximum(1, recognised))
    return np.where(said + recognised == 0, 0.0, 1 - kept)


# MER and WIL: Morris, Maier and Green, "From WER and RIL to MER and WIL", Interspeech 2004; empty texts as in jiwer.
MEASURES: dict[str, Measure] = {
    "wer": Measure("word", _error_rate),
    "cer": Measure("character", _error_rate),
    "mer": Measure("word", _match_error_rate),
    "wil": Measure("word", _information_lost),
}


def check_metrics(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names without repetition; ConfigError for none and for an unknown one."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown metric {name!r}; did you mean {near!r}? Known: {', '.join(known)}")
    if not names:
        raise ConfigError(f"no metric to compute; known: {', '.join(known)}")
    return tuple(dict.fromkeys(names))
