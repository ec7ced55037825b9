"""Matching of subtitle files to recordings, and detection of their languages, by file names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import langcodes

from asr.errors import DataError, printable
from asr.files import is_media
from asr.subtitling.reading import SUFFIXES
from asr.tasks import language_code

FORCED = "forced"  # subtitles only of speech in another language than the rest
_FLAGS = frozenset(("sdh", "cc", "default", "full", "hi", FORCED))


@dataclass
class Title:
    """A recording and its subtitle files by language."""

    name: str
    media: Path
    subtitles: dict[str, Path] = field(default_factory=dict)


@dataclass
class Matches:
    """Recordings with subtitles, sorted by name, and a line for every file that could not be matched."""

    titles: list[Title]
    problems: list[str]


def match(media_dir: Path, subtitles_dir: Path, language: str | None, leave_out: Path) -> Matches:
    """Match talk.mkv with talk.srt, talk.en.srt and talk.zh-TW.sdh.vtt, in subfolders of the same names as well.

    Languages are codes or English names (talk.English.srt).
    language: language of all subtitle files, instead of what their names say.  leave_out: a folder that is skipped.
    Of several in a language, the one without flags is taken.  Raises DataError if a folder does not exist, or there are
    no media.
    """
    problems: list[str] = []
    titles: dict[str, Title] = {}
    for path in _files(media_dir, is_media, leave_out.resolve()):
        name = path.relative_to(media_dir).with_suffix("").as_posix()
        if name in titles:
            problems.append(f"{printable(path)}: has the name of {printable(titles[name].media.name)}; rename one")
        else:
            titles[name] = Title(name, path)
    if not titles:
        raise DataError(f"{printable(media_dir)}: there is no audio or video file in this folder")
    found = _files(subtitles_dir, _is_subtitles, leave_out.resolve())
    for path in sorted(found, key=lambda path: (path.parent, path.stem.split("."), path)):  # talk.en before talk.en.sdh
        problems += _assign(path, path.relative_to(subtitles_dir).as_posix(), titles, language)
    ordered = [title for _, title in sorted(titles.items())]
    problems += [f"{printable(title.media)}: no subtitles for it" for title in ordered if not title.subtitles]
    return Matches([title for title in ordered if title.subtitles], problems)


def standard(language: str) -> str:
    """Standardise a language: en for eng and English, zh-TW for zh_tw.  Raises DataError if it is none."""
    code = language_code(language)
    if not langcodes.tag_is_valid(code):
        raise DataError(f"{printable(language)!r} is not a language code; give one such as en, cs or zh-TW")
    return langcodes.standardize_tag(code)


def same_language(one: str, two: str) -> bool:
    """Return whether two codes mean the same language, regardless of script and region."""
    return langcodes.Language.get(one).language == langcodes.Language.get(two).language


def _assign(path: Path, name: str, titles: dict[str, Title], language: str | None) -> Iterator[str]:
    """Assign a subtitle file to its title; yield a line if that is not possible."""
    shown = printable(path)
    title, marks = _owner(name.removesuffix(path.suffix), titles)
    found = language or next(map(standard, _languages(marks)), None)
    if title is None:
        yield f"{shown}: no recording is named like it"
    elif FORCED in marks:
        yield f"{shown}: left out, as forced subtitles are of a part of what is said"
    elif found is None:
        example = f"{PurePosixPath(title.name).name}.en{path.suffix}"
        yield f"{shown}: its name tells no language; rename it to {printable(example)} or the like, or give --language"
    elif found in title.subtitles:
        yield f"{shown}: {printable(title.subtitles[found].name)} is in {found}, too; remove one"
    else:
        title.subtitles[found] = path


def _owner(stem: str, titles: dict[str, Title]) -> tuple[Title | None, list[str]]:
    """Return the title whose name the stem equals or begins with, and the marks after it: a language and flags."""
    marks: list[str] = []
    while stem not in titles:
        stem, dot, mark = stem.rpartition(".")
        if not dot or "/" in mark:
            return None, []
        marks.insert(0, mark.lower())
    languages = _languages(marks)
    return (titles[stem], marks) if len(languages) < 2 and all(map(langcodes.tag_is_valid, languages)) else (None, [])


def _languages(marks: list[str]) -> list[str]:
    """Return the codes of the marks that are no flags; "hi" is Hindi if it comes first and no other language does."""
    return [language_code(mark) for mark in marks if mark not in _FLAGS] or [mark for mark in marks[:1] if mark == "hi"]


def _is_subtitles(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _files(folder: Path, wanted: Callable[[Path], bool], leave_out: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{printable(folder)}: no such folder")
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(path, name).resolve() != leave_out]
        found += [Path(path, name) for name in names if not name.startswith(".")]
    return sorted(filter(wanted, found))
