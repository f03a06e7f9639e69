"""Effects of factors: main effects and interactions of a crossed design, and what one change does alone and among all.

A crossed design (a grid, or a fraction of one) is analysed as y = seed + main effects + two-factor interactions + noise
by least squares, so that every run bears on every effect. Of interactions that a fraction cannot tell apart, the first
stands for the chain. With a single seed there is no noise to compare with: then Lenth's pseudo standard error stands in
(Lenth, Quick and easy analysis of unreplicated factorials, Technometrics 31, 1989).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, ndtri, stdtr, stdtrit

from gptzoo.ablation.blocked import Bools, Fit, Floats, fit_blocks, holm, unstable_arms
from gptzoo.ablation.designs import BASE, FULL, Design, effect_name
from gptzoo.ablation.verdicts import Cell

LENTH = "Lenth's pseudo standard error"
RESIDUAL = "residual"


@dataclass(frozen=True)
class Effect:
    """What a factor of two levels, or two of them together, do to the metric.

    Args:
        factors: One for a main effect, two for an interaction.
        size: On minus off, averaged over all else; of an interaction, what one does with the other on minus off.
        error: Its standard error; None where there is no noise to know it from.
        low: Lower end of its 1 - alpha interval, alone.
        high: Upper end.
        p: Two-sided.
        p_holm: Corrected for all main effects, or for all interactions.
        aliases: Interactions that it cannot be told from.
    """

    factors: tuple[str, ...]
    size: float
    error: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return effect_name(self.factors)

    @property
    def contrast(self) -> float:
        """On the scale of main effects, which all have one standard error in a complete table."""
        return self.size / len(self.factors)


@dataclass(frozen=True)
class Term:
    """A factor, or an interaction, of any number of levels in the analysis of variance (type II).

    Args:
        factors: One or two.
        df: Degrees of freedom.
        squares: Sum of squares that nothing but this term explains.
        f: The ratio to the residual variance; None without residual degrees of freedom.
        p: Of the F-test.
        p_holm: Corrected for all main effects, or for all interactions.
    """

    factors: tuple[str, ...]
    df: int
    squares: float
    f: float | None
    p: float | None
    p_holm: float | None

    @property
    def name(self) -> str:
        return effect_name(self.factors)


@dataclass(frozen=True)
class Factorial:
    """The analysis of a crossed design.

    Args:
        design: The design.
        alpha: Level of the intervals.
        effects: Of a design whose factors all have two levels: mains first.
        terms: The analysis of variance.
        sigma: SD of the noise; None if unknown.
        df: Its degrees of freedom, with Lenth's a third of the contrasts.
        method: Where sigma comes from.
        means: For each pair of factors the mean of the metric at each pair of levels; NaN where nothing was run.
        missing: Runs without a number; least squares on the rest.
    """

    design: Design
    alpha: float
    effects: tuple[Effect, ...]
    terms: tuple[Term, ...]
    sigma: float | None
    df: float | None
    method: str
    means: Mapping[tuple[str, str], tuple[tuple[float, ...], ...]]
    missing: int

    @property
    def flagged(self) -> list[tuple[str, ...]]:
        """Interactions beyond noise, the least likely first."""
        tested = [each for each in (*self.effects, *self.terms) if len(each.factors) == 2 and each.p_holm is not None]
        found = sorted((each for each in tested if (each.p_holm or 0.0) < self.alpha), key=lambda each: each.p or 0.0)
        return list(dict.fromkeys(each.factors for each in found))


@dataclass(frozen=True)
class OneFactor:
    """What a change does alone, added to the base, and among all others, taken out of the full model.

    Args:
        factor: The change.
        alone: Base with it minus base.
        among: Full minus full without it.
        interaction: `among` minus `alone`; beyond noise, the change depends on the others.
    """

    factor: str
    alone: Effect
    among: Effect
    interaction: Effect


Effects = Factorial | tuple[OneFactor, ...]


def effects_of(design: Design, cells: Sequence[Cell], alpha: float) -> Effects | None:
    """What the factors of a design do; None for designs whose arms say it all, or without enough results.

    Args:
        design: The plan's.
        cells: Results of its arms; others are ignored.
        alpha: Level of the intervals.
    """
    arms = list(design.arms)
    seeds = sorted({cell.seed for cell in cells if cell.arm in design.arms})
    values, mask = np.zeros((len(arms), len(seeds))), np.zeros((len(arms), len(seeds)), bool)
    for cell in cells:
        if cell.arm in design.arms and cell.ended:
            place = arms.index(cell.arm), seeds.index(cell.seed)
            values[place], mask[place] = cell.value, True
    if not mask.any():
        return None
    if design.kind == "both":
        return _one_factor(design, values, mask, alpha)
    return _Crossed(design, values, mask, alpha).analysis() if design.is_crossed else None


# -- crossed designs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Crossed:
    """The table (arms, seeds) of a crossed design."""

    design: Design
    values: Floats
    mask: Bools
    alpha: float

    def analysis(self) -> Factorial:
        terms = [*self.design.effects(1), *self.design.effects(2)] if self.design.is_two_level else self.pairs
        columns = {term: self.columns(term) for term in terms}
        whole = self.fit(columns.values())
        lenth = self.lenth() if self.values.shape[1] == 1 and self.design.is_two_level else None
        sigma, df, method = whole.sigma, whole.df or None, RESIDUAL
        if lenth is not None:
            sigma, df, method = lenth[0], lenth[1], LENTH
        return Factorial(
            design=self.design,
            alpha=self.alpha,
            effects=tuple(self.effects(columns, whole, sigma, df)) if self.design.is_two_level else (),
            terms=() if self.design.is_two_level else tuple(self.terms(columns, whole)),
            sigma=sigma,
            df=df,
            method=method,
            means={pair: self.table(*pair) for pair in itertools.combinations(self.design.factors, 2)},
            missing=int((~self.mask).sum()),
        )

    @property
    def pairs(self) -> list[tuple[str, ...]]:
        """All terms where nothing is aliased."""
        factors = self.design.factors
        return [*((name,) for name in factors), *itertools.combinations(factors, 2)]

    @property
    def levels(self) -> dict[str, np.ndarray]:
        table = np.array(list(self.design.arms.values()))
        return {name: table[:, i] for i, name in enumerate(self.design.factors)}

    def columns(self, term: Sequence[str]) -> Floats:
        """Columns of a term, (arms, df): each factor coded to sum to zero, interactions as products."""
        made = np.ones((len(self.design.arms), 1))
        for name in term:
            count = len(self.design.levels[self.design.factors.index(name)])
            own = np.stack([(self.levels[name] == i + 1) * 1.0 - (self.levels[name] == 0) for i in range(count - 1)], 1)
            made = (made[:, :, None] * own[:, None, :]).reshape(len(made), -1)
        return made

    def fit(self, columns: Iterable[Floats]) -> _Least:
        return _Least.of(self.values, self.mask, list(columns))

    def effects(
        self, columns: Mapping[tuple[str, ...], Floats], whole: _Least, sigma: float | None, df: float | None
    ) -> Iterable[Effect]:
        terms = list(columns)
        made = [self.effect(term, i, whole, sigma, df) for i, term in enumerate(terms)]
        for size in (1, 2):
            yield from _corrected([effect for effect in made if len(effect.factors) == size])

    def effect(
        self, term: tuple[str, ...], column: int, whole: _Least, sigma: float | None, df: float | None
    ) -> Effect:
        """Twice the coefficient of -1 and +1 for a main effect, four times it for an interaction."""
        scale = 2.0 ** len(term)
        unit = whole.unit[column]
        size = scale * whole.coefficients[column] if not math.isnan(unit) else math.nan
        error = None if sigma is None or math.isnan(unit) else scale * sigma * math.sqrt(unit)
        aliases = tuple(effect_name(other) for other in self.design.aliases(term))
        return _effect(term, size, error, df, self.alpha, aliases)

    def lenth(self) -> tuple[float, float] | None:
        """SD of a run from the contrasts themselves, most of which are noise, and its degrees of freedom."""
        if not self.mask.all():
            return None
        free = [name for name in self.design.factors if name not in self.design.generators]
        chains = [term for size in range(1, len(free) + 1) for term in itertools.combinations(free, size)]
        contrasts = np.array([2 * float(np.mean(self.columns(term)[:, 0] * self.values[:, 0])) for term in chains])
        if len(contrasts) < 7:
            return None
        return lenth(contrasts) * math.sqrt(len(self.values)) / 2, len(contrasts) / 3

    def terms(self, columns: Mapping[tuple[str, ...], Floats], whole: _Least) -> Iterable[Term]:
        """Type II: each term beside all others that do not contain it."""
        made = []
        for term in columns:
            others = [each for name, each in columns.items() if not set(term) <= set(name)]
            without, beside = self.fit(others), self.fit([*others, columns[term]])
            squares, df = max(0.0, without.squares - beside.squares), without.df - beside.df
            tested = whole.df > 0 and df > 0 and whole.squares > 0
            f = squares / df / (whole.squares / whole.df) if tested else None
            p = None if f is None else float(fdtrc(df, whole.df, f))
            made.append(Term(term, df, squares, f, p, None))
        for size in (1, 2):
            own = [each for each in made if len(each.factors) == size]
            for each, corrected in zip(own, _holm([each.p for each in own]), strict=True):
                yield Term(each.factors, each.df, each.squares, each.f, each.p, corrected)

    def table(self, first: str, second: str) -> tuple[tuple[float, ...], ...]:
        """Means at each pair of levels, what the seeds do taken out."""
        rest = np.where(self.mask, self.values - _seed_effects(self.values, self.mask), 0.0)
        one, two = self.levels[first], self.levels[second]
        counts = (len(self.design.levels[self.design.factors.index(name)]) for name in (first, second))
        rows, columns = map(range, counts)

        def mean(i: int, j: int) -> float:
            chosen = self.mask & ((one == i) & (two == j))[:, None]
            return float(rest[chosen].mean()) if chosen.any() else math.nan

        return tuple(tuple(mean(i, j) for j in columns) for i in rows)


@dataclass(frozen=True)
class _Least:
    """Least squares of y = seed + columns.

    Args:
        coefficients: Of the columns.
        unit: Their variances over the noise variance; NaN for one that the runs do not determine.
        squares: Residual sum of squares.
        df: Residual degrees of freedom.
    """

    coefficients: Floats
    unit: Floats
    squares: float
    df: int

    @property
    def sigma(self) -> float | None:
        return math.sqrt(self.squares / self.df) if self.df > 0 else None

    @classmethod
    def of(cls, values: Floats, mask: Bools, columns: list[Floats]) -> _Least:
        arm, seed = np.nonzero(mask)
        y = values[mask]
        blocks = (seed[:, None] == np.unique(seed)[None, :]).astype(float)
        design = np.concatenate([each[arm] for each in columns] + [blocks], 1)
        y = y - y.mean()
        inverse = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True)
        rank = int(np.linalg.matrix_rank(design))
        coefficients = inverse @ design.T @ y
        residuals = y - design @ coefficients
        known = np.isclose(np.diag(inverse @ design.T @ design), 1.0, atol=1e-6)
        count = design.shape[1] - blocks.shape[1]
        unit = np.where(known, np.diag(inverse), np.nan)[:count]
        squares = float(residuals @ residuals)
        squares = 0.0 if squares <= len(y) * (1e-12 * np.abs(values[mask]).max(initial=0.0)) ** 2 else squares
        return cls(coefficients[:count], unit, squares, len(y) - rank)


def lenth(contrasts: Floats) -> float:
    """Lenth's pseudo standard error: 1.5 times the median size of the contrasts that look like noise."""
    sizes = np.abs(contrasts)
    first = 1.5 * float(np.median(sizes))
    return 1.5 * float(np.median(sizes[sizes < 2.5 * first])) if first > 0 else 0.0


