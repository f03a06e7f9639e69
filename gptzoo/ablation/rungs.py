"""The rungs of a plan: how far behind each cell of an arm is killed, as far as the cells that set the limits tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptzoo.ablation import stopping
from gptzoo.ablation.cells import PlannedCell
from gptzoo.ablation.past import Past
from gptzoo.ablation.plan import AA_ARM, AblationPlan
from gptzoo.ablation.stopping import rung_step
from gptzoo.errors import GPTZooError


@dataclass(frozen=True)
class Rungs:
    """Those of a plan, which may have none.

    Args:
        plan: As read.
        past: What its cells have brought so far.
    """

    plan: AblationPlan
    past: Past

    def check(self, cells: Sequence[PlannedCell]) -> None:
        """Refuse rungs that no evaluation can see.

        Raises:
            GPTZooError: Some arm is not evaluated between a rung and its end.
        """
        for cell in cells:
            steps, every = cell.steps, cell.eval_every
            blind = [f"{rung:.0%}" for rung in self.plan.rungs if rung_step(rung, steps, every) is None]
            if blind:
                often = f"every {every}" if every else "at the end only"
                what = f"{cell.arm} trains for {steps} steps and is evaluated {often}"
                remedy = f"Write train: {{eval_every: {max(1, steps // 8)}}} in the base"
                what = f"{what}: never between {' or '.join(blind)} of them and the end. {remedy}, or fewer rungs."
                raise GPTZooError(what, f"{self.plan.file.shown}: rungs")

    def limits(self, cells: Sequence[PlannedCell]) -> dict[str, dict[int, float] | None]:
        """By folder, the limits of each cell of an arm; None if the cells that set them have not ended.

        The noise is that of the seeds up to the cell's own look, so that later seeds move no limit.

        Args:
            cells: All that the plan may come to.
        """
        plan = self.plan
        if not plan.rungs:
            return {}
        setters = [cell for cell in cells if self.sets_limits(cell)]
        ended = {(cell.arm, cell.place): self.past.of(cell.folder, cell.id) for cell in setters}
        steps = setters[0].steps
        curves = {key: each.shares(steps) for key, each in ended.items() if each and each.status == "done"}

        def of(cell: PlannedCell) -> dict[int, float] | None:
            until = next((look for look in plan.looks if cell.seed < look), plan.seeds)
            early = [key for key in ended if key[1] < until]
            if not all(ended[key] for key in early):
                return None
            own, controls = curves.get((plan.baseline, cell.seed), []), [curves[key] for key in early if key in curves]
            return stopping.limits(plan.rungs, cell.steps, cell.eval_every, own, controls, plan.higher_is_better)

        return {cell.folder: of(cell) for cell in cells if not self.sets_limits(cell)}

    def sets_limits(self, cell: PlannedCell) -> bool:
        """It shows the noise, and is never killed."""
        return cell.arm in (self.plan.baseline, AA_ARM)
