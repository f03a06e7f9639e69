"""The ranking of arms: which cannot be told apart (they share a letter), and how likely each place is."""

from __future__ import annotations

import itertools

import numpy as np

from gptzoo.ablation.blocked import Arms, Bools, Fit, Floats, holm, p_value, welch
from gptzoo.ablation.verdicts import Place

DRAWS = 10_000


def rank(
    names: list[str],
    differences: list[float],
    arms: Arms,
    fit: Fit,
    pool: Bools,
    alpha: float,
    higher_is_better: bool,
    rounding: float,
) -> tuple[Place, ...]:
    """Order the arms from best to worst.

    Args:
        names: Of the arms to rank, arm 0 the baseline, (k,). Every arm has two runs or more.
        differences: From the baseline, (k,), the first one 0.
        arms: Each arm by itself, for one study.
        fit: The blocked model of that study.
        pool: Arms whose noise is pooled, (k,); the others are compared by Welch.
        rounding: Differences up to this size are none.
    """
    best_first = np.argsort(differences if not higher_is_better else -np.asarray(differences), kind="stable")
    separable = _separable(arms, fit, pool, alpha, rounding)
    letters = _letters([int(i) for i in best_first], separable)
    chances = _chances(np.asarray(differences), _covariance(arms, fit, pool), higher_is_better, rounding)
    return tuple(Place(names[i], differences[i], letters[i], tuple(chances[i].tolist())) for i in best_first)


def _separable(arms: Arms, fit: Fit, pool: Bools, alpha: float, rounding: float) -> set[tuple[int, int]]:
    """Pairs of arms whose difference is significant, Holm over all pairs."""
    pairs = list(itertools.combinations(range(len(pool)), 2))
    p = holm(np.array([_pair_p_value(arms, fit, pool, rounding, *pair) for pair in pairs]))
    return {pair for pair, each in zip(pairs, p, strict=True) if each < alpha}


def _pair_p_value(arms: Arms, fit: Fit, pool: Bools, rounding: float, first: int, second: int) -> float:
    scale = fit.contrast_variance(first, second) if fit.df > 0 and pool[first] and pool[second] else np.nan
    if not np.isnan(scale):
        difference, error, df = fit.effects[:, first] - fit.effects[:, second], np.sqrt(fit.variance * scale), fit.df
    else:
        difference = arms.mean[:, first] - arms.mean[:, second]
        error, df = (x[:, 0] for x in welch(arms, slice(first, first + 1), slice(second, second + 1)))
    difference = np.where(np.abs(difference) <= rounding, 0.0, difference)
    return float(p_value(difference, error, np.asarray(df, float))[0])


def _letters(order: list[int], separable: set[tuple[int, int]]) -> dict[int, str]:
    """The compact letter display: arms share a letter if and only if they are not separable (insert and absorb)."""
    groups = [frozenset(order)]
    for first, second in sorted(separable):
        halves = [g - {arm} for g in groups if {first, second} <= g for arm in (first, second)]
        groups = [g for g in groups if not {first, second} <= g]
        for half in halves:
            if not any(half <= g for g in groups):
                groups = [g for g in groups if not g <= half] + [half]
    groups.sort(key=lambda g: sorted(order.index(arm) for arm in g))
    return {arm: "".join(_letter(i) for i, g in enumerate(groups) if arm in g) for arm in order}


def _letter(index: int) -> str:
    """a to z, then (27), (28), ..."""
    return chr(ord("a") + index) if index < 26 else f"({index + 1})"


def _chances(differences: Floats, covariance: Floats, higher_is_better: bool, rounding: float) -> Floats:
    """Probability of each place, (k, k): arm by place, from draws of the arm means around their estimates."""
    generator = np.random.default_rng(0)
    draws = generator.multivariate_normal(differences, covariance, DRAWS, method="eigh", check_valid="ignore")
    draws += (rounding + np.finfo(float).tiny) * generator.standard_normal(draws.shape)  # ties fall either way
    places = np.argsort(np.argsort(-draws if higher_is_better else draws, axis=1), axis=1)
    return np.stack([(places == place).mean(0) for place in range(len(differences))], axis=1)


def _covariance(arms: Arms, fit: Fit, pool: Bools) -> Floats:
    """Covariance of the arm means: pooled noise where it applies, an arm's own spread elsewhere."""
    variance = arms.variance[0] / arms.runs
    covariance = np.diag(variance)
    inside = np.flatnonzero(pool)
    if fit.df > 0 and len(inside) > 1:
        centred = np.eye(len(inside)) - 1 / len(inside)
        block = centred @ fit.unit[np.ix_(inside, inside)] @ centred + 1 / arms.runs[inside].sum()
        covariance[np.ix_(inside, inside)] = fit.variance[0] * block
    return covariance
