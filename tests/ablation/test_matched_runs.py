"""Studies whose arms spend the same FLOPs or the same time, run for real."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gptzoo.ablation import matching, timing
from gptzoo.ablation.collecting import collect
from gptzoo.ablation.execution import default_workers
from gptzoo.ablation.ledger import read_cell, read_ledger, seals, write_cell
from gptzoo.ablation.plan import read_plan
from gptzoo.ablation.planning import plan_cells
from gptzoo.runs import Records
from tests.ablation.studies import Place


def steps_of(study: Path) -> dict[str, int]:
    """Of each cell that was run, by folder."""
    metrics = sorted(study.glob("cells/*/metrics.jsonl"))
    return {path.parent.name: max(int(str(record["step"])) for record in Records.read(path)) for path in metrics}


def evaluated_at(study: Path, cell: str) -> list[int]:
    records = Records.read(study / "cells" / cell / "metrics.jsonl")
    return [int(str(record["step"])) for record in records if "val_loss" in record]


# -- FLOPs -----------------------------------------------------------------------------------------------------------

BATCHES = {"learned": {}, "double": {"train.batch_size": 8}, "none": {"model.position": "none"}}


def test_arms_of_equal_flops_are_run_evaluated_and_reported(place: Place) -> None:
    """Twice the batch costs twice as much; no positions cost the same, so these runs are those of the tokens' set."""
    done = place.run(place.plan(BATCHES, name="flops", seeds=1, aa=False, match=["tokens", "flops"]))
    assert (done.ran, done.kept, dict(done.failed)) == (4, 0, {})
    study = place.study(name="flops")
    assert steps_of(study) == {"learned-0": 6, "double-0": 6, "none-0": 6, "double.flops-0": 3}
    assert evaluated_at(study, "learned-0") == [0, 2, 4, 6]
    assert evaluated_at(study, "double.flops-0") == [0, 1, 2, 3]
    made = collect(study, "flops")
    assert made.mismatches == ()
    assert len({cell.flops for cell in made.cells}) == 1
    assert made.notes == ("double: 3 steps, as many FLOPs as the baseline's 6.",)
    assert collect(study, "tokens").mismatches[0] == "double: trained on 768 tokens, the baseline on 384"
    again = place.run(place.plan(BATCHES, name="flops", seeds=1, aa=False, match=["tokens", "flops"]))
    assert (again.ran, again.kept) == (0, 4)


# -- seconds ---------------------------------------------------------------------------------------------------------

STEP = 0.06
SLOWER: dict = {"learned": {}, "slower": {"train.schedule.seconds": 2 * STEP}}
LATER = {**SLOWER, "later": {"train.schedule.seconds": 2 * STEP, "model.position": "none"}}


@pytest.fixture(scope="module")
def walled(place: Place) -> Iterator[Place]:
    """A study matched by time, whose second arm takes twice as long for a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "STEPS", 4)
        patch.setattr(timing, "WARM_UP", 1)
        patch.setattr(matching, "WALL_APART", 0.2)  # of six steps some round far
        assert place.run(plan(place, SLOWER)).ran == 3 + 4 + 2
        yield place


def plan(place: Place, arms: dict) -> Path:
    return place.plan(arms, name="wall", seeds=1, aa=False, match="wall", seconds=STEP)


def retimed(study: Path, **seconds: float) -> None:
    """Have all runs of an arm taken so long a step; the journal of the study notices, and says so apart."""
    for arm, each in seconds.items():
        for path in study.glob(f"cells/*{arm}-*/timings.jsonl"):
            last = steps_of(study)[path.parent.name]
            path.write_text("".join(f'{{"seconds":{each},"step":{step}}}\n' for step in range(1, last + 1)))
            record = read_cell(path.parent)
            assert record is not None
            write_cell(path.parent, replace(record, sealed=seals(path.parent)))


def test_an_arm_that_is_twice_as_slow_has_half_the_steps(walled: Place) -> None:
    study = walled.study(name="wall")
    steps = steps_of(study)
    assert steps["learned-0"] == 6
    assert steps["slower-0"] in (3, 4)  # 4 if the machine is so busy that a step takes 0.03 s besides
    ledger = read_ledger(study)
    assert ledger is not None
    before = ledger.sets[0]["before"]
    assert isinstance(before, list)
    assert [(cell["arm"], cell["purpose"]) for cell in before] == [
        *[("learned", "timing"), ("slower", "timing")] * 3,
        ("learned", "timing"),
    ]
    assert [cell.arm for cell in collect(study).cells] == ["learned", "slower"]


def test_what_was_timed_stays_and_a_study_goes_on_with_it(walled: Place) -> None:
    steps = steps_of(walled.study(name="wall"))
    done = walled.run(plan(walled, SLOWER))
    assert (done.ran, done.kept) == (0, 9)
    shutil.copytree(walled.study(name="wall"), walled.study("stopped", "wall"))
    for name in ("slower-0", "time-learned-30003"):  # stopped in the last window
        shutil.rmtree(walled.study("stopped", "wall") / "cells" / name)
    done = walled.run(plan(walled, SLOWER), "stopped")
    assert (done.ran, done.kept) == (2, 7)
    assert steps_of(walled.study("stopped", "wall")).keys() == steps.keys()


def test_another_arm_is_timed_beside_fresh_runs_of_the_baseline(walled: Place) -> None:
    study = walled.study("later", "wall")
    shutil.copytree(walled.study(name="wall"), study)
    done = walled.run(plan(walled, LATER), "later")
    assert (done.ran, done.kept) == (3 + 4 + 1, 9)
    steps = steps_of(study)
    assert steps["later-0"] in (3, 4)
    assert {name: n for name, n in steps.items() if name in ("learned-0", "slower-0")} == {
        name: n for name, n in steps_of(walled.study(name="wall")).items() if not name.startswith("time")
    }
    assert collect(study).exploratory == ""


def test_runs_that_took_longer_than_they_were_to_block_the_verdicts(walled: Place, tmp_path: Path) -> None:
    study = Path(shutil.copytree(walled.study(name="wall"), tmp_path / "wall"))
    for step, said in (
        (0.109, []),
        (0.112, ["slower: trained for 0.672 s, the baseline for 0.6 s: +12%, and 10% is allowed"]),
    ):
        retimed(study, learned=0.1, slower=step * 6 / steps_of(study)["slower-0"])
        assert [line for line in collect(study).mismatches if line.startswith("slower: ")] == said


def test_a_plan_without_a_study_shows_what_is_likely(walled: Place) -> None:
    made = plan_cells(read_plan(plan(walled, SLOWER)), plugins=[walled.plugin]).sets[0]
    assert (len(made.before), len(made.cells), len(made.expected)) == (7, 0, 2)


def test_runs_whose_time_counts_have_the_machine_for_themselves(walled: Place) -> None:
    assert default_workers(plan_cells(read_plan(plan(walled, SLOWER)), plugins=[walled.plugin])) == 1
