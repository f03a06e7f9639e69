"""An equal tuning budget for every arm: which learning rates are tried, on which seeds, and which one is taken.

A grid on one seed; two rates more for every arm if the best of any lies at its edge; the best few on a second seed;
then the lowest point of the parabola through the best and its neighbours. A pure function of what the runs scored, so
that a study that was stopped goes on where it was. Scores are better the lower they are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from gptzoo.errors import did_you_mean
from gptzoo.recipe.yaml_source import shown

SEED = 20_000
"""The first tuning seed, so that none ever meets a confirm seed or one of the A/A arm."""

FIRST, SECOND = SEED, SEED + 1

MORE = 2
"""Rates that the grid is widened by."""

DIGITS = 3
"""Significant ones of a learning rate."""

MOST_POINTS = 25


@dataclass(frozen=True)
class Tuning:
    """`tune:` in a plan.

    Args:
        points: Of the grid, an odd number: the arm's own rate is the middle one.
        factor: Between two rates of the grid.
        share: Of the steps that a tuning run takes; its schedule is that of a run of this length.
        keep: Rates of each arm that are tried on a second seed.
    """

    points: int = 5
    factor: float = 2.0
    share: float = 0.25
    keep: int = 3

    @property
    def runs(self) -> int:
        """Of each arm, unless a best rate lies at the edge."""
        return self.points + self.keep

    @property
    def most_runs(self) -> int:
        """Of each arm, if its grid is widened as late as can be."""
        return self.runs + 2 * MORE


OPTIONS = tuple(field.name for field in fields(Tuning))
_KNOWN = f" The options are {', '.join(OPTIONS)}."


def problems_of(options: Mapping[str, object]) -> dict[str, str]:
    """What is wrong with options of `tune:`, by option."""
    found = {name: f"there is no such option.{did_you_mean(name, OPTIONS) or _KNOWN}" for name in options}
    known = {**asdict(Tuning()), **options}
    points = known["points"]
    odd = type(points) is int and points % 2 == 1 and 3 <= points <= MOST_POINTS
    most = points if odd else MOST_POINTS
    fits = {
        "points": (odd, f"an odd number from 3 to {MOST_POINTS}: the arm's own rate is the middle one"),
        "factor": (_within(known["factor"], 1.1, 100.0), "a number from 1.1 to 100"),
        "share": (_within(known["share"], 1e-6, 1.0), "a share of the steps: above 0, at most 1"),
        "keep": (
            type(known["keep"]) is int and _within(known["keep"], 3, most),
            f"a count from 3 to {most}, the points",
        ),
    }
    said = {name: "" if good else f"{shown(known[name])} is not {what}." for name, (good, what) in fits.items()}
    return {name: problem for name, problem in {**found, **said}.items() if problem and name in options}


def _within(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True, order=True)
class Try:
    """A tuning run of an arm.

    Args:
        rate: The learning rate.
        seed: The recipe's seed.
    """

    rate: float
    seed: int


Scores = Mapping[Try, float]
"""What the tuning runs of an arm scored; infinite for one that diverged."""

Tries = Mapping[str, tuple[Try, ...]]
"""The tuning runs of every arm, in the order in which they became known."""


@dataclass(frozen=True)
class Choice:
    """The learning rate that an arm's cells are run at.

    Args:
        rate: The learning rate.
        trouble: Why the arm counts as untuned, one line; empty if it does not.
    """

    rate: float
    trouble: str = ""


@dataclass(frozen=True)
class Progress:
    """How far the tuning is.

    Args:
        tries: All that are known by now; as many for every arm.
        expected: What is likely to follow.
        widened: The arms whose best rates lay at the edge, for which all grids were widened.
        choices: Of each arm; None as long as tuning goes on.
    """

    tries: Tries
    expected: Tries
    widened: tuple[str, ...] = ()
    choices: Mapping[str, Choice] | None = None


def tune(starts: Mapping[str, float], tuning: Tuning, score: Callable[[str, Try], float | None]) -> Progress:
    """How far the tuning of some arms is, and what it has found.

    Args:
        starts: The middle of each arm's grid.
        tuning: The budget.
        score: What a run of an arm scored; None if it has not ended.
    """
    scores: dict[str, dict[Try, float]] = {arm: {} for arm in starts}
    tries: Tries = {}
    widened: tuple[str, ...] = ()
    for tries, widened in _stages(starts, tuning, scores):
        assert len({len(own) for own in tries.values()}) <= 1, "budgets are equal"
        for arm, own in tries.items():
            found = {each: score(arm, each) for each in own}
            scores[arm].update({each: value for each, value in found.items() if value is not None})
        if any(len(scores[arm]) < len(own) for arm, own in tries.items()):
            return Progress(tries, {arm: _expected(own, tuning) for arm, own in tries.items()}, widened)
    return Progress(tries, {}, widened, {arm: choose(own) for arm, own in scores.items()})


def _stages(
    starts: Mapping[str, float], tuning: Tuning, scores: Mapping[str, Scores]
) -> Iterator[tuple[Tries, tuple[str, ...]]]:
    """All runs by the end of each stage; the next one is asked for when they have scored."""

    def added(tries: Tries, more: Callable[[str], Sequence[float]], *seeds: int) -> Tries:
        return {arm: (*own, *(Try(rate, seed) for seed in seeds for rate in more(arm))) for arm, own in tries.items()}

    def beyond(arm: str) -> Sequence[float]:
        return _beyond(scores[arm], tuning.factor)

    tries = added(dict.fromkeys(starts, ()), lambda arm: grid(starts[arm], tuning), FIRST)
    yield tries, ()
    if edges := _edges(scores):
        tries = added(tries, beyond, FIRST)
        yield tries, edges
    tries = added(tries, lambda arm: kept(scores[arm], tuning.keep), SECOND)
    yield tries, edges
    if not edges and (edges := _edges(scores)):
        yield added(tries, beyond, FIRST, SECOND), edges


def grid(start: float, tuning: Tuning) -> list[float]:
    """The rates that are tried first, rising."""
    half = tuning.points // 2
    return [rounded(start * tuning.factor**step) for step in range(-half, half + 1)]


def rounded(rate: float) -> float:
    """The rate as recipes have it."""
    return float(f"{rate:.{DIGITS}g}")


def levels(scores: Scores) -> dict[float, float]:
    """The score of each rate, over both seeds; rates rising.

    A rate that ran on the first seed alone is moved by what the second seed changes in the mean of the others, which is
    the least-squares estimate where rates and seeds add up.
    """
    first, second = ({each.rate: y for each, y in scores.items() if each.seed == seed} for seed in (FIRST, SECOND))
    both = [rate for rate in second if rate in first]
    changes = [second[rate] - first[rate] for rate in both if math.isfinite(first[rate] + second[rate])]
    shift = statistics.fmean(changes) / 2 if changes else 0.0
    return {rate: (y + second[rate]) / 2 if rate in second else y + shift for rate, y in sorted(first.items())}


def best(scores: Scores) -> float:
    """The rate of the lowest score among those that ran on most seeds; of equal ones the lower rate."""
    level = levels(scores)
    finalists = [each.rate for each in scores if each.seed == SECOND and each.rate in level] or level
    return min(finalists, key=lambda rate: (level[rate], rate))


def kept(scores: Scores, keep: int) -> list[float]:
    """The rates that go on to the second seed: neighbours, the best one among them.

    Of all such windows the one with fewest runs that diverged, then with the best rate nearest to its middle, then with
    the better scores.
    """
    level = levels(scores)
    rates = list(level)
    at = rates.index(best(scores))

    def faults(start: int) -> tuple[float, ...]:
        window = [level[rate] for rate in rates[start : start + keep]]
        finite = [y for y in window if math.isfinite(y)]
        return keep - len(finite), abs(start + (keep - 1) / 2 - at), math.fsum(finite), start

    start = min(range(max(0, at - keep + 1), min(at, len(rates) - keep) + 1), key=faults)
    return rates[start : start + keep]


def _edges(scores: Mapping[str, Scores]) -> tuple[str, ...]:
    """The arms whose best rates are the lowest or the highest that they tried."""
    return tuple(arm for arm, own in scores.items() if best(own) in (min(levels(own)), max(levels(own))))


def _beyond(scores: Scores, factor: float) -> list[float]:
    """Further rates: beyond the edge at which the best one lies, or on the side of its better neighbour."""
    level = levels(scores)
    rates = list(level)
    at = rates.index(best(scores))
    inside = 0 < at < len(rates) - 1
    down = level[rates[at - 1]] <= level[rates[at + 1]] if inside else at == 0
    if down:
        return [rounded(rates[0] * factor**-step) for step in range(MORE, 0, -1)]
    return [rounded(rates[-1] * factor**step) for step in range(1, MORE + 1)]


def choose(scores: Scores) -> Choice:
    """The lowest point of the parabola through the best rate and its neighbours, in the logarithm of the rate.

    It lies between the neighbours. Where one of them diverged, or the parabola opens downwards, it is the best rate.
    """
    level = levels(scores)
    rates, middle = list(level), best(scores)
    if math.isinf(level[middle]):
        return Choice(middle, "all its tuning runs diverged")
    if middle in (rates[0], rates[-1]):
        which = "lowest" if middle == rates[0] else "highest"
        return Choice(middle, f"its best rate, {middle:g}, is the {which} that was tried")
    three = rates[rates.index(middle) - 1 : rates.index(middle) + 2]
    lowest = vertex([math.log2(rate) for rate in three], [level[rate] for rate in three])
    return Choice(rounded(2**lowest) if lowest is not None else middle)


def vertex(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The lowest point of the parabola through three points, kept between them; None if it has none.

    Args:
        x: Rising.
        y: Of each.
    """
    (x1, x2, x3), (y1, y2, y3) = x, y
    if not math.isfinite(y1 + y3):
        return None
    bend = (x2 - x1) * (y2 - y3) - (x2 - x3) * (y2 - y1)
    if bend >= 0:
        return None
    lowest = x2 - 0.5 * ((x2 - x1) ** 2 * (y2 - y3) - (x2 - x3) ** 2 * (y2 - y1)) / bend
    return min(max(lowest, x1), x3)


