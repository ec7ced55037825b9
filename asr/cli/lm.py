"""`asr lm`: language models for the beam."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from asr.cli.options import Model

lm_app = typer.Typer(
    help="Make language models for the beam.\n\nExample: `asr lm ngram texts.txt --model exp/en/model --out lm.arpa`",
    no_args_is_help=True,
)


@lm_app.command()
def ngram(
    texts: Annotated[list[Path], typer.Argument(help="Text, a line each; or cuts, JSONL, CSV and so on; .gz too.")],
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="ARPA file to write.")],
    order: Annotated[int, typer.Option("--order", min=1, max=16, help="The most tokens or words in a row.")] = 6,
    unit: Annotated[
        Literal["token", "word"], typer.Option("--unit", help="Of the model's tokens, or of words.")
    ] = "token",
) -> None:
    """Estimate an n-gram model on texts, by interpolated modified Kneser-Ney smoothing, for the beam of a model.

    Texts go through the normaliser that the model was trained with.

    Example: `asr lm ngram texts.txt --model exp/prompts-en/model --order 6 --out lm.arpa`
    """
    from asr.lm.train import train_ngrams

    made = train_ngrams(texts, model, order, out, unit)
    counted = ", ".join(f"{count:,} {k}-grams" for k, count in enumerate(made.ngrams, start=1))
    print(f"{out}: {made.texts:,} texts; {counted}")
