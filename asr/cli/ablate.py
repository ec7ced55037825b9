"""`asr ablate`: train and compare variants of a recipe."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.inputs import names
from asr.cli.terminal import progress, resumable, say


def ablate(
    config: Annotated[Path, typer.Argument(help="YAML of the ablation, such as conf/ablation.yaml.")],
    only: Annotated[
        str, typer.Option(help="Only these rows, and those that they start from; separated by commas.")
    ] = "",
    again: Annotated[
        str, typer.Option(help="Drop the results of these rows and train them again; separated by commas.")
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Trainings in parallel; they share the cores.")] = 1,
    report: Annotated[bool, typer.Option("--report", help="Train nothing: tabulate the results so far.")] = False,
) -> None:
    """Train a base recipe and variants with one change each, all for the same time, and tabulate the results.

    The same command resumes where it was stopped, without repeating finished rows. Exit status 1: some rows failed.

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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that running trainings are stopped, too
    with resumable(), progress("ablation", _of_trainings) as on_done:
        done = run(
            settings,
            config,
            only=names(only),
            again=names(again),
            jobs=jobs,
            progress=Progress(say, on_done),
        )
    print(settings.report)
    if not done:
        raise typer.Exit(1)


def _of_trainings(done: float, total: float, spent_s: float) -> str:
    return f"{done:.1f}/{total:.1f} trainings"
