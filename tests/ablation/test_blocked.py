"""The blocked model, its guard and its corrections, against statsmodels and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from gptzoo.ablation.blocked import compare, describe, fit_blocks, holm, levene, unstable_arms


def table(arms: int, seeds: int, seed: int = 0, blocks: float = 1.0) -> np.ndarray:
    """One study, (1, arms, seeds), on the scale of a loss."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(1, arms, seeds)) + blocks * generator.normal(size=(1, 1, seeds))
    return 3 + 0.01 * (noise + generator.normal(size=(1, arms, 1)))


def oracle(values: np.ndarray, mask: np.ndarray):
    """statsmodels' fit of y = arm + seed."""
    arm, seed = np.nonzero(mask)
    return ols("y ~ C(arm) + C(seed)", pd.DataFrame({"y": values[0][mask], "arm": arm, "seed": seed})).fit()


def welch(first: np.ndarray, second: np.ndarray) -> Any:
    """scipy's test of two samples with unequal spreads."""
    return stats.ttest_ind(first, second, equal_var=False)


@patch("gc.collect", new=Mock())  # statsmodels collects all garbage at every call
def corrected(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """statsmodels' Holm correction."""
    return np.asarray(multipletests(p, method="holm")[1])


def connected(mask: np.ndarray) -> bool:
    """Every arm is linked to every other by shared seeds."""
    links = np.linalg.matrix_power(
        (mask.astype(int) @ mask.T).astype(bool).astype(float) + np.eye(len(mask)), len(mask)
    )
    return bool((links > 0).all())


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 10_000), st.data())
@settings(deadline=None, max_examples=60)
def test_differences_errors_and_p_values_are_those_of_least_squares_with_and_without_holes(arms, seeds, seed, data):
    values = table(arms, seeds, seed)
    mask = data.draw(hnp.arrays(bool, (arms, seeds), elements=st.sampled_from([True, True, True, False])))
    mask[:, mask.sum(0) == 0] = True
    if not connected(mask) or mask.sum() <= arms + seeds - 1:
        return
    expected = oracle(values, mask)
    found = compare(values, mask, guard=False)
    assert found.blocked.all()
    for arm in range(1, arms):
        name = f"C(arm)[T.{arm}]"
        assert found.difference[0, arm - 1] == pytest.approx(expected.params[name], rel=1e-6, abs=1e-12)
        assert found.error[0, arm - 1] == pytest.approx(expected.bse[name], rel=1e-6)
        assert found.p[0, arm - 1] == pytest.approx(expected.pvalues[name], rel=1e-5, abs=1e-12)
        assert found.interval(0.05)[0][0, arm - 1] == pytest.approx(
            expected.conf_int().loc[name, 0], rel=1e-5, abs=1e-9
        )
    assert found.pooled_df[0] == expected.df_resid


def test_two_arms_are_the_paired_t_test():
    values = table(2, 5)
    found = compare(values, np.ones((2, 5), bool))
    expected = stats.ttest_rel(values[0, 1], values[0, 0])
    interval = expected.confidence_interval()
    assert found.p[0, 0] == pytest.approx(expected.pvalue)
    assert [x[0, 0] for x in found.interval(0.05)] == pytest.approx([interval.low, interval.high])


def test_the_formula_of_the_pooled_noise_on_a_full_table():
    y = table(4, 3)[0]
    residuals = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    found = compare(y[None], np.ones((4, 3), bool), guard=False)
    assert found.variance[0] == pytest.approx((residuals**2).sum() / (3 * 2))
    assert found.error[0] == pytest.approx(np.sqrt(2 * found.variance[0] / 3))
    assert found.difference[0] == pytest.approx((y[1:] - y[0]).mean(1))


