"""Runs the cells of a study, here or on a cluster. What is finished is never run again, whatever was killed before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gptzoo.ablation.cells import CellSet, PlannedCell, PlannedStudy
from gptzoo.ablation.collecting import curve, last_value
from gptzoo.ablation.display import Display, Row
from gptzoo.ablation.hindsight import added_seeds, known_results, replaced_runs
from gptzoo.ablation.journal import Following, Journal
from gptzoo.ablation.launching import Launcher, Pool
from gptzoo.ablation.ledger import (
    CELLS,
    ENDED,
    OUTCOMES,
    PLAN,
    CellRecord,
    Ledger,
    changes_of_plan,
    copy_cell,
    edited,
    ended_cells,
    hash_of,
    read_cell,
    read_ledger,
    set_aside,
    text_of,
    write_ledger,
)
from gptzoo.ablation.past import Past
from gptzoo.ablation.plan import AA_ARM, AblationPlan, parse_plan
from gptzoo.ablation.planning import Planner
from gptzoo.ablation.timing import median_step
from gptzoo.ablation.worker import Job
from gptzoo.environment import changes
from gptzoo.errors import GPTZooError, Interrupted
from gptzoo.files import make_folder, sweep
from gptzoo.loading import load_plugins
from gptzoo.runs import RunDirectory
from gptzoo.runs.directory import RunLock


@dataclass(frozen=True)
class StudyRun:
    """What a call of `run_study` did.

    Args:
        folder: The study's.
        ran: Cells that ended now.
        kept: Cells that had ended before.
        copied: Cells that were found in another study.
        diverged: Of all cells.
        killed: Of all cells, at a rung.
        failed: Folder and reason of each cell that failed.
        refused: Name and reason of each arm whose parts do not fit; it has no cells.
        spared: Cells that no look asked for.
        saved: Share of the FLOPs of all seeds, trained to the end, that looks and rungs saved; None if unknown.
    """

    folder: Path
    ran: int
    kept: int
    copied: int
    diverged: int
    failed: Mapping[str, str]
    refused: Mapping[str, str]
    killed: int = 0
    spared: int = 0
    saved: float | None = None


def run_study(
    plan: AblationPlan,
    *,
    runs: str | os.PathLike[str] = "runs",
    workers: int | None = None,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    strict: bool = False,
    silence: float | None = None,
    console: Console | None = None,
    launcher: Launcher | None = None,
) -> StudyRun:
    """Run all cells of a plan that have not ended, into `runs/<plan's name>/`.

    Args:
        plan: As read; the first run freezes it.
        runs: Where studies stand.
        workers: Processes of one thread each; as many as there are cores unless given, one on an accelerator. On a
            cluster, cells at a time; as many as it takes unless given.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        strict: A broken plugin is an error even if nothing needs it.
        silence: Seconds without a step after which a cell has failed; None waits forever.
        console: Where progress is shown.
        launcher: Where the cells run: see `gptzoo.ablation.launching.launcher`. Worker processes here unless given.

    Raises:
        RunInUse: Another process runs this study.
        Interrupted: A signal came; the cells were saved.
        GPTZooError: The plan is wrong.
    """
    if workers is not None and workers < 1:
        raise GPTZooError(f"{workers} workers cannot run anything. Give 1 or more.", "--workers")
    planner = Planner(plan, load_plugins(plugins, folders, strict=strict))
    planner.study()  # what is wrong with the plan is said before anything is written
    folder = Path(runs) / plan.name
    make_folder(folder / CELLS)
    lock = RunLock(folder)
    try:
        sweep(folder)
        sweep(folder / CELLS)
        past, done = Past(folder, plan.metric), _Done()
        console = console or Console(highlight=False, soft_wrap=True)
        while True:
            study = planner.study(past)
            freeze(folder, study)
            done.tell(study, console)
            execution = _Execution(folder, study, [str(each) for each in plugins], [str(each) for each in folders])
            if not execution.run(launcher or Pool(), workers, silence, console, done):
                return done.told(execution, past)
    finally:
        lock.release()


def freeze(folder: Path, study: PlannedStudy) -> Ledger:
    """Write the plan beside its results, or compare it with the one that is there.

    Whatever changed beyond more seeds or arms is recorded, and makes the study exploratory for good; so do seeds that
    were added with verdicts in sight.
    """
    before, text = read_ledger(folder), text_of(study.plan, study.base)
    history = dict.fromkeys([*(before.history if before else ()), hash_of(text)])
    history[hash_of(text)] = history.pop(hash_of(text))  # the present one is last
    ledger = Ledger(
        plan=text,
        history=tuple(history),
        exploratory=tuple(in_hindsight(folder, study)),
        base_recipe=study.base_recipe,
        sets=tuple(_plain(each) for each in study.sets),
        journal=True,
    )
    Journal(folder).has_plan(hash_of(text))
    write_ledger(folder, ledger)
    return ledger


def in_hindsight(folder: Path, study: PlannedStudy) -> list[str]:
    """What makes the study of a folder exploratory if this is its plan from now on, one line each."""
    before = read_ledger(folder)
    if before is None:
        return list(known_results(folder))
    old = _frozen(folder, before)
    changed = changes_of_plan(old, old.base.plain(), study.plan, study.base)
    found = [
        *before.exploratory,
        *filter(None, [edited(folder, before)]),
        *(changed or replaced_runs(Journal(folder), before.sets, [_plain(each) for each in study.sets])),
        *added_seeds(folder, before.sets, old.seeds, study.plan.seeds),
    ]
    return list(dict.fromkeys(found))


def _frozen(folder: Path, ledger: Ledger) -> AblationPlan:
    """The plan as the ledger has it, even if the file beside it was edited."""
    return parse_plan(ledger.plan, str(folder / PLAN), folder.name)


def _plain(each: CellSet) -> dict[str, object]:
    """A set of cells as the ledger keeps it."""
    counted = {name: None if costs is None else asdict(costs) for name, costs in each.costs.items()}
    arms = [{**asdict(arm), "changes": dict(arm.changes), "costs": counted.get(arm.name)} for arm in each.arms]
    cells, before = ([_named(cell) for cell in some] for some in (each.cells, each.before))
    return {"match": each.match, "arms": arms, "cells": cells, "before": before, "notes": list(each.notes)}


def _named(cell: PlannedCell) -> dict[str, object]:
    kept = {"arm": cell.arm, "seed": cell.seed, "folder": cell.folder, "id": cell.id, "purpose": cell.purpose}
    return kept if cell.rate is None else {**kept, "rate": cell.rate}


def default_workers(study: PlannedStudy) -> int:
    """As many as there are cores for this process; one on an accelerator, and where time is what is matched."""
    if any("wall" in each.match for each in study.sets):
        return 1
    on_cpu = all(cell.environment["device"] == "cpu" for cell in study.cells)
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0)) if on_cpu else 1
    return (os.cpu_count() or 1) if on_cpu else 1


@dataclass
class _Done:
    """What was done in all stages: folders of cells, and lines that were printed."""

    ran: set[str] = field(default_factory=set)
    copied: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    lines: set[str] = field(default_factory=set)

    def tell(self, study: PlannedStudy, console: Console) -> None:
        """Print what became known with this stage."""
        for each in study.sets:
            matched = f" (matched by {each.match})" if len(study.sets) > 1 else ""
            for line in (f"{study.plan.name}: {line}{matched}" for line in each.told):
                if line not in self.lines:
                    self.lines.add(line)
                    console.print(escape(line))

    def told(self, last: _Execution, past: Past) -> StudyRun:
        for cell in last.study.cells:
            known = past.of(cell.folder, cell.id)
            if cell.purpose == "confirm" and known is not None and known.result(cell.arm, cell.seed) is None:
                self.failed[cell.folder] = f"its evaluations have no {past.metric}"
        records = {cell.folder: read_cell(last.path(cell)) for cell in last.cells}
        ended = {folder for folder, record in records.items() if record is not None and record.status in OUTCOMES}
        return StudyRun(
            folder=last.folder,
            ran=len(self.ran),
            kept=len(ended - self.ran - self.copied),
            copied=len(self.copied),
            diverged=sum(record is not None and record.status == "diverged" for record in records.values()),
            killed=sum(record is not None and record.status == "killed" for record in records.values()),
            failed=self.failed,
            refused={arm.name: arm.refused for each in last.study.sets for arm in each.arms if arm.refused},
            spared=sum(_spared(last.study.plan, each) for each in last.study.sets),
            saved=_saved(last.study, past),
        )


def _spared(plan: AblationPlan, each: CellSet) -> int:
    """Cells of a set that no look asked for."""
    names = {cell.arm for cell in each.cells}
    return len(names) * plan.seeds - len(each.cells)


def _saved(study: PlannedStudy, past: Past) -> float | None:
    """Share of the FLOPs of all cells to their end that was not spent."""
    whole = spent = 0.0
    for each in study.sets:
        cost: dict[str, float] = {}
        for cell in each.cells:
            counted = each.costs.get(study.plan.baseline if cell.arm == AA_ARM else cell.arm)
            if counted is None:
                return None
            known, steps = past.of(cell.folder, cell.id), cell.steps
            cost[cell.arm] = counted.flops_per_token * steps * cell.tokens_per_step
            killed = known is not None and known.status == "killed" and known.curve
            spent += cost[cell.arm] * (known.curve[-1].step / steps if known and killed else 1.0)
        whole += study.plan.seeds * sum(cost.values())
    return 1 - spent / whole if whole else None


class _Execution:
    """One stage of a study: the cells that are known and have not ended."""

    def __init__(self, folder: Path, study: PlannedStudy, plugins: Sequence[str], folders: Sequence[str]) -> None:
        self.folder, self.study, self.plugins, self.folders = folder, study, plugins, folders
        self.cells = study.cells

    def run(
        self, launcher: Launcher, workers: int | None, silence: float | None, console: Console | None, done: _Done
    ) -> bool:
        """Run them; whether that may have made others known."""
        states, journal = self.states(), Journal(self.folder)
        journal.found(cell.folder for cell in self.cells)
        copied = {cell.folder for cell, state in zip(self.cells, states, strict=True) if state == "copied"}
        done.copied |= copied
        waiting = self.first([index for index, state in enumerate(states) if state == "waiting"])
        if not waiting:
            return bool(copied)
        rows = [self.row(cell, state) for cell, state in zip(self.cells, states, strict=True)]
        jobs = [self.job(self.cells[index]) for index in waiting]
        timed = any(self.cells[index].purpose == "timing" for index in waiting)
        wanted = 1 if timed else workers or launcher.at_once(default_workers(self.study), len(jobs))
        at_once = max(1, min(wanted, len(jobs)))
        with Display(self.title(waiting), rows, waiting, at_once, self.result, console) as display:
            audience = Following(journal, [self.cells[index].folder for index in waiting], display)
            outcome = launcher.run(jobs, at_once, audience, silence=silence, folder=self.folder)
        if outcome.signal is not None:
            raise self.interrupted(outcome.signal)
        for job, (status, reason) in outcome.statuses.items():
            folder = self.cells[waiting[job]].folder
            if status == "failed":
                done.failed[folder] = reason
            else:
                done.ran.add(folder)
        return not done.failed

    def first(self, waiting: list[int]) -> list[int]:
        """What is timed runs alone, before everything else."""
        return [index for index in waiting if self.cells[index].purpose == "timing"] or waiting

    def title(self, waiting: Sequence[int]) -> str:
        """The study's name, and what is done before its cells are run."""
        purposes = sorted({self.cells[index].purpose for index in waiting})
        return self.study.plan.name if "confirm" in purposes else f"{self.study.plan.name}, {' and '.join(purposes)}"

    def path(self, cell: PlannedCell) -> Path:
        return self.folder / CELLS / cell.folder

    def states(self) -> list[str]:
        """What is there of each cell: `kept`, `copied` from elsewhere, or `waiting`."""
        elsewhere = ended_cells(self.folder.parent)
        return [self.state(cell, elsewhere.get(cell.id, [])) for cell in self.cells]

    def state(self, cell: PlannedCell, elsewhere: Sequence[Path]) -> str:
        path = self.path(cell)
        record = read_cell(path)
        if record is not None and record.id == cell.id:
            return "kept" if record.status in ENDED or self.is_killed(cell, record) else "waiting"
        if record is not None or (path / "recipe.yaml").exists():
            set_aside(path)
            elsewhere = list(ended_cells(self.folder.parent).get(cell.id, []))
        for source in elsewhere if cell.purpose != "timing" else ():
            if source != path and self.is_like_here(source, cell):
                copy_cell(source, path)
                return "copied"
        return "waiting"

    def is_killed(self, cell: PlannedCell, record: CellRecord) -> bool:
        """Whether it was killed at a rung that the plan still has."""
        points = curve(self.path(cell), self.study.plan.metric) if record.status == "killed" else []
        return bool(points) and points[-1].step in cell.limits

    def is_like_here(self, source: Path, cell: PlannedCell) -> bool:
        """Whether a cell was run where its numbers would be the same ones again."""
        made_in = RunDirectory.at(source, lock=False).read_environment()
        return not changes(made_in, cell.environment) and not made_in.get("changes")

    def row(self, cell: PlannedCell, state: str) -> Row:
        said = self.value(cell) if state != "waiting" else ""
        arm = cell.arm if cell.rate is None else f"{cell.arm} at {cell.rate:g}"
        return Row(arm, cell.seed, state, cell.steps, said=said)

    def job(self, cell: PlannedCell) -> Job:
        folder, metric = str(self.path(cell)), self.study.plan.metric
        read_at = self.study.plan.read_at if cell.purpose == "confirm" else 0
        return Job(folder, cell.id, cell.recipe, self.plugins, self.folders, cell.limits, metric, read_at)

    def result(self, index: int) -> str:
        return self.value(self.cells[index])

    def value(self, cell: PlannedCell) -> str:
        """`val_loss 2.2891`, or of a timed run `12.3 ms per step`, for people."""
        metric = self.study.plan.metric
        if cell.purpose == "timing":
            ended = Past(self.folder, metric).of(cell.folder, cell.id)
            step = median_step(ended.step_seconds) if ended else None
            return "too short to be timed" if step is None else f"{1000 * step:.3g} ms per step"
        value = last_value(self.path(cell), metric)
        return f"no {metric}" if value is None else f"{metric} {value:.4f}"

    def interrupted(self, number: int) -> Interrupted:
        ended = sum(
            (record := read_cell(self.path(cell))) is not None and record.status in OUTCOMES for cell in self.cells
        )
        what = f"stopped after {ended} of {len(self.cells)} cells; the others were saved"
        return Interrupted(f"{what}. Go on with: gptzoo ablate run {self.folder}", number)