def half_normal(contrasts: Sequence[float]) -> list[tuple[float, int]]:
    """For a half-normal plot: the quantile of each contrast's size among noise, and its index, the smallest first."""
    order = sorted(range(len(contrasts)), key=lambda i: abs(contrasts[i]))
    count = len(order)
    return [(float(ndtri(0.5 + 0.5 * (rank + 0.5) / count)), i) for rank, i in enumerate(order)]


def _seed_effects(values: Floats, mask: Bools) -> Floats:
    """What each seed adds, from the blocked fit; sums to zero over seeds."""
    fit = fit_blocks(values[None], mask)
    rest = np.where(mask, values - fit.effects[0][:, None], 0.0)
    seeds = rest.sum(0) / np.maximum(mask.sum(0), 1)
    return np.broadcast_to(seeds - seeds[mask.any(0)].mean(), values.shape)


# -- one factor at a time --------------------------------------------------------------------------------------------


def _one_factor(design: Design, values: Floats, mask: Bools, alpha: float) -> tuple[OneFactor, ...]:
    """Contrasts of the blocked model; arms that are out of line are not pooled, and no contrast rests on them."""
    stable = ~unstable_arms(values[None], mask)[0] & (mask.sum(1) > 1)
    pool = mask & stable[:, None]
    fit = fit_blocks(values[None], pool)
    place = {arm: i for i, arm in enumerate(design.arms)}

    def contrast(weights: Mapping[str, int], factor: str) -> Effect:
        vector = np.zeros(len(place))
        for arm, weight in weights.items():
            vector[place[arm]] += weight
        return _contrast(fit, vector, pool, factor, alpha)

    found = []
    for factor in design.factors:
        alone, among = {factor: 1, BASE: -1}, {FULL: 1, f"{FULL}-{factor}": -1}
        apart = {FULL: 1, f"{FULL}-{factor}": -1, factor: -1, BASE: 1}
        found.append((factor, *(contrast(weights, factor) for weights in (alone, among, apart))))
    columns = [_corrected([row[i] for row in found]) for i in (1, 2, 3)]
    return tuple(OneFactor(row[0], *(column[i] for column in columns)) for i, row in enumerate(found))


