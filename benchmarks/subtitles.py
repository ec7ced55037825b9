"""Measure how well `asr subtitles` finds offset and drift, and the quality of its cuts, on episodes with known times.

Run `python benchmarks/subtitles.py data/fillets --out exp/episodes`.  Missing episodes are built first
(benchmarks/episodes.py); all go through the function behind the command.  The error of an episode is that of the mapped
times at the middle of the speech; if the drift is wrong, it is larger at the beginning and end.  The goal is an error
within 0.2 s on 95 % of the episodes.  Thresholds were chosen on train only.  OUT/cs/train/recovered has the output of
the command, OUT/cs/train/cuts_true.jsonl.gz the truth.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from lhotse.cut import Cut
from rich.console import Console

from asr.cli.terminal import of_utterances, progress
from asr.data.cuts import read_cuts
from asr.files import write_whole
from asr.subtitling import Choices, FileReport, Report, make_cuts
from asr.vad import load_detector
from benchmarks.episodes import Episode, build, music_in, read_episodes
from benchmarks.script import new_table, run_script

GOAL_S = 0.2
MUSIC = Path("data/fillets/unpacked/usr/share/games/fillets-ng/music")
LENGTHS = (10, 20, 40)  # in cues; they group the episodes


class Outcome(NamedTuple):
    """An episode and its result; error_s and worst_s are those of `errors_s`."""

    episode: Episode
    file: FileReport
    error_s: float
    worst_s: float

    @property
    def refused(self) -> bool:
        return self.file.alignment is None or not self.file.alignment.trusted

    @property
    def good(self) -> bool:
        return not self.refused and self.error_s <= GOAL_S


def main(
    data: Annotated[Path, typer.Argument(help="Prepared corpus with English translations, such as fillets.")],
    out: Annotated[Path, typer.Option(help="Folder for the episodes and the cuts recovered from them.")],
    splits: Annotated[str, typer.Option(help="Comma-separated splits.")] = "train,dev,test",
    languages: Annotated[str, typer.Option(help="Comma-separated spoken languages.")] = "cs,nl",
    linger: Annotated[float, typer.Option(help="Most seconds that a cue stays after its speech.")] = 0.0,
    music: Annotated[Path, typer.Option(help="Folder of the background music.")] = MUSIC,
    seed: Annotated[int, typer.Option(help="Random seed of the episodes.")] = 0,
) -> None:
    """Build episodes with wrong subtitles, recover their cuts, and print how many are right.

    Example: `python benchmarks/subtitles.py data/fillets --out exp/episodes --splits train`
    """
    results, pieces = {}, music_in(music)
    for split in splits.split(","):
        outcomes, cuts = [], {}
        for language in languages.split(","):
            folder = out / language / split
            episodes = read_episodes(folder, seed, linger)
            if episodes is None:
                with progress(f"building {language}, {split}", of_utterances) as on_done:
                    episodes = build(data, split, language, pieces, folder, seed, linger, on_done)
            places = (folder / "media", folder / "subtitles", folder / "recovered")
            with progress(f"listening to {language}, {split}") as on_done:
                report = make_cuts(*places, Choices(language), load_detector, on_done)
            outcomes += judged(episodes, report)
            cuts[language] = against_truth(folder, episodes)
        show(split, outcomes)
        Console(width=120).print(cuts)
        results[split] = {"alignment": [row(outcome) for outcome in outcomes], "cuts": cuts, **summary(outcomes)}
    write_whole(out / "subtitles.json", json.dumps({"seed": seed, "linger": linger, **results}, indent=1))


def judged(episodes: Sequence[Episode], report: Report) -> list[Outcome]:
    """Return each episode with its result and errors."""
    found = {title.name: title.files[0] for title in report.titles}
    return [Outcome(episode, found[episode.name], *errors_s(episode, found[episode.name])) for episode in episodes]


def errors_s(episode: Episode, file: FileReport) -> tuple[float, float]:
    """Return the error of mapped times in seconds: midway between first and last line, and at the worse end."""
    if file.alignment is None:
        return float("inf"), float("inf")
    edges = episode.said_s
    in_file = [(edge - episode.offset_s) / (1 + episode.drift) for edge in edges]
    first_s, last_s = (file.alignment.time_s(time) - edge for time, edge in zip(in_file, edges, strict=True))
    return abs(first_s + last_s) / 2, max(abs(first_s), abs(last_s))


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return percentages over all episodes, and statistics of the errors of the trusted ones."""
    errors = sorted(o.error_s for o in outcomes if not o.refused)
    worst = sorted(o.worst_s for o in outcomes if not o.refused)
    count = max(1, len(outcomes))
    return {
        "episodes": len(outcomes),
        "right": round(100 * sum(o.good for o in outcomes) / count, 1),
        "refused": round(100 * sum(o.refused for o in outcomes) / count, 1),
        "trusted_wrong": round(100 * sum(not o.refused and not o.good for o in outcomes) / count, 1),
        "refused_though_right": round(100 * sum(o.refused and o.error_s <= GOAL_S for o in outcomes) / count, 1),
        "far_off": round(100 * sum(not o.refused and o.error_s > 1 for o in outcomes) / count, 1),
        "median_s": round(median(errors), 3) if errors else None,
        "p95_s": round(float(np.quantile(errors, 0.95)), 3) if errors else None,
        "worst_median_s": round(median(worst), 3) if worst else None,
        "worst_right": round(100 * sum(not o.refused and o.worst_s <= GOAL_S for o in outcomes) / count, 1),
    }


