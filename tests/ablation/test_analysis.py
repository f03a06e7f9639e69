"""Verdicts on arms: their order, their reasons, and what is said beside them."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from gptzoo.ablation.analysis import Analysis, ArmVerdict, Cell, analyse, to_json, to_text
from gptzoo.errors import GPTZooError

NAN = float("nan")


def study(rows: dict[str, list[float]], first_seed: int = 0) -> list[Cell]:
    """Cells of arms from lists of values, one per seed."""
    return [Cell(arm, first_seed + seed, value) for arm, values in rows.items() for seed, value in enumerate(values)]


def noisy(effects: dict[str, float], seeds: int = 5, scale: float = 0.01, seed: int = 0) -> list[Cell]:
    """Cells with noise of SD `scale` around 2.4 plus each arm's effect, and seed effects of half that."""
    generator = np.random.default_rng(seed)
    blocks = 0.5 * scale * generator.normal(size=seeds)
    return study({a: (2.4 + e + blocks + scale * generator.normal(size=seeds)).tolist() for a, e in effects.items()})


def welch(first: list[float], second: list[float]) -> Any:
    """scipy's test of two samples with unequal spreads."""
    return stats.ttest_ind(first, second, equal_var=False)


def arm(analysis: Analysis, name: str) -> ArmVerdict:
    return next(each for each in analysis.arms if each.arm == name)


def verdicts(analysis: Analysis) -> dict[str, str]:
    return {each.arm: each.verdict for each in analysis.arms}


EFFECTS = {"base": 0.0, "good": -0.1, "bad": 0.1, "same": 0.0}


def test_a_lower_loss_is_better():
    assert verdicts(analyse(noisy(EFFECTS))) == {"good": "better", "bad": "worse", "same": "undecided"}


def test_a_higher_score_is_better_where_that_is_said():
    found = analyse(noisy(EFFECTS), higher_is_better=True)
    assert verdicts(found) == {"good": "worse", "bad": "better", "same": "undecided"}
    assert (arm(found, "bad").probability_better or 0) > 0.99


def test_an_arm_inside_delta_is_equivalent_and_one_outside_is_not():
    assert verdicts(analyse(noisy(EFFECTS), delta=0.05)) == {"good": "better", "bad": "worse", "same": "equivalent"}


def test_equivalence_comes_before_a_difference_too_small_to_matter():
    cells = study({"base": [1.0, 1.1, 1.2], "x": [1.01, 1.11, 1.2100001]})
    assert arm(analyse(cells), "x").verdict == "worse"
    assert arm(analyse(cells, delta=0.05), "x").verdict == "equivalent"


def test_without_a_delta_no_arm_is_equivalent_and_a_note_says_why():
    found = analyse(study({"base": [1.0, 1.1, 1.2], "x": [1.0, 1.1, 1.2]}))
    assert arm(found, "x").verdict == "undecided"
    note = "No delta, so no arm can be called equivalent: delta is the smallest difference that matters."
    assert note in found.notes
    assert note not in analyse(noisy(EFFECTS), delta=0.05).notes


def test_the_numbers_of_a_blocked_arm():
    cells = noisy(EFFECTS, seeds=3)
    y = np.array([cell.value for cell in cells]).reshape(4, 3)
    residuals = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    sigma, df = math.sqrt((residuals**2).sum() / 6), 6
    found, difference = arm(analyse(cells), "same"), y[3].mean() - y[0].mean()
    reach = stats.t.isf(0.025, df) * sigma * math.sqrt(2 / 3)
    assert (found.n, found.method) == (3, "blocked")
    assert found.mean == pytest.approx(y[3].mean())
    assert found.std == pytest.approx(y[3].std(ddof=1))
    assert (found.difference, found.low, found.high) == pytest.approx(
        (difference, difference - reach, difference + reach)
    )
    assert found.p == pytest.approx(2 * stats.t.sf(abs(difference) / (sigma * math.sqrt(2 / 3)), df))
    assert found.hedges_g == pytest.approx((1 - 3 / 23) * difference / sigma)
    assert found.probability_better == pytest.approx(stats.norm.cdf(-difference / (math.sqrt(2) * sigma)))
    paired = (y[3] - y[0]).var(ddof=1)
    assert found.variance_ratio == pytest.approx((y[3].var(ddof=1) + y[0].var(ddof=1)) / paired)


def test_noise_detectable_effect_and_icc():
    cells = noisy(EFFECTS, seeds=4)
    y = np.array([cell.value for cell in cells]).reshape(4, 4)
    found = analyse(cells)
    assert found.sigma is not None
    assert found.df == 9
    assert found.mde is not None
    between = 4 * y.mean(0).var(ddof=1)
    assert found.icc == pytest.approx((between - found.sigma**2) / (between + 3 * found.sigma**2))
    error, critical = found.sigma / math.sqrt(2), stats.t.isf(0.05 / 3 / 2, 9)
    assert stats.nct.sf(critical, 9, found.mde / error) == pytest.approx(0.8, abs=1e-6)


