"""Score recognised texts against what was said: files or mappings in; counts, a table and the worst cases out."""

from __future__ import annotations

import difflib
import gzip
import json
import os
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal

from asr.errors import AsrError, ConfigError, DataError
from asr.metrics import ErrorRate, Unit, align, error_rates, show_alignment
from asr.text import normalizer as find_normalizer

METRICS: dict[str, Unit] = {"wer": "word", "cer": "character"}
Form = Literal["lines", "ids", "json"]
PathLike = str | os.PathLike[str]

# What tells a Kaldi-style id ("1089-134686-0000", "en/vm-goodbye", "spk_utt") from the first word of a sentence.
_ID_LIKE = re.compile(r"[\d_/]")


@dataclass(frozen=True)
class Texts:
    """Texts by id in the order of the file, the language of those that have one, and the form that was read."""

    path: str
    form: Form
    texts: dict[str, str]
    languages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Utterance:
    """One pair as it was compared: after normalisation."""

    id: str
    reference: str
    hypothesis: str
    rates: dict[str, ErrorRate]


@dataclass(frozen=True)
class ScoreReport:
    """What `score` found."""

    utterances: tuple[Utterance, ...]
    metrics: tuple[str, ...]
    normalizer: str
    language: str | None = None
    form: Form | None = None  # how the reference file was read; None where no file was

    @cached_property
    def rates(self) -> dict[str, ErrorRate]:
        """The counts of every metric, all utterances together."""
        return {name: sum((u.rates[name] for u in self.utterances), ErrorRate()) for name in self.metrics}

    def as_dict(self) -> dict[str, Any]:
        """The result as values for JSON; rates are fractions."""
        counts = ("substitutions", "deletions", "insertions", "hits", "reference_length")
        rows = {n: {"rate": r.rate} | {c: getattr(r, c) for c in counts} for n, r in self.rates.items()}
        made = {"normalizer": self.normalizer, "language": self.language, "form": self.form}
        return {"utterances": len(self.utterances), **made, "metrics": rows}

    def table(self) -> str:
        """The result as plain text; below the counts their share of the reference in per cent."""
        read = {"lines": ", a text a line", "ids": ", read as id and text", "json": "", None: ""}[self.form]
        rows = [f"{len(self.utterances)} utterances{read}, normalizer {self.normalizer}"]
        rows.append(f"{'':4}{'rate %':>10}{'sub':>10}{'del':>10}{'ins':>10}{'hits':>10}{'reference':>11}")
        for name, r in self.rates.items():
            counts = (r.substitutions, r.deletions, r.insertions, r.hits)
            shares = (100 * count / max(1, r.reference_length) for count in counts)
            rows.append(
                f"{name.upper():4}{100 * r.rate:10.2f}{''.join(f'{c:10}' for c in counts)}{r.reference_length:11}"
            )
            rows.append(f"{'':14}{''.join(f'{share:9.2f}%' for share in shares)}")
        return "\n".join(rows)

    def worst(self, count: int = 5, *, width: int = 100) -> str:
        """The utterances with most errors by the first metric, aligned; those without an error are left out."""
        metric = self.metrics[0]
        wrong = [u for u in self.utterances if u.rates[metric].errors]
        wrong.sort(key=lambda u: (-u.rates[metric].errors, -u.rates[metric].rate))
        gap = " " if METRICS[metric] == "word" else ""
        blocks = []
        for u in wrong[:count]:
            rate = u.rates[metric]
            edits = align(u.reference, u.hypothesis, METRICS[metric])
            head = f"{u.id}: {METRICS[metric]} errors {rate.errors}, reference {rate.reference_length}"
            blocks.append(f"{head}\n{show_alignment(edits, width=width, gap=gap)}")
        return "\n\n".join(blocks)


