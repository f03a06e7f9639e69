"""The stage that tunes arms: short runs of each at some learning rates, and the rates that come of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gptzoo.ablation.arms import Made, Resolver
from gptzoo.ablation.cells import PlannedCell
from gptzoo.ablation.making import CellMaker
from gptzoo.ablation.past import Past
from gptzoo.ablation.plan import AblationPlan
from gptzoo.ablation.stages import Stage
from gptzoo.ablation.tuning import Tries, Try, news, score_of, told, tune


@dataclass(frozen=True)
class Tuner:
    """Tunes the arms of a plan.

    Args:
        resolver: Of the plan.
        past: What its cells have brought so far.
    """

    resolver: Resolver
    past: Past

    @property
    def plan(self) -> AblationPlan:
        return self.resolver.plan

    def tuned(self, arms: Sequence[Made], maker: CellMaker) -> Stage:
        """The arms at the learning rates that tuning finds, and its runs, as far as the past tells."""
        if self.plan.tune is None:
            return Stage(arms)
        running = {each.arm.name: each for each in arms if each.made is not None}
        starts = {name: each.made.recipe.train.learning_rate for name, each in running.items() if each.made}

        def cell(arm: str, each: Try) -> PlannedCell:
            return self.cell(running[arm], each, maker)

        progress = tune(starts, self.plan.tune, lambda arm, each: self.score(cell(arm, each)))
        if progress.choices is not None:
            arms = self.at_rates(arms, {name: choice.rate for name, choice in progress.choices.items()})
        return Stage(
            arms,
            ended=progress.choices is not None,
            cells=tuple(cell(arm, each) for arm, each in _in_turn(progress.tries)),
            expected=tuple(cell(arm, each) for arm, each in _in_turn(progress.expected)),
            notes=tuple(filter(None, [told(progress, self.plan.tune)])),
            told=tuple(news(progress)),
        )

    def score(self, cell: PlannedCell) -> float | None:
        ended = self.past.of(cell.folder, cell.id)
        return ended and score_of(ended.value, higher_is_better=self.plan.higher_is_better)

    def cell(self, each: Made, try_: Try, maker: CellMaker) -> PlannedCell:
        """A run of the arm as it is, only shorter; its evaluations are as many."""
        assert each.made is not None
        assert self.plan.tune is not None
        share, train = self.plan.tune.share, each.made.recipe.train
        few = {"steps": _part(train.steps, share), "eval_every": _part(train.eval_every, share), "sample_every": 0}
        short = replace(train, learning_rate=try_.rate, **few)
        made = replace(each.made, recipe=replace(each.made.recipe, train=short))
        folder = f"tune-{maker.stem(each.arm.name)}-{try_.rate:g}-{try_.seed}"
        cell = maker.cell(replace(each, made=made), try_.seed, folder=folder)
        return replace(cell, purpose="tuning", rate=try_.rate)

    def at_rates(self, arms: Sequence[Made], rates: Mapping[str, float]) -> list[Made]:
        """The arms at the learning rates that were found for them."""
        made = [_at_rate(each, rates[each.arm.name]) if each.made else each for each in arms]
        baseline = next(each.made for each in made if each.arm.name == self.plan.baseline)
        assert baseline is not None
        return [self.resolver.compared(each, baseline) for each in made]


def _in_turn(tries: Tries) -> list[tuple[str, Try]]:
    """The first runs of all arms come before the second ones of any."""
    most = max(map(len, tries.values()), default=0)
    return [(arm, own[number]) for number in range(most) for arm, own in tries.items()]


def _at_rate(each: Made, rate: float) -> Made:
    assert each.made is not None
    recipe = replace(each.made.recipe, train=replace(each.made.recipe.train, learning_rate=rate))
    arm = replace(each.arm, changes={**each.arm.changes, "train.learning_rate": rate})
    return replace(each, arm=arm, made=replace(each.made, recipe=recipe))


def _part(steps: int, share: float) -> int:
    """A share of some steps; 0 stays 0, which means never."""
    return max(1, round(share * steps)) if steps else 0
