"""The stage that times arms, where a study is matched by seconds: short runs, and the steps that come of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gptzoo.ablation import timing
from gptzoo.ablation.arms import Made
from gptzoo.ablation.cells import PlannedCell
from gptzoo.ablation.making import CellMaker
from gptzoo.ablation.matching import Matcher
from gptzoo.ablation.past import Ended, Past
from gptzoo.ablation.stages import Stage
from gptzoo.ablation.timing import median_step, pace, windows
from gptzoo.errors import GPTZooError
from gptzoo.runs.directory import slug


@dataclass(frozen=True)
class Timer:
    """Times the arms of a plan.

    Args:
        matcher: Of the plan.
        past: What its cells have brought so far.
    """

    matcher: Matcher
    past: Past

    def timed(self, arms: Sequence[Made], maker: CellMaker) -> Stage:
        """The arms with as many steps as take the baseline's seconds, and the runs that tell, as far as the past does.

        Raises:
            GPTZooError: An arm sets its steps, or the baseline cannot be timed.
        """
        if "wall" not in maker.match:
            return Stage(arms)
        self.matcher.refuse_steps(arms)
        timed = [cell for cell in maker.known.values() if cell.purpose == "timing"]
        if any(self.past.of(cell.folder, cell.id) is None for cell in timed):
            return Stage(arms, ended=False)  # another set's arms are timed before, so that nothing runs beside them
        return self.beside_the_baseline(arms, maker)

    def beside_the_baseline(self, arms: Sequence[Made], maker: CellMaker) -> Stage:
        running = {each.arm.name: each for each in arms if each.made is not None}
        baseline = self.matcher.plan.baseline
        others = [name for name in running if name != baseline]
        runs = _Runs(running, baseline, self.past, maker.sketching())  # it looks at runs that there may never be
        found = windows(baseline, others, runs.has_ended)
        cells = tuple(runs.cell(arm, window) for arm, window in found.runs)
        maker.keep(cells)
        if not found.ended:
            return Stage(arms, ended=False, cells=cells)
        if others and not any(runs.step(arm, window) for arm, window in found.runs if arm == baseline):
            what = f"the baseline {baseline!r} diverged before its steps could be timed. Lower train.learning_rate."
            raise GPTZooError(what, f"{self.matcher.plan.file.shown}: match")
        paces = {arm: pace(arm, baseline, found.of[arm], runs.step) for arm in others}
        return Stage(self.matcher.wall(arms, paces), cells=cells)


@dataclass(frozen=True)
class _Runs:
    """The timed runs of arms, by arm and window."""

    arms: Mapping[str, Made]
    baseline: str
    past: Past
    maker: CellMaker

    def cell(self, arm: str, window: int) -> PlannedCell:
        """A few steps of the arm, and next to nothing else."""
        each, seed = self.arms[arm], timing.SEEDS + window
        assert each.made is not None
        never = dict.fromkeys(("eval_every", "eval_problems", "save_every", "sample_every"), 0)
        train = each.made.recipe.train
        short = replace(train, steps=timing.STEPS, eval_sequences=1, log_every=1, loggers=(), **never)
        made = replace(each.made, recipe=replace(each.made.recipe, train=short))
        stem = slug(arm) if arm == self.baseline else self.maker.stem(arm)  # all sets share its runs
        cell = self.maker.cell(replace(each, made=made), seed, folder=f"time-{stem}-{seed}")
        return replace(cell, purpose="timing")

    def result(self, arm: str, window: int) -> Ended | None:
        cell = self.cell(arm, window)
        return self.past.of(cell.folder, cell.id)

    def has_ended(self, arm: str, window: int) -> bool:
        return self.result(arm, window) is not None

    def step(self, arm: str, window: int) -> float | None:
        """The median of its steps, in seconds."""
        ended = self.result(arm, window)
        return median_step(ended.step_seconds) if ended else None
