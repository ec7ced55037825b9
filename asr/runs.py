"""Comparison of runs: the texts that a training, an evaluation or a transcription wrote, and their settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from asr.config import EXPERIMENT, flat, read_yaml
from asr.errors import ConfigError, DataError
from asr.progress import OnDone
from asr.scoring import Columns, Comparison, ScoreOptions, compare
from asr.scoring.formats import open_texts, suffix
from asr.scoring.recognised import EVALUATION, WRITES_ONE, hypotheses_in
from asr.scoring.rows import some
from asr.tasks import TRANSCRIBE
from asr.text import NORMALIZERS, open_normalizer

_REFERENCES, _TEXTS = Columns(text="reference"), Columns(text="text")
_NO_MATTER = {"out"}  # differs between any two runs
_PARTS = "parts"  # folder of a transcribed corpus's parts, in that of its texts
_WIDEST = 40


@dataclass(frozen=True)
class Run:
    """The texts that a run recognised, and its settings by dotted key."""

    name: str
    hypotheses: Path
    settings: Mapping[str, Any]
    normalizer: str | None = None
    task: str = TRANSCRIBE


@dataclass(frozen=True)
class RunComparison:
    """Scores of runs on the same references, and the settings in which they differ."""

    runs: Sequence[Run]
    scores: Comparison
    differences: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # by key, each run's value

    def as_dict(self) -> dict[str, Any]:
        """Return the result as values for JSON; a setting that a run does not record is null."""
        names = [run.name for run in self.runs]
        settings = {key: dict(zip(names, values, strict=True)) for key, values in self.differences.items()}
        return {**self.scores.as_dict(), "settings_that_differ": settings}

    def worst(self, count: int = 5) -> str:
        """Return the worst utterances of each run as text."""
        return self.scores.worst(count)

    def table(self) -> str:
        """Return the comparison as text, with a line for each setting that differs."""
        if not self.differences:
            return f"{self.scores.table()}\n\nno difference of settings is known"
        width = max(map(len, self.differences))
        rows = [f"{key:{width}}  {' | '.join(map(_shown, values))}" for key, values in self.differences.items()]
        head = f"{'settings':{width}}  {' | '.join(run.name for run in self.runs)}"
        return "\n".join([self.scores.table(), "", head, *rows])


def compare_runs(
    runs: Sequence[Run],
    options: ScoreOptions,
    *,
    normalizer: str | None = None,
    reference: Path | None = None,
    on_done: OnDone | None = None,
) -> RunComparison:
    """Compare what runs recognised, scored by the references that they wrote down or by a file of references.

    runs: as found by find_run.  normalizer: default: the one that all runs were scored with.
    Raises DataError if the runs do not have the same references, ConfigError if they were scored with different
    normalisers and none is given.
    """
    if len(runs) < 2:
        raise ConfigError("give at least two runs to compare")
    if reference is None and "tcwer" in options.metrics:
        raise ConfigError(
            "tcwer needs the times of the reference words, which runs lack: give a reference (--reference)"
        )
    if len({run.hypotheses.resolve() for run in runs}) < len(runs):
        raise ConfigError("the same run is given twice; it does not differ from itself")
    columns = (options.columns[0] if reference else _REFERENCES), _TEXTS
    options = replace(options, normalizer=normalizer or _common_normalizer(runs), columns=columns)
    if reference is None:
        _check_references(runs, options)
    scores = compare(reference or runs[0].hypotheses, [run.hypotheses for run in runs], options, on_done)
    named = tuple(replace(report, name=run.name) for report, run in zip(scores.reports, runs, strict=True))
    return RunComparison(runs, Comparison(named), _differences(runs))


def task_of(runs: Sequence[Run]) -> str:
    """Return the task of the runs: a translation if all of them translated, else transcribe."""
    return _shared({run.task for run in runs})


def find_run(path: Path) -> Run:
    """Return the run that wrote a hyp.jsonl, or that is in a folder: a training, an evaluation or a transcribed corpus.

    Raises DataError if there is none.
    """
    hypotheses = hypotheses_in(path) if path.is_dir() else path
    if not hypotheses.is_file():
        raise DataError(f"{path}: no such file or folder; {WRITES_ONE}")
    folder = hypotheses.parent
    evaluation = _first_line(folder / EVALUATION)
    told = evaluation["settings"] if isinstance(evaluation.get("settings"), dict) else {}
    experiment = _experiment(folder, told.get("model"))
    job = next((_first_line(part) for part in sorted((folder / _PARTS).glob("*.part"))), {})
    settings = {**flat(experiment), **flat(told, "evaluate."), **flat(job, "transcribe.")}
    scored = evaluation.get("normalizer") or experiment.get("score_normalizer") or experiment.get("normalizer")
    return Run(str(path), hypotheses, settings, scored, str(job.get("task") or _noted_task(hypotheses)))


def _noted_task(hypotheses: Path) -> str:
    """Return the task that `asr train` and `asr evaluate` write beside each translation."""
    rows = open_texts(hypotheses, columns=_TEXTS).rows()
    return _shared({str(row.fields.get("task") or TRANSCRIBE) for row in rows})


def _shared(tasks: Set[str]) -> str:
    return TRANSCRIBE if TRANSCRIBE in tasks or not tasks else min(tasks)


def _experiment(folder: Path, model: Any) -> dict[str, Any]:
    """Return the configuration of the model's training, from its folder or the parent; empty if there is none.

    model: folder or name of the model that a run used, if it tells.
    """
    near = Path(model) if isinstance(model, str) else folder
    if not near.is_dir():  # a name, which is not a path in the current folder
        return {}
    places = [near] if (near / _PARTS).is_dir() else [near, near.parent]  # a transcription does not tell its model
    path = next((place / EXPERIMENT for place in places if (place / EXPERIMENT).is_file()), None)
    found = read_yaml(path) if path else {}
    return found if isinstance(found, dict) else {}


def _first_line(path: Path) -> dict[str, Any]:
    """Return the JSON object on a file's first line; empty if there is no such file or object."""
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _differences(runs: Sequence[Run]) -> dict[str, Sequence[Any]]:
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in _NO_MATTER)
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: of_each for key, of_each in values.items() if any(value != of_each[0] for value in of_each)}


