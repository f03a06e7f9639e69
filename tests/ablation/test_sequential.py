"""Looks at a growing study, against a slow reference made of statsmodels' parts, and against simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

from gptzoo.ablation.analysis import Analysis, Cell, analyse, to_text
from gptzoo.ablation.calibration import simulate
from gptzoo.ablation.sequential import (
    DIFFERENT,
    DIVERGED,
    EQUIVALENT,
    HOPELESS,
    LIVE,
    Rules,
    conditional_power,
    follow,
    increments,
    last_look,
)

LOOKS = (3, 5, 8, 12)


def tables(arms: int, effect: float, studies: int, seed: int = 0) -> np.ndarray:
    values, _ = simulate(arms, LOOKS[-1], 0.3, "normal", studies, np.random.default_rng(seed))
    values[:, 1] += effect
    return values


def test_alpha_is_spent_late_and_whole() -> None:
    assert np.round(increments(LOOKS, 0.05), 4).tolist() == [0.0001, 0.0023, 0.0140, 0.0336]
    assert sum(increments((3, 4, 9), 0.01)) == pytest.approx(0.01)


def reference(table: np.ndarray, delta: float | None) -> list[tuple[list[str], dict[int, float]]]:
    """Each look of one study: what became of each arm, and the raw p-values; arms one by one, by statsmodels."""
    arms = len(table)
    state, until, told = ["live"] * arms, [LOOKS[-1]] * arms, []
    for place, (seeds, level) in enumerate(zip(LOOKS, increments(LOOKS, 0.05), strict=True)):
        live = [a for a in range(1, arms) if state[a] == "live"]
        if not live:
            break
        rows = [(a, s, table[a, s]) for a in range(arms) for s in range(min(seeds, until[a]))]
        design = [[float(a == b) for b in range(arms)] + [float(s == t) for t in range(1, seeds)] for a, s, _ in rows]
        fit = OLS(np.array([y for *_, y in rows]), np.array(design)).fit()
        contrast = {a: np.eye(arms + seeds - 1)[a] - np.eye(arms + seeds - 1)[0] for a in live}
        tests = {a: fit.t_test(contrast[a]) for a in live}
        p = {a: float(tests[a].pvalue) for a in live}
        size = {a: (float(tests[a].effect[0]), float(tests[a].sd[0, 0])) for a in live}
        family = [a for a in range(1, arms) if state[a] != "different"]
        holm = dict(zip(family, adjusted([p.get(a, 1.0) for a in family]), strict=True))
        for a in live:
            mean, error = size[a]
            if place < 3 and hope(mean, error, fit.df_resid, place, delta) < 0.1:
                state[a], until[a] = "hopeless", seeds
        for a in live:
            if holm[a] < level:
                state[a], until[a] = "different", seeds
        if delta is not None:
            equal = {a: float(stats.t.sf((delta - abs(size[a][0])) / size[a][1], fit.df_resid)) for a in live}
            others = [a for a in range(1, arms) if state[a] != "equivalent"]
            for a, each in zip(others, adjusted([equal.get(a, 1.0) for a in others]), strict=True):
                if a in live and each < level:
                    state[a], until[a] = "equivalent", seeds
        told.append((state[1:], p))
    return told


def adjusted(p_values: list[float]) -> list[float]:
    """Holm's correction, step by step."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def hope(mean: float, error: float, df: float, place: int, delta: float | None) -> float:
    """Conditional power by its definition, one arm at a time."""
    seeds, last, level = LOOKS[place], LOOKS[-1], increments(LOOKS, 0.05)[-1]
    one = error * math.sqrt(seeds)
    df = df * (last - 1) / (seeds - 1)
    later, spread = error * (1 - seeds / last), one * math.sqrt(last - seeds) / last
    found = float(stats.norm.sf(stats.t.isf(level / 2, df) * one / math.sqrt(last), abs(mean) + later, spread))
    if delta is None:
        return found
    room = delta - stats.t.isf(level, df) * one / math.sqrt(last)
    near = stats.norm(max(0.0, abs(mean) - later), spread)
    return max(found, float(near.cdf(room) - near.cdf(-room))) if room > 0 else found


