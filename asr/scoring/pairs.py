"""Match references with hypotheses by id while both files are streamed."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from asr.errors import ConfigError, DataError
from asr.scoring import streams
from asr.scoring.columns import Columns, stem
from asr.scoring.formats import is_one_recording, is_one_text, joined, open_texts, suffix
from asr.scoring.rows import Ids, PathLike, Row, Source, check_twice, some
from asr.scoring.streams import Spoken, spoken
from asr.scoring.timed import by_time

_FILE = re.compile(r"\.[A-Za-z]\w{1,4}$")  # the end of a path of audio, but not of ids such as "talk.1" or "en/a"


class Pair(NamedTuple):
    """An utterance's number among the references, and both of its texts.

    language: in which both are normalised.  fields: of the reference.  alternatives: the n-best list of the hypothesis,
    if any.  spoken: the timed words of both sides, if they were requested.
    """

    number: int
    id: str
    reference: str
    hypothesis: str
    language: str | None
    fields: Mapping[str, Any]
    duration_s: float | None = None
    alternatives: tuple[str, ...] = ()
    spoken: tuple[Spoken, Spoken] = ((), ())


def open_pair(
    reference: PathLike,
    hypothesis: PathLike,
    *,
    form: Literal["ids", "lines"] | None = None,
    columns: tuple[Columns, Columns],
    recordings: bool = False,
) -> tuple[Source, Source]:
    """Open both files so that their rows match: the format of each affects how the other is read.

    recordings: read STM and CTM as one row for each recording, with its times.
    """
    ref_columns, hyp_columns = columns
    kinds = suffix(reference), suffix(hypothesis)
    if form not in ("ids", "lines", None):
        raise ConfigError(f"form {form!r} is not one of plain text: 'ids' or 'lines'")
    if whole := is_one_text(reference) or is_one_text(hypothesis) or _one_said(reference, hypothesis, form):
        form = form or "lines"
    elif any(kinds):
        form = "ids"  # the other file has ids of its own
    if recordings and not whole:
        open_one = streams.opener(reference, hypothesis)
        return open_one(reference, form, ref_columns), open_one(hypothesis, form, hyp_columns)
    refs = open_texts(reference, form=form, columns=ref_columns)
    if whole:
        return joined(refs), joined(open_texts(hypothesis, form=form, columns=hyp_columns))
    hyps = open_texts(hypothesis, form="lines" if refs.form == "lines" else "ids", columns=hyp_columns)
    if refs.form == "stm" and hyps.form == "ctm":
        return refs, by_time(refs, hyps)
    return refs, hyps


def _one_said(reference: PathLike, hypothesis: PathLike, form: Literal["ids", "lines"] | None) -> bool:
    """Return whether a transcript of one recording stands beside plain text without ids, to be compared as a whole."""
    return any(
        is_one_recording(one) and not suffix(other) and (form or open_texts(other).form) == "lines"
        for one, other in ((reference, hypothesis), (hypothesis, reference))
    )


def paired(
    references: Source,
    hypotheses: Source,
    *,
    missing_as_empty: bool = False,
    ignore_extra: bool = False,
    language: str | None = None,
    timed: bool = False,
    hint: str = "",
) -> Iterator[Pair]:
    """Yield each pair as soon as both of its texts have been read; only rows that are out of order are held in memory.

    If no id is on both sides, ids that are paths, as `asr transcribe` writes them, are matched by their stems.
    Raises DataError, at the end, for duplicate ids and for ids that only one side has; with `missing_as_empty` a text
    missing from the hypotheses is empty, and with `ignore_extra` hypotheses without a reference are left out with a
    warning, unless texts are matched by line number.
    language: of utterances whose reference has none; only if it is None, the hypothesis decides, which may be wrong.
    """
    ref_ids, hyp_ids = Ids(), Ids()
    refs: dict[str, tuple[int, Row]] = {}
    hyps: dict[str, Row] = {}
    for number, (ref, hyp) in enumerate(zip_longest(references.rows(), hypotheses.rows())):
        if ref is not None:
            ref_ids.add(ref.id)
            refs[ref.id] = number, ref
        if hyp is not None:
            hyp_ids.add(hyp.id)
            hyps[hyp.id] = hyp
        for row in (ref, hyp):
            if row is not None and row.id in refs and row.id in hyps:
                yield _pair(*refs.pop(row.id), hyps.pop(row.id), language, timed)
    check_twice(references, ref_ids)
    check_twice(hypotheses, hyp_ids)
    if not ref_ids and not hyp_ids:
        raise DataError("nothing to score: there are no utterances")
    by_number = references.form == hypotheses.form == "lines"
    if by_number and len(ref_ids) != len(hyp_ids):
        raise DataError(
            f"{references.name} has {len(ref_ids)} lines and {hypotheses.name} {len(hyp_ids)}: texts without ids are "
            "matched by line number"
        )
    if len(refs) == len(ref_ids):
        ref_of, hyp_of = _by_stem(refs), _by_stem(hyps)
        for id in [id for id in ref_of if id in hyp_of]:
            number, ref = refs.pop(ref_of[id])
            yield _pair(number, ref._replace(id=id), hyps.pop(hyp_of[id]), language, timed)
    if ignore_extra and hyps:
        warnings.warn(f"{hypotheses.name}: left out {some(hyps)} that {references.name} lacks", stacklevel=2)
        hyps.clear()
    _check_ids(references.name, hypotheses.name, [] if missing_as_empty else refs, hyps, hint)
    for number, ref in refs.values():
        yield _pair(number, ref, Row(ref.id, ""), language, timed)


def _by_stem(ids: Collection[str]) -> dict[str, str]:
    """Return the ids, those that name files by their stems; if that makes two of them equal, all by themselves."""
    by_stem = {stem(id) if _FILE.search(id) else id: id for id in ids}
    return by_stem if len(by_stem) == len(ids) else {id: id for id in ids}


def _pair(number: int, ref: Row, hyp: Row, language: str | None, timed: bool) -> Pair:
    return Pair(
        number,
        ref.id,
        ref.text,
        hyp.text,
        ref.language or language or hyp.language,
        ref.fields,
        (_duration_s(ref.fields) or _duration_s(hyp.fields)) if ref.fields or hyp.fields else None,
        _alternatives(hyp) if hyp.fields else (),
        (spoken(ref), spoken(hyp)) if timed else ((), ()),
    )


def _duration_s(fields: Mapping[str, Any]) -> float | None:
    """Return the "duration" or "duration_s" of a row, or None unless it is a positive finite number."""
    try:
        duration_s = float(fields.get("duration") or fields.get("duration_s") or 0)
    except (TypeError, ValueError, OverflowError):
        return None
    return duration_s if 0 < duration_s < math.inf else None


def _alternatives(hyp: Row) -> tuple[str, ...]:
    """Return the texts of "nbest" or "alternatives", best first; raise DataError if they are not texts."""
    found = hyp.fields.get("nbest") or hyp.fields.get("alternatives")
    if not isinstance(found, list):
        return ()
    texts: list[Any] = [each.get("text") if isinstance(each, dict) else each for each in found]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f'utterance {hyp.id!r}: its n-best list must have texts, or objects with "text", best first')
    return tuple(texts)


def _check_ids(ref_name: str, hyp_name: str, missing: Collection[str], extra: Collection[str], hint: str) -> None:
    problems = [f"{hyp_name} lacks {some(missing)} of {ref_name}"] if missing else []
    problems += [f"{hyp_name} has {some(extra)} that {ref_name} lacks"] if extra else []
    if problems:
        both = missing and extra  # then the ids of the two files are probably built differently
        mend = "" if both else f" (asr score {'--missing-as-empty' if missing else '--ignore-extra'} accepts this)"
        raise DataError("; ".join(problems) + mend + hint)
