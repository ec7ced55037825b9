"""Word and character error rates and the alignments behind them, with the results of jiwer.

jiwer creates an object for each chunk of each alignment. Where only counts are needed, its engine, rapidfuzz, is
called directly in the same way, without keeping anything.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jiwer
import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rich.cells import cell_len

from asr.errors import DataError
from asr.text.scripts import mixed_tokens

Unit = Literal["word", "character", "token"]
Kind = Literal["equal", "substitute", "delete", "insert"]

Counts = npt.NDArray[np.integer[Any]]  # [..., 4]: hits, substitutions, deletions, insertions

_PARTS: dict[Unit, Callable[[str], Sequence[str]]] = {"word": str.split, "character": str.strip, "token": mixed_tokens}
MARKS = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}


@dataclass(frozen=True)
class ErrorRate:
    """Counts of an alignment."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def reference_length(self) -> int:
        """Number of units in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of reference: 0.05 for 5 %.

        For an empty reference it is the number of insertions, as in jiwer: finite, and 0 if nothing was inserted.
        """
        return self.errors / max(1, self.reference_length)


@dataclass(frozen=True)
class Edit:
    """One step of an alignment: a token of the reference and one of the hypothesis, '' where one side has none."""

    kind: Kind
    reference: str
    hypothesis: str


def error_counts(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> Counts:
    """Count the errors of hypotheses against references, compared pair by pair: an array [pairs, 4].

    Words are separated by white space. Characters are code points and include the spaces between words, as in
    jiwer, but not white space at either end. Tokens are those of `mixed_tokens`: characters of Chinese and other
    scripts without spaces, words of all others. Either side may have empty texts.
    Raises DataError if the two sides differ in number.
    """
    if len(references) != len(hypotheses):
        raise DataError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: they are compared pair by pair"
        )
    parts = _PARTS[unit]
    rows = [_count(parts(ref), parts(hyp)) for ref, hyp in zip(references, hypotheses, strict=True)]
    return np.array(rows, dtype=np.int32).reshape(-1, 4)


class WordError(NamedTuple):
    """One error; at: the index of the reference word that it affects, or before which a word is inserted."""

    kind: Kind
    at: int
    reference: str
    hypothesis: str


def word_errors(reference: str, hypothesis: str) -> list[WordError]:
    """Return the errors of one pair in order; '' where a side has no word."""
    refs, hyps = reference.split(), hypothesis.split()
    found = []
    edits: Any = Levenshtein.editops(refs, hyps).as_list()
    for tag, at, against in edits:
        kind: Kind = "substitute" if tag == "replace" else tag
        ref = "" if kind == "insert" else refs[at]
        found.append(WordError(kind, at, ref, "" if kind == "delete" else hyps[against]))
    return found


def word_matches(refs: Sequence[str], hyps: Sequence[str]) -> tuple[dict[int, int], list[int]]:
    """Return the alignment on which all counts are based: its hits and its insertions.

    The hits map indices in the reference to indices in the hypothesis; the insertions are indices in the hypothesis.
    """
    edits: Any = Levenshtein.editops(refs, hyps)
    hits = {b.a + i: b.b + i for b in edits.as_matching_blocks() for i in range(b.size)}
    return hits, [against for tag, _, against in edits.as_list() if tag == "insert"]


def align(reference: str, hypothesis: str, unit: Unit = "word") -> list[Edit]:
    """Return a minimal sequence of edits that turns the reference into the hypothesis."""
    if unit == "character":
        out = jiwer.process_characters(reference, hypothesis)
    else:
        # jiwer splits words at single spaces only; tabs, no-break and ideographic spaces must count as well.
        out = jiwer.process_words(*(" ".join(_PARTS[unit](text)) for text in (reference, hypothesis)))
    edits: list[Edit] = []
    for chunk in out.alignments[0]:
        refs = out.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
        hyps = out.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
        length = max(len(refs), len(hyps))
        refs, hyps = refs or [""] * length, hyps or [""] * length
        edits.extend(Edit(chunk.type, r, h) for r, h in zip(refs, hyps, strict=True))
    return edits


def show_alignment(edits: Iterable[Edit], *, width: int = 100, gap: str = " ") -> str:
    """Draw an alignment as plain text: REF over HYP over a mark (S, D, I) below each error.

    Stars fill the side that has no token. Blocks of three lines are wrapped at `width` columns; East Asian wide
    characters take two columns, combining marks none. Control characters are shown as ``\\x1b``, so that a
    transcript cannot manipulate the terminal, and a space that is itself a token as ``␣``. `gap` separates tokens;
    use '' for characters.
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
        for row, cell in enumerate((ref, hyp, MARKS[edit.kind])):
            blocks[-1][row] += cell + " " * (columns - cell_len(cell)) + gap
        used += columns + len(gap)
    # An alignment without an error needs no line of marks.
    rows = ("\n".join(line.rstrip() for line in block if line.strip()) for block in blocks or [list(head)])
    return "\n\n".join(rows)


def _count(ref: Sequence[str], hyp: Sequence[str]) -> tuple[int, int, int, int]:
    """Return hits, substitutions, deletions, insertions.  rapidfuzz compares words by their 64-bit hashes."""
    if ref == hyp:
        return len(ref), 0, 0, 0
    substitutions = deletions = insertions = 0
    steps: Any = Levenshtein.opcodes(ref, hyp).as_list()
    for tag, start, end, hyp_start, hyp_end in steps:
        if tag == "replace":
            substitutions += end - start
        elif tag == "delete":
            deletions += end - start
        elif tag == "insert":
            insertions += hyp_end - hyp_start
    return len(ref) - substitutions - deletions, substitutions, deletions, insertions


def _visible(token: str) -> str:
    if token == " ":
        return "␣"
    # Cc: control; Cf: format, which includes the marks that reverse the direction of a whole line.
    hidden = {"Cc", "Cf", "Zl", "Zp", "Cs"}
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in hidden else c for c in token)
