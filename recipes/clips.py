"""Clips with their texts, on their way from a corpus's files to lhotse cuts; the split and what keeps splits apart."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asr.errors import DataError
from recipes.preparing import SPLITS, split_of

if TYPE_CHECKING:
    from lhotse import MonoCut


@dataclass(frozen=True)
class Clip:
    """One recording and its text.

    name: within its language.  group: what must not stand in two splits, in any language.  translations: the same in
    other languages.  sha256: over the decoded samples, so a new header hides no copy.
    """

    language: str
    name: str
    group: str
    speaker: str
    text: str
    path: Path
    sample_rate_hz: int = 0
    n_samples: int = 0
    sha256: str = ""
    translations: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.language}/{self.name}"

    @property
    def split(self) -> str:
        return split_of(self.group)

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.sample_rate_hz


class Dropped(NamedTuple):
    """A clip that is left out, and why."""

    language: str
    name: str
    group: str
    reason: str


def heard(clip: Clip) -> Clip:
    """The clip with what decoding its file tells.

    Raises: asr.errors.AudioError, naming the file, for anything that is not audio.
    """
    from asr.audio import open_audio  # numpy and the decoder: not needed when nothing has changed

    audio = open_audio(clip.path)
    digest = hashlib.sha256(f"{audio.sample_rate_hz}:".encode())
    digest.update(audio.samples_N.tobytes())
    rate, count = audio.sample_rate_hz, len(audio.samples_N)
    return replace(clip, sample_rate_hz=rate, n_samples=count, sha256=digest.hexdigest())


def drop_copies(clips: Sequence[Clip]) -> tuple[list[Clip], list[Dropped]]:
    """Leave out clips whose audio also stands in a split that ranks higher: test, then dev, then train.

    So the held-out parts keep their size and nothing trained on is ever heard in a test. Copies within one
    split stay.
    """
    rank = {split: place for place, split in enumerate(reversed(SPLITS))}
    best: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: (rank[clip.split], clip.id)):
        best.setdefault(clip.sha256, clip)
    kept, dropped = [], []
    for clip in clips:
        twin = best[clip.sha256]
        if twin.split == clip.split:
            kept.append(clip)
        else:
            reason = f"same audio as {twin.id} ({twin.split})"
            dropped.append(Dropped(clip.language, clip.name, clip.group, reason))
    return kept, dropped


def assign(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Split -> its clips in the order of their ids."""
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in sorted(clips, key=lambda clip: clip.id):
        splits[clip.split].append(clip)
    return splits


def check_apart(splits: dict[str, list[Clip]]) -> None:
    """Refuse splits that share a group or a recording, and ids that stand twice.

    Raises: DataError that names the first offender and both places.
    """
    keys: tuple[tuple[str, Callable[[Clip], str]], ...] = (
        ("group", lambda clip: clip.group),
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


def as_cuts(clips: Iterable[Clip]) -> Iterator[MonoCut]:
    """The clips as lhotse's cuts; a supervision's custom field `translations` holds texts by language."""
    # Imports torch, for which a run that has nothing to do need not wait.
    from lhotse import MonoCut, Recording, SupervisionSegment
    from lhotse.audio import AudioSource

    for clip in clips:
        audio = AudioSource(type="file", channels=[0], source=str(clip.path))
        recording = Recording(clip.id, [audio], clip.sample_rate_hz, clip.n_samples, clip.duration_s)
        segment = SupervisionSegment(
            clip.id,
            clip.id,
            start=0.0,
            duration=clip.duration_s,
            text=clip.text,
            language=clip.language,
            speaker=clip.speaker,
            custom={"translations": dict(clip.translations)} if clip.translations else None,
        )
        yield MonoCut(clip.id, 0.0, clip.duration_s, 0, supervisions=[segment], recording=recording)
