"""Prepare the prompts corpus: telephone prompts in five languages, as lhotse cuts.

    python recipes/prompts/prepare.py --languages en --out data/prompts

Below --out stand cuts_{train,dev,test}.jsonl.gz, prepared.json (what was done, with every prompt left out and
why) and what had to be fetched. The cuts name the audio by absolute path, so that they work from any working
folder; after moving --out, run the same command on the new place, which fetches nothing again.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

if not __package__:  # run as a script: its own folder stands first on the path, where the repository belongs
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import AsrError, DataError
from asr.files import make_folder, write_atomically
from recipes.prompts import corpus, sources
from recipes.prompts.corpus import SPLITS, VOICES, Clip, Dropped
from recipes.prompts.report import Report, show, summarize
from recipes.prompts.sources import Found

STAMP = "prepared.json"
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
    try:
        report = prepare(parse_languages(languages), out, source, mirror)
    except (AsrError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    show(report, out)


def parse_languages(text: str) -> list[str]:
    """The chosen languages in the corpus's own order, so that the order of asking changes nothing."""
    chosen = {part.strip() for part in text.split(",") if part.strip()}
    unknown = sorted(chosen - VOICES.keys())
    if unknown or not chosen:
        raise AsrError(f"--languages {text!r}: choose from {','.join(VOICES)}")
    return [language for language in VOICES if language in chosen]


def prepare(languages: Sequence[str], out: Path, source: Path | None, mirror: str | None) -> Report:
    """Make the manifests below `out`, unless they are there and nothing they rest on has changed.

    Killed at any point and run again, it ends with the same bytes.

    Raises: AsrError for a source that cannot be had or read, or when two splits share a prompt or audio.
    """
    make_folder(out)
    out = out.resolve()
    settings = {
        "recipe": _recipe_digest(),
        "languages": list(languages),
        "out": str(out),
        "source": str(source.resolve()) if source else None,
        "mirror": mirror,
    }
    with _alone(out):
        return _finished(out, settings) or _make(languages, out, source, mirror, settings)


def _make(
    languages: Sequence[str], out: Path, source: Path | None, mirror: str | None, settings: dict[str, Any]
) -> Report:
    _sweep(out)
    console = Console(stderr=True)
    found = [sources.locate(language, out, source, mirror, console) for language in languages]
    states = [sources.state(item) for item in found]  # taken first: a file that changes now is seen later
    clips, dropped = _read(found, console)
    splits = corpus.assign(clips)
    corpus.check_apart(splits)
    for split, members in splits.items():
        write_cuts(members, out / f"cuts_{split}.jsonl.gz")
    report = summarize(found, splits, dropped)
    stamp = {
        "settings": settings,
        "manifests": {name: _sha256(out / name) for name in _manifests()},
        "sources": [
            {
                "language": item.language,
                "folder": str(item.folder),
                "transcript": str(item.transcript),
                "archives": [str(path) for path in item.archives],
                "state": state,
            }
            for item, state in zip(found, states, strict=True)
        ],
        "report": report,
    }
    with write_atomically(out / STAMP) as path:
        path.write_text(json.dumps(stamp, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return report


def _sweep(out: Path) -> None:
    """Remove the stamp, and what a run that was killed had begun to unpack."""
    (out / STAMP).unlink(missing_ok=True)
    for torn in (out / "unpacked").glob(".part-*"):
        shutil.rmtree(torn)


def _read(found: Sequence[Found], console: Console) -> tuple[list[Clip], list[Dropped]]:
    """Every usable clip of the languages and everything left out."""
    pairs: list[tuple[str, str, str, Path]] = []
    dropped: list[Dropped] = []
    for item in found:
        texts, repeated = corpus.read_transcripts(item.transcript, item.language)
        usable, rest = corpus.pair(item.language, texts, corpus.audio_files(item.folder))
        if not usable:
            raise DataError(f"{item.transcript}: none of its texts has a recording in {item.folder}")
        pairs += [(item.language, *pair) for pair in usable]
        dropped += [*repeated, *rest]
    clips = [corpus.measure(*pair) for pair in track(pairs, "reading the recordings", console=console, transient=True)]
    clips, copies = corpus.drop_copies(clips)
    return clips, [*dropped, *copies]


def write_cuts(clips: Sequence[Clip], path: Path) -> None:
    """Write lhotse cuts, the same bytes for the same clips (lhotse's own writer adds the time of writing)."""
    # Imports torch, for which a run that has nothing to do need not wait.
    from lhotse import MonoCut, Recording, SupervisionSegment
    from lhotse.audio import AudioSource

    with (
        write_atomically(path) as part,
        part.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as stream,
    ):
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
                speaker=VOICES[clip.language].speaker,
            )
            cut = MonoCut(clip.id, 0.0, clip.duration_s, 0, supervisions=[segment], recording=recording)
            stream.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")


# --- a run that has nothing to do -------------------------------------------------------------------------


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the system lets go of the lock however a run ends."""
    with (out / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AsrError(f"{out}: another run is preparing it: wait for that or choose another --out") from None
        yield


def _finished(out: Path, settings: dict[str, Any]) -> Report | None:
    """The report of a run with these settings whose manifests and sources are still as it left them."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stamp = json.loads((out / STAMP).read_text(encoding="utf-8"))
        found = [
            Found(
                item["language"],
                Path(item["folder"]),
                Path(item["transcript"]),
                tuple(map(Path, item["archives"])),
            )
            for item in stamp["sources"]
        ]
        if (
            stamp["settings"] == settings
            and stamp["manifests"] == {name: _sha256(out / name) for name in _manifests()}
            and [item["state"] for item in stamp["sources"]] == [sources.state(item) for item in found]
        ):
            report: Report = stamp["report"]
            return report
    return None


def _manifests() -> list[str]:
    return [f"cuts_{split}.jsonl.gz" for split in SPLITS]


def _recipe_digest() -> str:
    """A digest of this recipe's own code: a changed rule makes new manifests."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    app()
