"""Clips with their texts, on their way from a corpus's files to lhotse cuts; the split and what keeps splits apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from asr.errors import DataError
from recipes.preparing import SPLITS

if TYPE_CHECKING:
    from lhotse import MonoCut


@dataclass(frozen=True)
class Clip:
    """One recording and its text.

    name: within its language.  group: what must not stand in two splits, in any language.  split: train, dev or test.
    translations: the same in other languages.  sha256: over the decoded samples, so a new header hides no copy.
    """

    language: str
    name: str
    group: str
    split: str
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
    def label(self) -> str:
        """What a report calls it."""
        return self.name

    @property
    def recording_id(self) -> str:
        return self.id

    @property
    def recording_s(self) -> float:
        return self.n_samples / self.sample_rate_hz

    @property
    def start_s(self) -> float:
        """Where in the recording it begins."""
        return 0.0

    @property
    def duration_s(self) -> float:
        return self.recording_s


@dataclass(frozen=True)
class Utterance(Clip):
    """A clip that its corpus names, perhaps a span of a longer recording.

    part: of the corpus, such as test-clean.  where: file and line of its text.  end_s: None at the recording's end.
    """

    part: str = ""
    where: str = ""
    begin_s: float = 0.0
    end_s: float | None = None

    @property
    def id(self) -> str:
        return self.name

    @property
    def label(self) -> str:
        return f"{self.name} ({self.where})"

    @property
    def recording_id(self) -> str:
        return self.path.stem

    @property
    def start_s(self) -> float:
        return self.begin_s

    @property
    def duration_s(self) -> float:
        end_s = self.recording_s if self.end_s is None else min(self.end_s, self.recording_s)
        return round(end_s - self.begin_s, 8)


AnyClip = TypeVar("AnyClip", bound=Clip)


class Dropped(NamedTuple):
    """A clip that is left out, and why."""

    language: str
    name: str
    split: str
    reason: str


def drop_copies(clips: Sequence[AnyClip]) -> tuple[list[AnyClip], list[Dropped]]:
    """Leave out clips whose audio also stands in a split that ranks higher: test, then dev, then train.

    So the held-out parts keep their size and nothing trained on is ever heard in a test. Copies within one
    split stay.
    """
    rank = {split: place for place, split in enumerate(reversed(SPLITS))}
    best: dict[str, AnyClip] = {}
    for clip in sorted(clips, key=lambda clip: (rank[clip.split], clip.id)):
        best.setdefault(clip.sha256, clip)
    kept, dropped = [], []
    for clip in clips:
        twin = best[clip.sha256]
        if twin.split == clip.split:
            kept.append(clip)
        else:
            reason = f"same audio as {twin.id} ({twin.split})"
            dropped.append(Dropped(clip.language, clip.label, clip.split, reason))
    return kept, dropped


def assign(clips: Iterable[AnyClip]) -> dict[str, list[AnyClip]]:
    """Split -> its clips in the order of their ids."""
    splits: dict[str, list[AnyClip]] = {split: [] for split in SPLITS}
    for clip in sorted(clips, key=lambda clip: clip.id):
        splits[clip.split].append(clip)
    return splits


def check_apart(splits: Mapping[str, Sequence[Clip]]) -> None:
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


def texts_also_in_train(splits: Mapping[str, Sequence[Clip]]) -> dict[tuple[str, str], int]:
    """(language, split) -> clips of dev or test whose words, case and punctuation aside, are in train too."""

    def words(clip: Clip) -> tuple[str, ...]:
        return clip.language, *re.findall(r"\w+", clip.text.casefold())

    known = {words(clip) for clip in splits["train"]}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for split in ("dev", "test"):
        for clip in splits[split]:
            counts[clip.language, split] += words(clip) in known
    return dict(counts)


def groups_also_in_train(splits: Mapping[str, Sequence[Clip]]) -> int:
    """How many groups of dev or test are in train, too."""
    known = {clip.group for clip in splits["train"]}
    return len({clip.group for split in ("dev", "test") for clip in splits[split]} & known)


def as_cuts(clips: Iterable[Clip]) -> Iterator[MonoCut]:
    """The clips as lhotse's cuts; a supervision's custom field `translations` holds texts by language."""
    # Imports torch, for which a run that has nothing to do need not wait.
    from lhotse import MonoCut, Recording, SupervisionSegment
    from lhotse.audio import AudioSource

    for clip in clips:
        audio = AudioSource(type="file", channels=[0], source=str(clip.path))
        recording = Recording(clip.recording_id, [audio], clip.sample_rate_hz, clip.n_samples, clip.recording_s)
        segment = SupervisionSegment(
            clip.id,
            clip.recording_id,
            start=0.0,
            duration=clip.duration_s,
            text=clip.text,
            language=clip.language,
            speaker=clip.speaker,
            custom={"translations": dict(clip.translations)} if clip.translations else None,
        )
        yield MonoCut(clip.id, clip.start_s, clip.duration_s, 0, supervisions=[segment], recording=recording)
