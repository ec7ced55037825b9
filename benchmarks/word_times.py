"""Measure the accuracy of word times on clips joined into one recording, 0.5 s apart.

Run `python benchmarks/word_times.py data/prompts-en/cuts_dev.jsonl.gz`.  The start of a clip's first word and the end
of its last are compared with two truths: start and end of the clip, and of its sound (within 35 dB of its loudest 10
ms), because clips have silence at their ends.  Words are matched to clips by aligning the characters of both texts.
Shapes: N samples.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from torch import Tensor

from asr.data.cuts import load_audio, read_cuts, text_of
from asr.errors import AsrError
from asr.loading import load_model
from asr.metrics import align
from asr.text import normalizer
from asr.transcript import Transcript, Word
from benchmarks.script import new_table, run_script
from benchmarks.speech import GAP_S, Stretch, sound, sources

normal = normalizer("basic")


class Clip(NamedTuple):
    """A clip in the joined recording: its text, and start and end of the clip and of its sound, in seconds."""

    text: str
    clip: Stretch
    sound: Stretch


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of recordings.")],
    model: Annotated[str, typer.Option(help="Model folder or name.")] = "whisper-tiny.en",
    beam: Annotated[int, typer.Option(min=1)] = 1,
    worst: Annotated[int, typer.Option(help="Number of clips with the largest errors to list.", min=0)] = 0,
) -> None:
    """Measure the errors of word times.

    Example: `python benchmarks/word_times.py data/prompts-en/cuts_dev.jsonl.gz --beam 5`
    """
    recognizer = load_model(model, beam_size=beam)
    rows = [cut for path in cuts for cut in read_cuts(path)]
    audio_N, clips = _joined([(text_of(cut), load_audio(cut, recognizer.rate)) for cut in rows], recognizer.rate)
    (result,) = recognizer.transcribe_sources(sources({"joined": audio_N}, recognizer.rate), words=True)
    if not isinstance(result, Transcript):
        raise AsrError(result.reason)
    found = _found(clips, [word for segment in result.segments for word in segment.words])
    if len(found) < 2:
        raise AsrError(f"{model}: only {len(found)} of {len(clips)} clips were recognised; too few to measure")
    title = f"{model}, beam {beam}, {len(clips)} clips in {len(audio_N) / recognizer.rate:.0f} s"
    table = new_table(title, "error in seconds", "clips", "median", "90th percentile")
    for truth in ("clip", "sound"):
        for edge, name in enumerate(("starts", "ends")):
            errors = [abs(times[edge] - getattr(clips[i], truth)[edge]) for i, times in found.items()]
            figures = (f"{median(errors):.3f}", f"{quantiles(errors, n=10)[-1]:.3f}")
            table.add_row(f"{name} of the {truth}", str(len(errors)), *figures)
    table.caption = f"clips without a word of their own in the transcript: {len(clips) - len(found)}"
    Console(width=120).print(table)
    _show_worst(clips, found, worst)


def _joined(parts: list[tuple[str, Tensor]], rate: int) -> tuple[Tensor, list[Clip]]:
    gap_N = torch.zeros(round(GAP_S * rate))
    pieces: list[Tensor] = []
    clips: list[Clip] = []
    start_s = 0.0
    for text, audio_N in parts:
        end_s = start_s + len(audio_N) / rate
        sound_start_s, sound_end_s = sound(audio_N, rate)
        clips.append(Clip(text, (start_s, end_s), (start_s + sound_start_s, start_s + sound_end_s)))
        pieces += [audio_N, gap_N]
        start_s = end_s + len(gap_N) / rate
    return torch.cat(pieces[:-1]), clips


def _found(clips: list[Clip], words: list[Word]) -> dict[int, Stretch]:
    """Return the start of each clip's first word and the end of its last one.

    A word belongs to the clip with which most of its characters are aligned; an inserted word belongs to none.
    """
    said = [(c, i) for i, clip in enumerate(clips) for c in normal(clip.text).replace(" ", "")]
    heard = [(c, i) for i, word in enumerate(words) for c in normal(word.text).replace(" ", "")]
    votes = [Counter[int]() for _ in words]
    k = n = 0
    for edit in align("".join(c for c, _ in said), "".join(c for c, _ in heard), "character"):
        if edit.reference and edit.hypothesis:
            votes[heard[n][1]][said[k][1]] += 1
        k += bool(edit.reference)
        n += bool(edit.hypothesis)
    found: dict[int, Stretch] = {}
    for word, vote in zip(words, votes, strict=True):
        if vote:
            clip, _ = vote.most_common(1)[0]
            found[clip] = (found.get(clip, (word.start_s,))[0], word.end_s)
    return found


def _show_worst(clips: list[Clip], found: dict[int, Stretch], count: int) -> None:
    def error_s(i: int) -> float:
        return max(abs(a - b) for a, b in zip(clips[i].sound, found[i], strict=True))

    for i in sorted(found, key=error_s, reverse=True)[:count]:
        sound, times = ("{:.2f} to {:.2f}".format(*stretch) for stretch in (clips[i].sound, found[i]))
        print(f"sound {sound}, words {times}: {clips[i].text}")


if __name__ == "__main__":
    run_script(main)
