"""`spoken`: texts as the words that are said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from num2words import CONVERTER_CLASSES, num2words

from asr.errors import DataError
from asr.text.basic import fold, plain_apostrophes, plain_digits, words_and_apostrophes
from asr.text.chain import Chain, Step

_NUMBER = r"\d+(?:[.,]\d+)*"
_SIGNS = "#*%&+=@$€£№"


@dataclass(frozen=True)
class _Reading:
    """How a language reads signs and digits."""

    signs: Mapping[str, str]
    dot: str  # in an internet address
    point: str  # between the whole part and the fraction; empty: num2words reads the whole number (Russian)
    thousands: str  # characters that separate groups of three digits
    dialled: str  # regular expression for words after which a number is a code
    ordinal: str  # regular expression for endings that make a number an ordinal


def _signs(words: str) -> dict[str, str]:
    return {sign: word.replace("_", " ") for sign, word in zip(_SIGNS, words.split(), strict=True)}


# The words for # and * are those that speakers of telephone prompts use.
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


def spoken(language: str | None) -> Chain:
    """Return the normaliser of one language; it raises DataError for digits that it cannot spell in that language."""
    return _Spoken(language).chain()


class _Spoken:
    """The rules for one language."""

    def __init__(self, language: str | None) -> None:
        self.language = language
        region = (language or "").replace("-", "_")
        base = region.split("_")[0].lower()
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

    def chain(self) -> Chain:
        steps = [
            # Thousands come before NFKC, which turns the narrow spaces between their groups into ordinary ones.
            Step("apostrophes", plain_apostrophes),
            Step("thousands", self._join_thousands),
            Step("NFKC, lower case", self._fold),
            Step("stage directions", _stage_directions_out),
            Step("digits", self._spell),
            Step("signs", self._say_signs),
            Step("punctuation", words_and_apostrophes),
        ]
        return Chain((*steps, Step("Russian letters", _russian)) if self.base == "ru" else tuple(steps))

    def _join_thousands(self, text: str) -> str:
        return re.sub(r"(?<!\d)\d{1,3}(?:[\u00a0\u202f\u2009']\d{3})+(?!\d)", self._regroup, text)

    def _fold(self, text: str) -> str:
        return fold(text.replace("№", f" {self.reading.signs.get('№', '')} "))  # NFKC would spell it "No"

    def _say_signs(self, text: str) -> str:
        text = re.sub(r"\bwww(?:\.\w[\w-]*)+", lambda m: m[0].replace(".", f" {self.reading.dot} "), text)
        for sign, word in self.reading.signs.items():
            text = text.replace(sign, f" {word} ")
        return text

    def _spell(self, text: str) -> str:
        if not any(c.isdigit() for c in text):
            return text
        if self.voice is None:
            why = f"num2words has no {self.language!r}" if self.language else "no language is given"
            raise DataError(f"digits cannot be spelled out, {why}: {text[:60]!r}")
        text = plain_digits(text)
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
        # "l'8" is also spoken as one word: no space after an elision.
        return f"{words} " if match["elided"] is not None else f" {words} "

    def _whole(self, digits: str) -> str:
        if len(digits) > 12 or (len(digits) > 1 and digits[0] == "0"):
            return " ".join(self._whole(digit) for digit in digits)
        # English reads four digits as two pairs: in years, but also in "fifteen hundred people".
        year = self.base == "en" and len(digits) == 4 and 1100 <= int(digits) < 2100
        words = _say(int(digits), self.voice, to="year" if year else "cardinal")
        if not words and len(digits) == 1:
            raise DataError(f"num2words cannot spell {digits!r} in language {self.language!r}")
        return words or " ".join(self._whole(digit) for digit in digits)

    def _decimal(self, whole: str, fraction: str) -> str:
        if not self.reading.point and max(len(whole), len(fraction)) <= 6:
            words = _say(f"{whole}.{fraction}", self.voice)
            if words and words != _say(int(whole), self.voice):  # num2words omits the fraction in some languages
                return words
        # num2words loses the fraction in Italian, and trailing zeros everywhere.
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
    """Remove text in brackets, the innermost first."""
    for _ in range(4):  # enough for real texts; without a limit, a hostile line would take quadratic time
        text = re.sub(r"\([^()]*\)|\[[^\[\]]*\]|<[^<>]*>", " ", text)
    return text


def _russian(text: str) -> str:
    words = re.sub("ё\u0308*", "е", text).split()
    return " ".join(w.translate(_LATIN_LOOKALIKES) if re.search("[а-я]", w) else w for w in words)


@lru_cache(maxsize=4096)
def _say(number: int | str, voice: str, **how: str) -> str:
    """Return the words for a number; empty if num2words fails, which it does with many kinds of exception."""
    if voice == "am" and len(str(number)) > 6:  # num2words never returns for Amharic
        return ""
    try:
        words = str(num2words(number, lang=voice, **how))
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
        return ""
    return "" if any(c.isdigit() for c in words) else fold(words)
