"""Prepare the fillets corpus: a spoken comedy in Czech and Dutch with subtitles in 13 other languages, as lhotse cuts.

    python recipes/fillets/prepare.py --out data/fillets

Writes cuts_{train,dev,test}.jsonl.gz, prepared.json (what was done, and every line left out with reasons) and the
downloads to --out.  A cut's supervision has the transcript, and its custom field `translations` the subtitles by
language.  The cuts contain absolute paths of the audio.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

if not __package__:  # run as a script: replace its own folder, first on the path, by the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import AsrError, DataError
from recipes.archives import unpacked
from recipes.clips import Clip, Dropped, as_cuts, assign, check_apart, drop_copies
from recipes.fetch import apt_download
from recipes.fillets.corpus import GAME, SPOKEN, Game
from recipes.listening import listen
from recipes.preparing import (
    Report,
    errors_on_one_line,
    manifest_path,
    once,
    parse_languages,
    state_of,
    write_cuts,
    write_stamp,
)
from recipes.report import incomplete, show, summarize

PACKAGES = ("fillets-ng-data", *(f"fillets-ng-data-{language}" for language in SPOKEN))
MAX_UNPACKED_BYTES = 1 << 30  # the three packages unpack to 150 MB
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog="Example: [bold]python recipes/fillets/prepare.py --languages cs --out data/fillets[/bold]")
def main(
    languages: Annotated[str, typer.Option(help="Spoken languages, with commas between them.")] = ",".join(SPOKEN),
    out: Annotated[Path, typer.Option(help="Folder for the cuts and what is fetched.")] = Path("data/fillets"),
    source: Annotated[
        Path | None, typer.Option(help="Folder with Debian's packages in it, or what they unpack to.")
    ] = None,
) -> None:
    """Fetch the dialogues of Fish Fillets NG from Debian and write lhotse cuts for train, dev and test."""
    with errors_on_one_line():
        report = prepare(parse_languages(languages, SPOKEN), out, source)
    show(report, out, incomplete(report, SPOKEN, "release 1.0.1"))
    for fault in report["faults"]:
        typer.echo(f"skipped {fault}", err=True)


def prepare(languages: Sequence[str], out: Path, source: Path | None) -> Report:
    """Make the manifests below `out`, unless they exist and nothing that they depend on has changed.

    Raises: AsrError for an unavailable or unreadable source, or if two splits share a level or audio.
    """
    given = {"languages": list(languages), "source": str(source.resolve()) if source else None}
    return once(out, [Path(__file__).parent], given, _state, partial(_make, languages, source))


def _state(source: Mapping[str, Any]) -> str:
    game = Path(source["folder"])
    return state_of(sorted(path for kind in ("script", "sound") for path in (game / kind).rglob("*") if path.is_file()))


def _make(languages: Sequence[str], source: Path | None, out: Path, settings: Mapping[str, Any]) -> Report:
    console = Console(stderr=True)
    folder = locate(out, source, console)
    found = [{"folder": str(folder)}]
    states = [_state(item) for item in found]  # before reading, so that later changes are noticed
    game = Game(folder)
    clips, dropped = _read(game, languages, console)
    splits = assign(clips)
    check_apart(splits)
    for split, members in splits.items():
        write_cuts(as_cuts(members), manifest_path(out, split))
    report = summarize(dict.fromkeys(languages, folder / "sound"), splits, dropped)
    report["faults"] = game.faults
    write_stamp(out, settings, found, states, report)
    return report


def _read(game: Game, languages: Sequence[str], console: Console) -> tuple[list[Clip], list[Dropped]]:
    clips: list[Clip] = []
    dropped: list[Dropped] = []
    for language in languages:
        usable, rest = game.clips(language)
        clips += usable
        dropped += rest
    whole, unheard = listen(clips, console)
    kept, copies = drop_copies(whole)  # several files of the release have no samples
    return kept, [*dropped, *unheard, *copies]


def locate(out: Path, source: Path | None, console: Console) -> Path:
    """Return the game's folder: below --source, installed, below `out`, or from Debian's packages.

    Raises: AsrError that says what to pass.
    """
    if source is not None:
        if not source.is_dir():
            raise AsrError(f"--source {source}: no such folder")
        if game := _look(source.resolve()):
            return game
        packages = _newest(source)
        return _unpacked(packages, out / f"unpacked-{state_of(packages)[:12]}")
    for root in (Path("/"), out / "unpacked"):
        if game := _look(root):
            return game
    if shutil.which("apt-get") is None:
        raise AsrError(f"no apt here: pass --source DIR with Debian's packages {', '.join(PACKAGES)}")
    return _unpacked(apt_download(PACKAGES, out / "downloads", console), out / "unpacked")


def _look(root: Path) -> Path | None:
    for game in (root / GAME, root):
        if (game / "script").is_dir() and any((game / "sound").glob("*/*/*.ogg")):
            return game
    return None


def _newest(folder: Path) -> list[Path]:
    files = {name: max(folder.glob(f"{name}_*.deb"), default=None) for name in PACKAGES}
    if missing := [name for name, path in files.items() if path is None]:
        raise AsrError(f"--source {folder}: holds neither {GAME} nor the packages {', '.join(missing)}")
    return [path for path in files.values() if path]


def _unpacked(archives: Sequence[Path], place: Path) -> Path:
    if game := _look(unpacked(archives, place, keep=_wanted, max_bytes=MAX_UNPACKED_BYTES)):
        return game
    raise DataError(f"{place}: no dialogues inside: remove that folder and the packages, and run this again")


def _wanted(name: str) -> bool:
    """Keep speech, music, scripts and the licence, but not pictures and fonts."""
    return name.endswith((".ogg", "copyright")) or ("/script/" in name and name.endswith(".lua"))


if __name__ == "__main__":
    app()
