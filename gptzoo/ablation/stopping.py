"""What a study need not run: seeds of an arm that a look stopped, and the rest of a run that is far behind at a rung.

Numbers in, decisions out. Looks: an arm is run as far as the next look and no further, until that look has been taken.
Who stops there is decided by `sequential.follow`, which makes the verdicts too: a study that is run in stages ends
with the verdicts that it would have with all seeds run.

Rungs: at shares of its training a run of an arm is killed if it is behind the baseline's run of the same seed, at the
same share, by more than a limit that the noise of the baseline and its A/A arm sets. Nothing is ever stopped there for
being good: early losses rank arms poorly, and only gross losers are told early.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import stdtrit

from gptzoo.ablation.sequential import DIFFERENT, EQUIVALENT, HOPELESS, LIVE, Look, Rules, follow
from gptzoo.ablation.verdicts import Cell

MARGINS: Mapping[float, float] = MappingProxyType({0.25: 5.0, 0.5: 3.0, 0.75: 2.0})
"""Rungs, shares of the training, and how far behind is too far there, in SDs of a run, beyond what noise explains."""

FALSE_KILLS = 1e-3
"""Probability, over all rungs, that a run like the baseline's is killed for its noise."""

_NOISE = 0.975  # the quantile of what noise explains


@dataclass(frozen=True)
class Course:
    """How far a study is.

    Args:
        seeds: How many seeds each arm is to have by now; those of an arm that a look stopped are what it had.
        live: Arms that no look has stopped, as long as there is another look.
        lines: What the looks brought, one line each.
    """

    seeds: Mapping[str, int]
    live: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


def at_looks(names: Sequence[str], cells: Sequence[Cell], rules: Rules, higher_is_better: bool = False) -> Course:
    """The course of a study with looks: an arm that is left goes on to the next one, the baseline as far as any.

    Args:
        names: The arms, the baseline first.
        cells: Those that have ended, in any order; other arms and seeds beyond the last look do not count.
        rules: Of the verdicts.
        higher_is_better: The metric is one to raise.
    """
    table = _Table.of(names, cells, rules.looks[-1])
    taken = follow(table.values[None], rules, table.known, table.broken)
    arms, last = list(names[1:]), len(taken) == len(rules.looks)
    seeds = np.full(len(arms), rules.looks[0])
    live = np.ones(len(arms), bool)
    for look, following in zip(taken, (*rules.looks[1:], rules.looks[-1]), strict=False):
        live = look.outcome[0] == LIVE
        seeds = np.where(live, following, seeds)
    told = [_Told(names, table, rules, higher_is_better).line(look) for look in taken]
    return Course(
        {names[0]: int(seeds.max()), **dict(zip(arms, seeds.tolist(), strict=True))},
        () if last else tuple(arm for arm, goes_on in zip(arms, live, strict=True) if goes_on),
        tuple(told),
    )


@dataclass(frozen=True)
class _Table:
    """The cells that have ended, arms by seeds."""

    values: np.ndarray
    known: np.ndarray
    broken: np.ndarray
    killed: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], cells: Sequence[Cell], seeds: int) -> _Table:
        made = cls(np.zeros((len(names), seeds)), *(np.zeros((len(names), seeds), bool) for _ in range(3)))
        rows = {name: row for row, name in enumerate(names)}
        for cell in cells:
            if cell.arm in rows and 0 <= cell.seed < seeds:
                place = rows[cell.arm], cell.seed
                made.known[place], made.broken[place], made.killed[place] = True, not cell.ended, cell.killed
                made.values[place] = cell.value if cell.ended else 0.0
        return made


