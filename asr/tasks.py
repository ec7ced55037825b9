"""Names of tasks: `transcribe`, or `translate:CODE` into the language with that code."""

from __future__ import annotations

from collections.abc import Sequence

from asr.errors import AsrError

LANGUAGE_CODE = r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*"
TRANSCRIBE = "transcribe"
TRANSLATE = "translate"
TASK = rf"{TRANSCRIBE}|{TRANSLATE}:{LANGUAGE_CODE}"

# Whisper's languages in the order of their tokens, the last one added in large-v3; and then their other names.
_NAMES = (
    "en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese, pt portuguese, "
    "tr turkish, pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian, id indonesian, hi hindi, fi "
    "finnish, vi vietnamese, he hebrew, uk ukrainian, el greek, ms malay, cs czech, ro romanian, da danish, hu "
    "hungarian, ta tamil, no norwegian, th thai, ur urdu, hr croatian, bg bulgarian, lt lithuanian, la latin, mi "
    "maori, ml malayalam, cy welsh, sk slovak, te telugu, fa persian, lv latvian, bn bengali, sr serbian, az "
    "azerbaijani, sl slovenian, kn kannada, et estonian, mk macedonian, br breton, eu basque, is icelandic, hy "
    "armenian, ne nepali, mn mongolian, bs bosnian, kk kazakh, sq albanian, sw swahili, gl galician, mr marathi, pa "
    "punjabi, si sinhala, km khmer, sn shona, yo yoruba, so somali, af afrikaans, oc occitan, ka georgian, be "
    "belarusian, tg tajik, sd sindhi, gu gujarati, am amharic, yi yiddish, lo lao, uz uzbek, fo faroese, ht haitian "
    "creole, ps pashto, tk turkmen, nn nynorsk, mt maltese, sa sanskrit, lb luxembourgish, my myanmar, bo tibetan, "
    "tl tagalog, mg malagasy, as assamese, tt tatar, haw hawaiian, ln lingala, ha hausa, ba bashkir, jw javanese, "
    "su sundanese, yue cantonese, my burmese, ca valencian, nl flemish, ht haitian, lb letzeburgesch, ps pushto, "
    "pa panjabi, ro moldavian, ro moldovan, si sinhalese, es castilian, zh mandarin"
)
_CODES = {name: code for code, _, name in (each.partition(" ") for each in _NAMES.split(", "))}
LANGUAGES = tuple(dict.fromkeys(_CODES.values()))


def language_code(language: str) -> str:
    """Return the code of a language given by its English name, in upper or lower case; any other string unchanged."""
    return _CODES.get(language.lower(), language)


def base_code(language: str) -> str:
    """Return a language code without script and region: zh for zh-TW and zh_Hant."""
    return language.replace("_", "-").partition("-")[0].lower()


def into(task: str) -> str | None:
    """Return the language that a task translates into, None for transcription."""
    return None if task == TRANSCRIBE else task.partition(":")[2]


def chosen(task: str | None, known: Sequence[str]) -> str:
    """Return which of a model's tasks is meant: None means the first, `translate` its only translation, or to English.

    Raises AsrError, which lists the model's tasks, for a task that it does not have.
    """
    if task is None:
        return known[0]
    translations = [name for name in known if into(name) is not None]
    english = f"{TRANSLATE}:en"
    if task == TRANSLATE and translations:
        task = translations[0] if len(translations) == 1 else english
    if task not in known:
        advice = ""
        if not translations and task.startswith(TRANSLATE):
            whisper = "a multilingual model, such as --model whisper-small, or " if task in (TRANSLATE, english) else ""
            advice = f"; to translate, take {whisper}one that was trained to (data.tasks)"
        raise AsrError(f"this model has no task {task!r}: it has {', '.join(known)}{advice}")
    return task
