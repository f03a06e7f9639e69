"""Makes arms alike: as many parameters by way of a free width, as many FLOPs or seconds by way of the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gptzoo.ablation.arms import Made, Resolver, in_one_line
from gptzoo.ablation.collecting import LAST, TOLERANCE, WALL_APART
from gptzoo.ablation.plan import AblationPlan, PlannedArm
from gptzoo.ablation.timing import Pace
from gptzoo.building import Plan
from gptzoo.errors import GPTZooError
from gptzoo.recipe.schema import TrainRecipe

WIDTH_STEP = 8
"""Solved widths are multiples of it."""

EVALUATIONS_APART = 0.05
"""Share of the training by which an arm's last evaluations may lie off the baseline's without a word."""


@dataclass
class Matcher:
    """Matches arms with the baseline.

    Args:
        resolver: Of the plan whose arms they are.
    """

    resolver: Resolver

    @property
    def plan(self) -> AblationPlan:
        return self.resolver.plan

    def baseline(self, arms: Sequence[Made]) -> Plan:
        """The recipe that all others are made alike to."""
        made = next(each.made for each in arms if each.arm.name == self.plan.baseline)
        assert made is not None, "a plan whose baseline is refused is an error"
        return made

    # -- parameters --------------------------------------------------------------------------------------------------

    def params(self, base: Mapping[str, object], arms: Sequence[Made]) -> list[Made]:
        """The arms with as many parameters as the baseline, by way of the free width.

        Raises:
            GPTZooError: An arm sets the width that is to be solved.
        """
        baseline = self.baseline(arms)
        target = self.resolver.count(baseline)
        by_name = {arm.name: arm for arm in self.plan.arms}
        solved = [self.solved(base, by_name[each.arm.name], each, target) for each in arms]
        return [self.resolver.compared(each, baseline) for each in solved]

    def solved(self, base: Mapping[str, object], arm: PlannedArm, each: Made, target: int) -> Made:
        """The arm at the width that comes nearest to the target; as it is if it is near enough already."""
        free, count = self.plan.free, self.resolver.count
        assert free is not None
        if each.made is None or abs(count(each.made) - target) <= TOLERANCE * target:
            return each
        if free in arm.changes:
            what = f"the arm sets {free}, which match: params is to solve. Leave it out, or match tokens only."
            raise GPTZooError(what, f"{arm.node.place}: {arm.key}.{free}")
        at = {width: self.at_width(base, arm, width) for width in (WIDTH_STEP, 2 * WIDTH_STEP)}
        low, high = (made.made and count(made.made) for made in at.values())
        if not low or not high or high <= low:
            return refused(each, f"{free} does not change its parameters.")
        nearest = WIDTH_STEP * max(1, 1 + round((target - low) / (high - low)))
        tried = [
            self.at_width(base, arm, nearest + step) for step in (0, -WIDTH_STEP, WIDTH_STEP) if nearest + step > 0
        ]
        return self.nearest([made for made in tried if made.made], target)

    def at_width(self, base: Mapping[str, object], arm: PlannedArm, width: int) -> Made:
        assert self.plan.free is not None
        return self.resolver.made(base, arm, {self.plan.free: width})

    def nearest(self, tried: Sequence[Made], target: int) -> Made:
        assert self.plan.free is not None
        counts = [self.resolver.count(each.made) if each.made else 0 for each in tried]
        best, count = min(zip(tried, counts, strict=True), key=lambda pair: abs(pair[1] - target))
        share, width = count / target - 1, best.arm.changes[self.plan.free]
        said = f"{self.plan.free} {width} gives {count:,} parameters, {share:+.2%} of the baseline's {target:,}"
        if abs(share) > TOLERANCE:
            return refused(best, f"its parameters cannot be matched: {said}, and {TOLERANCE:.1%} is allowed.")
        return noted(best, said)

    # -- FLOPs -------------------------------------------------------------------------------------------------------

    def flops(self, arms: Sequence[Made]) -> list[Made]:
        """The arms with as many steps as cost the baseline's training FLOPs.

        Raises:
            GPTZooError: The baseline's FLOPs cannot be counted, or an arm sets its steps.
        """
        baseline = self.baseline(arms)
        target = self.step_flops(baseline)
        if isinstance(target, GPTZooError):
            what = f"flops cannot be matched with the baseline {self.plan.baseline!r}: {in_one_line(target)}"
            raise GPTZooError(what, f"{self.plan.file.shown}: match")
        return [self.with_flops(each, baseline, target) for each in arms]

    def with_flops(self, each: Made, baseline: Plan, target: float) -> Made:
        if each.made is None or each.made is baseline:
            return each
        own = self.step_flops(each.made)
        if isinstance(own, GPTZooError):
            return refused(each, f"its FLOPs cannot be matched: {in_one_line(own)}")
        wanted = baseline.recipe.train.steps
        steps = max(1, round(wanted * target / own))
        share = steps * own / (wanted * target) - 1
        if abs(share) > TOLERANCE:
            apart = f"{abs(share):.2%} {'more' if share > 0 else 'less'}"
            said = f"with {steps_text(steps)} it costs {apart} than the baseline with {wanted:,}"
            remedy = f"{TOLERANCE:.1%} is allowed. {_more_steps(own / target, TOLERANCE)}"
            return refused(each, f"its FLOPs cannot be matched: {said}, and {remedy}")
        self.refuse_own_steps(each, baseline)
        if steps == wanted:
            return each
        return self.with_steps(each, baseline, steps, f"as many FLOPs as the baseline's {wanted:,}")

    def step_flops(self, made: Plan) -> float | GPTZooError:
        """FLOPs of one step, those of positions without a target included."""
        costs = self.resolver.costs(made)
        if isinstance(costs, GPTZooError):
            return costs
        return costs.flops_per_token * made.recipe.train.batch_size * made.recipe.model.context_length

    # -- seconds -----------------------------------------------------------------------------------------------------

    def wall(self, arms: Sequence[Made], paces: Mapping[str, Pace | None]) -> list[Made]:
        """The arms with as many steps as take the baseline's seconds.

        Args:
            arms: The baseline among them.
            paces: Of each other arm that runs; None of one that diverged before it could be timed.
        """
        baseline = self.baseline(arms)
        return [self.with_wall(each, baseline, paces.get(each.arm.name)) for each in arms]

    def with_wall(self, each: Made, baseline: Plan, pace: Pace | None) -> Made:
        if each.made is None or each.made is baseline:
            return each
        wanted = baseline.recipe.train.steps
        if pace is None:  # its runs will diverge too, which is an outcome
            return noted(each, f"{steps_text(wanted)}, because it diverged before it could be timed")
        steps = max(1, round(wanted / pace.ratio))
        share = steps * pace.ratio / wanted - 1
        if abs(share) > WALL_APART:
            apart = f"{abs(share):.0%} {'longer' if share > 0 else 'shorter'}"
            said = f"with {steps_text(steps)} it trains {apart} than the baseline with {wanted:,}"
            remedy = f"{WALL_APART:.0%} is allowed. {_more_steps(pace.ratio, WALL_APART)}"
            return refused(each, f"its training time cannot be matched: {said}, and {remedy}")
        return self.with_steps(each, baseline, steps, f"as long as the baseline's {wanted:,} ({_pace_text(pace)})")

    def refuse_steps(self, arms: Sequence[Made]) -> None:
        """Nobody sets the steps that are solved.

        Raises:
            GPTZooError: An arm has other steps than the baseline.
        """
        for each in arms:
            if each.made is not None:
                self.refuse_own_steps(each, self.baseline(arms))

    # -- steps -------------------------------------------------------------------------------------------------------

    def with_steps(self, each: Made, baseline: Plan, steps: int, said: str) -> Made:
        """The arm with so many steps, evaluated and saved at the baseline's shares of its training."""
        assert each.made is not None
        train = each.made.recipe.train
        changed = rhythm(train, steps)
        made = replace(each.made, recipe=replace(each.made.recipe, train=replace(train, **changed)))
        keys = {f"train.{key}": value for key, value in changed.items() if value != getattr(train, key)}
        arm = replace(each.arm, changes={**each.arm.changes, **keys})
        off = evaluations_off(train, made.recipe.train)
        more = f"; its last evaluations lie up to {off:.0%} of the training off the baseline's"
        said = f"{steps_text(steps)}, {said}{more if off > EVALUATIONS_APART else ''}{_warm_up_text(train)}"
        return self.resolver.compared(noted(replace(each, arm=arm, made=made), said), baseline)

    def refuse_own_steps(self, each: Made, baseline: Plan) -> None:
        """Nobody sets what is solved.

        Raises:
            GPTZooError: The arm has other steps than the baseline.
        """
        assert each.made is not None
        if each.made.recipe.train.steps == baseline.recipe.train.steps:
            return
        arm = next(arm for arm in self.plan.arms if arm.name == each.arm.name)
        what = "the arm sets train.steps, which match: flops or wall is to solve. Leave it out, or match params only."
        raise GPTZooError(what, f"{arm.node.place}: {arm.key}.train.steps")


