"""The blocked comparison of arms, over many studies at once: fit, guard, Welch's fallback, Holm's correction.

A study is a table of k arms (the baseline is arm 0) by n seeds. The model is y = mu + arm + seed + noise, the seed
being the block: arms that share a seed share its data order and the start of their common weights. The noise is pooled
over the arms, which is what makes three seeds go far (k - 1 times the degrees of freedom of a paired t-test).

Shapes: S studies, k arms, n seeds. `values` (S, k, n); `mask` (k, n), True where there is a result. `analysis.analyse`
calls this with S = 1 and `calibration.calibrate` with S = 10,000: what is calibrated is what is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtr, stdtrit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ROUNDING = 1e-12  # smaller than this, relative to the largest value of a study, is rounding and counts as zero
LEVENE_LEVEL = 0.05
SPREAD_LEVEL = 0.01  # of the F-test, per study


@dataclass(frozen=True)
class Fit:
    """Least squares of y = arm + seed.

    Args:
        effects: Arm effects, up to a constant, (S, k).
        squares: Residual sum of squares, (S,).
        df: Residual degrees of freedom.
        unit: Covariance of the effects divided by the noise variance, (k, k).
        information: What the table says of the effects, (k, k); `unit` is its pseudo-inverse.
    """

    effects: Floats
    squares: Floats
    df: int
    unit: Floats
    information: Floats

    @property
    def variance(self) -> Floats:
        """Pooled noise variance, (S,); NaN without degrees of freedom."""
        return self.squares / self.df if self.df > 0 else np.full_like(self.squares, np.nan)

    def contrast_variance(self, arm: int, other: int) -> float:
        """Variance of the difference of two arms, over the noise variance. NaN if shared seeds do not link them."""
        contrast = np.zeros(len(self.unit))
        contrast[[arm, other]] = 1, -1
        linked = np.allclose(self.information @ self.unit @ contrast, contrast, atol=1e-6)
        return float(contrast @ self.unit @ contrast) if linked else float("nan")


@dataclass(frozen=True)
class Arms:
    """Each arm by itself: runs (k,), mean and variance (S, k); NaN where too few runs."""

    runs: NDArray[np.int64]
    mean: Floats
    variance: Floats


@dataclass(frozen=True)
class Comparison:
    """Every arm but the baseline against it, (S, k - 1) unless said otherwise.

    Args:
        difference: Arm minus baseline.
        error: Standard error of the difference; NaN where there is none.
        df: Degrees of freedom.
        p: Two-sided p-value; NaN where nothing was tested.
        p_holm: The same, corrected for all arms. An untested arm still counts.
        blocked: True where the pooled noise was used, False where Welch's test stands in.
        unstable: Arms whose spread is out of line, the baseline included, (S, k).
        variance: Pooled noise variance, (S,).
        pooled_df: Its degrees of freedom, (S,).
    """

    difference: Floats
    error: Floats
    df: Floats
    p: Floats
    p_holm: Floats
    blocked: Bools
    unstable: Bools
    variance: Floats
    pooled_df: NDArray[np.int64]

    def interval(self, alpha: float) -> tuple[Floats, Floats]:
        """The 1 - alpha interval of each difference, for each arm alone."""
        reach = stdtrit(self.df, 1 - alpha / 2) * self.error
        return self.difference - reach, self.difference + reach

    def inside(self, delta: float) -> Floats:
        """p-values of the two one-sided tests that the difference lies inside +-delta; NaN where nothing was tested."""
        outside = np.abs(self.difference) - delta
        with np.errstate(divide="ignore", invalid="ignore"):
            p = np.where(self.error > 0, stdtr(self.df, outside / self.error), (outside >= 0).astype(float))
        return np.where(np.isnan(self.p), np.nan, p)

    def equivalence(self, delta: float) -> Floats:
        """The same, corrected by Holm's method."""
        return holm(self.inside(delta))