def score(
    reference: PathLike,
    hypothesis: PathLike,
    *,
    metrics: Sequence[str] = ("wer", "cer"),
    normalizer: str = "none",
    language: str | None = None,
    form: Form | None = None,
) -> ScoreReport:
    """Score one file against another.

    `.jsonl` and `.jsonl.gz` hold an object a line, with "id", "text" and perhaps "language", or a lhotse cut (the
    texts of its supervisions in order of time, joined). Every other file is plain text, perhaps gzipped, in one of
    two forms; `form` says which, "ids" or "lines". Without it, the reference decides for both files: they are read
    as `id text` if the other file has ids of its own, or if the first words of the reference's lines are all
    different and each holds a digit, an underscore or a slash; else as a text a line, matched by line number.

    The language of an utterance is that of the reference, else of the hypothesis, else `language`.
    Raises DataError, with file and line, for what cannot be read, and for ids that are missing, extra or there
    twice; ConfigError for an unknown metric or normaliser.
    """
    refs, hyps = _read_pair(reference, hypothesis, form)
    if refs.form == hyps.form == "lines" and len(refs.texts) != len(hyps.texts):
        raise DataError(
            f"{refs.path} has {len(refs.texts)} lines and {hyps.path} {len(hyps.texts)}: texts without ids are "
            "matched by line number"
        )
    guessed = refs.form == "ids" and form is None
    hint = f" ({refs.path} was read as `id text`; form 'lines' matches lines by number)" if guessed else ""
    _check_ids(refs.texts, hyps.texts, refs.path, hyps.path, hint)
    return score_texts(
        refs.texts,
        hyps.texts,
        metrics=metrics,
        normalizer=normalizer,
        language=language,
        languages={**hyps.languages, **refs.languages},
        form=refs.form,
    )


def score_texts(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    *,
    metrics: Sequence[str] = ("wer", "cer"),
    normalizer: str = "none",
    language: str | None = None,
    languages: Mapping[str, str | None] | None = None,
    form: Form | None = None,
) -> ScoreReport:
    """Normalise both sides in the same way and compare texts of the same id.

    `languages` gives the language of single utterances, `language` that of all others.
    Raises DataError for ids that only one side has, or an utterance that cannot be normalised, by its id.
    """
    for name in metrics:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown metric {name!r}; did you mean {near!r}? Known: {', '.join(METRICS)}")
    if not metrics:
        raise ConfigError(f"no metric to compute; known: {', '.join(METRICS)}")
    _check_ids(references, hypotheses, "the references", "the hypotheses")
    if not references:
        raise DataError("nothing to score: there are no utterances")
    normaliser = cache(find_normalizer)
    normaliser(normalizer, language)  # a wrong name is the user's slip, not an utterance's
    refs, hyps = [], []
    for id, text in references.items():
        try:
            normalise = normaliser(normalizer, (languages or {}).get(id) or language)
            refs.append(normalise(text))
            hyps.append(normalise(hypotheses[id]))
        except AsrError as e:
            raise DataError(f"utterance {id!r}: {e}") from None
    names = tuple(dict.fromkeys(metrics))
    columns = [error_rates(refs, hyps, METRICS[name]) for name in names]
    utterances = tuple(
        Utterance(id, ref, hyp, dict(zip(names, rates, strict=True)))
        for id, ref, hyp, *rates in zip(references, refs, hyps, *columns, strict=True)
    )
    return ScoreReport(utterances, names, normalizer, language, form)


def read_texts(path: PathLike, *, form: Form | None = None) -> Texts:
    """Read the texts of one file; see `score` for the forms. Texts without ids are numbered from "1"."""
    lines = list(_lines(path))
    if _is_json(path):
        return _from_json(path, lines)
    return _from_plain(path, lines, form or ("ids" if _have_ids(lines) else "lines"))


def _read_pair(reference: PathLike, hypothesis: PathLike, form: Form | None) -> tuple[Texts, Texts]:
    if _is_json(reference) or _is_json(hypothesis):
        return read_texts(reference, form="ids"), read_texts(hypothesis, form="ids")
    refs = read_texts(reference, form=form)
    return refs, read_texts(hypothesis, form=refs.form)


