"""Verdicts on the arms of an ablation: better, worse, equivalent or undecided, with intervals that mean what they say.

The seed is the block, the noise is pooled over arms, Holm's correction covers all arms, and a run that diverged is an
outcome. `analyse` takes numbers from anywhere; it knows nothing of models or runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, stdtrit

from gptzoo.ablation import power
from gptzoo.ablation.blocked import (
    Arms,
    Bools,
    Comparison,
    Fit,
    Floats,
    compare,
    describe,
    fit_blocks,
    negligible,
    p_value,
    welch,
)
from gptzoo.ablation.ranking import rank
from gptzoo.ablation.sequential import DIFFERENT, EQUIVALENT, HOPELESS, LIVE, Look, Rules, follow, last_look
from gptzoo.ablation.verdicts import (
    AACheck,
    Analysis,
    ArmSummary,
    ArmVerdict,
    Cell,
    LookTaken,
    Place,
    Stop,
    Verdict,
    to_json,
    to_text,
)
from gptzoo.errors import GPTZooError, did_you_mean

__all__ = [
    "AACheck",
    "Analysis",
    "ArmSummary",
    "ArmVerdict",
    "Cell",
    "Place",
    "Verdict",
    "analyse",
    "to_json",
    "to_text",
]

AA_ARM = "a/a"  # the baseline on fresh seeds, as plans call it


def analyse(
    cells: Sequence[Cell],
    *,
    baseline: str | None = None,
    alpha: float = 0.05,
    delta: float | None = None,
    higher_is_better: bool = False,
    aa_arm: str | None = None,
    looks: Sequence[int] = (),
    withheld: Mapping[str, str] | None = None,
) -> Analysis:
    """Compare every arm with the baseline.

    Args:
        cells: In any order; the order of first appearance is the order of the arms.
        baseline: By default the first arm.
        alpha: Probability of any false winner or loser among all arms.
        delta: The smallest difference that matters; without it no arm can be called equivalent.
        aa_arm: The baseline on fresh seeds; by default `a/a`, if there is such an arm.
        looks: Numbers of seeds at which the study is looked at as it grows, seeds in their order; verdicts are those of
            the looks that could be taken (`sequential`).
        withheld: Why an arm is to have no verdict, whatever its numbers; the baseline's reason takes every verdict.

    Raises:
        GPTZooError: A level or delta out of range, an unknown arm, a cell given twice, or nothing to compare.
    """
    _check_levels(alpha, delta)
    by_arm = _by_arm(cells)
    aa = _aa_name(by_arm, aa_arm)
    first = _baseline_name(by_arm, baseline, aa)
    names = [first, *(name for name in by_arm if name not in (first, aa))]
    if len(names) < 2 and aa is None:
        raise GPTZooError(f"there is only the arm {first!r}: nothing to compare. Add a second arm.")
    study = _Study.of([by_arm[name] for name in names], names, withheld or {})
    rules, fresh = Rules(tuple(looks), alpha, delta), by_arm[aa] if aa else []
    if looks and len(names) > 1:
        return _at_looks(study, rules, higher_is_better, fresh)
    return _Reading(study, compare(study.values, study.mask, study.left_out), rules, higher_is_better, fresh).analysis()


def _at_looks(study: _Study, rules: Rules, higher_is_better: bool, aa: list[Cell]) -> Analysis:
    """The verdict of each arm at the last look that tested it, and the state of the study at the last one of all."""
    taken = follow(study.values, rules, study.ended, study.broken)
    if not taken:
        comparison = compare(study.values, study.mask, study.left_out)
        return _before(_Reading(study, comparison, rules, higher_is_better, aa).analysis(), rules)
    place = last_look(taken)[0]
    seeds = np.asarray(rules.looks)[place]
    readings = []
    for look in taken:
        own = np.concatenate([[look.seeds], np.minimum(seeds, look.seeds)])
        assert look.comparison is not None, "a single study keeps its comparisons"
        readings.append(_Reading(study.until(own), look.comparison, rules, higher_is_better, aa, look))
    verdicts = tuple(readings[at].arms()[arm] for arm, at in enumerate(place))
    made = readings[-1].analysis(verdicts)
    beyond = int(study.ended.sum() - (study.until(np.append(taken[-1].seeds, seeds)).ended).sum())
    notes = [note for note in made.notes if not note.startswith("More seeds:")]
    if beyond:
        notes.append(f"{beyond} runs lie beyond the look that their arm stopped at, and are not used.")
    return replace(made, notes=tuple(notes), looks=tuple(each.taken() for each in readings))


def _before(made: Analysis, rules: Rules) -> Analysis:
    """What is known before the first look: numbers, and no test of them."""
    reason = f"the first look is at {rules.looks[0]} seeds, and not all of them have ended"
    arms = tuple(
        arm
        if arm.verdict == "diverged" or arm.killed
        else replace(
            arm, verdict="no verdict", reason=reason, low=None, high=None, p=None, p_holm=None, more_seeds=None
        )
        for arm in made.arms
    )
    return replace(made, arms=arms, ranking=(), notes=tuple(n for n in made.notes if not n.startswith(_OF_VERDICTS)))


_OF_VERDICTS = ("Intervals are for one arm", "More seeds:")


@dataclass(frozen=True)
class _Study:
    """The cells as a table: arm 0 is the baseline; S = 1.

    `left_out`: an arm with a run that diverged or was killed, or with a single run. `stopped`: cells that are not there
    because a look stopped their arm, rather than missing. `withheld`: why arms have no verdict, by name.
    """

    names: list[str]
    values: Floats  # (1, k, n)
    mask: Bools  # (k, n)
    diverged: Bools  # (k, n)
    killed: Bools  # (k, n)
    seeds: list[int]
    stopped: Bools
    withheld: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, arms: list[list[Cell]], names: list[str], withheld: Mapping[str, str]) -> _Study:
        seeds = sorted({cell.seed for arm in arms for cell in arm})
        values = np.zeros((1, len(arms), len(seeds)))
        mask, diverged, killed = (np.zeros(values.shape[1:], bool) for _ in range(3))
        column = {seed: i for i, seed in enumerate(seeds)}
        for row, arm in enumerate(arms):
            for cell in arm:
                place = row, column[cell.seed]
                diverged[place], killed[place], mask[place] = cell.diverged, cell.killed, cell.ended
                values[0][place] = cell.value if cell.ended else 0.0
        return cls(names, values, mask, diverged, killed, seeds, np.zeros_like(mask), withheld)

    def until(self, seeds: NDArray[np.int64]) -> _Study:
        """Only the first seeds, so many of each arm."""
        early = np.arange(self.mask.shape[1]) < seeds[:, None]
        last = int(seeds.max())
        mask, diverged, killed = ((each & early)[:, :last] for each in (self.mask, self.diverged, self.killed))
        values, seeds_left = self.values[:, :, :last], self.seeds[:last]
        return _Study(self.names, values, mask, diverged, killed, seeds_left, ~early[:, :last], self.withheld)

    @property
    def ended(self) -> Bools:
        return self.mask | self.broken

    @property
    def broken(self) -> Bools:
        """Runs that did not end in a number, for a reason that counts against their arm."""
        return self.diverged | self.killed

    @property
    def left_out(self) -> Bools:
        return self.broken.any(1) | (self.mask.sum(1) < 2)

    def summary(self, arm: int, arms: Arms) -> ArmSummary:
        failed, runs, killed = (int(each[arm].sum()) for each in (self.diverged, self.mask, self.killed))
        interval = _clopper_pearson(failed, failed + runs + killed, 0.05) if failed else None
        return ArmSummary(self.names[arm], runs, _known(arms.mean[0, arm]), _std(arms, arm), failed, interval, killed)


@dataclass(frozen=True)
class _Reading:
    """From the arrays of a comparison to sentences about arms."""

    study: _Study
    comparison: Comparison
    rules: Rules
    higher_is_better: bool
    aa_cells: list[Cell]
    look: Look | None = None

    @property
    def level(self) -> float:
        """What p-values are held against."""
        return self.rules.alpha if self.look is None else self.look.level

    def arms(self) -> tuple[ArmVerdict, ...]:
        arms, delta = describe(self.study.values, self.study.mask), self.rules.delta
        low, high = self.comparison.interval(self.level)
        equivalent = self.comparison.equivalence(delta) if delta else np.full(low.shape, np.nan)
        return tuple(self.arm(i, arms, low[0, i], high[0, i], equivalent[0, i]) for i in range(len(low[0])))

    def analysis(self, verdicts: tuple[ArmVerdict, ...] | None = None) -> Analysis:
        verdicts = self.arms() if verdicts is None else verdicts
        arms = describe(self.study.values, self.study.mask)
        fit = fit_blocks(self.study.values, self.study.mask & self.pool[:, None])
        base = self.study.summary(0, arms)
        aa = _aa_check(self.aa_cells, self.study, self.rules.alpha) if self.aa_cells else None
        notes = _notes(self.study, self.comparison, self.rules.delta, base, verdicts, aa)
        return Analysis(
            baseline=base.arm,
            baseline_arm=base,
            alpha=self.rules.alpha,
            delta=self.rules.delta,
            higher_is_better=self.higher_is_better,
            arms=verdicts,
            sigma=_known(math.sqrt(fit.variance[0])),
            df=fit.df or None,
            mde=self.mde(fit),
            icc=_icc(self.study.values[0], self.study.mask & self.pool[:, None]),
            aa=aa,
            ranking=self.ranking(arms, fit, verdicts),
            notes=notes,
            planned_looks=tuple(self.rules.looks),
        )

    def taken(self) -> LookTaken:
        """The look, for the record."""
        assert self.look is not None
        tested, outcome = self.look.tested[0], self.look.outcome[0]
        stops = [self.stop(int(i)) for i in np.flatnonzero(tested & (outcome != LIVE))]
        return LookTaken(self.look.seeds, self.look.level, int(tested.sum()), tuple(stops))

    def stop(self, i: int) -> Stop:
        assert self.look is not None
        hopeless = self.look.outcome[0, i] == HOPELESS
        arm = self.arms()[i]
        why = "unlikely to be settled" if hopeless else self.why_none(arm) or arm.verdict
        return Stop(self.study.names[i + 1], why, _known(self.look.hope[0, i]) if hopeless else None)

    def why_none(self, arm: ArmVerdict) -> str:
        """Why there is no verdict, in a word or two; empty where there is one."""
        if arm.verdict != "no verdict":
            return ""
        if arm.killed:
            return "killed"
        return "no sound baseline" if self.study.broken[0].any() else "untuned"

    @property
    def pool(self) -> Bools:
        """Arms whose noise is pooled, (k,)."""
        return ~self.study.left_out & ~self.comparison.unstable[0]

    def arm(self, i: int, arms: Arms, low: float, high: float, equivalent: float) -> ArmVerdict:
        own, c = self.study.summary(i + 1, arms), self.comparison
        verdict, reason = self.verdict(i, own, equivalent)
        noise = self.noise(i, arms)
        deviation = math.sqrt(noise.variance)
        difference = _known(c.difference[0, i])
        return ArmVerdict(
            **asdict(own),
            difference=difference,
            low=_known(low),
            high=_known(high),
            p=_known(c.p[0, i]),
            p_holm=_known(c.p_holm[0, i] if self.look is None else self.look.p_holm[0, i]),
            verdict=verdict,
            reason=reason,
            method=self.method(i),
            more_seeds=self.more_seeds(difference or 0.0, noise, own.n) if verdict == "undecided" else None,
            hedges_g=_hedges(difference, deviation, c.df[0, i]),
            probability_better=self.probability_better(difference, deviation),
            variance_ratio=_variance_ratio(self.study, i + 1),
            level=self.level,
            stopped=self.look.seeds if self.look is not None and self.look.outcome[0, i] != LIVE else None,
        )

    def verdict(self, i: int, own: ArmSummary, equivalent: float) -> tuple[Verdict, str]:
        if own.diverged:
            return "diverged", f"{own.diverged} of {own.diverged + own.killed + own.n} runs diverged"
        if reason := self.no_verdict(own):
            return "no verdict", reason
        p = self.comparison.p_holm[0, i]
        if np.isnan(p):
            return "no verdict", "one seed says nothing about the noise"
        if self.look is not None:
            return self.looked(i)
        if equivalent < self.level:
            return "equivalent", ""
        return ("undecided" if p >= self.level else self.side(i)), ""

    def no_verdict(self, own: ArmSummary) -> str:
        """Why numbers do not matter here; empty where they do."""
        base, withheld = self.study.names[0], self.study.withheld
        if self.study.diverged[0].any():
            return "the baseline diverged"
        if self.study.killed[0].any():
            return "runs of the baseline were killed"
        if base in withheld:
            return f"the baseline is {withheld[base]}"
        if own.arm in withheld:
            return withheld[own.arm]
        return f"{own.killed} of {own.killed + own.n} runs were killed, far behind" if own.killed else ""

    def side(self, i: int) -> Verdict:
        return "better" if (self.comparison.difference[0, i] > 0) == self.higher_is_better else "worse"

    def looked(self, i: int) -> tuple[Verdict, str]:
        """The verdict that the look came to, and why an undecided arm stopped."""
        assert self.look is not None
        outcome, last = self.look.outcome[0, i], self.rules.looks[-1]
        if outcome == EQUIVALENT:
            return "equivalent", ""
        if outcome == DIFFERENT:
            return self.side(i), ""
        if outcome == HOPELESS:
            hope = self.look.hope[0, i]
            return "undecided", f"stopped at {self.look.seeds} seeds, {hope:.0%} likely to be settled at {last}"
        return "undecided", "" if self.look.seeds == last else f"goes on to {last} seeds"

    def method(self, i: int) -> str:
        """`blocked`, or Welch and why."""
        if self.comparison.blocked[0, i]:
            return "blocked"
        if np.isnan(self.comparison.error[0, i]):
            return "none (too few runs)"
        diverged: Bools = np.any(self.study.diverged, axis=1)
        killed: Bools = np.any(self.study.killed, axis=1)
        unstable: Bools = self.comparison.unstable[0]
        for guilty, why in ((diverged, "diverged"), (killed, "killed"), (unstable, "unstable")):
            if guilty[0]:
                return f"Welch ({why} baseline)"
            if guilty[i + 1]:
                return f"Welch ({why} arm)"
        return "Welch (no shared seeds)"

    def noise(self, i: int, arms: Arms) -> power.Noise:
        """What power and effect sizes of an arm rest on; NaN if unknown."""
        if self.comparison.blocked[0, i]:
            return power.Noise.blocked(math.sqrt(self.comparison.variance[0]), int(self.pool.sum()))
        return power.Noise.welch(*np.sqrt(arms.variance[0, [0, i + 1]]))

    def more_seeds(self, difference: float, noise: power.Noise, runs: int) -> int | None:
        needed = power.seeds_needed(difference, noise, self.level, len(self.study.names) - 1, delta=self.rules.delta)
        return None if needed is None else max(1, needed - runs)

    def probability_better(self, difference: float | None, deviation: float) -> float | None:
        if difference is None or math.isnan(deviation):
            return None
        gain = difference if self.higher_is_better else -difference
        return float(ndtr(gain / deviation) if deviation else (1 + np.sign(gain)) / 2)

    def mde(self, fit: Fit) -> float | None:
        """Of the typical arm: the median standard error, Holm's strictest step."""
        errors = self.comparison.error[self.comparison.blocked]
        if not len(errors):
            return None
        return power.detectable(float(np.median(errors)), fit.df, self.level / (len(self.study.names) - 1))

    def ranking(self, arms: Arms, fit: Fit, verdicts: tuple[ArmVerdict, ...]) -> tuple[Place, ...]:
        keep = np.flatnonzero(~self.study.left_out & [name not in self.study.withheld for name in self.study.names])
        if len(keep) < 2 or keep[0] != 0:
            return ()
        differences = [0.0, *(arm.difference or 0.0 for arm in verdicts)]
        return rank(
            [self.study.names[i] for i in keep],
            [differences[i] for i in keep],
            Arms(arms.runs[keep], arms.mean[:, keep], arms.variance[:, keep]),
            Fit(
                fit.effects[:, keep],
                fit.squares,
                fit.df,
                fit.unit[np.ix_(keep, keep)],
                fit.information[np.ix_(keep, keep)],
            ),
            self.pool[keep],
            self.level,
            self.higher_is_better,
            rounding=float(negligible(self.study.values, self.study.mask)[0]),
        )


