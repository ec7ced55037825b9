"""The utterances that the page shows, each aligned with what every system made of it, as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from asr.metrics import MARKS, Edit, Unit, align
from asr.scoring import Comparison, ScoreOptions, texts_of
from asr.scoring.breakdown import Groups, by_length
from asr.scoring.rates import MEASURES
from asr.scoring.rows import PathLike

OnDone = Callable[[float, float], None]
Run = tuple[str, str | int]
_TOLD = 100  # utterances, between one look of a progress bar and the next


class Shown(NamedTuple):
    """An utterance of the page: its number among the references, the errors of all systems, and its line of JSON."""

    number: int
    id: str
    errors: int
    line: str


def unit_of(comparison: Comparison) -> Unit:
    """What the page aligns: words or characters, as the first of the rates counts them."""
    first = MEASURES[next(iter(comparison.reports[0].rates), "wer")].unit
    return "word" if first == "timed word" else first


def fields_of(comparison: Comparison, unit: Unit) -> list[Groups]:
    """What utterances are told apart by: the length of the reference, and the fields of the breakdown."""
    first = comparison.reports[0]
    return [by_length(first.counts[unit], unit), *(groups for groups in first.breakdowns if groups.field != "length")]


def aligned(
    comparison: Comparison,
    reference: PathLike,
    hypotheses: Sequence[PathLike],
    options: ScoreOptions,
    *,
    most: int,
    on_done: OnDone,
) -> list[Shown]:
    """The utterances in the order of the references; of more than `most`, those with most errors.

    The files are read once more, for counting keeps no text.  A line has "number", "id", "ref" (its words with spaces
    between, or its characters), for each system "counts" (hits, substitutions, deletions, insertions) and "hyps" (the
    runs of `runs`), and in "groups" which value of each of the fields it has.
    """
    unit = unit_of(comparison)
    gap = "" if unit == "character" else " "
    numbers = _worst(comparison, unit, most)
    found: dict[int, dict[str, Any]] = {number: {"number": number, "hyps": []} for number in numbers}
    done, total = 0, len(numbers) * len(hypotheses)
    for hypothesis in hypotheses:
        for pair in texts_of(reference, hypothesis, options, found):
            edits = align(pair.reference, pair.hypothesis, unit)
            row = found[pair.number]
            row["id"] = pair.id
            row["ref"] = gap.join(edit.reference for edit in edits if edit.kind != "insert")
            row["hyps"].append(runs(edits, gap))
            done += 1
            if done % _TOLD == 0 or done == total:
                on_done(done, total)
    fields = fields_of(comparison, unit)
    for number, row in found.items():
        row["counts"] = [report.counts[unit][number].tolist() for report in comparison.reports]
        row["groups"] = [int(groups.of_utterance[number]) for groups in fields]
    return [_shown(row) for row in found.values()]


def runs(edits: Iterable[Edit], gap: str) -> list[Run]:
    """An alignment in short: "=" or "D" and how many, "S" or "I" and the tokens of the hypothesis.

    Beside the reference that is all there is to know.
    """
    found: list[Run] = []
    for kind, same in groupby(edits, key=lambda edit: edit.kind):
        tokens = [edit.hypothesis for edit in same]
        found.append((MARKS[kind] or "=", gap.join(tokens) if kind in ("substitute", "insert") else len(tokens)))
    return found


def script_json(value: object) -> str:
    """A value as JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _worst(comparison: Comparison, unit: Unit, most: int) -> list[int]:
    errors_N = sum(report.counts[unit][:, 1:].sum(1) for report in comparison.reports)
    return sorted(np.argsort(-np.asarray(errors_N), kind="stable")[:most].tolist())


def _shown(row: dict[str, Any]) -> Shown:
    errors = sum(sum(counts[1:]) for counts in row["counts"])
    return Shown(row["number"], row["id"], errors, script_json(row))
