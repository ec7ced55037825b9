"""Fill the tables of docs/methods.md with the ablation's results: `python -m docs.tables`.

A table is placed between `<!-- ablation: ROW ROW -->` and `<!-- end -->`, so that no figure is copied by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from asr.ablation.plan import Plan
from asr.ablation.results import Results
from asr.ablation.table import Line, lines
from asr.config import BASE, AblationConfig, read_config
from asr.errors import ConfigError
from asr.files import write_whole
from benchmarks.script import run_script

_TABLE = re.compile(r"(?P<head><!-- ablation: (?P<rows>[^>]*?) -->)\n.*?(?P<end><!-- end -->)", re.DOTALL)
_NONE = "-"

Table = Mapping[str, Line]


def filled(text: str, conf: Path) -> str:
    """Return the Markdown with its tables filled from an ablation's current results.

    Raises ConfigError for a row that the ablation does not have.
    """
    config = read_config(AblationConfig, conf)
    plan, results = Plan(config, conf), Results(config.results)
    corpora = {corpus: {line.name: line for line in lines(plan, results, corpus)} for corpus in config.corpora}
    corpora = {corpus: found for corpus, found in corpora.items() if any(line.outcomes for line in found.values())}

    def table(match: re.Match[str]) -> str:
        rows = match["rows"].split()
        if unknown := [row for row in rows if row not in config.rows]:
            raise ConfigError(f"{conf} has no row {', '.join(unknown)}, of which a table is wanted")
        return "\n".join([match["head"], *_table(rows, _with_results(rows, corpora)), match["end"]])

    return _TABLE.sub(table, text)


def _with_results(rows: Sequence[str], corpora: Mapping[str, Table]) -> Mapping[str, Table]:
    """Return the corpora on which a row other than base has results; all corpora if there is none."""
    others = [row for row in rows if row != BASE]
    found = {corpus for corpus, table in corpora.items() for row in others if row in table and table[row].outcomes}
    return {corpus: table for corpus, table in corpora.items() if corpus in found} or corpora


def _table(rows: Sequence[str], corpora: Mapping[str, Table]) -> Iterator[str]:
    heads = ["row", "step"]
    for corpus in corpora:
        heads += [f"{corpus} seeds", f"{corpus} WER", f"{corpus} CER", f"{corpus} CER minus {BASE}'s"]
    yield _line(heads)
    yield _line(["---", *["---:"] * (len(heads) - 1)])
    for row in rows:
        found = [table.get(row) for table in corpora.values()]
        yield _line([row, _step(found, corpora), *(cell for line in found for cell in _rates(line))])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _step(found: Sequence[Line | None], corpora: Mapping[str, Table]) -> str:
    """Return the time of a step relative to base, on the first corpus for which it is known."""
    for line, table in zip(found, corpora.values(), strict=True):
        if line and line.step_s and (base_s := table[BASE].step_s):
            return f"{line.step_s / base_s:.2f}"
    return _NONE


def _rates(line: Line | None) -> list[str]:
    if line is None or not line.outcomes:
        return [_NONE] * 4
    rates = [f"{100 * rate.value:.1f}" if (rate := line.rate(metric, "dev")) else _NONE for metric in ("wer", "cer")]
    seeds = str(len(line.outcomes))
    if (contest := line.contests.get("cer")) is None:
        return [seeds, *rates, _NONE]
    value, low, high = (100 * x for x in contest.difference.estimate)
    text = f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
    text = text if line.against == BASE else f"{text}, of {line.against}"
    return [seeds, *rates, f"**{text}**" if contest.sure else text]


def main(
    path: Annotated[Path, typer.Argument(help="Markdown whose tables are filled.")] = Path("docs/methods.md"),
    conf: Annotated[Path, typer.Option(help="The ablation.")] = Path("conf/ablation.yaml"),
) -> None:
    """Fill the tables between `<!-- ablation: ROW ROW -->` and `<!-- end -->`.

    Example: `python -m docs.tables`
    """
    text = filled(path.read_text(encoding="utf-8"), conf)
    write_whole(path, text)


if __name__ == "__main__":
    run_script(main)
