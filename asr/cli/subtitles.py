"""`asr subtitles`: make training cuts from recordings with subtitles."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.terminal import progress, resumable, say

if TYPE_CHECKING:
    from asr.subtitling import Report


def subtitles(
    media: Annotated[Path, typer.Argument(help="Folder of audio and video files.")],
    spoken: Annotated[str, typer.Option("--spoken", help="Spoken language, such as cs or nan.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for cuts.jsonl.gz, the report, pictures and audio.")],
    subtitles: Annotated[
        Path | None, typer.Option("--subtitles", help="Folder of .srt, .vtt, .ass, .ssa. [default: MEDIA]")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", help="Language of all subtitles. [default: from their names, as in talk.en.srt]"),
    ] = None,
    times: Annotated[
        str | None,
        typer.Option("--times", help="Language whose cues the cuts follow. [default: the spoken one, else the first]"),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", help="Encoding of the subtitles, such as cp1250. [default: UTF-8, else guessed]"),
    ] = None,
    track: Annotated[
        str | None, typer.Option("--track", help="Audio track: its number, from 0, or language. [default: 0]")
    ] = None,
    rate: Annotated[
        int, typer.Option("--rate", min=8000, max=48000, help="Sample rate of extracted audio, in Hz.")
    ] = 16000,
    align: Annotated[
        bool,
        typer.Option(
            "--align/--no-align", help="Correct the subtitles' offset and drift (by VAD), or keep their times."
        ),
    ] = True,
    pad: Annotated[float, typer.Option("--pad", min=0, help="Padding on either side of a cut, in seconds.")] = 0.3,
    min_duration: Annotated[float, typer.Option("--min-duration", min=0, help="Drop shorter cues, in seconds.")] = 0.3,
    max_duration: Annotated[
        float, typer.Option("--max-duration", min=0, help="Drop longer sentences, in seconds.")
    ] = 20.0,
    min_speech: Annotated[
        float, typer.Option("--min-speech", min=0, max=1, help="Drop cues with a smaller share of speech (VAD).")
    ] = 0.2,
    min_cps: Annotated[
        float,
        typer.Option("--min-cps", min=0, help="Drop cues with fewer characters per second; wide ones count as two."),
    ] = 1.0,
    max_cps: Annotated[
        float, typer.Option("--max-cps", min=0, help="Drop cues with more characters per second.")
    ] = 30.0,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Recordings at a time, each in a process. [default: as many as cores]"),
    ] = None,
) -> None:
    """Make training cuts from recordings with subtitles: align them, split by sentence, drop cues that are not spoken.

    Files are matched by name: film.mkv, film.en.srt, film.zh-TW.vtt. Subtitles in the spoken language become a
    cut's text, others its translations. docs/subtitles.md explains how the offset is found and what each rule drops.

    Example: `asr subtitles films --spoken cs --out data/films`
    """
    from asr.machine import cores
    from asr.subtitling import Choices, Rules, make_cuts
    from asr.vad import load_detector

    rules = Rules(pad, min_duration, max_duration, min_speech, min_cps, max_cps)
    choices = Choices.checked(
        spoken, language, times, encoding=encoding, track=track, rate=rate, align=align, rules=rules
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the processes are stopped, too
    with resumable(), progress("listening", _of_hours) as on_done:
        report = make_cuts(media, subtitles or media, out, choices, load_detector, on_done, jobs or cores())
    _show(report, out)
    for line in report.problems:
        say(line)
    if report.problems:
        raise typer.Exit(1)


def _of_hours(done_s: float, total_s: float, spent_s: float) -> str:
    return f"{done_s / 3600:.2f}/{total_s / 3600:.2f} hours of audio, {done_s / spent_s:.1f} times real time"


def _show(report: Report, out: Path) -> None:
    """Print the result for each recording, and how many cues each rule dropped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("recording", "subtitles", title="Subtitles to cuts", title_justify="left")
    for column in ("cues", "offset / s", "drift / %", "confidence", "cuts", "minutes"):
        table.add_column(column, justify="right")
    for title in report.titles:
        for file in title.files:
            found = file.alignment
            shown = ("", "", "")
            if found is not None:
                shown = (f"{found.offset_s:+.2f}", f"{100 * found.drift:+.3f}", f"{found.confidence:.2f}")
            made = (str(title.cuts), f"{title.cut_s / 60:.1f}")
            if file.language != title.times:
                made = (f"{title.cuts - title.missing[file.language]}", "")
            table.add_row(Text(title.name), file.language, str(file.cues), *shown, *made)
    console = Console()
    console.print(table)
    if dropped := report.dropped():
        rules = Table("left out because", title="Cues", title_justify="left")
        rules.add_column("cues", justify="right")
        for reason, count in dropped.items():
            rules.add_row(reason, str(count))
        console.print(rules)
    whole = report.as_dict()
    console.print(f"{whole['cuts']} cuts, {whole['hours']:.2f} hours, in {out}", soft_wrap=True, highlight=False)
