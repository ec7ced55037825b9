"""The command line: each command parses its arguments, calls one function and prints the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from asr import __version__
from asr.cli.ablate import ablate
from asr.cli.compare import compare
from asr.cli.cuts import cuts as make_cuts
from asr.cli.inputs import read_experiment
from asr.cli.lm import lm_app
from asr.cli.normalize import NORMALIZER_HELP, normalize
from asr.cli.options import BatchSeconds, Cuts, Device, Dtype, Model, PrintConfig, Prompt, Task
from asr.cli.report import report
from asr.cli.score import print_evaluation, score
from asr.cli.scoring import Measuring, say_left_out
from asr.cli.searching import Searching
from asr.cli.sharing import with_options
from asr.cli.subtitles import subtitles
from asr.cli.terminal import progress, resumable, run, say
from asr.cli.transcribe import transcribe
from asr.cli.tune import tune
from asr.errors import ConfigError, printable
from asr.tasks import chosen

SNR_DB = 10.0

app = typer.Typer(
    name="asr",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
config_app = typer.Typer(
    help="Look at the configuration of experiments.\n\nExample: `asr config schema > experiment.schema.json`",
    no_args_is_help=True,
)
app.add_typer(config_app, name="config")
app.add_typer(lm_app, name="lm")


def main() -> None:
    """Run the command line; exit status 2 means a mistake in the input, 1 that some of the work failed."""
    sys.exit(run(app))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"asr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Speech recognition and translation with attention models: train, fine-tune, transcribe and score.

    Example: `asr transcribe talk.mp3`
    """


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML of the experiment, such as conf/prompts/en.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, such as model.encoder.layers=6.")
    ] = None,
    print_config: PrintConfig = False,
) -> None:
    """Train or fine-tune a model; the same command resumes a run that was cut off.

    Example: `asr train conf/prompts/en.yaml trainer.max_steps=2000 out=exp/short`

    Example: `asr train conf/prompts/finetune-tiny-en.yaml data.train=... data.dev=... out=exp/mine`
    """
    from asr.config import ExperimentConfig

    experiment = read_experiment(ExperimentConfig, config, overrides, print_config)
    from rich.console import Console

    from asr.training.run import train as train_model

    with resumable():
        train_model(experiment, Console(stderr=True))


app.command()(with_options(transcribe))


@app.command()
@with_options
def evaluate(
    cuts: Cuts,
    model: Model,
    searching: Searching,
    measuring: Measuring,
    normalizer: Annotated[
        str | None, typer.Option(help=f"{NORMALIZER_HELP}; for both sides. [default: the model's own]")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Only the cuts in this language.")] = None,
    task: Task = None,
    prompt: Prompt = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for hyp.jsonl and evaluation.jsonl. [default: the folder MODEL]"),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst utterances to show, aligned.")] = 5,
    noise: Annotated[Path | None, typer.Option(help="Folder of noise or music to mix in, for a harder test.")] = None,
    snr: Annotated[
        float | None, typer.Option(help=f"With --noise: signal-to-noise ratio, in dB. [default: {SNR_DB:g}]")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    batch_seconds: BatchSeconds = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Decode a manifest and print what `asr score` would: WER and CER with 95 % intervals, and the worst utterances.

    Translations are scored by BLEU and chrF against those in the cuts; cuts without one are named and left out. A cut
    whose audio cannot be read is reported on stderr, the others are scored, and the exit status is 1.

    Example: `asr evaluate data/prompts/cuts_dev.jsonl.gz --model exp/prompts-en/model --beam-size 5`

    Example: `asr evaluate dev.jsonl.gz --model exp/en/model --out exp/names --hotwords names.txt --word-list names.txt`
    """
    from asr.evaluate import evaluate as evaluate_cuts
    from asr.evaluate import noisy
    from asr.loading import load_model
    from asr.scoring.recognised import EVALUATION

    if snr is not None and noise is None:
        raise ConfigError("--snr needs --noise FOLDER")
    snr_db = SNR_DB if snr is None else snr
    recognizer = load_model(model, device=device, dtype=dtype, **searching.given())
    if out is None and not model.is_dir():
        raise ConfigError(f"give --out FOLDER: {printable(model)} is not a folder on this machine")
    mixed = {"noise": str(noise), "snr_db": snr_db} if noise else {}
    with progress("decoding") as on_done:
        result = evaluate_cuts(
            recognizer,
            cuts,
            out or model,
            normalizer=normalizer,
            language=language,
            task=task,
            prompt=prompt,
            options=measuring.options(task=chosen(task, recognizer.tokenizer.tasks), worst=worst),
            settings={"model": str(model.resolve() if model.is_dir() else model), "dtype": dtype, **mixed},
            noise=noisy(noise, snr_db, recognizer.rate) if noise else None,
            batch_s=batch_seconds,
            on_done=on_done,
        )
    say_left_out(cuts, result.left_out, result.hypotheses.with_name(EVALUATION))
    for failed in result.failed:
        say(f"{cuts}: cut {printable(failed.id)} cannot be read: {printable(failed.reason)}")
    if as_json:
        print(json.dumps(result.as_dict(), ensure_ascii=False))
    else:
        print_evaluation(result, worst)
    if result.failed:
        raise typer.Exit(1)


app.command()(tune)
app.command()(with_options(score))
app.command()(with_options(report))
app.command()(with_options(compare))
app.command()(ablate)
app.command()(normalize)
app.command(name="cuts")(make_cuts)
app.command()(subtitles)


@app.command()
def average(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path | None, typer.Option(help="Model folder to write. [default: RUN/averaged]")] = None,
) -> None:
    """Average the weights of a run's best checkpoints into a model folder; only an earlier average is replaced.

    Example: `asr average exp/prompts-en`
    """
    from asr.training.averaging import average as average_run

    folder, states = average_run(run, out, say)
    print(f"{folder}: mean of {', '.join(p.stem for p in states)}")


@app.command(name="import")
def import_(
    source: Annotated[
        str, typer.Argument(help="CTranslate2 or Hugging Face folder, OpenAI's .pt, or a name: whisper-small.")
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to write.")],
    exact: Annotated[
        bool, typer.Option("--exact", help="Whisper: compute all silence of a window instead of remembering it.")
    ] = False,
    vocabulary: Annotated[
        Path | None, typer.Option(help="For a .pt: its .tiktoken or tokenizer.json. [default: found beside it]")
    ] = None,
) -> None:
    """Turn a checkpoint of Whisper or Speech2Text into a model folder.

    Example: `asr import whisper-tiny.en exp/whisper-tiny.en`
    """
    from asr.pretrained import import_model

    import_model(source, out, exact=exact, vocabulary=vocabulary)
    print(f"{out}: ready; next: asr transcribe FILE --model {out}")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of experiment files, for editors.

    Example: `asr config schema > experiment.schema.json`
    """
    from asr.config import ExperimentConfig

    print(json.dumps(ExperimentConfig.model_json_schema(), indent=2))
