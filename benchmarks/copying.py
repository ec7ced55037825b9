"""Compare a learned pointer into a phrase list with shallow fusion and with no list, for lists of several sizes.

Run `python benchmarks/copying.py exp/prompts-copying-tiny-en/model`.  Up to half of a list are spoken words that are
rare in training; the rest are distractors: other words of the training texts, then pairs of adjacent words.  The table
shows recall and precision of the listed words, and the word error rate on them (B-WER) and on all others (U-WER).
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track

from asr.checkpoint import load_model_folder
from asr.data.cuts import load_audio, read_cuts, text_of
from asr.errors import AsrError
from asr.model.precision import fastest
from asr.phrases.lists import read_phrases
from asr.recognizer import Recognizer
from asr.scoring import ScoreOptions, score_sources
from asr.scoring.listed import ListedWords
from asr.scoring.recognised import Recognised
from asr.scoring.recognised import sources as scored
from asr.scoring.rows import Row
from asr.text import normalizer
from benchmarks.script import new_table, run_script
from benchmarks.speech import sources, texts_of

RATE = 16_000


class System(NamedTuple):
    """A way to use a list: with or without the pointer, and with which shallow fusion bonus, in nats."""

    name: str
    pointer: bool
    bonus: float


def main(
    model: Annotated[Path, typer.Argument(help="A model folder whose decoder has a pointer.")],
    cuts: Annotated[Path, typer.Option(help="Manifest of English speech to recognise.")] = Path(
        "data/prompts-en/cuts_dev.jsonl.gz"
    ),
    train: Annotated[Path, typer.Option(help="Manifest of the model's training data.")] = Path(
        "data/prompts-en/cuts_train.jsonl.gz"
    ),
    sizes: Annotated[str, typer.Option(help="Comma-separated numbers of phrases in a list.")] = "10,100,1000",
    rare_below: Annotated[int, typer.Option(min=1, help="Words that training has less often are rare.")] = 2,
    names: Annotated[Path | None, typer.Option(help="File of phrases to list instead of rare words.")] = None,
    bonus: Annotated[float, typer.Option(help="Bonus of shallow fusion, in nats.")] = 1.0,
    beam: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the lists.")] = 0,
) -> None:
    """Measure recall and error rates with lists of several sizes.

    Example: `python benchmarks/copying.py exp/prompts-copying-tiny-en/model --beam 5 --seed 1`
    """
    kept = {cut.id: cut for cut in read_cuts(cuts)}
    said = {id: text_of(cut) for id, cut in kept.items()}
    audio = {id: load_audio(cut, RATE) for id, cut in kept.items()}
    systems = System(f"bonus {bonus:g}", False, bonus), System("pointer", True, 0), System("both", True, bonus)
    columns = ("system", "list", "recall %", "precision %", "B-WER", "U-WER", "WER")
    table = new_table(f"{len(said)} clips, beam {beam}, seed {seed}", *columns)
    texts = [text_of(cut) for cut in read_cuts(train)]
    listed = None if names is None else [phrase.text for phrase in read_phrases(names)]
    without = recognised(model, audio, System("nothing", False, 0), None, beam)
    with tempfile.TemporaryDirectory() as folder:
        for size in track(_numbers(sizes), description="decoding", transient=True):
            path = Path(folder) / f"{size}.txt"
            path.write_text("\n".join(list_of(size, said.values(), texts, rare_below, seed, listed)) + "\n")
            table.add_row("nothing", str(size), *row(said, without, path))
            for system in systems:
                heard = recognised(model, audio, system, path, beam)
                table.add_row(system.name, str(size), *row(said, heard, path))
    Console(width=140).print(table)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise AsrError(f"--sizes {text}: expected numbers separated by commas, such as 10,100") from None


def list_of(
    size: int,
    said: Iterable[str],
    trained: Sequence[str],
    rare_below: int,
    seed: int,
    names: Sequence[str] | None = None,
) -> list[str]:
    """Return a list: spoken rare words or the given names for up to half of it, then distractors that nobody says."""
    normal, draw = normalizer("english"), random.Random(seed)
    texts = [normal(text).split() for text in trained]
    counts = Counter(word for words in texts for word in words)
    spoken = {word for text in said for word in normal(text).split()}
    rare = sorted(word for word in spoken if counts[word] < rare_below and word.isalpha())
    wanted = rare if names is None else sorted({normal(name) for name in names})
    chosen = draw.sample(wanted, min(len(wanted), size // 2))
    words = sorted(word for word in counts.keys() - spoken - set(chosen) if word.isalpha())
    pairs = sorted({f"{a} {b}" for words in texts for a, b in itertools.pairwise(words) if not {a, b} <= spoken})
    draw.shuffle(words)
    draw.shuffle(pairs)
    others = list(itertools.islice(itertools.chain(words, pairs), size - len(chosen)))
    if len(chosen) + len(others) < size:
        raise AsrError(f"--sizes {size}: the training texts do not have enough words and pairs of words")
    return chosen + others


def recognised(
    model: Path, audio: dict[str, torch.Tensor], system: System, phrases: Path | None, beam: int
) -> dict[str, str]:
    """Return the recognised texts by id."""
    parts = load_model_folder(model)
    if parts.model.decoder.pointer is None:
        raise AsrError(f"{model}: its decoder has no pointer")
    if not system.pointer:
        parts.model.decoder.pointer = None
    listed = {"phrases": phrases, "phrase_bonus": system.bonus if phrases else None}
    options = parts.config.decode.model_copy(update={"beam_size": beam, **listed})
    recognizer = Recognizer(parts, options, fastest(torch.device("cpu")))
    return texts_of(recognizer.transcribe_sources(sources(audio, RATE)))


def row(said: dict[str, str], heard: dict[str, str], phrases: Path) -> list[str]:
    """Return the cells of one row of the table."""
    pairs = [Recognised(Row(id, text, "en"), heard[id]) for id, text in said.items()]
    report = score_sources(*scored(pairs), ScoreOptions(normalizer="english", words=phrases))
    (listed,) = (found for found in report.findings if isinstance(found, ListedWords))
    cells = []
    for name in ("recall", "precision", "b_wer", "u_wer"):
        share = listed.shares[name]
        cells.append(f"{100 * share.rate:.1f} ({share.part} of {share.whole})")
    return [*cells, f"{100 * report.values['wer']:.2f}"]


if __name__ == "__main__":
    run_script(main)