def compare(values: Floats, mask: Bools, left_out: Bools | None = None, guard: bool = True) -> Comparison:
    """Compare every arm with arm 0.

    Args:
        left_out: Arms kept out of the pooled noise and not tested, (k,): some run diverged, or there is only one.
        guard: Look for arms whose spread is out of line, and test those by Welch.
    """
    arms = describe(values, mask)
    left_out = np.zeros(len(mask), bool) if left_out is None else left_out
    pool = mask & ~left_out[:, None]
    unstable = unstable_arms(values, pool) if guard else np.zeros(arms.mean.shape, bool)
    difference, error, df, blocked = _welch(arms)
    variance, pooled_df = np.full(len(values), np.nan), np.zeros(len(values), int)
    for out, studies in _groups(unstable):
        fit = fit_blocks(values[studies], pool & ~out[:, None])
        variance[studies], pooled_df[studies] = fit.variance, fit.df
        for arm in range(1, len(mask)):
            scale = _pooled_scale(fit, pool & ~out[:, None], arm)
            if not np.isnan(scale):
                difference[studies, arm - 1] = fit.effects[:, arm] - fit.effects[:, 0]
                error[studies, arm - 1] = np.sqrt(fit.variance * scale)
                df[studies, arm - 1], blocked[studies, arm - 1] = fit.df, True
    difference = np.where(np.abs(difference) <= negligible(values, mask)[:, None], 0.0, difference)
    p = np.where(left_out[1:] | left_out[0], np.nan, p_value(difference, error, df))
    return Comparison(difference, error, df, p, holm(p), blocked, unstable, variance, pooled_df)


def fit_blocks(values: Floats, mask: Bools) -> Fit:
    """Fit y = arm + seed to the cells of `mask`. The table may have holes and empty rows."""
    cells = mask.astype(float)
    per_seed = np.maximum(cells.sum(0), 1)
    information = np.diag(cells.sum(1)) - (cells / per_seed) @ cells.T
    unit, rank = _pseudo_inverse(information)
    values = np.where(mask, values - _centre(values, mask), 0.0)
    effects = (values - mask * (values.sum(1) / per_seed)[:, None, :]).sum(2) @ unit
    rest = values - mask * effects[:, :, None]
    residuals = rest - mask * (rest.sum(1) / per_seed)[:, None, :]
    squares = np.square(residuals).sum((1, 2))
    df = int(mask.sum()) - int(mask.any(0).sum()) - rank
    return Fit(effects, _cleared(squares, values, mask), df, unit, information)


