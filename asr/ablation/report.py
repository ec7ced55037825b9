"""The Markdown report of an ablation: error rates and differences, the cost of each row, and what each row is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from asr.ablation.figure import draw_differences
from asr.ablation.plan import Plan
from asr.ablation.results import Outcome, Results
from asr.ablation.statistics import Estimate
from asr.ablation.table import METRICS, Contest, Line, lines
from asr.config import BASE
from asr.errors import DataError
from asr.files import write_whole
from asr.scoring.rates import spelled

_NONE = "-"
_DIRTY = "-dirty"  # as `git describe` marks a checkout with changes
_HOW = """\
Each row is base with one change, trained with the same seeds for as many steps as take the same time; steps were timed
alone, taking turns with base. The best of {validations} validations by dev {by} is kept of each training, and test is
decoded once, with that model. `asr ablate {source}` trains the rows and writes this file.

Rates are means over the seeds, in per cent; lower is better. Their 95 % intervals cover both sources of chance: the
choice of utterances, by a bootstrap of 10,000 resamples, and seeds, by an analysis of variance and Student's t{seeds}.
A difference is the row's rate minus that of base, or of the row that is named. Its p is for this row alone: one in
twenty rows without any effect has p below 0.05. **Bold**: below 0.05 for all rows of the table together (Holm 1979).
Rows with a single seed so far are never bold."""
_COSTS = """\
Step: mean time of a training step, timed alone with {threads}. Training: wall time with validations, on a machine that
also did other work. Real-time factor: CPU seconds to decode a second of dev, on one thread, the lowest of the seeds:
other work on a shared processor only ever adds to it, so the least disturbed run says most. Rows whose runs were all
disturbed, or are from other revisions of the code, hardly compare. Diagonality: 1 minus the penalty of guided attention
(Tachibana et al. 2017, g = 0.2) on dev, with the reference texts fed to the decoder: mean over all heads of
cross-attention, and the highest of any head; evenly spread attention has 0.42. Losses: on dev, in nats per character,
without label smoothing."""


def write_report(plan: Plan, results: Results) -> None:
    """Write the Markdown file and, beside it, a figure for each corpus.  Raises DataError if there are no results."""
    tables = {corpus: lines(plan, results, corpus) for corpus in plan.config.corpora}
    tables = {corpus: found for corpus, found in tables.items() if any(line.outcomes for line in found)}
    if not tables:
        raise DataError(f"{results.path}: no results yet; asr ablate {plan.source} makes them")
    path = plan.config.report
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = ["# Ablation", _head(plan)]
    for corpus, found in tables.items():
        blocks += _of_corpus(plan, results, corpus, found)
    blocks += ["## The rows", "\n".join(_rows(plan, tables))]
    write_whole(path, "\n\n".join(blocks) + "\n")


def _head(plan: Plan) -> str:
    seeds = "" if len(plan.config.seeds) > 1 else "; with one seed, as here, the latter is unknown"
    by = " or ".join(name if name == "loss" else spelled(name) for name in plan.measures)
    return _HOW.format(validations=plan.config.budget.validations, by=by, source=plan.source, seeds=seeds)


def _of_corpus(plan: Plan, results: Results, corpus: str, found: Sequence[Line]) -> Iterator[str]:
    title, path = plan.config.corpora[corpus].title, plan.config.report
    yield f"## {corpus}" + (f": {title}" if title else "")
    yield f"{_circumstances(plan, corpus, found)}\n{_revisions(results, corpus, found)}"
    if steps := next((line.outcomes[0].steps for line in found if line.name == BASE and line.outcomes), None):
        yield "To train base by hand (a row adds its changes, and has its own number of steps):"
        yield f"    {plan.command(corpus, steps)}"
    if any(line.contests for line in found):
        figure = path.with_name(f"{path.stem}-{corpus}.png")
        draw_differences(figure, found, f"{corpus}: {title}" if title else corpus)
        yield f"![Differences of dev CER and WER, with 95 % intervals]({figure.name})"
        yield (
            "Green is better and red worse, with p below 0.05 for the row alone; a filled dot holds for all rows\n"
            "together. A row with a single seed so far is always grey. The line is base, or the row that is named."
        )
    yield _markdown(["row", *_rate_heads(), "seeds"], [_rates(plan, line) for line in found])
    threads = sorted({outcome.threads for line in found for outcome in line.outcomes})
    yield _COSTS.format(threads=" or ".join(f"{t} thread{'s' * (t != 1)}" for t in threads))
    yield _markdown(_COST_HEADS, [_costs(line) for line in found])


def _circumstances(plan: Plan, corpus: str, found: Sequence[Line]) -> str:
    """Return the budget, the sizes of dev and test, and the machines, as text."""
    outcomes = [outcome for line in found for outcome in line.outcomes]
    first = outcomes[0]
    splits = [("dev", first.dev), *([("test", first.test)] if first.test else [])]
    sizes = []
    for name, split in splits:
        words, characters = sum(split.wer.reference), sum(split.cer.reference)
        sizes.append(f"{name}: {len(split.wer.reference)} utterances, {words:,} words, {characters:,} characters")
    budget, train_s = plan.config.budget, plan.config.train_s(corpus)
    limits = [f"{train_s:,.0f} s of base's steps"] if train_s is not None else []
    limits += [f"{budget.max_steps:,} steps"] if budget.max_steps is not None else []
    machines = ", ".join(sorted({outcome.machine for outcome in outcomes}))
    return f"Budget: {' or '.join(limits)}. {'; '.join(sizes)}.\nMachine: {machines}."


def _revisions(results: Results, corpus: str, found: Sequence[Line]) -> str:
    """Return which revisions of the code the runs are from, in the order in which their results were written."""
    shown = {(line.name, outcome.seed) for line in found for outcome in line.outcomes}
    runs = [run for run in results.records if isinstance(run, Outcome) and run.corpus == corpus]
    runs = [run for run in runs if (run.row, run.seed) in shown]
    named = list(dict.fromkeys(_revision(run) for run in runs))
    of_base = list(dict.fromkeys(_revision(run) for run in runs if run.row == BASE))
    told = f"Revisions of the code: {len(named)}, " + (f"from {named[0]} to {named[-1]}" if named[1:] else named[0])
    told += f"; base is from {' and '.join(of_base)}" if named[1:] and of_base else ""
    dirty = sum(run.revision is not None and run.revision.endswith(_DIRTY) for run in runs)
    told += f"; {dirty} of {len(runs)} runs had uncommitted changes, as which new results count, too" if dirty else ""
    return f"{told}.\nA row's steps were timed once, before its first run: later revisions and seeds have as many."


def _revision(run: Outcome) -> str:
    return (run.revision or "unknown").removesuffix(_DIRTY)


def _rate_heads() -> list[str]:
    names = [name.upper() for name in METRICS]
    return [*(f"dev {n}" for n in names), *(f"{n} minus base's" for n in names), *(f"test {n}" for n in names)]


def _rates(plan: Plan, line: Line) -> list[str]:
    cells = [line.name]
    cells += [_rate(line.rate(metric, "dev")) for metric in METRICS]
    cells += [_difference(line, line.contests.get(metric)) for metric in METRICS]
    cells += [_rate(line.rate(metric, "test")) for metric in METRICS]
    failed = f", {len(line.failures)} failed" if line.failures else ""
    return [*cells, f"{len(line.outcomes)} of {len(plan.config.seeds)}{failed}"]


def _rate(estimate: Estimate | None) -> str:
    if estimate is None:
        return _NONE
    value, low, high = (100 * x for x in estimate)
    return f"{value:.2f} ({low:.1f} to {high:.1f})"


def _difference(line: Line, contest: Contest | None) -> str:
    if contest is None:
        return _NONE
    value, low, high = (100 * x for x in contest.difference.estimate)
    p = contest.difference.p
    text = f"{value:+.2f} ({low:+.1f} to {high:+.1f}), p {'< 0.001' if p < 0.001 else f'{p:.3f}'}"
    text = f"**{text}**" if contest.sure else text
    return text if line.against == BASE else f"{text} (minus {line.against}'s)"


_COST_HEADS = [
    *("row", "parameters", "step ms", "steps", "training s", "real-time factor"),
    *("diagonality", "best head", "dev CE", "dev CTC"),
]


def _costs(line: Line) -> list[str]:
    return [
        line.name,
        _number(line.mean("parameters"), ",.0f"),
        _number(line.step_s and 1000 * line.step_s, ".0f"),
        _number(line.mean("steps"), ",.0f"),
        _number(line.mean("train_s"), ",.0f"),
        _number(line.least("real_time_factor"), ".3f"),
        _number(line.mean("diagonality"), ".2f"),
        _number(line.mean("best_head_diagonality"), ".2f"),
        _number(line.mean_loss("ce"), ".3f"),
        _number(line.mean_loss("ctc"), ".3f"),
    ]


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


def _rows(plan: Plan, tables: dict[str, list[Line]]) -> Iterator[str]:
    """Yield a paragraph for each row: what it changes, what it needs, its note, and where it failed."""
    for name in plan.config.rows:
        of_row = [(corpus, line) for corpus, found in tables.items() for line in found if line.name == name]
        if not of_row:
            continue
        row = of_row[0][1].config
        told = [f"**{name}**: {row.title}." if row.title else f"**{name}**."]
        changes = {**row.set, **{f"decode.{key}": value for key, value in row.decode.items()}}
        told += [" ".join(f"`{key}={_yaml(value)}`" for key, value in changes.items()) + "."] if changes else []
        if plan.config.start_of(name) != name:
            how = "Trained on from" if row.trains else "The models of"
            told.append(f"{how} {plan.config.start_of(name)}{f', {row.share:g} of the budget' if row.trains else ''}.")
        told += [f"Needs {row.needs}."] if row.needs else []
        told += [f"Only for {', '.join(row.only)}."] if row.only else []
        told += [f"{row.note[0].upper()}{row.note[1:]}."] if row.note else []
        told += [_failure(corpus, line) for corpus, line in of_row if line.failures]
        yield "- " + " ".join(told)


def _failure(corpus: str, line: Line) -> str:
    reasons = " ".join(f"{reason}." for reason in dict.fromkeys(failed.reason.rstrip(".") for failed in line.failures))
    return f"Failed on {corpus} with seed {', '.join(str(failed.seed) for failed in line.failures)}: {reasons}"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))
