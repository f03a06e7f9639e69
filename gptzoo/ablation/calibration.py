"""Does the analysis keep its promises? Simulated studies without any effect, analysed by the code that users run.

Two promises: of all studies in which no arm differs, at most a share alpha names a winner or a loser (family error),
and 95% intervals contain the truth 95% of the time (coverage). A third number is the power at a given effect, beside
the power that the plan prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from gptzoo.ablation import power
from gptzoo.ablation.blocked import Bools, Comparison, Floats, compare
from gptzoo.errors import GPTZooError

Draw = Callable[[np.random.Generator, tuple[int, int, int]], Floats]


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
class Row:
    """One kind of study. Shares are of studies, coverage of intervals.

    Args:
        arms: Number of arms, the baseline included.
        icc: Share of the variance that the seed explains.
        family_error: Studies without an effect in which some arm was called better or worse.
        coverage: 1 - alpha intervals that contain the true difference.
        guarded: Studies in which the guard called some arm unstable.
        power: Studies in which the one arm with an effect was found.
        predicted: The power that the plan prints.
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


@dataclass(frozen=True)
class Calibration:
    """The rows of a calibration, and how they were made.

    Args:
        effect: The true difference behind `Row.power`, in SDs of the noise.
    """

    rows: tuple[Row, ...]
    studies: int
    alpha: float
    effect: float

    @property
    def text(self) -> str:
        """A table for the terminal."""
        head = f"{'noise':<18}{'arms':>5}{'seeds':>6}{'icc':>5}{'family error':>14}{'coverage':>10}{'guarded':>9}"
        lines = [
            f"{self.studies} simulated studies per row; alpha {self.alpha:g}; power at {self.effect:g} SD of the noise",
            head + f"{'power':>8}{'predicted':>11}",
        ]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, *(self._pooled(noise) for noise in dict.fromkeys(row.noise for row in self.rows))])

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
) -> Calibration:
    """Simulate studies of every combination and analyse them; a minute or less on one thread for the defaults.

    Args:
        arms: Numbers of arms, the baseline included.
        icc: Shares of the variance that the seed explains, from 0 to below 1.
        noise: Names of `NOISES`.
        effect: Difference of one arm for the power, in SDs of the noise.
        guard: False leaves out the search for unstable arms, to see what it costs.

    Raises:
        GPTZooError: A number is out of range, or a noise is unknown.
    """
    _check(arms, seeds, icc, noise, studies, alpha)
    generator = np.random.default_rng(seed)
    rows = [
        _row(k, n, share, kind, studies, alpha, effect, guard, generator)
        for kind in noise
        for k in arms
        for n in seeds
        for share in icc
    ]
    return Calibration(tuple(rows), studies, alpha, effect)


def simulate(
    arms: int, seeds: int, icc: float, noise: str, studies: int, generator: np.random.Generator
) -> tuple[Floats, Bools]:
    """Complete tables without any effect: values (studies, arms, seeds) with noise of SD 1, and their mask."""
    block = generator.standard_normal((studies, 1, seeds)) * np.sqrt(icc / (1 - icc))
    return NOISES[noise](generator, (studies, arms, seeds)) + block, np.ones((arms, seeds), bool)


def _row(
    arms: int,
    seeds: int,
    icc: float,
    noise: str,
    studies: int,
    alpha: float,
    effect: float,
    guard: bool,
    generator: np.random.Generator,
) -> Row:
    values, mask = simulate(arms, seeds, icc, noise, studies, generator)
    null = compare(values, mask, guard=guard)
    values[:, 1] += effect
    found = compare(values, mask, guard=guard).p_holm[:, 0] < alpha
    return Row(
        arms,
        seeds,
        icc,
        noise,
        family_error=float((null.p_holm < alpha).any(1).mean()),
        coverage=_coverage(null, alpha),
        guarded=float(null.unstable.any(1).mean()),
        power=float(found.mean()),
        predicted=power.power(effect, power.Noise.blocked(1.0, arms), seeds, alpha, comparisons=arms - 1),
    )


def _coverage(null: Comparison, alpha: float) -> float:
    low, high = null.interval(alpha)
    return float(((low <= 0) & (high >= 0)).mean())


def _line(row: Row) -> str:
    start = f"{row.noise:<18}{row.arms:>5}{row.seeds:>6}{row.icc:>5.1f}{row.family_error:>14.1%}{row.coverage:>10.1%}"
    return start + f"{row.guarded:>9.1%}{row.power:>8.1%}{row.predicted:>11.1%}"


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
