"""Power, detectable effects and numbers of seeds, against statsmodels and the published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from gptzoo.ablation.power import (
    Noise,
    detectable,
    equivalence_power,
    minimum_detectable_effect,
    power,
    seeds_needed,
)


@given(st.floats(0, 6), st.integers(2, 40), st.sampled_from([0.001, 0.01, 0.05, 0.2]))
@settings(deadline=None, max_examples=60)
def test_paired_power_is_statsmodels(effect, seeds, alpha):
    expected = TTestPower().power(effect, seeds, alpha)
    if not math.isnan(expected):
        assert power(effect, Noise.paired(1.0), seeds, alpha) == pytest.approx(expected, abs=1e-6)


@given(st.floats(0, 1e9), st.floats(0, 1e3), st.integers(2, 8), st.integers(2, 200), st.floats(1e-4, 0.2))
@settings(deadline=None)
def test_power_is_always_a_probability(effect, sigma, arms, seeds, alpha):
    assert 0 <= power(effect, Noise.blocked(sigma, arms), seeds, alpha) <= 1


def test_detectable_effects_of_the_paired_test():
    found = [round(minimum_detectable_effect(Noise.paired(1.0), seeds), 2) for seeds in (3, 4, 5, 6, 8, 10, 20)]
    assert found == [3.26, 2.13, 1.68, 1.43, 1.16, 1.0, 0.66]


def test_seeds_needed_by_the_paired_test():
    effects = (3, 2, 1.5, 1, 0.75, 0.5)
    assert [seeds_needed(effect, Noise.paired(1.0)) for effect in effects] == [4, 5, 6, 10, 16, 34]
    assert [seeds_needed(effect, Noise.paired(1.0), alpha=0.01) for effect in effects] == [5, 7, 9, 16, 25, 51]


@pytest.mark.parametrize(("alpha", "df"), [(0.05, 1), (0.05 / 7, 1), (0.05, 14), (0.001, 4), (0.05 / 3, 4)])
def test_the_detectable_effect_is_found_eight_times_in_ten(alpha, df):
    effect = detectable(0.5, df, alpha)
    critical = stats.t.isf(alpha / 2, df)
    generator = np.random.default_rng(0)
    t = (generator.normal(size=100_000) + effect / 0.5) / np.sqrt(generator.chisquare(df, 100_000) / df)
    assert (np.abs(t) > critical).mean() == pytest.approx(0.8, abs=0.01)


def test_six_arms_at_three_seeds_see_two_sigma_three_times_in_ten():
    assert power(2.0, Noise.blocked(1.0, 6), 3, comparisons=5) == pytest.approx(0.301, abs=0.001)
    assert power(2.0, Noise.paired(math.sqrt(2)), 3, comparisons=5) == pytest.approx(0.068, abs=0.005)


def test_equivalence_power_is_what_simulation_gives():
    generator = np.random.default_rng(0)
    sample = 0.3 + math.sqrt(2) * generator.normal(size=(40_000, 8))
    error = sample.std(1, ddof=1) / math.sqrt(8)
    rejected = np.abs(sample.mean(1)) + stats.t.isf(0.05, 7) * error < 1.9
    assert equivalence_power(0.3, 1.9, Noise.blocked(1.0, 2), 8) == pytest.approx(rejected.mean(), abs=0.01)


def test_welch_noise_with_equal_spreads_is_the_unpaired_test():
    noise = Noise.welch(2.0, 2.0)
    assert (noise.variance, noise.degrees) == (8.0, 2.0)
    assert Noise.welch(0.0, 0.0) == Noise(0.0, 2)


def test_no_number_of_seeds_is_enough_for_no_effect():
    assert seeds_needed(0.0, Noise.blocked(1.0, 3)) is None


def test_no_effect_is_settled_by_equivalence_where_a_delta_is_given():
    noise = Noise.blocked(1.0, 3)
    needed = seeds_needed(0.0, noise, delta=1.0)
    assert needed is not None
    assert equivalence_power(0.0, 1.0, noise, needed) >= 0.8 > equivalence_power(0.0, 1.0, noise, needed - 1)


def test_without_noise_two_seeds_see_everything():
    assert power(1e-9, Noise.blocked(0.0, 2), 2) == 1
    assert seeds_needed(1e-9, Noise.blocked(0.0, 2)) == 2
    assert minimum_detectable_effect(Noise.blocked(0.0, 2), 2) == 0


def test_one_seed_detects_nothing():
    assert minimum_detectable_effect(Noise.blocked(1.0, 4), 1) == math.inf
