"""Normalisers: what they return, that they are idempotent, and what they refuse."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ConfigError, DataError
from asr.text import NORMALIZERS, normalizer

LANGUAGES = ("en", "es", "fr", "it", "ru")

# Pieces that rules react to; random sequences of them bring about combinations that nobody thought of.
SIGNS = "著乾兩〇一十万萬点ア๑年月0178#*%&'’-.,()[]<>$£¢№sAéİßΣ½²٣፩ё \u0308\u0301\u200d\u00a0\ufeff"
NUMBERS = [
    "500",
    "1999",
    "28.8",
    "1,234",
    "1.234",
    "1st",
    "3D",
    "dial ",
    "marque el ",
    "1er",
    "2nde",
    "1-й",
    "2024-03-15",
    "二○",
    "½",
]
WORDS = [
    "www.a.b",
    "one",
    "oh",
    "hundred",
    "double",
    "point",
    "mr",
    "'s",
    "n't",
    "won't",
    "and a half",
    "million",
    "cents",
]
PIECES = st.sampled_from([*SIGNS, *NUMBERS, *WORDS])
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(st.one_of(PIECES, st.characters()), max_size=12).map(" ".join),
)


@pytest.mark.parametrize(
    ("name", "language"),
    [(name, language) for name in NORMALIZERS for language in LANGUAGES if name != "english" or language == "en"],
)
@settings(max_examples=150)
@given(text=TEXTS)
def test_normalizers_are_idempotent(name: str, language: str, text: str) -> None:
    normalise = normalizer(name, language)
    once = normalise(text)
    assert normalise(once) == once
    assert [text, *(after for _, after in normalise.trace(text))][-1] == once
    if name != "none":
        assert once == " ".join(once.split())
        assert "\ufeff" not in once


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=200)
@given(text=TEXTS)
def test_spoken_leaves_no_digits_signs_capitals_or_outer_apostrophes(language: str, text: str) -> None:
    said = normalizer("spoken", language)(text)
    assert not any(c.isdigit() or c in "#*%&" for c in said)
    assert said == said.lower()
    for word in said.split():
        assert not word.startswith("'")
        assert not word.endswith("'")


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        # Signs and digits of the telephone prompts, as they are said in the recordings.
        ("en", "3D audio disabled", "three d audio disabled"),
        ("en", "H.323", "h three two three"),
        ("en", "Dial 1 if you wish, then dial 500.", "dial one if you wish then dial five zero zero"),
        ("en", "extension 1234 and password 4242", "extension one two three four and password four two four two"),
        ("en", "at least a 28.8 kilobit modem", "at least a twenty eight point eight kilobit modem"),
        ("en", "press * to toggle pause, press # to enter", "press star to toggle pause press pound to enter"),
        ("en", "... of your party's first name. It's o'clock", "of your party's first name it's o'clock"),
        ("en", 'a polite "don’t call" menu; De-activated!', "a polite don't call menu de activated"),
        ("en", "plus [+]", "plus"),
        ("en", "at [@]", "at"),
        ("en", 'IAX (note: does not say "2")', "iax"),
        ("en", "visit www.asterisk.org.", "visit www dot asterisk dot org"),
        ("es", "marque el 8500 e ingresara", "marque el ocho cinco cero cero e ingresara"),
        ("es", "Sus saludos [temporales] estan en uso", "sus saludos estan en uso"),
        ("es", "un modem de 28.8 Kb", "un modem de veintiocho punto ocho kb"),
        ("fr", "Audio 3D désactivé", "audio trois d désactivé"),
        ("fr", "“Pour quitter, appuyez sur 8.”", "pour quitter appuyez sur huit"),
        ("fr", "s'il-vous-plaît, l'écoute…", "s'il vous plaît l'écoute"),
        ("fr", "appuyez sur * pour revenir et sur #", "appuyez sur étoile pour revenir et sur dièse"),
        ("it", "componi l'1234", "componi l'uno due tre quattro"),
        ("it", "un modem da 28Kilobit", "un modem da ventotto kilobit"),
        ("it", "\ufeffAttualmente c’è un altro", "attualmente c'è un altro"),
        ("ru", "Нажмите 4, чтобы убрать (статус) «важно»", "нажмите четыре чтобы убрать важно"),
        ("ru", "28,8 килобит в секунду", "двадцать восемь целых восемь десятых килобит в секунду"),
        ("ru", "номером 1234 и", "номером один два три четыре и"),
        ("ru", "клавишу «решётка» – первoe", "клавишу решетка первое"),  # the o and e of the last word are Latin
    ],
)
def test_spoken_on_real_transcripts(language: str, text: str, said: str) -> None:
    assert normalizer("spoken", language)(text) == said


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("en", "the 1st, 22nd and 3rd", "the first twenty second and third"),
        (
            "en",
            "in the 1990s; in 1905; 1500 people",
            "in the nineteen nineties in nineteen oh five fifteen hundred people",
        ),
        (
            "en",
            "1,234,567.89",
            "one million two hundred and thirty four thousand five hundred and sixty seven point eight nine",
        ),
        ("en", "007 and 5551234", "zero zero seven and five five five one two three four"),
        ("en", "$20.50 & 5%", "twenty point five zero dollars and five percent"),
        ("en", "press 5,6 or 7", "press five six or seven"),
        ("en", "٣ apples", "three apples"),
        ("en-GB", "7", "seven"),
        ("es", "1er piso, 2ª y 3.º", "primer piso segunda y tercero"),
        ("es", "1.234,5 y 1,234", "mil doscientos treinta y cuatro punto cinco y mil doscientos treinta y cuatro"),
        ("fr", "le 1er, la 1re, le 21ème, la 2nde", "le premier la première le vingt et unième la seconde"),
        ("fr", "1\u202f234\u202f567", "un million deux cent trente quatre mille cinq cent soixante sept"),
        ("fr-CH", "70", "septante"),
        ("it", "7,05 e 1º, 8ª", "sette virgola zero cinque e primo ottava"),
        ("ru", "1-й, 2-я, 3-го, 2-ю", "первый вторая третьего вторую"),
        ("ru", "№ 5, 5 %", "номер пять пять процентов"),
        ("de", "28,5 Straßen", "achtundzwanzig komma fünf straßen"),
        ("ru", "ё\u0308лка Ёж", "елка еж"),
        (None, "No digits, no # names: हिन्दी, 漢字!", "no digits no names हिन्दी 漢字"),
        ("bg", "Здравей!", "здравей"),
    ],
)
def test_spoken_numbers(language: str | None, text: str, said: str) -> None:
    assert normalizer("spoken", language)(text) == said


def test_spoken_reads_numbers_of_any_length() -> None:
    for language in (*LANGUAGES, "bn", "am"):
        for text in ("9" * 5000, "9" * 5000 + ".5", "0," + "1" * 5000, "999999999999", "1234567.1234567"):
            assert len(normalizer("spoken", language)(text).split()) >= 2


@pytest.mark.parametrize("language", [None, "bg", "english"])
def test_spoken_refuses_digits_in_unsupported_languages(language: str | None) -> None:
    with pytest.raises(DataError, match=r"^digits cannot be spelled out.*'press 5'$") as caught:
        normalizer("spoken", language)("press 5")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("  Straße,\tÉCOLE—ﬁn! ", "straße école fin"),
        ("don't stop 3.5", "don t stop 3 5"),
        ("हिन्दी", "हिन्दी"),
        ("e\u0301 \u0301", "é"),
        ("J\u030c", "\u01f0"),  # composed only in lower case
        ("so\u00adft", "soft"),
        ("", ""),
    ],
)
def test_basic_normalizer(text: str, plain: str) -> None:
    assert normalizer("basic")(text) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("To leave the conference...", "to leave the conference"),
        ("Mr. Smith won't pay twenty-five dollars.", "mister smith will not pay $25"),
        ("colour, and (laughs) um honour", "color and honor"),
        (":\ufeff", ""),
    ],
)
def test_english_normalizer(text: str, plain: str) -> None:
    assert normalizer("english", "en-US")(text) == plain


def test_none_normalizer_changes_nothing() -> None:
    assert normalizer("none", "xx")(" \ufeffA  1’ ") == " \ufeffA  1’ "


def test_unknown_normalizer_and_language_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown normalizer 'engish'; did you mean 'english'\?"):
        normalizer("engish")
    with pytest.raises(ConfigError, match="'english' cannot treat language 'fr'"):
        normalizer("english", "fr")


def test_whisper_rules_are_loaded_only_when_needed() -> None:
    code = "import sys, asr.text; asr.text.normalizer('spoken', 'en')('1'); print('whisper_normalizer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
