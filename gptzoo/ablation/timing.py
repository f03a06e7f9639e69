"""Times the steps of arms beside the baseline's, so that what slows the machine down for a while hits both alike.

Short runs alternate, one at a time: the baseline, each arm, the baseline, each arm, ..., the baseline. What lies
between two runs of the baseline is a window. In a window an arm is compared with the mean of the two runs around it,
and what counts is the median over its windows. An arm that is added later, on a machine that may have changed since,
gets windows of its own with fresh runs of the baseline around them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WINDOWS = 3
"""How often each arm is timed."""

STEPS, WARM_UP = 30, 6
"""Of a timed run, and how many of them at its begin are left out."""

SEEDS = 30_000
"""The seed of the first window's runs: no other runs have it, or those above it."""

Run = tuple[str, int]
"""A timed run: the arm's name, the window's number. The baseline's opens the window, and closes the one before."""

Ended = Callable[[str, int], bool]


@dataclass(frozen=True)
class Windows:
    """The timed runs of a study.

    Args:
        runs: All of them, in order: those that have ended first.
        of: The windows that count for each arm.
    """

    runs: tuple[Run, ...]
    of: Mapping[str, tuple[int, ...]]

    @property
    def ended(self) -> bool:
        """Whether every arm has its windows."""
        return all(len(each) >= WINDOWS for each in self.of.values())


@dataclass(frozen=True)
class Pace:
    """How an arm's steps compare with the baseline's.

    Args:
        seconds: Of its step, the median over its windows.
        base_seconds: Of the baseline's, around the same windows.
        ratio: Of the two, the median over the windows.
        low: The smallest of the windows.
        high: The largest.
        windows: How many.
    """

    seconds: float
    base_seconds: float
    ratio: float
    low: float
    high: float
    windows: int = WINDOWS


def windows(baseline: str, arms: Sequence[str], ended: Ended) -> Windows:
    """Which runs there are, and which are still to come, in the order in which they are to be run.

    Args:
        baseline: The baseline's name.
        arms: The others'.
        ended: Whether a run has.
    """
    opened = 0
    while ended(baseline, opened):
        opened += 1
    own = {arm: tuple(window for window in range(opened - 1) if ended(arm, window)) for arm in arms}
    runs = [run for window in range(opened) for run in _window(baseline, arms, window, ended)]
    wanted = {arm: WINDOWS - len(each) for arm, each in own.items() if len(each) < WINDOWS}
    window = opened - 1
    if wanted and not any(ended(arm, window) for arm in wanted if opened):  # it was opened long ago, or none was
        runs, window = [*runs, (baseline, opened)], opened
    while wanted:
        runs += [(arm, window) for arm in wanted if not ended(arm, window)]
        wanted = {arm: left - 1 for arm, left in wanted.items() if left > 1}
        window += 1
        runs.append((baseline, window))
    return Windows(tuple(runs), own)


def _window(baseline: str, arms: Sequence[str], window: int, ended: Ended) -> list[Run]:
    return [(baseline, window), *((arm, window) for arm in arms if ended(arm, window))]


def median_step(step_seconds: Sequence[float]) -> float | None:
    """Of a timed run, its warm-up left out; None if it did not get beyond that."""
    return statistics.median(step_seconds[WARM_UP:]) if len(step_seconds) > WARM_UP else None


def pace(arm: str, baseline: str, own: Sequence[int], step_of: Callable[[str, int], float | None]) -> Pace | None:
    """How an arm compares with the baseline; None if it could not be timed.

    Args:
        arm: Its name.
        baseline: The baseline's.
        own: The windows that count for it.
        step_of: The median step of a run, see `median_step`.
    """
    found = [(step_of(arm, window), step_of(baseline, window), step_of(baseline, window + 1)) for window in own]
    known = [(mine, (before + after) / 2) for mine, before, after in found if mine and before and after]
    if not known:
        return None
    ratios = [mine / beside for mine, beside in known]
    mine, beside = (statistics.median(each) for each in zip(*known, strict=True))
    return Pace(mine, beside, statistics.median(ratios), min(ratios), max(ratios), len(ratios))
