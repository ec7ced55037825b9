"""Subtitle files in encodings older than UTF-8, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.errors import DataError
from asr.subtitling.cues import Cue
from asr.subtitling.encodings import pages_of
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
    ((line, text, fault),) = found.unread
    assert fault == "unreadable time"
    assert path.read_text().split("\n")[line - 1] == text.split("\n")[0] == blocks[1].split("\n")[1]
    assert text.split("\n")[1] == "Bye."


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
    assert read_cues(path, "en") == ([Cue((i + 1,), i, i + 0.9, text) for i, text in enumerate(texts)], "utf-8", [], [])


# --- text that was read with another encoding than it was written in -----------------------------------

# As SAID, but longer, and without punctuation that old code pages lack.
TALK = {
    "bg": "Къде отиваш? Не знам нищо за това. Утре ще бъде късно.",
    "cs": "Kam jdeš, příteli? Nevím nic. Zítra už bude pozdě, říkám ti.",
    "de": "Wohin gehst du, Jürgen? Ich weiß nicht. Morgen ist es für uns zu spät, schöne Grüße.",
    "el": "Πού πας τώρα; Δεν ξέρω τίποτα. Αύριο θα είναι πολύ αργά.",
    "eo": "Kien vi iras, ĉu hejmen? Mi ne scias, aŭdu. Morgaŭ jam estos tro malfrue, ĝis.",
    "es": "¿Adónde vas, niño? No sé nada. Mañana será demasiado tarde, señor.",
    "fr": "Où vas-tu, garçon ? Je ne sais pas où tu étais. Ce sera déjà trop tard, même à la fenêtre.",
    "it": "Dove vai così? Perché non lo so più. Domani sarà già tardi, è la verità.",
    "nl": "Waar ga je heen? Eén ogenblik, zei Daniël. Morgen is het te laat, zoals Zoë zei.",
    "pl": "Dokąd idziesz, chłopcze? Nic nie wiem. Jutro będzie już za późno, mówię ci.",
    "ru": "Куда ты идёшь? Я ничего не знаю. Завтра будет уже поздно.",
    "sl": "Kam greš, človek? Nič ne vem. Jutri bo že prepozno, ti rečem.",
    "sv": "Vart går du då, älskling? Jag vet inte. I morgon är det för sent, hör du.",
}
OLD = {"sv": ["cp850"], "fr": ["cp850"], "de": ["cp850"], "es": ["cp850"], "it": ["cp850"], "nl": ["cp850"]}
OLD |= {"cs": ["cp852"], "pl": ["cp852"], "sl": ["cp852"], "ru": ["cp866"], "bg": ["cp866"]}


@pytest.mark.parametrize("language", TALK)
def test_talk_is_read_from_all_pages_of_its_language(language: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    for page in ("utf-8", "utf-16", "utf-16-le", "utf-16-be", *pages_of(language)):
        path.write_bytes(srt(*TALK[language].split(". ")).encode(page))
        assert cues(path, language) == TALK[language].split(". "), page
    assert set(OLD.get(language, ())) <= set(pages_of(language))


@pytest.mark.parametrize(
    ("language", "page", "taken_for"),
    [
        ("ru", "cp1251", "cp1252"),
        ("ru", "utf-8", "cp1251"),
        ("ru", "utf-8", "latin-1"),
        ("ru", "cp866", "cp1251"),
        ("ru", "koi8_r", "cp866"),
        ("el", "cp1253", "latin-1"),
        ("zh-TW", "big5", "latin-1"),
        ("zh-CN", "gb18030", "big5"),
        ("ja", "cp932", "gb18030"),
        ("pl", "utf-8", "cp1250"),
        ("cs", "utf-8", "cp1252"),
        ("cs", "cp852", "cp1250"),
        ("cs", "cp1250", "cp1251"),
        ("cs", "cp1250", "latin-1"),
        ("sv", "utf-8", "cp850"),
        ("sv", "cp850", "latin-1"),
        ("fr", "cp850", "cp1252"),
        ("fr", "cp1252", "cp1250"),
    ],
)
def test_text_read_with_a_wrong_page_is_refused(language: str, page: str, taken_for: str, tmp_path: Path) -> None:
    path, text = tmp_path / "talk.srt", SAID | TALK | {"zh-CN": "你来了，我等你很久，我们今天要去公园玩，你知道吗。"}
    right = srt(*[text[language]] * 3).encode(page)
    with pytest.raises(DataError, match=r"talk\.srt") as given:
        cues(path_of(path, right), language, taken_for)
    saved = right.decode(taken_for, "ignore").encode()
    with pytest.raises(DataError, match=r"talk\.srt.*repair the file|talk\.srt:\d+: a character that text"):
        cues(path_of(path, saved), language)
    assert "\n" not in str(given.value)


def path_of(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("language", "text", "line"),
    [
        ("en", "Itâ€™s fine", ":7: "),
        ("de", "Das macht SpaÃŸ", ":7: "),
        ("de", "Das macht Spaß…", None),  # bytes that are UTF-8, too, but of no letter of German
        ("ru", "С… с чего бы?", None),
        ("el", "Ο… ο Νίκος;", None),
        ("en", "Žižek met Dvořák, Čapek and Łukasz", None),
        ("de", "Die Straße nach Łódź, Herr Čapek.", None),
        ("zh", "我用 app 打卡，OK？", None),
        ("sr", "Ne znam ništa o tome", None),
        ("bs", "Не знам ништа о томе, пријатељу, ђаво зна.", None),
        ("nan", "Lí beh khì tó-ūi? Guá m̄ tsai-iánn.", None),
    ],
)
def test_single_line_is_judged_by_its_language(language: str, text: str, line: str | None, tmp_path: Path) -> None:
    path = path_of(
        tmp_path / "talk.srt", srt((SAID | {"zh": SAID["zh-CN"]}).get(language, "Hello – you"), text).encode()
    )
    if line is None:
        assert cues(path, language)[1] == text
    else:
        with pytest.raises(DataError, match=rf"talk\.srt{line}UTF-8 that was once read as cp1252"):
            cues(path, language)


def test_text_in_another_script_is_refused_unless_the_language_says_so(tmp_path: Path) -> None:
    path = path_of(tmp_path / "talk.srt", srt("Kuda ty idjosh?").encode())
    with pytest.raises(
        DataError, match=r"read as utf-8, most of its letters are Latin, which ru is not written in; give"
    ):
        cues(path, "ru")
    assert cues(path, "ru-Latn") == ["Kuda ty idjosh?"]


# --- cues that are no speech by their form --------------------------------------------------------------

FIELDS = "Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text"
ASS = f"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\n\n[Events]\nFormat: {FIELDS}\n"


def ass(path: Path, *texts: str) -> Path:
    """Write events given as "Kind: Style,Text"."""
    lines = []
    for i, event in enumerate(texts):
        kind, style, text = event.replace(": ", ",", 1).split(",", 2)
        lines.append(f"{kind}: 0,0:00:0{i}.00,0:00:0{i + 2}.00,{style},,0,0,0,,{text}\n")
    path.write_text(ASS + "".join(lines))
    return path


def test_drawings_comments_signs_and_karaoke_are_dropped_by_name(tmp_path: Path) -> None:
    found = read_cues(
        ass(
            tmp_path / "talk.ass",
            r"Dialogue: Default,{\p1}m 0 0 l 9 9{\p0} drawn then text",
            r"Dialogue: Default,{\pos(1,2)\p2}m 0 0 l 9 9",
            "Comment: Default,Not shown.",
            r"Dialogue: Sign,{\an8\pos(10,20)}SIGN",
            r"Dialogue: Sign,{\move(1,2,3,4)}SHOP",
            r"Dialogue: Song,{\k20}la {\kf30}la",
            r"Dialogue: Default,{\i1}Said{\i0} aloud{\pbo3}",
            "Dialogue: Default,Said, too.",
        ),
        "en",
    )
    assert [(cue.numbers, cue.text.strip()) for cue in found.cues] == [
        ((1,), "drawn then text"),
        ((7,), "Said aloud"),
        ((8,), "Said, too."),
    ]
    assert [(*dropped.cue.numbers, dropped.reason, dropped.cue.text) for dropped in found.dropped] == [
        (2, "drawing", "m 0 0 l 9 9"),
        (3, "comment", "Not shown."),
        (4, "sign", "SIGN"),
        (5, "sign", "SHOP"),
        (6, "karaoke", "la la"),
    ]


def test_cues_that_are_all_placed_are_no_signs(tmp_path: Path) -> None:
    path = ass(tmp_path / "talk.ass", *[rf"Dialogue: Default,{{\pos(1,{i})}}Said." for i in range(3)])
    assert cues(path) == ["Said."] * 3