WORDS = {LIVE: "live", DIFFERENT: "different", EQUIVALENT: "equivalent", HOPELESS: "hopeless"}


@pytest.mark.parametrize("delta", [None, 2.0])
def test_looks_are_those_of_a_slow_reference(delta: float | None) -> None:
    seen: set[str] = set()
    values = np.concatenate([tables(4, effect, 12, seed) for seed, effect in enumerate((0.0, 1.5, 3.0))])
    rules = Rules(LOOKS, 0.05, delta, guard=False)
    for table in values:
        told = reference(table, delta)
        looks = follow(table[None], rules)
        assert len(looks) == len(told)
        for look, (state, p) in zip(looks, told, strict=True):
            assert [WORDS[int(each)] for each in look.outcome[0]] == state
            assert {a: look.p[0, a - 1] for a in p} == pytest.approx(p, rel=1e-7)
            seen.update(state)
    assert seen == {"live", "different", "equivalent" if delta else "hopeless"} | ({"hopeless"} & seen)


def test_many_studies_at_once_are_as_each_alone() -> None:
    values = np.concatenate([tables(4, effect, 40, seed) for seed, effect in enumerate((0.0, 2.0))])
    rules = Rules(LOOKS, 0.05, 2.5)
    together = follow(values, rules)
    for i, table in enumerate(values):
        alone = follow(table[None], rules)
        for one, many in zip(alone, together, strict=False):
            np.testing.assert_array_equal(one.outcome[0], many.outcome[i])
            np.testing.assert_allclose(one.p[0], many.p[i], rtol=1e-9)
            np.testing.assert_allclose(one.error[0], many.error[i], rtol=1e-9)


def test_an_arm_that_stopped_for_being_hopeless_still_counts_in_the_family() -> None:
    """Else dropping what looks alike would test the rest at a lighter level."""
    generator = np.random.default_rng(0)
    table = generator.normal(size=(1, 4, 12))
    table[0, 2] = table[0, 0] + 0.01 * generator.normal(size=12) - 0.002
    looks = follow(table, Rules(LOOKS, 0.05, futile=0.99, guard=False))
    hopeless = looks[0].outcome[0] == HOPELESS
    assert hopeless.any()
    assert not hopeless.all()
    left = np.flatnonzero(~hopeless)
    smallest = left[np.argmin(looks[1].p[0, left])]
    assert looks[1].p_holm[0, smallest] == pytest.approx(min(1.0, 3 * looks[1].p[0, smallest]))


def test_conditional_power_is_what_going_on_gives() -> None:
    """The truth one standard error further out than what was seen, simulated."""
    rules, mean, error = Rules(LOOKS, 0.05), 0.6, 0.5
    said = conditional_power(np.array([mean]), np.array([error]), np.array([200.0]), 1, rules)[0]
    one = error * math.sqrt(5)
    generator = np.random.default_rng(0)
    rest = generator.normal(mean + error, one / math.sqrt(7), 200_000)
    at_last = (5 * mean + 7 * rest) / 12
    critical = stats.t.isf(increments(LOOKS, 0.05)[-1] / 2, 200 * 11 / 4) * one / math.sqrt(12)
    assert said == pytest.approx((at_last > critical).mean(), abs=0.005)


@pytest.mark.parametrize("futile", [0.0, 0.1])
def test_without_effects_a_winner_is_as_rare_as_promised_at_all_looks_together(futile: float) -> None:
    for arms in (2, 5):
        taken = follow(tables(arms, 0.0, 4000), Rules(LOOKS, 0.05, futile=futile))
        assert 0.025 < (taken[-1].outcome == DIFFERENT).any(1).mean() < 0.055