@dataclass(frozen=True)
class _Told:
    """Looks in words."""

    names: Sequence[str]
    table: _Table
    rules: Rules
    higher_is_better: bool

    def line(self, look: Look) -> str:
        stops = [f"{self.names[i + 1]} {self.why(look, i)}" for i in self.stopped(look)]
        left = int((look.outcome[0] == LIVE).sum())
        said = [f"{', '.join(stops)}"] if stops else []
        if left:
            said.append(f"{left} {'arm' if left == 1 else 'arms'} {self.rest(look.seeds, left)}")
        return f"look at {look.seeds} seeds: {'; '.join(said)}"

    def stopped(self, look: Look) -> list[int]:
        return np.flatnonzero(look.tested[0] & (look.outcome[0] != LIVE)).tolist()

    def rest(self, seeds: int, left: int) -> str:
        place = list(self.rules.looks).index(seeds) + 1
        if place == len(self.rules.looks):
            return "stays undecided" if left == 1 else "stay undecided"
        return f"{'goes' if left == 1 else 'go'} on to {self.rules.looks[place]} seeds"

    def why(self, look: Look, arm: int) -> str:
        outcome = look.outcome[0, arm]
        if outcome == DIFFERENT:
            return "better" if (look.difference[0, arm] > 0) == self.higher_is_better else "worse"
        if outcome in (EQUIVALENT, HOPELESS):
            return "equivalent" if outcome == EQUIVALENT else "unlikely to be settled"
        own = (slice(arm + 1, arm + 2), slice(0, look.seeds))
        if self.table.broken[own].any():
            return "killed" if self.table.killed[own].any() else "diverged"
        return "has no sound baseline"


# -- rungs -----------------------------------------------------------------------------------------------------------

Curve = Sequence[tuple[float, float]]
"""A metric over the training: (share of the steps, value), in their order."""


def rung_step(rung: float, steps: int, every: int) -> int | None:
    """The step of the first evaluation at or after a share of the training; None if only the end comes after.

    Args:
        rung: The share.
        steps: Of the training.
        every: Steps between two evaluations; 0 evaluates at the end only.
    """
    step = every * math.ceil(rung * steps / every - 1e-9) if every else steps
    return step if step < steps else None


def reach(rung: float, runs: int) -> float:
    """How far behind a run may be at a rung, in SDs that so many runs of the baseline estimate.

    What noise explains and the margin: t sqrt(2) + margin. A few runs show their SD badly, so it is at least the
    distance at which a run like the baseline's is as rarely killed as `FALSE_KILLS` says.

    Args:
        rung: One of `MARGINS`.
        runs: Two or more.
    """
    noise, rare = stdtrit(runs - 1, [_NOISE, 1 - FALSE_KILLS / len(MARGINS)]) * math.sqrt(2)
    return float(max(noise + MARGINS[rung], rare))


def limits(
    rungs: Sequence[float], steps: int, every: int, baseline: Curve, controls: Sequence[Curve], higher_is_better: bool
) -> dict[int, float]:
    """The values beyond which a run is killed, by step.

    Args:
        rungs: Shares of the training, increasing.
        steps: Of the run, which may have another length than the baseline's: shares of training are compared.
        every: Steps between two of its evaluations.
        baseline: The run of the same seed.
        controls: All runs that show the noise: the baseline's and those of the A/A arm.
        higher_is_better: The metric is one to raise.
    """
    made: dict[int, float] = {}
    for rung in rungs:
        step = rung_step(rung, steps, every)
        here = None if step is None else at_share(baseline, step / steps)
        values = [value for each in controls if step and (value := at_share(each, step / steps)) is not None]
        if step is None or here is None or len(values) < 2 or not (deviation := statistics.stdev(values)):
            continue  # no noise is known, so nobody can tell what lies beyond it
        behind = reach(rung, len(values)) * deviation
        made[step] = here - behind if higher_is_better else here + behind
    return made


def at_share(curve: Curve, share: float) -> float | None:
    """The metric at a share of the training, on a line between two evaluations; None outside of them."""
    before = [point for point in curve if point[0] <= share + 1e-9]
    after = [point for point in curve if point[0] >= share - 1e-9]
    if not before or not after:
        return None
    (left, low), (right, high) = before[-1], after[0]
    return low if right <= left else low + (high - low) * (share - left) / (right - left)


def is_beyond(value: float, limit: float, higher_is_better: bool) -> bool:
    """Whether a run is to be killed; a value that is not finite says nothing, and the run will end by itself."""
    return math.isfinite(value) and (value < limit if higher_is_better else value > limit)
