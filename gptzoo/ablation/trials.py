"""The power that a plan prints, put to the trial: beside the power that simulated studies of its shape have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptzoo.ablation.analysis import analyse
from gptzoo.ablation.calibration import Shape, printed_equality, printed_power, simulated_equality, simulated_power
from gptzoo.ablation.collecting import collect
from gptzoo.ablation.ledger import CELLS, STUDY
from gptzoo.ablation.plan import AblationPlan
from gptzoo.ablation.verdicts import Cell
from gptzoo.errors import GPTZooError

TOLERANCE = 0.05
EFFECTS = (0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Trial:
    """One question to a study.

    Args:
        question: What is true, in words.
        printed: Probability of the right answer, as the plan prints it.
        simulated: Share of simulated studies that give it.
        seeds: That the arm used on average.
    """

    question: str
    printed: float
    simulated: float
    seeds: float

    @property
    def apart(self) -> float:
        return self.simulated - self.printed


@dataclass(frozen=True)
class Trials:
    """All questions to one plan.

    Args:
        title: The plan, in words.
        trials: The questions.
    """

    title: str
    trials: tuple[Trial, ...]

    @property
    def largest(self) -> float:
        return max(abs(each.apart) for each in self.trials)

    @property
    def passed(self) -> bool:
        return self.largest <= TOLERANCE

    @property
    def text(self) -> str:
        """A table for the terminal."""
        width = max(len(each.question) for each in self.trials)
        lines = [self.title, f"{'what is true'.ljust(width)}{'printed':>10}{'simulated':>11}{'apart':>8}{'seeds':>7}"]
        for each in self.trials:
            shares = f"{each.printed:>10.1%}{each.simulated:>11.1%}{100 * each.apart:>+8.1f}"
            lines.append(f"{each.question.ljust(width)}{shares}{each.seeds:>7.1f}")
        within = "within" if self.passed else "NOT within"
        return "\n".join([*lines, f"largest gap {100 * self.largest:.1f} points, {within} {100 * TOLERANCE:g}"])


def trials_of(plan: AblationPlan, runs: Path, studies: int = 4000) -> Trials:
    """The trial of a plan. Its noise, if the study has begun, is that of the runs that have ended.

    Raises:
        GPTZooError: One seed has no power, or there is nothing to simulate.
    """
    if plan.seeds < 2:
        raise GPTZooError("one seed says nothing about the noise, so there is no power. Write seeds: 3.", "seeds")
    if studies < 1:
        raise GPTZooError("simulate one study or more.", "--studies")
    sigma = noise_of(runs / plan.name, plan.metric)
    delta = plan.delta / sigma if plan.delta and sigma else None
    shape = Shape(len(plan.arms), plan.seeds, plan.alpha, plan.looks, delta)
    looks = f"looks at {', '.join(map(str, plan.looks))} seeds" if plan.looks else f"{plan.seeds} seeds"
    noise = f"noise {sigma:.4g} (1 SD)" if sigma else "noise unknown until runs have ended"
    title = f"{plan.name}: {len(plan.arms)} arms, {looks}, alpha {plan.alpha:g}; {noise}; {studies} studies per line"
    return put_to_trial(shape, title=title, studies=studies)


def noise_of(folder: Path, metric: str) -> float | None:
    """The metric's noise in the cells of a study that have ended, seed effects taken out; None if too few have."""
    if not (folder / STUDY).exists() or not (folder / CELLS).is_dir():
        return None
    try:
        outcome = collect(folder)
        if outcome.metric != metric:
            return None
        cells = [Cell(c.arm, c.seed, c.value) for c in outcome.cells if c.value is not None]
        return analyse(cells, baseline=outcome.baseline).sigma
    except GPTZooError:
        return None  # too few have ended, or the folder is damaged, which its own commands will say


def put_to_trial(
    shape: Shape,
    *,
    title: str,
    effects: Sequence[float] = EFFECTS,
    studies: int = 4000,
    noise: str = "normal",
) -> Trials:
    """Ask simulated studies what a plan says that they find.

    Args:
        shape: Of the plan's study.
        title: The plan, in words.
        effects: True differences, in SDs of the noise.
        studies: Simulated for each.
        noise: One of `calibration.NOISES`.
    """
    asked = {f"one arm differs by {effect:g} SDs": effect for effect in effects}
    if shape.delta is not None:
        asked[f"one arm differs by delta, {shape.delta:.2g} SDs"] = shape.delta
    trials = []
    for question, effect in asked.items():
        found = simulated_power(effect, shape, studies, noise=noise, seed=1)
        trials.append(Trial(question, printed_power(effect, shape).found, found.found, found.seeds))
    if shape.delta is not None:
        found, question = simulated_equality(shape, studies, noise=noise, seed=1), "all are equal: one is called so"
        trials.append(Trial(question, printed_equality(shape).found, found.found, found.seeds))
    return Trials(title, tuple(trials))
