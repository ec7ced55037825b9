"""Prepare TED-LIUM 3: English talks, as lhotse cuts of their segments.

    python recipes/tedlium/prepare.py --out data/tedlium

Writes cuts_{train,dev,test}.jsonl.gz and prepared.json (what was done, and everything left out with reasons) to --out.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

if not __package__:  # run as a script: replace its own folder, first on the path, by the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from asr.errors import DataError
from recipes import options
from recipes.archives import Archive, Supply
from recipes.clips import Dropped, Utterance
from recipes.preparing import errors_on_one_line
from recipes.published import Corpus, Part, Place, run
from recipes.texts import filled_lines

SIZES = {"dev": 507, "test": 1_155}
NOT_SCORED = "ignore_time_segment_in_scoring"
BEFORE_S, AFTER_S = 0.15, 0.1  # are added to segments of train, which are cut too close, as Kaldi's recipe does
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(epilog="Example: [bold]python recipes/tedlium/prepare.py --source /corpora/TEDLIUM_release-3[/bold]")
def main(
    out: options.Out = Path("data/tedlium"),
    source: options.Source = None,
    mirror: options.Mirror = options.OPENSLR,
    shar: options.Shar = None,
    jobs: options.Jobs = options.CORES,
) -> None:
    """Fetch TED-LIUM 3 from OpenSLR, or find it, and write lhotse cuts for train, dev and test."""
    with errors_on_one_line():
        supply = Supply(out.resolve(), source and source.resolve(), mirror)
        corpus = Corpus([Path(__file__).parent], "en", partial(find, supply), read, sizes=SIZES)
        run(corpus, out, shar, jobs, {"source": source, "mirror": mirror})


def _wanted(name: str) -> bool:
    """Keep audio and texts where they are real files: legacy/train and speaker-adaptation hold links to data."""
    parts = name.split("/")
    return name.endswith((".sph", ".stm")) and parts[1:2] in (["data"], ["legacy"]) and "train" not in parts


ARCHIVE = Archive("51/TEDLIUM_release-3.tgz", "TEDLIUM_release-3", 128 << 30, _wanted)


def find(supply: Supply, name: str, console: Console) -> Place:
    """Return the folder of a split of the `legacy` distribution, which uses all talks in data for training."""
    root = supply.folder(ARCHIVE, console)
    folder = root / "data" if name == "train" else root / "legacy" / name
    for path in (folder / "stm", folder / "sph"):
        if not path.is_dir():
            raise DataError(f"{path}: is missing")
    return Place(folder)


def read(part: Part) -> Iterator[Utterance | Dropped]:
    """Yield the segments in stm/TALK.stm, lines of TALK CHANNEL SPEAKER BEGIN END LABEL WORDS, and sph/TALK.sph."""
    from lhotse.recipes.utils import normalize_text_tedlium

    folder, told = part.place.folder, set()
    for path in sorted((folder / "stm").glob("*.stm")):
        told.add(path.stem)
        segments: list[tuple[str, str, str, tuple[float, float]]] = []
        for index, (where, line) in enumerate(filled_lines(path)):
            fields = line.split(maxsplit=6)
            span = _span(fields)
            if span is None:
                yield part.dropped(where, "not a line of STM")
            elif fields[6] != NOT_SCORED:
                text = normalize_text_tedlium(fields[6].replace("{NOISE}", "[NOISE]"), "kaldi")
                segments.append((f"{path.stem}-{index}", " ".join(text.split()), where, span))
        spans = [span for *_, span in segments]
        kept = extended(spans) if part.split == "train" else spans
        for (name, text, where, _), span in zip(segments, kept, strict=True):
            yield part.utterance(name, path.stem, text, folder / "sph" / f"{path.stem}.sph", where, span)
    yield from part.without_text((folder / "sph").glob("*.sph"), told)


def extended(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return segments, in seconds, with BEFORE_S and AFTER_S added as far as no other segment begins or ends there."""
    ends, begins = sorted(end_s for _, end_s in spans), sorted(begin_s for begin_s, _ in spans)
    longer = []
    for begin_s, end_s in spans:
        before, after = bisect_right(ends, begin_s), bisect_left(begins, end_s)
        earliest_s = ends[before - 1] if before else 0.0
        latest_s = begins[after] if after < len(begins) else math.inf
        longer.append((max(earliest_s, begin_s - BEFORE_S), min(latest_s, end_s + AFTER_S)))
    return longer


def _span(fields: list[str]) -> tuple[float, float] | None:
    """Return begin and end in seconds, or None if the line is malformed."""
    try:
        begin_s, end_s = float(fields[3]), float(fields[4])
    except (ValueError, IndexError):
        return None
    return (begin_s, end_s) if len(fields) == 7 and 0 <= begin_s < end_s < math.inf else None


if __name__ == "__main__":
    app()
