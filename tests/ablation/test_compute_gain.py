"""Gains in compute: exact on curves that are known, honest about what was not trained, and intervals that cover."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from gptzoo.ablation import wording
from gptzoo.ablation.compute_gain import FARTHEST, FROM, Bound, Gain, fit_curve
from gptzoo.ablation.findings import find
from tests.ablation import demo_study as demo

SHARES = np.arange(1, 41) / 40


def power(floor: float, scale: float, exponent: float):
    """The loss after a share of the training."""
    return lambda share: floor + scale * np.asarray(share, float) ** -exponent


@pytest.mark.parametrize(("floor", "scale", "exponent"), [(1.7, 0.6, 0.3), (0.0, 2.5, 0.08), (2.2, 0.1, 1.5)])
def test_a_known_curve_is_found_and_a_loss_in_compute_is_exact(floor, scale, exponent):
    loss = power(floor, scale, exponent)
    curve = fit_curve(SHARES, [loss(SHARES)] * 2)
    assert curve is not None
    assert (curve.floor, curve.scale, curve.exponent) == pytest.approx((floor, scale, exponent), rel=1e-5, abs=1e-5)
    for difference in (0.01, 0.05, 0.1):
        arm = float(loss(1.0)) + difference
        wanted = (scale / (arm - floor)) ** (1 / exponent)
        assert wanted == pytest.approx(brentq(lambda share: float(loss(share)) - arm, 1e-6, 1), rel=1e-9)  # noqa: B023
        assert curve.gain(difference, difference, difference).estimate.value == pytest.approx(wanted, rel=1e-6)


def test_a_gain_is_right_where_every_doubling_is_worth_the_same():
    curve = fit_curve(SHARES, [2.0 - 0.2 * np.log(SHARES)])
    assert curve is not None
    gain = curve.gain(-0.1, -0.12, -0.08)
    wanted = [math.exp(each / 0.2) for each in (0.1, 0.08, 0.12)]
    assert [gain.estimate.value, gain.low.value, gain.high.value] == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 2.0])
def test_a_gain_is_not_overstated_where_doublings_are_worth_less_and_less(exponent):
    loss = power(1.0, 0.8, exponent)
    curve = fit_curve(SHARES, [loss(SHARES)])
    assert curve is not None
    for true in (1.1, 1.5, 2.0):
        difference = float(loss(true) - loss(1.0))
        assert 1 < curve.gain(difference, difference, difference).estimate.value < true * (1 + 1e-6)


def test_what_was_never_trained_is_a_bound_and_so_is_what_was_not_fitted():
    curve = fit_curve(SHARES, [power(1.7, 0.6, 0.3)(SHARES)])
    assert curve is not None
    gain = curve.gain(-0.5, -0.6, -0.05)
    assert (gain.estimate, gain.high) == (Bound(FARTHEST, 1), Bound(FARTHEST, 1))
    assert gain.low.side == 0
    assert curve.gain(5.0, 4.0, 6.0).estimate == Bound(FROM, -1)
    assert curve.gain(0.0, -1.0, 1.0) == Gain(Bound(1.0), Bound(FROM, -1), Bound(FARTHEST, 1))


def test_an_arm_that_costs_more_is_worth_less():
    curve = fit_curve(SHARES, [power(1.7, 0.6, 0.3)(SHARES)])
    assert curve is not None
    assert curve.gain(0.0, 0.0, 0.0, cheaper=0.5).estimate == Bound(0.5)
    assert curve.gain(-9.0, -9.0, -9.0, cheaper=0.5).estimate == Bound(0.5 * FARTHEST, 1)


def test_there_is_no_curve_without_points_or_where_the_loss_does_not_fall():
    assert fit_curve([0.2, 0.6, 1.0], [[3.0, 2.0, 1.0]]) is None
    assert fit_curve(SHARES, [np.full(40, 2.0)]) is None
    assert fit_curve(SHARES, [2.0 + SHARES]) is None
    assert fit_curve(SHARES, [np.where(SHARES > 0.9, np.nan, 2.0 - SHARES)]) is None
    assert fit_curve([], []) is None


def test_intervals_cover_the_true_gain():
    """Studies whose truth is known: the noise of a run lasts through its training, each evaluation adds its own."""
    random, slope, sigma, seeds = np.random.default_rng(0), 0.2, 0.02, 5
    covered, studies = 0, 200
    for true in np.exp(random.uniform(math.log(0.5), math.log(1.8), studies)):
        base = 2.0 - slope * np.log(SHARES) + sigma * random.standard_normal((seeds, 1))
        base += 0.3 * sigma * random.standard_normal(base.shape)
        arms = base[:, -1:] - slope * math.log(true) + sigma * random.standard_normal((seeds, 1))
        apart = arms[:, 0] - base[:, -1]
        low, high = stats.t.interval(0.95, seeds - 1, apart.mean(), stats.sem(apart))
        curve = fit_curve(SHARES, base, draws=40)
        assert curve is not None
        gain = curve.gain(float(apart.mean()), float(low), float(high))
        assert gain.low.value <= gain.estimate.value <= gain.high.value
        under = gain.low.side == -1 or gain.low.value <= true
        covered += under and (gain.high.side == 1 or true <= gain.high.value)
    assert 0.93 <= covered / studies <= 0.995


# In a study


def with_differences(*differences: float):
    """A study whose arms differ from the baseline by so much, at every evaluation and without noise of their own."""
    whole = demo.study()
    base = [cell for cell in whole.cells if cell.arm in ("learned", "a/a")]
    names = [arm.name for arm in whole.arms[1 : 1 + len(differences)]]
    cells = [
        replace(cell, arm=name, value=(cell.value or 0) + difference + 1e-4 * cell.seed)
        for name, difference in zip(names, differences, strict=True)
        for cell in base[:3]
    ]
    return replace(whole, arms=whole.arms[: 1 + len(differences)], cells=(*base, *cells))


def test_the_gain_stands_in_the_sentence_after_the_nats():
    findings = find(replace(with_differences(-0.08, 0.08, -0.5), delta=None))
    said = [wording.sentence(findings, arm, wording.Numbers.of(findings)) for arm in findings.arms[1:]]
    worth = [sentence.partition("seeds. ")[2] for sentence in said]
    assert worth[0].startswith("That is worth \N{MULTIPLICATION SIGN}1.")
    assert worth[1].startswith("That is worth \N{MULTIPLICATION SIGN}0.")
    assert worth[2] == "That is worth more than \N{MULTIPLICATION SIGN}2 the compute."


def test_flops_of_an_arm_count():
    study = with_differences(-0.02)
    dearer = tuple(replace(c, flops=(1 + (c.arm == "rope")) * 1.6e11) for c in study.cells)
    one, two = (find(each).arms[1].gain for each in (study, replace(study, cells=dearer)))
    assert one is not None
    assert two is not None
    assert two.estimate.value == pytest.approx(one.estimate.value / 2)


@pytest.mark.parametrize(
    "study",
    [
        replace(demo.study(), mismatches=("data differ",)),
        replace(demo.study(), metric="exact_match", higher_is_better=True),
        replace(demo.study(), cells=tuple(replace(cell, curve=()) for cell in demo.study().cells)),
        replace(demo.study(), cells=()),
        demo.study(seeds=1),
    ],
)
def test_there_is_no_gain_where_there_is_no_verdict_no_loss_or_no_curve(study):
    findings = find(study)
    assert [arm.gain for arm in findings.arms] == [None] * len(findings.arms)
    assert wording.gain_lines(findings) == []


def test_the_terminal_tells_each_gain_and_what_it_rests_on():
    lines = wording.gain_lines(find(with_differences(-0.02, 0.05)))
    assert [line.split(" \N{MULTIPLICATION SIGN}")[0] for line in lines[:2]] == ["compute: rope", "compute: alibi"]
    assert lines[2].startswith(
        "Gain in compute: how many times an arm's training FLOPs learned would need for the arm's loss. It rests on "
        "learned's own learning curve (6 runs, 16 evaluations from 25% of the training on), and is an approximation"
    )
    assert len(lines) == 3
