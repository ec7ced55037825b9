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
BeamSize = Annotated[int | None, typer.Option("--beam-size", min=1, help="1 is greedy. [default: the model's own]")]
NBest = Annotated[int | None, typer.Option("--n-best", min=1, help="Texts per recording in JSON, at most the beam.")]
CtcWeight = Annotated[float | None, typer.Option("--ctc-weight", min=0, max=1, help="Share of CTC in joint decoding.")]
LengthBonus = Annotated[float | None, typer.Option("--length-bonus", help="Added to a text's score for every token.")]
Lm = Annotated[
    Path | None, typer.Option("--lm", help="Language model of asr lm: an ARPA file of n-grams, or a folder.")
]
LmWeight = Annotated[float | None, typer.Option("--lm-weight", min=0, help="What it counts. [default: 0.3]")]
LmUnit = Annotated[
    Literal["token", "word"] | None, typer.Option("--lm-unit", help="What the n-grams are of. [default: token]")
]
Task = Annotated[
    str | None,
    typer.Option("--task", help="transcribe, translate (into English) or translate:CODE. [default: the model's first]"),
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="Above 0, texts are drawn instead of searched for.")
]
TopP = Annotated[float | None, typer.Option("--top-p", min=0, max=1, help="Drawn from the likeliest of this share.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option("--dtype", help="Arithmetic; auto: what is fastest here without a noticeable loss."),
]
BatchSeconds = Annotated[str, typer.Option("--batch-seconds", help="Seconds at once; auto: the fastest that fits.")]

# How texts are scored
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="wer, cer, mixed, mer, wil, tcwer, bleu, chrf, ter; several with commas. "
        "[default: wer,cer; of translations bleu,chrf]",
    ),
]
By = Annotated[
    str | None, typer.Option("--by", help="Field of the references, such as speaker, that the bootstrap draws by.")
]
Breakdown = Annotated[
    str, typer.Option("--breakdown", help="Score by fields of the references, or by length; several with commas.")
]
Confusions = Annotated[int, typer.Option("--confusions", min=0, help="How many of the most frequent errors to show.")]
WordList = Annotated[
    Path | None, typer.Option("--word-list", help="File of names or rare words, one a line, to score by themselves.")
]