def show(split: str, outcomes: Sequence[Outcome]) -> None:
    """Print the table of a split: all episodes, and groups of them by number of cues and by music."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups["all"].append(outcome)
        cues = outcome.episode.cues
        least = max((n for n in LENGTHS if cues >= n), default=0)
        groups[f"{least} cues or more" if least else f"below {LENGTHS[0]} cues"].append(outcome)
        snr = outcome.episode.snr_db
        groups["no music" if snr is None else f"music {snr:2} dB below"].append(outcome)
    columns = ("", f"within {GOAL_S} s", "everywhere", "refused", "trusted, wrong", "off by > 1 s")
    table = new_table(f"{split}: offset and drift", "episodes", *columns, "median / s", "95 % / s")
    for name, members in sorted(groups.items()):
        found = summary(members)
        keys = ("right", "worst_right", "refused", "trusted_wrong", "far_off")
        ends = (str(found[key]) for key in ("median_s", "p95_s"))
        table.add_row(name, str(found["episodes"]), *(f"{found[key]} %" for key in keys), *ends)
    Console(width=120).print(table)


def row(outcome: Outcome) -> dict[str, Any]:
    """Return the result for an episode as plain data."""
    episode, found = outcome.episode, outcome.file.alignment
    values: dict[str, Any] = {"name": episode.name, "cues": episode.cues, "snr_db": episode.snr_db}
    values |= {
        "true_offset_s": episode.offset_s,
        "true_drift": episode.drift,
        "error_s": outcome.error_s,
        "worst_s": outcome.worst_s,
    }
    if found is not None:
        values |= {"offset_s": found.offset_s, "drift": found.drift, "confidence": found.confidence}
        values["rival"] = found.rival
    return values


def against_truth(folder: Path, episodes: Sequence[Episode]) -> dict[str, Any]:
    """Compare the texts and edges of the recovered cuts with the truth.

    whole: the text is that of all lines of which more than half lies in the cut; their edges are compared.  part: the
    text is part of that of all lines that overlap the cut.  alien: the text of an alien cue.  other: none of these.
    """
    truth: dict[str, list[Cut]] = defaultdict(list)
    for cut in read_cuts(folder / "cuts_true.jsonl.gz"):
        truth[cut.recording.id].append(cut)
    aliens = {episode.name: set(episode.aliens) for episode in episodes}
    counts: Counter[str] = Counter()
    starts, ends = [], []
    cuts = list(read_cuts(folder / "recovered" / "cuts.jsonl.gz"))
    for cut in cuts:
        said = cut.supervisions[0]
        text = said.custom["translations"]["en"]
        there = [(line, min(line.end, cut.end) - max(line.start, cut.start)) for line in truth[cut.recording.id]]
        lines = [line for line, shared_s in there if shared_s > 0.5 * line.duration]
        touched = [line for line, shared_s in there if shared_s > 0]
        if letters(text) == letters(english(lines)):
            kind = "whole"
        else:
            kind = "part" if letters(text) in letters(english(touched)) else "other"
        counts["alien" if text in aliens[cut.recording.id] else kind] += 1
        if kind == "whole":
            starts.append(abs(cut.start + said.start - lines[0].start - lines[0].supervisions[0].start))
            ends.append(abs(cut.start + said.end - lines[-1].start - lines[-1].supervisions[0].end))
    hours = sum(line.duration for found in truth.values() for line in found) / 3600
    return {
        "true lines": sum(len(found) for found in truth.values()),
        "true hours": round(hours, 3),
        "cuts": len(cuts),
        "hours": round(sum(cut.supervisions[0].duration for cut in cuts) / 3600, 3),
        **counts,
        "median error of starts / s": round(median(starts), 3) if starts else None,
        "median error of ends / s": round(median(ends), 3) if ends else None,
    }


def english(lines: Sequence[Cut]) -> str:
    """Return the English translations of lines, joined."""
    return " ".join(line.supervisions[0].custom["translations"]["en"] for line in lines)


def letters(text: str) -> str:
    """Return the letters and digits of a text, case-folded; cleaning leaves these unchanged."""
    return "".join(c for c in text.casefold() if c.isalnum())


if __name__ == "__main__":
    run_script(main)
