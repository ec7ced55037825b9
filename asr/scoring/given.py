"""Inputs of the Python interface: files, or texts in lists and dicts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from asr.errors import DataError, printable
from asr.scoring.columns import Columns
from asr.scoring.formats import open_texts
from asr.scoring.pairs import open_pair
from asr.scoring.rows import PathLike, Row, Source

Texts = PathLike | Iterable[str] | Mapping[str, str]
_PATH = (str, os.PathLike)
_NAMES = ("the reference", "the hypothesis")  # after the arguments of asr.score


def open_given(
    reference: Texts,
    hypothesis: Texts,
    *,
    form: Literal["ids", "lines"] | None,
    columns: tuple[Columns, Columns],
    recordings: bool,
) -> tuple[Source, Source]:
    """Open both sides as sources; a file beside a list is read as one text a line, a file beside a dict by id.

    Raises DataError for values that are not texts, for a list beside a dict, and for lists of different lengths.
    """
    sides = ref, hyp = _side(reference), _side(hypothesis)
    if isinstance(ref, _PATH) and isinstance(hyp, _PATH):
        return open_pair(ref, hyp, form=form, columns=columns, recordings=recordings)
    lists = [side for side in sides if isinstance(side, list)]
    if len(lists) == 1 and (isinstance(ref, Mapping) or isinstance(hyp, Mapping)):
        raise DataError("texts of a list are matched by number, those of a dict by id: give both in lists or in dicts")
    if len(lists) == 2 and len(lists[0]) != len(lists[1]):
        raise DataError(f"{len(lists[0])} references and {len(lists[1])} hypotheses: lists are matched by number")
    beside: Literal["ids", "lines"] = "lines" if lists else "ids"
    refs, hyps = (
        open_texts(side, form=beside, columns=own)
        if isinstance(side, _PATH)
        else Source(name, "lines" if len(lists) == 1 else None, partial(_rows, side, name))
        for side, name, own in zip(sides, _NAMES, columns, strict=True)
    )
    return refs, hyps


def _rows(texts: list[Any] | Mapping[Any, Any], name: str) -> Iterator[Row]:
    """Yield a row for each text, those of a list numbered from 1; raise DataError for a value that is not a str."""
    for id, text in texts.items() if isinstance(texts, Mapping) else enumerate(texts, start=1):
        if not isinstance(text, str):
            raise DataError(f"{name}: the text of {id!r} must be a str, not {type(text).__name__}")
        yield Row(str(id), text)


def _side(texts: Any) -> PathLike | list[Any] | Mapping[Any, Any]:
    """Return a path as it is and texts as a list or dict; raise DataError for a string that names no existing file."""
    if isinstance(texts, str) and not os.path.exists(texts):
        raise DataError(f"{printable(texts)[:100]}: no such file; give texts themselves in a list or a dict")
    if isinstance(texts, str | os.PathLike | Mapping):
        return texts
    if isinstance(texts, Iterable) and not isinstance(texts, bytes | bytearray):
        return list(texts)
    raise DataError(f"expected the path of a file, a list of str or a dict of str, not {type(texts).__name__}")
