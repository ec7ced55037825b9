"""Report what was prepared and left out: as plain data for prepared.json, and as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recipes.clips import Clip, Dropped, texts_also_in_train
from recipes.preparing import SPLITS, Report

EXAMPLES = 2


def summarize(folders: Mapping[str, Path], splits: Mapping[str, Sequence[Clip]], dropped: Sequence[Dropped]) -> Report:
    """Return clips and minutes by language and split, and every clip left out with its reason; folders: by language."""
    shared = texts_also_in_train(splits)
    languages = []
    for language, folder in folders.items():
        cells = {}
        for split in SPLITS:
            clips = [clip for clip in splits[split] if clip.language == language]
            cells[split] = {
                "clips": len(clips),
                "minutes": round(sum(clip.duration_s for clip in clips) / 60, 3),
                "texts_also_in_train": shared.get((language, split), 0),
            }
        reasons: dict[str, dict[str, list[str]]] = {}
        for drop in dropped:
            if drop.language == language:
                by_split = reasons.setdefault(drop.reason, {split: [] for split in SPLITS})
                by_split[drop.split].append(drop.name)
        languages.append({"language": language, "folder": str(folder), "splits": cells, "dropped": reasons})
    return {"languages": languages}


def show(report: Report, out: Path, notes: Iterable[str], apart: str = "nothing") -> None:
    """Print tables and notes, as plain text to a pipe or file.  apart: what no two splits have in common."""
    console = Console()
    console.print(_clips_table(report))
    if any(item["dropped"] for item in report["languages"]):
        console.print(_dropped_table(report))
    for line in (*(f"note: {note}" for note in notes), f"{apart} is in two splits; cuts in {out}"):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def incomplete(report: Report, expected: Mapping[str, int], release: str) -> Iterator[str]:
    """Yield a note on each language that lacks clips of the release.  expected: clips in the release, by language."""
    for item in report["languages"]:
        clips = sum(cell["clips"] for cell in item["splits"].values())
        usual = expected[item["language"]]
        if clips != usual:
            yield f"{item['language']} has {clips} clips and {release} has {usual}: is {item['folder']} complete?"


def _clips_table(report: Report) -> Table:
    items = report["languages"]
    longest = max(item["splits"][split]["minutes"] for item in items for split in SPLITS)
    unit, divisor = ("hours", 60) if longest > 600 else ("minutes", 1)
    table = Table(
        "",
        *SPLITS,
        "all",
        "in train",
        title=f"Clips / {unit}",
        caption="last: dev, test clips with a train text",
    )
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    totals = {
        split: {key: sum(item["splits"][split][key] for item in items) for key in items[0]["splits"][split]}
        for split in SPLITS
    }
    rows = [(item["language"], item["splits"]) for item in items]
    if len(rows) > 1:
        rows.append(("all", totals))
    for name, cells in rows:
        whole = {key: sum(cell[key] for cell in cells.values()) for key in ("clips", "minutes")}
        numbers = [f"{cell['clips']} / {cell['minutes'] / divisor:.1f}" for cell in (*cells.values(), whole)]
        repeated = [str(cells[split]["texts_also_in_train"]) for split in ("dev", "test")]
        if name == "all":
            table.add_section()
        table.add_row(name, *numbers, ", ".join(repeated))
    return table


def _dropped_table(report: Report) -> Table:
    table = Table("", "because", *SPLITS, title="Left out", caption="prepared.json names them all")
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    table.add_column("for example")
    for item in report["languages"]:
        for reason, by_split in sorted(item["dropped"].items()):
            names = [name for split in SPLITS for name in by_split[split]]
            more = ", ..." if len(names) > EXAMPLES else ""
            counts = [str(len(by_split[split])) for split in SPLITS]
            table.add_row(item["language"], Text(reason), *counts, Text(", ".join(names[:EXAMPLES]) + more))
        table.add_section()
    return table
