"""Looks at a study while it grows: alpha is spent over them, arms that are settled or hopeless stop, the others go on.

At look j, after n_j seeds, every arm that is left is tested at the increment of the spending function
alpha(tau) = 2 - 2 Phi(z / sqrt(tau)), tau = n_j / n_last (Lan & DeMets, Biometrika 70, 1983: the O'Brien-Fleming kind).
The increments add up to alpha, so that the probability of any false winner or loser over all looks is at most alpha
(Bonferroni in time), whatever the dependence between looks. At each look Holm's method covers the arms: those found
different have left the family, those that stopped for another reason still count, untested. Otherwise dropping arms
that look alike would test the rest too lightly.

Shapes as in `blocked`: S studies, k arms, N seeds; a study's arms stop each at a look of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from gptzoo.ablation.blocked import Bools, Comparison, Floats, compare, holm

FUTILE = 0.1
"""An arm stops where the probability of settling it at the last look is below this."""

LIVE, DIFFERENT, EQUIVALENT, HOPELESS, DIVERGED = range(5)
"""What became of an arm."""

Ints = NDArray[np.int64]


def increments(looks: Sequence[int], alpha: float) -> list[float]:
    """What is spent at each look; the sum is alpha."""
    shares = np.asarray(looks, float) / looks[-1]
    spent = 2 - 2 * ndtr(ndtri(1 - alpha / 2) / np.sqrt(shares))
    return np.diff(spent, prepend=0.0).tolist()


@dataclass(frozen=True)
class Look:
    """One look at many studies, (S, k - 1) unless said otherwise.

    Args:
        seeds: How many seeds the arms that are left have.
        level: What is spent.
        tested: Arms that were live.
        outcome: Of each arm after the look, `LIVE` if it goes on.
        difference: Arm minus baseline.
        error: Standard error of the difference.
        df: Degrees of freedom.
        p: Two-sided.
        p_holm: Corrected for the family; NaN where nothing was tested.
        hope: Conditional power: the probability that the last look settles the arm; NaN at the last look.
        comparison: The whole comparison, for a single study.
    """

    seeds: int
    level: float
    tested: Bools
    outcome: Ints
    difference: Floats
    error: Floats
    df: Floats
    p: Floats
    p_holm: Floats
    hope: Floats
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Rules:
    """What is decided at a look.

    Args:
        looks: Numbers of seeds, increasing.
        alpha: Probability of any false winner or loser over all looks.
        delta: The smallest difference that matters; without it no arm is called equivalent.
        futile: Arms stop below this probability of being settled; 0 never stops one for it.
        guard: Look for arms whose spread is out of line.
    """

    looks: Sequence[int]
    alpha: float
    delta: float | None = None
    futile: float = FUTILE
    guard: bool = True

    @property
    def levels(self) -> list[float]:
        return increments(self.looks, self.alpha)


def follow(values: Floats, rules: Rules, known: Bools | None = None, diverged: Bools | None = None) -> list[Look]:
    """Look at studies as they grow.

    Args:
        values: (S, k, N); what lies beyond an arm's stop is not used.
        rules: When, and at what level.
        known: (k, N), True where there is a result, diverged ones too; the first look that lacks one is the end.
        diverged: (k, N), True where a run diverged; for a single study.

    Returns:
        The looks that could be taken.
    """
    studies, k, n = values.shape
    known = np.ones((k, n), bool) if known is None else known
    diverged = np.zeros((k, n), bool) if diverged is None else diverged
    outcome, stopped = np.full((studies, k - 1), LIVE), np.zeros((studies, k - 1), int)
    taken: list[Look] = []
    for place, seeds in enumerate(rules.looks):
        live = outcome == LIVE
        going = np.concatenate([[True], live.any(0)])
        if not live.any() or seeds > n or not known[going, :seeds].all():
            break
        taken.append(_look(values, outcome, stopped, place, rules, diverged))
        outcome, stopped = taken[-1].outcome, np.where(live, seeds, stopped)
    return taken


def last_look(taken: Sequence[Look]) -> Ints:
    """For each arm of each study the index of the last look that tested it, (S, k - 1)."""
    return np.stack([look.tested for look in taken]).cumsum(0).argmax(0)


def _look(values: Floats, outcome: Ints, stopped: Ints, place: int, rules: Rules, diverged: Bools) -> Look:
    """One look. Studies of equal history share what is known and what is tested, so that they are compared at once."""
    seeds = rules.looks[place]
    fields = {name: np.full(outcome.shape, np.nan) for name in _FIGURES}
    after, comparison = outcome.copy(), None
    for rows, order, now, until in _histories(outcome, stopped):
        mask = np.arange(seeds) < np.concatenate([[seeds], np.where(now == LIVE, seeds, until)])[:, None]
        arms = np.concatenate([np.zeros((len(rows), 1), int), order + 1], 1)
        failed = diverged[arms[0], :seeds] & mask
        table = np.take_along_axis(values[rows][:, :, :seeds], arms[:, :, None], 1)
        comparison = compare(table, mask & ~failed, failed.any(1) | (mask.sum(1) < 2), rules.guard)
        made = _decide(comparison, now, failed, place, rules)
        after[rows[:, None], order] = made["outcome"]
        for name, figures in fields.items():
            figures[rows[:, None], order] = made[name]
    alone = comparison if len(values) == 1 else None
    return Look(seeds, rules.levels[place], outcome == LIVE, after, **fields, comparison=alone)


_FIGURES = ("difference", "error", "df", "p", "p_holm", "hope")


def _histories(outcome: Ints, stopped: Ints) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """Studies whose arms, put in order, have one history: their rows, each one's order, the outcomes and stops.

    Arms are alike until something is known of them, so that a few histories cover thousands of studies. The arms of a
    single study stay in their order.
    """
    code = stopped * 10 + outcome
    order = np.argsort(code, axis=1, kind="stable") if len(code) > 1 else np.arange(code.shape[1])[None]
    patterns, member = np.unique(np.take_along_axis(code, order, 1), axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        rows = np.flatnonzero(member.ravel() == index)
        yield rows, order[rows], pattern % 10, pattern // 10


def _decide(found: Comparison, now: Ints, failed: Bools, place: int, rules: Rules) -> dict[str, NDArray]:
    """Outcomes after a look, what comes first being what counts: diverged, equivalent, different, hopeless."""
    live, level = now == LIVE, rules.levels[place]
    p = np.where(live, found.p, np.nan)
    p_holm = _holm_within(p, now != DIFFERENT)
    hope, after = np.full(p.shape, np.nan), np.broadcast_to(now, p.shape).copy()
    if place < len(rules.looks) - 1:
        hope = np.where(live, conditional_power(found.difference, found.error, found.df, place, rules), np.nan)
        after[live & (hope < rules.futile)] = HOPELESS
    after[live & (p_holm < level)] = DIFFERENT
    if rules.delta is not None:
        equal = _holm_within(np.where(live, found.inside(rules.delta), np.nan), now != EQUIVALENT)
        after[live & (equal < level)] = EQUIVALENT
    after[:, live & (failed[1:].any(1) | failed[0].any())] = DIVERGED
    figures = {"difference": found.difference, "error": found.error, "df": found.df}
    return {**figures, "outcome": after, "p": p, "p_holm": p_holm, "hope": hope}


def _holm_within(p: Floats, family: Bools) -> Floats:
    """Holm's correction over the members of a family; NaN is a member that is not tested."""
    corrected = np.full(p.shape, np.nan)
    corrected[:, family] = holm(p[:, family])
    return corrected


