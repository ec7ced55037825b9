"""Reports about recordings and their subtitles: counts, offsets and problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asr.files.subtitles import Stray
from asr.subtitling.alignment import Alignment
from asr.subtitling.cues import Dropped


@dataclass
class FileReport:
    """Report about a subtitle file.

    cues: number of cues in it.  alignment: None if none was requested or the file cannot be read.  dropped: number of
    cues dropped by each rule.  problem: one line that names the file and says why it is not used.
    """

    path: str
    language: str
    encoding: str | None = None
    cues: int = 0
    alignment: Alignment | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    problem: str | None = None

    def count(self, dropped: Iterable[Dropped]) -> None:
        """Count dropped cues; a dropped sentence counts with each of its cues."""
        for cue, reason in dropped:
            self.dropped[reason] += len(cue.numbers)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data, with offsets in seconds."""
        found = self.alignment
        alignment = None if found is None else {**_rounded(vars(found)), "trusted": found.trusted}
        return {**vars(self), "alignment": alignment, "dropped": dict(self.dropped)}


@dataclass
class TitleReport:
    """Report about a recording.

    times: language of the subtitles whose cues the cuts follow.  missing: for each language, number of cuts without its
    text, because its cues do not match theirs or its file cannot be used.  problem: why the recording gives no cut.
    """

    name: str
    media: str
    files: list[FileReport] = field(default_factory=list)
    times: str | None = None
    duration_s: float = 0.0
    cuts: int = 0
    cut_s: float = 0.0
    missing: Counter[str] = field(default_factory=Counter)
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        files = [file.as_dict() for file in self.files]
        return {**_rounded(vars(self)), "missing": dict(self.missing), "files": files}


@dataclass
class Report:
    """Report about all recordings, with a line for each file that could not be used."""

    titles: list[TitleReport]
    problems: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data, with totals."""
        return {
            "recordings": len(self.titles),
            "cuts": sum(title.cuts for title in self.titles),
            "hours": round(sum(title.cut_s for title in self.titles) / 3600, 4),
            "dropped": dict(self.dropped()),
            "problems": self.problems,
            "titles": [title.as_dict() for title in self.titles],
        }

    def dropped(self) -> Counter[str]:
        """Return how many cues each rule dropped, most frequent first."""
        counts: Counter[str] = Counter()
        for title in self.titles:
            for file in title.files:
                counts += file.dropped
        return Counter(dict(counts.most_common()))


def dropped_rows(name: str, language: str, dropped: Sequence[Dropped]) -> list[dict[str, Any]]:
    """Return dropped cues as rows of a table: their numbers in the file, their text, and the reason."""
    return [
        {"recording": name, "language": language, "cues": cue.numbers, "text": cue.text, "reason": reason}
        for cue, reason in dropped
    ]


def unread_rows(name: str, language: str, unread: Sequence[Stray]) -> list[dict[str, Any]]:
    """Return lines that are no cue as rows of the same table, with the line instead of their numbers."""
    where: dict[str, Any] = {"recording": name, "language": language, "cues": []}
    return [{**where, "line": line, "text": text, "reason": reason} for line, text, reason in unread]


def missing_row(name: str, language: str, cut: str, reason: str) -> dict[str, Any]:
    """Return the row for a language that has no text in a cut: the cut's id, and the reason."""
    return {"recording": name, "language": language, "cut": cut, "reason": reason}


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}