def _expected(tries: Sequence[Try], tuning: Tuning) -> tuple[Try, ...]:
    """The second seed, if its turn has not come: which rates will be the best is not known, and costs are equal."""
    if any(each.seed == SECOND for each in tries):
        return ()
    rates = sorted(each.rate for each in tries)
    start = (len(rates) - tuning.keep) // 2
    return tuple(Try(rate, SECOND) for rate in rates[start : start + tuning.keep])


def score_of(value: float | None, *, higher_is_better: bool) -> float:
    """What a run scores that ended with a value of the metric; None is one that diverged."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if higher_is_better else value


def told(progress: Progress, tuning: Tuning) -> str:
    """Why there were more runs than usual, one sentence; empty if there were not."""
    if not progress.widened:
        return ""
    rates = "rates" if len(progress.widened) > 1 else "rate"
    return (
        f"Every arm was tried at {MORE} more learning rates, because the best {rates} of {', '.join(progress.widened)} "
        f"lay at the edge of the first {tuning.points}: tuning budgets stay equal."
    )


def news(progress: Progress) -> Iterator[str]:
    """What the runs have brought so far, for whoever looks on."""
    if progress.widened:
        edge = "best rates lie at the edge" if len(progress.widened) > 1 else "best rate lies at the edge"
        yield f"the {edge} for {', '.join(progress.widened)}: every arm is tried at {MORE} more"
    if progress.choices is not None:
        yield f"learning rates found: {', '.join(f'{each.rate:g} for {arm}' for arm, each in progress.choices.items())}"
        yield from (
            f"{arm} counts as untuned: {each.trouble}" for arm, each in progress.choices.items() if each.trouble
        )