def conditional_power(difference: Floats, error: Floats, df: Floats, place: int, rules: Rules) -> Floats:
    """Probability that the last look settles an arm, were it alone; on the generous side by one standard error.

    With w = seeds / last, the difference at the end is w times the present one plus 1 - w times that of the seeds to
    come, which varies around the truth by the noise. The truth is taken to be one standard error further from zero
    than what was seen (nearer to it for being called equivalent), so that few arms stop that would have been settled.
    """
    seeds, last, level = rules.looks[place], rules.looks[-1], rules.levels[-1]
    noise = error * np.sqrt(seeds)  # the SD of a difference at one seed
    spread, at_last = np.sqrt(last - seeds) / last * noise, noise / np.sqrt(last)
    df_last = df * (last - 1) / max(1, seeds - 1)
    size, more = np.abs(difference), (1 - seeds / last) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        hope = ndtr((size + more - stdtrit(df_last, 1 - level / 2) * at_last) / spread)
        if rules.delta is not None:
            room, near = rules.delta - stdtrit(df_last, 1 - level) * at_last, np.maximum(0.0, size - more)
            inside = ndtr((room - near) / spread) - ndtr((-room - near) / spread)
            hope = np.maximum(hope, np.where(room > 0, inside, 0.0))
    return np.where(error > 0, hope, 1.0)
