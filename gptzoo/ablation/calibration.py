"""Does the analysis keep its promises? Simulated studies, analysed by the code that users run.

Two promises: of all studies in which no arm differs, at most a share alpha names a winner or a loser (family error),
and 95% intervals contain the truth 95% of the time (coverage). With looks an interval has the level of the look that
it was taken at, and is no narrower. A third number is the power at a given effect, beside the power that a plan prints.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import stdtrit

from gptzoo.ablation import power
from gptzoo.ablation.blocked import Bools, Floats, compare
from gptzoo.ablation.plan import FIRST_LOOK
from gptzoo.ablation.sequential import DIFFERENT, EQUIVALENT, Rules, follow, last_look
from gptzoo.errors import GPTZooError

Draw = Callable[[np.random.Generator, tuple[int, int, int]], Floats]
"""Noise of mean 0 and SD 1 of a shape."""


def _normal(generator: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    return generator.standard_normal(shape)


def _t5(generator: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    return generator.standard_t(5, shape) / np.sqrt(5 / 3)


def _skewed(generator: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    return generator.standard_exponential(shape) - 1


def _unstable_arm(generator: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    noise = generator.standard_normal(shape)
    noise[:, -1] *= 10
    return noise


def _unstable_baseline(generator: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    noise = generator.standard_normal(shape)
    noise[:, 0] *= 10
    return noise


NOISES: Mapping[str, Draw] = MappingProxyType(
    {
        "normal": _normal,
        "t5": _t5,  # Student's t with 5 degrees of freedom
        "skewed": _skewed,  # exponential: skewness 2
        "unstable arm": _unstable_arm,  # the last arm ten times as noisy as the others
        "unstable baseline": _unstable_baseline,
    }
)


@dataclass(frozen=True)
class Shape:
    """What is simulated.

    Args:
        arms: The baseline included.
        seeds: Per arm; with looks the last one's.
        alpha: Probability of any false winner or loser.
        looks: Numbers of seeds at which the study is looked at; empty for one analysis at the end.
        delta: The smallest difference that matters, in SDs of the noise.
    """

    arms: int
    seeds: int
    alpha: float = 0.05
    looks: tuple[int, ...] = ()
    delta: float | None = None


@dataclass(frozen=True)
class Judged:
    """What the analysis says of many studies, (S, arms - 1).

    Args:
        different: Called better or worse.
        equivalent: Called equivalent.
        difference: Arm minus baseline.
        reach: Half the width of its interval.
        seeds: How many an arm used.
    """

    different: Bools
    equivalent: Bools
    difference: Floats
    reach: Floats
    seeds: Floats
    guarded: float

    def coverage(self, truth: Sequence[float] = ()) -> float:
        """Share of the intervals that contain the truth, which is 0 for arms that have none given."""
        true = np.zeros(self.difference.shape[1])
        true[: len(truth)] = truth
        return float((np.abs(self.difference - true) <= self.reach).mean())


def judge(values: Floats, shape: Shape, guard: bool = True) -> Judged:
    """Analyse complete tables (S, arms, seeds) as a study of that shape would be."""
    if not shape.looks:
        found = compare(values, np.ones(values.shape[1:], bool), guard=guard)
        equal = found.equivalence(shape.delta) < shape.alpha if shape.delta else np.zeros(found.p.shape, bool)
        reach = stdtrit(found.df, 1 - shape.alpha / 2) * found.error
        seeds, guarded = np.full(found.p.shape, float(shape.seeds)), float(found.unstable.any(1).mean())
        return Judged((found.p_holm < shape.alpha) & ~equal, equal, found.difference, reach, seeds, guarded)
    rules = Rules(shape.looks, shape.alpha, shape.delta, guard=guard)
    taken = follow(values, rules)
    index = last_look(taken)

    def own(name: str) -> Floats:
        return np.take_along_axis(np.stack([getattr(look, name) for look in taken]), index[None], 0)[0]

    reach = stdtrit(own("df"), 1 - np.asarray(rules.levels)[index] / 2) * own("error")
    outcome, seeds = taken[-1].outcome, np.asarray(shape.looks, float)[index]
    return Judged(outcome == DIFFERENT, outcome == EQUIVALENT, own("difference"), reach, seeds, float("nan"))


@dataclass(frozen=True)
class Power:
    """What studies of a shape find.

    Args:
        found: Share of studies that give the right answer for an arm.
        seeds: How many it used on average.
        runs: Of all arms together, the baseline's included and the A/A arm's not.
        baseline: Runs of the baseline, which goes as far as any arm.
    """

    found: float
    seeds: float
    runs: float = 0.0
    baseline: float = 0.0


def simulated_power(
    effect: float, shape: Shape, studies: int = 2000, icc: float = 0.3, noise: str = "normal", seed: int = 0
) -> Power:
    """How often the one arm that differs is called so: guard, Holm's correction, looks and stops included.

    Args:
        effect: The true difference, in SDs of the noise.
        shape: Of the study.
        studies: How many.
        icc: Share of the variance that the seed explains; the analysis takes it out.
        noise: One of `NOISES`.
        seed: Of the simulation.
    """
    values, _ = simulate(shape.arms, shape.seeds, icc, noise, studies, np.random.default_rng(seed))
    values[:, 1] += effect
    made = judge(values, shape)
    baseline = float(made.seeds.max(1).mean())
    runs = float(made.seeds.sum(1).mean()) + baseline
    return Power(float(made.different[:, 0].mean()), float(made.seeds[:, 0].mean()), runs, baseline)


def simulated_equality(
    shape: Shape, studies: int = 2000, icc: float = 0.3, noise: str = "normal", seed: int = 0
) -> Power:
    """How often an arm is called equivalent, all arms being equal; see `simulated_power`."""
    values, _ = simulate(shape.arms, shape.seeds, icc, noise, studies, np.random.default_rng(seed))
    made = judge(values, shape)
    return Power(float(made.equivalent.mean()), float(made.seeds.mean()))


@functools.lru_cache
def printed_power(effect: float, shape: Shape) -> Power:
    """The power that a plan prints: of one analysis by the noncentral t distribution, with looks simulated."""
    if shape.looks:
        return simulated_power(effect, shape)
    noise = power.Noise.blocked(1.0, shape.arms)
    found = power.power(effect, noise, shape.seeds, shape.alpha, comparisons=shape.arms - 1)
    return Power(found, shape.seeds, shape.arms * shape.seeds, shape.seeds)


@functools.lru_cache
def printed_equality(shape: Shape) -> Power:
    """The probability of calling equal arms equivalent that a plan prints: simulated, as Holm's steps depend."""
    return simulated_equality(shape)


