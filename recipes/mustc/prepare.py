"""Prepare MuST-C: English talks with translations, as lhotse cuts of their segments.

    python recipes/mustc/prepare.py --source MUSTC_v1.0 --to de --out data/mustc-en-de

A cut's supervision has the transcript, and in its custom field `translations` the translation by language.  Writes
cuts_{train,dev,test}.jsonl.gz, a manifest for each of tst-COMMON and tst-HE, and prepared.json (what was done, and
everything left out with reasons) to --out.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
import yaml
from rich.console import Console

if not __package__:  # run as a script: replace its own folder, first on the path, by the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import AsrError, DataError
from recipes import options
from recipes.clips import Dropped, Utterance
from recipes.preparing import errors_on_one_line
from recipes.published import Corpus, Part, Place, run
from recipes.texts import read_lines

SPLITS = {"train": ["train"], "dev": ["dev"], "test": ["tst-COMMON", "tst-HE"]}
SPOKEN = "en"
MAX_LINE = 1000  # a segment has about 100 characters; on longer lines YAML could be slow or nest deeply
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog="Example: [bold]python recipes/mustc/prepare.py --source /corpora/MUSTC_v1.0 --to de[/bold]")
def main(
    source: options.Unpacked,
    to: Annotated[str, typer.Option(help="Language of the translations.")] = "de",
    out: Annotated[Path | None, typer.Option(help="Folder for the cuts; data/mustc-en-TO.")] = None,
    shar: options.Shar = None,
    jobs: options.Jobs = options.CORES,
) -> None:
    """Write lhotse cuts for train, dev and test of a MuST-C that was downloaded from FBK by hand."""
    with errors_on_one_line():
        out = out or Path(f"data/mustc-{SPOKEN}-{to}")
        locate = partial(find, pair_folder(source.resolve(), f"{SPOKEN}-{to}"), to)
        corpus = Corpus([Path(__file__).parent], SPOKEN, locate, partial(read, to), SPLITS)
        run(corpus, out, shar, jobs, {"source": source, "to": to})


def pair_folder(source: Path, pair: str) -> Path:
    """Return the folder of a pair of languages: inside a release, or `source` itself.  Raises: AsrError."""
    for folder in (source / pair, source):
        if folder.name == pair and (folder / "data").is_dir():
            return folder
    raise AsrError(f"--source {source}: holds no {pair}/data")


def find(folder: Path, to: str, name: str, console: Console) -> Place:
    """Return the folder of a part."""
    place = folder / "data" / name
    for file in (place / "wav", *(place / "txt" / f"{name}.{end}" for end in ("yaml", SPOKEN, to))):
        if not file.exists():
            raise DataError(f"{file}: is missing")
    return Place(place)


class Segment(NamedTuple):
    """A line of a part's YAML: a span of a talk."""

    wav: str
    speaker: str
    span_s: tuple[float, float]


def read(to: str, part: Part) -> Iterator[Utterance | Dropped]:
    """Yield the utterances of a part from txt/PART.yaml, txt/PART.en and txt/PART.TO, line by line, and wav/TALK.wav.

    Raises: DataError if the files differ in their number of lines.
    """
    wav, txt = part.place.folder / "wav", part.place.folder / "txt"
    files = [txt / f"{part.name}.{end}" for end in ("yaml", SPOKEN, to)]
    columns = [list(read_lines(file)) for file in files]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{file.name} {len(column)}" for file, column in zip(files, columns, strict=True))
        raise DataError(f"{txt}: the files differ in their number of lines: {counts}")
    numbers: Counter[str] = Counter()
    for (where, line), (_, said), (_, translation) in zip(*columns, strict=True):
        if (segment := parse(line)) is None:
            yield part.dropped(where, "not a segment")
            continue
        talk = Path(segment.wav).stem
        name = f"{talk}_{numbers[talk]}"
        numbers[talk] += 1
        yield part.utterance(
            name,
            segment.speaker,
            said,
            wav / segment.wav,
            where,
            segment.span_s,
            {to: translation} if translation else {},
        )


def parse(line: str) -> Segment | None:
    """Parse a segment, which is one line of a part's YAML; None if it is malformed."""
    if len(line) > MAX_LINE:
        return None
    try:
        (item,) = yaml.load(line, _Loader)
        begin_s, duration_s = float(item["offset"]), float(item["duration"])
        wav, speaker = str(item["wav"]), str(item["speaker_id"])
    except (yaml.YAMLError, TypeError, ValueError, OverflowError, KeyError):
        return None
    if not (0 <= begin_s < math.inf and 0 < duration_s < math.inf and Path(wav).name == wav):
        return None
    return Segment(wav, speaker, (begin_s, begin_s + duration_s))


if __name__ == "__main__":
    app()
