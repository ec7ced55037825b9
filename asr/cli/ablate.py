"""`asr ablate`: recipes beside each other."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.inputs import names
from asr.cli.terminal import progress, say


def ablate(
    config: Annotated[Path, typer.Argument(help="YAML of the ablation, such as conf/ablation.yaml.")],
    only: Annotated[
        str, typer.Option(help="Only these rows, and those that they start from; several with commas.")
    ] = "",
    again: Annotated[
        str, typer.Option(help="Drop the results of these rows and train them again; several with commas.")
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Trainings in parallel; they share the cores.")] = 1,
    report: Annotated[bool, typer.Option("--report", help="Train nothing: tabulate the results so far.")] = False,
) -> None:
    """Train a base recipe and variants of it with one change each for equal time, and tabulate the results.

    The same command resumes where it was stopped; what is done is not done again. Exit status 1: rows failed.

    Example: `asr ablate conf/ablation.yaml --jobs 2`
    """
    from asr.ablation import Progress
    from asr.ablation import ablate as run
    from asr.ablation import report as write_report
    from asr.config import AblationConfig, read_config

    settings = read_config(AblationConfig, config)
    if report:
        print(write_report(settings, config))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is ended, too
    try:
        with progress("ablation", _of_trainings) as on_done:
            done = run(
                settings,
                config,
                only=names(only),
                again=names(again),
                jobs=jobs,
                progress=Progress(say, on_done),
            )
    except KeyboardInterrupt:
        say("the same command goes on where this one left off")
        raise
    print(settings.report)
    if not done:
        raise typer.Exit(1)


def _of_trainings(done: float, total: float, spent_s: float) -> str:
    return f"{done:.1f}/{total:.1f} trainings"
