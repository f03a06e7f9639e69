"""What a study will cost and see, before it runs."""

from __future__ import annotations

import pytest

from gptzoo.ablation import power
from gptzoo.ablation.calibration import Shape, printed_power
from gptzoo.ablation.forecast import _speed_key, as_text, forecast
from gptzoo.ablation.plan import read_plan
from gptzoo.ablation.planning import plan_cells
from tests.ablation.studies import TWO_ARMS, Place


def test_a_plan_is_timed_by_a_few_real_steps_and_nothing_is_written(place: Place) -> None:
    study = plan_cells(read_plan(place.plan({**TWO_ARMS}, name="new", seconds=0.05)), plugins=[place.plugin])
    (made,) = forecast(study, runs=place.folder / "nowhere", workers=2, plugins=[place.plugin])
    assert not (place.folder / "nowhere").exists()
    assert (made.cells, made.to_run, made.workers, made.tokens) == (6, 6, 2, 6 * 384)
    for arm in made.arms:
        assert arm.step_seconds is not None
        assert arm.step_seconds > 0.05
    assert made.seconds is not None
    assert made.seconds > 3 * 6 * 0.05
    assert made.sigma is None
    noise = power.Noise.blocked(1.0, 2)
    assert made.mde_in_sds == pytest.approx(power.minimum_detectable_effect(noise, 2, 0.05, 1))
    assert as_text(made).splitlines()[0] == "new: 6 cells, 6 of them to run, matched by tokens"


def test_cells_that_have_ended_cost_nothing_and_tell_the_noise(serial: Place) -> None:
    plan = read_plan(serial.plan(TWO_ARMS, seconds=0.03, seeds=3, delta=0.02))
    study = plan_cells(plan, plugins=[serial.plugin])
    (made,) = forecast(study, runs=serial.folder / "runs", workers=1, probe=False, plugins=[serial.plugin])
    assert (made.cells, made.to_run) == (9, 3)
    assert [arm.to_run for arm in made.arms] == [1, 1, 1]
    assert made.sigma is not None
    noise = power.Noise.blocked(made.sigma, 2)
    assert made.power == pytest.approx(power.power(0.02, noise, 3))
    assert made.equivalence == pytest.approx(power.equivalence_power(0.0, 0.02, noise, 3), abs=0.03)
    step = made.arms[0].step_seconds
    assert step is not None
    assert made.arms[0].cell_seconds == pytest.approx(step * (6 + 4 * 4 / 4 / 3))


def test_one_seed_sees_nothing(serial: Place) -> None:
    study = plan_cells(read_plan(serial.plan(TWO_ARMS, seconds=0.03, seeds=1)), plugins=[serial.plugin])
    (made,) = forecast(study, runs=serial.folder / "runs", workers=1, probe=False)
    assert as_text(made).splitlines()[-1] == ("sees   nothing: one seed says nothing about the noise. Write seeds: 3.")


def test_looks_are_printed_with_what_they_spend_and_save(serial: Place) -> None:
    plan = read_plan(serial.plan(TWO_ARMS, seconds=0.03, looks=[3, 5, 8, 12], seeds=12))
    study = plan_cells(plan, plugins=[serial.plugin])
    (made,) = forecast(study, runs=serial.folder / "runs", workers=1, probe=False)
    spent, cells, seeds = made.looks
    assert spent == "looks  at 3, 5, 8, 12 seeds, spending 8.9e-05, 0.0023, 0.014, 0.034 of alpha"
    without, two = (printed_power(effect, Shape(2, 12, 0.05, (3, 5, 8, 12))) for effect in (0.0, 2.0))
    some = f"on average {3 * without.seeds:.0f} if no arm has an effect, {3 * two.seeds:.0f} if one differs by 2 SDs"
    assert cells == f"cells  9 up to the first look, 36 at most; {some}"
    settled = f"settled at {without.seeds:.1f} on average, one that differs by 2 SDs at {two.seeds:.1f}"
    assert seeds == f"seeds  an arm without an effect is {settled}"
    assert (made.cells, made.to_run, made.most.cells, made.most.to_run) == (9, 3, 36, 30)
    said = "tiny: 9 cells up to the look at 3 seeds, 36 at most, 3 of them to run, matched by tokens"
    assert as_text(made).splitlines()[0] == said
    noise = power.Noise.blocked(1.0, 2)
    last = power.minimum_detectable_effect(noise, 12, 0.0336, 1)
    assert made.mde_in_sds == pytest.approx(last, rel=1e-3)


def test_tuning_is_in_the_cost_and_has_a_line_of_its_own(serial: Place) -> None:
    plan = read_plan(serial.plan(TWO_ARMS, name="fresh", seconds=0.03, seeds=3, tune={"points": 7, "share": 0.5}))
    (made,) = forecast(plan_cells(plan, plugins=[serial.plugin]), runs=serial.folder, workers=2, probe=False)
    assert (made.cells, made.to_run, made.tokens) == (2 * 10 + 9, 2 * 10 + 9, 20 * 192 + 9 * 384)
    assert made.tuning is not None
    assert (made.tuning.runs, made.tuning.cells, made.tuning.to_run, made.tuning.tokens) == (10, 20, 20, 20 * 192)
    assert [arm.to_run for arm in made.arms] == [13, 13, 3]
    assert as_text(made).splitlines()[6] == (
        "tuning 10 runs of 50% of the steps for each arm (3,840 tokens): 7 learning rates, 3 of them on a second seed; "
        "2 or 4 runs more if a best rate lies at the edge"
    )


def test_what_is_known_of_a_step_holds_for_short_runs_and_other_rates(serial: Place) -> None:
    arms, tune = TWO_ARMS, {"points": 3, "factor": 10}
    study = plan_cells(read_plan(serial.plan(arms, name="fresh", seconds=0.03, tune=tune)), plugins=[serial.plugin])
    slow = {_speed_key(cell) for cell in (*study.sets[0].before, *study.sets[0].expected)}
    assert len(slow) == len(arms)


def test_steps_that_are_solved_are_shown(place: Place) -> None:
    arms = {"learned": {}, "double": {"train.batch_size": 8}}
    study = plan_cells(read_plan(place.plan(arms, name="even", match="flops", seeds=1)), plugins=[place.plugin])
    (made,) = forecast(study, runs=place.folder / "nowhere", workers=1, probe=False)
    assert [arm.steps for arm in made.arms] == [6, 3, 6]
    assert made.arms[0].flops == made.arms[1].flops
    assert as_text(made).splitlines()[3].endswith("3 steps, as many FLOPs as the baseline's 6.")


def test_timing_is_part_of_the_cost_and_steps_are_guessed_until_then(place: Place) -> None:
    """A probe sees an arm that is five times as slow."""
    arms = {"learned": {}, "slower": {"train.schedule.seconds": 0.25}}
    plan = read_plan(place.plan(arms, name="race", match="wall", seeds=1, aa=False, seconds=0.05))
    study = plan_cells(plan, plugins=[place.plugin])
    (made,) = forecast(study, runs=place.folder / "nowhere", workers=2, plugins=[place.plugin])
    assert (made.cells, made.to_run) == (7 + 2, 7 + 2)
    assert made.timing == "timing 7 runs of 30 steps, one at a time, 7 of them to run, before all others"
    assert [arm.steps for arm in made.arms] in ([6, 1], [6, 2])
    assert [arm.said for arm in made.arms] == ["", "steps are a guess until it is timed."]
    assert made.seconds is not None
    assert made.seconds > 4 * 30 * 0.05 + 3 * 30 * 0.25  # on one worker of the two