def describe(values: Floats, mask: Bools) -> Arms:
    """Runs, mean and variance of each arm."""
    runs = mask.sum(1)
    centre = _centre(values, mask)
    shifted = np.where(mask, values - centre, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = shifted.sum(2) / runs
        squares = np.square(np.where(mask, shifted - mean[:, :, None], 0.0)).sum(2)
        variance = _cleared(squares, values, mask) / np.where(runs > 1, runs - 1, np.nan)
    return Arms(runs, mean + centre[:, :, 0], variance)


def unstable_arms(values: Floats, mask: Bools) -> Bools:
    """Arms whose spread over seeds is out of line, (S, k): found one at a time, widest first, until the rest agree."""
    unstable = np.zeros(values.shape[:2], bool)
    if mask.any(1).sum() < 2 or not len(values):
        return unstable
    suspects, deviation = _suspects(values, mask)
    widest = np.where(suspects, deviation, -1.0).argmax(1)
    for arm in range(len(mask)):
        studies = suspects.any(1) & (widest == arm)
        rest = mask & (np.arange(len(mask)) != arm)[:, None]
        unstable[studies] = unstable_arms(values[studies], rest)
        unstable[studies, arm] = True
    return unstable


def p_value(difference: Floats, error: Floats, df: Floats) -> Floats:
    """Two-sided p-values of t-tests. Where the error is zero: 1 for no difference, 0 for any."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stdtr(df, -np.abs(difference) / error)
    return np.where(error == 0, (difference == 0).astype(float), p)


def holm(p: Floats) -> Floats:
    """Holm's step-down correction along the last axis. A NaN counts as an untested member of the family."""
    order = np.argsort(np.where(np.isnan(p), np.inf, p), axis=-1)
    ordered = np.take_along_axis(np.nan_to_num(p, nan=1.0), order, -1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(np.maximum.accumulate(ordered, -1), 1.0), -1)
    return np.where(np.isnan(p), np.nan, corrected)


def negligible(values: Floats, mask: Bools) -> Floats:
    """The size below which a difference of a study is rounding, (S,)."""
    return ROUNDING * np.abs(np.where(mask, values, 0.0)).max((1, 2), initial=0.0)


def _suspects(values: Floats, mask: Bools) -> tuple[Bools, Floats]:
    """Arms that some test finds too wide, (S, k), and every arm's SD.

    Levene's test (median-centred) names the widest arm; an SD above twice the pooled one names its arm. With four arms
    or fewer the second can never speak, and at three seeds the first does not: an arm ten times as noisy as the others
    would pass. Hence a third test, the F-test of an arm's residuals against the model without it. It is exact under
    normal noise, and blind to the ups and downs that the arms share. (Two arms need no guard: the blocked analysis is
    then the paired t-test, exact whatever their spreads.)
    """
    arms = describe(values, mask)
    deviation = np.sqrt(np.nan_to_num(arms.variance))
    rich = arms.runs >= 3
    suspects = _too_wide(values, mask)
    if rich.sum() >= 2:
        pooled = np.sqrt((deviation**2 * rich * (arms.runs - 1)).sum(1) / (arms.runs[rich] - 1).sum())
        uneven = levene(values, mask & rich[:, None]) < LEVENE_LEVEL
        widest = rich & (deviation == np.where(rich, deviation, -1.0).max(1, keepdims=True))
        suspects |= (rich & (deviation > 2 * pooled[:, None])) | (uneven[:, None] & widest)
    return suspects, deviation


def _too_wide(values: Floats, mask: Bools) -> Bools:
    """Arms whose residuals do not fit the model of the other arms: F-tests at a joint level of `SPREAD_LEVEL`."""
    whole, arms = fit_blocks(values, mask), np.flatnonzero(mask.any(1))
    suspects = np.zeros(values.shape[:2], bool)
    for arm in arms:
        rest = fit_blocks(values, mask & (np.arange(len(mask)) != arm)[:, None])
        own = whole.df - rest.df
        if own > 0 and rest.df > 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = ((whole.squares - rest.squares) / own) / rest.variance
            suspects[:, arm] = fdtrc(own, rest.df, ratio) < SPREAD_LEVEL / len(arms)
    return suspects


def levene(values: Floats, mask: Bools) -> Floats:
    """p-values of Levene's test, median-centred, over the non-empty arms, (S,). NaN if nothing varies."""
    arms = np.flatnonzero(mask.any(1))
    distances = [np.abs(y - np.median(y, 1, keepdims=True)) for y in (values[:, arm, mask[arm]] for arm in arms)]
    means, runs = np.stack([d.mean(1) for d in distances], 1), np.array([d.shape[1] for d in distances])
    grand = (means * runs).sum(1, keepdims=True) / runs.sum()
    within = np.sum([np.square(d - d.mean(1, keepdims=True)).sum(1) for d in distances], axis=0)
    between, within = ((means - grand) ** 2 * runs).sum(1), _cleared(within, values, mask)
    df = len(arms) - 1, int(runs.sum()) - len(arms)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(within > 0, fdtrc(*df, (between / df[0]) / (within / df[1])), np.nan)


def _welch(arms: Arms) -> tuple[Floats, Floats, Floats, Bools]:
    """Difference, standard error and degrees of freedom of each arm against arm 0, and a mask of False."""
    difference = arms.mean[:, 1:] - arms.mean[:, :1]
    error, df = welch(arms, slice(1, None), slice(0, 1))
    return difference, error, df, np.zeros(difference.shape, bool)


def welch(arms: Arms, first: slice, second: slice) -> tuple[Floats, Floats]:
    """Standard error and degrees of freedom of Welch's test; with no spread at all, the pooled degrees of freedom."""
    runs, others = arms.runs[first], arms.runs[second]
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = arms.variance[:, first] / runs, arms.variance[:, second] / others
        share = one / (one + two)
        df = 1 / (share**2 / (runs - 1) + (1 - share) ** 2 / (others - 1))
    return np.sqrt(one + two), np.where(one + two == 0, runs + others - 2.0, df)


def _pooled_scale(fit: Fit, pool: Bools, arm: int) -> float:
    """Variance of an arm's difference over the noise variance; NaN if the pooled noise does not apply to it."""
    applies = fit.df > 0 and pool[0].any() and pool[arm].any()
    return fit.contrast_variance(arm, 0) if applies else float("nan")


def _groups(unstable: Bools) -> Iterator[tuple[Bools, NDArray[np.int64]]]:
    """Studies with the same unstable arms, and those arms."""
    patterns, member = np.unique(unstable, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        yield pattern, np.flatnonzero(member.ravel() == index)


def _pseudo_inverse(information: Floats) -> tuple[Floats, int]:
    """Pseudo-inverse and rank of the arms' information matrix."""
    weights, vectors = np.linalg.eigh(information)
    real = weights > 1e-9 * max(1.0, float(weights[-1]))
    return (vectors[:, real] / weights[real]) @ vectors[:, real].T, int(real.sum())


def _centre(values: Floats, mask: Bools) -> Floats:
    """The mean of each study, (S, 1, 1): taken out first, so that sums of squares keep their digits."""
    return (np.where(mask, values, 0.0).sum((1, 2)) / max(1, mask.sum()))[:, None, None]


def _cleared(squares: Floats, values: Floats, mask: Bools) -> Floats:
    """Sums of squares with those that are mere rounding set to zero."""
    floor = mask.sum() * np.square(negligible(values, mask))
    return np.where(squares <= floor.reshape(-1, *[1] * (squares.ndim - 1)), 0.0, squares)
