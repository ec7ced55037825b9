"""Whether text is what its language looks like, or was decoded with another encoding than it was written in."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import langcodes
import regex

# Letters besides those of ASCII, in the languages' own words and in common foreign ones; of languages in one script.
_LETTERS = {
    "be": "абвгдеёжзійклмнопрстуўфхцчшыьэюя",
    "bg": "абвгдежзийклмнопрстуфхцчшщъьюя",
    "cs": "áčďéěíňóřšťúůýžäöü",
    "da": "åæøéäöü",
    "de": "äöüßàçéèêëïñ",
    "eo": "ĉĝĥĵŝŭ",
    "es": "áéíñóúüçïöàè",
    "et": "äõöüšž",
    "fi": "äåöšžéü",
    "fr": "àâæçéèêëîïôœùûüÿñöäáíó",
    "hr": "čćđšž",
    "hu": "áéíóöőúüűä",
    "it": "àèéìíîòóùúáçêëïöü",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņōŗšūž",
    "mk": "абвгдѓежзѕијклљмнњопрстќуфхцчџшѐѝ",
    "nb": "åæøéèêòóôäöü",
    "nl": "áàâäçéèêëíïñóôöúüû",
    "nn": "åæøéèêòóôäöü",
    "no": "åæøéèêòóôäöü",
    "pl": "ąćęłńóśźżéöüä",
    "pt": "áâãàçéêíóôõúüñè",
    "ro": "ăâîșțşţéöü",
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
    "sk": "áäčďéíĺľňóôŕšťúýžöü",
    "sl": "čšžćđéöü",
    "sv": "åäöéèàáæøüëï",
    "tr": "çğıöşüâîûİ",
    "uk": "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
}
# Scripts by the codes of ISO 15924, where these stand for several, and for languages that are written in a second one.
_PARTS = {"Hans": ("Hani", "Bopo"), "Hant": ("Hani", "Bopo"), "Jpan": ("Hani", "Hira", "Kana"), "Kore": ("Hang",)}
_SECOND = {
    script: codes.split()
    for script, codes in {
        "Latn": "az bs cdo hak kk ku mn nan sr tg tk tt uz",
        "Cyrl": "az bs sr tk uz",
        "Arab": "az ha kk ku ms pa tg ug uz",
    }.items()
}
_WITH_CASE = {"Latn", "Cyrl", "Grek"}
# Of text in a script of so many characters, these are a third; of text in a wrong encoding, hardly any.
_FREQUENT = {
    "Jpan": "のにはをたがでてとしれさいるなかもこらすりうまだよアインスルトラリク",
    "Hans": "的一是了我不在人有他她它这這个個们們中来來上大为為和国國地到以说說时時要就出会會可也你对對"
    "生能而子那得于着下自之年过過发發后後作里用道行所然家种種事成方多经經么麼去法学學如都同现現当當没沒动動面起看定天分还還进進好小部其些"
    "主样樣理心开開想知吗嗎呢吧啊什很让讓谁誰给給把被快真走话話妈媽爸今明晚请請谢謝係唔嘅佢喺啲咁嗰冇伊毋佇",
}
_FREQUENT["Hant"] = _FREQUENT["Hans"]
_FEW, _ENOUGH_TO_TELL = 1 / 20, 20
# Shares of the letters outside ASCII, and of all letters, that letters of other languages have in no text with names.
_FOREIGN, _FOREIGN_OF_ALL, _FOREIGN_WORDS = 1 / 4, 1 / 200, 3
_BROKEN_WORDS = 1 / 10
_SHOWN = 40  # characters of a word

_PUNCTUATION = r"\u00a0¡¿«»°·–—‘’‚“”„…‹›€£♪♫\ufeff\u3000-\u303f\uff00-\uffef"
# Signs that no language puts between letters; others are there for an apostrophe, or if a space is missing.
_SIGN = r"[[\p{S}\p{P}\p{No}]--[\p{ASCII}´’‘ʼ‛·•…‐‑‒–—―״׳״«»“”]]"
_BROKEN = (
    rf"\p{{L}}{_SIGN}\p{{L}}",
    r"\p{Ll}[“”„«»]\p{Ll}",
    r"\p{L}[‚ˆ˜¦¨¤¶†‡]|[¦¤¶†‡¬]\p{L}|‚‚",
    r"([\u2500-\u259f])(?!\1)[\u2500-\u259f]",  # parts of boxes
    r"(?!\p{ASCII}{2})\p{Ll}\p{Lu}",
)


class Look(NamedTuple):
    """What text in a language looks like; the patterns count where it does not.

    script: letters of its scripts.  foreign: letters that it does not have.  broken: what is in words of no language.
    restored: what its text may hold besides ASCII.  latin: whether it is written in that script alone.  frequent: its
    most frequent letters, if it has thousands.
    """

    script: regex.Pattern
    foreign: regex.Pattern
    broken: regex.Pattern
    restored: regex.Pattern
    latin: bool
    frequent: str


@lru_cache
def look_of(language: str) -> Look | None:
    """Return what a language looks like, None if its script is not known."""
    tag = langcodes.Language.get(language)
    code, main = tag.language or "", tag.maximize().script
    if main is None:
        return None
    scripts = set(_PARTS.get(main, (main,)))
    if tag.script is None:
        scripts |= {script for script, codes in _SECOND.items() if code in codes}
    every = "".join(rf"\p{{Script={script}}}" for script in sorted(scripts))
    try:
        letter = rf"[\p{{L}}&&[{every}]]"
        known = _LETTERS.get(code, "") if tag.script is None else ""
        known += known.upper()
        alphabet = f"[{known}]" if known else r"[\u00c0-\u017f]" if scripts == {"Latn"} else letter
        foreign = rf"[\p{{L}}--[\p{{ASCII}}{known}]]" if known else r"(?!)"
        other = rf"[\p{{L}}--[{every}\p{{Script=Common}}]]"
        broken = [*_BROKEN, *([f"{letter}{other}", f"{other}{letter}"] if scripts <= _WITH_CASE else [])]
        return Look(
            regex.compile(f"(?V1){letter}"),
            regex.compile(f"(?V1){foreign}"),
            regex.compile("(?V1)" + "|".join(broken) if scripts & _WITH_CASE else "(?!)"),
            regex.compile(f"(?V1)(?:{alphabet}|[{_PUNCTUATION}])+"),
            scripts == {"Latn"},
            _FREQUENT.get(main, "") if scripts == set(_PARTS.get(main, ())) else "",
        )
    except regex.error:  # a script that Unicode does not have
        return None


def oddities(text: str, language: str) -> int:
    """Count letters that the language does not have, and what is in words of no language."""
    look = look_of(language)
    return 0 if look is None else sum(sum(1 for _ in odd.finditer(text)) for odd in (look.foreign, look.broken))


def problem(text: str, language: str) -> str | None:
    """Describe why text cannot be in a language, None if it can."""
    look = look_of(language)
    letters = Counter(letter for letter in text if letter.isalpha())
    if look is None or not letters:
        return None
    own = sum(count for letter, count in letters.items() if look.script.match(letter))
    if 2 * own < letters.total():
        return f"most of its letters are {_script(letters)}, which {language} is not written in"
    if look.frequent and own >= _ENOUGH_TO_TELL and sum(letters[letter] for letter in look.frequent) < _FEW * own:
        return f"its characters are hardly ever used in {language}"
    words = [word for word in text.split() if not word.isascii()]
    broken = [word for word in words for _ in look.broken.finditer(word)]
    if len(broken) > 1 and len(broken) > _BROKEN_WORDS * len(words):
        return f"words such as {broken[0][:_SHOWN]!r} are in no language"
    foreign = {word: len(found) for word in words if (found := look.foreign.findall(word))}
    count = sum(foreign[word] for word in words if word in foreign)
    beyond_ascii = sum(n for letter, n in letters.items() if not letter.isascii())
    most = max(_FOREIGN * beyond_ascii, _FOREIGN_OF_ALL * letters.total())
    if len(foreign) >= _FOREIGN_WORDS and count > most:
        return f"{language} has no words such as {next(iter(foreign))[:_SHOWN]!r}"
    return None


def read_twice(text: str, language: str, pages: Iterable[str]) -> tuple[int, str, str, str] | None:
    """Find UTF-8 that was decoded with another of the pages (double encoding).

    Return the line, counted from 1, the page, what stands there, and what it was; None if there is nothing.  Only
    letters and punctuation of the language count as found: "Spaß…" is also the bytes of a letter of N'Ko.
    """
    if (look := look_of(language)) is None:
        return None
    pages = tuple(dict.fromkeys(pages))
    seen: set[str] = set()
    for number, run in _not_ascii(text):
        if run in seen:
            continue
        seen.add(run)
        for page in pages:
            restored = _decoded_again(run, page)
            if restored and look.restored.fullmatch(restored) and (look.latin or len(run) > 2):
                return number, page, run, restored
    return None


def _not_ascii(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.isascii():
            for found in regex.finditer(r"\P{ASCII}+", line):
                yield number, found[0]


def _decoded_again(run: str, page: str) -> str | None:
    """Return the text whose UTF-8 was decoded with a page, which leaves bytes that it does not have as they are."""
    try:
        return run.encode(page).decode("utf-8")
    except UnicodeError:
        pass
    try:
        data = b"".join(c.encode("latin-1" if "\x80" <= c <= "\x9f" else page) for c in run)
        return data.decode("utf-8")
    except UnicodeError:
        return None


def _script(letters: Counter[str]) -> str:
    """Return the name of the most frequent script: Latin, Cyrillic, CJK."""
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[unicodedata.name(letter, "unknown").split()[0].split("-")[0]] += count
    name = scripts.most_common(1)[0][0]
    return name if name == "CJK" else name.title()