def test_the_seeds_still_needed_reach_eighty_percent_and_one_fewer_does_not():
    found = analyse(study({"base": [1.0, 1.1, 1.2], "x": [1.02, 1.11, 1.25], "y": [1.0, 1.1, 1.17]}))
    x = arm(found, "x")
    assert x.verdict == "undecided"
    assert x.more_seeds is not None
    assert found.sigma is not None

    def power(n: int) -> float:
        shift, df = abs(x.difference or 0) / (found.sigma or 0) * math.sqrt(n / 2), 2 * (n - 1)
        critical = stats.t.isf(0.05 / 2 / 2, df)
        return float(stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift))

    assert power(3 + x.more_seeds) >= 0.8 > power(2 + x.more_seeds)


def test_too_many_seeds_is_said_and_not_counted():
    found = analyse(study({"base": [1.0, 1.1, 1.2], "x": [1.1, 1.2, 1.0001]}))
    assert arm(found, "x").more_seeds is None
    assert "undecided (needs more than 200 more seeds)" in to_text(found)


def test_a_decided_arm_needs_no_seeds():
    assert arm(analyse(noisy(EFFECTS)), "good").more_seeds is None


def test_an_unstable_arm_is_labelled_and_compared_by_welch():
    cells = noisy({**EFFECTS, "wild": 0.0})
    values = {"wild": [2.0, 2.9, 2.4, 2.1, 3.0]}
    cells = [c for c in cells if c.arm != "wild"] + study(values)
    found = analyse(cells)
    base = [cell.value for cell in cells if cell.arm == "base"]
    expected = welch(values["wild"], base)
    wild = arm(found, "wild")
    assert (wild.method, wild.p) == ("Welch (unstable arm)", pytest.approx(expected.pvalue))
    assert wild.hedges_g == pytest.approx(
        (1 - 3 / (4 * expected.df - 1))
        * (np.mean(values["wild"]) - np.mean(base))
        / math.sqrt((np.var(values["wild"], ddof=1) + np.var(base, ddof=1)) / 2)
    )
    assert arm(found, "good").method == "blocked"
    assert found.df == 12
    assert "Unstable, the spread over seeds is out of line: wild. Not pooled; compared by Welch." in found.notes


def test_an_unstable_baseline_is_labelled_on_every_arm():
    found = analyse([*study({"base": [2.0, 2.9, 2.4, 2.1, 3.0]}), *noisy({"x": 0.0, "y": 0.0, "z": 0.0})])
    assert {each.method for each in found.arms} == {"Welch (unstable baseline)"}
    assert found.mde is None
    assert found.sigma is not None


def test_divergence_is_an_outcome_with_an_exact_interval():
    found = arm(analyse(study({"base": [1.0, 1.1, 1.2, 1.1], "x": [0.5, NAN, 0.7, math.inf]})), "x")
    expected = stats.binomtest(2, 4).proportion_ci(method="exact")
    assert (found.verdict, found.reason, found.n, found.diverged) == ("diverged", "2 of 4 runs diverged", 2, 2)
    assert found.diverged_interval == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.p, found.method) == (pytest.approx(0.6), None, "Welch (diverged arm)")


@pytest.mark.parametrize(("failed", "runs"), [(1, 3), (3, 3), (2, 10), (10, 10)])
def test_the_interval_of_the_share_that_diverges_is_clopper_pearson(failed, runs):
    cells = study({"base": [1.0 + i % 3 for i in range(runs)], "x": [NAN] * failed + [1.0] * (runs - failed)})
    expected = stats.binomtest(failed, runs).proportion_ci(method="exact")
    assert arm(analyse(cells), "x").diverged_interval == pytest.approx((expected.low, expected.high))


def test_an_arm_that_diverged_does_not_loosen_the_correction_for_the_others():
    rows = {"base": [1.0, 1.1, 1.2], "x": [1.02, 1.11, 1.25]}
    alone = arm(analyse(study(rows)), "x")
    beside = arm(analyse(study({**rows, "dead": [NAN, NAN, NAN]})), "x")
    assert (alone.p, alone.p_holm) == (beside.p, alone.p)
    assert beside.p_holm == pytest.approx(2 * (alone.p or 0))


def test_nothing_is_judged_against_a_baseline_that_diverged():
    found = analyse(study({"base": [1.0, NAN, 1.2], "x": [1.0, 1.1, 1.2]}))
    assert (found.arms[0].verdict, found.arms[0].reason) == ("no verdict", "the baseline diverged")
    assert "The baseline base diverged, so no arm can be judged against it. Take a baseline that trains." in found.notes


