"""Runs that are far behind are killed at a rung: the limits, how rarely a good arm is hit, and tiny studies."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gptzoo.ablation.collecting import curve
from gptzoo.ablation.ledger import read_cell
from gptzoo.ablation.replay import replay
from gptzoo.ablation.stopping import FALSE_KILLS, MARGINS, at_share, is_beyond, limits, reach, rung_step
from gptzoo.ablation.worker import Job
from gptzoo.errors import GPTZooError
from tests.ablation.studies import Place, kill, wait_until

RUNGS = tuple(MARGINS)


def test_a_rung_is_the_first_evaluation_at_or_after_its_share() -> None:
    assert [rung_step(rung, 200, 10) for rung in RUNGS] == [50, 100, 150]
    assert [rung_step(rung, 200, 60) for rung in RUNGS] == [60, 120, 180]
    assert [rung_step(rung, 6, 2) for rung in RUNGS] == [2, 4, None]  # after 75% only the end is evaluated
    assert [rung_step(rung, 200, 0) for rung in RUNGS] == [None] * 3


def test_a_limit_is_the_baseline_of_the_seed_and_the_noise_and_the_margin() -> None:
    finals = [3.0, 3.1, 2.9, 3.05, 2.95, 3.2, 3.15, 2.85, 3.0, 3.1, 2.9, 3.02]
    controls = [[(0.0, 5.0), (0.25, y + 1), (0.5, y + 0.5), (0.75, y + 0.2), (1.0, y)] for y in finals]
    made = limits(RUNGS, 200, 50, controls[1], controls, higher_is_better=False)
    s, t = statistics.stdev(finals), stats.t.ppf(0.975, 11)
    assert made[50] == pytest.approx(3.1 + 1 + t * math.sqrt(2 * s**2) + 5 * s)
    rare = stats.t.ppf(1 - FALSE_KILLS / 3, 11) * math.sqrt(2) * s
    assert made[100] == pytest.approx(3.1 + 0.5 + max(t * math.sqrt(2) * s + 3 * s, rare))
    assert made[150] == pytest.approx(3.1 + 0.2 + max(t * math.sqrt(2) * s + 2 * s, rare))
    mirrored = [[(share, -y) for share, y in each] for each in controls]
    assert limits(RUNGS, 200, 50, mirrored[1], mirrored, higher_is_better=True) == pytest.approx(
        {step: -limit for step, limit in made.items()}
    )
    assert not is_beyond(-made[50], -made[50], higher_is_better=True)
    assert is_beyond(-made[50] - 1e-9, -made[50], higher_is_better=True)
    assert not is_beyond(math.nan, 1.0, higher_is_better=False)


def test_an_arm_of_another_length_is_compared_at_the_same_share_of_its_training() -> None:
    controls = [[(0.0, 5.0 + e), (0.25, 4.0 + e), (0.5, 3.0 + e), (1.0, 2.0 + e)] for e in (0.0, 0.1, 0.2, 0.3)]
    (step, limit), *_ = limits((0.25,), 300, 100, controls[0], controls, higher_is_better=False).items()
    assert step == 100
    spread = statistics.stdev((0.0, 0.1, 0.2, 0.3))
    assert limit == pytest.approx(4.0 - (1 / 3 - 0.25) * 4 + reach(0.25, 4) * spread)
    assert at_share([(0.25, 4.0)], 0.2) is None


def test_where_no_noise_is_known_nothing_is_killed() -> None:
    flat = [[(0.0, 0.0), (0.5, 0.0), (1.0, 0.5)]] * 4
    assert limits((0.5,), 10, 5, flat[0], flat, higher_is_better=True) == {}
    assert limits((0.5,), 10, 5, [], flat, higher_is_better=True) == {}
    assert limits((0.5,), 10, 5, flat[0], flat[:1], higher_is_better=True) == {}


def killed_share(seeds: int, behind: tuple[float, float, float], noise: str, studies: int = 40_000) -> float:
    """Share of the runs of an arm that are killed at some rung; it is behind by so many SDs at each of them.

    The noise of a run grows into the one at its end: neighbouring rungs correlate by 0.8.
    """
    generator = np.random.default_rng(0)
    shape = (3, studies, 2 * seeds + 1)
    draws = generator.standard_normal(shape) if noise == "normal" else generator.standard_exponential(shape) - 1
    for rung in (1, 2):
        draws[rung] = 0.8 * draws[rung - 1] + 0.6 * draws[rung]
    controls, own = draws[:, :, 1:], draws[:, :, 0] + np.array(behind)[:, None]
    spread = controls.std(2, ddof=1)
    distance = np.array([reach(rung, 2 * seeds) for rung in RUNGS])[:, None]
    return float((own - controls[:, :, 0] > distance * spread).any(0).mean())


@pytest.mark.parametrize("seeds", [1, 3, 5, 8, 12])
def test_an_arm_without_an_effect_is_hardly_ever_killed(seeds: int) -> None:
    assert killed_share(seeds, (0.0, 0.0, 0.0), "normal") < 1e-3
    assert killed_share(seeds, (0.0, 0.0, 0.0), "skewed") < 1e-2  # an exponential, its tail on the side of the kills


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_an_arm_that_starts_late_and_ends_better_is_hardly_ever_killed(seeds: int) -> None:
    assert killed_share(seeds, (1.0, 0.0, -1.0), "normal") < 1e-3


def test_the_margins_alone_would_kill_too_many_where_runs_are_few() -> None:
    """Why there is a floor: at 3 seeds the noise of an SD over six runs is larger than a margin of 2."""
    distance = stats.t.ppf(0.975, 5) * math.sqrt(2) + MARGINS[0.75]
    assert distance < reach(0.75, 6)
    assert stats.t.sf(distance / math.sqrt(2), 5) > 4 * FALSE_KILLS


def test_a_hopeless_arm_is_killed_at_the_first_rung() -> None:
    assert killed_share(3, (30.0, 30.0, 30.0), "normal") > 0.99


def test_limits_cross_a_line_of_json() -> None:
    job = Job("f", "id", {"seed": 0}, ["p"], [], {50: 2.5, 100: 2.25}, "bits_per_byte")
    assert Job.from_json(job.to_json()) == job
    assert list(json.loads(job.to_json())["limits"]) == ["50", "100"]


# -- studies ---------------------------------------------------------------------------------------------------------

ARMS = {"learned": {}, "still": {"train.learning_rate": 1e-6}, "rope": {"model.position": "rope"}}
PLAN: dict = {"seeds": 2, "rungs": [0.25, 0.5]}


@pytest.fixture(scope="module")
def killed(place: Place) -> Place:
    """A study of which one arm learns nothing, run by one worker, as `rungs` in `killed`."""
    done = place.run(place.plan(ARMS, name="rungs", **PLAN), "killed")
    assert (done.ran, done.killed, dict(done.failed)) == (8, 2, {})
    assert done.saved == pytest.approx(2 / 8 * 2 / 3, abs=0.01)
    return place


def cell_of(place: Place, runs: str, name: str) -> Path:
    return place.study(runs, "rungs") / "cells" / name


def test_a_killed_cell_says_when_and_why(killed: Place) -> None:
    outcome = killed.outcome("killed", "rungs")
    assert outcome.rungs == (0.25, 0.5)
    assert outcome.mismatches == ()
    statuses = {(cell.arm, cell.seed): cell.status for cell in outcome.cells}
    lost = [key for key, status in statuses.items() if status == "killed"]
    assert lost == [("still", 0), ("still", 1)]
    assert set(statuses.values()) == {"done", "killed"}
    cell = next(cell for cell in outcome.cells if cell.arm == "still")
    assert cell.value is None
    assert [point.step for point in cell.curve] == [0, 2]
    assert cell.tokens == 2 * 64
    value, limit = cell.curve[-1].value, float(cell.reason.rsplit(" ", 1)[1])
    assert cell.reason == f"killed after 2 of 6 steps: val_loss {value:.4f}, the limit was {limit:.4f}"
    assert value > limit


def test_the_limit_is_that_of_the_files(killed: Place) -> None:
    folder = killed.study("killed", "rungs") / "cells"
    names = ("learned-0", "learned-1", "a-a-10000", "a-a-10001")
    at = [next(p.value for p in curve(folder / name, "val_loss") if p.step == 2) for name in names]
    s = statistics.stdev(at)
    record = read_cell(folder / "still-1")
    assert record is not None
    assert record.reason.endswith(f"the limit was {at[1] + reach(0.25, 4) * s:.4f}")


def test_a_study_with_kills_runs_nothing_again(killed: Place) -> None:
    before = {path: path.read_bytes() for path in killed.study("killed", "rungs").glob("cells/*/cell.json")}
    done = killed.run(killed.plan(ARMS, name="rungs", **PLAN), "killed")
    assert (done.ran, done.kept, done.killed) == (0, 8, 2)
    assert {path: path.read_bytes() for path in before} == before


def test_a_killed_cell_is_no_result_for_another_study(killed: Place) -> None:
    shutil.copytree(killed.study("killed", "rungs"), killed.study("others", "rungs"))
    done = killed.run(killed.plan(ARMS, name="again", **PLAN), "others")
    assert (done.ran, done.copied, done.killed) == (2, 6, 2)


def test_a_killed_cell_goes_on_to_its_end_where_the_plan_drops_its_rung(killed: Place) -> None:
    shutil.copytree(killed.study("killed", "rungs"), killed.study("dropped", "rungs"))
    done = killed.run(killed.plan(ARMS, name="rungs", seeds=2, rungs=[0.5]), "dropped")
    assert (done.ran, done.kept, done.killed) == (2, 6, 2)  # it got over the first rung, and not over the second
    done = killed.run(killed.plan(ARMS, name="rungs", seeds=2), "dropped")
    assert (done.ran, done.kept, done.killed) == (2, 6, 0)
    outcome = killed.outcome("dropped", "rungs")
    assert outcome.exploratory.startswith("rungs: [0.25, 0.5] -> [0.5]; rungs: [0.5] -> null")
    assert outcome.mismatches == ()
    killed.run(killed.plan(ARMS, name="rungs", seeds=2), "never")
    assert outcome.cells == killed.outcome("never", "rungs").cells


def test_a_study_with_rungs_that_is_killed_ends_alike(killed: Place) -> None:
    plan = killed.plan(ARMS, name="rungs", **PLAN)
    process = killed.start(plan, "shot")
    wait_until(lambda: len(killed.ended("shot", "rungs")) >= 4, seconds=120)
    kill(process.pid)
    process.communicate()
    killed.run(plan, "shot")
    assert killed.outcome("shot", "rungs") == killed.outcome("killed", "rungs")


def test_a_killed_cell_cannot_be_replayed(killed: Place) -> None:
    path = cell_of(killed, "killed", "still-0")
    with pytest.raises(GPTZooError) as caught:
        replay(str(path))
    record = read_cell(path)
    assert record is not None
    what = f"the cell was {record.reason}. It has no result to compare with; replay one that ended."
    assert str(caught.value) == f"{path}: {what}"


def test_rungs_that_no_evaluation_sees_are_refused(killed: Place) -> None:
    with pytest.raises(GPTZooError) as caught:
        killed.run(killed.plan(ARMS, name="blind", seeds=2, rungs=True), "blind")
    what = "learned trains for 6 steps and is evaluated every 2: never between 75% of them and the end."
    remedy = "Write train: {eval_every: 1} in the base, or fewer rungs."
    assert str(caught.value) == f"{killed.folder / 'blind.yaml'}: rungs: {what} {remedy}"
    assert not killed.study("blind", "blind").exists()
