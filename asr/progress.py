"""How functions that take long report their progress."""

from __future__ import annotations

from collections.abc import Callable

# Called with how much is done and the total, in seconds, utterances or steps.
OnDone = Callable[[float, float], None]


def unseen(done: float, total: float) -> None:
    """Report to nobody."""
