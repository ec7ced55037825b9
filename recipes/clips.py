"""Clips and their texts between a corpus's files and lhotse cuts, and the checks that keep splits apart."""

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

    name: unique within its language.  group: splits must not share it, in any language.  split: train, dev or test.
    translations: the text in other languages.  sha256: of the decoded samples, so that copies with other headers match.
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
        """Its name in reports."""
        return self.name

    @property
    def recording_id(self) -> str:
        return self.id

    @property
    def recording_s(self) -> float:
        return self.n_samples / self.sample_rate_hz

    @property
    def start_s(self) -> float:
        """The time at which it begins in the recording."""
        return 0.0

    @property
    def duration_s(self) -> float:
        return self.recording_s


@dataclass(frozen=True)
class Utterance(Clip):
    """A clip that has an id in its corpus and may be a span of a longer recording.

    part: of the corpus, such as test-clean.  where: file and line of its text.  end_s: None for the recording's end.
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
    """A clip that is left out, and the reason."""

    language: str
    name: str
    split: str
    reason: str


def drop_copies(clips: Sequence[AnyClip]) -> tuple[list[AnyClip], list[Dropped]]:
    """Leave out clips whose audio also occurs in a split of higher rank: test, then dev, then train.

    So the held-out parts keep their size, and no test contains audio from training. Copies within one split stay.
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
    """Return the clips of each split, sorted by id."""
    splits: dict[str, list[AnyClip]] = {split: [] for split in SPLITS}
    for clip in sorted(clips, key=lambda clip: clip.id):
        splits[clip.split].append(clip)
    return splits


def check_apart(splits: Mapping[str, Sequence[Clip]]) -> None:
    """Check that splits share no group and no recording, and that ids are unique.

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
                        f"leak: the {what} of {clip.id} ({split}) is also in {other_split} "
                        f"as {other.id}: look at {clip.path} and {other.path}"
                    )
    ids = [clip.id for clips in splits.values() for clip in clips]
    if len(ids) != len(set(ids)):
        raise DataError(f"cut {next(name for name in ids if ids.count(name) > 1)!r} occurs twice")


def texts_also_in_train(splits: Mapping[str, Sequence[Clip]]) -> dict[tuple[str, str], int]:
    """Count, by language and split, the clips of dev and test whose words, ignoring case, also occur in train."""

    def words(clip: Clip) -> tuple[str, ...]:
        return clip.language, *re.findall(r"\w+", clip.text.casefold())

    known = {words(clip) for clip in splits["train"]}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for split in ("dev", "test"):
        for clip in splits[split]:
            counts[clip.language, split] += words(clip) in known
    return dict(counts)


def groups_also_in_train(splits: Mapping[str, Sequence[Clip]]) -> int:
    """Return the number of groups of dev and test that also occur in train."""
    known = {clip.group for clip in splits["train"]}
    return len({clip.group for split in ("dev", "test") for clip in splits[split]} & known)


def as_cuts(clips: Iterable[Clip]) -> Iterator[MonoCut]:
    """Convert clips to lhotse cuts; a supervision's custom field `translations` holds texts by language."""
    # Imports torch, which takes time that a run without work need not spend.
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
