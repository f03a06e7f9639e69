"""What was known beforehand is told, and nobody is accused of it who did nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptzoo.ablation.hindsight import own_rates
from gptzoo.ablation.plan import read_plan
from gptzoo.ablation.study import Arm

RATE = "train.learning_rate"


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