def _check_levels(alpha: float, delta: float | None) -> None:
    if not 0 < alpha < 1:
        raise GPTZooError(f"a level lies between 0 and 1, not {alpha:g}. 0.05 is usual.", "alpha")
    if delta is not None and not 0 < delta < math.inf:
        raise GPTZooError(f"the smallest difference that matters is a positive number, not {delta:g}.", "delta")


def _by_arm(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells of each arm, in order of first appearance."""
    by_arm: dict[str, list[Cell]] = {}
    seen: set[tuple[str, int]] = set()
    for cell in cells:
        if (cell.arm, cell.seed) in seen:
            raise GPTZooError(f"arm {cell.arm!r} has two results at seed {cell.seed}. Keep one.")
        seen.add((cell.arm, cell.seed))
        by_arm.setdefault(cell.arm, []).append(cell)
    if not by_arm:
        raise GPTZooError("there are no results. Give cells of two arms or more.")
    return by_arm


def _aa_name(by_arm: dict[str, list[Cell]], name: str | None) -> str | None:
    if name is None:
        return AA_ARM if AA_ARM in by_arm else None
    return _known_arm(name, by_arm, "aa_arm")


def _baseline_name(by_arm: dict[str, list[Cell]], name: str | None, aa: str | None) -> str:
    others = [arm for arm in by_arm if arm != aa]
    if name is not None:
        return _known_arm(name, others, "baseline")
    if not others:
        raise GPTZooError(f"there is only the A/A arm {aa!r}: nothing to compare. Add the baseline.")
    return others[0]


def _known_arm(name: str, known: Sequence[str] | dict[str, list[Cell]], where: str) -> str:
    if name not in known:
        hint = did_you_mean(name, known) or f" Known: {', '.join(known)}."
        raise GPTZooError(f"no arm is called {name!r}.{hint}", where)
    return name


def _aa_check(cells: list[Cell], study: _Study, alpha: float) -> AACheck:
    """Welch's test of the A/A arm against the baseline; neither touches the pooled noise."""
    fresh = [cell.value for cell in cells if cell.ended]
    base = study.values[0, 0, study.mask[0]]
    values, mask = np.zeros((1, 2, max(len(base), len(fresh), 1))), np.zeros((2, max(len(base), len(fresh), 1)), bool)
    for row, numbers in enumerate((base, fresh)):
        values[0, row, : len(numbers)], mask[row, : len(numbers)] = numbers, True
    arms = describe(values, mask)
    difference = arms.mean[0, 1] - arms.mean[0, 0]
    error, df = (x[0] for x in welch(arms, slice(1, 2), slice(0, 1)))
    p, reach = _known(p_value(difference, error, df)[0]), (stdtrit(df, 1 - alpha / 2) * error)[0]
    sound = None if p is None else p >= alpha
    low, high = _known(difference - reach), _known(difference + reach)
    mean, std = _known(arms.mean[0, 1]), _std(arms, 1)
    diverged = sum(cell.diverged for cell in cells)
    return AACheck(cells[0].arm, len(fresh), mean, std, _known(difference), low, high, p, sound, diverged)


def _icc(values: Floats, mask: Bools) -> float | None:
    """Intraclass correlation of the seeds, from the analysis of variance of the seeds that all pooled arms have."""
    table = values[mask.any(1)][:, mask[mask.any(1)].all(0)]
    arms, seeds = table.shape
    if arms < 2 or seeds < 2:
        return None
    between = arms * table.mean(0).var(ddof=1)
    residuals = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    within = np.square(residuals).sum() / ((arms - 1) * (seeds - 1))
    total = between + (arms - 1) * within
    return float((between - within) / total) if total > 1e-24 * np.square(table).max() else None


def _variance_ratio(study: _Study, arm: int) -> float | None:
    """(Var(arm) + Var(baseline)) / Var(difference) over their common seeds."""
    shared = study.mask[0] & study.mask[arm]
    if shared.sum() < 2:
        return None
    base, own = study.values[0, 0, shared], study.values[0, arm, shared]
    paired, floor = (own - base).var(ddof=1), 1e-24 * max(np.square(own).max(), np.square(base).max())
    return float((own.var(ddof=1) + base.var(ddof=1)) / paired) if paired > floor else None


def _hedges(difference: float | None, deviation: float, df: float) -> float | None:
    """Difference in SDs of one run (`deviation` is the SD of a difference), times J = 1 - 3 / (4 df - 1)."""
    if difference is None or math.isnan(deviation) or (deviation == 0 and difference != 0):
        return None
    return 0.0 if difference == 0 else float((1 - 3 / (4 * df - 1)) * difference * math.sqrt(2) / deviation)


def _clopper_pearson(failed: int, runs: int, alpha: float) -> tuple[float, float]:
    """Exact 1 - alpha interval of a share."""
    low = float(betaincinv(failed, runs - failed + 1, alpha / 2)) if failed else 0.0
    high = float(betaincinv(failed + 1, runs - failed, 1 - alpha / 2)) if failed < runs else 1.0
    return low, high


def _std(arms: Arms, arm: int) -> float | None:
    return _known(math.sqrt(arms.variance[0, arm]))


def _known(value: float) -> float | None:
    """A float, or None for what is not a number."""
    return float(value) if np.isfinite(value) else None


def _notes(
    study: _Study,
    comparison: Comparison,
    delta: float | None,
    base: ArmSummary,
    arms: tuple[ArmVerdict, ...],
    aa: AACheck | None,
) -> tuple[str, ...]:
    """What a reader must know beside the table, one line each."""
    notes = [
        *_aa_notes(aa),
        *_divergence_notes(base, arms),
        *_killed_notes(base, arms),
        *_untuned_notes(study),
        *_seed_notes(study, arms),
        *_noise_notes(study, comparison),
    ]
    if arms and delta is None:
        notes.append("No delta, so no arm can be called equivalent: delta is the smallest difference that matters.")
    return (*notes, *_undecided_notes(arms))


def _aa_notes(aa: AACheck | None) -> Iterable[str]:
    if aa is not None and aa.sound is False:
        yield (
            f"A/A check failed: {aa.arm} is the baseline on fresh seeds, yet differs from it (p {aa.p:.3g}). "
            "By chance this is rare; look for a fault in the study before trusting a verdict."
        )
    if aa is not None and aa.diverged:
        yield f"A/A check: {aa.diverged} of {aa.diverged + aa.n} runs of {aa.arm} diverged."


def _divergence_notes(base: ArmSummary, arms: tuple[ArmVerdict, ...]) -> Iterable[str]:
    for arm in (base, *arms):
        if arm.diverged_interval is not None:
            low, high = arm.diverged_interval
            runs = arm.diverged + arm.killed + arm.n
            yield (
                f"{arm.arm}: {arm.diverged} of {runs} runs diverged (95% interval of the share "
                f"{low:.0%} to {high:.0%}).{' Its mean is over the other runs, and flatters it.' if arm.n else ''}"
            )
    if base.diverged:
        yield f"The baseline {base.arm} diverged, so no arm can be judged against it. Take a baseline that trains."


def _killed_notes(base: ArmSummary, arms: tuple[ArmVerdict, ...]) -> Iterable[str]:
    for arm in (base, *arms):
        if arm.killed:
            flattered = " Its mean is over the other runs, and flatters it." if arm.n else ""
            runs = arm.diverged + arm.killed + arm.n
            yield f"{arm.arm}: {arm.killed} of {runs} runs were killed, far behind.{flattered}"
    if base.killed:
        yield f"The baseline {base.arm} lost runs to a kill, so no arm can be judged against it."


def _untuned_notes(study: _Study) -> Iterable[str]:
    base = study.names[0]
    if base in study.withheld:
        yield f"The baseline {base} is {study.withheld[base]}. No arm can be judged against it."


def _seed_notes(study: _Study, arms: tuple[ArmVerdict, ...]) -> Iterable[str]:
    single = [name for name, runs in zip(study.names, study.ended.sum(1), strict=True) if runs < 2]
    if single:
        yield f"One seed for {_listed(single)}: the noise is unknown, so there is no verdict. Run three seeds or more."
    apart = [arm.arm for arm in arms if arm.method == "Welch (no shared seeds)"]
    if apart:
        yield f"No shared seeds link {_listed(apart)} to the baseline: compared by Welch, which sees less."
    pool = study.mask & ~(study.left_out | np.isin(study.names, apart))[:, None]
    missing = np.argwhere(~pool & ~study.stopped & pool.any(0) & pool.any(1, keepdims=True))
    if len(missing):
        places = [f"{study.names[arm]} at seed {study.seeds[seed]}" for arm, seed in missing]
        yield f"{len(missing)} results are missing; least squares on the rest: {_listed(places)}."


def _noise_notes(study: _Study, comparison: Comparison) -> Iterable[str]:
    unstable = [name for name, out in zip(study.names, comparison.unstable[0], strict=True) if out]
    if unstable:
        yield f"Unstable, the spread over seeds is out of line: {_listed(unstable)}. Not pooled; compared by Welch."
    if comparison.unstable[0, 0]:
        yield "The baseline is unstable, so every arm is compared by Welch, which sees less. Steady it, or add seeds."
    still = [name for name, error in zip(study.names[1:], comparison.error[0], strict=True) if error == 0]
    if still:
        yield f"No spread at all over seeds, so no uncertainty: {_listed(still)}. Check that the seed reaches the runs."


def _undecided_notes(arms: tuple[ArmVerdict, ...]) -> Iterable[str]:
    undecided = [arm for arm in arms if arm.verdict == "undecided"]
    apart = [a.arm for a in undecided if a.low is not None and a.high is not None and (a.low > 0 or a.high < 0)]
    if apart:
        yield f"Intervals are for one arm alone, verdicts for all arms together: hence {_listed(apart)} undecided."
    if undecided:
        yield "More seeds: choose their number once and analyse once; testing after every seed finds what is not there."


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
