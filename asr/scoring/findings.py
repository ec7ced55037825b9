"""Statistics that are gathered along with the error rates; each kind of finding has its own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from asr.metrics import Counts
from asr.scoring.breakdown import Groups
from asr.scoring.pairs import Pair
from asr.scoring.rates import Counted


class Finding(Protocol):
    """A result of a watcher: JSON values under a name, and a plain-text table."""

    @property
    def name(self) -> str: ...

    def as_dict(self) -> dict[str, Any]: ...

    def table(self) -> str: ...


class Watcher(Protocol):
    """Collects statistics over all normalised pairs, which arrive in portions; `found` returns None for no finding."""

    def add(self, pairs: Sequence[Pair]) -> None: ...

    def found(self, counts: Mapping[Counted, Counts], groups: Groups | None) -> Finding | None:
        """Return the finding.

        counts: [utterances, 4] for each unit, in the order of the references.  groups: the blocks of the bootstrap.
        """
        ...
