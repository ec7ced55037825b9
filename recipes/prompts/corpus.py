"""The prompts as a corpus: voices, transcripts, and the text of each recording.

Nothing here downloads or writes files; `sources.py` finds them and `prepare.py` writes the cuts.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.errors import DataError
from recipes.clips import Clip, Dropped
from recipes.preparing import split_of

MAX_TRANSCRIPT_BYTES = 4 << 20  # real ones have 30 kB; a compressed one must not fill the memory


@dataclass(frozen=True)
class Voice:
    """One language of the corpus: its speaker's folder, and the number of clips in release 1.6.1."""

    language: str
    speaker: str
    clips: int


VOICES = {
    voice.language: voice
    for voice in (
        Voice("en", "en_US_f_Allison", 551),
        Voice("es", "es_MX_f_Allison", 477),
        Voice("fr", "fr_CA_f_June", 509),
        Voice("it", "it_IT_m_Carlo", 580),
        Voice("ru", "ru_RU_f_IvrvoiceRU", 554),
    )
}

# In these four texts the words in parentheses are spoken (each recording was checked); in all others an aside is a
# note: a symbol ("at [@]"), a remark ("(note: does not say ...)") or words that the speaker omitted.
SPOKEN_ASIDES = {
    ("fr", "priv-callee-options"),
    ("fr", "screen-callee-options"),
    ("it", "demo-instruct"),
    ("ru", "vm-review-nonurgent"),
}
_ASIDE = re.compile(r"\[[^]]*\]|\([^)]*\)|<[^>]*>")
_STRAY_STOP = re.compile(r"(?<=[.!?])\s+\.$")  # "... key. (a remark)." without its remark


def spoken_text(language: str, prompt: str, text: str) -> str:
    """Return the text without its asides; '' for a text that begins with one.

    A text that begins with an aside names a sound ("[ascending tones]"). This also leaves out two Italian texts with
    words after the aside, which keeps to the published size of the corpus.
    """
    text = " ".join(text.split())
    if text[:1] in ("[", "(", "<"):
        return ""
    if (language, prompt) in SPOKEN_ASIDES:
        return text.replace("(", "").replace(")", "")
    return _STRAY_STOP.sub("", " ".join(_ASIDE.sub(" ", text).split()))


def read_transcripts(path: Path, language: str) -> tuple[dict[str, str], list[Dropped]]:
    """Return the raw texts of a `core-sounds-LL.txt` or `.txt.gz` by prompt id, and the lines with duplicate ids."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(MAX_TRANSCRIPT_BYTES + 1)
        if len(content) > MAX_TRANSCRIPT_BYTES:
            raise DataError(f"{path}: larger than {MAX_TRANSCRIPT_BYTES >> 20} MiB: not a transcript of the prompts")
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: not a UTF-8 transcript ({error}): fetch the package again") from error
    texts: dict[str, str] = {}
    dropped = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        prompt, colon, text = line.partition(":")
        prompt = prompt.strip()
        if not colon or not prompt:
            raise DataError(f"{path}:{number}: expected 'id: text', found {line.strip()[:60]!r}")
        if prompt in texts:
            dropped.append(Dropped(language, prompt, split_of(prompt), "duplicate id"))
        else:
            texts[prompt] = text
    return texts, dropped


def audio_files(folder: Path) -> dict[str, Path]:
    """Return the WAV files below a voice folder by prompt id."""
    files = (Path(base, name) for base, _, names in os.walk(folder) for name in names)
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files if path.suffix == ".wav"}


def pair(language: str, texts: dict[str, str], files: dict[str, Path]) -> tuple[list[Clip], list[Dropped]]:
    """Return a clip for every recording of speech with a text, and the rest with reasons."""
    clips = []
    dropped = []
    for prompt in sorted(texts.keys() | files.keys()):
        raw = texts.get(prompt, "").strip()
        text = spoken_text(language, prompt, raw)
        if prompt.startswith("silence/"):
            reason = "silence"
        elif prompt not in files:
            reason = "no audio"
        elif prompt not in texts:
            reason = "no text"
        elif not raw:
            reason = "empty text"
        elif not text:
            reason = "opens with a note" if _ASIDE.sub("", raw).strip() else "names a sound"
        else:
            speaker = VOICES[language].speaker
            clips.append(Clip(language, prompt, prompt, split_of(prompt), speaker, text, files[prompt]))
            continue
        dropped.append(Dropped(language, prompt, split_of(prompt), reason))
    return clips, dropped


def with_translations(clips: Sequence[Clip]) -> list[Clip]:
    """Add to each clip the texts of the same prompt in the other languages."""
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for clip in clips:
        texts[clip.name][clip.language] = clip.text
    return [
        replace(clip, translations={to: text for to, text in texts[clip.name].items() if to != clip.language})
        for clip in clips
    ]
