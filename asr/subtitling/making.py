"""The pipeline for each recording: its audio, speech activity, subtitles, alignment, cuts and a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asr.audio import audio_tracks
from asr.errors import AsrError, DataError, printable
from asr.files import json_line, json_writer, make_folder, sweep, write_atomically
from asr.processes import Lost, in_processes
from asr.progress import OnDone, unseen
from asr.subtitling.activity import Activity, LoadDetector, listen_once
from asr.subtitling.alignment import Alignment, align
from asr.subtitling.cleaning import clean
from asr.subtitling.cues import Cue
from asr.subtitling.cutting import Rules, Stretch, cut
from asr.subtitling.matching import Title, match, same_language, standard
from asr.subtitling.picture import draw_cues
from asr.subtitling.reading import read_cues
from asr.subtitling.recording import audio_of
from asr.subtitling.report import FileReport, Report, TitleReport, dropped_rows, missing_row, unread_rows
from asr.subtitling.sentences import to_sentences
from asr.subtitling.translations import text_within, why_none

CUTS, REPORT, DROPPED = "cuts.jsonl.gz", "report.json", "dropped.jsonl"
AUDIO, SPEECH, PICTURES = "audio", "speech", "pictures"
UNUSABLE = "its file cannot be used"

Rows = list[dict[str, Any]]
OnBlock = Callable[[float], None]  # takes the length of a block in seconds
Made = tuple[TitleReport, list[MonoCut], Rows]


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
    jobs: int = 1,
) -> Report:
    """Write lhotse cuts of all recordings that have subtitles: cuts.jsonl.gz, report.json, dropped.jsonl and pictures.

    A recording or subtitle file that cannot be used is named in the report, and the others go on.  The slow results,
    extracted audio and speech activity, are kept for the next run.  on_done: called with the seconds done and the
    total.  jobs: number of recordings at a time, each in a process; the results are the same for any number.  Raises
    DataError if a folder is missing or has no media.
    """
    matches = match(media, subtitles, choices.language, out)
    make_folder(out)
    on_block = _Progress(matches.titles, on_done)
    made = in_processes(_Making(out, choices, load_detector), matches.titles, jobs, on_block)
    reports, cuts, rows = [], [], []
    problems = list(matches.problems)
    for title, result in zip(matches.titles, made, strict=True):
        report, found, dropped = _lost(title, result, out) if isinstance(result, Lost) else result
        cuts += found
        rows += dropped
        problems += [line for line in (*(file.problem for file in report.files), report.problem) if line]
        reports.append(report)
    whole = Report(reports, list(dict.fromkeys(problems)))
    _write(out, cuts, rows, whole)
    return whole


def _lost(title: Title, lost: Lost, out: Path) -> Made:
    """Report a recording whose process has died, and remove what that was writing."""
    for kind in (AUDIO, SPEECH, PICTURES):
        sweep((out / kind / title.name).parent)
    advice = "the same command tries it again; with fewer --jobs there is more memory for it"
    problem = f"{printable(title.media)}: the process at work on it ended ({lost.how}); {advice}"
    return TitleReport(title.name, str(title.media), problem=problem), [], []


class _Progress:
    """Counts the seconds of audio done over all recordings."""

    def __init__(self, titles: Sequence[Title], on_done: OnDone) -> None:
        self.on_done, self.done_s = on_done, 0.0
        self.total_s = sum(map(_length_s, titles))

    def __call__(self, seconds: float) -> None:
        self.done_s += seconds
        self.on_done(self.done_s, max(self.total_s, self.done_s))


def _length_s(title: Title) -> float:
    try:
        return audio_tracks(title.media).duration_s or 0.0
    except AsrError:  # reported when its turn comes
        return 0.0


@dataclass(frozen=True)
class _Making:
    """The settings shared by all recordings; a call makes the cuts of one, and reports the seconds of audio done."""

    out: Path
    choices: Choices
    load_detector: LoadDetector

    def __call__(self, title: Title, on_block: OnBlock) -> Made:
        report = TitleReport(title.name, str(title.media))
        try:
            return report, *self.title(title, report, on_block)
        except AsrError as e:
            report.problem = str(e)
            return report, [], []

    def _heard(self, title: Title, on_block: OnBlock) -> tuple[Path, Activity]:
        """Return audio and speech of a recording; extraction and detection are each half of the work."""
        told_s: list[float] = []

        def tell(seconds: float, share: float = 0.5) -> None:
            told_s.append(share * seconds)
            on_block(told_s[-1])

        audio = audio_of(title.media, title.name, self.choices.track, self.out / AUDIO, self.choices.rate, tell)
        share = 1.0 if audio == title.media else 0.5
        memory = self.out / SPEECH / f"{title.name}.npz"
        activity = listen_once(audio, memory, self.load_detector, partial(tell, share=share))
        on_block(activity.duration_s - sum(told_s))  # what was kept from an earlier run
        return audio, activity

    def title(self, title: Title, report: TitleReport, on_block: OnBlock) -> tuple[list[MonoCut], Rows]:
        """Return the cuts of a recording, and rows about what was left out.  Raises AsrError if none can be made."""
        choices = self.choices
        times = choices.times or next((code for code in title.subtitles if same_language(code, choices.spoken)), None)
        times = times or next(iter(title.subtitles))
        if times not in title.subtitles:
            raise DataError(f"{printable(title.media)}: no subtitles in {times}, whose times are to be taken")
        audio, activity = self._heard(title, on_block)
        report.times, report.duration_s = times, activity.duration_s
        rows: Rows = []
        aligned: dict[str, list[Cue]] = {}
        for language, path in title.subtitles.items():
            file = FileReport(str(path), language)
            report.files.append(file)
            try:
                cues = self._aligned(title.name, file, activity, rows)
                self._draw(title.name, file, audio, activity, cues)
                _check_trusted(file)
                aligned[language] = cues
            except AsrError as e:
                file.problem = str(e)
        if times not in aligned:
            return [], rows
        sentences = to_sentences(aligned.pop(times), activity, choices.rules.max_s)
        stretches, dropped = cut(sentences, activity, choices.rules)
        reference = next(file for file in report.files if file.language == times)
        reference.count(dropped)
        rows += dropped_rows(title.name, times, dropped)
        others = {code: aligned.get(code) for code in title.subtitles if code != times}
        cuts = list(self._cuts(title.name, audio, activity, times, stretches, others, rows))
        report.missing.update(row["language"] for row in rows if "cut" in row)
        report.cuts, report.cut_s = len(cuts), sum(made.duration for made in cuts)
        return cuts, rows

    def _aligned(self, name: str, file: FileReport, activity: Activity, rows: Rows) -> list[Cue]:
        """Return the cleaned cues of a file at their aligned times, which need not be right.  Raises DataError."""
        found = read_cues(Path(file.path), file.language, self.choices.encoding)
        file.encoding, file.cues = found.encoding, len(found.cues) + len(found.dropped)
        cues, dropped = clean(found.cues)
        dropped = [*found.dropped, *dropped]
        file.count(dropped)
        file.dropped.update(stray.fault for stray in found.unread)
        rows += dropped_rows(name, file.language, dropped) + unread_rows(name, file.language, found.unread)
        if not cues:
            raise DataError(f"{printable(file.path)}: nothing is said in any of its cues")
        if not self.choices.align:
            return cues
        file.alignment = align(activity, np.array([(cue.start_s, cue.end_s) for cue in cues]))
        time_s = file.alignment.time_s
        return [cue._replace(start_s=time_s(cue.start_s), end_s=time_s(cue.end_s)) for cue in cues]

    def _draw(self, name: str, file: FileReport, audio: Path, activity: Activity, cues: Sequence[Cue]) -> None:
        path = self.out / PICTURES / f"{name}.{file.language}.png"
        refused = "" if file.alignment is None or file.alignment.trusted else ", refused"
        draw_cues(path, audio, activity, cues, f"{name}, {file.language}{refused}: {described(file.alignment)}")

    def _cuts(
        self,
        name: str,
        audio: Path,
        activity: Activity,
        times: str,
        stretches: Sequence[Stretch],
        others: Mapping[str, Sequence[Cue] | None],
        rows: Rows,
    ) -> Iterator[MonoCut]:
        """Yield the cuts; add a row for each language that is missing from one.  others: None for an unusable file."""
        source = AudioSource("file", [0], str(audio.resolve()))
        recording = Recording(name, [source], activity.rate, activity.samples, activity.duration_s)
        for cue, start_s, end_s in stretches:
            id = f"{name}-{round(start_s * 1000):09d}"
            texts = {times: cue.text}
            for language, cues in others.items():
                text = None if cues is None else text_within(cues, cue.start_s, cue.end_s)
                if text is None:
                    reason = UNUSABLE if cues is None else why_none(cues, cue.start_s, cue.end_s)
                    rows.append(missing_row(name, language, id, reason))
                else:
                    texts[language] = text
            said = next((code for code in texts if same_language(code, self.choices.spoken)), None)
            spoken_text = None if said is None else texts.pop(said)
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


def _check_trusted(file: FileReport) -> None:
    """Raise DataError if the file was aligned and that cannot be trusted."""
    if file.alignment is not None and not file.alignment.trusted:
        raise DataError(
            f"{printable(file.path)}: its times cannot be matched to the speech (confidence "
            f"{file.alignment.confidence:.2f}); is it of this recording? align=False (--no-align) "
            "takes them as they are"
        )


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