def test_one_seed_gives_no_verdict_and_says_why():
    found = analyse(study({"base": [1.0], "x": [0.5]}))
    x = found.arms[0]
    assert (x.verdict, x.reason) == ("no verdict", "one seed says nothing about the noise")
    assert (x.difference, x.low, x.p, x.method) == (-0.5, None, None, "none (too few runs)")
    assert found.notes[0] == (
        "One seed for base, x: the noise is unknown, so there is no verdict. Run three seeds or more."
    )


def test_one_arm_with_one_seed_has_no_verdict_and_the_others_do():
    cells = [*noisy({"base": 0.0, "good": -0.1}), Cell("short", 0, 2.3)]
    assert verdicts(analyse(cells)) == {"good": "better", "short": "no verdict"}


def test_holes_are_fitted_and_named():
    cells = [c for c in noisy(EFFECTS) if (c.arm, c.seed) not in (("good", 1), ("base", 3))]
    found = analyse(cells)
    assert found.df == 10
    assert arm(found, "good").n == 4
    assert "2 results are missing; least squares on the rest: base at seed 3, good at seed 1." in found.notes


def test_arms_without_shared_seeds_are_compared_by_welch_and_it_is_said():
    cells = [*noisy({"base": 0.0, "x": 0.0}), *study({"far": [2.4, 2.41, 2.39]}, first_seed=50)]
    found = analyse(cells)
    assert arm(found, "far").method == "Welch (no shared seeds)"
    assert "No shared seeds link far to the baseline: compared by Welch, which sees less." in found.notes
    assert not any("missing" in note for note in found.notes)


def test_the_aa_arm_touches_neither_the_noise_nor_the_family():
    cells = noisy(EFFECTS)
    fresh = [2.41, 2.39, 2.405, 2.4, 2.38]
    without, found = analyse(cells), analyse([*cells, *study({"a/a": fresh}, first_seed=10_000)])
    base = [cell.value for cell in cells if cell.arm == "base"]
    expected = welch(fresh, base)
    interval = expected.confidence_interval()
    assert found.arms == without.arms
    assert found.sigma == without.sigma
    assert found.aa is not None
    assert found.aa.p == pytest.approx(expected.pvalue)
    assert (found.aa.low, found.aa.high) == pytest.approx((interval.low, interval.high))
    assert found.aa.std == pytest.approx(np.std(fresh, ddof=1))
    assert found.aa.sound is True


def test_an_aa_arm_that_differs_is_a_fault_of_the_study():
    cells = [*noisy(EFFECTS), *study({"again": [2.6, 2.61, 2.59, 2.6, 2.62]}, first_seed=10_000)]
    found = analyse(cells, aa_arm="again")
    assert found.aa is not None
    assert found.aa.sound is False
    assert found.notes[0].startswith("A/A check failed: again is the baseline on fresh seeds, yet differs from it (p ")


def test_a_baseline_with_only_its_aa_arm_is_a_noise_floor():
    found = analyse([*noisy({"base": 0.0}), *study({"a/a": [2.41, 2.39, 2.405]}, first_seed=10_000)])
    assert found.arms == ()
    assert found.aa is not None
    assert found.sigma is None
    assert to_text(found).splitlines()[0].startswith("baseline base: mean 2.4")


def test_no_spread_at_all_is_no_nan():
    found = analyse(study({"base": [0.1] * 3, "x": [0.1] * 3, "y": [0.2] * 3}), delta=0.01, higher_is_better=True)
    assert verdicts(found) == {"x": "equivalent", "y": "better"}
    assert (arm(found, "x").probability_better, arm(found, "y").probability_better) == (0.5, 1.0)
    assert (arm(found, "x").hedges_g, arm(found, "y").hedges_g) == (0.0, None)
    assert [place.letters for place in found.ranking] == ["a", "b", "b"]
    assert "No spread at all over seeds, so no uncertainty: x, y. Check that the seed reaches the runs." in found.notes


def test_the_order_of_the_cells_changes_only_the_order_of_the_arms():
    cells = noisy(EFFECTS)
    forward, backward = analyse(cells, baseline="base"), analyse(cells[::-1], baseline="base")
    for name in ("good", "bad", "same"):
        one, two = dataclasses.asdict(arm(forward, name)), dataclasses.asdict(arm(backward, name))
        assert one == {key: pytest.approx(value) if isinstance(value, float) else value for key, value in two.items()}


def test_the_json_has_the_promised_shape():
    data = to_json(analyse(noisy(EFFECTS), delta=0.05))
    assert {"baseline", "alpha", "delta", "arms"} <= set(data)
    assert (data["baseline"], data["alpha"], data["delta"]) == ("base", 0.05, 0.05)
    arms = json.loads(json.dumps(data, allow_nan=False))["arms"]
    keys = ["arm", "n", "mean", "difference", "low", "high", "p", "p_holm", "verdict", "method"]
    assert [each["arm"] for each in arms] == ["good", "bad", "same"]
    assert all(set(keys) <= set(each) for each in arms)


