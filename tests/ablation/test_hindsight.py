"""What was known beforehand is told, and nobody is accused of it who did nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptzoo.ablation.cells import PlannedStudy
from gptzoo.ablation.execution import freeze, in_hindsight
from gptzoo.ablation.hindsight import own_rates
from gptzoo.ablation.past import Past
from gptzoo.ablation.plan import read_plan
from gptzoo.ablation.planning import plan_cells
from gptzoo.ablation.study import Arm
from tests.ablation.studies import TWO_ARMS, Place

ROPE = {**TWO_ARMS, "rope": {"model.position": "rope"}}
RATE = "train.learning_rate"


def planned(place: Place, study: Path, arms: dict, seeds: int) -> PlannedStudy:
    plan = read_plan(place.plan(arms, name=study.name, seeds=seeds))
    return plan_cells(plan, past=Past(study, plan.metric), plugins=[place.plugin])


def test_an_arm_that_is_begun_in_between_hides_no_second_look(place: Place) -> None:
    place.run(place.plan(TWO_ARMS, name="peeked"))
    study = place.study(name="peeked")
    freeze(study, planned(place, study, ROPE, 2))
    assert in_hindsight(study, planned(place, study, ROPE, 2)) == []
    (said,) = in_hindsight(study, planned(place, study, ROPE, 4))
    assert said.startswith("seeds: 2 -> 4, added when the verdicts on 2 were there to be read")
    assert said.endswith("(looks in a plan keep their error rate)")


def test_seeds_that_are_added_before_there_is_a_verdict_are_no_second_look(place: Place) -> None:
    place.run(place.plan(TWO_ARMS, name="early", seeds=1))
    study = place.study(name="early")
    for arms in (TWO_ARMS, ROPE):
        freeze(study, planned(place, study, arms, 2))
    assert in_hindsight(study, planned(place, study, ROPE, 4)) == []


def told(folder: Path, changes: dict[str, object], differs: dict[str, tuple[object, object]]) -> list[str]:
    path = folder / "plan.yaml"
    path.write_text(json.dumps({"base": "gpt2-tiny", "arms": {"learned": {}, "rope": changes}}))
    return list(own_rates(read_plan(path), {"rope": Arm("rope", changes, differs)}))


@pytest.mark.parametrize("rate", [{RATE: 0.03}, {"train": {"learning_rate": 0.03}}], ids=["dotted", "nested"])
def test_a_rate_of_its_own_beside_another_change_is_told_however_it_is_written(tmp_path: Path, rate: dict) -> None:
    differs = {RATE: (0.01, 0.03), "model.position": ("learned", "rope")}
    (said,) = told(tmp_path, {"model.position": {"name": "rope", "base": 5.0}, **rate}, differs)
    assert said.startswith("rope brings a train.learning_rate of its own (0.01 -> 0.03) beside model.position, ")


def test_an_arm_that_is_about_the_rate_may_have_the_steps_that_matching_gives_it(tmp_path: Path) -> None:
    assert told(tmp_path, {RATE: 0.03}, {RATE: (0.01, 0.03), "train.steps": (400, 399)}) == []


def test_the_baselines_own_rate_written_out_is_no_difference(tmp_path: Path) -> None:
    assert told(tmp_path, {"model.position": "rope", RATE: 0.01}, {"model.position": ("learned", "rope")}) == []
