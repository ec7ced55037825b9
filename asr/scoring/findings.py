"""What is counted beside the rates while pairs go by: each finding has a file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from asr.metrics import Counts
from asr.scoring.breakdown import Groups
from asr.scoring.pairs import Pair
from asr.scoring.rates import Counted


class Finding(Protocol):
    """What was found: values for JSON under a name, and plain text."""

    @property
    def name(self) -> str: ...

    def as_dict(self) -> dict[str, Any]: ...

    def table(self) -> str: ...


class Watcher(Protocol):
    """Sees all pairs, normalised and in portions; then tells what it found, None where there was nothing."""

    def add(self, pairs: Sequence[Pair]) -> None: ...

    def found(self, counts: Mapping[Counted, Counts], groups: Groups | None) -> Finding | None:
        """counts: [utterances, 4] of each unit, in the order of the references.  groups: what is drawn together."""
        ...