def _is_json(path: PathLike) -> bool:
    return os.fspath(path).lower().endswith((".jsonl", ".jsonl.gz"))


def _have_ids(lines: Sequence[str]) -> bool:
    first = [line.split(maxsplit=1)[0] for line in lines if line.strip()]
    return bool(first) and len(set(first)) == len(first) and all(map(_ID_LIKE.search, first))


def _lines(path: PathLike) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends; only a line feed parts lines, with or without a return."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as f:
            data = f.read()
        if name.endswith(".gz"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{name}: cannot be read: {getattr(e, 'strerror', None) or e}") from None
    rows = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, row in enumerate(rows if rows[-1] else rows[:-1], start=1):
        try:
            yield row.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError as e:
            raise DataError(f"{name}:{number}: not UTF-8 (byte 0x{row[e.start]:02x}); save the file as UTF-8") from None


def _from_plain(path: PathLike, lines: Sequence[str], form: Form) -> Texts:
    name = os.fspath(path)
    if form == "lines":
        return Texts(name, form, {str(number): line for number, line in enumerate(lines, start=1)})
    if form != "ids":
        raise ConfigError(f"form {form!r} is for .jsonl files; {name} is plain text: 'ids' or 'lines'")
    fields = (line.split(maxsplit=1) for line in lines if line.strip())
    pairs = [(id, "".join(text)) for id, *text in fields]
    _check_twice(name, [id for id, _ in pairs])
    return Texts(name, form, dict(pairs))


def _from_json(path: PathLike, lines: Sequence[str]) -> Texts:
    name, ids = os.fspath(path), []
    texts: dict[str, str] = {}
    languages: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            id, text, language = _from_cut(row) if "supervisions" in row or "tracks" in row else _from_row(row)
        except (ValueError, RecursionError):
            raise DataError(f"{name}:{number}: not a JSON object on one line") from None
        except (AttributeError, KeyError, TypeError):
            raise DataError(f'{name}:{number}: needs "id" and "text" as strings, or a lhotse cut') from None
        ids.append(id)
        texts[id] = text
        if language:
            languages[id] = language
    _check_twice(name, ids)
    return Texts(name, "json", texts, languages)


def _from_row(row: Mapping[str, Any]) -> tuple[str, str, str | None]:
    id, text, language = row["id"], row["text"], row.get("language")
    if not (isinstance(id, str) and isinstance(text, str) and isinstance(language, str | None)):
        raise TypeError
    return id, text, language


def _from_cut(row: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Read a cut as plain JSON: lhotse itself takes seconds to import, which is longer than most scores."""
    tracks = row.get("tracks") or [{"cut": row}]
    spoken = [
        (track.get("offset", 0.0) + part["start"], part.get("text") or "", part.get("language"))
        for track in tracks
        for part in track["cut"].get("supervisions", ())
    ]
    spoken.sort(key=lambda s: s[0])
    languages = {language for _, _, language in spoken}
    text = " ".join(text for _, text, _ in spoken if text)
    return _from_row({"id": row["id"], "text": text, "language": languages.pop() if len(languages) == 1 else None})


def _check_ids(refs: Collection[str], hyps: Collection[str], ref_name: str, hyp_name: str, hint: str = "") -> None:
    missing = [id for id in refs if id not in hyps]
    extra = [id for id in hyps if id not in refs]
    problems = [f"{hyp_name} lacks {_some(missing)} of {ref_name}"] if missing else []
    problems += [f"{hyp_name} has {_some(extra)} that {ref_name} lacks"] if extra else []
    if problems:
        raise DataError("; ".join(problems) + hint)


def _check_twice(name: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    twice = dict.fromkeys(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
    if twice:
        raise DataError(f"{name} has {_some(list(twice))} more than once")


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return f"{len(ids)} id{'s' * (len(ids) > 1)} ({', '.join(ids[:10])}{more})"
