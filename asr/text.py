"""Named text normalisers: the same function prepares training text and both sides of a score."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from num2words import CONVERTER_CLASSES, num2words

from asr.errors import ConfigError, DataError

NORMALIZERS: tuple[str, ...] = ("none", "basic", "english", "spoken")

# Characters that people type for an apostrophe; NFKC would take the acute accent apart instead.
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼʻ´`＇", "'"))
_NUMBER = r"\d+(?:[.,]\d+)*"
_SIGNS = "#*%&+=@$€£№"


@dataclass(frozen=True)
class _Reading:
    """How one language says what is written with signs and digits."""

    signs: Mapping[str, str]
    dot: str  # in an internet address
    point: str  # between whole and fraction; empty: num2words knows better (Russian)
    thousands: str  # characters that part groups of three digits
    dialled: str  # words after which a number is a code; regular expression
    ordinal: str  # endings that make a number an ordinal; regular expression


def _signs(words: str) -> dict[str, str]:
    return {sign: word.replace("_", " ") for sign, word in zip(_SIGNS, words.split(), strict=True)}


# The words for # and * are those that the speakers of the telephone prompts say.
_READINGS: dict[str, _Reading] = {
    "en": _Reading(
        _signs("pound star percent and plus equals at dollars euros pounds number"),
        dot="dot",
        point="point",
        thousands=",",
        dialled="dial|dialed|dialled|extension|password|code|pin",
        ordinal="st|nd|rd|th",
    ),
    "es": _Reading(
        _signs("gato asterisco por_ciento y más igual arroba dólares euros libras número"),
        dot="punto",
        point="punto",
        thousands=".,",
        dialled="marque|marca|marcar|extensi[oó]n|contrase[nñ]a|clave|c[oó]digo",
        ordinal=r"\.?(?:er|[rdtmnv]?[oa])",
    ),
    "fr": _Reading(
        _signs("dièse étoile pour_cent et plus égale arobase dollars euros livres numéro"),
        dot="point",
        point="virgule",
        thousands=".",
        dialled="compose[rz]|poste|mot de passe|code",
        ordinal="er|[èe]?re|[èe]?me|nde?|e",
    ),
    "it": _Reading(
        _signs("cancelletto asterisco per_cento e più uguale chiocciola dollari euro sterline numero"),
        dot="punto",
        point="virgola",
        thousands=".",
        dialled="digita|digiti|componi|comporre|interno|password|codice",
        ordinal=r"\.?(?:o|a|esimo|esima)",
    ),
    "ru": _Reading(
        _signs("решетка звездочка процентов и плюс равно собака долларов евро фунтов номер"),
        dot="точка",
        point="",
        thousands=".",
        dialled="набер(?:и|ите)|набрав|набрать|номером|паролем|номер|пароль|код",
        ordinal="-(?:[ыои]?й|а?я|у?ю|[оь]?е|о?го|о?му|о?м)",
    ),
}
_OTHER = _Reading({}, dot="", point="", thousands=".", dialled="(?!)", ordinal="(?!)")

# Ending of a Russian ordinal -> case and gender in num2words.
_RUSSIAN = {"й": "nm", "я": "nf", "е": "nn", "го": "gm", "му": "dm", "м": "pm", "ю": "af"}
_LATIN_LOOKALIKES = str.maketrans("aceopxy", "асеорху")


def normalizer(name: str, language: str | None = None) -> Callable[[str], str]:
    """Return the normaliser of that name.

    Every one of them is idempotent: normalised text comes back unchanged.

    - ``none``: the text as it is.
    - ``basic``: Unicode NFKC, lower case, punctuation and symbols (apostrophes too) to a space, white space
      collapsed. Diacritics and digits stay.
    - ``english``: the English rules of Whisper (Radford et al. 2022, appendix C) from whisper-normalizer.
      They leave stray full stops and spaces behind, which a second pass of the same rules removes ("wait..."
      becomes "wait ." becomes "wait"), so they are repeated until nothing changes.
    - ``spoken``: the words as they are said. NFKC, lower case, punctuation to a space except apostrophes
      inside a word; hyphens part words. Words in brackets of any kind are stage directions and go. Digits
      are spelled out in `language`: "3D" is "three d", "1st" "first", "1990s" "nineteen nineties", but one
      at a time after a word such as "dial" ("dial 500": "five zero zero"), after a single letter ("H.323"),
      after a leading zero, and from seven digits on. ``# * % & + = @ $ € £ №`` become words in en, es, fr,
      it and ru; elsewhere they are dropped, as are all other symbols (a minus sign too) everywhere. In
      Russian ё becomes е, and a Latin letter inside a Cyrillic word the Cyrillic one that looks the same.

    `language` is a code such as "en" or "en-US". `spoken` without it takes text that has no digits.

    Raises ConfigError for an unknown name, or `english` with another language; the function returned by
    `spoken` raises DataError for digits that it has no language to spell in.
    """
    if name not in NORMALIZERS:
        near = difflib.get_close_matches(name, NORMALIZERS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown normalizer {name!r}; did you mean {near!r}? Known: {', '.join(NORMALIZERS)}")
    if name == "english":
        if language is not None and _base(language) != "en":
            raise ConfigError(f"normalizer 'english' cannot treat language {language!r}: use 'basic' or 'spoken'")
        return _english()
    if name == "basic":
        return _basic
    if name == "spoken":
        return _Spoken(language)
    return str


def _base(language: str) -> str:
    return language.replace("_", "-").split("-")[0].lower()


def _fold(text: str) -> str:
    """NFKC and lower case, without invisible format characters (byte-order mark, soft hyphen, joiners)."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    # Lower-casing can undo the normal form, so it is made once more.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())