def _shown(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _common_normalizer(runs: Sequence[Run]) -> str:
    """Return the normaliser that the runs were scored with, "none" if no run records one."""
    known = {run.name: run.normalizer for run in runs if run.normalizer}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{name}: {normalizer}" for name, normalizer in known.items())
        raise ConfigError(f"the runs were scored with different normalisers ({told}); choose one (--normalizer)")
    found = next(iter(known.values()), "none")
    if found not in NORMALIZERS:
        raise ConfigError(f"the runs were scored with rules from a file, {found}: give it as normalizer (--normalizer)")
    return found


def _check_references(runs: Sequence[Run], options: ScoreOptions) -> None:
    """Raise DataError, one line, if the runs differ in their utterances or reference texts."""
    first = _references(runs[0], options)
    for run in runs[1:]:
        other = _references(run, options)
        problems = [
            (first.keys() - other.keys(), f"only in {runs[0].name}"),
            (other.keys() - first.keys(), f"only in {run.name}"),
            ({id for id in first.keys() & other.keys() if first[id] != other[id]}, "with another reference"),
        ]
        if told := [f"{some(sorted(ids))} {what}" for ids, what in problems if ids]:
            raise DataError(f"{runs[0].name} and {run.name} are not of the same references: {'; '.join(told)}")


def _references(run: Run, options: ScoreOptions) -> dict[str, int]:
    """Return a hash of each normalised reference, by id."""
    path, first = run.hypotheses, _first_line(run.hypotheses)
    if suffix(path) != ".jsonl" or (first and "reference" not in first):
        raise DataError(f"{path} holds no reference texts; give some (--reference), such as a manifest of cuts")
    of_language = cache(open_normalizer(options.normalizer).of_language)
    found = {}
    for row in open_texts(path, columns=_REFERENCES).rows():
        try:
            found[row.id] = hash(of_language(row.language or options.language)(row.text))
        except DataError as e:
            raise DataError(f"{path}: utterance {row.id!r}: {e}") from None
    return found
