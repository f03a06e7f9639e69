"""Which cells a study with looks runs next: numbers in, decisions out.

An arm is run as far as the next look and no further, until that look has been taken. Who stops there is decided by
`sequential.follow`, which makes the verdicts too: a study that is run in stages ends with the verdicts that it would
have with all seeds run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gptzoo.ablation.sequential import DIFFERENT, EQUIVALENT, HOPELESS, LIVE, Look, Rules, follow
from gptzoo.ablation.verdicts import Cell


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
