"""Prepare LibriSpeech: English audio books, as lhotse cuts.

    python recipes/librispeech/prepare.py --parts train-clean-100,dev-clean,dev-other,test-clean,test-other

Writes cuts_{train,dev,test}.jsonl.gz, a manifest for each part of dev and test, and prepared.json (what was done, and
everything left out with reasons) to --out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

if not __package__:  # run as a script: replace its own folder, first on the path, by the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import AsrError
from recipes import options
from recipes.archives import Archive, Supply
from recipes.clips import Dropped, Utterance
from recipes.preparing import SPLITS, errors_on_one_line
from recipes.published import Corpus, Part, Place, run
from recipes.texts import filled_lines

# Utterances in each part; the last two are mini LibriSpeech, for quick trials.
SIZES = {
    "train-clean-100": 28_539,
    "train-clean-360": 104_014,
    "train-other-500": 148_688,
    "dev-clean": 2_703,
    "dev-other": 2_864,
    "test-clean": 2_620,
    "test-other": 2_939,
    "train-clean-5": 1_519,
    "dev-clean-2": 1_089,
}
ALL = list(SIZES)[:7]
MINI = list(SIZES)[7:]
MAX_BYTES = 64 << 30
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog="Example: [bold]python recipes/librispeech/prepare.py --source /corpora/LibriSpeech[/bold]")
def main(
    parts: Annotated[str, typer.Option(help="Parts, with commas between them.")] = ",".join(ALL),
    out: options.Out = Path("data/librispeech"),
    source: options.Source = None,
    mirror: options.Mirror = options.OPENSLR,
    shar: options.Shar = None,
    jobs: options.Jobs = options.CORES,
) -> None:
    """Fetch LibriSpeech from OpenSLR, or find it, and write lhotse cuts for train, dev and test."""
    with errors_on_one_line():
        supply = Supply(out.resolve(), source and source.resolve(), mirror)
        splits = parse_parts(parts)
        corpus = Corpus([Path(__file__).parent], "en", partial(find, supply), read, splits, SIZES)
        run(corpus, out, shar, jobs, {"parts": splits, "source": source, "mirror": mirror})


def parse_parts(text: str) -> dict[str, list[str]]:
    """Return the chosen parts by split, in the corpus's order.  Raises: AsrError."""
    chosen = {name.strip() for name in text.split(",")}
    if unknown := sorted(chosen - set(SIZES)):
        raise AsrError(f"--parts: there is no {', '.join(unknown)}; choose from {', '.join(SIZES)}")
    splits = {split: [name for name in SIZES if name in chosen and name.startswith(split)] for split in SPLITS}
    if missing := [split for split in SPLITS if not splits[split]]:
        raise AsrError(f"--parts {text}: choose a part of {' and of '.join(missing)}, too")
    return splits


def find(supply: Supply, name: str, console: Console) -> Place:
    """Return the folder of a part."""
    number = 31 if name in MINI else 12
    archive = Archive(f"{number}/{name}.tar.gz", f"LibriSpeech/{name}", MAX_BYTES, _wanted)
    return Place(supply.folder(archive, console))


def read(part: Part) -> Iterator[Utterance | Dropped]:
    """Yield the utterances of a part from SPEAKER-CHAPTER.trans.txt, lines of an id and its text, and ID.flac."""
    told = set()
    for transcript in sorted(part.place.folder.rglob("*.trans.txt")):
        for where, line in filled_lines(transcript):
            name, *text = line.split(maxsplit=1)
            if not re.fullmatch(r"\d+-\d+-\d+", name):
                yield part.dropped(where, "not in the form 'SPEAKER-CHAPTER-NUMBER TEXT'")
                continue
            told.add(name)
            speaker = name.partition("-")[0]
            audio = transcript.with_name(f"{name}.flac")
            yield part.utterance(name, speaker, "".join(text), audio, where)
    yield from part.without_text(part.place.folder.rglob("*.flac"), told)


def _wanted(name: str) -> bool:
    return name.endswith((".flac", ".trans.txt", "LICENSE.TXT", "README.TXT", "SPEAKERS.TXT"))


if __name__ == "__main__":
    app()
