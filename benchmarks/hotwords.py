"""Measure how a phrase list (--hotwords) affects its names and everything else, with Whisper tiny.en.

Run `python benchmarks/hotwords.py data/prompts-en/cuts_dev.jsonl.gz`.  For each bonus, the table shows how many of the
spoken names are recognised, how many names are written that nobody said, and the word error rates of clips with and
without a name.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from asr.checkpoint import load_model_folder
from asr.data.cuts import load_audio, read_cuts, text_of
from asr.errors import AsrError
from asr.model.precision import fastest
from asr.phrases.lists import read_phrases
from asr.pretrained import find_model
from asr.recognizer import Recognizer
from asr.scoring import score
from asr.text import normalizer
from benchmarks.script import new_table, run_script
from benchmarks.speech import sources, texts_of

RATE = 16_000


class Clip(NamedTuple):
    """A recording (N,), its normalised text and the names in it."""

    audio_N: Tensor
    text: str
    names: Counter[str]


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of English speech.")],
    hotwords: Annotated[Path, typer.Option(help="The phrase list.")] = Path("recipes/prompts/hotwords.txt"),
    bonus: Annotated[str, typer.Option(help="Comma-separated bonuses to try besides 0.")] = "1",
    beam: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Measure recall and error rates with a phrase list and without.

    Example: `python benchmarks/hotwords.py data/prompts-en/cuts_dev.jsonl.gz --bonus 0.5,1,1.5 --beam 5`
    """
    normal = normalizer("english")
    name = _any_of({normal(phrase.text) for phrase in read_phrases(hotwords)})
    clips = []
    for cut in (cut for path in cuts for cut in read_cuts(path)):
        text = normal(text_of(cut))
        clips.append(Clip(load_audio(cut, RATE), text, Counter(name.findall(text))))
    named = sum(bool(clip.names) for clip in clips)
    columns = ("bonus", "names found", "recall %", "nobody said", "WER with names", "WER of the rest")
    table = new_table(f"{len(clips)} clips, {named} with a listed name, beam {beam}", *columns)
    for nats in track([0.0, *_numbers(bonus)], description="decoding", transient=True):
        texts = [normal(text) for text in _texts(clips, hotwords, nats, beam)]
        table.add_row(f"{nats:g}", *_row(clips, texts, name))
    Console(width=120).print(table)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise AsrError(f"--bonus {text}: expected numbers separated by commas, such as 0.5,1") from None


def _any_of(names: set[str]) -> re.Pattern[str]:
    """Return a pattern that matches a name as whole words, the longest one if several match."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, longest_first))})(?!\S)")


def _texts(clips: list[Clip], hotwords: Path, bonus: float, beam: int) -> list[str]:
    parts = load_model_folder(find_model("whisper-tiny.en"))
    listed = {"phrases": hotwords, "phrase_bonus": bonus} if bonus else {}
    options = parts.config.decode.model_copy(update={"beam_size": beam, **listed})
    recognizer = Recognizer(parts, options, fastest(torch.device("cpu")))
    numbered = {str(i): clip.audio_N for i, clip in enumerate(clips)}
    return list(texts_of(recognizer.transcribe_sources(sources(numbered, RATE))).values())


def _row(clips: list[Clip], texts: list[str], name: re.Pattern[str]) -> list[str]:
    said = sum((clip.names for clip in clips), Counter())
    found, invented = Counter[str](), Counter[str]()
    for clip, text in zip(clips, texts, strict=True):
        heard = Counter(name.findall(text))
        found += heard & clip.names
        invented += heard - clip.names
    rates = []
    for is_named in (True, False):
        pairs = [(c.text, text) for c, text in zip(clips, texts, strict=True) if bool(c.names) == is_named]
        errors = score([a for a, _ in pairs], [b for _, b in pairs], metrics="wer").rates["wer"]
        rates.append(f"{100 * errors.rate:.2f} ({errors.errors} of {errors.reference_length})")
    recall = 100 * found.total() / max(1, said.total())
    return [f"{found.total()} of {said.total()}", f"{recall:.1f}", str(invented.total()), *rates]


if __name__ == "__main__":
    run_script(main)
