"""lhotse cuts: reading them into memory, selecting them, and loading the audio of a cut."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import torch
from lhotse import CutSet, Recording
from lhotse.audio import AudioSource
from lhotse.cut import Cut, MixedCut, MonoCut
from lhotse.cut.data import DataCut
from lhotse.supervision import SupervisionSegment
from torch import Tensor

from asr.audio import MAX_BYTES, Audio, open_audio
from asr.data.sources import Manifest, Shar, StoredAudio, clips_of
from asr.errors import AudioError, DataError, printable
from asr.files import Place, is_folder
from asr.resampling import resample
from asr.tasks import language_code
from asr.text.scripts import one_after_another

SLACK_S = 0.1  # by which a cut may outlast its recording: formats and tools round in different ways
_MOST_LANGUAGES, _SHOWN_LANGUAGES = 1000, 5  # of cuts in other languages than the chosen ones
_SHOWN_LOST = 3


class Dropped(NamedTuple):
    """A cut that is left out, and why."""

    id: str
    reason: str


def read_cuts(path: Place) -> CutSet:
    """Read a manifest (.jsonl or .jsonl.gz) into memory, or the cuts of a Shar folder without their audio.

    Raises DataError, which names the file and, if a line is wrong, the line.
    """
    lines = Shar(path).entries() if is_folder(path) else Manifest(path).lines()
    cuts = CutSet.from_cuts([line.cut() for line in lines])
    if len(cuts) == 0:
        raise Chosen(None).none(path)
    counts = Counter(cut.id for cut in cuts)
    if len(counts) < len(cuts):
        raise DataError(f"{path}: cut '{printable(counts.most_common(1)[0][0])}' is there twice; ids must differ")
    return cuts


def text_of(cut: Cut) -> str:
    """Return the text of a cut: the texts of its supervisions in order of time."""
    return one_after_another(s.text for s in in_time(cut.supervisions) if s.text)


def in_time(supervisions: Iterable[SupervisionSegment]) -> list[SupervisionSegment]:
    """Sort supervisions by time; a manifest may have them in any order."""
    return sorted(supervisions, key=lambda supervision: supervision.start)


def language_of(cut: Cut) -> str | None:
    """Return the code of the language of a cut's first supervision, where lhotse's recipes write English names."""
    language: str | None = cut.supervisions[0].language if cut.supervisions else None
    return language and language_code(language)


def without_language(cut: Cut) -> Dropped | None:
    """Return a cut as dropped if it has no language to select it by, else None."""
    if language_of(cut) is not None:
        return None
    return Dropped(cut.id, "no language to choose it by" if cut.supervisions else "no supervision, thus no language")


class Chosen:
    """Selects cuts by language (None: all languages), and counts the others by language.

    times: how often each cut is tested.  any: whether a cut was in a chosen language.
    """

    def __init__(self, languages: Sequence[str] | None, times: int = 1) -> None:
        self.languages, self.times = languages and [language_code(language) for language in languages], times
        self.others: Counter[str | None] = Counter()
        self.any = False

    def __call__(self, cut: Cut) -> bool:
        language = language_of(cut)
        if self.languages is None or language in self.languages:
            self.any = True
            return True
        if language in self.others or len(self.others) < _MOST_LANGUAGES:
            self.others[language] += 1
        return False

    def none(
        self,
        path: Place,
        option: str = "set data.languages=[{}], or null for all",
        without: str = "set data.languages=null",
    ) -> DataError:
        """Return the error for a manifest without a cut in the chosen languages.

        option: what to do, with {} for the languages that the manifest has.  without: the same if it has none.
        """
        if not self.others:
            return DataError(f"{path}: the manifest is empty")
        there = {printable(x): n // self.times for x, n in self.others.most_common(_SHOWN_LANGUAGES) if x is not None}
        told = [f"{count:,} in {language}" for language, count in there.items()]
        told.append(f"{self.others[None] // self.times:,} without a language")
        wanted = ", ".join(self.languages or ())
        remedy = option.format(", ".join(there)) if there else without
        return DataError(f"{path}: no cuts in {wanted}: there are {', '.join(told)}; {remedy}")


def read_split(
    path: Place, languages: Sequence[str] | None, note: Callable[[Dropped], None] = lambda dropped: None
) -> CutSet:
    """Read a manifest or a Shar folder and keep the chosen languages; `note` gets the cuts without a language.

    Raises DataError if nothing is left.
    """
    chosen, kept = Chosen(languages), []
    for cut in read_cuts(path):
        if chosen(cut):
            kept.append(cut)
        elif (lacking := without_language(cut)) is not None:
            note(lacking)
    if len(kept) == 0:
        raise chosen.none(path)
    return CutSet.from_cuts(kept)


def nothing_left(path: Place, dropped: Sequence[Dropped]) -> DataError:
    """Return the error for a manifest of which no cut can be used."""
    reasons = sorted({d.reason for d in dropped})
    return DataError(f"{path}: every cut was left out ({'; '.join(reasons[:3])})")


def pieces(cut: Cut) -> list[tuple[float, MonoCut]]:
    """Return the clips that a cut is joined from, each with its start in seconds, without the silence between them.

    Raises DataError for what is not supported here: transforms of a mixed cut, and tracks with an SNR or muted.
    """
    if isinstance(cut, MixedCut):
        changed = [name for name in ("snr", "mute") if any(getattr(track, name, None) for track in cut.tracks)]
        changed += ["transforms"] if cut.transforms else []
        if changed:
            raise DataError(f"{printable(cut.id)}: a mixed cut with {' and '.join(changed)} is not supported")
    return [(track.offset, track.cut) for track in clips_of(cut)]


def overrun(cut: Cut) -> str | None:
    """Return the problem of a cut that, by its manifest, outlasts its recording; None for other cuts."""
    for track in clips_of(cut):
        part, recording = track.cut, track.cut.recording
        if recording is None or (end_s := part.start + part.duration) <= recording.duration + SLACK_S:
            continue
        return f"it goes from {part.start:.2f} to {end_s:.2f} s, but its recording lasts {recording.duration:.2f} s"
    return None


def ends_early(cut: Cut, duration_s: float) -> str | None:
    """Return the problem of a cut whose audio, of `duration_s`, is shorter than its manifest says; None for others."""
    if duration_s < cut.duration - SLACK_S:
        return f"its audio ends after {duration_s:.2f} of {cut.duration:.2f} s"
    return None


def check_audio(path: Place, cuts: Iterable[Cut]) -> None:
    """Raise DataError, which names the first few cuts, if local audio files are missing."""
    exists, lost = cache(os.path.exists), dict[str, str]()
    for cut in cuts:
        for file in _files(cut):
            if not exists(file):
                lost.setdefault(cut.id, file)
    if lost:
        named = "; ".join(f"{printable(id)}: {printable(file)}" for id, file in list(lost.items())[:_SHOWN_LOST])
        more = f"; and {len(lost) - _SHOWN_LOST:,} more" if len(lost) > _SHOWN_LOST else ""
        what = f"the audio of {len(lost):,} cut{'s' * (len(lost) > 1)} is not there"
        raise DataError(f"{path}: {what} ({named}{more}): bring it back, or take a manifest without")


def _files(cut: Cut) -> Iterator[str]:
    recordings = (track.cut.recording for track in clips_of(cut))
    for source in (source for recording in recordings if recording is not None for source in recording.sources):
        if source.type == "file" and isinstance(source.source, str):
            yield source.source


def load_audio(cut: Cut, sample_rate_hz: int) -> Tensor:
    """Decode a cut, with its speed perturbation, joined clips and padding, to mono float32 (N,) at `sample_rate_hz`.

    The cut's channels, usually a single one, are averaged.
    """
    if isinstance(cut, DataCut):
        return _load_mono(cut, sample_rate_hz)
    clips = pieces(cut)
    if 4 * cut.duration * sample_rate_hz > MAX_BYTES:
        raise DataError(f"{printable(cut.id)}: {cut.duration:.0f} s are too many for joined clips")
    audio_N = torch.zeros(round(cut.duration * sample_rate_hz))
    for offset_s, clip in clips:
        start = round(offset_s * sample_rate_hz)
        part_N = _load_mono(clip, sample_rate_hz)[: max(0, len(audio_N) - start)]
        audio_N[start : start + len(part_N)] += part_N
    return audio_N


def whole_file(cut: Cut) -> str | None:
    """Return the audio file of a cut that is a whole, unchanged file; None for parts, joined clips and other speeds."""
    recording = cut.recording if isinstance(cut, MonoCut) else None
    if recording is None or recording.transforms or not _is_whole(cut):
        return None
    try:
        source, part = _source_of(cut, recording)
    except DataError:  # raised again when the cut is loaded
        return None
    return None if part or source.type != "file" else str(source.source)


def _is_whole(cut: MonoCut) -> bool:
    return cut.start == 0 and abs(cut.duration - cut.recording.duration) < 1e-6


def _load_mono(cut: MonoCut, sample_rate_hz: int) -> Tensor:
    recording = cut.recording
    if recording is None:
        raise _no_audio(cut)
    speed = 1.0
    for transform in recording.transforms or ():
        fields = transform if isinstance(transform, dict) else transform.to_dict()
        if fields["name"] != "Speed":
            raise DataError(f"{printable(cut.id)}: transform {printable(fields['name'])} is not supported")
        speed *= _factor(cut, fields)
    source, part = _source_of(cut, recording)
    if not _is_whole(cut):
        part |= {"offset_s": cut.start * speed, "duration_s": cut.duration * speed}
    audio = _open(cut, source, **part)
    return resample(torch.from_numpy(audio.samples_N), round(audio.sample_rate_hz * speed), sample_rate_hz)


def _factor(cut: MonoCut, transform: Mapping[str, Any]) -> float:
    with suppress(LookupError, TypeError, ValueError):  # a manifest may hold anything in its place
        if 0.1 <= (factor := float(transform["kwargs"]["factor"])) <= 10:
            return factor
    raise DataError(f"{printable(cut.id)}: its speed is no factor from 0.1 to 10")


def _source_of(cut: MonoCut, recording: Recording) -> tuple[AudioSource, dict[str, Any]]:
    """Return the file that has a cut's channels, and their indices in it; no indices for a recording of one channel."""
    with suppress(AttributeError, LookupError, TypeError, ValueError):  # a manifest may hold other things than lists
        if recording.num_channels == 1:
            return recording.sources[0], {}
        wanted = cut.channel if isinstance(cut.channel, list) else [cut.channel]
        for source in recording.sources:
            if wanted and set(wanted) <= set(source.channels):
                return source, {"channels": [source.channels.index(channel) for channel in wanted]}
    raise DataError(f"{printable(cut.id)}: no file of its recording has channel {printable(cut.channel)}")


def _open(cut: MonoCut, source: AudioSource, **part: Any) -> Audio:
    """Decode a file or a member of a tar; a manifest may not name other sources, such as a command or a URL."""
    if isinstance(source.source, StoredAudio):
        return source.source.open(**part)
    if source.type != "file":
        raise _no_audio(cut)
    try:
        return open_audio(source.source, **part)
    except AudioError as e:
        raise AudioError(f"cut {printable(cut.id)}: {e}") from None


def reason_about(cut: Cut, message: object) -> str:
    """Return what a message of `load_audio` says about a cut, without the cut's id, for lists that name it anyway."""
    return re.sub(rf"^(cut )?{re.escape(printable(cut.id))}: ", "", str(message))


def _no_audio(cut: MonoCut) -> DataError:
    return DataError(f"{printable(cut.id)}: the cut has no audio file")
