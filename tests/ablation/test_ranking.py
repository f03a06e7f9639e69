"""The ranking: letters of arms that cannot be told apart, and the chances of each place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from gptzoo.ablation.analysis import Cell, Place, analyse
from gptzoo.ablation.ranking import _letters


def ranking(means: list[float], higher_is_better: bool = False, seed: int = 0) -> tuple[Place, ...]:
    generator = np.random.default_rng(seed)
    cells = [Cell(f"arm{i}", s, m + generator.normal()) for i, m in enumerate(means) for s in range(5)]
    return analyse(cells, higher_is_better=higher_is_better).ranking


@given(st.integers(2, 7), st.data())
@settings(deadline=None)
def test_arms_share_a_letter_if_and_only_if_they_are_not_separable(arms, data):
    pairs = [(i, j) for i in range(arms) for j in range(i + 1, arms)]
    separable = {pair for pair in pairs if data.draw(st.booleans())}
    letters = _letters(list(range(arms)), separable)
    assert {(i, j) for i, j in pairs if not set(letters[i]) & set(letters[j])} == separable


def test_pairs_are_tested_with_the_pooled_noise_and_holm_over_all_pairs():
    generator = np.random.default_rng(4)
    y = generator.normal(size=(4, 5)) + np.array([[0.0], [1.5], [3.0], [4.5]])
    residuals = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    error = np.sqrt(2 * (residuals**2).sum() / 12 / 5)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    p = [2 * stats.t.sf(abs(y[i].mean() - y[j].mean()) / error, 12) for i, j in pairs]
    expected = {pair for pair, low in zip(pairs, multipletests(p, method="holm")[0], strict=True) if low}
    found = analyse([Cell(str(i), s, y[i, s]) for i in range(4) for s in range(5)]).ranking
    letters = {int(place.arm): set(place.letters) for place in found}
    assert {(i, j) for i, j in pairs if not letters[i] & letters[j]} == expected
    assert 0 < len(expected) < len(pairs)


def test_the_best_comes_first_and_the_baseline_takes_its_place():
    places = ranking([0.0, -20.0, 20.0])
    assert [(place.arm, place.letters) for place in places] == [("arm1", "a"), ("arm0", "b"), ("arm2", "c")]
    assert [place.arm for place in ranking([0.0, -20.0, 20.0], higher_is_better=True)] == ["arm2", "arm0", "arm1"]
    assert places[0].chances == (1.0, 0.0, 0.0)


def test_chances_are_probabilities_over_arms_and_over_places():
    chances = np.array([place.chances for place in ranking([0.0, 0.3, -0.3, 0.1])])
    np.testing.assert_allclose(chances.sum(0), 1)
    np.testing.assert_allclose(chances.sum(1), 1)


def test_the_chance_to_beat_the_baseline_is_the_normal_one():
    generator = np.random.default_rng(0)
    y = generator.normal(size=(2, 5))
    found = analyse([Cell("ab"[i], s, y[i, s]) for i in range(2) for s in range(5)])
    place = next(place for place in found.ranking if place.arm == "b")
    assert found.sigma is not None
    assert place.chances[0] == pytest.approx(
        stats.norm.cdf(-place.difference / (found.sigma * np.sqrt(2 / 5))), abs=0.02
    )


def test_equal_arms_without_noise_share_the_places():
    places = analyse([Cell(arm, s, 1.0) for arm in "abc" for s in range(3)]).ranking
    assert {place.letters for place in places} == {"a"}
    np.testing.assert_allclose([place.chances for place in places], 1 / 3, atol=0.03)


def test_an_arm_that_diverged_has_no_place():
    cells = [Cell(arm, s, 1.0 + s) for arm in "ab" for s in range(3)] + [Cell("c", s, float("inf")) for s in range(3)]
    assert {place.arm for place in analyse(cells).ranking} == {"a", "b"}