def refused(each: Made, why: str) -> Made:
    """The arm without a recipe."""
    return Made(replace(each.arm, refused=why))


def noted(each: Made, said: str) -> Made:
    """The arm with one more note: `rope: said.`"""
    before = f"{each.note[:-1]}; " if each.note else f"{each.arm.name}: "
    return replace(each, note=f"{before}{said}.")


def _warm_up_text(train: TrainRecipe) -> str:
    """Says that a warm-up given in steps is another share of other steps."""
    warm_up = train.schedule.options.get("warmup")
    in_steps = isinstance(warm_up, int | float) and warm_up >= 1
    return f"; its warm-up has {warm_up:g} steps all the same" if in_steps else ""


def _more_steps(ratio: float, tolerance: float) -> str:
    """So many steps of the baseline that rounding those of an arm changes no more than the tolerance."""
    return f"Raise train.steps in the base to {math.ceil(0.5 / tolerance * ratio):,} or more."


def _pace_text(pace: Pace) -> str:
    """`13.6 ms a step, the baseline 12.0; 1.12 to 1.15 times in 3 windows`."""
    beside = f"{1000 * pace.seconds:.3g} ms a step, the baseline {1000 * pace.base_seconds:.3g}"
    spread = f"{pace.low:.2f} to {pace.high:.2f} times in {pace.windows} windows"
    doubt = ", too far apart for an idle machine" if pace.high > (1 + WALL_APART) * pace.low else ""
    return f"{beside}; {spread}{doubt}"


