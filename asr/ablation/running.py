"""Running an ablation: whatever is not in the results yet is timed, trained and measured."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

from asr.ablation.commands import CommandError, Commands
from asr.ablation.measure import FOUND, Measuring
from asr.ablation.plan import Plan, Tree
from asr.ablation.results import Failed, Job, Outcome, Results, Steps, same
from asr.ablation.timing import step_times, steps_within
from asr.config import BASE
from asr.errors import AsrError
from asr.files import write_whole
from asr.machine import cores, processor
from asr.progress import OnDone, unseen
from asr.training.finish import git_revision

_LOOK_EVERY_S = 0.5
_TIMED_TOGETHER = 4  # rows, beside base
_MEASURING = 0.1  # relative to the time of a training


@dataclass
class Progress:
    """Shows progress: a line for each event, and the amount of work done, in units of a training with full budget."""

    say: Callable[[str], None] = print
    on_done: OnDone = unseen
    total: float = 0.0
    done: float = 0.0
    running: dict[Job, float] = field(default_factory=dict)  # start time of each
    took_s: list[float] = field(default_factory=list)  # seconds of each run so far, scaled to the full budget

    def look(self) -> None:
        """Show the progress; running trainings are estimated by the time that others took."""
        usual_s = sum(self.took_s) / len(self.took_s) if self.took_s else float("inf")
        now = time.monotonic()
        part = sum(min(0.95, (now - began) / usual_s) for began in self.running.values())
        self.on_done(self.done + part, self.total)


class Runner:
    """Brings the results of a plan up to date.

    jobs: number of parallel runs, which share the cores.  Each run is a separate process, as if `asr train` had been
    called by hand, so that its memory is freed and a crash affects no other run; its output goes to a file beside its
    folder.  Steps are timed while nothing else runs, before the runs of a wave.  A finished run keeps its model, its
    logs and its recognised texts; its training states, which are large, are deleted unless a row is to average them.
    """

    def __init__(self, plan: Plan, results: Results, commands: Commands, jobs: int, progress: Progress) -> None:
        self.plan, self.results, self.commands, self.jobs = plan, results, commands, jobs
        self.threads = max(1, cores() // jobs)
        self.progress = progress
        self.machine = f"{processor(torch.device('cpu'))}, {cores()} cores"
        self.problems: list[str] = []

    def run(self, only: Collection[str] = ()) -> bool:
        """Do the remaining work; return whether everything asked for has a result now."""
        waves = [w for corpus in self.plan.config.corpora for w in self.plan.waves(corpus, only)]
        left = [[job for job in wave if self._is_open(job)] for wave in waves]
        self.progress.total = sum(self._weight(job) for wave in left for job in wave)
        for wave in filter(None, left):
            self._time(wave)
            self._side_by_side([job for job in wave if self._may_start(job)])
        return not self.problems and not any(self.results.failure(job) for wave in waves for job in wave)

    def _is_open(self, job: Job) -> bool:
        return self.results.outcome(job) is None and self.results.failure(job) is None

    def _weight(self, job: Job) -> float:
        return (self.plan.config.rows[job.row].share if self.plan.trains(job.row) else 0.0) + _MEASURING

    def _may_start(self, job: Job) -> bool:
        if not self._can_start(job):
            start = self.plan.start(job)
            why = "its model is not on this machine" if self.results.outcome(start) else "it has no result"
            self._problem(f"{job}: left out, for it needs {start}, and {why}")
            return False
        return not self.plan.trains(job.row) or self.results.steps(job.corpus, job.row) is not None

    def _can_start(self, job: Job) -> bool:
        start = self.plan.start(job)
        return self.plan.may_start(job) and (start == job or self.results.outcome(start) is not None)

    def _problem(self, line: str) -> None:
        self.problems.append(line)
        self.progress.say(line)

    # ---- timing ------------------------------------------------------------------------------------------------

    def _time(self, wave: Sequence[Job]) -> None:
        """Determine how many steps the rows of a wave get, if that is unknown, timing a few rows at a time."""
        corpus, seeds = wave[0].corpus, self.plan.config.seeds
        rows = [row for row in dict.fromkeys(job.row for job in wave) if self.plan.trains(row)]
        rows = [row for row in rows if self.results.steps(corpus, row) is None]
        rows = [row for row in rows if any(self._can_start(Job(corpus, row, seed)) for seed in seeds)]
        timed = [
            row for row in dict.fromkeys(map(self.plan.config.timed_as, rows)) if not self.results.steps(corpus, row)
        ]
        for at in range(0, len(timed), _TIMED_TOGETHER):
            self._time_together(corpus, timed[at : at + _TIMED_TOGETHER])
        for row in rows:
            self._note_as(corpus, row, self.plan.config.timed_as(row))

    def _time_together(self, corpus: str, rows: Sequence[str]) -> None:
        times: dict[str, float] = {}
        if self.plan.config.budget.timed_steps:
            self.progress.say(f"{corpus}: timing steps of {', '.join(rows)}")

            def failed(row: str, error: AsrError) -> None:
                for seed in self.plan.config.seeds:
                    self._fail(Job(corpus, row, seed), str(error))

            times = step_times(self.plan, corpus, rows, self._train, failed)
        known = self.results.steps(corpus, BASE)
        reference_s = known.step_s if known else times.get(BASE)
        for row in dict.fromkeys([*([] if known else [BASE]), *rows]):
            if not times or row in times:
                self._note_steps(corpus, row, times, reference_s)

    def _note_as(self, corpus: str, row: str, timed: str) -> None:
        """Give a row the step time of the row that was timed for it, if that is another one and did not fail."""
        found, base = self.results.steps(corpus, timed), self.results.steps(corpus, BASE)
        if timed == row:
            return
        if found is None or base is None:
            self._problem(f"{corpus}/{row}: left out, for its steps are timed as those of {timed}, which failed")
            return
        times = {row: found.step_s, BASE: found.base_step_s}
        self._note_steps(corpus, row, times, base.step_s)

    def _note_steps(self, corpus: str, row: str, times: Mapping[str, float | None], reference_s: float | None) -> None:
        step_s, base_step_s = times.get(row), times.get(BASE)
        steps = steps_within(self.plan, corpus, row, step_s, base_step_s, reference_s)
        settings = self.plan.settings(corpus, row)
        found = {"step_s": step_s, "base_step_s": base_step_s, "steps": steps, "threads": self.threads}
        self.results.add(Steps(corpus=corpus, row=row, settings=settings, machine=self.machine, **found))
        timed = f", {1000 * step_s:.0f} ms each" if step_s else ""
        self.progress.say(f"{corpus}/{row}: {steps:,} steps{timed}")

    # ---- runs --------------------------------------------------------------------------------------------------

    def _side_by_side(self, jobs: Sequence[Job]) -> None:
        with ThreadPoolExecutor(self.jobs) as pool:
            waiting = {pool.submit(self._run, job): job for job in jobs}
            try:
                while waiting:
                    done, _ = wait(waiting, _LOOK_EVERY_S, FIRST_COMPLETED)
                    for future in done:
                        self._note(waiting.pop(future), future)
                    self.progress.look()
            except BaseException:
                for future in waiting:
                    future.cancel()
                self.commands.stop()
                raise

    def _run(self, job: Job) -> Outcome:
        self.progress.running[job] = time.monotonic()
        out = self.plan.out(job)
        out.mkdir(parents=True, exist_ok=True)
        steps = self.results.steps(job.corpus, job.row) if self.plan.trains(job.row) else None
        if steps is not None:
            self._train(self.plan.experiment(job, steps.steps), out.with_suffix(".yaml"))
        made_by = out if steps is not None else self.plan.out(self.plan.start(job))
        task = Measuring(
            run=made_by,
            average=self.plan.config.rows[job.row].average,
            decode=self.plan.config.rows[job.row].decode,
            test=self.plan.config.corpora[job.corpus].test,
            out=out,
        )
        path = out / "measure.json"
        path.write_text(task.model_dump_json(), encoding="utf-8")
        self.commands.run(["asr.ablation", str(path)], out.with_suffix(".log"), 1)
        return self._outcome(job, out, steps)

    def _train(self, experiment: Tree, path: Path) -> None:
        """Train or resume with `asr train`; its output goes beside the YAML."""
        write_whole(path, yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True))
        self.commands.run(["asr", "train", str(path)], path.with_suffix(".log"), self.threads)

    def _outcome(self, job: Job, out: Path, steps: Steps | None) -> Outcome:
        found = json.loads((out / FOUND).read_text(encoding="utf-8"))
        run = json.loads((out / "run.json").read_text(encoding="utf-8")) if steps is not None else {}
        told = {"steps": run.get("steps"), "train_s": run.get("wall_s")}
        optional = {"test": None, "best_step": None, "diagonality": None, "best_head_diagonality": None}
        settings = self.plan.settings(job.corpus, job.row)
        made = {"threads": self.threads, "machine": self.machine, "revision": git_revision()}
        return Outcome(**job._asdict(), settings=settings, **made, **told, **{**optional, **found})

    def _note(self, job: Job, future: Future[Outcome]) -> None:
        """Record the result or the failure of a run; a run that was killed has neither."""
        took_s = time.monotonic() - self.progress.running.pop(job, time.monotonic())
        self.progress.done += self._weight(job)
        try:
            outcome = future.result()
        except CommandError as e:
            if e.killed:
                self._problem(f"{job}: was ended ({e}); the same command goes on with it")
                return
            reason = str(e)
        except AsrError as e:
            reason = str(e)
        else:
            self.results.add(outcome)
            if self.plan.trains(job.row) and not self.plan.averaged(job.row):
                shutil.rmtree(self.plan.out(job) / "states", ignore_errors=True)
            self.progress.took_s.append(took_s / self._weight(job))
            rates = ", ".join(f"{name.upper()} {100 * _rate(outcome, name):.2f}" for name in ("wer", "cer"))
            self.progress.say(f"{job}: dev {rates}, {took_s:.0f} s")
            return
        self._fail(job, reason)

    def _fail(self, job: Job, reason: str) -> None:
        self.results.add(Failed(**job._asdict(), settings=self.plan.settings(job.corpus, job.row), reason=reason))
        self.progress.say(f"{job}: failed: {reason}")


def check_settings(plan: Plan, results: Results, only: Collection[str]) -> None:
    """Raise AsrError if a row's records have other settings than the YAML has now.  only: as for `Runner.run`."""
    if only:
        needed = (plan.config.start_of, plan.config.opponent_of, plan.config.timed_as)
        only = {BASE, *only, *(other(row) for row in only for other in needed)}
    stale: dict[str, list[str]] = {}
    for record in results.records:
        row, corpus = record.row, record.corpus
        if corpus in plan.config.corpora and row in plan.rows(corpus) and (not only or row in only):
            now, then = plan.settings(corpus, row), record.settings
            changed = [key for key in {**now, **then} if not same(now.get(key), then.get(key))]
            if changed:
                stale.setdefault(row, changed)
    if stale:
        keys = ", ".join(dict.fromkeys(key for changed in stale.values() for key in changed))
        raise AsrError(
            f"{results.path}: results of {', '.join(stale)} were made with other settings ({keys}): "
            f"--again {','.join(stale)} drops them and makes them anew"
        )


def forget(plan: Plan, results: Results, rows: Collection[str]) -> None:
    """Drop the results and runs of these rows and of those that start from them.

    The steps of base are kept as long as its settings are the same: the budget of all other rows depends on them.
    """
    rows = {row for row in plan.config.rows if row in rows or plan.config.start_of(row) in rows}
    kept = [
        steps
        for corpus in plan.config.corpora
        if (steps := results.steps(corpus, BASE)) and same(steps.settings, plan.settings(corpus, BASE))
    ]
    results.drop(lambda record: record.row in rows and record not in kept)
    for corpus in plan.config.corpora:
        for row in rows:
            shutil.rmtree(plan.config.runs / corpus / row, ignore_errors=True)


def _rate(outcome: Outcome, name: str) -> float:
    found = getattr(outcome.dev, name)
    return sum(found.errors) / max(1, sum(found.reference))
