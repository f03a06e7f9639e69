"""The stage that verdicts rest on: every arm on every seed, look by look where a plan has looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gptzoo.ablation.arms import Made
from gptzoo.ablation.cells import AA_SEEDS, PlannedCell
from gptzoo.ablation.making import CellMaker
from gptzoo.ablation.past import Ended, Past
from gptzoo.ablation.plan import AA_ARM, AblationPlan
from gptzoo.ablation.rungs import Rungs
from gptzoo.ablation.sequential import Rules
from gptzoo.ablation.stages import Stage
from gptzoo.ablation.stopping import Course, at_looks


@dataclass(frozen=True)
class Confirmer:
    """Confirms what differs between the arms of a plan.

    Args:
        plan: As read.
        past: What its cells have brought so far.
    """

    plan: AblationPlan
    past: Past

    def confirmed(self, arms: Sequence[Made], maker: CellMaker) -> Stage:
        """The cells that verdicts rest on: all of them, or as far as the next look that can be taken.

        With rungs, the cells of arms wait until those of the baseline and the A/A arm, which set their limits.

        Raises:
            GPTZooError: No evaluation can see a rung.
        """
        cells = self.all_seeds([each for each in arms if each.made is not None], maker)
        rungs = Rungs(self.plan, self.past)
        rungs.check(cells)
        limits = rungs.limits(cells)
        cells = [replace(cell, limits=limits.get(cell.folder) or {}) for cell in cells]
        ended = {cell.folder: each for cell in cells if (each := self.result(cell))}
        course = self.course(cells, ended)
        live = (self.plan.baseline, *course.live) if course.live else ()
        wanted, expected = [], []
        for cell in cells:
            arm = self.plan.baseline if cell.arm == AA_ARM else cell.arm
            is_asked_for = cell.place < course.seeds[arm]
            waits = limits.get(cell.folder, {}) is None
            if cell.folder in ended or (is_asked_for and not waits):
                wanted.append(cell)
            elif is_asked_for or arm in live:
                expected.append(cell)
        return Stage(arms, cells=tuple(wanted), expected=tuple(expected), told=course.lines)

    def all_seeds(self, arms: Sequence[Made], maker: CellMaker) -> list[PlannedCell]:
        """Every cell that there may ever be, seed by seed, the A/A arm last."""
        cells = [maker.cell(each, seed) for seed in range(self.plan.seeds) for each in arms]
        if self.plan.aa:
            baseline = next(each for each in arms if each.arm.name == self.plan.baseline)
            fresh = range(AA_SEEDS, AA_SEEDS + self.plan.seeds)
            cells += [maker.cell(baseline, seed, arm=AA_ARM) for seed in fresh]
        return cells

    def result(self, cell: PlannedCell) -> Ended | None:
        """How it ended; None if it has not, or is to go on because the limit that it was killed at is gone."""
        ended = self.past.of(cell.folder, cell.id)
        return None if ended is None or ended.is_killed_beyond(cell.limits) else ended

    def course(self, cells: Sequence[PlannedCell], ended: Mapping[str, Ended]) -> Course:
        """How far each arm is to go by now."""
        plan, names = self.plan, list(dict.fromkeys(cell.arm for cell in cells if cell.arm != AA_ARM))
        if not plan.looks or len(names) < 2:
            return Course(dict.fromkeys(names, plan.seeds))
        names = [plan.baseline, *(name for name in names if name != plan.baseline)]
        over = [(cell, ended[cell.folder]) for cell in cells if cell.folder in ended and cell.arm != AA_ARM]
        results = [result for cell, each in over if (result := each.result(cell.arm, cell.seed))]
        return at_looks(names, results, Rules(plan.looks, plan.alpha, plan.delta), plan.higher_is_better)
