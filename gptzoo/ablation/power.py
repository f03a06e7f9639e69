"""What a study can see: power, the minimum detectable effect, and how many seeds a question needs.

All of it follows from the noncentral t distribution: a difference D with standard error `se` on `df` degrees of freedom
is found with probability P(|T| > t_crit), T noncentral t with noncentrality D / se.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import gammaincinv, nctdtr, ndtr, stdtrit

from gptzoo.ablation.verdicts import MOST_SEEDS

_MIDDLES = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class Noise:
    """How uncertain a difference of two arms is, as a function of the number of seeds.

    Args:
        variance: Variance of the difference at one seed; its standard error is sqrt(variance / seeds). Metric squared.
        degrees: Degrees of freedom that each seed beyond the first adds.
    """

    variance: float
    degrees: float

    @classmethod
    def blocked(cls, sigma: float, arms: int) -> Noise:
        """The blocked analysis: residual SD `sigma` pooled over `arms` (the baseline counted), seed as block."""
        return cls(2 * sigma**2, arms - 1)

    @classmethod
    def paired(cls, deviation: float) -> Noise:
        """A paired t-test; `deviation` is the SD of the differences."""
        return cls(deviation**2, 1)

    @classmethod
    def welch(cls, first: float, second: float) -> Noise:
        """Welch's test of two arms with these SDs and equally many seeds."""
        variance = first**2 + second**2
        share = first**2 / variance if variance else 0.5
        return cls(variance, 1 / (share**2 + (1 - share) ** 2))

    def error(self, seeds: ArrayLike) -> NDArray[np.float64]:
        """Standard error of the difference, for each number of seeds."""
        return np.sqrt(self.variance / np.asarray(seeds, float))

    def df(self, seeds: ArrayLike) -> NDArray[np.float64]:
        """Degrees of freedom, for each number of seeds."""
        return self.degrees * (np.asarray(seeds, float) - 1)


def power(effect: float, noise: Noise, seeds: int, alpha: float = 0.05, comparisons: int = 1) -> float:
    """Probability that a true difference `effect` is called better or worse.

    Args:
        comparisons: Arms tested together. Each is held to alpha / comparisons, Holm's first and strictest step, so the
            probability is on the low side.
    """
    return float(t_power(effect, noise.error(seeds), noise.df(seeds), alpha / comparisons))


def equivalence_power(
    effect: float, delta: float, noise: Noise, seeds: int, alpha: float = 0.05, comparisons: int = 1
) -> float:
    """Probability that a true difference `effect` is called equivalent within +-`delta`."""
    return float(tost_power(effect, delta, noise.error(seeds), noise.df(seeds), alpha / comparisons))


def minimum_detectable_effect(
    noise: Noise, seeds: int, alpha: float = 0.05, comparisons: int = 1, target: float = 0.8
) -> float:
    """The smallest true difference found with probability `target`; infinite for a single seed."""
    if seeds < 2:
        return math.inf
    return detectable(float(noise.error(seeds)), float(noise.df(seeds)), alpha / comparisons, target)


def seeds_needed(
    effect: float,
    noise: Noise,
    alpha: float = 0.05,
    comparisons: int = 1,
    target: float = 0.8,
    delta: float | None = None,
    most: int = MOST_SEEDS,
) -> int | None:
    """The smallest number of seeds per arm that settles the question with probability `target`.

    Settled means called better or worse and, where `delta` is given, equivalent.

    Returns:
        The number, 2 or more, or None if `most` seeds are not enough.
    """
    seeds = np.arange(2, most + 1)
    error, df = noise.error(seeds), noise.df(seeds)
    chance = t_power(effect, error, df, alpha / comparisons)
    if delta is not None:
        chance = np.maximum(chance, tost_power(effect, delta, error, df, alpha / comparisons))
    enough = np.flatnonzero(chance >= target)
    return int(seeds[enough[0]]) if len(enough) else None


def detectable(error: float, df: float, alpha: float, target: float = 0.8) -> float:
    """The smallest true difference found with probability `target`, from a standard error and degrees of freedom."""
    if error == 0:
        return 0.0
    span = float(stdtrit(df, 1 - alpha / 2)) + 4  # in standard errors; the power there is above any sensible target
    while t_power(span, 1.0, df, alpha) < target:
        span *= 2
    root = brentq(lambda effect: float(t_power(effect, 1.0, df, alpha)) - target, 0.0, span)
    return error * cast(float, root)


def t_power(effect: ArrayLike, error: ArrayLike, df: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """Power of the two-sided t-test at level `alpha`, elementwise."""
    critical = stdtrit(df, 1 - alpha / 2)
    shift = _ratio(np.abs(effect), error)
    return np.clip(1 - _cdf(critical, df, shift) + _cdf(-critical, df, shift), 0.0, 1.0)


def tost_power(effect: ArrayLike, delta: float, error: ArrayLike, df: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """Power of the two one-sided tests at level `alpha`, elementwise: the mean over what the noise may be taken for."""
    effect, error, df = (np.asarray(each, float)[..., None] for each in (effect, error, df))
    ratio = np.sqrt(2 * gammaincinv(df / 2, _MIDDLES) / df)  # estimated over true noise, at quantiles of its chi
    room = delta - stdtrit(df, 1 - alpha) * error * ratio
    found = ndtr(_ratio(room - effect, error)) - ndtr(_ratio(-room - effect, error))
    return np.where(room > 0, found, 0.0).mean(-1)


def _ratio(difference: ArrayLike, error: ArrayLike) -> NDArray[np.float64]:
    """difference / error; where the error is zero: 0, or as good as infinite with the difference's sign."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.equal(difference, 0), 0.0, np.divide(difference, error))
    return np.clip(ratio, -1e6, 1e6)


def _cdf(t: ArrayLike, df: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """Noncentral t distribution function. scipy answers NaN where it is below 1e-15."""
    return np.nan_to_num(nctdtr(df, shift, t), nan=0.0)
