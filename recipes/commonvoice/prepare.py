"""Prepare a language of Mozilla's Common Voice: read sentences, as lhotse cuts.

    python recipes/commonvoice/prepare.py --source cv-corpus-22.0-2025-06-20 --language fr --out data/commonvoice-fr

Writes cuts_{train,dev,test}.jsonl.gz and prepared.json (what was done, and everything left out with reasons) to --out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

if not __package__:  # run as a script: replace its own folder, first on the path, by the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import AsrError, DataError
from recipes import options
from recipes.clips import Dropped, Utterance
from recipes.preparing import errors_on_one_line
from recipes.published import Corpus, Part, Place, run
from recipes.texts import read_tsv

COLUMNS = ("path", "sentence", "client_id")
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog="Example: [bold]python recipes/commonvoice/prepare.py --source DIR --language cy[/bold]")
def main(
    source: options.Unpacked,
    language: Annotated[str, typer.Option(help="As Common Voice writes it: fr, zh-CN.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the cuts; data/commonvoice-LANGUAGE.")] = None,
    shar: options.Shar = None,
    jobs: options.Jobs = options.CORES,
) -> None:
    """Write lhotse cuts for train, dev and test of a language of Common Voice, downloaded from Mozilla by hand."""
    with errors_on_one_line():
        folder = language_folder(source.resolve(), language)
        corpus = Corpus([Path(__file__).parent], language, partial(find, folder), read)
        out = out or Path(f"data/commonvoice-{language}")
        run(corpus, out, shar, jobs, {"source": source, "language": language})


def language_folder(source: Path, language: str) -> Path:
    """Return the folder of a language: inside a release, or `source` itself.  Raises: AsrError."""
    for folder in (source / language, source):
        if (folder / "clips").is_dir():
            return folder
    raise AsrError(f"--source {source}: neither {language}/clips nor clips is there: unpack the release of {language}")


def find(folder: Path, name: str, console: Console) -> Place:
    """Return the common folder of clips, and the table of a split."""
    table = folder / f"{name}.tsv"
    if not table.is_file():
        raise DataError(f"{table}: is missing")
    return Place(folder / "clips", (table,))


def read(part: Part) -> Iterator[Utterance | Dropped]:
    """Yield the utterances of a split from SPLIT.tsv, one row for each clip, and clips/PATH."""
    for where, row in read_tsv(part.place.files[0], COLUMNS):
        yield clip(part, row, where, {}) if row else part.dropped(where, "wrong number of columns")


def clip(part: Part, row: Mapping[str, str], where: str, translations: Mapping[str, str]) -> Utterance | Dropped:
    """Return the utterance in a row of a table."""
    file = Path(row["path"])
    if file.name != row["path"]:
        return part.dropped(where, "path is not a file name")
    audio = part.place.folder / (file if file.suffix else f"{file}.mp3")
    return part.utterance(
        audio.stem, row["client_id"], row["sentence"].strip(), audio, where, translations=translations
    )


if __name__ == "__main__":
    app()
