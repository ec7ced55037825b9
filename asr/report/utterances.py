"""The utterances on the page, each aligned with the hypothesis of every system, as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from asr.metrics import MARKS, Edit, Unit, align
from asr.progress import OnDone
from asr.scoring import Comparison, ScoreOptions, texts_of
from asr.scoring.breakdown import Groups, by_length
from asr.scoring.rates import MEASURES
from asr.scoring.rows import PathLike

Run = tuple[str, str | int]
_TOLD = 100  # utterances between updates of the progress bar


class Shown(NamedTuple):
    """An utterance on the page: its number among the references, its errors over all systems, and its JSON line."""

    number: int
    id: str
    errors: int
    line: str


def unit_of(comparison: Comparison) -> Unit:
    """Return the unit in which the page aligns: that of the first rate, words for tcWER or if there is no rate."""
    first = MEASURES[next(iter(comparison.reports[0].rates), "wer")].unit
    return "word" if first == "timed word" else first


def fields_of(comparison: Comparison, unit: Unit) -> list[Groups]:
    """Return the fields by which utterances can be filtered: the reference length, and those of the breakdown."""
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
    """Return the `most` utterances with most errors, in the order of the references.

    The files are read a second time, as counting keeps no texts.  A line has "number", "id", "ref" (words separated by
    spaces, or characters), for each system "counts" (hits, substitutions, deletions, insertions) and "hyps" (the result
    of `runs`), and "groups", the index of its value in each of the fields.
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
    """Encode an alignment compactly: "=" or "D" with a length, "S" or "I" with the tokens of the hypothesis.

    Together with the reference this determines the alignment.
    """
    found: list[Run] = []
    for kind, same in groupby(edits, key=lambda edit: edit.kind):
        tokens = [edit.hypothesis for edit in same]
        found.append((MARKS[kind] or "=", gap.join(tokens) if kind in ("substitute", "insert") else len(tokens)))
    return found


def script_json(value: object) -> str:
    """Encode a value as JSON that is safe in a script element: it cannot end the element or begin a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _worst(comparison: Comparison, unit: Unit, most: int) -> list[int]:
    errors_N = sum(report.counts[unit][:, 1:].sum(1) for report in comparison.reports)
    return sorted(np.argsort(-np.asarray(errors_N), kind="stable")[:most].tolist())


def _shown(row: dict[str, Any]) -> Shown:
    errors = sum(sum(counts[1:]) for counts in row["counts"])
    return Shown(row["number"], row["id"], errors, script_json(row))