def test_testing_every_look_at_alpha_would_be_caught() -> None:
    """What looks are there to prevent."""
    values = tables(2, 0.0, 4000)
    difference = values[:, 1] - values[:, 0]
    t = [difference[:, :n].mean(1) / difference[:, :n].std(1, ddof=1) * math.sqrt(n) for n in LOOKS]
    rejected = [np.abs(each) > stats.t.isf(0.025, n - 1) for each, n in zip(t, LOOKS, strict=True)]
    assert np.any(rejected, axis=0).mean() > 0.11


def test_an_effect_is_found_early_and_as_often_as_published() -> None:
    """Two arms, so that this is the paired test: power and mean seeds at effects of 1, 1.5, 2 and 3 SDs of a pair."""
    found = {}
    for effect in (1.0, 1.5, 2.0, 3.0):
        taken = follow(tables(2, effect * math.sqrt(2), 4000), Rules(LOOKS, 0.05, futile=0.0))
        power = (taken[-1].outcome[:, 0] == DIFFERENT).mean()
        found[effect] = power, np.asarray(LOOKS)[last_look(taken)].mean()
    expected = {1.0: (0.84, 10.3), 1.5: (0.995, 8.5), 2.0: (1.0, 7.4), 3.0: (1.0, 6.3)}
    for effect, (power, seeds) in expected.items():
        assert found[effect] == (pytest.approx(power, abs=0.02), pytest.approx(seeds, abs=0.15))


def test_futility_saves_seeds_and_costs_little_power() -> None:
    null, real = tables(4, 0.0, 2000), tables(4, 1.5, 2000)

    def run(values: np.ndarray, futile: float) -> tuple[float, float]:
        taken = follow(values, Rules(LOOKS, 0.05, futile=futile))
        return (taken[-1].outcome[:, 0] == DIFFERENT).mean(), np.asarray(LOOKS)[last_look(taken)].mean()

    assert run(null, 0.1)[1] < run(null, 0.0)[1] - 2
    assert run(real, 0.1)[0] > run(real, 0.0)[0] - 0.04


# -- an analysis with looks ------------------------------------------------------------------------------------------


def study(means: dict[str, float], seeds: int, seed: int = 0, noise: float = 1.0) -> list[Cell]:
    generator = np.random.default_rng(seed)
    blocks = generator.normal(size=12)
    draws = {arm: noise * generator.normal(size=12) for arm in means}
    return [Cell(arm, s, mean + blocks[s] + draws[arm][s]) for arm, mean in means.items() for s in range(seeds)]


def test_an_arm_keeps_the_verdict_and_the_interval_of_the_look_that_stopped_it() -> None:
    cells = study({"base": 0.0, "far": 30.0, "near": 0.0}, 12, seed=4)
    made = analyse(cells, looks=LOOKS)
    far, near = made.arms
    assert (far.verdict, far.stopped, far.n) == ("worse", 3, 3)
    early = analyse([c for c in cells if c.seed < 3], alpha=increments(LOOKS, 0.05)[0])
    assert (far.low, far.high, far.p) == pytest.approx((early.arms[0].low, early.arms[0].high, early.arms[0].p))
    assert far.level == pytest.approx(increments(LOOKS, 0.05)[0])
    assert near.verdict == "undecided"
    assert made.alpha == 0.05
    assert made.planned_looks == LOOKS


def test_what_the_looks_did_is_on_the_record() -> None:
    made = analyse(study({"base": 0.0, "far": 30.0, "near": 0.0}, 5), looks=LOOKS)
    assert [(look.seeds, look.arms, [(s.arm, s.why) for s in look.stops]) for look in made.looks] == [
        (3, 2, [("far", "worse")]),
        (5, 1, []),
    ]
    lines = to_text(made).splitlines()
    assert "look at 3 seeds, level 8.9e-05, 2 arms: stopped far worse" in lines
    assert "undecided (goes on to 12 seeds)" in to_text(made)
    assert not any("missing" in note for note in made.notes)


