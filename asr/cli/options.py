"""Options shared by several commands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from asr.errors import printable
from asr.files import Place, to_place


def _place(text: str) -> Place:
    try:
        return to_place(text)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from None


def _seconds(text: str) -> float | None:
    """Parse seconds above 0; None stands for auto."""
    if text == "auto":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise typer.BadParameter(f"{printable(text)}: give auto, or seconds above 0")
    return seconds


if TYPE_CHECKING:
    Location = Place
else:
    Location = Any  # typer cannot handle this union type and relies on the parser below
Cuts = Annotated[
    Location,
    typer.Argument(parser=_place, metavar="cuts", help="Manifest of cuts with texts, or a Shar folder; or a URL."),
]

Model = Annotated[Path, typer.Option("--model", help="Model folder or name: exp/prompts-en/model, whisper-small.")]
BeamSize = Annotated[
    int | None, typer.Option("--beam-size", min=1, help="Width of the beam; 1 is greedy. [default: the model's own]")
]
NBest = Annotated[
    int | None,
    typer.Option(
        "--n-best",
        min=1,
        help="Hypotheses per recording in JSON: at most the beam size, or any number of samples. "
        "[default: the model's own]",
    ),
]
CtcWeight = Annotated[
    float | None,
    typer.Option("--ctc-weight", min=0, max=1, help="Weight of CTC in joint CTC/attention decoding."),
]
LengthBonus = Annotated[
    float | None, typer.Option("--length-bonus", help="Added to a hypothesis's score for every token.")
]
Lm = Annotated[
    Path | None,
    typer.Option("--lm", help="Language model for shallow fusion: n-grams (ARPA), or a folder of asr lm train."),
]
LmWeight = Annotated[
    float | None,
    typer.Option("--lm-weight", min=0, help="Weight of the language model (shallow fusion). [default: 0.3]"),
]
LmUnit = Annotated[
    Literal["token", "word"] | None, typer.Option("--lm-unit", help="Unit of an n-gram model. [default: token]")
]
Hotwords = Annotated[
    Path | None,
    typer.Option("--hotwords", help="Contextual biasing: file of names and phrases to listen for, one per line."),
]
HotwordBonus = Annotated[
    float | None,
    typer.Option(
        "--hotword-bonus", min=0, help="Bonus per token of a hotword, in nats. [default: 1; with a pointer 0]"
    ),
]
Guards = Annotated[
    bool | None,
    typer.Option(
        "--guards/--no-guards", help="Suppress hallucinations and repetition loops. [default: the model's own]"
    ),
]
Decode = Annotated[
    list[str] | None,
    typer.Option(
        "--decode",
        metavar="KEY=VALUE",
        help="Any key of `decode` in docs/configuration.md, such as length_penalty=0 or guards.no_speech=0.5; "
        "may be given several times.",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", help="Initial prompt for Whisper: preceding text, names, a style of writing."),
]
Task = Annotated[
    str | None,
    typer.Option("--task", help="transcribe, translate (into English) or translate:CODE. [default: the model's first]"),
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="Above 0: sample instead of beam search.")
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        min=0,
        max=1,
        help="Nucleus sampling: keep the smallest set of tokens with this total probability; needs --temperature.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or, with several GPUs, cuda:1.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option(
        "--dtype",
        help="Precision; auto: the fastest here without a noticeable loss of accuracy; float32: a text does not "
        "depend on the other files of its batch.",
    ),
]
BatchSeconds = Annotated[
    float | None,
    typer.Option(
        "--batch-seconds",
        parser=_seconds,
        metavar="SECONDS",
        help="Seconds of audio in a batch; auto: the fastest batch that fits. [default: auto]",
    ),
]

# Experiments
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the whole configuration and stop.")]

# How texts are scored
_METRICS = "separated by commas. [default: wer,cer; for translations bleu,chrf]"
Metric = Annotated[str | None, typer.Option("--metric", help=f"wer, cer, mixed, mer, wil, bleu, chrf, ter; {_METRICS}")]
TimedMetric = Annotated[
    str | None, typer.Option("--metric", help=f"wer, cer, mixed, mer, wil, tcwer, bleu, chrf, ter; {_METRICS}")
]
Collar = Annotated[
    float,
    typer.Option(
        "--collar", min=0, help="For tcwer: seconds before and after the middle of a word within which it may match."
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        help="Field of the references, such as speaker, whose groups are resampled as a whole for the intervals.",
    ),
]
Breakdown = Annotated[
    str,
    typer.Option(
        "--breakdown", help="Scores by fields of the references, such as speaker, or by length; separated by commas."
    ),
]
Confusions = Annotated[
    int,
    typer.Option("--confusions", min=0, help="How many of the most frequent errors of each kind to show."),
]
WordList = Annotated[
    Path | None,
    typer.Option("--word-list", help="File of names or rare words, one per line, to score separately (B-WER)."),
]
