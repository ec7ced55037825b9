"""Recognition of credits: text that names who made the subtitles, instead of what is said."""

from __future__ import annotations

from typing import NamedTuple

import regex


class _Words(NamedTuple):
    """Words for credits in a language, as alternatives of a pattern.

    subtitles, work: what people have made; before a colon, the former are in credits alone.  by: what stands between
    these and a name.  done: what a name follows directly.
    """

    subtitles: str
    work: str
    by: str = ""
    done: str = ""


_WORDS = {
    "bg": _Words("субтитри", "превод|редакция|тайминг", "от|на", "преве(?:л|ла|ли|де)"),
    "cs": _Words("titulky", "překlad|časování|korekce|přečas", "od", "přeložil[ai]?|přečasoval[ai]?"),
    "da": _Words("undertekst(?:er|ning)?", "oversættelse|tekstning", "af|ved", "tekstning|(?:oversat|tekstet) af"),
    "de": _Words(
        "untertitel(?:ung)?",
        "übersetzung",
        "von|durch|des|der|im auftrag (?:des|der)",
        "untertitelung|(?:übersetzt|untertitelt) von",
    ),
    "el": _Words("υπότιτλοι", "μετάφραση|απόδοση|συγχρονισμός"),
    "eo": _Words("subtekstoj|subtitoloj", "traduko", "de|far", "tradukis|tradukita de"),
    "es": _Words("subtítulos", "traducción|sincronización|corrección", "por|de", "(?:traducido|subtitulado) por"),
    "fi": _Words("tekstitys", "suomennos|käännös", "", "suomentanut|kääntänyt"),
    "fr": _Words(
        "sous-titr(?:es?|age)",
        "traduction|synchro(?:nisation)?|adaptation|relecture",
        "par|de",
        "sous-titrage|(?:traduit|sous-titré) par",
    ),
    "hr": _Words("titlovi", "prijevod|obrada", "od", "preve(?:o|la)|obradi(?:o|la)"),
    "hu": _Words("felirat(?:ok)?|magyar szöveg", "fordítás|időzítés", "", "fordította|feliratozta"),
    "it": _Words("sottotitoli", "traduzione|revisione", "di|da|a cura di", "(?:tradotto|sottotitolato) da"),
    "ko": _Words("(?:한글 ?)?자막(?: ?제작| ?제공)?", "번역|싱크|감수|옮긴이"),
    "nl": _Words("ondertitel(?:s|ing)", "vertaling|bewerking", "door|van", "(?:ondertiteld|vertaald) door"),
    "no": _Words("undertekst(?:er)?", "oversettelse|teksting", "av|ved", "teksting|(?:oversatt|tekstet) av"),
    "pl": _Words("napisy", "tłumaczenie|korekta|dopasowanie", "od", "(?:prze)?tłumaczył[ai]?"),
    "pt": _Words("legendas|legendagem", "tradução|revisão|sincronia", "por|de", "(?:traduzido|legendado) por"),
    "ro": _Words("subtitrare|subtitrarea", "traducerea|sincronizarea", "de", "tradus de"),
    "ru": _Words(
        "субтитры",
        "перевод|тайминг",
        "от",
        "перевела|перев[её]л|перевели|субтитры (?:сделал|создавал|делал|подогнал)а?|редактор субтитров|корректор",
    ),
    "sk": _Words("titulky", "preklad|časovanie", "od", "preložil[ai]?"),
    "sl": _Words("podnapisi", "prevod|priredba", "od", "prevede?la?|priredil[ai]?"),
    "sr": _Words("титлови", "превод|обрада", "од", "преве(?:о|ла)|обради(?:о|ла)"),
    "sv": _Words("undertext(?:er|ning)?", "översättning|textning", "av|från", "textning|(?:översatt|textad) av"),
    "tr": _Words("alt ?yazı", "çeviri|çeviren"),
    "uk": _Words("субтитри", "переклад", "від", "перекла(?:в|ла|ли)|редактор субтитрів"),
}
_ENGLISH = (
    r"sub(?:title|bing)?s?|captions?|captioned|subtitled|translat(?:ion|ed)|transcri(?:pt|bed)|timing|(?:re)?sync\w{0,20}"
    r"|ripped|encoded|correct(?:ed|ions?)|adapted"
)
_CHINESE = (
    r"字幕(?:组|組|製作|制作|翻譯|翻译|校對|校对|提供|\s?[:：])|字幕由[^\n]{1,30}(?:提供|制作|製作)$"
    r"|(?:翻译|翻譯|听译|聽譯|译者|譯者|校对|校對|校订|校訂|时间轴|時間軸|压制|壓制|片源)\s?[:：]"
)
_JAPANESE = r"(?:日本語字幕|字幕翻訳|字幕監修|翻訳|監修)(?:\s?[:：]|[ \u3000][^\s。]{1,12}$)"


def _any(column: str) -> str:
    return "|".join(sorted({getattr(words, column) for words in _WORDS.values()} - {""}))


_SUBTITLES, _WORK = _any("subtitles"), _any("work")
_BOTH = rf"(?:{_SUBTITLES}|{_WORK})(?:\s{{0,9}}(?:\p{{L}}{{1,3}}|[&+,/])\s{{1,9}}(?:{_SUBTITLES}|{_WORK})){{0,3}}"
_START, _ONE_WORD = r"^\W{0,9}", r"(?:\w{1,20}\s{1,9})?"  # later in a line, it may be speech
_NAME = r"(?-i:[\p{Lu}\p{Lo}\p{N}][\p{L}\p{M}\p{N}.'’_-]{0,30})"
# Names up to the end of a line; a sentence ends with a full stop, or goes on in the next line.
_NAMES = (
    rf"{_NAME}(?:[ ,&/+]{{1,3}}(?:\p{{L}}{{1,3}} )?{_NAME}){{0,7}}(?<![.?!…])[^\w\n.?!…]{{0,9}}$"
    r"(?!\n\W{0,9}(?-i:\p{Ll}))"
)
_NO_SENTENCE = r"(?![^\n]*[.?!…][\"”»’)]?[^\S\n]*$)"
_CREDITS = regex.compile(
    r"www\.|https?:|©|opensubtitles|addic7ed"
    rf"|{_START}{_ONE_WORD}(?:{_ENGLISH})(?:\s{{1,9}}(?:and|&)\s{{1,9}}(?:{_ENGLISH})){{0,3}}\s{{0,9}}(?:by\b|:)"
    rf"|{_START}{_ONE_WORD}(?:{_SUBTITLES})\s{{0,3}}(?:[:：]|by\b)"
    rf"|{_START}{_ONE_WORD}{_BOTH}\s{{0,3}}(?:[:：]|by\b){_NO_SENTENCE}"
    rf"|{_START}{_BOTH} (?:{_any('by')}) {_NAMES}"
    rf"|{_START}(?:{_any('done')})(?:\s{{0,3}}[:：])? ?{_NAMES}"
    rf"|{_CHINESE}|{_START}{_JAPANESE}",
    regex.IGNORECASE | regex.MULTILINE,
)
_SITE = regex.compile(r"\b[\w-]{1,63}\.(?:com|org|net|tv|cz|cc|pl|ru|sk|nl|fr)\b", regex.IGNORECASE)
_SENTENCE_END = regex.compile(r"[.?!…][\"”»’)]*\s*\Z")


def is_credits(text: str) -> bool:
    """Return whether the text of a cue names who made the subtitles, or a site where they are from."""
    return bool(_CREDITS.search(text) or (_SITE.search(text) and not _SENTENCE_END.search(text)))