@pytest.mark.parametrize(("name", "why"), [("far", "untuned"), ("base", "untuned"), ("near", "worse")])
def test_a_look_does_not_call_an_arm_worse_that_is_to_have_no_verdict(name: str, why: str) -> None:
    made = analyse(study({"base": 0.0, "far": 30.0, "near": 0.0}, 3), looks=LOOKS, withheld={name: "untuned: edge"})
    assert [(stop.arm, stop.why) for stop in made.looks[0].stops] == [("far", why)]


def test_a_look_without_a_sound_baseline_says_so() -> None:
    cells = [replace(c, value=math.nan) if (c.arm, c.seed) == ("base", 1) else c for c in study({"base": 0, "x": 1}, 3)]
    made = analyse(cells, looks=LOOKS)
    assert [(stop.arm, stop.why) for stop in made.looks[0].stops] == [("x", "no sound baseline")]
    assert "1 arm: stopped x no sound baseline" in to_text(made)


def test_nothing_is_tested_before_the_first_look() -> None:
    made = analyse(study({"base": 0.0, "far": 30.0}, 2), looks=LOOKS)
    (arm,) = made.arms
    assert (arm.verdict, arm.p, arm.low, arm.difference is not None) == ("no verdict", None, None, True)
    assert arm.reason == "the first look is at 3 seeds, and not all of them have ended"
    assert made.ranking == ()


def test_a_look_waits_for_all_of_its_runs() -> None:
    cells = study({"base": 0.0, "a": 0.0, "b": 0.0}, 5)
    assert [look.seeds for look in analyse(cells, looks=LOOKS).looks] == [3, 5]
    hole = [cell for cell in cells if (cell.arm, cell.seed) != ("a", 4)]
    assert [look.seeds for look in analyse(hole, looks=LOOKS).looks] == [3]


def test_an_arm_that_diverged_stops_and_is_no_loser_by_a_test() -> None:
    cells = study({"base": 0.0, "a": 0.0, "b": 30.0}, 5)
    cells = [Cell(c.arm, c.seed, math.nan) if (c.arm, c.seed) == ("a", 1) else c for c in cells]
    made = analyse([c for c in cells if c.arm != "a" or c.seed < 3], looks=LOOKS)
    assert (made.arms[0].verdict, made.arms[0].stopped) == ("diverged", 3)
    assert made.looks[0].stops[0].why == "diverged"
    table = np.array([[[c.value for c in cells if c.arm == arm] for arm in ("base", "a", "b")]])
    table = np.nan_to_num(table)
    failed = np.zeros((3, 5), bool)
    failed[0, 0] = True
    assert follow(table, Rules(LOOKS, 0.05), diverged=failed)[0].outcome.tolist() == [[DIVERGED, DIVERGED]]


def test_runs_beyond_a_stop_change_nothing_and_are_told() -> None:
    cells = study({"base": 0.0, "far": 30.0, "near": 0.0}, 5)
    until = [c for c in cells if c.arm != "far" or c.seed < 3]
    more, less = analyse(cells, looks=LOOKS), analyse(until, looks=LOOKS)
    assert verdicts(more) == verdicts(less)
    assert more.notes[-1] == "2 runs lie beyond the look that their arm stopped at, and are not used."


def test_a_hopeless_arm_says_why_it_stopped() -> None:
    made = analyse(study({"base": 0.0, "same": 0.0}, 12, seed=3), looks=LOOKS)
    (arm,) = made.arms
    assert arm.verdict == "undecided"
    assert arm.stopped is not None
    assert arm.stopped < 12
    assert arm.reason.startswith(f"stopped at {arm.stopped} seeds, ")
    assert arm.reason.endswith("% likely to be settled at 12")
    assert made.looks[-1].stops[0].hope is not None


def verdicts(made: Analysis) -> list[tuple]:
    return [(arm.arm, arm.verdict, arm.p, arm.low, arm.high, arm.n, arm.stopped) for arm in made.arms]
