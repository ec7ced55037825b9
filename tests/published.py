"""Tiny copies of public corpora, in the folders and file formats of their releases, with noise as speech."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import typer
from lhotse import CutSet
from typer.testing import CliRunner

from recipes.aishell import prepare as aishell
from recipes.commonvoice import prepare as commonvoice
from recipes.covost2 import prepare as covost2
from recipes.librispeech import prepare as librispeech
from recipes.mustc import prepare as mustc
from recipes.tedlium import prepare as tedlium

COUNTS = {"train": 4, "dev": 2, "test": 2}
SAID = ("alpha bravo", "charlie delta", "echo foxtrot", "golf hotel")


@dataclass(frozen=True)
class Tree:
    """A corpus on disk: the recipe's command with its arguments, and the expected texts by split and id.

    spans: start and end in seconds of utterances within longer recordings, by id.  translations: by id and language.
    """

    app: typer.Typer
    words: tuple[object, ...]
    folder: Path
    language: str
    texts: dict[str, dict[str, str]]
    spans: dict[str, tuple[float, float]]
    translations: dict[str, dict[str, str]]

    @classmethod
    def of(cls, app: typer.Typer, words: tuple[object, ...], folder: Path, language: str, **more: Any) -> Tree:
        return cls(app, words, folder, language, **{"texts": {}, "spans": {}, "translations": {}, **more})


def run(tree: Tree, out: Path, *words: object, status: int = 0) -> str:
    """Run the recipe's command in this process; return its standard output and error."""
    result = CliRunner().invoke(tree.app, [str(w) for w in (*tree.words, "--out", out, "--jobs", 1, *words)])
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def cuts(out: Path, name: str) -> CutSet:
    """Return the cuts prepared for a split or a part of it."""
    return CutSet.from_file(out / f"cuts_{name}.jsonl.gz")


def left_out(out: Path) -> dict[str, dict[str, list[str]]]:
    """Return the names of the utterances that were left out, by reason and split."""
    (item,) = json.loads((out / "prepared.json").read_text())["report"]["languages"]
    return {reason: {s: n for s, n in by_split.items() if n} for reason, by_split in item["dropped"].items()}


