"""The runs of an ablation, their settings and their order."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from asr.ablation.results import Job
from asr.config import (
    BASE,
    BROUGHT,
    AblationConfig,
    DecodeConfig,
    ExperimentConfig,
    Measure,
    flat,
    read_tree,
    set_key,
    validate,
)
from asr.errors import ConfigError

Tree = dict[str, Any]
_RUNNERS = ("out", "seed", "init", "trainer.max_steps", "trainer.max_epochs", "trainer.validate_every_steps")


class Plan:
    """The runs of an ablation.

    source: the YAML file, named in errors.  Raises ConfigError, one line that names the row, for a row that cannot be
    trained, before anything is trained.
    """

    def __init__(self, config: AblationConfig, source: Path) -> None:
        self.config, self.source = config, source
        self.measures: list[Measure] = []  # by which the trainings choose their best validations
        for corpus in config.corpora:
            for row in self.rows(corpus):
                self._check(Job(corpus, row, config.seeds[0]))

    def rows(self, corpus: str) -> list[str]:
        """Return the rows of a corpus in the order of the file."""
        return [row for row in self.config.rows if corpus in self.config.corpora_of(row)]

    def waves(self, corpus: str, only: Collection[str] = ()) -> Iterator[list[Job]]:
        """Yield the runs that need no other run's model, then those that do, each time seed by seed.

        only: these rows and those that they start from; empty: all rows.
        """
        wanted = {start for row in only for start in (row, self.config.start_of(row))}
        rows = [row for row in self.rows(corpus) if not only or row in wanted]
        for later in (False, True):
            chosen = [row for row in rows if (self.config.start_of(row) != row) == later]
            if chosen:
                yield [Job(corpus, row, seed) for seed in self.config.seeds for row in chosen]

    def start(self, job: Job) -> Job:
        """Return the run whose model a run starts from or uses."""
        return job._replace(row=self.config.start_of(job.row))

    def may_start(self, job: Job) -> bool:
        """Return whether a run starts from no model, or from one that exists on this machine."""
        start = self.start(job)
        return start == job or (self.out(start) / "run.json").exists()

    def trains(self, row: str) -> bool:
        """Return whether the runs of a row train a model."""
        return self.config.rows[row].trains

    def averaged(self, row: str) -> bool:
        """Return whether another row averages the states of this row's trainings."""
        return any(other.average and self.config.start_of(name) == row for name, other in self.config.rows.items())

    def out(self, job: Job) -> Path:
        """Return the folder of a run."""
        return self.config.runs / job.corpus / job.row / str(job.seed)

    def settings(self, corpus: str, row: str) -> Tree:
        """Return all settings that determine a row's results, by dotted key; records are compared with them."""
        config, own = self.config, self.config.rows[row]
        limits: Tree = {"train_s": config.train_s(corpus), "max_steps": config.budget.max_steps}
        found: Tree = {**limits, "validations": config.budget.validations}
        tree = flat(self._tree(corpus, row if own.trains else config.start_of(row)))
        found |= {key: value for key, value in tree.items() if key not in _RUNNERS or key == "init"}
        if config.start_of(row) != row:
            found["from"] = config.start_of(row)
        if own.share != 1:
            found["share"] = own.share
        found |= {f"decode.{key}": value for key, value in own.decode.items()}
        return found | ({"average": True} if own.average else {})

    def experiment(self, job: Job, steps: int) -> Tree:
        """Return the experiment that a run trains, as `asr train` reads it: what differs from the defaults."""
        tree, budget = self._tree(job.corpus, job.row), self.config.budget
        tree |= {"out": str(self.out(job)), "seed": job.seed}
        if self.start(job) != job:
            tree["init"] = str(self.out(self.start(job)) / "model")
        trainer = tree.setdefault("trainer", {})
        trainer.pop("max_epochs", None)
        trainer |= {"max_steps": steps, "validate_every_steps": -(-steps // budget.validations)}
        return tree

    def command(self, corpus: str, steps: int) -> str:
        """Return the shell command that trains base with the first seed, with one argument for each change."""
        job = Job(corpus, BASE, self.config.seeds[0])
        trainer = self.experiment(job, steps)["trainer"]
        changes = {**self._changes(corpus, BASE), "seed": job.seed, "trainer.max_steps": steps}
        changes |= {"trainer.validate_every_steps": trainer["validate_every_steps"]}
        changes |= {"trainer.max_epochs": None} if "max_epochs" in self._bases[corpus].get("trainer", {}) else {}
        words = (shlex.quote(f"{key}={json.dumps(value)}") for key, value in changes.items())
        return " ".join(["asr train", str(self.config.corpora[corpus].base), *words])

    @cached_property
    def _bases(self) -> dict[str, Tree]:
        return {corpus: read_tree(given.base) for corpus, given in self.config.corpora.items()}

    def _changes(self, corpus: str, row: str) -> Tree:
        trained = row if self.trains(row) else self.config.start_of(row)
        return {**self.config.set, **self.config.corpora[corpus].set, **self.config.rows[trained].set}

    def _tree(self, corpus: str, row: str) -> Tree:
        """Return base's YAML with the changes of a row that trains, without sections that a starting model brings."""
        tree = copy.deepcopy(self._bases[corpus])
        own = self.config.rows[row].set
        for key, value in self._changes(corpus, row).items():
            if key not in own:
                set_key(tree, key, copy.deepcopy(value), f"{self.source}: set")
        if self.config.start_of(row) != row:
            tree = {key: value for key, value in tree.items() if key not in BROUGHT}
        for key, value in own.items():
            set_key(tree, key, copy.deepcopy(value), self._named(row))
        return tree

    def _named(self, row: str) -> str:
        return f"{self.source}: row '{row}'"

    def _check(self, job: Job) -> None:
        named = self._named(job.row)
        for key in self._changes(job.corpus, job.row):
            if key in _RUNNERS:
                raise ConfigError(f"{named}: {key} is decided by the ablation: see budget, seeds, runs and from")
        if not self.trains(job.row):
            changed: Tree = {}
            for key, value in self.config.rows[job.row].decode.items():
                set_key(changed, key, value, named)
            validate(DecodeConfig, changed, named)
            return
        experiment = validate(ExperimentConfig, self.experiment(job, 1), named)
        if experiment.chosen_by not in self.measures:
            self.measures.append(experiment.chosen_by)
        if experiment.data.languages is not None and len(experiment.data.languages) > 1:
            raise ConfigError(f"{named}: data.languages must be one or none, for all cuts of dev and test are scored")

    def unknown(self, rows: Collection[str]) -> None:
        """Raise ConfigError for a name that is not a row."""
        for row in rows:
            if row not in self.config.rows:
                raise ConfigError(f"{self.source}: there is no row '{row}'; there are {', '.join(self.config.rows)}")