@dataclass(frozen=True)
class Row:
    """One kind of study. Shares are of studies, coverage of intervals.

    Args:
        arms: Number of arms, the baseline included.
        icc: Share of the variance that the seed explains.
        family_error: Studies without an effect in which some arm was called better or worse.
        coverage: 1 - alpha intervals that contain the true difference.
        guarded: Studies in which the guard called some arm unstable; NaN with looks.
        power: Studies in which the one arm with an effect was found.
        predicted: The power that the plan prints.
        used: Seeds that an arm without an effect used on average.
    """

    arms: int
    seeds: int
    icc: float
    noise: str
    family_error: float
    coverage: float
    guarded: float
    power: float
    predicted: float
    used: float


@dataclass(frozen=True)
class Calibration:
    """The rows of a calibration, and how they were made.

    Args:
        effect: The true difference behind `Row.power`, in SDs of the noise.
        looks: Numbers of seeds at which studies were looked at; empty without looks.
    """

    rows: tuple[Row, ...]
    studies: int
    alpha: float
    effect: float
    looks: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """A table for the terminal."""
        third = "used" if self.looks else "guarded"
        head = f"{'noise':<18}{'arms':>5}{'seeds':>6}{'icc':>5}{'family error':>14}{'coverage':>10}{third:>9}"
        looks = f"; looks at {', '.join(map(str, self.looks))} seeds" if self.looks else ""
        effect = f"power at {self.effect:g} SD of the noise"
        lines = [
            f"{self.studies} simulated studies per row; alpha {self.alpha:g}; {effect}{looks}",
            head + f"{'power':>8}{'predicted':>11}",
        ]
        lines += [self._line(row) for row in self.rows]
        return "\n".join([*lines, *(self._pooled(noise) for noise in dict.fromkeys(row.noise for row in self.rows))])

    def _line(self, row: Row) -> str:
        start = f"{row.noise:<18}{row.arms:>5}{row.seeds:>6}{row.icc:>5.1f}"
        third = f"{row.used:>9.1f}" if self.looks else f"{row.guarded:>9.1%}"
        shares = f"{row.family_error:>14.1%}{row.coverage:>10.1%}{third}"
        return start + shares + f"{row.power:>8.1%}{row.predicted:>11.1%}"

    def _pooled(self, noise: str) -> str:
        rows = [row for row in self.rows if row.noise == noise]
        error, coverage = np.mean([r.family_error for r in rows]), np.mean([r.coverage for r in rows])
        return f"{noise}, all rows: family error {error:.1%}, coverage {coverage:.1%}"