def _words(text: str, keep: str = "") -> str:
    """Letters, the marks on them, digits and `keep`; a single space for all the rest."""
    out = [" "]
    for c in text:
        kind = unicodedata.category(c)[0]
        if kind in "LN" or c in keep:
            out.append(c)
        elif kind != "M":
            out.append(" ")
        elif out[-1] != " " and out[-1] not in keep:  # a mark needs a letter to stand on
            out.append(c)
    return " ".join("".join(out).split())


def _basic(text: str) -> str:
    return _words(_fold(text))


@lru_cache(maxsize=1)
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import (
        EnglishTextNormalizer,
    )  # reads its spelling table: only when asked for

    whisper = EnglishTextNormalizer()

    def normalise(text: str) -> str:
        text = text.replace("\ufeff", "")
        seen: list[str] = []
        while text not in seen:
            seen.append(text)
            text = " ".join(whisper(text).split())
        # Should the rules ever turn two texts into each other, the lesser one stands for both.
        return min(seen[seen.index(text) :])

    return normalise


class _Spoken:
    """The `spoken` normaliser of one language."""

    def __init__(self, language: str | None) -> None:
        self.language = language
        base = _base(language) if language else ""
        region = (language or "").replace("-", "_")
        self.base = base
        self.voice = next((code for code in (region, base) if code in CONVERTER_CLASSES), None)
        self.reading = reading = _READINGS.get(base, _OTHER)
        self.dialled = re.compile(
            rf"(\b(?:{reading.dialled})\s+(?:(?:el|la|le)\s+|l')?|(?<![^\W_])[^\W\d_][.-]?)(\d{{3,}})(?!\d|[.,]\d)"
        )
        self.ordinal = re.compile(rf"(?<![\d.,])(\d{{1,6}})({reading.ordinal})\b")
        self.number = re.compile(rf"(?P<elided>(?<=[^\W\d_]'))?(?P<number>{_NUMBER})(?P<plural>'?s\b)?")
        mark = re.escape(reading.thousands)
        self.grouped = re.compile(rf"[1-9]\d{{0,2}}([{mark}])\d{{3}}(?:\1\d{{3}})*(?:(?!\1)[.,]\d+)?")
        self.decimal = re.compile(r"\d+\.\d+" if base == "en" else r"\d+[.,]\d+")

    def __call__(self, text: str) -> str:
        text = text.translate(_APOSTROPHES)
        # Groups of thousands are seen before NFKC turns the narrow spaces between them into common ones.
        text = re.sub(r"(?<!\d)\d{1,3}(?:[\u00a0\u202f\u2009']\d{3})+(?!\d)", self._regroup, text)
        text = text.replace("№", f" {self.reading.signs.get('№', '')} ")
        text = _stage_directions_out(_fold(text))
        if any(c.isdigit() for c in text):
            text = self._spell(text)
        text = re.sub(r"\bwww(?:\.\w[\w-]*)+", lambda m: m[0].replace(".", f" {self.reading.dot} "), text)
        for sign, word in self.reading.signs.items():
            text = text.replace(sign, f" {word} ")
        text = _words(text, keep="'")
        text = " ".join(re.sub(r"(?<![^\W_])'|'(?![^\W_])", " ", text).split())
        return _russian(text) if self.base == "ru" else text

    def _spell(self, text: str) -> str:
        if self.voice is None:
            why = f"num2words has no {self.language!r}" if self.language else "no language is given"
            raise DataError(f"digits cannot be spelled out, {why}: {text[:60]!r}")
        text = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in text)
        text = re.sub(rf"([$€£])\s*({_NUMBER})", r"\2 \1", text)
        text = self.ordinal.sub(lambda m: f" {self._ordinal(m[1], m[2])} ", text)
        text = self.dialled.sub(
            lambda m: f"{m[1]} {' '.join(m[2])}" if m[1][-1] != "'" else m[1] + " ".join(m[2]), text
        )
        text = re.sub(r"(?<![\d.,])(?:0\d+|\d{7,})(?!\d|[.,]\d)", lambda m: " ".join(m[0]), text)
        return self.number.sub(self._number, text)

    def _regroup(self, match: re.Match[str]) -> str:
        return re.sub(r"\D", self.reading.thousands[0], match[0])

    def _number(self, match: re.Match[str]) -> str:
        number = match["number"]
        if grouped := self.grouped.fullmatch(number):
            number = number.replace(grouped[1], "")
        if self.decimal.fullmatch(number):
            words = self._decimal(*re.split("[.,]", number))
        else:
            words = " ".join(self._whole(part) for part in re.split("[.,]", number))
        if match["plural"] and self.base == "en":
            words = words[:-1] + "ies" if words.endswith("y") else words + "s"
        elif match["plural"]:
            words += " s"
        # "l'8" is one word when spoken as well: no space after an elision.
        return f"{words} " if match["elided"] is not None else f" {words} "

    def _whole(self, digits: str) -> str:
        if len(digits) > 12 or (len(digits) > 1 and digits[0] == "0"):
            return " ".join(self._whole(digit) for digit in digits)
        # English reads four digits as two pairs: years, but fifteen hundred people too.
        year = self.base == "en" and len(digits) == 4 and 1100 <= int(digits) < 2100
        words = _say(int(digits), self.voice, to="year" if year else "cardinal")
        if not words and len(digits) == 1:
            raise DataError(f"num2words cannot spell {digits!r} in language {self.language!r}")
        return words or " ".join(self._whole(digit) for digit in digits)

    def _decimal(self, whole: str, fraction: str) -> str:
        if not self.reading.point and max(len(whole), len(fraction)) <= 6:
            words = _say(f"{whole}.{fraction}", self.voice)
            if words and words != _say(int(whole), self.voice):  # some of its languages forget the fraction
                return words
        # num2words loses the fraction in Italian and zeros at the end everywhere.
        return " ".join([self._whole(whole), self.reading.point, *map(self._whole, fraction)])

    def _ordinal(self, digits: str, ending: str) -> str:
        if self.base == "ru":
            form = next(form for end, form in _RUSSIAN.items() if ending.endswith(end))
            words = _say(int(digits), self.voice, to="ordinal", case=form[0], gender=form[1])
        else:
            words = _say(int(digits), self.voice, to="ordinal")
        if self.base in ("es", "it") and ending.endswith("a"):
            words = re.sub(r"o\b", "a", words)
        elif self.base == "es" and ending.endswith("er"):
            words = words.removesuffix("o")
        elif self.base == "fr" and int(digits) == 1 and ending.endswith("re"):
            words = "première"
        elif self.base == "fr" and int(digits) == 2 and ending.startswith("nd"):
            words = "second" + ending[2:]
        return words or self._whole(digits)


def _stage_directions_out(text: str) -> str:
    """Without what stands in brackets, the innermost first."""
    for _ in range(4):  # as deep as people nest them; without a limit, a hostile line would take quadratic time
        text = re.sub(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>", " ", text)
    return text


def _russian(text: str) -> str:
    words = re.sub("ё\u0308*", "е", text).split()
    return " ".join(w.translate(_LATIN_LOOKALIKES) if re.search("[а-я]", w) else w for w in words)


@lru_cache(maxsize=4096)
def _say(number: int | str, voice: str, **how: str) -> str:
    """Words for a number; empty where num2words has none (it fails in many ways)."""
    if voice == "am" and len(str(number)) > 6:  # for Amharic it never returns
        return ""
    try:
        words = str(num2words(number, lang=voice, **how))
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
        return ""
    return "" if any(c.isdigit() for c in words) else _fold(words)
