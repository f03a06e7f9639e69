"""Studies that are run look by look: what runs when, and that nothing else changes."""

from __future__ import annotations

import shutil

import pytest

from gptzoo.ablation.findings import find
from gptzoo.ablation.ledger import read_cell, read_ledger
from tests.ablation.studies import Place, kill, wait_until

ARMS = {"learned": {}, "faster": {"train.learning_rate": 1.2e-2}, "still": {"train.learning_rate": 1e-6}}
"""At so small an alpha one that is better needs all seeds, and one that learns nothing is found out at once."""

LOOKS: dict = {"looks": [3, 4], "seeds": 4, "alpha": 1e-4}


@pytest.fixture(scope="module")
def looked(place: Place) -> Place:
    """A study of three arms, run look by look by one worker and never stopped, as `looked` in `stages`."""
    assert place.run(place.plan(ARMS, name="looked", **LOOKS), "stages").failed == {}
    return place


def seeds_of(place: Place, runs: str, name: str) -> dict[str, list[int]]:
    cells = place.outcome(runs, name).cells
    return {arm: sorted(c.seed for c in cells if c.arm == arm) for arm in dict.fromkeys(c.arm for c in cells)}


def test_an_arm_that_the_first_look_stopped_is_run_no_further(looked: Place) -> None:
    seeds = seeds_of(looked, "stages", "looked")
    assert seeds["still"] == [0, 1, 2]
    assert seeds["learned"] == [0, 1, 2, 3]
    assert seeds["a/a"] == [10000, 10001, 10002, 10003]
    folders = {path.name for path in looked.study("stages", "looked").glob("cells/*")}
    assert folders == {f"{arm.replace('/', '-')}-{seed}" for arm, own in seeds.items() for seed in own}
    outcome = looked.outcome("stages", "looked")
    assert {cell.status for cell in outcome.cells} == {"done"}  # what no look asked for is not missing
    assert outcome.notes == ()


def test_the_verdicts_are_those_of_the_study_with_all_seeds_run(looked: Place) -> None:
    shutil.copytree(looked.study("stages", "looked"), looked.study("whole", "looked"))
    done = looked.run(looked.plan(ARMS, name="looked", seeds=4, alpha=1e-4), "whole")
    assert (done.kept, done.ran) == (len(looked.ended("stages", "looked")), 16 - done.kept)
    ledger = read_ledger(looked.study("whole", "looked"))
    assert ledger is not None
    assert ledger.exploratory == ("looks: [3, 4] -> null",)
    looked.run(looked.plan(ARMS, name="looked", **LOOKS), "whole")
    some, whole = (find(looked.outcome(runs, "looked")).analysis for runs in ("stages", "whole"))
    assert some is not None
    assert whole is not None
    assert some.arms == whole.arms
    assert some.looks == whole.looks
    assert next(arm.stopped for arm in some.arms if arm.arm == "still") == 3


def test_a_study_killed_between_two_stages_ends_alike(looked: Place) -> None:
    plan = looked.plan(ARMS, name="looked", **LOOKS)
    process = looked.start(plan, "shot")
    wait_until(lambda: len(looked.ended("shot", "looked")) >= 12, seconds=120)
    kill(process.pid)
    process.communicate()
    before = {path: path.read_bytes() for path in looked.ended("shot", "looked")}
    done = looked.run(plan, "shot")
    assert done.kept == len(before)
    assert {path: path.read_bytes() for path in before} == before
    assert looked.outcome("shot", "looked") == looked.outcome("stages", "looked")


def test_a_cell_that_fails_holds_the_look_until_it_has_ended(looked: Place) -> None:
    arms = {**ARMS, "broken": {"train.schedule.fail_at": 3}}
    shutil.copytree(looked.study("stages", "looked"), looked.study("held", "looked"))
    plan = looked.plan(arms, name="looked", **LOOKS)
    out, _ = (process := looked.start(plan, "held")).communicate(timeout=120)
    assert process.returncode == 1
    lines = out.splitlines()
    assert "  no look is taken before all of its cells have ended: run again to try these again" in lines
    assert sum(line.startswith("  cells/broken-") for line in lines) == 3
    assert seeds_of(looked, "held", "looked")["broken"] == [0, 1, 2]
    assert sorted(looked.run(plan, "held").failed) == ["broken-0", "broken-1", "broken-2"]


def test_an_arm_that_is_added_later_starts_at_its_first_look(looked: Place) -> None:
    arms = {**ARMS, "still too": {"train.learning_rate": 1e-7}}
    shutil.copytree(looked.study("stages", "looked"), looked.study("added", "looked"))
    before = {path.parent.name for path in looked.ended("added", "looked")}
    done = looked.run(looked.plan(arms, name="looked", **LOOKS), "added")
    assert (done.ran, done.kept) == (3, len(before))
    assert seeds_of(looked, "added", "looked")["still too"] == [0, 1, 2]
    assert looked.outcome("added", "looked").exploratory == ""
    record = read_cell(looked.study("added", "looked") / "cells" / "still-too-2")
    assert record is not None
    assert record.status == "done"
