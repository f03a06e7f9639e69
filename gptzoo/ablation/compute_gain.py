"""What a difference in loss is worth in compute: how much the baseline would need to reach an arm's loss, and back.

The gain is C'/C with L(C') = L(C) + D, L being the baseline's loss over compute and D the arm's difference. One study
trains to one budget, so L is read off the baseline's own learning curve: E + K c^-g is fitted to its later evaluations,
c being the share of the training. Below c = 1 the gain is read off this curve. Above it, where nobody trained, it
follows a straight line in ln c through the last doubling, exp(-D / m): the floor E that a curve under a decaying
learning rate seems to reach is not the model's, and following it made gains of 2 into 3.5. Beyond `FARTHEST` times the
compute that was spent, and below the part of the curve that was fitted, only a bound is given.

A point before the end has not finished its schedule, so all this is an approximation: of two arms of the shipped plan
`positions` trained to 100, 140, 200, 280 and 400 steps (two seeds), and any two of these that differ by 2 at most, the
gain read off the one budget was 0.70 to 1.61 times the true one, 24 % off in the mean (20 pairs).

Source: Kaplan et al., arXiv:2001.08361, section 1.2, for power laws of the loss in compute; the floor E as in Hoffmann
et al., arXiv:2203.15556, equation 2. The interval maps the ends of D's through the curve, and joins them with a
bootstrap over the baseline's runs; it knows of noise alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LOSSES = ("val_loss", "val_loss_ema", "bits_per_byte")
"""Metrics that fall with compute as a power law does."""

FROM = 0.25
"""The share of the training from which on the curve is fitted: nothing is read off before it."""

FARTHEST = 2.0
"""The most compute, in trainings of the baseline, that the curve is followed to."""

FEWEST = 6
"""Evaluations that a curve of three unknowns is fitted to, at least."""

DRAWS = 400
STEEPEST, FLATTEST = 8.0, 1e-3  # exponents that are tried


@dataclass(frozen=True)
class Bound:
    """A number, or only that it lies beyond one: `side` is 1 for more than `value`, -1 for less, 0 for equal."""

    value: float
    side: int = 0


@dataclass(frozen=True)
class Gain:
    """How many times the arm's compute the baseline needs for the arm's loss; above 1 the arm is worth more.

    Args:
        estimate: For the difference that was measured.
        low: Lower end of the interval.
        high: Its upper end.
    """

    estimate: Bound
    low: Bound
    high: Bound


@dataclass(frozen=True)
class ComputeCurve:
    """The baseline's loss over its compute: c is the share of a whole training, L = floor + scale c^-exponent.

    Args:
        floor: E.
        scale: K.
        exponent: g.
        runs: How many runs of the baseline it is the mean of.
        points: How many evaluations it was fitted to.
        draws: The same for resampled runs, (B, 3).
    """

    floor: float
    scale: float
    exponent: float
    runs: int
    points: int
    draws: Floats

    def gain(self, difference: float, low: float, high: float, cheaper: float = 1.0) -> Gain:
        """What a difference is worth; negative ones are gains.

        Args:
            difference: Arm minus baseline.
            low: Lower end of its interval.
            high: Its upper end.
            cheaper: Compute of the baseline over that of the arm.
        """
        estimate = _compute(difference, self.scale, self.exponent)
        # A worse loss is less compute: the upper end of the difference is the lower end of the gain.
        least = _quantile(_compute(high, self.draws[:, 1], self.draws[:, 2]), 0.025)
        most = _quantile(_compute(low, self.draws[:, 1], self.draws[:, 2]), 0.975)
        ends = (min(least, float(estimate)), max(most, float(estimate)))
        return Gain(*(_bound(float(each), cheaper) for each in (estimate, *ends)))


def fit_curve(
    shares: Sequence[float] | Floats, losses: Sequence[Sequence[float]] | Sequence[Floats] | Floats, draws: int = DRAWS
) -> ComputeCurve | None:
    """Fit the baseline's curve; None where there is too little to fit, or the loss does not fall.

    Args:
        shares: Of the training at which it was evaluated, up to 1.
        losses: For each run, the loss at these shares.
        draws: Of the bootstrap over runs.
    """
    x, table = np.asarray(shares, float), np.asarray(losses, float)
    late = x >= FROM
    if table.ndim != 2 or late.sum() < FEWEST or not np.isfinite(table[:, late]).all():
        return None
    x, table = x[late], table[:, late]
    runs = len(table)
    chosen = np.random.default_rng(0).integers(0, runs, (draws, runs))
    means = np.concatenate([table.mean(0, keepdims=True), table[chosen].mean(1)])
    fitted = _fit(x, means)
    if not fitted[0, 1] > 0 or not fitted[0, 1] * fitted[0, 2] > 1e-9:
        return None
    return ComputeCurve(*map(float, fitted[0]), runs=runs, points=len(x), draws=fitted[1:])


def _fit(x: Floats, losses: Floats) -> Floats:
    """E, K >= 0 and g of each row by least squares, (B, 3): for a fixed g the curve is linear in E and K."""
    logs = np.log(x)
    centre, reach = np.full(len(losses), math.log(math.sqrt(STEEPEST * FLATTEST))), math.log(STEEPEST / FLATTEST) / 2
    floor = scale = exponent = np.zeros(len(losses))
    while reach > 1e-8:
        tried = np.exp(np.clip(centre[:, None] + np.linspace(-reach, reach, 25), *np.log([FLATTEST, STEEPEST])))
        floors, scales, squares = _linear(np.exp(-tried[:, :, None] * logs), losses[:, None, :])
        best = squares.argmin(1)[:, None]
        floor, scale, exponent = (np.take_along_axis(each, best, 1)[:, 0] for each in (floors, scales, tried))
        centre, reach = np.log(exponent), reach / 6
    return np.stack([floor, scale, exponent], 1)


def _linear(basis: Floats, losses: Floats) -> tuple[Floats, Floats, Floats]:
    """E, K >= 0 and the sum of squares for each basis, over the last axis."""
    mean_x, mean_y = basis.mean(-1), losses.mean(-1)
    spread = np.square(basis - mean_x[..., None]).sum(-1)
    slope = ((basis - mean_x[..., None]) * (losses - mean_y[..., None])).sum(-1) / spread
    origin = (basis * losses).sum(-1) / np.square(basis).sum(-1)
    scale = np.maximum(np.where(mean_y - slope * mean_x < 0, origin, slope), 0.0)
    floor = np.where(mean_y - slope * mean_x < 0, 0.0, mean_y - scale * mean_x)
    return floor, scale, np.square(losses - floor[..., None] - scale[..., None] * basis).sum(-1)


def _compute(difference: float, scale: float | Floats, exponent: float | Floats) -> Floats:
    """Compute at which the curve has moved by a difference from its end, in trainings of the baseline.

    A resampled curve that does not fall (K = 0) tells nothing: infinite for a gain, zero for a loss.
    """
    scale, exponent = np.asarray(scale, float), np.asarray(exponent, float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if difference >= 0:
            return (1 + difference / scale) ** (-1 / exponent)
        slope = scale * (2**exponent - 1) / math.log(2)  # of the last doubling: L(1/2) - L(1) = K (2^g - 1)
        return np.exp(-difference / slope)


def _quantile(values: Floats, level: float) -> float:
    """Of values that may be infinite: the one at or beyond the level."""
    return float(np.quantile(np.nan_to_num(values, nan=1.0, posinf=1e300), level, method="nearest"))


def _bound(compute: float, cheaper: float) -> Bound:
    if compute > FARTHEST:
        return Bound(FARTHEST * cheaper, 1)
    return Bound(FROM * cheaper, -1) if compute < FROM else Bound(compute * cheaper)
