"""The pipeline for each recording: its audio, speech activity, subtitles, alignment, cuts and a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asr.audio import audio_tracks
from asr.errors import AsrError, DataError, printable
from asr.files import json_line, json_writer, make_folder, write_atomically
from asr.progress import OnDone, unseen
from asr.subtitling.activity import Activity, LoadDetector, listen_once
from asr.subtitling.alignment import Alignment, align
from asr.subtitling.cleaning import clean
from asr.subtitling.cues import Cue
from asr.subtitling.cutting import Rules, Stretch, cut
from asr.subtitling.matching import Title, match, same_language, standard
from asr.subtitling.picture import draw_cues
from asr.subtitling.reading import UNREADABLE, read_cues
from asr.subtitling.recording import audio_of
from asr.subtitling.report import FileReport, Report, TitleReport, dropped_rows
from asr.subtitling.sentences import to_sentences
from asr.subtitling.translations import text_within

CUTS, REPORT, DROPPED = "cuts.jsonl.gz", "report.json", "dropped.jsonl"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Choices:
    """The user's choices.

    spoken: language of the speech.  language: language of all subtitle files, instead of what their names say.  times:
    language of the subtitles whose cues the cuts follow; None: the spoken one, else the first.  encoding: encoding of
    subtitle files; None: detected.  track: audio track, by number or language.  rate: sample rate of extracted audio,
    in hertz.  align: whether to correct offset and drift; if not, the files' times are taken as they are.
    """

    spoken: str
    language: str | None = None
    times: str | None = None
    encoding: str | None = None
    track: str | None = None
    rate: int = 16000
    align: bool = True
    rules: Rules = field(default_factory=Rules)

    @classmethod
    def checked(cls, spoken: str, language: str | None, times: str | None, **others: Any) -> Choices:
        """Create choices with standardised language codes.  Raises DataError for an invalid code."""
        subtitles, reference = (None if code is None else standard(code) for code in (language, times))
        return cls(standard(spoken), subtitles, reference, **others)


def make_cuts(
    media: Path,
    subtitles: Path,
    out: Path,
    choices: Choices,
    load_detector: LoadDetector,
    on_done: OnDone = unseen,
) -> Report:
    """Write lhotse cuts of all recordings that have subtitles: cuts.jsonl.gz, report.json, dropped.jsonl and pictures.

    A recording or subtitle file that cannot be used is named in the report, and the others go on.  The slow results,
    extracted audio and speech activity, are kept for the next run.  on_done: called with the seconds done and the
    total.  Raises DataError if a folder is missing or has no media.
    """
    matches = match(media, subtitles, choices.language, out)
    make_folder(out)
    making = _Making(out, choices, load_detector, _Progress(matches.titles, on_done))
    reports, cuts, rows = [], [], []
    problems = list(matches.problems)
    for title in matches.titles:
        report = TitleReport(title.name, str(title.media))
        try:
            found, dropped = making.title(title, report)
            cuts += found
            rows += dropped
        except AsrError as e:
            report.problem = str(e)
        problems += [line for line in (*(file.problem for file in report.files), report.problem) if line]
        reports.append(report)
    result = Report(reports, list(dict.fromkeys(problems)))
    _write(out, cuts, rows, result)
    return result


class _Progress:
    """Counts the seconds done over all recordings; recordings to be extracted count twice."""

    def __init__(self, titles: Sequence[Title], on_done: OnDone) -> None:
        self.on_done, self.done_s = on_done, 0.0
        self.total_s = sum(map(_work_s, titles))

    def __call__(self, seconds: float) -> None:
        self.done_s += seconds
        self.on_done(self.done_s, max(self.total_s, self.done_s))


def _work_s(title: Title) -> float:
    try:
        found = audio_tracks(title.media)
    except AsrError:  # reported when its turn comes
        return 0.0
    return (found.duration_s or 0.0) * (1 if found.plain else 2)


@dataclass
class _Making:
    """The settings shared by all recordings.  on_block: called with the length of each block of audio in seconds."""

    out: Path
    choices: Choices
    load_detector: LoadDetector
    on_block: Callable[[float], None]

    def title(self, title: Title, report: TitleReport) -> tuple[list[MonoCut], Rows]:
        """Return the cuts of a recording, and rows about dropped cues.  Raises AsrError if no cut can be made."""
        choices = self.choices
        times = choices.times or next((code for code in title.subtitles if same_language(code, choices.spoken)), None)
        times = times or next(iter(title.subtitles))
        if times not in title.subtitles:
            raise DataError(f"{printable(title.media)}: no subtitles in {times}, whose times are to be taken")
        audio = audio_of(title.media, title.name, choices.track, self.out / "audio", choices.rate, self.on_block)
        activity = listen_once(audio, self.out / "speech" / f"{title.name}.npz", self.load_detector, self.on_block)
        report.times, report.duration_s = times, activity.duration_s
        rows: Rows = []
        aligned: dict[str, list[Cue]] = {}
        for language, path in title.subtitles.items():
            file = FileReport(str(path), language)
            report.files.append(file)
            try:
                aligned[language] = self._aligned(title.name, file, activity, rows)
            except AsrError as e:
                file.problem = str(e)
            if language == times and language in aligned:
                self._draw(title.name, file, audio, activity, aligned[language])
        if times not in aligned:
            return [], rows
        sentences = to_sentences(aligned.pop(times), activity, choices.rules.max_s)
        stretches, dropped = cut(sentences, activity, choices.rules)
        reference = next(file for file in report.files if file.language == times)
        reference.count(dropped)
        rows += dropped_rows(title.name, times, dropped)
        missing = [file.language for file in report.files if file.language not in (times, *aligned)]
        report.missing.update({language: len(stretches) for language in missing})
        cuts = list(self._cuts(title.name, audio, activity, times, stretches, aligned, report))
        report.cuts, report.cut_s = len(cuts), sum(made.duration for made in cuts)
        return cuts, rows

    def _aligned(self, name: str, file: FileReport, activity: Activity, rows: Rows) -> list[Cue]:
        """Return the cleaned, aligned cues of a file.  Raises DataError if the alignment cannot be trusted."""
        found = read_cues(Path(file.path), file.language, self.choices.encoding)
        file.encoding, file.cues = found.encoding, len(found.cues)
        cues, dropped = clean(found.cues)
        file.count(dropped)
        file.dropped.update({UNREADABLE: found.unread} if found.unread else {})
        rows += dropped_rows(name, file.language, dropped)
        if not cues:
            raise DataError(f"{printable(file.path)}: nothing is said in any of its cues")
        if not self.choices.align:
            return cues
        file.alignment = align(activity, np.array([(cue.start_s, cue.end_s) for cue in cues]))
        if not file.alignment.trusted:
            raise DataError(
                f"{printable(file.path)}: its times cannot be matched to the speech (confidence "
                f"{file.alignment.confidence:.2f}); is it of this recording? align=False (--no-align) "
                "takes them as they are"
            )
        time_s = file.alignment.time_s
        return [cue._replace(start_s=time_s(cue.start_s), end_s=time_s(cue.end_s)) for cue in cues]

    def _draw(self, name: str, file: FileReport, audio: Path, activity: Activity, cues: Sequence[Cue]) -> None:
        path = self.out / "pictures" / f"{name}.{file.language}.png"
        draw_cues(path, audio, activity, cues, f"{name}, {file.language}: {described(file.alignment)}")

    def _cuts(
        self,
        name: str,
        audio: Path,
        activity: Activity,
        times: str,
        stretches: Sequence[Stretch],
        others: Mapping[str, Sequence[Cue]],
        report: TitleReport,
    ) -> Iterator[MonoCut]:
        source = AudioSource("file", [0], str(audio.resolve()))
        recording = Recording(name, [source], activity.rate, activity.samples, activity.duration_s)
        for cue, start_s, end_s in stretches:
            texts = {times: cue.text}
            for language, cues in others.items():
                text = text_within(cues, cue.start_s, cue.end_s)
                if text is None:
                    report.missing[language] += 1
                else:
                    texts[language] = text
            said = next((code for code in texts if same_language(code, self.choices.spoken)), None)
            spoken_text = None if said is None else texts.pop(said)
            id = f"{name}-{round(start_s * 1000):09d}"
            segment = SupervisionSegment(
                id,
                name,
                cue.start_s - start_s,
                cue.end_s - cue.start_s,
                0,
                spoken_text,
                self.choices.spoken,
                custom={"translations": texts} if texts else None,
            )
            yield MonoCut(id, start_s, end_s - start_s, 0, supervisions=[segment], recording=recording)


def described(alignment: Alignment | None) -> str:
    """Describe an alignment in words."""
    if alignment is None:
        return "times as they are in the file"
    drift = f"{100 * alignment.drift:+.3f} %"
    return f"offset {alignment.offset_s:+.2f} s, drift {drift}, confidence {alignment.confidence:.2f}"


def _write(out: Path, cuts: Sequence[MonoCut], rows: Rows, report: Report) -> None:
    with json_writer(out / CUTS) as write:
        for made in cuts:
            write(made.to_dict())
    with json_writer(out / DROPPED) as write:
        for row in rows:
            write(row)
    with write_atomically(out / REPORT) as part:
        part.write_bytes(json_line(report.as_dict(), indent=1))
