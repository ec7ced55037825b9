"""A normaliser is a chain of named steps, so that what each one did can be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Step(NamedTuple):
    """One change of a text, and what to call it."""

    name: str
    apply: Callable[[str], str]


@dataclass(frozen=True)
class Chain:
    """Steps, one after the other; called with a text it gives the normalised text."""

    steps: tuple[Step, ...] = ()

    def __call__(self, text: str) -> str:
        for step in self.steps:
            text = step.apply(text)
        return text

    def trace(self, text: str) -> Iterator[tuple[str, str]]:
        """The steps that change a text, by name, each with the text after it."""
        for step in self.steps:
            before, text = text, step.apply(text)
            if text != before:
                yield step.name, text


class Settled(Chain):
    """Steps that are repeated until nothing changes: idempotent, whatever each of them leaves behind."""

    def __call__(self, text: str) -> str:
        seen: list[str] = []
        while text not in seen:
            seen.append(text)
            text = super().__call__(text)
        # Should the rules ever turn two texts into each other, the lesser one stands for both.
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
