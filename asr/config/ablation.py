"""The options of an ablation: what `asr ablate` trains, for how long, and what it compares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from .base import Config, Location

BASE = "base"

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")]  # also the name of a folder
Changes = dict[str, Any]

_NEEDS_TIMING = "train_s needs timed_steps: how many steps fit into it has to be found out"


def _changes(where: str) -> str:
    return f"changes to the experiment {where}, by dotted key, such as {{model.encoder.layers: 4}}"


class BudgetConfig(Config):
    """The budget of each training; with both limits, the one that is reached first counts."""

    train_s: float | None = Field(
        None,
        gt=0,
        description="seconds of a training's steps, measured by the step time of base; a row whose steps take twice "
        "as long gets half as many",
    )
    max_steps: int | None = Field(None, gt=0, description="optimiser steps of a training; give this, train_s or both")
    validations: int = Field(
        8,
        gt=0,
        description="validations of each training, evenly spaced; the state that is best in them becomes its model",
    )
    timed_steps: int = Field(
        100, ge=0, description="steps of each row that are timed; 0: none, for a budget of max_steps alone"
    )
    untimed_steps: int = Field(20, ge=0, description="steps before the timed ones, to warm up caches and pipelines")
    passes: int = Field(2, gt=0, description="how often the steps are timed; each step's fastest pass counts")

    @model_validator(mode="after")
    def _has_an_end(self) -> BudgetConfig:
        if self.train_s is None and self.max_steps is None:
            raise ValueError("give train_s or max_steps")
        if self.train_s is not None and not self.timed_steps:
            raise ValueError(_NEEDS_TIMING)
        return self


class CorpusConfig(Config):
    """The base experiment of all rows on one corpus, and what is scored besides its data.dev."""

    base: Path = Field(description="YAML file of the experiment, as for asr train")
    test: Location | None = Field(None, description="manifest that each run decodes once, at its end")
    title: str = Field("", description="description of the corpus, for the headings of the report")
    set: Changes = Field({}, description=_changes("in all rows of this corpus"))
    train_s: float | None = Field(
        None, gt=0, description="replaces budget.train_s on this corpus, if it needs longer trainings"
    )


class RowConfig(Config):
    """One change.  A row trains its own model, unless it only decodes with another row's model or averages its states.

    A row that continues training another row's model takes `share` of the budget in addition to that row's own. The
    additional time alone would help: compare it, by `against`, with a row that continues without the change.
    """

    model_config = ConfigDict(populate_by_name=True)

    title: str = Field("", description="description of the change, for the report")
    note: str = Field("", description="a sentence on the result and its reason, for the report")
    needs: str = Field("", description="what the change needs besides the corpus, such as a CTC head, for the report")
    set: Changes = Field({}, description=_changes("that this row trains with"))
    decode: Changes = Field(
        {},
        description="changes to decode, such as {beam_size: 20}; nothing is trained: the model of `from` decodes with "
        "them",
    )
    average: bool = Field(
        False, description="nothing is trained: the average of the best states of `from` decodes (asr average)"
    )
    from_: str | None = Field(
        None,
        alias="from",
        description="row whose model this one continues to train, or decodes with; default: none, or base if nothing "
        "is trained",
    )
    share: float = Field(
        1.0, gt=0, description="with `from` and `set`: share of the budget that the further training takes"
    )
    against: str | None = Field(
        None, description="row that it is compared with; default: base, or `from` if nothing is trained"
    )
    only: tuple[str, ...] = Field((), description="corpora that the row is for; empty: all of them")
    timed_as: str | None = Field(
        None,
        description="row whose steps take equally long and which is timed for both; default: the row is timed itself",
    )

    @property
    def trains(self) -> bool:
        """Whether the row trains weights of its own."""
        return not self.decode and not self.average

    @model_validator(mode="after")
    def _one_kind(self) -> RowConfig:
        if self.set and not self.trains:
            raise ValueError("decode and average use a model as it is, set trains one: put decode.* keys into set")
        if (not self.trains or self.from_ is None) and "share" in self.model_fields_set:
            raise ValueError("share is for rows that train on from another row")
        return self


class AblationConfig(Config):
    """An ablation: every row is trained with every seed on every corpus, all for the same time."""

    runs: Path = Field(description="folder of the trainings, with a subfolder for each corpus, row and seed")
    results: Path = Field(description="file of results, one JSON object per line; small, to be kept with the recipe")
    report: Path = Field(description="Markdown file that is written from the results, with figures beside it")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 1, 2), min_length=1, description="each row is trained with each of these seeds"
    )
    budget: BudgetConfig = Field(description="limits of each training")
    set: Changes = Field({}, description=_changes("in all rows, base included"))
    corpora: dict[Name, CorpusConfig] = Field(min_length=1, description="corpora to train on, by name")
    rows: dict[Name, RowConfig] = Field(
        {}, description="changes to compare, by name; base is always a row, even if it is not listed"
    )

    @model_validator(mode="before")
    @classmethod
    def _base_is_the_first_row(cls, tree: Any) -> Any:
        rows = tree.get("rows") if isinstance(tree, dict) else None
        if rows is None or isinstance(rows, dict):
            rows = rows or {}
            tree = {**tree, "rows": {BASE: rows.get(BASE) or {}, **{n: row for n, row in rows.items() if n != BASE}}}
        return tree

    @model_validator(mode="after")
    def _rows_fit(self) -> AblationConfig:
        if not self.budget.timed_steps and any(corpus.train_s for corpus in self.corpora.values()):
            raise ValueError(_NEEDS_TIMING)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given twice")
        base = self.rows[BASE]
        if base.model_fields_set - {"title", "note", "needs"}:
            raise ValueError("row 'base' changes nothing: put what all rows have into set")
        for name, row in self.rows.items():
            self._check(name, row)
        return self

    def _check(self, name: str, row: RowConfig) -> None:
        for key, other in (("from", row.from_), ("against", row.against), ("timed_as", row.timed_as)):
            if other is not None and (other not in self.rows or other == name):
                raise ValueError(f"row '{name}': {key}: there is no other row '{other}'")
        timed = self.rows[self.timed_as(name)]
        if row.timed_as is not None and not (row.trains and timed.trains and timed.timed_as is None):
            raise ValueError(
                f"row '{name}': timed_as: row '{row.timed_as}' is not one that is trained and timed itself"
            )
        start = self.rows[self.start_of(name)]
        if not start.trains or (row.trains and start.from_ is not None):
            raise ValueError(f"row '{name}': from: '{row.from_}' does not train a model from the start")
        for corpus in row.only:
            if corpus not in self.corpora:
                raise ValueError(f"row '{name}': only: there is no corpus '{corpus}'")
        for corpus in self.corpora_of(name):
            for other in (self.start_of(name), self.opponent_of(name), self.timed_as(name)):
                if corpus not in self.corpora_of(other):
                    raise ValueError(f"row '{name}': row '{other}', which it needs, is not for corpus '{corpus}'")

    def corpora_of(self, row: str) -> tuple[str, ...]:
        """Return the corpora that a row is for."""
        return self.rows[row].only or tuple(self.corpora)

    def train_s(self, corpus: str) -> float | None:
        """Return the budget of a run on a corpus, in seconds of base's training steps."""
        return self.corpora[corpus].train_s or self.budget.train_s

    def start_of(self, name: str) -> str:
        """Return the row whose model a row starts from or uses, its own name if there is none."""
        row = self.rows[name]
        return row.from_ or (name if row.trains else BASE)

    def timed_as(self, name: str) -> str:
        """Return the row whose steps are timed for a row, its own name if it is timed itself."""
        return self.rows[name].timed_as or name

    def opponent_of(self, name: str) -> str:
        """Return the row that a row is compared with."""
        row = self.rows[name]
        return row.against or (BASE if row.trains else self.start_of(name))
