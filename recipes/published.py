"""Prepare corpora with published splits and ids: find or fetch, read, decode, and write as cuts or shards."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.console import Console

from asr.errors import DataError, printable
from recipes.clips import Dropped, Utterance, as_cuts, assign, drop_copies, groups_also_in_train
from recipes.listening import listen
from recipes.preparing import (
    SPLITS,
    Report,
    manifest_path,
    manifests,
    name_of,
    once,
    state_of,
    write_cuts,
    write_stamp,
)
from recipes.report import show, summarize
from recipes.shards import shards_path, write_shards


class Place(NamedTuple):
    """The location of a part of a corpus: its folder, and files elsewhere."""

    folder: Path
    files: tuple[Path, ...] = ()


class Part(NamedTuple):
    """A part of a corpus as published, such as test-clean, and the split to which it belongs."""

    name: str
    split: str
    language: str
    place: Place

    def utterance(
        self,
        name: str,
        speaker: str,
        text: str,
        path: Path,
        where: str,
        span_s: tuple[float, float | None] = (0.0, None),
        translations: Mapping[str, str] = MappingProxyType({}),
    ) -> Utterance:
        """Return an utterance of this part.  where: file and line of the text."""
        begin_s, end_s = span_s
        return Utterance(
            self.language,
            name,
            speaker,
            self.split,
            speaker,
            text,
            path,
            translations=translations,
            part=self.name,
            where=where,
            begin_s=begin_s,
            end_s=end_s,
        )

    def dropped(self, name: str, reason: str) -> Dropped:
        """Return a record of something in this part that is left out."""
        return Dropped(self.language, printable(name), self.split, reason)

    def without_text(self, files: Iterable[Path], told: Mapping[str, Any] | set[str]) -> Iterator[Dropped]:
        """Yield the audio files without a text as left out."""
        return (self.dropped(str(path), "no text") for path in sorted(files) if path.stem not in told)


@dataclass(frozen=True)
class Corpus:
    """The description of a corpus by its recipe.

    code: the folders of the recipe.  find: locates a part, fetching it if necessary.  read: yields the utterances of a
    part, and what is left out.  splits: the parts of each.  sizes: utterances of complete parts, if known.
    """

    code: Sequence[Path]
    language: str
    find: Callable[[str, Console], Place]
    read: Callable[[Part], Iterable[Utterance | Dropped]]
    splits: Mapping[str, Sequence[str]] = field(default_factory=lambda: {split: [split] for split in SPLITS})
    sizes: Mapping[str, int] = field(default_factory=dict)

    def parts(self, console: Console) -> list[Part]:
        """Return its parts, those first whose utterances are kept if two parts contain the same."""
        names = [(name, split) for split in reversed(SPLITS) for name in self.splits[split]]
        return [Part(name, split, self.language, self.find(name, console)) for name, split in names]


def run(corpus: Corpus, out: Path, shar: int | None, jobs: int, options: Mapping[str, Any]) -> None:
    """Prepare a corpus and show what was prepared and left out.

    options: other settings on which the cuts depend.  Raises: AsrError.
    """
    report = prepare(corpus, out, shar, jobs, options)
    show(report, out, report["notes"], apart="no recording")


def prepare(corpus: Corpus, out: Path, shar: int | None, jobs: int, options: Mapping[str, Any]) -> Report:
    """Make the manifests below `out`, unless they exist and nothing that they depend on has changed.

    Raises: AsrError for a part that is unavailable or contains nothing usable.
    """
    given = {"shar": shar, **{name: str(value) for name, value in options.items()}}
    return once(out, corpus.code, given, _state, partial(_make, corpus, shar, jobs))


def _make(corpus: Corpus, shar: int | None, jobs: int, out: Path, settings: Mapping[str, Any]) -> Report:
    console = Console(stderr=True)
    parts = corpus.parts(console)
    sources = [_named(place) for place in dict.fromkeys(part.place for part in parts)]
    states = [_state(source) for source in sources]  # before reading, so that later changes are noticed
    utterances, dropped = _read(corpus, parts, jobs, console)
    splits = assign(utterances)
    for split in SPLITS:
        if not splits[split]:
            reasons = sorted({drop.reason for drop in dropped if drop.split == split})
            raise DataError(f"nothing is left of {split} ({'; '.join(reasons[:3])})")
    written = _write(_lists(splits), out, shar, jobs, console)
    sources += written
    states += map(_state, written)
    folder = Path(os.path.commonpath([part.place.folder for part in parts]))
    report = summarize({corpus.language: folder}, splits, dropped)
    report["notes"] = list(_notes(corpus, parts, splits))
    write_stamp(out, settings, sources, states, report)
    return report


def _read(corpus: Corpus, parts: Sequence[Part], jobs: int, console: Console) -> tuple[list[Utterance], list[Dropped]]:
    told: list[Utterance] = []
    dropped: list[Dropped] = []
    names: set[str] = set()
    for part in parts:
        count = len(told)
        with console.status(f"reading the texts of {part.name}"):
            for item in corpus.read(part):
                if isinstance(item, Dropped):
                    dropped.append(item)
                elif reason := _problem(item, names):
                    dropped.append(part.dropped(item.label, reason))
                else:
                    names.add(item.name)
                    told.append(item)
        if len(told) == count:
            raise DataError(f"{part.place.folder}: no text of {part.name} has a recording: is it complete?")
    whole, unheard = listen(told, console, jobs)
    inside = [one for one in whole if one.duration_s > 0]
    late = [
        Dropped(one.language, one.label, one.split, "starts after the end of its recording")
        for one in whole
        if one.duration_s <= 0
    ]
    kept, copies = drop_copies(inside)
    return kept, [*dropped, *unheard, *late, *copies]


def _problem(utterance: Utterance, names: set[str]) -> str | None:
    if not utterance.text:
        return "empty text"
    if any("\ufffd" in text for text in (utterance.text, *utterance.translations.values())):
        return "not UTF-8"
    if utterance.name in names:
        return "duplicate id"
    return None if utterance.path.is_file() else "no audio"


def _lists(splits: Mapping[str, Sequence[Utterance]]) -> Iterator[tuple[str, Sequence[Utterance]]]:
    """Yield name and utterances of each manifest: the splits, and the parts of dev and test if there are several.

    Train is in pseudo-random order, for readers that only shuffle a buffer at a time.
    """
    yield "train", sorted(splits["train"], key=lambda one: hashlib.sha1(one.id.encode()).digest())
    for split in ("dev", "test"):
        yield split, splits[split]
        names = sorted({one.part for one in splits[split]})
        for name in names if len(names) > 1 else ():
            yield name, [one for one in splits[split] if one.part == name]


def _write(
    lists: Iterable[tuple[str, Sequence[Utterance]]], out: Path, shar: int | None, jobs: int, console: Console
) -> list[dict[str, Any]]:
    """Write the manifests and shards, remove stale ones of earlier runs, and return the sources of the shards."""
    former, shards = manifests(out), []
    stale = {*former, *(shards_path(out, name_of(path)) for path in former)}
    for name, utterances in lists:
        write_cuts(as_cuts(utterances), manifest_path(out, name))
        stale.discard(manifest_path(out, name))
        if shar is not None:
            write_shards(list(as_cuts(utterances)), shards_path(out, name), shar, jobs, console)
            shards.append(_named(Place(shards_path(out, name))))
            stale.discard(shards_path(out, name))
    for path in stale:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return shards


def _notes(corpus: Corpus, parts: Sequence[Part], splits: Mapping[str, Sequence[Utterance]]) -> Iterator[str]:
    for part in reversed(parts):
        count, usual = sum(one.part == part.name for one in splits[part.split]), corpus.sizes.get(part.name)
        if usual is not None and count != usual:
            yield f"{part.name} has {count:,} utterances and should have {usual:,}: is {part.place.folder} complete?"
    if shared := groups_also_in_train(splits):
        yield f"speakers of dev or test that are also in train: {shared:,}"


def _named(place: Place) -> dict[str, Any]:
    return {"folder": str(place.folder), "files": [str(path) for path in place.files]}


def _state(source: Mapping[str, Any]) -> str:
    walked = sorted(Path(base, name) for base, _, names in os.walk(source["folder"]) for name in names)
    return state_of([*walked, *map(Path, source["files"])])