def steps_text(steps: int) -> str:
    """`188 steps`."""
    return f"{steps:,} step{'' if steps == 1 else 's'}"


def rhythm(train: TrainRecipe, steps: int) -> dict[str, int]:
    """So many steps, and what is done every few of them at the same shares of the training as before."""
    share = steps / train.steps
    others = {key: getattr(train, key) for key in ("save_every", "sample_every")}
    scaled = {key: max(1, round(every * share)) if every else 0 for key, every in others.items()}
    return {"steps": steps, "eval_every": _eval_every(train, steps), **scaled}


def _eval_every(train: TrainRecipe, steps: int) -> int:
    """Rounded to where the last evaluations, which the metric is the mean of, lie nearest to the old shares."""
    if not train.eval_every:
        return 0
    ideal = train.eval_every * steps / train.steps
    options = sorted({max(1, math.floor(ideal)), max(1, math.ceil(ideal))}, key=lambda every: abs(every - ideal))
    return min(options, key=lambda every: evaluations_off(train, replace(train, steps=steps, eval_every=every)))


def evaluations_off(one: TrainRecipe, other: TrainRecipe) -> float:
    """How far the last evaluations of two trainings lie apart at most, as a share of the training."""
    first, second = (_last_evaluations(train) for train in (one, other))
    return max(abs(a - b) for a, b in zip(first, second, strict=False))


def _last_evaluations(train: TrainRecipe) -> list[float]:
    """Where they lie in the training, the last one first."""
    before = range(0, train.steps, train.eval_every) if train.eval_every else ()
    return [step / train.steps for step in [*before, train.steps][-LAST:]][::-1]