def calibrate(
    arms: Sequence[int] = (2, 4, 8),
    seeds: Sequence[int] = (3, 5),
    icc: Sequence[float] = (0.0, 0.3, 0.6),
    noise: Sequence[str] = ("normal", "t5", "skewed"),
    studies: int = 10_000,
    alpha: float = 0.05,
    effect: float = 2.0,
    seed: int = 0,
    guard: bool = True,
    looks: Sequence[int] = (),
    runs: Sequence[float] = (),
) -> Calibration:
    """Simulate studies of every combination and analyse them; a minute or less on one thread for the defaults.

    Args:
        arms: Numbers of arms, the baseline included.
        seeds: Numbers of seeds; with looks the last one's.
        icc: Shares of the variance that the seed explains, from 0 to below 1.
        noise: Names of `NOISES`.
        studies: Per row.
        alpha: Probability of any false winner or loser.
        effect: Difference of one arm for the power, in SDs of the noise.
        seed: Of the simulation.
        guard: False leaves out the search for unstable arms, to see what it costs.
        looks: Numbers of seeds at which a study is looked at, arms being stopped; in place of `seeds`.
        runs: Results of one recipe on many seeds: a further noise, resampled from these.

    Raises:
        GPTZooError: A number is out of range, or a noise is unknown.
    """
    seeds = (looks[-1],) if looks else seeds
    draws = {name: NOISES[name] for name in noise if name in NOISES}
    _check(arms, seeds, icc, noise, studies, alpha)
    check_looks(looks)
    if runs:
        draws["resampled runs"] = resampled(runs)
    generator = np.random.default_rng(seed)
    rows = []
    for kind, draw in draws.items():
        for k, n, share in itertools.product(arms, seeds, icc):
            shape = Shape(k, n, alpha, tuple(looks))
            rows.append(_row(shape, share, kind, draw, studies, effect, guard, generator))
    return Calibration(tuple(rows), studies, alpha, effect, tuple(looks))


def simulate(
    arms: int, seeds: int, icc: float, noise: str, studies: int, generator: np.random.Generator
) -> tuple[Floats, Bools]:
    """Complete tables without any effect: values (studies, arms, seeds) with noise of SD 1, and their mask."""
    return _simulate((studies, arms, seeds), icc, NOISES[noise], generator), np.ones((arms, seeds), bool)


def _simulate(shape: tuple[int, int, int], icc: float, draw: Draw, generator: np.random.Generator) -> Floats:
    studies, _, seeds = shape
    block = generator.standard_normal((studies, 1, seeds)) * np.sqrt(icc / (1 - icc))
    return draw(generator, shape) + block


def resampled(runs: Sequence[float]) -> Draw:
    """Noise drawn from results of one recipe, with replacement.

    Raises:
        GPTZooError: There are fewer than five, or they are all equal.
    """
    known = np.asarray(runs, float)
    if len(known) < 5 or known.std() == 0:
        raise GPTZooError(f"{len(known)} runs of one recipe are too few to draw from. Five that differ are needed.")
    standard = (known - known.mean()) / known.std()
    return lambda generator, shape: generator.choice(standard, shape).astype(float)


def _row(
    shape: Shape,
    icc: float,
    noise: str,
    draw: Draw,
    studies: int,
    effect: float,
    guard: bool,
    generator: np.random.Generator,
) -> Row:
    values = _simulate((studies, shape.arms, shape.seeds), icc, draw, generator)
    null = judge(values, shape, guard)
    values[:, 1] += effect
    real = judge(values, shape, guard)
    coverage = null.coverage()
    if shape.looks:  # where an arm stops depends on what was seen, and so might what its interval covers
        coverage = (coverage + real.coverage([effect])) / 2
    return Row(
        shape.arms,
        shape.seeds,
        icc,
        noise,
        family_error=float(null.different.any(1).mean()),
        coverage=coverage,
        guarded=null.guarded,
        power=float(real.different[:, 0].mean()),
        predicted=printed_power(effect, shape).found,
        used=float(null.seeds.mean()),
    )


def check_looks(looks: Sequence[int], where: str = "looks") -> None:
    """Refuse looks that make no plan.

    Raises:
        GPTZooError: They do not increase, there is only one, or the first is too early.
    """
    if not looks:
        return
    if len(looks) < 2 or any(one >= two for one, two in itertools.pairwise(looks)):
        raise GPTZooError("looks are two or more numbers of seeds that increase. Write [3,5,8,12].", where)
    if looks[0] < FIRST_LOOK:
        raise GPTZooError(f"the first look needs {FIRST_LOOK} seeds or more: two do not show the noise.", where)


def _check(
    arms: Sequence[int], seeds: Sequence[int], icc: Sequence[float], noise: Sequence[str], studies: int, alpha: float
) -> None:
    """Refuse what cannot be simulated."""
    for kind in noise:
        if kind not in NOISES:
            raise GPTZooError(f"no noise is called {kind!r}. Known: {', '.join(NOISES)}.", "noise")
    if min((*arms, *seeds), default=0) < 2:
        raise GPTZooError("a study needs two arms and two seeds or more.", "arms, seeds")
    if not all(0 <= share < 1 for share in icc):
        raise GPTZooError("an ICC is a share of the variance: 0 or more, below 1.", "icc")
    if studies < 1 or not 0 < alpha < 1:
        raise GPTZooError("simulate one study or more, at an alpha between 0 and 1.", "studies, alpha")
