"""Prepare CoVoST 2: Common Voice with translations, as lhotse cuts.

    python recipes/covost2/prepare.py --source cv-corpus-4 --language fr --to en --out data/covost2-fr-en

A cut's supervision has the transcript, and in its custom field `translations` the translation by language.  Writes
cuts_{train,dev,test}.jsonl.gz and prepared.json (what was done, and everything left out with reasons) to --out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

if not __package__:  # run as a script: replace its own folder, first on the path, by the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import DataError
from recipes import commonvoice, options
from recipes.archives import Archive, Supply
from recipes.clips import Dropped, Utterance
from recipes.commonvoice.prepare import COLUMNS, clip, language_folder
from recipes.preparing import errors_on_one_line
from recipes.published import Corpus, Part, Place, run
from recipes.texts import read_tsv

CODE = (Path(__file__).parent, Path(commonvoice.__file__).parent)
SIZES = {"fr-en": {"train": 207_374, "dev": 14_760, "test": 14_760}}
SERVER = "https://dl.fbaipublicfiles.com/covost"
MAX_BYTES = 1 << 30
ESCAPE = "\\"
LABELS = {"train": ("train", "train_covost"), "dev": ("dev",), "test": ("test",)}
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog="Example: [bold]python recipes/covost2/prepare.py --source cv-corpus-4 --language fr[/bold]")
def main(
    source: options.Unpacked,
    language: Annotated[str, typer.Option(help="Of the speech, as Common Voice writes it.")],
    to: Annotated[str, typer.Option(help="Of the translations.")] = "en",
    out: Annotated[Path | None, typer.Option(help="Folder for the cuts; data/covost2-LANGUAGE-TO.")] = None,
    mirror: options.Mirror = SERVER,
    shar: options.Shar = None,
    jobs: options.Jobs = options.CORES,
) -> None:
    """Fetch CoVoST 2's translations, and write lhotse cuts of the Common Voice 4 that --source holds."""
    with errors_on_one_line():
        out = out or Path(f"data/covost2-{language}-{to}")
        locate = partial(find, language_folder(source.resolve(), language), f"covost_v2.{language}_{to}")
        corpus = Corpus(
            CODE,
            language,
            partial(locate, Supply(out.resolve(), None, mirror)),
            partial(read, to),
            sizes=SIZES.get(f"{language}-{to}", {}),
        )
        run(corpus, out, shar, jobs, {"source": source, "language": language, "to": to, "mirror": mirror})


def find(folder: Path, table: str, supply: Supply, name: str, console: Console) -> Place:
    """Return the clips, and CoVoST's table of a split, or its table of all splits and Common Voice's validated.tsv."""
    ready, whole, texts = (folder / file for file in (f"{table}.{name}.tsv", f"{table}.tsv", "validated.tsv"))
    if ready.is_file():
        return Place(folder / "clips", (ready,))
    if not texts.is_file():
        raise DataError(f"{texts}: is missing")
    if not whole.is_file():
        archive = Archive(f"{table}.tsv.tar.gz", "", MAX_BYTES, lambda member: member.endswith(".tsv"))
        whole = supply.folder(archive, console) / whole.name
    return Place(folder / "clips", (whole, texts))


def read(to: str, part: Part) -> Iterator[Utterance | Dropped]:
    """Yield the utterances of a split from its tables and clips/PATH."""
    rows = _ready if len(part.place.files) == 1 else _joined
    for where, row in rows(part):
        if "path" in row and "translation" in row:
            yield clip(part, row, where, {to: row["translation"].strip()})
        else:
            yield part.dropped(where, row.get("problem", "wrong number of columns"))


def _ready(part: Part) -> Iterator[tuple[str, dict[str, str]]]:
    return read_tsv(part.place.files[0], (*COLUMNS, "translation"), ESCAPE)


def _joined(part: Part) -> Iterator[tuple[str, dict[str, str]]]:
    """Join the table of translations with Common Voice's table, as CoVoST's get_covost_splits.py does."""
    whole, texts = part.place.files
    wanted = {}
    for where, row in read_tsv(whole, ("path", "translation", "split"), ESCAPE):
        if row.get("split") in LABELS[part.name]:
            wanted[row["path"]] = where, row["translation"]
        elif not row and part.split == "train":  # its split is unknown, so it is reported once
            yield where, row
    for where, row in read_tsv(texts, COLUMNS, ESCAPE):
        if row.get("path") in wanted:
            _, translation = wanted.pop(row["path"])
            yield where, {**row, "translation": translation}
    for where, _ in wanted.values():
        yield where, {"problem": "not in validated.tsv"}


if __name__ == "__main__":
    app()
