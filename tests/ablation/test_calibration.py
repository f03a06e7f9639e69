"""The promises of the analysis, on simulated studies. The full table is `calibrate()`; here is a share of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from gptzoo.ablation import power
from gptzoo.ablation.blocked import compare
from gptzoo.ablation.calibration import Calibration, Shape, calibrate, printed_power, simulate
from gptzoo.ablation.trials import put_to_trial
from gptzoo.errors import GPTZooError


@pytest.fixture(scope="module")
def normal() -> Calibration:
    return calibrate(noise=("normal",), icc=(0.0, 0.6))


def test_family_error_and_coverage_are_as_promised_under_normal_noise(normal):
    for row in normal.rows:
        assert 0.03 <= row.family_error <= 0.055, row
        assert 0.93 <= row.coverage <= 0.97, row


def test_the_printed_power_is_the_simulated_one(normal):
    for row in normal.rows:
        assert row.power == pytest.approx(row.predicted, abs=0.05), row


def test_a_test_that_forgot_holm_would_be_caught():
    values, mask = simulate(8, 5, 0.3, "normal", 4000, np.random.default_rng(0))
    assert (compare(values, mask).p < 0.05).any(1).mean() > 0.15


def test_intervals_that_forgot_the_block_would_be_caught():
    values, _ = simulate(4, 5, 0.6, "normal", 4000, np.random.default_rng(0))
    naive = np.sqrt(2 * values.var(2, ddof=1).mean(1) / 5)[:, None]
    covered = np.abs((values[:, 1:] - values[:, :1]).mean(2)) <= student.isf(0.025, 16) * naive
    assert covered.mean() > 0.97


@pytest.mark.parametrize("noise", ["t5", "skewed"])
def test_heavy_and_skewed_tails_do_not_raise_the_family_error(noise):
    rows = calibrate(arms=(4, 8), seeds=(3, 5), icc=(0.3,), noise=(noise,), studies=4000).rows
    assert max(row.family_error for row in rows) < 0.065
    assert min(row.coverage for row in rows) > 0.93


def test_the_guard_mends_what_an_unstable_arm_breaks():
    bare, guarded = (
        calibrate(arms=(8,), seeds=(5,), icc=(0.0,), noise=("unstable arm",), studies=4000, guard=guard).rows[0]
        for guard in (False, True)
    )
    assert bare.family_error > 0.15
    assert guarded.family_error < 0.065
    assert guarded.guarded > 0.9


def test_false_equivalence_is_as_rare_as_promised():
    values, mask = simulate(4, 5, 0.3, "normal", 10_000, np.random.default_rng(0))
    values[:, 1:] += 6.0
    assert (compare(values, mask).equivalence(6.0) < 0.05).any(1).mean() < 0.055


def test_the_same_seed_gives_the_same_table():
    one, two = (calibrate(arms=(2,), seeds=(3,), icc=(0.0,), studies=200) for _ in range(2))
    assert one == two


def test_the_table_has_a_line_for_each_row_and_each_noise():
    calibration = calibrate(arms=(2,), seeds=(3,), icc=(0.0, 0.5), noise=("t5",), studies=100)
    lines = calibration.text.splitlines()
    assert len(lines) == 2 + 2 + 1
    assert lines[0] == "100 simulated studies per row; alpha 0.05; power at 2 SD of the noise"
    assert lines[-1].startswith("t5, all rows: family error ")


def test_with_looks_the_promises_are_kept_over_all_looks_together():
    rows = calibrate(arms=(2, 4), icc=(0.3,), noise=("normal",), looks=(3, 5, 8), studies=4000).rows
    for row in rows:
        assert 0.025 <= row.family_error <= 0.055, row
        assert row.coverage >= 0.945, row
        assert row.used < 7, row
        assert row.power == pytest.approx(row.predicted, abs=0.05), row


def test_the_power_of_a_plan_with_looks_is_put_to_trial():
    made = put_to_trial(Shape(4, 8, looks=(3, 5, 8), delta=2.0), title="x", effects=(1.0, 2.0), studies=2000)
    assert [each.question for each in made.trials] == [
        "one arm differs by 1 SDs",
        "one arm differs by 2 SDs",
        "one arm differs by delta, 2 SDs",
        "all are equal: one is called so",
    ]
    assert made.passed
    assert made.text.splitlines()[-1] == f"largest gap {100 * made.largest:.1f} points, within 5"


def test_a_power_that_forgot_the_looks_would_be_caught():
    shape = Shape(4, 8, looks=(3, 5, 8))
    noise = power.Noise.blocked(1.0, 4)
    once = power.power(1.5, noise, 3, 0.05, 3)
    assert abs(printed_power(1.5, shape).found - once) > 0.2


def test_noise_may_be_resampled_from_runs():
    runs = np.random.default_rng(0).normal(2.4, 0.016, 12).tolist()
    rows = calibrate(arms=(4,), seeds=(5,), icc=(0.0,), noise=(), studies=4000, runs=runs).rows
    assert [row.noise for row in rows] == ["resampled runs"]
    assert rows[0].family_error < 0.065
    with pytest.raises(GPTZooError) as caught:
        calibrate(noise=(), runs=[1.0, 2.0])
    assert str(caught.value) == "2 runs of one recipe are too few to draw from. Five that differ are needed."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"noise": ("cauchy",)},
            "noise: no noise is called 'cauchy'. Known: normal, t5, skewed, unstable arm, unstable baseline.",
        ),
        ({"looks": (3,)}, "looks: looks are two or more numbers of seeds that increase. Write [3,5,8,12]."),
        ({"looks": (2, 3)}, "looks: the first look needs 3 seeds or more: two do not show the noise."),
        ({"arms": (1,)}, "arms, seeds: a study needs two arms and two seeds or more."),
        ({"icc": (1.0,)}, "icc: an ICC is a share of the variance: 0 or more, below 1."),
        ({"studies": 0}, "studies, alpha: simulate one study or more, at an alpha between 0 and 1."),
    ],
)
def test_what_cannot_be_simulated_is_refused(options, message):
    with pytest.raises(GPTZooError) as caught:
        calibrate(**options)
    assert str(caught.value) == message
