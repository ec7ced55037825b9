"""Prepare AISHELL-1: read Mandarin, as lhotse cuts.

    python recipes/aishell/prepare.py --out data/aishell

Writes cuts_{train,dev,test}.jsonl.gz and prepared.json (what was done, and everything left out with reasons) to --out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

if not __package__:  # run as a script: replace its own folder, first on the path, by the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import DataError
from recipes import options
from recipes.archives import Archive, Supply, unpacked
from recipes.clips import Dropped, Utterance
from recipes.preparing import errors_on_one_line, state_of
from recipes.published import Corpus, Part, Place, run
from recipes.texts import filled_lines

SIZES = {"train": 120_098, "dev": 14_326, "test": 7_176}
TRANSCRIPT = Path("transcript/aishell_transcript_v0.8.txt")
ARCHIVE = Archive("33/data_aishell.tgz", "data_aishell", 64 << 30, lambda name: name.endswith((".tar.gz", ".txt")))
SPEAKER_BYTES = 1 << 30
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog="Example: [bold]python recipes/aishell/prepare.py --source /corpora/data_aishell[/bold]")
def main(
    out: options.Out = Path("data/aishell"),
    source: options.Source = None,
    mirror: options.Mirror = options.OPENSLR,
    shar: options.Shar = None,
    jobs: options.Jobs = options.CORES,
) -> None:
    """Fetch AISHELL-1 from OpenSLR, or find it, and write lhotse cuts for train, dev and test."""
    with errors_on_one_line():
        supply = Supply(out.resolve(), source and source.resolve(), mirror)
        corpus = Corpus([Path(__file__).parent], "zh", partial(find, supply), read, sizes=SIZES)
        run(corpus, out, shar, jobs, {"source": source, "mirror": mirror})


def find(supply: Supply, name: str, console: Console) -> Place:
    """Return the folder of a split and the common transcript; speakers are archives within the archive."""
    root = supply.folder(ARCHIVE, console)
    wav = root / "wav"
    if not (wav / name).is_dir() and (speakers := sorted(wav.glob("*.tar.gz"))):
        with console.status("unpacking the speakers"):
            place = supply.out / "unpacked" / f"speakers-{state_of(speakers)[:12]}"
            wav = unpacked(speakers, place, keep=_is_wav, max_bytes=SPEAKER_BYTES)
    for path in (root / TRANSCRIPT, wav / name):
        if not path.exists():
            raise DataError(f"{path}: is missing")
    return Place(wav / name, (root / TRANSCRIPT,))


def read(part: Part) -> Iterator[Utterance | Dropped]:
    """Yield the utterances of a split from the common transcript, lines of ID WORDS, and wav/SPLIT/SPEAKER/ID.wav."""
    from lhotse.recipes.aishell import text_normalize

    texts, faults = {}, []
    for where, line in filled_lines(part.place.files[0]):
        name, *words = line.split()
        if re.fullmatch(r"BAC\d+S\d+W\d+", name) and words:
            texts[name] = where, text_normalize("".join(words))
        else:
            faults.append(part.dropped(where, "not in the form 'ID WORDS'"))
    files = {path.stem: path for path in sorted(part.place.folder.rglob("*.wav"))}
    for name in sorted(files.keys() & texts.keys()):
        where, text = texts[name]
        yield part.utterance(name, files[name].parent.name, text, files[name], where)
    yield from part.without_text(files.values(), texts)
    if part.split == "train":  # ids do not tell their split: report those without a recording once
        anywhere = {path.stem for path in part.place.folder.parent.rglob("*.wav")}
        lost = [part.dropped(f"{name} ({texts[name][0]})", "no audio") for name in sorted(texts.keys() - anywhere)]
        yield from [*faults, *lost]


def _is_wav(name: str) -> bool:
    return name.endswith(".wav")


if __name__ == "__main__":
    app()
