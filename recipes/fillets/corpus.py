"""The dialogues of Fish Fillets NG as a corpus: levels, voices, subtitles, and the texts of each recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from asr.errors import DataError
from recipes.clips import Clip, Dropped
from recipes.fillets.dialogs import Line, read_dialogs
from recipes.preparing import split_of

SPOKEN = {"cs": 1714, "nl": 1526}  # clips with sound and text in release 1.0.1
SUBTITLES = ("bg", "cs", "de", "de_CH", "en", "eo", "es", "fr", "it", "nl", "pl", "ru", "sl", "sv")
GAME = Path("usr/share/games/fillets-ng")


def levels(game: Path) -> list[str]:
    """Return the names of the levels that have scripts."""
    return sorted(path.name for path in (game / "script").iterdir() if path.is_dir())


class Game:
    """The game's files; faults: the parts of its scripts that were skipped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self._said = cache(self._read)

    def clips(self, language: str) -> tuple[list[Clip], list[Dropped]]:
        """Return a clip for every recording in a language that has a text, and the rest with reasons.

        The split depends on the level, in every language alike, so that no scene occurs in two splits.

        Raises: DataError if there is no clip.
        """
        clips: list[Clip] = []
        dropped: list[Dropped] = []
        for level in levels(self.folder):
            split = split_of(level)
            said = self._said(level, language)
            subtitles = {to: self._said(level, to) for to in SUBTITLES if to != language}
            files = {path.stem: path for path in (self.folder / "sound" / level / language).glob("*.ogg")}
            for name in sorted(said.keys() | files.keys()):
                line, file, key = said.get(name), files.get(name), f"{level}/{name}"
                if line is None or file is None or not line.text:
                    dropped.append(Dropped(language, key, split, _problem(line)))
                    continue
                speaker = f"{language}-{line.font.removeprefix('font_') or 'unknown'}"
                others = dict(_translations(name, line, subtitles))
                clips.append(Clip(language, key, level, split, speaker, line.text, file, translations=others))
        if not clips:
            raise DataError(f"{self.folder}: no recording in {language!r} has a text: is that package there?")
        return clips, dropped

    def _read(self, level: str, language: str) -> Mapping[str, Line]:
        path = self.folder / "script" / level / f"dialogs_{language}.lua"
        lines, faults = read_dialogs(path) if path.exists() else ({}, [])
        self.faults += faults
        return lines


def _problem(line: Line | None) -> str:
    if line is None:
        return "no text"
    if not line.text:
        return "no text in this language" if line.english else "a sound, not speech"
    return "no audio"


def _translations(name: str, line: Line, subtitles: Mapping[str, Mapping[str, Line]]) -> Iterator[tuple[str, str]]:
    """Yield the line in other languages; every script contains the English text."""
    for to, lines in subtitles.items():
        other = lines.get(name)
        text = line.english if to == "en" else other.text if other else None
        if text:
            yield to, text
