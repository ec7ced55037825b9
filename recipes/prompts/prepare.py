"""Prepare the prompts corpus: telephone prompts in five languages, as lhotse cuts.

    python recipes/prompts/prepare.py --languages en --out data/prompts

Writes cuts_{train,dev,test}.jsonl.gz, prepared.json (what was done, and every prompt left out with reasons) and the
downloads to --out. The cuts contain absolute paths of the audio, so that they work from any working folder; after
moving --out, run the same command with the new path, which downloads nothing again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

if not __package__:  # run as a script: replace its own folder, first on the path, by the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import DataError
from recipes.clips import Clip, Dropped, as_cuts, assign, check_apart, drop_copies
from recipes.listening import heard
from recipes.preparing import (
    Report,
    errors_on_one_line,
    manifest_path,
    once,
    parse_languages,
    write_cuts,
    write_stamp,
)
from recipes.prompts import corpus, sources
from recipes.prompts.corpus import VOICES
from recipes.prompts.sources import VERSION, Found
from recipes.report import incomplete, show, summarize

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog="Example: [bold]python recipes/prompts/prepare.py --languages en,fr --out data/prompts[/bold]",
)
def main(
    languages: Annotated[str, typer.Option(help="Languages, with commas between them.")] = ",".join(VOICES),
    out: Annotated[Path, typer.Option(help="Folder for the cuts and what is fetched.")] = Path("data/prompts"),
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with the voices, the Debian packages or the release tarballs in it."),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            help=f"Fetch release tarballs from this URL, not Debian's packages. Without apt: {sources.MIRROR}"
        ),
    ] = None,
) -> None:
    """Fetch the Asterisk core sounds and write lhotse cuts for train, dev and test."""
    with errors_on_one_line():
        report = prepare(parse_languages(languages, VOICES), out, source, mirror)
    expected = {voice.language: voice.clips for voice in VOICES.values()}
    show(report, out, incomplete(report, expected, f"release {VERSION}"))


def prepare(languages: Sequence[str], out: Path, source: Path | None, mirror: str | None) -> Report:
    """Make the manifests below `out`, unless they exist and nothing that they depend on has changed.

    A run that is killed at any point and repeated ends with the same bytes.

    Raises: AsrError for an unavailable or unreadable source, or if two splits share a prompt or audio.
    """
    given = {"languages": list(languages), "source": str(source.resolve()) if source else None, "mirror": mirror}
    return once(out, [Path(__file__).parent], given, _state, partial(_make, languages, source, mirror))


def _make(
    languages: Sequence[str], source: Path | None, mirror: str | None, out: Path, settings: Mapping[str, Any]
) -> Report:
    console = Console(stderr=True)
    found = [sources.locate(language, out, source, mirror, console) for language in languages]
    states = [sources.state(item) for item in found]  # before reading, so that later changes are noticed
    clips, dropped = _read(found, console)
    splits = assign(clips)
    check_apart(splits)
    for split, members in splits.items():
        write_cuts(as_cuts(members), manifest_path(out, split))
    report = summarize({item.language: item.folder for item in found}, splits, dropped)
    write_stamp(out, settings, [_named(item) for item in found], states, report)
    return report


def _named(found: Found) -> dict[str, Any]:
    return {
        "language": found.language,
        "folder": str(found.folder),
        "transcript": str(found.transcript),
        "archives": [str(path) for path in found.archives],
    }


def _read(found: Sequence[Found], console: Console) -> tuple[list[Clip], list[Dropped]]:
    """Return every usable clip of the languages, and everything left out."""
    clips: list[Clip] = []
    dropped: list[Dropped] = []
    for item in found:
        texts, repeated = corpus.read_transcripts(item.transcript, item.language)
        usable, rest = corpus.pair(item.language, texts, corpus.audio_files(item.folder))
        if not usable:
            raise DataError(f"{item.transcript}: none of its texts has a recording in {item.folder}")
        clips += usable
        dropped += [*repeated, *rest]
    clips = corpus.with_translations(clips)
    kept, copies = drop_copies(
        [heard(clip) for clip in track(clips, "reading the recordings", console=console, transient=True)]
    )
    return kept, [*dropped, *copies]


def _state(source: Mapping[str, Any]) -> str:
    """Return the state of a source as recorded in prepared.json."""
    archives = tuple(map(Path, source["archives"]))
    return sources.state(Found(source["language"], Path(source["folder"]), Path(source["transcript"]), archives))


if __name__ == "__main__":
    app()
