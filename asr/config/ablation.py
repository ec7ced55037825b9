"""The options of an ablation: what `asr ablate` trains, for how long, and what is compared with what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from .base import Config, Location

BASE = "base"

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")]  # it is a folder's, too
Changes = dict[str, Any]

_NEEDS_TIMING = "train_s needs timed_steps: how many steps fit into it has to be found out"


def _changes(where: str) -> str:
    return f"changes of an experiment {where}, by dotted key, such as {{model.encoder.layers: 4}}"


class BudgetConfig(Config):
    """What each training may take; with both limits, the one that is reached first."""

    train_s: float | None = Field(
        None,
        gt=0,
        description="seconds of a training's steps, by the time of a step of base; a row whose steps take twice as "
        "long gets half as many",
    )
    max_steps: int | None = Field(None, gt=0, description="optimiser steps of a training; give this, train_s or both")
    validations: int = Field(
        8, gt=0, description="validations of each training, evenly spread; the best one's state is its model"
    )
    timed_steps: int = Field(
        100, ge=0, description="steps of each row that are timed; 0: none, for a budget of max_steps alone"
    )
    untimed_steps: int = Field(20, ge=0, description="steps before the timed ones, in which caches and pipelines fill")
    passes: int = Field(2, gt=0, description="times that the steps are timed; of each step the quickest counts")

    @model_validator(mode="after")
    def _has_an_end(self) -> BudgetConfig:
        if self.train_s is None and self.max_steps is None:
            raise ValueError("give train_s or max_steps")
        if self.train_s is not None and not self.timed_steps:
            raise ValueError(_NEEDS_TIMING)
        return self


class CorpusConfig(Config):
    """What all rows start from on one corpus, and what is scored beside its data.dev."""

    base: Path = Field(description="YAML of an experiment, as for asr train")
    test: Location | None = Field(None, description="manifest that each run decodes once, at its end")
    title: str = Field("", description="what the corpus is, for the headings of the report")
    set: Changes = Field({}, description=_changes("in all rows of this corpus"))
    train_s: float | None = Field(
        None, gt=0, description="seconds in place of budget.train_s, for a corpus that takes longer"
    )


class RowConfig(Config):
    """One change.  A row trains a model of its own, unless all it has is another way to use that of another row.

    A row that trains on from another row's model takes `share` of the budget on top of what that one took. More time
    alone would help: hold it `against` a row that trains on without the change.
    """

    model_config = ConfigDict(populate_by_name=True)

    title: str = Field("", description="what is changed, for the table")
    note: str = Field("", description="a sentence on what came out, and why")
    needs: str = Field("", description="what it takes beside the corpus, such as a CTC head, for the report")
    set: Changes = Field({}, description=_changes("that this row trains with"))
    decode: Changes = Field(
        {}, description="changes of decode, such as {beam_size: 20}: nothing is trained, the model of `from` decodes so"
    )
    average: bool = Field(
        False, description="nothing is trained: the mean of the best states of `from` decodes (asr average)"
    )
    from_: str | None = Field(
        None,
        alias="from",
        description="row whose model this one trains on from, or decodes with; default: none, and base where nothing "
        "is trained",
    )
    share: float = Field(
        1.0, gt=0, description="with `from` and `set`: part of the budget that the further training takes"
    )
    against: str | None = Field(
        None, description="row that it is compared with; default: base, or `from` where nothing is trained"
    )
    only: tuple[str, ...] = Field((), description="corpora that it is for; empty: all of them")
    timed_with: Changes = Field(
        {}, description=_changes("while it is timed, where a schedule makes its steps dearer later on")
    )
    timed_as: str | None = Field(
        None, description="row whose steps take as long, and which is timed for both; default: it is timed itself"
    )

    @property
    def trains(self) -> bool:
        """Whether it makes weights of its own."""
        return not self.decode and not self.average

    @model_validator(mode="after")
    def _one_kind(self) -> RowConfig:
        if self.set and not self.trains:
            raise ValueError("decode and average use a model as it is, set trains one: put decode.* keys into set")
        if (not self.trains or self.from_ is None) and "share" in self.model_fields_set:
            raise ValueError("share is for rows that train on from another row")
        return self


class AblationConfig(Config):
    """Rows times seeds times corpora, all for the same time."""

    runs: Path = Field(description="folder of the trainings, a folder in it for each corpus, row and seed")
    results: Path = Field(description="file of results, a JSON object a line; small, to be kept with the recipe")
    report: Path = Field(description="Markdown file that is written from the results, with figures beside it")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 1, 2), min_length=1, description="each row is trained with each of these seeds"
    )
    budget: BudgetConfig = Field(description="what each training may take")
    set: Changes = Field({}, description=_changes("in all rows, base included"))
    corpora: dict[Name, CorpusConfig] = Field(min_length=1, description="what is trained on, by name")
    rows: dict[Name, RowConfig] = Field({}, description="what is changed, by name; base is a row, written or not")

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
        """The corpora that a row is for."""
        return self.rows[row].only or tuple(self.corpora)

    def train_s(self, corpus: str) -> float | None:
        """The seconds of base's training steps that a run on a corpus may take."""
        return self.corpora[corpus].train_s or self.budget.train_s

    def start_of(self, name: str) -> str:
        """The row whose model a row starts from or uses; its own name where it starts from nothing."""
        row = self.rows[name]
        return row.from_ or (name if row.trains else BASE)

    def timed_as(self, name: str) -> str:
        """The row whose steps are timed for a row: its own name, where it is timed itself."""
        return self.rows[name].timed_as or name

    def opponent_of(self, name: str) -> str:
        """The row that a row is compared with."""
        row = self.rows[name]
        return row.against or (BASE if row.trains else self.start_of(name))
