"""Word and character error rates, and the alignments behind them; jiwer finds the alignment and so the counts."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import jiwer
from rich.cells import cell_len

from asr.errors import DataError

Unit = Literal["word", "character"]
Kind = Literal["equal", "substitute", "delete", "insert"]

# jiwer keeps the alignment of everything that it is given at once: this bounds its memory.
_PAIRS_AT_ONCE = 2000
_MARKS = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}


@dataclass(frozen=True)
class ErrorRate:
    """Counts of an alignment; two of them add up to the counts of both together."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def reference_length(self) -> int:
        """Words or characters of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of reference, 0.05 for 5 %.

        Above an empty reference it is the number of insertions, as in jiwer: finite, and 0 if nothing was inserted.
        """
        return self.errors / max(1, self.reference_length)

    def __add__(self, other: ErrorRate) -> ErrorRate:
        return ErrorRate(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True)
class Edit:
    """One step of an alignment: a token of the reference against one of the hypothesis ('' where there is none)."""

    kind: Kind
    reference: str
    hypothesis: str


def error_rate(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> ErrorRate:
    """Count the errors of hypotheses against references, pair by pair, and sum them up.

    Words are what white space parts. Characters are code points and include the spaces between words, as in
    jiwer, while white space at both ends is no part of a text. Empty texts are allowed on either side.
    Raises DataError when the two sides differ in number.
    """
    return sum(error_rates(references, hypotheses, unit), ErrorRate())


def error_rates(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> list[ErrorRate]:
    """Count the errors of each pair by itself; otherwise like `error_rate`."""
    return [_count(chunks) for _, _, chunks in _aligned(references, hypotheses, unit)]


def align(reference: str, hypothesis: str, unit: Unit = "word") -> list[Edit]:
    """Return the edits that turn the reference into the hypothesis, in order, as few as possible."""
    edits: list[Edit] = []
    for ref, hyp, chunks in _aligned([reference], [hypothesis], unit):
        for chunk in chunks:
            refs = ref[chunk.ref_start_idx : chunk.ref_end_idx]
            hyps = hyp[chunk.hyp_start_idx : chunk.hyp_end_idx]
            length = max(len(refs), len(hyps))
            refs, hyps = refs or [""] * length, hyps or [""] * length
            edits.extend(Edit(chunk.type, r, h) for r, h in zip(refs, hyps, strict=True))
    return edits


def show_alignment(edits: Iterable[Edit], *, width: int = 100, gap: str = " ") -> str:
    """Draw an alignment as lines of plain text: REF over HYP over a mark (S, D, I) below each error.

    Stars stand where one side has nothing. Blocks of three lines are folded at `width` columns; East Asian wide
    characters take two columns, combining marks none. Control characters are shown as ``\\x1b``, so that a
    transcript cannot play with the terminal, and a space that is a token itself as ``␣``. `gap` parts tokens: ''
    suits characters.
    """
    head = ("REF: ", "HYP: ", "     ")
    blocks: list[list[str]] = []
    used = width + 1
    for edit in edits:
        ref, hyp = _visible(edit.reference), _visible(edit.hypothesis)
        columns = max(cell_len(ref), cell_len(hyp), 1)
        ref, hyp = ref or "*" * columns, hyp or "*" * columns
        if used + columns > width:
            blocks.append(list(head))
            used = len(head[0])
        for row, cell in enumerate((ref, hyp, _MARKS[edit.kind])):
            blocks[-1][row] += cell + " " * (columns - cell_len(cell)) + gap
        used += columns + len(gap)
    # An alignment without an error needs no line of marks.
    rows = ("\n".join(line.rstrip() for line in block if line.strip()) for block in blocks or [list(head)])
    return "\n\n".join(rows)


def _aligned(
    refs: Sequence[str], hyps: Sequence[str], unit: Unit
) -> Iterator[tuple[list[str], list[str], list[jiwer.AlignmentChunk]]]:
    """Tokens of both sides and jiwer's chunks, for every pair."""
    if len(refs) != len(hyps):
        raise DataError(f"{len(refs)} references but {len(hyps)} hypotheses: they are compared pair by pair")
    for start in range(0, len(refs), _PAIRS_AT_ONCE):
        some_refs, some_hyps = refs[start : start + _PAIRS_AT_ONCE], hyps[start : start + _PAIRS_AT_ONCE]
        if unit == "word":
            # jiwer parts words at single spaces only: tabs, no-break and ideographic spaces count here as well.
            out = jiwer.process_words(
                [" ".join(t.split()) for t in some_refs], [" ".join(t.split()) for t in some_hyps]
            )
        else:
            out = jiwer.process_characters(list(some_refs), list(some_hyps))
        yield from zip(out.references, out.hypotheses, out.alignments, strict=True)


def _count(chunks: Iterable[jiwer.AlignmentChunk]) -> ErrorRate:
    counts = dict.fromkeys(_MARKS, 0)
    for chunk in chunks:
        length = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        counts[chunk.type] += length
    return ErrorRate(counts["equal"], counts["substitute"], counts["delete"], counts["insert"])


def _visible(token: str) -> str:
    if token == " ":
        return "␣"
    # Cc: control; Cf: format, which includes the marks that turn the direction of a whole line.
    hidden = {"Cc", "Cf", "Zl", "Zp", "Cs"}
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in hidden else c for c in token)
