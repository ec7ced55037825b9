"""`asr lm`: make language models for shallow fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from asr.cli.inputs import read_experiment
from asr.cli.options import Model, PrintConfig
from asr.cli.terminal import progress, say

lm_app = typer.Typer(
    help="Make language models to decode with.\n\nExample: `asr lm ngram texts.txt --model exp/en/model --out lm.arpa`",
    no_args_is_help=True,
)


@lm_app.command()
def ngram(
    texts: Annotated[
        list[Path], typer.Argument(help="Texts, one per line, or what asr score reads: cuts, JSONL, CSV; .gz too.")
    ],
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="ARPA file to write.")],
    order: Annotated[int, typer.Option("--order", min=1, max=16, help="Length of the longest n-grams.")] = 6,
    unit: Annotated[
        Literal["token", "word"], typer.Option("--unit", help="Unit of the n-grams: the model's tokens, or words.")
    ] = "token",
) -> None:
    """Estimate an n-gram language model with interpolated modified Kneser-Ney smoothing, for shallow fusion.

    Texts are normalised as the model's training texts were.

    Example: `asr lm ngram texts.txt --model exp/prompts-en/model --order 6 --out lm.arpa`
    """
    from asr.lm.train import train_ngrams

    made = train_ngrams(texts, model, order, out, unit)
    counted = ", ".join(f"{count:,} {k}-grams" for k, count in enumerate(made.ngrams, start=1))
    print(f"{out}: {made.texts:,} texts; {counted}")


@lm_app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML of the run, such as conf/prompts/lm-en.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes, such as model.layers=2.")] = None,
    print_config: PrintConfig = False,
) -> None:
    """Train a Transformer language model; the same command resumes a run that was cut off.

    Example: `asr lm train conf/prompts/lm-en.yaml out=exp/lm`
    """
    from asr.config import LanguageExperimentConfig

    experiment = read_experiment(LanguageExperimentConfig, config, overrides, print_config)
    from asr.training.language import train_language_model

    with progress("training", _of_steps) as on_done:
        folder = train_language_model(experiment, say, on_done)
    print(f"{folder}: ready; next: asr tune DEV --model DIR --lm {folder} --grid lm_weight=0,0.1,0.2,0.4")


def _of_steps(done: float, total: float, spent_s: float) -> str:
    return f"{done:,.0f}/{total:,.0f} steps, {done / spent_s:.1f} a second"
