"""Normalisers as chains of named steps, so that the effect of each step can be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Step(NamedTuple):
    """One change of a text, with a name for it."""

    name: str
    apply: Callable[[str], str]


@dataclass(frozen=True)
class Chain:
    """Steps applied one after the other; calling it with a text returns the normalised text."""

    steps: tuple[Step, ...] = ()

    def __call__(self, text: str) -> str:
        for step in self.steps:
            text = step.apply(text)
        return text

    def trace(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield the steps that change a text: the name, and the text after the step."""
        for step in self.steps:
            before, text = text, step.apply(text)
            if text != before:
                yield step.name, text


class Settled(Chain):
    """Steps repeated until nothing changes, and therefore idempotent."""

    def __call__(self, text: str) -> str:
        seen: list[str] = []
        while text not in seen:
            seen.append(text)
            text = super().__call__(text)
        # If the rules ever cycle between several texts, the smallest one represents them all.
        return min(seen[seen.index(text) :])

    def trace(self, text: str) -> Iterator[tuple[str, str]]:
        end = self(text)
        seen: set[str] = set()
        while text != end and text not in seen:
            seen.add(text)
            for name, after in super().trace(text):
                yield name, after
                text = after
        if text != end:
            yield "settling", end
