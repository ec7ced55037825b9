"""The prompts as a corpus: voices, transcripts, clips, the split and the checks that keep the splits apart.

Nothing here fetches or writes; `sources.py` finds the files and `prepare.py` writes the cuts.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.errors import DataError

SPLITS = ("train", "dev", "test")
MAX_TRANSCRIPT_BYTES = 4 << 20  # the real ones have 30 kB; a compressed one must not fill the memory


@dataclass(frozen=True)
class Voice:
    """One language of the corpus: the folder that names its speaker, and what release 1.6.1 holds."""

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

# In these four texts the words in parentheses are spoken (each recording was checked); everywhere else an
# aside is a note: a symbol ("at [@]"), a remark ("(note: does not say ...)") or words the voice left out.
SPOKEN_ASIDES = {
    ("fr", "priv-callee-options"),
    ("fr", "screen-callee-options"),
    ("it", "demo-instruct"),
    ("ru", "vm-review-nonurgent"),
}
_ASIDE = re.compile(r"\[[^]]*\]|\([^)]*\)|<[^>]*>")
_STRAY_STOP = re.compile(r"(?<=[.!?])\s+\.$")  # "... key. (a remark)." without its remark


@dataclass(frozen=True)
class Clip:
    """One recording and its text; `sha256` is over the decoded samples, so a new header hides no copy."""

    language: str
    prompt: str
    text: str
    path: Path
    sample_rate_hz: int
    n_samples: int
    sha256: str

    @property
    def id(self) -> str:
        return f"{self.language}/{self.prompt}"

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.sample_rate_hz


@dataclass(frozen=True)
class Dropped:
    """A prompt that is left out, and why."""

    language: str
    prompt: str
    reason: str


def split_of(prompt: str) -> str:
    """The split of a prompt id, the same in every language."""
    digit = int(hashlib.sha1(prompt.encode()).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "dev"}.get(digit, "train")


def spoken_text(language: str, prompt: str, text: str) -> str:
    """The text without its asides; empty for a text that opens with one.

    A text that opens with an aside names a sound ("[ascending tones]"); the two Italian ones in which words
    follow are left out with the rest, which keeps to the published size of the corpus.
    """
    text = " ".join(text.split())
    if text[:1] in ("[", "(", "<"):
        return ""
    if (language, prompt) in SPOKEN_ASIDES:
        return text.replace("(", "").replace(")", "")
    return _STRAY_STOP.sub("", " ".join(_ASIDE.sub(" ", text).split()))


def read_transcripts(path: Path, language: str) -> tuple[dict[str, str], list[Dropped]]:
    """Prompt id -> raw text from a `core-sounds-LL.txt` or `.txt.gz`, and the lines that name an id again."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(MAX_TRANSCRIPT_BYTES + 1)
        if len(content) > MAX_TRANSCRIPT_BYTES:
            raise DataError(f"{path}: larger than {MAX_TRANSCRIPT_BYTES >> 20} MiB: not a transcript of the prompts")
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
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
            dropped.append(Dropped(language, prompt, "second text of an id"))
        else:
            texts[prompt] = text
    return texts, dropped


def audio_files(folder: Path) -> dict[str, Path]:
    """Prompt id -> WAV file below a voice folder."""
    files = (Path(base, name) for base, _, names in os.walk(folder) for name in names)
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files if path.suffix == ".wav"}


def pair(
    language: str, texts: dict[str, str], files: dict[str, Path]
) -> tuple[list[tuple[str, str, Path]], list[Dropped]]:
    """(prompt, spoken text, file) of everything that is speech with a text, and the rest with its reason."""
    pairs = []
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
            pairs.append((prompt, text, files[prompt]))
            continue
        dropped.append(Dropped(language, prompt, reason))
    return pairs, dropped


def measure(language: str, prompt: str, text: str, path: Path) -> Clip:
    """Decode one file and hash its samples.

    Raises: asr.errors.AudioError, naming the file, for anything that is not audio.
    """
    from asr.audio import open_audio  # numpy and the decoder: not needed when nothing has changed

    audio = open_audio(path)
    digest = hashlib.sha256(f"{audio.sample_rate_hz}:".encode())
    digest.update(audio.samples_N.tobytes())
    return Clip(language, prompt, text, path, audio.sample_rate_hz, len(audio.samples_N), digest.hexdigest())


def drop_copies(clips: Sequence[Clip]) -> tuple[list[Clip], list[Dropped]]:
    """Leave out clips whose audio also stands in a split that ranks higher: test, then dev, then train.

    So the held-out parts keep their size and nothing trained on is ever heard in a test. Copies within one
    split stay.
    """
    rank = {split: place for place, split in enumerate(reversed(SPLITS))}
    best: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: (rank[split_of(clip.prompt)], clip.id)):
        best.setdefault(clip.sha256, clip)
    kept, dropped = [], []
    for clip in clips:
        twin = best[clip.sha256]
        if split_of(twin.prompt) == split_of(clip.prompt):
            kept.append(clip)
        else:
            reason = f"same audio as {twin.id} ({split_of(twin.prompt)})"
            dropped.append(Dropped(clip.language, clip.prompt, reason))
    return kept, dropped


def assign(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Split -> its clips in the order of their ids."""
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in sorted(clips, key=lambda clip: clip.id):
        splits[split_of(clip.prompt)].append(clip)
    return splits


def check_apart(splits: dict[str, list[Clip]]) -> None:
    """Refuse splits that share a prompt id (in any language) or a recording, and ids that stand twice.

    Raises: DataError that names the first offender and both places.
    """
    keys: tuple[tuple[str, Callable[[Clip], str]], ...] = (
        ("prompt", lambda clip: clip.prompt),
        ("audio", lambda clip: clip.sha256),
    )
    for what, key in keys:
        seen: dict[str, tuple[str, Clip]] = {}
        for split, clips in splits.items():
            for clip in clips:
                other_split, other = seen.setdefault(key(clip), (split, clip))
                if other_split != split:
                    raise DataError(
                        f"leak: the {what} of {clip.id} ({split}) also stands in {other_split} "
                        f"as {other.id}: look at {clip.path} and {other.path}"
                    )
    ids = [clip.id for clips in splits.values() for clip in clips]
    if len(ids) != len(set(ids)):
        raise DataError(f"cut {next(name for name in ids if ids.count(name) > 1)!r} stands twice")


def texts_also_in_train(splits: dict[str, list[Clip]]) -> dict[tuple[str, str], int]:
    """(language, split) -> clips of dev or test whose words, case and punctuation aside, are in train too."""

    def words(clip: Clip) -> tuple[str, ...]:
        return clip.language, *re.findall(r"\w+", clip.text.casefold())

    known = {words(clip) for clip in splits["train"]}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for split in ("dev", "test"):
        for clip in splits[split]:
            counts[clip.language, split] += words(clip) in known
    return dict(counts)
