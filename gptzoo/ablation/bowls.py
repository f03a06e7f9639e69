"""The learning-rate bowl of an arm: what each rate scored in tuning, the lowest point, and how steep the walls are.

Source: Wortsman et al., arXiv:2309.14322, section 2.2, for the sensitivity to the learning rate: the mean over the
rates of min(loss, loss before training) - lowest loss.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gptzoo.ablation.study import CellOutcome, StudyOutcome, Tuned
from gptzoo.ablation.tuning import Scores, Try, levels, score_of, vertex

FEWEST_COMMON = 3
"""Rates that two arms must share before it is said that one of them wins at few."""


@dataclass(frozen=True)
class Bowl:
    """What tuning saw of an arm.

    Args:
        arm: Its name.
        runs: Tuning runs that ended, the metric's value of each rate and seed; infinite for one that diverged.
        levels: The score of each rate over the seeds, rising rates; infinite for one that diverged.
        rate: The one that its cells are run at; None as long as tuning goes on.
        parabola: Through the best rate and its neighbours: a, b, c of a x^2 + b x + c in x = log2 of the rate, and
            from which rate to which; None where there is none.
        edge: Whether the best rate is the lowest or highest that was tried.
        sensitivity: In units of the metric; None where it cannot be known.
    """

    arm: str
    runs: Mapping[Try, float]
    levels: Mapping[float, float]
    rate: float | None
    parabola: tuple[float, float, float, float, float] | None
    edge: bool
    sensitivity: float | None

    @property
    def best(self) -> float:
        """The lowest score; infinite if all runs diverged."""
        return min(self.levels.values())

    def at(self, rate: float) -> float | None:
        """The parabola's height there; None outside of it."""
        if self.parabola is None or not self.parabola[3] <= rate <= self.parabola[4]:
            return None
        a, b, c, *_ = self.parabola
        return (a * math.log2(rate) + b) * math.log2(rate) + c


def bowls_of(study: StudyOutcome) -> list[Bowl]:
    """The bowls of the arms whose tuning has runs that ended, for a metric that is a loss."""
    if study.higher_is_better:
        return []
    initial = _initial(study)
    return [made for tuned in study.tuning if (made := _bowl(tuned, initial.get(tuned.arm)))]


def wins_at(bowl: Bowl, base: Bowl) -> tuple[list[float], int]:
    """The rates at which an arm beat the baseline in tuning, and of how many that both tried."""
    common = [rate for rate in bowl.levels if rate in base.levels]
    return [rate for rate in common if bowl.levels[rate] < base.levels[rate]], len(common)


def narrow_winners(bowls: Sequence[Bowl], baseline: str, better: Sequence[str]) -> list[str]:
    """One line for each better arm that beat the baseline at a single learning rate of those that both tried."""
    known = {bowl.arm: bowl for bowl in bowls}
    lines = []
    for arm in better:
        if arm in known and baseline in known:
            rates, common = wins_at(known[arm], known[baseline])
            if common >= FEWEST_COMMON and len(rates) <= 1:
                where = f"at one learning rate only ({rates[0]:g})" if rates else "at no learning rate"
                lines.append(f"{arm} beat {baseline} {where} of the {common} that both tried in tuning.")
    return lines


def _bowl(tuned: Tuned, initial: float | None) -> Bowl | None:
    ended = [run for run in tuned.runs if run.status == "diverged" or (run.status == "done" and run.value is not None)]
    scores = {
        Try(run.rate, run.seed): score_of(run.value if run.status == "done" else None, higher_is_better=False)
        for run in ended
    }
    level = levels(_from_the_first_seed(scores)) if scores else {}
    if not level:
        return None
    rates = list(level)
    at = rates.index(min(rates, key=lambda rate: (level[rate], rate)))
    edge = at in (0, len(rates) - 1)
    return Bowl(
        arm=tuned.arm,
        runs=scores,
        levels=level,
        rate=tuned.rate,
        parabola=None if edge else _parabola(rates[at - 1 : at + 2], level),
        edge=edge,
        sensitivity=_sensitivity(list(level.values()), initial),
    )


def _from_the_first_seed(scores: Scores) -> Scores:
    """Seeds beside the first count for rates that ran on it: while tuning goes on others may have ended earlier."""
    first = min(each.seed for each in scores)
    rates = {each.rate for each in scores if each.seed == first}
    return {each: value for each, value in scores.items() if each.rate in rates}


def _parabola(rates: Sequence[float], level: Mapping[float, float]) -> tuple[float, float, float, float, float] | None:
    (x1, x2, x3), (y1, y2, y3) = (math.log2(rate) for rate in rates), (level[rate] for rate in rates)
    if vertex([x1, x2, x3], [y1, y2, y3]) is None:
        return None
    left, right = (y2 - y1) / (x2 - x1), (y3 - y2) / (x3 - x2)
    a = (right - left) / (x3 - x1)
    b = left - a * (x1 + x2)
    return a, b, y1 - (a * x1 + b) * x1, rates[0], rates[2]


def _sensitivity(scores: Sequence[float], initial: float | None) -> float | None:
    if min(scores) == math.inf or (initial is None and max(scores) == math.inf):
        return None
    top = math.inf if initial is None else initial
    return statistics.fmean(min(score, top) for score in scores) - min(scores)


def _initial(study: StudyOutcome) -> dict[str, float]:
    """The metric before the first step, by arm."""
    found: dict[str, list[float]] = {}
    for cell in study.cells:
        if (value := _before_training(cell)) is not None:
            found.setdefault(cell.arm, []).append(value)
    return {arm: statistics.fmean(values) for arm, values in found.items()}


def _before_training(cell: CellOutcome) -> float | None:
    value = cell.curve[0].value if cell.curve and cell.curve[0].step == 0 else math.nan
    return value if math.isfinite(value) else None
