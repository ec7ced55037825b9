"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from asr.files import Place, to_place


def _place(text: str) -> Place:
    try:
        return to_place(text)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from None


if TYPE_CHECKING:
    Location = Place
else:
    Location = Any  # of what typer finds out about a type, nothing serves here
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
        help="Hypotheses per recording in JSON; at most the beam, or so many samples. [default: the model's own]",
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
LmUnit = Annotated[Literal["token", "word"] | None, typer.Option("--lm-unit", help="Of n-grams. [default: token]")]
Hotwords = Annotated[
    Path | None,
    typer.Option("--hotwords", help="Contextual biasing: file of names and phrases to listen for, a line each."),
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
        help="Nucleus sampling: the smallest token set of this total probability; needs --temperature.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or, of several GPUs, cuda:1.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option(
        "--dtype",
        help="Precision; auto: the fastest here without a noticeable loss of accuracy; float32: a file's text is the "
        "same alone and beside others.",
    ),
]
BatchSeconds = Annotated[
    str, typer.Option("--batch-seconds", help="Seconds of audio in a batch; auto: the fastest that fits.")
]

# Experiments
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the whole configuration and stop.")]

# How texts are scored
_METRICS = "several with commas. [default: wer,cer; of translations bleu,chrf]"
Metric = Annotated[str | None, typer.Option("--metric", help=f"wer, cer, mixed, mer, wil, bleu, chrf, ter; {_METRICS}")]
TimedMetric = Annotated[
    str | None, typer.Option("--metric", help=f"wer, cer, mixed, mer, wil, tcwer, bleu, chrf, ter; {_METRICS}")
]
Collar = Annotated[
    float,
    typer.Option("--collar", min=0, help="Of tcwer: seconds before and after a word's middle in which it may match."),
]
By = Annotated[
    str | None,
    typer.Option("--by", help="Resample whole groups, such as speakers, for the intervals: a field of the references."),
]
Breakdown = Annotated[
    str,
    typer.Option("--breakdown", help="Scores by fields of the references, such as speaker, or by length; with commas."),
]
Confusions = Annotated[
    int,
    typer.Option("--confusions", min=0, help="How many of the most frequent errors of each kind to show."),
]
WordList = Annotated[
    Path | None,
    typer.Option("--word-list", help="File of names or rare words, one a line, to score by themselves (B-WER)."),
]