def _contrast(fit: Fit, vector: Floats, pool: Bools, factor: str, alpha: float) -> Effect:
    used = vector != 0
    linked = np.allclose(fit.information @ fit.unit @ vector, vector, atol=1e-6)
    if not pool[used].any(1).all() or not linked:
        return Effect((factor,), math.nan, None, None, None, None, None)
    size = float(fit.effects[0] @ vector)
    variance = float(fit.variance[0] * (vector @ fit.unit @ vector))
    error = math.sqrt(variance) if fit.df > 0 else None
    return _effect((factor,), size, error, fit.df or None, alpha)


# -- tests -----------------------------------------------------------------------------------------------------------


def _effect(
    factors: tuple[str, ...],
    size: float,
    error: float | None,
    df: float | None,
    alpha: float,
    aliases: tuple[str, ...] = (),
) -> Effect:
    if error is None or df is None or math.isnan(size):
        return Effect(factors, size, None, None, None, None, None, aliases)
    reach = float(stdtrit(df, 1 - alpha / 2)) * error
    p = float(2 * stdtr(df, -abs(size) / error)) if error > 0 else float(size == 0)
    return Effect(factors, size, error, size - reach, size + reach, p, None, aliases)


def _corrected(effects: Sequence[Effect]) -> list[Effect]:
    corrected = _holm([each.p for each in effects])
    return [
        Effect(e.factors, e.size, e.error, e.low, e.high, e.p, p, e.aliases)
        for e, p in zip(effects, corrected, strict=True)
    ]


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    if not p_values:
        return []
    made = holm(np.array([math.nan if p is None else p for p in p_values]))
    return [None if math.isnan(p) else float(p) for p in made]