def noise(path: Path, duration_s: float = 1.0, rate: int = 16_000, **how: str) -> None:
    """Write noise that depends on the file's name, in the format given by its suffix or by the options `how`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list(path.name.encode()))
    soundfile.write(path, draw.normal(0, 0.1, round(duration_s * rate)).clip(-0.9, 0.9), rate, **how)


def lines(path: Path, *content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content), encoding="utf-8")


def small_librispeech(folder: Path) -> Tree:
    """Write LibriSpeech/PART/SPEAKER/CHAPTER: FLAC files, and a file of upper-case transcripts."""
    parts = {
        "train-clean-100": "train",
        "dev-clean": "dev",
        "dev-other": "dev",
        "test-clean": "test",
        "test-other": "test",
    }
    tree = Tree.of(librispeech.app, ("--source", folder, "--parts", ",".join(parts)), folder / "LibriSpeech", "en")
    for number, (part, split) in enumerate(parts.items(), start=100):
        chapter, told = tree.folder / part / str(number) / "7", {}
        for i in range(COUNTS[split] if split == "train" else COUNTS[split] // 2):
            told[f"{number}-7-{i:04}"] = f"IT'S NUMBER {SAID[i].upper()}"
            noise(chapter / f"{number}-7-{i:04}.flac")
        lines(chapter / f"{number}-7.trans.txt", *(f"{name} {text}" for name, text in told.items()))
        tree.texts.setdefault(split, {}).update(told)
    return tree


def small_aishell(folder: Path) -> Tree:
    """Write data_aishell: WAV files in wav/SPLIT/SPEAKER, and one file of transcripts with spaces between words."""
    tree = Tree.of(aishell.app, ("--source", folder), folder / "data_aishell", "zh")
    told = []
    for number, split in enumerate(COUNTS, start=2):
        for i in range(COUNTS[split]):
            name = f"BAC009S{number:04}W{i:04}"
            noise(tree.folder / "wav" / split / f"S{number:04}" / f"{name}.wav")
            told.append(f"{name} 而 对 楼市 {'甲乙丙丁'[i]} ｋ 歌")
            tree.texts.setdefault(split, {})[name] = f"而对楼市{'甲乙丙丁'[i]}K歌"
    lines(tree.folder / "transcript" / "aishell_transcript_v0.8.txt", *told)
    return tree


def small_tedlium(folder: Path) -> Tree:
    """Write TEDLIUM_release-3: talks as SPH and STM files; the training talks of `legacy` are links to `data`."""
    tree = Tree.of(tedlium.app, ("--source", folder), folder / "TEDLIUM_release-3", "en")
    for split, count in COUNTS.items():
        place = tree.folder / ("data" if split == "train" else f"legacy/{split}")
        talk = f"{split.title()}Talk_2010"
        noise(place / "sph" / f"{talk}.sph", 2 * count + 1, format="NIST", subtype="PCM_16")
        stm = [f"{talk} 1 inter_segment_gap 0 0.5 <o,,unknown> ignore_time_segment_in_scoring"]
        for i in range(count):
            begin_s = 0.5 + 2 * i
            stm.append(
                f"{talk} 1 {talk} {begin_s:.2f} {begin_s + 1.25:.2f} <o,f0,male> it 's {{NOISE}} talk <unk> {SAID[i]}"
            )
            tree.texts.setdefault(split, {})[f"{talk}-{i + 1}"] = f"it's talk {SAID[i]}"
            span = begin_s, begin_s + 1.25
            (tree.spans[f"{talk}-{i + 1}"],) = tedlium.extended([span]) if split == "train" else [span]
        lines(place / "stm" / f"{talk}.stm", *stm)
    legacy = tree.folder / "legacy" / "train"
    legacy.mkdir()
    for kind in ("sph", "stm"):
        (legacy / kind).symlink_to(f"../../data/{kind}")
    return tree


def small_commonvoice(folder: Path) -> Tree:
    """Write RELEASE/LANGUAGE: MP3 clips, and a table per split, in which quotes are literal."""
    tree = Tree.of(commonvoice.app, ("--source", folder, "--language", "fr"), folder / "fr", "fr")
    for split, rows in common_voice_rows(tree).items():
        head = "client_id\tpath\tsentence\tup_votes\tage\tgender\taccents\tvariant"
        lines(tree.folder / f"{split}.tsv", head, *(f"{row}\t2\t\t\t\t" for row in rows))
    return tree


def common_voice_rows(tree: Tree) -> dict[str, list[str]]:
    """Write clips; return rows of client, path and sentence by split."""
    rows: dict[str, list[str]] = {}
    for number, split in enumerate(COUNTS):
        for i in range(COUNTS[split]):
            name = f"common_voice_fr_{number}{i}"
            noise(tree.folder / "clips" / f"{name}.mp3", rate=48_000)
            text = f"\"Ça, c'est {SAID[i]}"
            rows.setdefault(split, []).append(f"{split}{i}\t{name}.mp3\t{text}")
            tree.texts.setdefault(split, {})[name] = text
    return rows


def small_covost2(folder: Path) -> Tree:
    """Write Common Voice 4 with validated.tsv, and CoVoST's table of translations with backslash escapes."""
    tree = Tree.of(covost2.app, ("--source", folder, "--language", "fr", "--to", "en"), folder / "fr", "fr")
    rows = common_voice_rows(tree)
    told = [row for split in rows for row in rows[split]]
    lines(tree.folder / "validated.tsv", "client_id\tpath\tsentence\tup_votes", *(f"{row}\t2" for row in told))
    table = []
    for split, members in rows.items():
        for i, row in enumerate(members):
            path = row.split("\t")[1]
            label = "train_covost" if split == "train" and i else split
            table.append(f'{path}\t\\"This, it is {SAID[i]}\t{label}')
            tree.translations[path.removesuffix(".mp3")] = {"en": f'"This, it is {SAID[i]}'}
    lines(tree.folder / "covost_v2.fr_en.tsv", "path\ttranslation\tsplit", *table, "unused.mp3\tUnused\tdev_covost")
    return tree


def small_mustc(folder: Path) -> Tree:
    """Write en-de/data/PART: talks as WAV, and three files whose lines correspond: segment, text and translation."""
    tree = Tree.of(mustc.app, ("--source", folder, "--to", "de"), folder / "en-de", "en")
    for part, split, talk in (
        ("train", "train", 1),
        ("dev", "dev", 2),
        ("tst-COMMON", "test", 3),
        ("tst-HE", "test", 4),
    ):
        place = tree.folder / "data" / part
        count = COUNTS[split] if split != "test" else 1
        noise(place / "wav" / f"ted_{talk}.wav", 2 * count + 1)
        said, translated, segments = [], [], []
        for i in range(count):
            begin_s, name = 0.5 + 2 * i, f"ted_{talk}_{i}"
            said.append(f"This is, well, {SAID[i]}.")
            translated.append(f"Das ist, ähm, {SAID[i]}.")
            where = f"speaker_id: spk.{talk}, wav: ted_{talk}.wav"
            segments.append(f"- {{duration: 1.250000, offset: {begin_s:.6f}, rW: 4, uW: 0, {where}}}")
            tree.texts.setdefault(split, {})[name] = said[-1]
            tree.translations[name] = {"de": translated[-1]}
            tree.spans[name] = begin_s, begin_s + 1.25
        for end, content in (("en", said), ("de", translated), ("yaml", segments)):
            lines(place / "txt" / f"{part}.{end}", *content)
    return tree


TREES: dict[str, Callable[[Path], Tree]] = {
    "librispeech": small_librispeech,
    "aishell": small_aishell,
    "tedlium": small_tedlium,
    "commonvoice": small_commonvoice,
    "covost2": small_covost2,
    "mustc": small_mustc,
}
