"""Credits in the languages of subtitles, and speech that has the same words."""

from __future__ import annotations

import pytest

from asr.subtitling.credits import is_credits

# For each language, credits, and speech.
LINES = {
    "bg": (
        "Превод: Иван Петров|Субтитри: Мария|превел Иван",
        "Преводът е лош.|Превод: той лъже.|Субтитри няма.",
    ),
    "cs": (
        "Titulky: Honza|Překlad: Jana Nová|přeložil Honza|Přeložila: Jana|Překlad a časování: krtek",
        "Překlad je špatný|Přeložil Honza tu knihu?|Přeložila Jana.|Překlad: on lže.|Titulky už běží.",
    ),
    "da": (
        "Undertekster: Jens|Oversat af Jens Hansen|Tekstning: Bo",
        "Oversættelse er svært.|Det er oversat af Jens",
    ),
    "de": (
        "Untertitel: Hans Meier|Untertitel von Hans Meier|Untertitelung des ZDF, 2020|Deutsche Untertitel: Hans",
        "Das ist die Übersetzung von Hans|Untertitel sind hilfreich.|Übersetzung von Hans liegt|Übersetzung: Er lügt.",
    ),
    "el": ("Υπότιτλοι: Νίκος|Μετάφραση: Νίκος", "Η μετάφραση είναι κακή.|Μετάφραση: λέει ψέματα."),
    "en": (
        "Subtitles by Jane Doe|English subtitles: Jane|Find more on example.com|Synced and corrected by nobody",
        "He read the subtitles: all of them.|It was on userfriendly.org.|How about command.com?",
    ),
    "eo": ("Subtekstoj: Petro|Tradukis Petro Nowak", "La traduko estas bona.|Tradukis ĝin Petro."),
    "es": (
        "Subtítulos por Juan|Traducción: Juan|Traducido por Juan Pérez|Subtítulos y traducción por Juan",
        "La traducción es de Juan|Traducción: está mintiendo.|Subtítulos no hay.",
    ),
    "fi": ("Suomennos: Matti|Tekstitys: Matti", "Suomennos on huono.|Käännös: hän valehtelee."),
    "fr": (
        "Sous-titres : Marie|Sous-titrage ST' 501|Traduction : Marie|Sous-titrage Société TV|Traduit par Marie",
        "La traduction est de Marie|Traduction : il ment.|Sous-titres ou pas ?|C'est traduit par Marie",
    ),
    "hr": ("Titlovi: Ivan|Prijevod i obrada: Ivan|Preveo Ivan", "Prijevod je loš.|Preveo je Ivan."),
    "hu": (
        "Felirat: Kiss Éva|Magyar szöveg: Kiss Éva|Fordította: Kiss Éva",
        "A fordítás rossz.|Ő fordította.",
    ),
    "it": (
        "Sottotitoli di Maria|Traduzione: Maria|Sottotitoli e revisione a cura di QTSS|Tradotto da Maria",
        "La traduzione è di Maria|Traduzione: sta mentendo.|Sottotitoli di Maria sono belli.",
    ),
    "ja": ("字幕：山田|字幕翻訳　戸田奈津子|翻訳：山田", "翻訳は難しい。|日本語字幕がない|監修って何？"),
    "ko": ("자막: 홍길동|번역: 홍길동|한글자막 by 홍길동|자막제작 : 홍길동", "자막이 없어요|번역이 이상해."),
    "nl": (
        "Vertaling: Jan de Boer|Ondertiteling: Jan|Ondertiteld door Jan|Vertaald door: Jan",
        "De vertaling is van Jan|Vertaling: hij liegt.|Het is vertaald door Jan",
    ),
    "no": ("Undertekster: Ola|Oversatt av Ola Nordmann", "Oversettelsen er dårlig.|Det er oversatt av Ola"),
    "pl": (
        "Napisy: Jan|Tłumaczenie: Jan Kowalski|Napisy pobrano z napisy24.pl|Tłumaczenie i korekta: Jan",
        "Tłumaczenie jest złe.|Tłumaczenie: on kłamie.|Napisy są na murze.|Dopasowanie od Jana\njest dobre",
    ),
    "pt": (
        "Legendas: João|Tradução: João|Traduzido por João",
        "A tradução é de João|Tradução: mente.",
    ),
    "ro": ("Subtitrare: Ion|Traducerea: Ion Pop", "Traducerea e proastă.|Traducerea: minte."),
    "ru": (
        "Субтитры: Иван|Перевод: Иван Петров|Редактор субтитров А.Семкин|Субтитры сделал DimaTorzok",
        "Перевод плохой.|Перевод: он врёт.|Это перевод от Ивана|Перевела Анна через дорогу?",
    ),
    "sk": ("Titulky: Jano|Preklad: Jano|Preložil Jano", "Preklad je zlý.|Preklad: klame."),
    "sl": ("Prevod: Janez|Podnapisi: Janez|Prevedel Janez Novak", "Prevod je slab.|Prevod: laže."),
    "sr": ("Титлови: Иван|Превод: Иван|Превео Иван", "Превод је лош.|Превод: лаже."),
    "sv": (
        "Undertexter: Lars|Översättning: Lars|Översatt av Lars|Textning Stina Hedin",
        "Översättningen är dålig.|Översättning: han ljuger.|Den är översatt av Lars",
    ),
    "tr": ("Altyazı: Ali|Çeviri: Ali", "Çeviri kötü.|Çeviri: yalan söylüyor."),
    "uk": ("Субтитри: Іван|Переклад: Іван|Переклав Іван", "Переклад поганий.|Переклад: він бреше."),
    "zh": ("字幕：某某|字幕由某某提供|听译：某某|翻譯：某某", "字幕很好|这个翻译很好|字幕由我来做"),
}


@pytest.mark.parametrize("language", LINES)
def test_credits_are_told_from_speech(language: str) -> None:
    credits, speech = (lines.split("|") for lines in LINES[language])
    assert [line for line in credits if not is_credits(line)] == []
    assert [line for line in speech if is_credits(line)] == []
