"""Ablations: a base recipe and variants with one change each, trained for the same time, over seeds and corpora.

`ablate` may be stopped at any point and resumes where it was: a finished run is in the results, an interrupted one
resumes from its last state.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from asr.ablation.commands import Commands, locked
from asr.ablation.plan import Plan
from asr.ablation.report import write_report
from asr.ablation.results import Results
from asr.ablation.running import Progress, Runner, check_settings, forget
from asr.config import AblationConfig
from asr.files import make_folder

__all__ = ["Progress", "ablate", "report"]


def ablate(
    config: AblationConfig,
    source: Path,
    *,
    only: Collection[str] = (),
    again: Collection[str] = (),
    jobs: int = 1,
    progress: Progress | None = None,
) -> bool:
    """Produce the missing results, then the report; return whether everything asked for has a result.

    source: the YAML file, named in messages.  only: run these rows and those they start from.  again: rows whose
    results and runs are dropped first.  jobs: number of parallel runs, which share the cores.
    Raises AsrError, one line, for a configuration that cannot be run, for results with other settings, and if another
    ablation is running in the same folder.
    """
    plan = Plan(config, source)
    plan.unknown([*only, *again])
    make_folder(config.runs)
    with locked(config.runs) as lock:
        results = Results(config.results)
        forget(plan, results, again)
        check_settings(plan, results, only)
        commands = Commands(lock)
        try:
            return Runner(plan, results, commands, jobs, progress or Progress()).run(only)
        finally:
            commands.stop()
            if any(record.kind == "result" for record in results.records):
                write_report(plan, results)


def report(config: AblationConfig, source: Path) -> Path:
    """Write the report from the existing results.  Raises AsrError if there are none or they have other settings."""
    plan, results = Plan(config, source), Results(config.results)
    check_settings(plan, results, ())
    write_report(plan, results)
    return config.report
