"""Timing of steps, to find out how many steps each row gets.

All rows shall train for the same time, but a run shall also be repeatable and resume after a kill as if nothing had
happened. Ending a training by the clock allows neither: the last step, and with it a cosine schedule that ends there,
would depend on the momentary load of the machine. So seconds are converted to steps once: each row is trained for a few
steps with nothing else running, with the same batches and in the same session as base, and gets as many steps as fit
into base's time. The number is recorded; to repeat a row, one takes the number and needs no clock. As only the ratio to
base counts, rows that are timed on another day or another machine stay comparable: base is timed again with them.

Costs that arise only later, as in a schedule that begins late, are missed.
Validations are not timed either; all runs have equally many. Rows that do not change the work of a step, such as
another learning rate, need no timing of their own: `timed_as`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lhotse import CutSet

from asr.ablation.plan import Plan, Tree
from asr.ablation.results import Job
from asr.config import BASE, set_key
from asr.data.cuts import read_split
from asr.errors import AsrError
from asr.files import Place, is_folder, to_place

Train = Callable[[Tree, Path], None]  # an experiment, and the path of its YAML, beside which its output goes
_NEVER = 1_000_000_000


def step_times(
    plan: Plan, corpus: str, rows: Sequence[str], train: Train, failed: Callable[[str, AsrError], None]
) -> dict[str, float]:
    """Measure the seconds of a step of base and of these rows, which take turns in each pass.

    failed: gets a row that cannot be trained, which is left out, and its error.  Raises AsrError if base fails or a
    training is killed.
    """
    times: dict[str, list[list[float]]] = {row: [] for row in dict.fromkeys([BASE, *rows])}
    for _ in range(plan.config.budget.passes):
        for row in list(times):
            try:
                times[row].append(_timed(plan, corpus, row, train))
            except AsrError as e:
                if row == BASE or getattr(e, "killed", False):
                    raise
                failed(row, e)
                del times[row]
    return {row: quickest(passes) for row, passes in times.items()}


def quickest(passes: Sequence[Sequence[float]]) -> float:
    """Return the mean step time, taking each step's quickest pass: other load on the machine only ever adds time."""
    steps = list(zip(*passes, strict=True))
    return sum(map(min, steps)) / len(steps)


def steps_within(
    plan: Plan, corpus: str, row: str, step_s: float | None, base_step_s: float | None, reference_s: float | None
) -> int:
    """Return the number of steps that the budget gives a row.

    step_s, base_step_s: step times of the row and of base, measured together.  reference_s: base's step time when base
    was given its steps; if base took longer this time, the machine is slower, and the budget is extended accordingly.
    """
    budget, share = plan.config.budget, plan.config.rows[row].share
    limits = []
    if budget.max_steps is not None:
        limits.append(budget.max_steps * share)
    if (train_s := plan.config.train_s(corpus)) is not None:
        assert step_s is not None
        assert base_step_s is not None
        assert reference_s is not None
        limits.append(train_s * share / reference_s * base_step_s / step_s)
    return max(1, round(min(limits)))


def _timed(plan: Plan, corpus: str, row: str, train: Train) -> list[float]:
    folder = plan.config.runs / corpus / ".timing"  # not a possible name of a row
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tree = _short(plan, corpus, row, folder)
    train(tree, folder / "run.yaml")
    seconds = _seconds(folder / "run" / "steps.jsonl", tree["trainer"].get("accumulate", 1))
    shutil.rmtree(folder)
    return seconds[plan.config.budget.untimed_steps :]


def _short(plan: Plan, corpus: str, row: str, folder: Path) -> Tree:
    """Return the row's experiment, shortened to a few steps and a validation on one cut at the end."""
    budget, jobs = plan.config.budget, [Job(corpus, row, seed) for seed in plan.config.seeds]
    job = next(filter(plan.may_start, jobs), jobs[0])
    tree = plan.experiment(job, budget.untimed_steps + budget.timed_steps)
    changes: Tree = {"out": str(folder / "run"), "data.dev": str(_one_cut(tree["data"], folder / "dev.jsonl"))}
    changes |= {"trainer.validate_every_steps": _NEVER, "trainer.save_every_steps": _NEVER}
    changes |= {"trainer.step_log": True, "trainer.plot_utterances": 0, "decode.beam_size": 1}
    for key, value in changes.items():
        set_key(tree, key, value, f"row '{row}'")
    return tree


def _one_cut(data: Tree, path: Path) -> Place:
    """Write a manifest of the dev cut of median length; return a Shar folder whole, as its audio is not in files."""
    dev = to_place(data["dev"])
    if is_folder(dev):
        return dev
    cuts = read_split(dev, data.get("languages"))
    CutSet.from_cuts([sorted(cuts, key=lambda cut: cut.duration)[len(cuts) // 2]]).to_file(path)
    return path


def _seconds(log: Path, batches: int) -> list[float]:
    """Return the seconds of each step, summed over its batches."""
    seconds = [float(json.loads(line)["seconds"]) for line in log.read_text(encoding="utf-8").splitlines()]
    return [sum(seconds[at : at + batches]) for at in range(0, len(seconds), batches)]