def test_many_studies_at_once_are_the_studies_one_by_one():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(40, 4, 5)) * np.where(generator.random((40, 4, 1)) < 0.2, 30, 1)
    mask = np.ones((4, 5), bool)
    mask[2, 3] = False
    together = compare(values, mask)
    assert 5 < together.unstable.any(1).sum() < 40
    for study in range(40):
        alone = compare(values[[study]], mask)
        np.testing.assert_allclose(together.p_holm[study], alone.p_holm[0], rtol=1e-9)
        np.testing.assert_array_equal(together.unstable[study], alone.unstable[0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
@settings(deadline=None, max_examples=50)
def test_holm_is_statsmodels_holm(p):
    np.testing.assert_allclose(holm(np.array([p]))[0], corrected(p), atol=1e-12)


def test_an_untested_arm_still_counts_in_the_family():
    np.testing.assert_allclose(holm(np.array([[0.01, np.nan, 0.02]]))[0], [0.03, np.nan, 0.04])


def test_equivalence_of_two_arms_is_the_paired_tost():
    values = table(2, 6)
    found = compare(values, np.ones((2, 6), bool)).equivalence(0.015)
    expected = ttost_paired(values[0, 1], values[0, 0], -0.015, 0.015)[0]
    assert found[0, 0] == pytest.approx(expected)


def test_equivalence_is_corrected_for_all_arms():
    values = table(4, 6)
    found = compare(values, np.ones((4, 6), bool), guard=False)
    t = (np.abs(found.difference[0]) - 0.03) / found.error[0]
    np.testing.assert_allclose(found.equivalence(0.03)[0], corrected(stats.t.cdf(t, 15)))


def test_levene_is_scipys_with_and_without_holes():
    values, mask = table(4, 7), np.ones((4, 7), bool)
    mask[1, :3] = mask[3, 5] = False
    expected = stats.levene(*(values[0, arm, mask[arm]] for arm in range(4)), center="median").pvalue
    assert levene(values, mask)[0] == pytest.approx(expected)


def test_an_unstable_arm_is_compared_by_welch_and_leaves_the_pooled_noise():
    values = table(4, 5)
    values[0, 2] = 3 + 0.5 * np.array([-1, 1, 0.3, -0.6, 0.9])
    found = compare(values, np.ones((4, 5), bool))
    expected = welch(values[0, 2], values[0, 0])
    interval = expected.confidence_interval()
    assert found.unstable[0].tolist() == [False, False, True, False]
    assert found.blocked[0].tolist() == [True, False, True]
    assert found.p[0, 1] == pytest.approx(expected.pvalue)
    assert [x[0, 1] for x in found.interval(0.05)] == pytest.approx([interval.low, interval.high])
    stable = np.ones((4, 5), bool)
    stable[2] = False
    without = oracle(values, stable)
    assert (found.variance[0], found.pooled_df[0]) == (pytest.approx(without.mse_resid), without.df_resid)
    assert found.error[0, 0] == pytest.approx(without.bse["C(arm)[T.1]"])


def test_an_unstable_baseline_puts_every_arm_on_welch():
    values = table(4, 5)
    values[0, 0] = 3 + 0.5 * np.array([-1, 1, 0.3, -0.6, 0.9])
    found = compare(values, np.ones((4, 5), bool))
    assert not found.blocked.any()
    expected = [welch(values[0, arm], values[0, 0]).pvalue for arm in (1, 2, 3)]
    np.testing.assert_allclose(found.p[0], expected)
    np.testing.assert_allclose(found.p_holm[0], corrected(expected))


def test_a_wild_arm_is_found_at_three_seeds_where_levene_and_twice_the_pooled_spread_are_blind():
    values = table(4, 3, seed=3)
    values[0, 3] = [2.0, 3.1, 4.3]
    deviation = np.sqrt(describe(values, np.ones((4, 3), bool)).variance[0])
    assert levene(values, np.ones((4, 3), bool))[0] > 0.05
    assert deviation.max() < 2 * np.sqrt((deviation**2).mean())
    assert unstable_arms(values, np.ones((4, 3), bool))[0].tolist() == [False, False, False, True]


def test_two_wild_arms_are_both_found():
    values = table(6, 5)
    values[0, 2] = 3 + np.array([-1, 1, 0.3, -0.6, 0.9])
    values[0, 4] = 3 + 0.5 * np.array([0.4, -1, 0.8, 0.7, -0.9])
    assert np.flatnonzero(unstable_arms(values, np.ones((6, 5), bool))[0]).tolist() == [2, 4]


def test_the_guard_seldom_fires_where_all_arms_are_alike_and_never_because_seeds_differ():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2000, 4, 3)) + 10 * generator.normal(size=(2000, 1, 3))
    assert 0.003 < unstable_arms(values, np.ones((4, 3), bool)).any(1).mean() < 0.018


def test_arms_that_share_no_seed_are_compared_by_welch():
    values, mask = table(3, 8), np.ones((3, 8), bool)
    mask[:2, 4:], mask[2, :4] = False, False
    found = compare(values, mask)
    expected = welch(values[0, 2, 4:], values[0, 0, :4]).pvalue
    assert found.blocked[0].tolist() == [True, False]
    assert found.p[0, 1] == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.1, 1e9, -3.3333, 0.0])
def test_no_spread_at_all_gives_no_nan(value):
    values = np.full((1, 3, 3), value)
    values[0, 2] += 1
    found = compare(values, np.ones((3, 3), bool))
    assert found.difference[0].tolist() == [0.0, pytest.approx(1.0)]
    assert found.error[0].tolist() == [0.0, 0.0]
    assert found.p[0].tolist() == [1.0, 0.0]
    assert found.equivalence(0.5)[0].tolist() == [0.0, 1.0]
    assert not found.unstable.any()


def test_a_large_offset_costs_no_digits():
    values = table(4, 5)
    plain, shifted = (compare(v, np.ones((4, 5), bool)) for v in (values, values + 1e6))
    np.testing.assert_allclose(shifted.error, plain.error, rtol=1e-6)


def test_an_arm_left_out_is_not_tested_and_does_not_touch_the_noise():
    values = table(3, 4)
    found = compare(values, np.ones((3, 4), bool), left_out=np.array([False, False, True]))
    without = fit_blocks(values, np.array([[True] * 4, [True] * 4, [False] * 4]))
    assert np.isnan(found.p[0]).tolist() == [False, True]
    assert found.variance[0] == pytest.approx(without.variance[0])
    assert found.p_holm[0, 0] == pytest.approx(2 * found.p[0, 0])
