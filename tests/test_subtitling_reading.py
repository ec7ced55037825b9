"""Subtitle files in encodings older than UTF-8, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.errors import DataError
from asr.subtitling.cues import Cue
from asr.subtitling.reading import read_cues

SAID = {
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "pl": "Zażółć gęślą jaźń, powiedział chłopiec.",
    "fr": "Où êtes-vous allés à Noël, garçon ?",
    "de": "Zwölf Boxkämpfer jagen Viktor über den großen Sylter Deich.",
    "sv": "Flygande bäckasiner söka hwila på mjuka tuvor.",
    "ru": "Съешь же ещё этих мягких французских булок.",
    "uk": "Чуєш їх, доцю, га? Кумедна ж ти, прощайся без ґольфів!",
    "el": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "tr": "Pijamalı hasta yağız şoföre çabucak güvendi.",
    "zh-TW": "你來了，我等你很久，我們今天要去公園玩。",
    "zh-CN": "你来了，我等你很久，我们今天要去公园玩。",
    "ja": "いろはにほへと、ちりぬるを。今日は天気がいいですね。",
    "ko": "다람쥐 헌 쳇바퀴에 타고파, 오늘은 날씨가 좋네요.",
    "eo": "Eĥoŝanĝo ĉiuĵaŭde.",
}
PAGES = {
    "cs": ("cp1250", "iso8859_2"), "pl": ("cp1250", "iso8859_2"), "fr": ("cp1252", "iso8859_15"),
    "de": ("cp1252", "iso8859_15"), "sv": ("cp1252", "iso8859_15"), "ru": ("cp1251", "koi8_r", "iso8859_5"),
    "uk": ("cp1251", "koi8_u"), "el": ("cp1253", "iso8859_7"), "tr": ("cp1254", "iso8859_9"),
    "zh-TW": ("big5",), "zh-CN": ("gb18030",), "ja": ("cp932", "euc_jp"), "ko": ("cp949",), "eo": ("iso8859_3",),
}  # fmt: skip


def cues(path: Path, language: str = "en", encoding: str | None = None) -> list[str]:
    return [cue.text for cue in read_cues(path, language, encoding).cues]


def srt(*texts: str) -> str:
    return "\n".join(f"{i}\n00:00:{i:02},000 --> 00:00:{i:02},900\n{text}\n" for i, text in enumerate(texts, start=1))


@pytest.mark.parametrize(("language", "page"), [(code, page) for code, pages in PAGES.items() for page in pages])
def test_file_is_decoded_with_the_code_pages_of_its_language(language: str, page: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    path.write_bytes(srt(SAID[language], "Ano.", SAID[language]).encode(page))
    assert cues(path, language) == [SAID[language], "Ano.", SAID[language]]


@pytest.mark.parametrize("text", ["Άλλο ένα, Άννα.", "Θα ’ρθω. Σ’αγαπώ."])
def test_accented_alpha_and_apostrophe_of_greek_are_told_apart(text: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    for page in ("cp1253", "iso8859_7"):
        path.write_bytes(srt(text).encode(page))
        assert cues(path, "el") == [text]


@pytest.mark.parametrize("language", ["fr", "pl", "ru", "zh-TW"])
def test_invalid_byte_in_utf8_is_reported_with_its_line(language: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    whole = srt(*[SAID[language]] * 9).encode()
    path.write_bytes(whole.replace(b"5\n00", b"\x925\n00", 1))
    with pytest.raises(DataError, match=r"talk\.srt:17: a byte that is not UTF-8, as the rest is; mend it, or give"):
        cues(path, language)


def test_undetectable_encoding_must_be_given(tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    path.write_bytes(srt("Sanibonani é").encode("cp1252"))
    with pytest.raises(DataError, match=r"not UTF-8, and its encoding cannot be told; give it \(--encoding\)"):
        cues(path, "zu")
    assert cues(path, "zu", "cp1252") == ["Sanibonani é"]


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_cue_with_malformed_times_is_not_added_to_its_neighbours(suffix: str, tmp_path: Path) -> None:
    path, head = tmp_path / f"talk{suffix}", "WEBVTT\n\n" if suffix == ".vtt" else ""
    mark = "," if suffix == ".srt" else "."
    blocks = [
        f"1\n00:00:01{mark}000 --> 00:00:02{mark}000\nHello\nthere 2",
        f"2\n00:00:03{mark} 500 --> 00:00:04{mark} 000\nBye.",
        f"3\n00:00:05{mark}000 --> 00:00:06{mark}000\nGood night.",
    ]
    path.write_text(head + "\n\n".join(blocks) + "\n")
    found = read_cues(path, "en")
    assert [cue.text.split() for cue in found.cues] == [["Hello", "there", "2"], ["Good", "night."]]
    assert found.unread == 1


@pytest.mark.parametrize(
    ("suffix", "identifiers"), [(".srt", ["1", "2", "3", "4"]), (".srt", [""] * 4), (".vtt", ["a", "", "7", "b"])]
)
def test_number_in_the_last_line_of_a_cue_is_text(suffix: str, identifiers: list[str], tmp_path: Path) -> None:
    path, mark = tmp_path / f"talk{suffix}", "," if suffix == ".srt" else "."
    texts = ["How many?\n7", "10", "", "What year?\n1984"]
    blocks = [
        f"{name}\n00:00:0{i}{mark}000 --> 00:00:0{i}{mark}900\n{text}\n".lstrip()
        for i, (name, text) in enumerate(zip(identifiers, texts, strict=True))
    ]
    path.write_text("\n".join(["WEBVTT\n", *blocks] if suffix == ".vtt" else blocks))
    assert read_cues(path, "en") == ([Cue((i + 1,), i, i + 0.9, text) for i, text in enumerate(texts)], "utf-8", 0)
