"""Matching of subtitle files to recordings by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.subtitling.matching import match


@pytest.mark.parametrize(
    ("names", "chosen", "problems"),
    [
        (["talk.en.sdh.srt", "talk.en.srt"], {"en": "talk.en.srt"}, 1),
        (["talk.en.srt", "talk.de.sdh.srt"], {"de": "talk.de.sdh.srt", "en": "talk.en.srt"}, 0),
        (["talk.default.en.srt", "talk.eng.srt"], {"en": "talk.default.en.srt"}, 1),
        (["talk.hi.srt", "talk.en.hi.srt"], {"en": "talk.en.hi.srt", "hi": "talk.hi.srt"}, 0),
        (
            ["talk.English.srt", "talk.ger.srt", "talk.hindi.sdh.srt"],
            {"en": "talk.English.srt", "de": "talk.ger.srt", "hi": "talk.hindi.sdh.srt"},
            0,
        ),
        (["talk.Haitian Creole.srt", "talk.cze.srt"], {"ht": "talk.Haitian Creole.srt", "cs": "talk.cze.srt"}, 0),
        (["talk.en.de.srt", "talk.strange.srt"], {}, 3),
    ],
)
def test_language_and_flags_are_told_by_the_name(
    tmp_path: Path, names: list[str], chosen: dict[str, str], problems: int
) -> None:
    for name in ("talk.mkv", *names):
        (tmp_path / name).touch()
    found = match(tmp_path, tmp_path, None, tmp_path / "out")
    subtitles = [(language, path.name) for title in found.titles for language, path in title.subtitles.items()]
    assert subtitles == list(chosen.items())
    assert len(found.problems) == problems