def test_the_text_is_a_table_with_the_verdicts_and_the_noise():
    found = analyse(study({"base": [1.0, 1.1, 1.2], "x": [0.5, 0.61, 0.7], "longer name": [1.02, 1.11, 1.25]}))
    assert to_text(found).splitlines() == [
        "baseline base: mean 1.100, SD 0.100, n 3; lower is better",
        "arm          n   mean  difference      95% interval  p (Holm)  verdict                         method",
        "x            3  0.603      -0.497  [-0.527, -0.466]   2.9e-06  better                          blocked",
        "longer name  3  1.127      +0.027  [-0.004, +0.057]     0.073  undecided (needs 4 more seeds)  blocked",
        "noise 0.014 (4 degrees of freedom), smallest difference found 80% of the time 0.051, seeds explain 98%",
        "ranking: x a, base b, longer name b",
        "No delta, so no arm can be called equivalent: delta is the smallest difference that matters.",
        "More seeds: choose their number once and analyse once; testing after every seed finds what is not there.",
    ]


def test_an_interval_without_zero_beside_an_undecided_verdict_is_explained():
    generator = np.random.default_rng(0)
    for _ in range(60):
        rows = {name: generator.normal(size=4).tolist() for name in ("base", "x", "y", "z", "w")}
        found = analyse(study(rows))
        apart = [a.arm for a in found.arms if a.verdict == "undecided" and (a.low or 0) * (a.high or 0) > 0]
        note = f"Intervals are for one arm alone, verdicts for all arms together: hence {', '.join(apart)} undecided."
        assert (note in found.notes) == bool(apart)


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([], {}, "there are no results. Give cells of two arms or more."),
        (study({"a": [1.0, 2.0]}), {}, "there is only the arm 'a': nothing to compare. Add a second arm."),
        (
            study({"a/a": [1.0, 2.0]}),
            {},
            "there is only the A/A arm 'a/a': nothing to compare. Add the baseline.",
        ),
        (
            study({"rope": [1.0, 2.0], "alibi": [1.0, 2.0]}),
            {"baseline": "ropes"},
            "baseline: no arm is called 'ropes'. Did you mean rope?",
        ),
        (
            study({"rope": [1.0, 2.0], "alibi": [1.0, 2.0]}),
            {"aa_arm": "zzz"},
            "aa_arm: no arm is called 'zzz'. Known: rope, alibi.",
        ),
        (
            [Cell("a", 0, 1.0), Cell("b", 0, 1.0), Cell("a", 0, 2.0)],
            {},
            "arm 'a' has two results at seed 0. Keep one.",
        ),
        (
            study({"a": [1.0], "b": [1.0]}),
            {"alpha": 5},
            "alpha: a level lies between 0 and 1, not 5. 0.05 is usual.",
        ),
        (
            study({"a": [1.0], "b": [1.0]}),
            {"delta": 0},
            "delta: the smallest difference that matters is a positive number, not 0.",
        ),
        (
            study({"a": [1.0], "b": [1.0]}),
            {"delta": NAN},
            "delta: the smallest difference that matters is a positive number, not nan.",
        ),
    ],
)
def test_what_cannot_be_analysed_is_refused(cells, options, message):
    with pytest.raises(GPTZooError) as caught:
        analyse(cells, **options)
    assert str(caught.value) == message


VALUES = st.one_of(st.floats(allow_nan=True), st.sampled_from([0.0, 0.1, 1.0, NAN]), st.floats(2, 3))
CELLS = st.dictionaries(st.tuples(st.sampled_from(["a", "b", "c", "d", "a/a"]), st.integers(0, 4)), VALUES, max_size=25)


@pytest.mark.filterwarnings("error")
@given(CELLS, st.sampled_from([None, 0.1, 1e-300, 1e300]), st.booleans())
@settings(deadline=None, max_examples=120)
def test_any_numbers_give_an_analysis_without_nan_or_a_refusal(cells, delta, higher_is_better):
    try:
        found = analyse(
            [Cell(arm, seed, value) for (arm, seed), value in cells.items()],
            delta=delta,
            higher_is_better=higher_is_better,
        )
    except GPTZooError:
        assert not any(name != "a/a" for name, _ in cells) or len({name for name, _ in cells}) < 2
    else:
        json.dumps(to_json(found), allow_nan=False)
        assert "nan" not in to_text(found)
        for each in found.arms:
            assert (each.p_holm is not None) == (each.verdict not in ("diverged", "no verdict"))
            assert each.reason or each.verdict not in ("diverged", "no verdict")
